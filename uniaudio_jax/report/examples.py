"""The held-out examples of a task, matched across runs, with all that can be heard or read of each."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from uniaudio_jax.evaluation.clips import ROLES
from uniaudio_jax.evaluation.examples import REFERENCE
from uniaudio_jax.paths import Place
from uniaudio_jax.report.evaluations import Evaluated, equal_across_runs
from uniaudio_jax.report.media import mp3_address, read_sound, spectrogram_address

ROWS = {REFERENCE: REFERENCE} | {role: row for row, role in ROLES.items()}
"""What is compared, by the role of its files; every other role is a condition."""
MOST_TEXTS = 3
"""Examples shown of a task whose evaluation kept no audio."""


@dataclass(frozen=True)
class Clip:
    """What an example holds in one role; letters: of the runs where it is the same.

    audio, picture: data: addresses, "" for what is a text or is empty. scores: by the name of the metric.
    """

    role: str
    letters: str
    text: str
    audio: str
    picture: str
    seconds: float | None
    scores: Mapping[str, float]

    @property
    def label(self) -> str:
        return ROWS.get(self.role, self.role.replace("_", " "))

    @property
    def is_condition(self) -> bool:
        return self.role not in ROWS


@dataclass(frozen=True)
class Shown:
    """An example; letters: of the runs that were evaluated on it."""

    id: str
    corpus: str
    text: str
    speaker: str
    letters: str
    clips: list[Clip]


Key = tuple[str, str, str]


def samples_by_key(run: Evaluated, task: str) -> dict[Key, dict[str, Any]]:
    """The samples of a task by what they are matched with: corpus, id and text."""
    return {_key(sample): sample for sample in run.tasks[task].get("samples", [])}


def _key(sample: Mapping[str, Any]) -> Key:
    return sample.get("corpus") or "", sample["id"], sample.get("text") or ""


def examples_of(runs: Sequence[Evaluated], task: str) -> list[Shown]:
    """The examples of which some run kept the audio or, where none did, the first of the texts."""
    samples = {run.letter: samples_by_key(run, task) for run in runs}
    keys: dict[Key, None] = {}
    for own in samples.values():
        kept = [key for key, sample in own.items() if sample.get("files")]
        keys |= dict.fromkeys(kept or [key for key, sample in own.items() if sample.get("texts")][:MOST_TEXTS])
    folders = {run.letter: run.folder for run in runs}
    return [_shown(key, {letter: own[key] for letter, own in samples.items() if key in own}, folders) for key in keys]


def _shown(key: Key, samples: Mapping[str, dict[str, Any]], folders: Mapping[str, Place]) -> Shown:
    corpus, name, text = key
    given = dict.fromkeys(
        role for sample in samples.values() for part in ("files", "texts") for role in sample.get(part) or {}
    )
    roles = [*(role for role in given if role not in ROWS), *(role for role in ROWS if role in given)]
    contents = [
        (role, letters, content)
        for role in roles
        for letters, content in equal_across_runs(
            ((letter, _content(folders[letter], sample, role)) for letter, sample in samples.items()), _identity
        )
        if content != (None, "")
    ]
    sounds = [path and read_sound(path) for _, _, (path, _) in contents]
    longest = max((sound.seconds for sound in sounds if sound), default=0.0)
    speaker = next((sample["speaker"] for sample in samples.values() if sample.get("speaker")), "")
    clips = [
        Clip(
            role=role,
            letters=letters,
            text=said,
            audio=mp3_address(sound) if sound and sound.seconds else "",
            picture=spectrogram_address(sound, longest) if sound and sound.seconds else "",
            seconds=sound.seconds if sound else None,
            scores=_scores(samples[letters[0]], role),
        )
        for (role, letters, (_, said)), sound in zip(contents, sounds, strict=True)
    ]
    return Shown(name, corpus, text, speaker, "".join(samples), clips)


def _content(folder: Place, sample: Mapping[str, Any], role: str) -> tuple[Place | None, str]:
    """The file and the text of one role."""
    file = (sample.get("files") or {}).get(role)
    return folder / file if file else None, (sample.get("texts") or {}).get(role) or ""


def _identity(content: tuple[Place | None, str]) -> tuple[str, str]:
    """What is equal for contents that are heard and read the same."""
    path, text = content
    if path is None:
        return "", text
    if not path.is_file():
        raise ValueError(f"{path}: got no file, wanted the audio that evaluation.json names; evaluate the run again")
    return hashlib.sha256(path.read_bytes()).hexdigest(), text


def _scores(sample: Mapping[str, Any], role: str) -> dict[str, float]:
    """The scores that are defined of one sample's ground truth, resynthesis or generated audio."""
    scores = (sample.get("scores") or {}).get(ROWS.get(role), {})
    return {name: total / weight for name, (total, weight) in scores.items() if weight and total is not None}
