"""Laws of streams: what comes out piece by piece equals the work on the whole, whatever the pieces."""

import numpy as np
import pytest

from tests.test_codec import random_params
from tests.test_layouts import cut, random_codec
from uniaudio_jax.codec.codec import Codec
from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig, SegmentConfig
from uniaudio_jax.codec.layouts.seanet import SeanetConfig
from uniaudio_jax.codec.layouts.streaming import Chain, Recurrent, Windowed
from uniaudio_jax.codec.segments import SegmentedCodec
from uniaudio_jax.codec.weights import from_torch

QUANTIZER = QuantizerConfig(codebooks=3, entries=31, width=7)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape[0]).normal(0, 0.3, shape).astype(np.float32)


def test_the_cuts_of_a_stream_need_not_lie_between_frames():
    codec = random_codec("frame_rate")
    wav = noise(codec.hop_samples * 41 + 7)
    pieces = list(codec.encoder_chain().through(cut(wav, 3001)))
    np.testing.assert_array_equal(np.concatenate(pieces), codec.encode(wav))


def test_a_causal_layout_waits_for_no_frame_once_it_has_begun():
    codec = random_codec("seanet, causal")
    codes = codec.encode(noise(codec.hop_samples * 23))
    chain = codec.decoder_chain()
    made = [len(chain.push(codes[number : number + 1])) for number in range(len(codes))]
    begun = next(number for number, samples in enumerate(made) if samples)
    assert begun == 6  # kernel 7: the mirror at the start shows the first convolution six later frames
    assert made[begun] == 7 * codec.hop_samples and set(made[begun + 1 :]) == {codec.hop_samples}


def test_a_window_holds_no_more_than_its_sides_and_the_new_frames():
    seen = []

    def run(x: np.ndarray) -> np.ndarray:
        seen.append(len(x))
        return x

    chain = Chain([Windowed(run, left=3, right=2, start=1)])
    out = np.concatenate(list(chain.through(cut(np.arange(101), 5))))
    np.testing.assert_array_equal(out, np.arange(101))
    assert max(seen) == 5 + 3 + 2 + 1


def test_a_recurrent_stage_carries_its_state():
    chain = Chain([Recurrent(lambda x, state: (np.cumsum(x) + (state or 0), np.sum(x) + (state or 0)))])
    out = np.concatenate(list(chain.through(cut(np.arange(11), 3))))
    np.testing.assert_array_equal(out, np.cumsum(np.arange(11)))


SEGMENTED = CodecConfig(
    name="segmented",
    layout=SeanetConfig(filters=2, channels=2, norm="time_group_norm"),
    quantizer=QUANTIZER,
    sample_rate_hz=4800,
    segment=SegmentConfig(samples=4800, stride=4752),
)


@pytest.mark.parametrize("samples", (331, 4752, 4801, 11003))
def test_segments_equal_encodec(encodec_model, samples):
    import torch
    from encodec.modules.seanet import SEANetDecoder, SEANetEncoder
    from encodec.quantization.vq import ResidualVectorQuantizer

    torch.manual_seed(3)
    sizes = {"channels": 2, "n_filters": 2, "dimension": QUANTIZER.width, "norm": "time_group_norm"}
    quantizer = ResidualVectorQuantizer(dimension=QUANTIZER.width, n_q=3, bins=32)
    model = encodec_model.EncodecModel(
        SEANetEncoder(**sizes), SEANetDecoder(**sizes), quantizer, [1.0], 4800, 2, normalize=True, segment=1.0
    ).eval()
    for name, tensor in quantizer.state_dict().items():
        if name.endswith("embed"):
            tensor.copy_(torch.randn_like(tensor))
    config = CodecConfig(**{**vars(SEGMENTED), "quantizer": QuantizerConfig(codebooks=3, entries=32, width=7)})
    codec = SegmentedCodec(Codec(config, from_torch({n: t.numpy() for n, t in model.state_dict().items()}, config)))
    wav = noise(samples, 2)
    with torch.no_grad():
        wanted = model.encode(torch.from_numpy(wav.T)[None])
        segments = codec.encode(wav)
        assert len(segments) == len(wanted)
        for segment, (codes, scale) in zip(segments, wanted, strict=True):
            np.testing.assert_array_equal(segment.codes, codes[0].T)
            np.testing.assert_allclose(segment.scale, float(scale), rtol=1e-6)
        decoded = model.decode(wanted)[0].T.numpy()
    np.testing.assert_allclose(codec.decode(segments), decoded, rtol=0, atol=1e-4)
    assert codec.decode(segments, samples).shape == (samples, 2)


def test_a_codec_of_segments_is_no_stream():
    codec = Codec(SEGMENTED, random_params(SEGMENTED))
    with pytest.raises(ValueError, match="frames depend on the whole recording"):
        codec.decoder_chain()
    with pytest.raises(ValueError, match="got a codec without segments"):
        SegmentedCodec(random_codec("seanet, causal"))
    with pytest.raises(ValueError, match=r"got a waveform of shape \(7,\)"):
        codec.encode_many([noise(7)])
