"""Slow proofs: the public layouts at full size against the package `encodec`, and an hour of audio in bounded space."""

import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile

from tests.small_run import REPO, environment
from uniaudio_jax.codec.codec import Codec
from uniaudio_jax.codec.public import PUBLIC_CODECS
from uniaudio_jax.codec.segments import SegmentedCodec
from uniaudio_jax.codec.weights import from_torch

MOST_TIES = 1e-3  # share of codes that may differ, where two distances tie within float error
MEASURED = (
    "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True); "
    "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
)


def random_model(encodec_model, name: str):
    """The package's model of that name with random weights, and codebooks of the size of its embeddings."""
    import torch

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(encodec_model.EncodecModel, name.replace("encodec_", "encodec_model_"))(pretrained=False)
    with torch.no_grad():
        size = float(model.encoder(torch.randn(1, model.channels, model.sample_rate)).std())
        for key, tensor in model.state_dict().items():
            if key.endswith("embed"):
                tensor.copy_(size * torch.randn_like(tensor))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("name", ("encodec_24khz", "encodec_48khz"))
def test_public_layouts_equal_the_package_at_every_bandwidth(encodec_model, name):
    import torch

    model, config = random_model(encodec_model, name), PUBLIC_CODECS[name]
    state = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    codec = Codec(config, from_torch(state, config))
    wav = np.random.default_rng(1).normal(0, 0.2, (2 * config.sample_rate_hz + 311, model.channels)).astype(np.float32)
    given = wav[:, 0] if model.channels == 1 else wav
    for bandwidth in model.target_bandwidths:
        model.set_target_bandwidth(bandwidth)
        with torch.no_grad():
            wanted = model.encode(torch.from_numpy(wav.T)[None])
            decoded = model.decode(wanted)[0].T.numpy()
        theirs = np.concatenate([codes[0].T for codes, _ in wanted])
        levels = codec.codebooks_of(bandwidth)
        assert theirs.shape[1] == levels
        if config.segment is None:
            ours, back = codec.encode(given, levels), codec.decode(theirs)[:, None]
        else:
            segmented = SegmentedCodec(codec)
            segments = segmented.encode(given, levels)
            ours = np.concatenate([segment.codes for segment in segments])
            same = [s._replace(codes=c[0].T.numpy()) for s, (c, _) in zip(segments, wanted, strict=True)]
            back = segmented.decode(same)
        # A tie at one level changes the levels after it, so only the first difference of a frame counts.
        first = np.cumsum(ours != theirs, axis=1) == 1
        assert np.mean(first & (ours != theirs)) < MOST_TIES
        np.testing.assert_allclose(back, decoded, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("codec", ("tiny_16k", "uniaudio_16k"))
def test_an_hour_passes_in_under_two_gigabytes(codec, tmp_path):
    folder = codec
    if codec == "uniaudio_16k":
        from tests.test_seanet import random_state
        from uniaudio_jax.codec.exchange import import_codec

        folder = tmp_path / "codec"
        import_codec(random_state(PUBLIC_CODECS[codec]), PUBLIC_CODECS[codec], folder, "random")
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(tmp_path / "hour.wav", "w", 44100, 2) as file:
        for _ in range(60):
            file.write(rng.normal(0, 0.1, (60 * 44100, 2)).astype(np.float32))
    for words in (["encode", tmp_path / "hour.wav"], ["decode", tmp_path / "encode" / "hour.npz"]):
        command = [
            sys.executable,
            "-c",
            MEASURED,
            f"uniaudio_jax.codec.{words[0]}",
            words[1],
            "--codec",
            folder,
            "--out",
            tmp_path / words[0],
        ]
        done = subprocess.run(
            list(map(str, command)), cwd=REPO, env=environment(1), capture_output=True, text=True, check=False
        )
        peak = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
        assert peak and int(peak[1]) < 2e6, done.stdout + done.stderr
        print(words[0], codec, peak[0])
    assert soundfile.info(tmp_path / "decode" / "hour.wav").frames == 3600 * 16000
