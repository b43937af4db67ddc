"""Laws of the codec's decoder in plain PyTorch: the same waveforms from the same codes, for every layout."""

import wave

import numpy as np
import pytest

from tests.test_codec import random_params
from tests.test_seanet import CAUSAL, ODD, STEREO, TINY
from uniaudio_jax.codec.codec import Codec, load_codec
from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig, SegmentConfig
from uniaudio_jax.codec.layouts.frame_rate import FrameRateConfig
from uniaudio_jax.codec.standalone import standalone_decoder

torch = pytest.importorskip("torch")
FRAME_RATE = CodecConfig(
    name="frame_rate",
    layout=FrameRateConfig(width=13, hidden=17, encoder_blocks=2, decoder_blocks=3, kernel=5),
    quantizer=QuantizerConfig(codebooks=3, entries=17, width=7),
)


def torch_codec(codec: Codec):
    from uniaudio_jax.pytorch.modeling_codec import Codec as TorchCodec

    made = standalone_decoder(codec.config, codec.params)
    assert made is not None
    sizes, state = made
    theirs = TorchCodec(sizes)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return theirs.eval()


@pytest.mark.parametrize(
    "config", [FRAME_RATE, TINY, CAUSAL, STEREO, ODD], ids=["frame_rate", "seanet", "causal", "stereo", "odd sizes"]
)
@pytest.mark.parametrize(
    "frames", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 23]
)
def test_the_decoder_of_every_layout_gives_the_waveform_of_pytorch(config, frames):
    codec = Codec(config, random_params(config))
    codes = np.random.default_rng(frames).integers(0, 17, (2, frames, 3))
    theirs = torch_codec(codec).decode(torch.from_numpy(codes)).numpy()
    ours = codec.decode(codes)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(theirs / np.abs(ours).max(), ours / np.abs(ours).max(), atol=1e-5)


def test_the_shipped_decoder_gives_the_waveform_of_pytorch_at_any_number_of_levels():
    codec = load_codec("tiny_16k")
    theirs = torch_codec(codec)
    for levels in (1, 3, 8):
        codes = np.random.default_rng(levels).integers(0, 1024, (37, levels))
        np.testing.assert_allclose(theirs.decode(torch.from_numpy(codes)).numpy(), codec.decode(codes), atol=1e-5)


def test_a_codec_of_segments_has_no_standalone_decoder():
    segmented = CodecConfig(
        name="segments", layout=TINY.layout, quantizer=TINY.quantizer, segment=SegmentConfig(samples=640, stride=320)
    )
    assert standalone_decoder(segmented, {}) is None


def test_a_written_wav_holds_the_samples_and_cuts_what_is_too_loud(tmp_path):
    from uniaudio_jax.pytorch.modeling_codec import write_wav

    write_wav(tmp_path / "a.wav", torch.tensor([0.0, 0.5, -1.0, 3.0]), 16000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        samples = np.frombuffer(file.readframes(5), "<i2")
    np.testing.assert_array_equal(samples, [0, 16384, -32767, 32767])
