"""Laws of every codec layout, and of one that only this file knows."""

import functools
import json
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.test_codec import noise, random_params
from uniaudio_jax.codec import codec as codec_module
from uniaudio_jax.codec.codec import Codec, load_codec, save_codec
from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig
from uniaudio_jax.codec.layouts import LAYOUTS, Layout
from uniaudio_jax.codec.layouts.frame_rate import FrameRateConfig
from uniaudio_jax.codec.layouts.seanet import SeanetConfig

QUANTIZER = QuantizerConfig(codebooks=3, entries=31, width=5)


@dataclass(frozen=True, kw_only=True)
class FoldConfig(Layout):
    """A matrix product for each hop of samples, and one back."""

    kind: ClassVar[str] = "fold"

    hop_samples: int = 7

    def build(self, width: int, *, sample_rate_hz: int, rngs: nnx.Rngs) -> "Fold":
        return Fold(self.hop_samples, width, rngs=rngs)


class Fold(nnx.Module):
    def __init__(self, hop_samples: int, width: int, *, rngs: nnx.Rngs):
        self.encoder = nnx.Linear(hop_samples, width, rngs=rngs)
        self.decoder = nnx.Linear(width, hop_samples, rngs=rngs)
        self.hop_samples = hop_samples

    def encode(self, wav, frames=None):
        full = jnp.pad(wav, ((0, 0), (0, -wav.shape[1] % self.hop_samples)))
        return self.encoder(full.reshape(len(wav), -1, self.hop_samples))

    def decode(self, vectors, frames=None):
        return self.decoder(vectors).reshape(len(vectors), -1)


EXAMPLES = {
    "frame_rate": FrameRateConfig(width=13, hidden=17, mel_bands=11, encoder_blocks=2, decoder_blocks=3),
    "seanet": SeanetConfig(filters=2, ratios=(4, 5), lstm_layers=2),
    "seanet, causal": SeanetConfig(filters=2, ratios=(4, 5), lstm_layers=2, causal=True),
    "seanet, odd sizes": SeanetConfig(filters=2, ratios=(5, 3), lstm_layers=1, kernel=5),
    "fold": FoldConfig(),
}
every_layout = pytest.mark.parametrize("example", EXAMPLES)


@functools.cache
def random_codec(example: str) -> Codec:
    config = CodecConfig(name="random", layout=EXAMPLES[example], quantizer=QUANTIZER)
    return Codec(config, random_params(config))


def cut(items: np.ndarray, size: int) -> list[np.ndarray]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def test_every_layout_has_an_example():
    assert set(LAYOUTS) < {layout.kind for layout in EXAMPLES.values()}


@every_layout
def test_a_batch_of_mixed_lengths_equals_one_by_one_and_keeps_each_length(example):
    codec = random_codec(example)
    hop = codec.hop_samples
    wavs = [noise(samples, seed) for seed, samples in enumerate((1, hop + 11, 19 * hop, hop + 11, 47 * hop - 1))]
    together = codec.encode_many(wavs)
    decoded = codec.decode_many(together, [len(wav) for wav in wavs])
    for wav, codes, out in zip(wavs, together, decoded, strict=True):
        assert codes.shape == (codec.clock.frames_of_samples(len(wav)), 3) and out.shape == wav.shape
        np.testing.assert_array_equal(codes, codec.encode(wav))
        np.testing.assert_allclose(out, codec.decode(codes, samples=len(wav)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames", (1, 37))
@every_layout
def test_streams_of_pieces_equal_the_whole(example, frames):
    codec = random_codec(example)
    wav = noise(codec.hop_samples * frames - min(frames - 1, 3))
    codes = codec.encode(wav)
    pieces = list(codec.encoder_chain().through(cut(wav, 9 * codec.hop_samples)))
    np.testing.assert_array_equal(np.concatenate(pieces), codes)
    pieces = list(codec.decoder_chain().through(cut(codes, 11)))
    np.testing.assert_allclose(np.concatenate(pieces), codec.decode(codes), rtol=0, atol=1e-5)


@every_layout
def test_a_long_recording_in_pieces_equals_the_whole(example, monkeypatch):
    codec = random_codec(example)
    wav = noise(codec.hop_samples * 61 - 5)
    codes = codec.encode(wav)
    decoded = codec.decode(codes)
    monkeypatch.setattr(codec_module, "PIECE_FRAMES", 17)
    np.testing.assert_array_equal(codec.encode(wav), codes)
    np.testing.assert_allclose(codec.decode(codes), decoded, rtol=0, atol=1e-5)


@every_layout
def test_a_saved_codec_loads_equal(example, tmp_path, monkeypatch):
    layout = EXAMPLES[example]
    monkeypatch.setitem(LAYOUTS, layout.kind, type(layout))
    codec = random_codec(example)
    save_codec(tmp_path, codec.config, codec.params, {"licence": "none"}, precision="float32")
    loaded = load_codec(tmp_path)
    assert loaded.config == codec.config and loaded.passport()["licence"] == "none"
    assert loaded.passport()["layout"] == layout.kind
    for wanted, got in zip(jax.tree.leaves(codec.params), jax.tree.leaves(loaded.params), strict=True):
        np.testing.assert_array_equal(wanted, got)


def test_a_codec_of_an_unknown_layout_is_refused(tmp_path):
    codec = random_codec("fold")
    save_codec(tmp_path, codec.config, codec.params)
    assert json.loads((tmp_path / "passport.json").read_text())["config"]["layout_kind"] == "fold"
    with pytest.raises(ValueError, match="got layout 'fold', wanted one of frame_rate, seanet"):
        load_codec(tmp_path)
