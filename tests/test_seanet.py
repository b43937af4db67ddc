"""Laws of the SEANet codec: it equals the PyPI package `encodec`, and its weights convert both ways unchanged."""

import functools
import importlib
import json
import math
import types
import warnings
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig
from uniaudio_jax.codec.layouts import conv
from uniaudio_jax.codec.layouts.frame_rate import FrameRateConfig
from uniaudio_jax.codec.layouts.seanet import Seanet, SeanetConfig
from uniaudio_jax.codec.module import with_params
from uniaudio_jax.codec.public import PUBLIC_CODECS
from uniaudio_jax.codec.weights import from_torch, published_tensors, to_torch

FORMAT = Path(__file__).parent / "golden" / "uniaudio_v1_format.json"
PUBLIC = PUBLIC_CODECS["uniaudio_16k"]
TINY = CodecConfig(
    name="tiny", layout=SeanetConfig(filters=4), quantizer=QuantizerConfig(codebooks=3, entries=17, width=13)
)
CAUSAL = replace(TINY, name="causal", layout=SeanetConfig(filters=4, causal=True))
STEREO = replace(TINY, name="stereo", layout=SeanetConfig(filters=4, channels=2, norm="time_group_norm"))
ODD = replace(TINY, layout=SeanetConfig(filters=6, ratios=(5, 3, 2), compress=3, lstm_layers=1, kernel=5))
SMALL = replace(TINY, layout=SeanetConfig(filters=4, ratios=(3,), lstm_layers=1))
LENGTHS = (1, 2, 319, 320, 321, 3201, 16001)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def encodec(encodec_model):
    """The parts of the package `encodec` that the codec is made of."""
    return types.SimpleNamespace(
        seanet=importlib.import_module("encodec.modules.seanet"),
        quantization=importlib.import_module("encodec.quantization"),
    )


def reference(torch, encodec, config: CodecConfig):
    """A PyTorch codec of the config with random weights and outputs of about unit size."""
    layout, quantizer = config.layout, config.quantizer
    assert isinstance(layout, SeanetConfig)
    sizes = {
        "dimension": quantizer.width,
        "n_filters": layout.filters,
        "ratios": list(layout.ratios),
        "kernel_size": layout.kernel,
        "last_kernel_size": layout.kernel,
        "lstm": layout.lstm_layers,
        "residual_kernel_size": layout.residual_kernel,
        "compress": layout.compress,
        "causal": layout.causal,
        "norm": layout.norm,
        "pad_mode": "reflect",
        "true_skip": False,
        "n_residual_layers": 1,
        "channels": layout.channels,
    }
    torch.manual_seed(7)
    codec = torch.nn.Module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codec.encoder = encodec.seanet.SEANetEncoder(**sizes)
        codec.decoder = encodec.seanet.SEANetDecoder(**sizes)
        codec.quantizer = encodec.quantization.ResidualVectorQuantizer(
            dimension=quantizer.width, n_q=quantizer.codebooks, bins=quantizer.entries
        )
    with torch.no_grad():
        for name, tensor in codec.state_dict().items():
            if name.endswith(("weight_g", "norm.weight")):
                tensor *= 1.0 + torch.rand_like(tensor)
            elif name.endswith("norm.bias"):
                tensor.copy_(0.3 * torch.randn_like(tensor))
            elif name.startswith("quantizer"):
                tensor.copy_(torch.randn_like(tensor))
    return codec.eval()


def numpy_state(codec) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in codec.state_dict().items()}


def build(config: CodecConfig, key) -> Seanet:
    assert isinstance(config.layout, SeanetConfig)
    return Seanet(config.layout, config.quantizer.width, rngs=nnx.Rngs(key))


