"""The audio and the texts of the first clips of a task, in RUN/evaluation/<task>/."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uniaudio_jax.audio.files import write_audio
from uniaudio_jax.evaluation.examples import ORIGINAL, RESYNTHESIS, Judged
from uniaudio_jax.evaluation.rows import GENERATED
from uniaudio_jax.metrics.sample import Sample
from uniaudio_jax.paths import Place
from uniaudio_jax.tasks import KINDS, Task

FOLDER = "evaluation"
ROLES = {ORIGINAL: "ground_truth", RESYNTHESIS: "codec", GENERATED: "generated"}
"""Names, in files, of the rows that are kept."""


def keep_clip(
    run: Place, task: Task, number: int, judged: Judged, rows: Mapping[str, Sequence[Sample]]
) -> dict[str, Any]:
    """Writes the waveforms of one clip, and returns their names from the run's folder on and its texts, by role."""
    rate_hz, files, texts = judged.samples[number].sample_rate_hz, {}, {}
    waveforms: dict[str, np.ndarray] = {}
    for row, role in ROLES.items():
        if row in rows:
            sample = rows[row][number]
            if task.makes_audio:
                waveforms[role] = sample.estimate
            elif sample.estimate_text is not None:
                texts[role] = sample.estimate_text
    if not task.makes_audio:
        texts["reference"] = judged.samples[number].text or ""
    for stream in task.conditions:
        if KINDS[stream.kind].form == "codes":
            waveforms[stream.key] = judged.samples[number].conditions[stream.key]
    for role, wav in waveforms.items():
        files[role] = f"{FOLDER}/{task.name}/{number}.{role}.wav"
        write_audio(run / files[role], wav, rate_hz)
    return {"files": files, "texts": texts}
