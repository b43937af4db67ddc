"""Metrics for Aim (extra package `aim`), in a repository within the run folder."""

from collections.abc import Mapping
from pathlib import Path

from uniaudio_jax.sinks.base import AppendOnlySink, load_package


class AimSink(AppendOnlySink):
    """RUN/.aim; a resumed training goes on with the same Aim run, whose hash RUN/sinks/aim_run.txt keeps."""

    name = "aim"

    def open(self, run: Path) -> None:
        known = run / "sinks" / "aim_run.txt"
        self._run = load_package("aim").Run(repo=str(run), run_hash=known.read_text() if known.is_file() else None)
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(self._run.hash)

    def send(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._run.track(value, name=name, step=step)

    def close(self) -> None:
        self._run.close()
