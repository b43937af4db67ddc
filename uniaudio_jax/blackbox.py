"""The black box: what a skipped update leaves, so that it can be looked at and measured again.

RUN/incidents/step_N holds the weights of that moment (weights/, by Orbax), the batch (batch.npz), what was measured
(numbers.npz), the worst example as audio, and incident.json, which says the rest in words and numbers.
`python -m uniaudio_jax.replay RUN/incidents/step_N` measures it again.
"""

import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from tqdm import tqdm

from uniaudio_jax.audio.files import write_audio
from uniaudio_jax.codec.codec import load_codec
from uniaudio_jax.config import RunConfig
from uniaudio_jax.config_files import to_dict
from uniaudio_jax.distributed import ProcessInfo
from uniaudio_jax.errors import attempt
from uniaudio_jax.evidence import (
    Example,
    batch_arrays,
    facts,
    frames_of,
    measure,
    same_bits,
    save_arrays,
    whole,
    worst_first,
)
from uniaudio_jax.files import write_json
from uniaudio_jax.loss import Tally
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.optim import TrainState
from uniaudio_jax.paths import Place, absolute
from uniaudio_jax.programs import Metrics, Programs
from uniaudio_jax.sequence import MASK_CODE, Batch, Frames, from_frames
from uniaudio_jax.sinks import Log
from uniaudio_jax.spikes import loss_limit
from uniaudio_jax.tasks import KINDS

FOLDER, FILE, BATCH, NUMBERS, WEIGHTS = "incidents", "incident.json", "batch.npz", "numbers.npz", "weights"


class Skipped(NamedTuple):
    """An update, counted from 1, of which it is not yet known whether it was skipped."""

    step: int
    metrics: Metrics


class BlackBox:
    """Writes the incidents of a training.

    batches_of: the batches on the mesh of an update, counted from 0; rows_of: the numbers of their rows, an array for
    each; examples_of: for a row's number what is known of its examples, in their order.
    """

    def __init__(
        self,
        config: RunConfig,
        out: Place,
        programs: Programs,
        process: ProcessInfo,
        batches_of: Callable[[int], list[Batch]],
        rows_of: Callable[[int], list[jax.Array]],
        examples_of: Callable[[int], list[dict[str, str]]],
    ):
        self.config, self.folder, self.programs, self.process = config, out / FOLDER, programs, process
        self.batches_of, self.rows_of, self.examples_of = batches_of, rows_of, examples_of
        self.written = 0
        self._update: Skipped | None = None

    def expect(self, step: int, metrics: Metrics) -> None:
        """Notes what came of an update; nothing waits for it here."""
        if self.config.train.most_incidents:
            self._update = Skipped(step, metrics)

    def is_due(self) -> bool:
        """Whether the update noted last was skipped; waits for it."""
        return self._update is not None and bool(self._update.metrics.skipped)

    def look_back(self, state: TrainState, log: Log) -> None:
        """Writes the incident of the update noted last, if it was skipped: `state` still has the weights before it.

        A folder is written for the first `most_incidents` of them, the others are only told.
        """
        if not self.is_due():
            return
        assert self._update is not None
        (step, metrics), self._update = self._update, None
        level = jax.device_get(state.level)
        numbers = {
            "loss": float(metrics.tally.mean_loss),
            "limit": float(loss_limit(level, self.config.train.spike_deviations)),
            "gradient_norm": float(metrics.gradient_norm),
        }
        log.scalars(step, {f"incident/{name}": value for name, value in numbers.items()})
        told = f"step {step}: update skipped, {_reason(numbers)}"
        if self.written < self.config.train.most_incidents:
            self.written += 1
            folder = self.folder / f"step_{step}"
            refused = attempt(self._write, folder, step, metrics.tally, state.params, numbers)
            told += f"; the black box could not be written: {refused}" if refused else f"; see {folder}/{FILE}"
            told += "" if refused else f", measure it again with `{_replay_command(folder)}`"
        if self.process.is_first:
            tqdm.write(told)

    def _write(self, folder: Place, step: int, tally: Tally, params: Params, numbers: dict[str, float]) -> None:
        """Measures the update again and writes its folder; each process takes part, the first one writes the files."""
        batches, mesh = self.batches_of(step - 1), self.programs.mesh
        again = measure(self.programs, params, step - 1, batches)
        batches, rows = whole(batches, mesh), whole(self.rows_of(step - 1), mesh)
        with closing(ocp.Checkpointer(ocp.StandardCheckpointHandler())) as checkpointer:
            checkpointer.save(absolute(folder / WEIGHTS), args=ocp.args.StandardSave(params), force=True)
        if not self.process.is_first:
            return
        then = again | {f"tally.{name}": value for name, value in jax.device_get(tally)._asdict().items()}
        save_arrays(folder / BATCH, batch_arrays(batches))
        save_arrays(folder / NUMBERS, then)
        worst = worst_first(batches, then)
        examples = self._described(worst, rows)
        audio = attempt(self._write_audio, folder, frames_of(batches[worst[0].batch], worst[0]))
        incident = {
            "step": step,
            "reason": _reason(numbers),
            **numbers,
            "measured_again_to_the_bit": same_bits(then, again, "tally."),
            "worst_example": examples[0] | {"audio": audio},
            "gradient_norms": {n.removeprefix("norm."): then[n].tolist() for n in then if n.startswith("norm.")},
            "examples": examples,
            "facts": facts(),
            "started_with": shlex.join(sys.orig_argv),
            "replay": _replay_command(folder),
            "config": to_dict(self.config),
        }
        write_json(folder / FILE, incident)

    def _described(self, examples: list[Example], rows: list[np.ndarray]) -> list[dict[str, Any]]:
        """The examples with what is known of them, given the numbers of the rows of each batch."""
        of_row = {int(row): self.examples_of(int(row)) for numbers in rows for row in numbers}
        described = []
        for example in examples:
            row = int(rows[example.batch][example.row])
            described.append({**example._asdict(), "row_of_data": row, **of_row[row][example.segment - 1]})
        return described

    def _write_audio(self, folder: Place, frames: Frames) -> list[str]:
        """Writes each stream of codes of an example as a wav file; returns their names."""
        task, streams = from_frames(frames, self.config.model.ids)
        codec, names = load_codec(self.config.codec_of_tokens()), []
        for stream in task.streams:
            codes = streams[stream.key]
            if KINDS[stream.kind].form == "codes" and len(codes):
                names.append(f"worst_{stream.key}.wav")
                wav = codec.decode(np.where(codes == MASK_CODE, 0, codes))
                write_audio(folder / names[-1], wav, codec.sample_rate_hz)
        return names


def _reason(numbers: Mapping[str, float]) -> str:
    """Why an update was skipped."""
    loss, limit, norm = numbers["loss"], numbers["limit"], numbers["gradient_norm"]
    if np.isfinite(loss) and np.isfinite(norm):
        return f"loss {loss:.5g} above the limit {limit:.5g}"
    return f"loss {loss:.5g}, gradient norm {norm:.5g}"


def _replay_command(folder: Place) -> str:
    return shlex.join(["python", "-m", "uniaudio_jax.replay", str(folder)])
