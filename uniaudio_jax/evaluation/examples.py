"""Held-out examples of a task with what they are compared with: the original audio, or the codec's resynthesis."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_pipelines.heldout import Example, HeldOut
from data_pipelines.originals import Originals
from uniaudio_jax.metrics.sample import Sample
from uniaudio_jax.run import Run
from uniaudio_jax.tasks import KINDS, Task

ORIGINAL, RESYNTHESIS, REFERENCE = "ground truth", "codec resynthesis", "reference"


class Judged(NamedTuple):
    """The examples of a task that are judged.

    reference: what their references are, one of ORIGINAL and RESYNTHESIS, or REFERENCE where the task makes text;
    samples: with the references as their own estimates; resynthesis: of each reference, None where it is text; others:
    the reference of another clip, for each, or none at all.
    """

    reference: str
    examples: list[Example]
    samples: list[Sample]
    resynthesis: list[np.ndarray] | None
    others: list[Sample]


def judged_examples(run: Run, task: Task, heldout: HeldOut, examples: Sequence[Example], count: int) -> Judged:
    """The first `count` examples. Audio is compared with the original where the corpus that the tokens were made from
    is still there, and else with the codec's resynthesis, which a printed line tells."""
    first, numbers = list(examples[:count]), other_clips(task, examples, count)
    needed = dict.fromkeys([*range(len(first)), *numbers])
    if not task.makes_audio:
        samples = {number: sample_of(run, task, examples[number], None) for number in needed}
        others = [samples[number] for number in numbers]
        return Judged(REFERENCE, first, [samples[number] for number in range(len(first))], None, others)
    made = {number: run.waveform_of(examples[number].streams[task.target.key]) for number in needed}
    originals = _originals(run, task, heldout, {number: examples[number] for number in needed})
    references = made if originals is None else originals
    samples = {number: sample_of(run, task, examples[number], references[number]) for number in needed}
    return Judged(
        RESYNTHESIS if originals is None else ORIGINAL,
        first,
        [samples[number] for number in range(len(first))],
        [made[number] for number in range(len(first))],
        [samples[number] for number in numbers],
    )


def _originals(run: Run, task: Task, heldout: HeldOut, examples: dict[int, Example]) -> dict[int, np.ndarray] | None:
    """The waveforms of these examples as they were before the codec, or None where one of them cannot be had."""
    try:
        passports = {view.corpus: view.columns[task.target.key].passport for view in heldout.views}
        corpora = {example.corpus for example in examples.values()}
        sources = {name: Originals(passports[name], task.target, heldout.split, run.tokenizers) for name in corpora}
        return {
            number: sources[example.corpus].waveform(example.id, len(example.streams[task.target.key]))
            for number, example in examples.items()
        }
    except (ValueError, OSError) as error:
        print(f"{task.name}: compared with the codec's resynthesis, as the originals are not to be had ({error})")
        return None


def sample_of(run: Run, task: Task, example: Example, reference: np.ndarray | None) -> Sample:
    """A held-out example whose estimate is its reference: this waveform, or None where the task makes ids."""
    conditions = {}
    for stream in task.conditions:
        items = example.streams[stream.key]
        conditions[stream.key] = run.waveform_of(items) if KINDS[stream.kind].form == "codes" else items
    target = example.streams[task.target.key] if reference is None else reference
    text = example.text if task.makes_audio else run.text_of(task.name, target)
    return Sample(
        id=example.id,
        reference=target,
        estimate=target,
        sample_rate_hz=run.codec.sample_rate_hz,
        text=text,
        estimate_text=None if task.makes_audio else text,
        conditions=conditions,
        speaker=example.speaker,
    )


def other_clips(task: Task, examples: Sequence[Example], count: int) -> list[int]:
    """The number of an example of another clip for each of the first `count`, below `count` if there is such a one.

    None at all where an example has no other. A clip may come twice: equal ids, or equal codes, are one clip; equal
    labels are not.
    """
    others = []
    for number, example in enumerate(examples[:count]):
        target = example.streams[task.target.key]
        first = len(examples[:count])
        for candidate in (*range(number + 1, first), *range(number), *range(first, len(examples))):
            other = examples[candidate]
            same = task.makes_audio and np.array_equal(other.streams[task.target.key], target)
            if other.id != example.id and not same:
                others.append(candidate)
                break
    return others if len(others) == len(examples[:count]) else []
