"""Codec speed: our SEANet port against the package `encodec` with the same weights, and the shipped codec."""

import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from uniaudio_jax.bench.options import CodecBench
from uniaudio_jax.bench.timing import ratios, side_by_side
from uniaudio_jax.codec.codec import Codec, load_codec
from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig
from uniaudio_jax.codec.layouts.seanet import SeanetConfig
from uniaudio_jax.codec.module import with_params
from uniaudio_jax.codec.weights import from_torch

TRAIN_ROWS, TRAIN_SECONDS = 8, 1
LEARNING_RATE = 1e-4


def run(options: CodecBench) -> dict[str, Any]:
    """Seconds of audio per second for encode and decode by rival, and the ratios."""
    layout = SeanetConfig(filters=options.filters)
    config = CodecConfig(
        name="uniaudio_16k", layout=layout, quantizer=QuantizerConfig(codebooks=3, entries=1024, width=256)
    )
    torch, encoder, decoder = _rival(layout, config.quantizer.width)
    rng = np.random.default_rng(0)
    state = {
        f"{part}.{name}": value.numpy()
        for part, module in (("encoder", encoder), ("decoder", decoder))
        for name, value in module.state_dict().items()
    }
    for level in range(3):
        book = rng.normal(size=(1024, 256)).astype(np.float32)
        prefix = f"quantizer.vq.layers.{level}._codebook."
        state |= {
            prefix + "embed": book,
            prefix + "embed_avg": book,
            prefix + "inited": np.ones(1, np.float32),
            prefix + "cluster_size": np.ones(1024, np.float32),
        }
    ours, tiny = Codec(config, from_torch(state, config)), load_codec("tiny_16k")
    samples = round(options.seconds * config.sample_rate_hz)
    wav = rng.normal(0, 0.1, (options.rows, samples)).astype(np.float32)
    codes = rng.integers(0, 1024, (options.rows, config.clock.frames_of_samples(samples), 3))
    books = torch.stack([torch.from_numpy(state[f"quantizer.vq.layers.{n}._codebook.embed"]) for n in range(3)])

    def torch_decode() -> None:
        with torch.no_grad():
            index = torch.from_numpy(codes)
            decoder(torch.stack([books[n][index[..., n]] for n in range(3)]).sum(0).transpose(1, 2))

    def torch_encode() -> None:
        with torch.no_grad():
            left = encoder(torch.from_numpy(wav)[:, None]).transpose(1, 2)
            for book in books:
                left = left - book[torch.cdist(left, book[None]).argmin(-1)]

    decode = side_by_side(
        {
            "decode seanet": lambda: ours.decode(codes),
            "decode encodec (pytorch)": torch_decode,
            "decode tiny_16k": lambda: tiny.decode(codes),
        },
        options.rounds,
    )
    encode = side_by_side(
        {
            "encode seanet": lambda: ours.encode(wav),
            "encode encodec (pytorch)": torch_encode,
            "encode tiny_16k": lambda: tiny.encode(wav),
        },
        options.rounds,
    )
    steps = _train_steps(torch, encoder, decoder, config, ours.params)
    train = side_by_side({"train seanet": steps[0], "train encodec (pytorch)": steps[1]}, options.rounds)
    seconds = options.rows * options.seconds
    medians = {name: float(np.median(times)) for name, times in (decode | encode | train).items()}
    found = ratios(decode, "decode seanet") | ratios(encode, "encode seanet") | ratios(train, "train seanet")
    return {
        "unit": "audio s/s",
        "rates": {
            name: (TRAIN_ROWS * TRAIN_SECONDS if name in train else seconds) / median
            for name, median in medians.items()
        },
        "ratios": {name: ratio for name, ratio in found.items() if "encodec" in name},
        "real_time_factor_tiny_16k_decode": medians["decode tiny_16k"] / seconds,
        "rounds": options.rounds,
    }


def _train_steps(
    torch: Any, encoder: Any, decoder: Any, config: CodecConfig, params: dict
) -> tuple[Callable, Callable]:
    """(ours, theirs): one step from waveform to waveform without the quantiser: squared error, gradients, AdamW."""
    samples = TRAIN_SECONDS * config.sample_rate_hz
    wav = np.random.default_rng(1).normal(0, 0.1, (TRAIN_ROWS, samples)).astype(np.float32)
    given, optimizer = jnp.asarray(wav), optax.adamw(LEARNING_RATE)

    @jax.jit
    def step(params: dict, moments: Any) -> tuple[dict, Any]:
        def loss(params: dict) -> jax.Array:
            module = with_params(config, params)
            return jnp.mean(jnp.square(module.decode(module.encode(given)) - given))

        updates, moments = optimizer.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments  # pyright: ignore[reportReturnType]

    state = [jax.tree.map(jnp.asarray, {part: params[part] for part in ("encoder", "decoder")})]
    state.append(optimizer.init(state[0]))

    def ours() -> None:
        state[:] = jax.block_until_ready(step(*state))

    encoder, decoder = encoder.train(), decoder.train()
    rival = torch.optim.AdamW([*encoder.parameters(), *decoder.parameters()], LEARNING_RATE)
    target = torch.from_numpy(wav)[:, None]

    def theirs() -> None:
        rival.zero_grad()
        (decoder(encoder(target)) - target).square().mean().backward()
        rival.step()

    return ours, theirs


def _rival(layout: SeanetConfig, width: int) -> tuple[Any, Any, Any]:
    """(torch, encoder, decoder) of the package `encodec`, in the public 16 kHz layout, with random weights."""
    sys.modules.setdefault("torchaudio", ModuleType("torchaudio"))  # encodec imports it for files, which we do not read
    try:
        import torch
        from encodec.modules.seanet import SEANetDecoder, SEANetEncoder
    except ImportError as error:
        raise ValueError(f"bench codec: {error}; run `bash launch/test.sh` once, its environment has both") from error
    shared = {
        "n_filters": layout.filters,
        "dimension": width,
        "ratios": list(layout.ratios),
        "causal": False,
        "norm": "weight_norm",
        "true_skip": False,
        "lstm": layout.lstm_layers,
    }
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the package's weight norm
        return torch, SEANetEncoder(**shared).eval(), SEANetDecoder(**shared).eval()
