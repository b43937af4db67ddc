"""A page to hear, read and vote on finished evaluations.

    python -m uniaudio_jax.report --run RUN [--run OTHER …] --out report.html

One file, which works without a network: players and spectrograms of the same examples of every run beside the ground
truth and the codec's resynthesis of it, metrics with their intervals, curves of the trainings, what the data was, and
a blind vote. It generates nothing itself: `python -m uniaudio_jax.evaluate` comes first.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from uniaudio_jax.checked import Checked
from uniaudio_jax.cli import checked, main_guard
from uniaudio_jax.files import atomic_write, check_folder
from uniaudio_jax.paths import PlaceOption
from uniaudio_jax.report.evaluations import read_evaluations
from uniaudio_jax.report.page import to_html
from uniaudio_jax.shipped import place_of_run


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Checked):
    """What to report on."""

    run: tyro.conf.UseAppendAction[tuple[PlaceOption, ...]]
    """Folder of a training that was evaluated; once for each run to compare."""
    out: Path = Path("report.html")
    """The page to write."""


def main() -> None:
    with main_guard():
        options = checked(tyro.cli(ReportOptions, description=__doc__))
        check_folder("--out", options.out.parent)
        if options.out.is_dir():
            raise ValueError(f"--out: got the folder {options.out}, wanted a file; add a name, such as report.html")
        html = to_html(read_evaluations([place_of_run(run) for run in options.run]))
        with atomic_write(options.out) as partial:
            partial.write_text(html, encoding="utf-8")
        print(f"{options.out}: {len(html) / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    main()
