"""Measure a skipped update of a training again.

    python -m uniaudio_jax.replay RUN/incidents/step_17

computes the loss and the gradient of the saved weights and batch with the programs of the training, and prints both
beside what the training found. Exits with 0 when the loss is equal to the bit, else with 1. On the same number of the
same devices it should be; elsewhere sums are added up in another order.
"""

import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tyro
from jax.sharding import Mesh

from uniaudio_jax.blackbox import BATCH, FILE, NUMBERS, WEIGHTS
from uniaudio_jax.cli import main_guard, parse, use_compile_cache
from uniaudio_jax.config import MeshConfig, RunConfig
from uniaudio_jax.config_files import from_dict
from uniaudio_jax.distributed import DistributedOptions, join
from uniaudio_jax.evidence import Arrays, batches_in, facts, mean_loss, measure, same_bits, worst_first
from uniaudio_jax.files import read_json
from uniaudio_jax.metrics.tables import markdown_table
from uniaudio_jax.programs import Programs
from uniaudio_jax.sharding import check_rows, make_mesh, rows_sharding

WANTED = "an incident of a training, such as RUN/incidents/step_17; name that folder"
SHOWN = 5
"""Examples in the table, the worst ones."""


@dataclass(frozen=True, kw_only=True)
class ReplayOptions:
    """Measure a skipped update of a training again."""

    folder: tyro.conf.Positional[Path]
    """Folder of an incident."""
    distributed: DistributedOptions = field(default_factory=DistributedOptions)


def mesh_of(config: RunConfig) -> tuple[Mesh, bool]:
    """The mesh of the config and True, or one of a single device and False where these devices do not make it up."""
    try:
        mesh = make_mesh(config.mesh)
        check_rows(mesh, config.data.rows)
        return mesh, True
    except ValueError:
        return make_mesh(MeshConfig(), jax.devices()[:1]), False


def measure_again(folder: Path, incident: Mapping[str, Any], config: RunConfig, mesh: Mesh) -> Arrays:
    """What `evidence.measure` finds for the saved weights and batch."""
    programs = Programs(config.model, config.train, config.optim, mesh, config.lora)
    with closing(ocp.Checkpointer(ocp.StandardCheckpointHandler())) as checkpointer:
        shapes = programs.state_shapes().params
        params = checkpointer.restore((folder / WEIGHTS).resolve(), args=ocp.args.StandardRestore(shapes))
    place = rows_sharding(mesh)
    batches = jax.tree.map(
        lambda array: jax.make_array_from_callback(array.shape, place, lambda index: array[index]),
        batches_in(arrays_in(folder / BATCH)),
    )
    return measure(programs, params, incident["step"] - 1, batches)


def arrays_in(path: Path) -> Arrays:
    """The arrays of an .npz file."""
    if not path.is_file():
        raise ValueError(f"{path}: got no file, wanted {WANTED}")
    with np.load(path) as file:
        return dict(file)


def comparison(folder: Path, incident: Mapping[str, Any], then: Arrays, now: Arrays) -> str:
    """A table of the loss, the gradients and the worst examples, then and now."""
    rows = [["loss", f"{mean_loss(then):.9g}", f"{mean_loss(now):.9g}", _yes(same_bits(then, now, "tally."))]]
    for name in (name for name in then if name.startswith("norm.")):
        values = [_norm(arrays[name]) for arrays in (then, now)]
        rows.append([f"gradient of {name.removeprefix('norm.')}", *values, _yes(same_bits(then, now, name))])
    losses = {example[:3]: example.loss for example in worst_first(batches_in(arrays_in(folder / BATCH)), now)}
    for example in incident["examples"][:SHOWN]:
        before, again = example["loss"], losses[example["batch"], example["row"], example["segment"]]
        before = float("nan") if before is None else before
        same = np.array_equal(before, again, equal_nan=True)
        rows.append([f"example {example['id']} of {example['dataset']}", f"{before:.9g}", f"{again:.9g}", _yes(same)])
    return markdown_table(["", "then", "now", "equal to the bit"], rows)


def _norm(layers: np.ndarray) -> str:
    """The norm of a gradient, of a stacked one with the layer, counted from 0, where it is largest or not a number."""
    most = int(np.argmax(layers))
    return f"{np.linalg.norm(layers):.5g}" + (f" (layer {most}: {layers[most]:.5g})" if layers.ndim else "")


def _yes(same: bool) -> str:
    return "yes" if same else "no"


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which facts about devices and versions have changed, in words."""
    changed = [f"{name} was {then[name]!r} and is {now[name]!r}" for name in now if then.get(name) != now[name]]
    return "; ".join(changed) or "devices and versions are those of the training"


def main() -> None:
    with main_guard("nothing is written"):
        options = parse(ReplayOptions, __doc__)
        folder = options.folder
        incident = read_json(folder / FILE, WANTED, ("step", "reason", "examples", "facts", "config"))
        config = from_dict(RunConfig, incident["config"], f"{folder / FILE}, config")
        use_compile_cache()
        process = join(options.distributed, folder, config)
        mesh, as_trained = mesh_of(config)
        now, then = measure_again(folder, incident, config, mesh), arrays_in(folder / NUMBERS)
        same = same_bits(then, now, "tally.")
        if process.is_first:
            print(f"step {incident['step']}: {incident['reason']}\n\n{comparison(folder, incident, then, now)}\n")
            if not as_trained:
                print(f"the mesh {incident['config']['mesh']} does not fit these devices: one of them is used")
            if not same:
                print(f"the loss is not equal to the bit: {differences(incident['facts'], facts())}")
    sys.stdout.flush()
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
