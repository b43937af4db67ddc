"""Trained models that come with the package: their weights as integers in a folder, a run folder when one is used.

Of a matrix each column, of a table each row, is kept as integers from -127 to 127 and a scale. A model is unpacked into
an ordinary run folder below UNIAUDIO_CACHE the first time that its name stands where a run is wanted: everything that
works with a run works with it. `uniaudio_jax.ship` writes such folders.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from uniaudio_jax.checkpoint import Checkpoints
from uniaudio_jax.copies import cache_folder
from uniaudio_jax.files import read_json
from uniaudio_jax.paths import Place, to_place
from uniaudio_jax.trees import unflatten

SHIPPED = Path(__file__).parent / "weights"
DEFAULT = "universal_tiny"
WEIGHTS_FILE, PASSPORT_FILE, VOICES = "weights.safetensors", "passport.json", "voices"
INSTALL_AGAIN = "the passport of a shipped model; install the package again"
DEFAULTS = ("paces", "temperatures", "guidances")
"""What a passport says of tasks, each a number by the task's name, for where a user says nothing."""
SCALE = ".scale_of_integers"
"""Ending of the name of the scales that belong to an array of integers."""
ROWS_OF = {"vocab", "positions"}
"""Arrays whose first axis is one of these are tables, of which each row has its scale."""


def to_integers(array: np.ndarray, axes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Integers and scales by the endings of their names: of each row of a table, of each column of a matrix.

    A vector is kept as it is.
    """
    array = np.asarray(array, np.float32)
    if sum(name not in ("layers", "levels") for name in axes) < 2:
        return {"": array}
    scale = np.abs(array).max(axis=-1 if axes[0] in ROWS_OF else -2, keepdims=True) / 127
    whole = np.rint(array / np.where(scale > 0, scale, 1)).astype(np.int8)
    return {"": whole, SCALE: scale}


def from_integers(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The float32 arrays of `to_integers`, by the names before the endings."""
    return {
        name: array.astype(np.float32) * arrays.get(name + SCALE, np.float32(1))
        for name, array in arrays.items()
        if not name.endswith(SCALE)
    }


def shipped_models() -> dict[str, Path]:
    """The folders of the models that come with the package, by name."""
    return {path.parent.name: path.parent for path in sorted(SHIPPED.glob(f"*/{PASSPORT_FILE}"))}


def voices_of(run: Place) -> dict[str, Path]:
    """The recordings of voices that lie in a run folder, by name."""
    return {path.stem: path for path in sorted(Path(run).glob(f"{VOICES}/*.wav"))} if isinstance(run, Path) else {}


def place_of_run(name_or_place: str | Place) -> Place:
    """The run folder that a place names or, where there is none, that of the shipped model of this name."""
    place = to_place(name_or_place)
    models = shipped_models()
    return unpacked(models[str(place)]) if str(place) in models and not place.is_dir() else place


def unpacked(folder: Path) -> Path:
    """The run folder of a shipped model, written below the cache where it is not there yet, whole or not at all.

    Raises ValueError where the weights are not those of the passport.
    """
    passport = read_json(folder / PASSPORT_FILE, INSTALL_AGAIN, ("weights_sha256", "step", *DEFAULTS, "meta"))
    sha256 = passport["weights_sha256"]
    own = hashlib.sha256((folder / PASSPORT_FILE).read_bytes()).hexdigest()
    run = cache_folder() / "models" / f"{folder.name}-{own[:16]}"
    if run.is_dir():
        return run
    blob = (folder / WEIGHTS_FILE).read_bytes()
    if (got := hashlib.sha256(blob).hexdigest()) != sha256:
        raise ValueError(
            f"{folder / WEIGHTS_FILE}: got weights of sha256 {got[:16]}…, wanted {sha256[:16]}… ({PASSPORT_FILE}); "
            f"{INSTALL_AGAIN}"
        )
    params = unflatten(
        {name: jnp.asarray(array) for name, array in from_integers(safetensors.numpy.load(blob)).items()}
    )
    run.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{run.name}.", dir=run.parent))
    checkpoints = Checkpoints(partial)
    defaults = {name: passport[name] for name in DEFAULTS}
    checkpoints.save(passport["step"], {"params": params}, passport["meta"] | defaults)
    checkpoints.close()
    if (folder / VOICES).is_dir():
        shutil.copytree(folder / VOICES, partial / VOICES)
    try:
        os.replace(partial, run)
    except OSError:
        shutil.rmtree(partial)
        if not run.is_dir():  # another process was first where it is
            raise
    return run
