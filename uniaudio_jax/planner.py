"""Say what a training would need on a slice, without the slice.

    python -m uniaudio_jax.planner configs/paper.py --topology v5e:16x16 --hours 165000

Compiles every program of a training step ahead of time, by the accelerator's own compiler, on a machine without one.
Prints for each device memory, collectives, operations, the least time at the chip's figures and what bounds it, and the
days and chip-hours that a number of hours of audio takes. Sizes and collectives are read off the compiled programs;
times are estimates. `--search` compiles the most promising meshes, rows and ways to compute again, up to six, and keeps
the one with the most utilisation that fits.

Needs `bash launch/install.sh plan` (TPUs: libtpu) or `plan_gpu` (H100s). Any field of the config can be given.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from uniaudio_jax.cli import main_guard, parse_with_config
from uniaudio_jax.config import RunConfig
from uniaudio_jax.errors import require
from uniaudio_jax.files import write_json
from uniaudio_jax.planning.chips import find_devices
from uniaudio_jax.planning.report import describe_plan, describe_roomier, plan_table
from uniaudio_jax.planning.search import make_plan, roomier, search_plans


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Plan a training of a config file."""

    config: tyro.conf.Positional[Path]
    """A Python file whose get_config() returns a RunConfig."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")]
    topology: str = "v5e:16x16"
    """The devices: a generation and its size, such as v5e:16x16, v5p:4x4x8 or h100:8."""
    rows_per_device: int | None = None
    """Rows of each device, instead of what data.rows gives."""
    hours: float | None = None
    """Hours of audio to train on, for days and chip-hours."""
    utilisation: float = 0.4
    """Share of the chip's peak that a real training is taken to reach."""
    search: bool = False
    """Look for the mesh, the rows of a device and the recomputation with the most utilisation."""
    save: Path | None = None
    """A JSON file for all numbers."""

    def __post_init__(self):
        require("--utilisation", 0 < self.utilisation <= 1, str(self.utilisation), "more than 0, at most 1")
        require("--hours", self.hours is None or self.hours > 0, str(self.hours), "more than 0")
        require(
            "--rows-per-device",
            self.rows_per_device is None or self.rows_per_device >= 1,
            str(self.rows_per_device),
            "at least 1",
        )


def main() -> None:
    with main_guard("nothing is kept; a plan starts anew"):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        jax.config.update("jax_platforms", "cpu")
        options = parse_with_config(PlanOptions, "run", "paper.py", __doc__)
        devices = find_devices(options.topology)
        if options.search:
            plan = search_plans(options.run, devices, options.rows_per_device)
        else:
            plan = make_plan(options.run, devices, options.rows_per_device)
        print(plan_table(plan))
        print(describe_plan(plan, options.topology, options.hours, options.utilisation))
        more = None if plan.fits else roomier(plan)
        if more is not None:
            print(describe_roomier(make_plan(more, devices, None)))
        if options.save is not None:
            write_json(options.save, plan.as_json())
            print(f"all numbers in {options.save}")


if __name__ == "__main__":
    main()
