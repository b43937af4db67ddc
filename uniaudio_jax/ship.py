"""The weights of a run as a model that comes with the package, whose name then stands for a run.

    python -m uniaudio_jax.ship --run RUN --out uniaudio_jax/weights/NAME --words-per-minute 165

writes them as integers of eight bits with scales (`shipped.py`), and a passport. `python -m uniaudio_jax.evaluate` of
the run and of the model tells what that costs.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from uniaudio_jax.checked import Checked
from uniaudio_jax.cli import main_guard, parse
from uniaudio_jax.files import atomic_write, write_json
from uniaudio_jax.paths import PlaceOption
from uniaudio_jax.run import Run, load_run
from uniaudio_jax.shipped import PASSPORT_FILE, WEIGHTS_FILE, from_integers, to_integers
from uniaudio_jax.trees import flatten


@dataclass(frozen=True, kw_only=True)
class About:
    """What the passport of a shipped model says of it."""

    licence: str = "Apache-2.0"
    """Licence of the weights."""
    words_per_minute: int | None = None
    """Pace at which espeak tells how long phones last where a user gives none; for a model that was trained on phones
    with durations."""


@dataclass(frozen=True, kw_only=True)
class ShipOptions(About, Checked):
    """Write the weights of a run as a model that comes with the package."""

    run: PlaceOption
    """Folder of a training."""
    out: Path
    """Folder of the model, whose name is the model's."""


def pack(run: Run, folder: Path, about: About) -> str:
    """Writes the weights of a run and a passport into a folder; returns a line about them.

    A running mean of the weights is kept as the weights.
    """
    axes, flat = flatten(run.definition.axes()), flatten(run.params)
    packed = {name + end: part for name, array in flat.items() for end, part in to_integers(array, axes[name]).items()}
    blob = safetensors.numpy.save(packed)
    meta = {**run.meta, "config": {**run.meta["config"], "start_from": None}}
    meta["config"] |= {"train": meta["config"]["train"] | {"ema_decay": None}}
    passport = {"weights_sha256": hashlib.sha256(blob).hexdigest(), "step": run.step, **asdict(about), "meta": meta}
    with atomic_write(folder / WEIGHTS_FILE) as partial:
        partial.write_bytes(blob)
    write_json(folder / PASSPORT_FILE, passport)
    error = max(float(np.abs(from_integers(packed)[name] - flat[name]).max()) for name in flat)
    return f"{len(blob) / 1e6:.1f} MB, {len(flat)} arrays of step {run.step}, none more than {error:.2g} off: {folder}"


def main() -> None:
    with main_guard():
        options = parse(ShipOptions, __doc__)
        about = About(licence=options.licence, words_per_minute=options.words_per_minute)
        print("shipped:", pack(load_run(options.run), options.out, about))


if __name__ == "__main__":
    main()
