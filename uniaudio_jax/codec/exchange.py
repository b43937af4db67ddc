"""SEANet codecs from and to the files of the PyTorch projects: a state dict, and a JSON of sizes beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig, SegmentConfig
from uniaudio_jax.codec.layouts.seanet import SeanetConfig
from uniaudio_jax.codec.storage import PASSPORT_FILE, read_codec, save_codec
from uniaudio_jax.codec.weights import from_torch, to_torch

SIZES = {
    "n_filters": "filters",
    "ratios": "ratios",
    "lstm_layers": "lstm_layers",
    "causal": "causal",
    "norm": "norm",
    "channels": "channels",
    "compress": "compress",
    "kernel_size": "kernel",
    "residual_kernel_size": "residual_kernel",
}
"""The layout's fields: their names, and ours."""
REQUIRED = ("n_filters", "dimension", "ratios", "sample_rate", "bins", "codebooks_stored")
FIXED = {"pad_mode": "reflect", "activation": "ELU"}
OTHERS = ("name", "codebooks_used_by_lm", "segment_samples", "segment_stride")


def config_from_json(values: Mapping[str, Any]) -> CodecConfig:
    """The config of a JSON of sizes. Raises ValueError that names missing, unknown and unsupported keys."""
    known = {*REQUIRED, *SIZES, *FIXED, *OTHERS}
    problems = [f"no {key}" for key in REQUIRED if key not in values]
    problems += [f"unknown {key}" for key in values if key not in known]
    problems += [
        f"{key} = {values[key]!r} (wanted {want!r})" for key, want in FIXED.items() if values.get(key, want) != want
    ]
    if problems:
        optional = ", ".join(key for key in SIZES if key not in REQUIRED)
        raise ValueError(
            f"codec config: {', '.join(problems)}; wanted the keys {', '.join(REQUIRED)}, and where they "
            f"differ from the public codec's {optional}"
        )
    sizes = {ours: values[theirs] for theirs, ours in SIZES.items() if theirs in values}
    segment = None
    if values.get("segment_samples"):
        segment = SegmentConfig(samples=values["segment_samples"], stride=values["segment_stride"])
    quantizer = QuantizerConfig(codebooks=values["codebooks_stored"], entries=values["bins"], width=values["dimension"])
    return CodecConfig(
        name=values.get("name", "imported"),
        quantizer=quantizer,
        segment=segment,
        layout=SeanetConfig(**{**sizes, "ratios": tuple(sizes["ratios"])}),
        sample_rate_hz=values["sample_rate"],
    )


def config_to_json(config: CodecConfig) -> dict[str, Any]:
    """The inverse of `config_from_json`, for a SEANet codec."""
    quantizer, segment = config.quantizer, config.segment
    values = {
        "name": config.name,
        "dimension": quantizer.width,
        "bins": quantizer.entries,
        "codebooks_stored": quantizer.codebooks,
        "sample_rate": config.sample_rate_hz,
        **{theirs: getattr(config.layout, ours) for theirs, ours in SIZES.items()},
        **FIXED,
    }
    if segment is not None:
        values |= {"segment_samples": segment.samples, "segment_stride": segment.stride}
    return values


def import_codec(state: Mapping[str, np.ndarray], config: CodecConfig, out: Path, source: str) -> str:
    """Writes a codec folder with every bit of the state dict; returns the sha256 of its weights."""
    if (out / PASSPORT_FILE).is_file():
        raise ValueError(f"{out}: holds a codec already; give an --out that does not")
    extra = {"imported_from": source, "licence": "that of the imported weights"}
    return save_codec(out, config, from_torch(state, config), extra, precision="float32")


def export_codec(name_or_path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(state dict, JSON of sizes) of a SEANet codec.

    The package's quantiser also stores the running means and counts of its training. A codec that was not imported has
    none: its codebooks stand for the means, with counts of one.
    """
    stored = read_codec(name_or_path)
    books = stored.params["quantizer"]["codebooks"]
    filled = {
        "average": books,
        "cluster_size": np.ones(books.shape[:2], np.float32),
        "inited": np.ones((len(books), 1), np.float32),
    }
    params = {**stored.params, "quantizer": {**filled, **stored.params["quantizer"]}}
    return to_torch(params, stored.config), config_to_json(stored.config)
