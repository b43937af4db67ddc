"""Codec speed: our SEANet port against the package `encodec` with the same weights, and the shipped codec."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from uniaudio_jax.bench.options import RoundsOptions
from uniaudio_jax.bench.timing import report, side_by_side
from uniaudio_jax.codec.codec import Codec, load_codec
from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig
from uniaudio_jax.codec.layouts.seanet import SeanetConfig
from uniaudio_jax.codec.module import with_params
from uniaudio_jax.codec.weights import from_torch
from uniaudio_jax.packages import load_package, stand_in

SAMPLE_RATE_HZ = 16000
TRAIN_ROWS, TRAIN_SECONDS = 8, 1
LEARNING_RATE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Options(RoundsOptions):
    """Encoding, decoding, and a training step on 8 clips of a second."""

    rows: int = 1
    """Clips that are encoded or decoded together."""
    seconds: float = 10.0
    """Length of these clips."""
    filters: int = 32
    """Base width of the SEANet; 32 is the public size."""
    rounds: int = 5
    """Rounds that are measured, after the warm-up."""


def run(options: Options) -> dict[str, Any]:
    """Seconds of audio per second to decode, encode and train, by rival, and the ratios to PyTorch."""
    config = CodecConfig(
        name="uniaudio_16k",
        layout=SeanetConfig(filters=options.filters),
        quantizer=QuantizerConfig(codebooks=3, entries=1024, width=256),
    )
    torch, theirs = load_encodec(config)
    ours = Codec(config, from_torch({name: value.numpy() for name, value in theirs.state_dict().items()}, config))
    tiny, seconds = load_codec("tiny_16k"), options.rows * options.seconds
    wav = noise(options.rows, options.seconds)
    codes = ours.encode(wav)
    their_decode, their_encode = coding_of_encodec(torch, theirs, wav, codes)
    decode = {
        "decode seanet": lambda: ours.decode(codes),
        "decode encodec (pytorch)": their_decode,
        "decode tiny_16k": lambda: tiny.decode(codes),
    }
    encode = {
        "encode seanet": lambda: ours.encode(wav),
        "encode encodec (pytorch)": their_encode,
        "encode tiny_16k": lambda: tiny.encode(wav),
    }
    train_wav = noise(TRAIN_ROWS, TRAIN_SECONDS)
    train = {
        "train seanet": training_step(config, ours.params, train_wav),
        "train encodec (pytorch)": training_step_of_encodec(torch, theirs, train_wav),
    }
    result: dict[str, Any] = {"unit": "audio s/s", "rates": {}, "ratios": {}, "rounds": options.rounds}
    for rivals, amount in ((decode, seconds), (encode, seconds), (train, TRAIN_ROWS * TRAIN_SECONDS)):
        measured = report(side_by_side(rivals, options.rounds), next(iter(rivals)), "audio s", amount)
        result["rates"] |= measured["rates"]
        result["ratios"] |= {name: ratio for name, ratio in measured["ratios"].items() if "pytorch" in name}
    return result


def noise(rows: int, seconds: float) -> Float[np.ndarray, "B S"]:
    """Quiet noise at 16 kHz."""
    samples = round(seconds * SAMPLE_RATE_HZ)
    return np.random.default_rng(rows).normal(0, 0.1, (rows, samples)).astype(np.float32)


def load_encodec(config: CodecConfig) -> tuple[Any, Any]:
    """(torch, a module with encoder, decoder and quantizer of the package `encodec`), with random weights.

    Raises ValueError when one of the packages is missing.
    """
    names = ("torch", "encodec.modules.seanet", "encodec.quantization.vq")
    with stand_in("torchaudio"):  # encodec imports it for files, which we do not read
        torch, seanet, vq = (load_package(name, "bench codec", "bash launch/install.sh test") for name in names)
    layout, quantizer = config.layout, config.quantizer
    assert isinstance(layout, SeanetConfig)
    sizes = {
        "n_filters": layout.filters,
        "dimension": quantizer.width,
        "ratios": list(layout.ratios),
        "causal": False,
        "norm": "weight_norm",
        "true_skip": False,
        "lstm": layout.lstm_layers,
    }
    torch.manual_seed(0)
    codec = torch.nn.Module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the package's weight norm
        codec.encoder, codec.decoder = seanet.SEANetEncoder(**sizes), seanet.SEANetDecoder(**sizes)
    codec.quantizer = vq.ResidualVectorQuantizer(quantizer.width, quantizer.codebooks, quantizer.entries)
    for name, tensor in codec.quantizer.state_dict().items():
        tensor.copy_(torch.randn_like(tensor) if name.endswith("embed") else torch.ones_like(tensor))
    return torch, codec.eval()


def coding_of_encodec(torch: Any, codec: Any, wav: np.ndarray, codes: np.ndarray) -> tuple[Callable, Callable]:
    """(decode, encode) of the package `encodec`, on these codes [B, T, Q] and this waveform [B, S]."""
    levels, waveform = torch.from_numpy(codes.astype(np.int64)).permute(2, 0, 1), torch.from_numpy(wav)[:, None]

    @torch.no_grad()
    def decode() -> None:
        codec.decoder(codec.quantizer.decode(levels))

    @torch.no_grad()
    def encode() -> None:
        codec.quantizer.vq.encode(codec.encoder(waveform))

    return decode, encode


def training_step(config: CodecConfig, params: dict, wav: np.ndarray) -> Callable[[], None]:
    """A step from waveform to waveform without the quantiser: squared error, gradients, AdamW."""
    target, optimizer = jnp.asarray(wav), optax.adamw(LEARNING_RATE)

    def loss(params: dict) -> Array:
        module = with_params(config, params)
        return jnp.mean(jnp.square(module.decode(module.encode(target)) - target))

    @jax.jit
    def update(params: dict, moments: Any) -> tuple[dict, Any]:
        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments  # pyright: ignore[reportReturnType]

    weights = jax.tree.map(jnp.asarray, {part: params[part] for part in ("encoder", "decoder")})
    state = [weights, optimizer.init(weights)]

    def step() -> None:
        state[:] = jax.block_until_ready(update(*state))

    return step


def training_step_of_encodec(torch: Any, codec: Any, wav: np.ndarray) -> Callable[[], None]:
    """The same step of the package `encodec`."""
    weights = [*codec.encoder.parameters(), *codec.decoder.parameters()]
    optimizer = torch.optim.AdamW(weights, LEARNING_RATE)
    target = torch.from_numpy(wav)[:, None]

    def step() -> None:
        optimizer.zero_grad()
        (codec.decoder(codec.encoder(target)) - target).square().mean().backward()
        optimizer.step()

    return step