def seanet_of(state: dict[str, np.ndarray], config: CodecConfig) -> Seanet:
    """A Seanet that holds the published state; random weights are never made."""
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: build(config, jax.random.key(0))))
    params = jax.tree.map(jnp.asarray, from_torch(state, config))
    nnx.replace_by_pure_dict(abstract, {part: params[part] for part in ("encoder", "decoder")})
    return nnx.merge(graphdef, abstract)


def random_state(config: CodecConfig, seed: int = 3) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        tensor.name: random.normal(size=tensor.shape).astype(np.float32) * (1.0 if tensor.axes[0] else 0.1)
        for tensor in published_tensors(config)
    }


def waves(rows: int, samples: int, channels: int = 1) -> np.ndarray:
    shape = (rows, samples) if channels == 1 else (rows, samples, channels)
    return np.random.default_rng(samples).normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def compiled(graphdef, method: str, state, x):
    return getattr(nnx.merge(graphdef, state), method)(x)


def run(method, x) -> np.ndarray:
    """A method of a module on an array, compiled once for each module layout and shape."""
    graphdef, state = nnx.split(method.__self__)
    return np.asarray(compiled(graphdef, method.__name__, state, x))


def torch_encode(torch, codec, wav: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        x = torch.from_numpy(wav.reshape(*wav.shape[:2], -1)).transpose(1, 2)
        return codec.encoder(x).transpose(1, 2).numpy()


def torch_decode(torch, codec, vectors: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        wav = codec.decoder(torch.from_numpy(vectors).transpose(1, 2)).transpose(1, 2).numpy()
        return wav[..., 0] if wav.shape[-1] == 1 else wav


@pytest.fixture(scope="module")
def tiny(torch, encodec):
    codec = reference(torch, encodec, TINY)
    return codec, seanet_of(numpy_state(codec), TINY)


def assert_codecs_agree(torch, codec, seanet, config: CodecConfig, samples: int, rows: int):
    assert isinstance(config.layout, SeanetConfig)
    wav = waves(rows, samples, config.layout.channels)
    wanted = torch_encode(torch, codec, wav)
    assert wanted.shape == (rows, math.ceil(samples / config.hop_samples), config.quantizer.width)
    np.testing.assert_allclose(run(seanet.encode, wav), wanted, rtol=0, atol=1e-4)

    vectors = np.random.default_rng(5).normal(size=wanted.shape).astype(np.float32)
    wanted = torch_decode(torch, codec, vectors)
    assert wanted.shape[:2] == (rows, vectors.shape[1] * config.hop_samples)
    assert np.abs(wanted).max() > 0.05, "a silent reference would prove nothing"
    np.testing.assert_allclose(run(seanet.decode, vectors), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("samples", LENGTHS)
def test_vectors_and_audio_equal_encodec_for_any_length(torch, tiny, samples):
    codec, seanet = tiny
    assert_codecs_agree(torch, codec, seanet, TINY, samples, rows=2)


@pytest.mark.parametrize("samples", (1, 31, 1009))
def test_other_ratios_kernels_and_depths_equal_encodec(torch, encodec, samples):
    codec = reference(torch, encodec, ODD)
    assert_codecs_agree(torch, codec, seanet_of(numpy_state(codec), ODD), ODD, samples, rows=3)


@pytest.mark.parametrize("samples", (1, 320, 2017))
@pytest.mark.parametrize("config", (CAUSAL, STEREO), ids=lambda config: config.name)
def test_causal_and_stereo_layouts_equal_encodec(torch, encodec, config, samples):
    codec = reference(torch, encodec, config)
    assert_codecs_agree(torch, codec, seanet_of(numpy_state(codec), config), config, samples, rows=2)


def test_folding_the_weight_norm_changes_nothing():
    assert isinstance(TINY.layout, SeanetConfig)
    params = from_torch(random_state(TINY), TINY)
    folded = replace(TINY, layout=replace(TINY.layout, norm="folded"))
    wav = waves(2, 1009)
    parts = {part: params[part] for part in ("encoder", "decoder")}
    wanted = run(with_params(TINY, parts).encode, wav)
    np.testing.assert_allclose(run(with_params(folded, conv.fold(parts)).encode, wav), wanted, rtol=1e-5, atol=1e-5)


def test_full_size_equals_encodec(torch, encodec):
    codec = reference(torch, encodec, PUBLIC)
    assert_codecs_agree(torch, codec, seanet_of(numpy_state(codec), PUBLIC), PUBLIC, 16001, rows=1)


@pytest.mark.parametrize("config", (ODD, CAUSAL, STEREO), ids=lambda config: config.name)
def test_names_and_shapes_equal_encodec(torch, encodec, config):
    state = numpy_state(reference(torch, encodec, config))
    assert {t.name: t.shape for t in published_tensors(config)} == {name: array.shape for name, array in state.items()}


def test_names_and_shapes_equal_the_published_format():
    published = json.loads(FORMAT.read_text())["codec"]["state_dict"]
    assert {t.name: list(t.shape) for t in published_tensors(PUBLIC)} == published


def test_a_batch_equals_its_rows_one_by_one():
    seanet = seanet_of(random_state(SMALL), SMALL)
    wav = waves(3, 331)
    together = run(seanet.encode, wav)
    alone = np.concatenate([run(seanet.encode, wav[row : row + 1]) for row in range(3)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    decoded = run(seanet.decode, together)
    alone = np.concatenate([run(seanet.decode, together[row : row + 1]) for row in range(3)])
    np.testing.assert_allclose(decoded, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stride", (1, 2, 3, 5))
def test_convolutions_equal_their_definition(stride):
    random = np.random.default_rng(stride)
    kernel = random.normal(size=(2 * stride, 3, 7)).astype(np.float32)
    x = random.normal(size=(2, 11 * stride, 3)).astype(np.float32)
    windows = [x[:, t * stride : (t + 2) * stride] for t in range(10)]
    wanted = np.stack([np.einsum("bki,kio->bo", window, kernel) for window in windows], axis=1)
    np.testing.assert_allclose(conv.convolve(jnp.asarray(x), jnp.asarray(kernel), stride), wanted, rtol=0, atol=1e-5)

    y = random.normal(size=(2, 10, 7)).astype(np.float32)
    wanted = np.zeros_like(x)
    for t in range(10):
        wanted[:, t * stride : (t + 2) * stride] += np.einsum("bo,kio->bki", y[:, t], kernel)
    transposed = conv.convolve_transposed(jnp.asarray(y), jnp.asarray(kernel.transpose(2, 0, 1)), stride)
    np.testing.assert_allclose(transposed, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames", (1, 2, 3, 4, 11))
def test_reflect_padding_equals_encodec(torch, encodec, frames):
    pad1d = importlib.import_module("encodec.modules.conv").pad1d
    x = waves(2, frames)[:, :, None]
    wanted = pad1d(torch.from_numpy(x).transpose(1, 2), (3, 2), mode="reflect").transpose(1, 2).numpy()
    np.testing.assert_array_equal(conv.reflect_pad(jnp.asarray(x), 3, 2), wanted)


@pytest.mark.parametrize("config", (TINY, ODD, STEREO, *PUBLIC_CODECS.values()), ids=lambda config: config.name)
def test_weights_convert_there_and_back_bit_equal(config):
    state = random_state(config)
    seanet = seanet_of(state, config)
    params = {**nnx.to_pure_dict(nnx.state(seanet)), "quantizer": from_torch(state, config)["quantizer"]}
    back = to_torch(params, config)
    assert list(back) == list(state)
    for name, array in state.items():
        assert back[name].dtype == np.float32 and back[name].flags.c_contiguous
        assert back[name].tobytes() == array.tobytes(), name


def test_codebooks_are_stacked_by_level():
    state = random_state(TINY)
    quantizer = from_torch(state, TINY)["quantizer"]
    assert {name: array.shape for name, array in quantizer.items()} == {
        "codebooks": (3, 17, 13),
        "average": (3, 17, 13),
        "cluster_size": (3, 17),
        "inited": (3, 1),
    }
    np.testing.assert_array_equal(quantizer["codebooks"][2], state["quantizer.vq.layers.2._codebook.embed"])


def test_one_error_names_missing_surplus_and_misshapen_tensors():
    state = random_state(TINY)
    del state["encoder.model.0.conv.conv.bias"]
    state["encoder.model.99.bias"] = np.zeros(5, np.float32)
    state["decoder.model.0.conv.conv.weight_v"] = np.zeros((64, 13, 5), np.float32)
    state["decoder.model.0.conv.conv.bias"] = np.zeros(64, np.int32)
    with pytest.raises(ValueError) as error:
        from_torch(state, TINY)
    message = str(error.value)
    assert "4 arrays do not fit" in message
    assert "encoder.model.0.conv.conv.bias: missing, wanted float32 (4,)" in message
    assert "encoder.model.99.bias: surplus, got float32 (5,)" in message
    assert "decoder.model.0.conv.conv.weight_v: wanted float32 (64, 13, 7), got float32 (64, 13, 5)" in message
    assert "decoder.model.0.conv.conv.bias: wanted float32 (64,), got int32 (64,)" in message


def test_export_names_what_does_not_fit():
    params = from_torch(random_state(TINY), TINY)
    del params["encoder"]["first"]["weight_g"]
    params["decoder"]["extra"] = np.zeros(2, np.float32)
    params["decoder"]["last"]["bias"] = np.zeros((2, 1), np.float32)
    params["quantizer"]["codebooks"] = params["quantizer"]["codebooks"][:2]
    with pytest.raises(ValueError) as error:
        to_torch(params, TINY)
    message = str(error.value)
    assert "4 arrays do not fit" in message
    assert "encoder.model.0.conv.conv.weight_g: missing" in message
    assert "decoder.extra: surplus, got float32 (2,)" in message
    assert "decoder.model.15.conv.conv.bias: wanted float32 (1,), got float32 (2, 1)" in message
    assert "quantizer.vq.layers.2._codebook.embed: missing" in message


def test_another_layout_has_no_published_weights():
    with pytest.raises(ValueError, match="got 'frame_rate', wanted one with a PyTorch format"):
        published_tensors(replace(TINY, layout=FrameRateConfig()))


def test_empty_or_misshapen_input_is_refused():
    seanet = seanet_of(random_state(TINY), TINY)
    with pytest.raises(ValueError, match=r"Seanet.encode: got shape \(2, 0\)"):
        seanet.encode(jnp.zeros((2, 0)))
    with pytest.raises(ValueError, match=r"Seanet.decode: got shape \(1, 0, 13\)"):
        seanet.decode(jnp.zeros((1, 0, 13)))


@pytest.mark.slow
def test_a_fresh_codec_has_unit_weight_norm_and_gradients_reach_every_weight():
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: build(SMALL, jax.random.key(0))))
    quick_compile = {"xla_backend_optimization_level": 0}
    state = jax.jit(lambda key: nnx.state(build(SMALL, key)), compiler_options=quick_compile)(jax.random.key(1))
    fresh = nnx.merge(graphdef, state)
    for part in (fresh.encoder.first, fresh.decoder.stages[0].up):
        np.testing.assert_allclose(part.kernel(), part.weight_v[...], rtol=1e-6)
    wav = jnp.asarray(waves(2, 61))

    def loss(state):
        seanet = nnx.merge(graphdef, state)
        return jnp.mean(jnp.square(seanet.decode(seanet.encode(wav))[:, :61] - wav))

    gradients = nnx.to_pure_dict(jax.jit(jax.grad(loss), compiler_options=quick_compile)(state))
    assert all(bool(jnp.all(jnp.isfinite(g)) and jnp.any(g != 0)) for g in jax.tree.leaves(gradients))
