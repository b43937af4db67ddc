"""A clip before an edit, after it, and the order to edit it (tasks of AUDIT, arXiv 2304.00830)."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import signal

from data_pipelines.corpora import Clip
from data_pipelines.mixers.mask import step_span
from data_pipelines.mixers.noise import fitted, rms, safe_gain
from data_pipelines.mixers.pool import TRIES, MixerOptions, Operation, Pool, audible

EVENT_SHARE = (0.3, 1.0)
FADE_SECONDS = 0.01
CUTOFF_HZ = (2000, 3000)
LOWPASS_TAPS = 255
STALE = (
    "language",
    "instruction",
    "labels",
    "midi",
    "phones",
    "content_audio",
    "noisy_audio",
    "mixture_audio",
    "reverberant_audio",
    "masked_seconds",
)
"""Fields that were told of the words or the audio before the edit."""

WORDINGS: dict[Operation, tuple[str, ...]] = {
    "add": ("Add {new}.", "Mix in {new}.", "Put {new} into the recording.", "Let us also hear {new}."),
    "remove": ("Remove {old}.", "Take out {old}.", "Delete {old} from the recording.", "Drop {old}."),
    "replace": ("Replace {old} with {new}.", "Exchange {old} for {new}.", "Take out {old} and put in {new} instead."),
    "inpaint": (
        "Fill in the gap from {start} to {stop} seconds.",
        "Inpaint what is silent from {start} to {stop} seconds.",
        "Restore what is missing between {start} and {stop} seconds.",
    ),
    "super_resolution": (
        "Restore the frequencies above {hertz} Hz.",
        "Add what was filtered out above {hertz} Hz.",
        "Undo the low-pass filter at {hertz} Hz.",
    ),
}


class Edit(NamedTuple):
    """Two sounds of the same length, and the words that the order is made of."""

    source: Float[np.ndarray, " S"]
    target: Float[np.ndarray, " S"]
    words: dict[str, str]


def edit_audio(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` as an edit: source_audio, audio and the order in `text`; what else was told of it is left out.

    The operation is one of the options'. Both sounds are scaled down together when they would clip. Raises ValueError
    for a silent clip, and where the pool has no event with a name.
    """
    operation = options.operations[rng.integers(len(options.operations))]
    edit = EDITS[operation](clip, rng, pool, options)
    gain = min(safe_gain(edit.source), safe_gain(edit.target))
    source, target = ((gain * samples).astype(np.float32) for samples in (edit.source, edit.target))
    wording = WORDINGS[operation][rng.integers(len(WORDINGS[operation]))]
    return replace(clip, audio=target, source_audio=source, text=wording.format(**edit.words), **dict.fromkeys(STALE))


def _add(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Edit:
    (event,), base = _events(1, clip, rng, pool), _base(clip)
    (sound,) = inserted((audible(event),), base, rng, options.event_db, clip.sample_rate_hz)
    return Edit(base, base + sound, {"new": described(event)})


def _remove(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Edit:
    added = _add(clip, rng, pool, options)
    return Edit(added.target, added.source, {"old": added.words["new"]})


def _replace(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Edit:
    (old, new), base = _events(2, clip, rng, pool), _base(clip)
    before, after = inserted((audible(old), audible(new)), base, rng, options.event_db, clip.sample_rate_hz)
    return Edit(base + before, base + after, {"old": described(old), "new": described(new)})


def _inpaint(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Edit:
    target = _base(clip)
    first, stop = step_span(clip, rng, options)
    step = clip.sample_rate_hz // options.span_steps_per_second
    source = target.copy()
    source[first * step : stop * step] = 0
    seconds = {"start": first / options.span_steps_per_second, "stop": stop / options.span_steps_per_second}
    return Edit(source, target, {name: f"{value:.2f}" for name, value in seconds.items()})


def _super_resolution(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Edit:
    target = _base(clip)
    hertz = int(rng.integers(CUTOFF_HZ[0] // 100, CUTOFF_HZ[1] // 100 + 1)) * 100
    taps = signal.firwin(LOWPASS_TAPS, hertz, fs=clip.sample_rate_hz)
    return Edit(signal.oaconvolve(target, taps, mode="same"), target, {"hertz": str(hertz)})


EDITS: dict[Operation, Callable[[Clip, np.random.Generator, Pool, MixerOptions], Edit]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "inpaint": _inpaint,
    "super_resolution": _super_resolution,
}


def inserted(
    events: tuple[Float[np.ndarray, " _"], ...],
    base: Float[np.ndarray, " S"],
    rng: np.random.Generator,
    base_over_event_db: tuple[float, float],
    rate: int,
) -> list[Float[np.ndarray, " S"]]:
    """Signals as long as `base`: each event in one and the same random span of it, and silence around.

    The ratio of levels is within the range, and the ends are faded, so that no click tells where an event was.
    """
    most = int(np.ceil(rng.uniform(*EVENT_SHARE) * len(base)))
    count = min(most, *(len(event) for event in events))
    start = rng.integers(len(base) - count + 1)
    level = rms(base) * 10 ** (-rng.uniform(*base_over_event_db) / 20)
    out = []
    for event in events:
        part = _faded(fitted(event, count, rng).astype(np.float64), round(FADE_SECONDS * rate))
        out.append(np.zeros(len(base)))
        out[-1][start : start + count] = part * (level / rms(part))
    return out


def _faded(samples: Float[np.ndarray, " S"], longest: int) -> Float[np.ndarray, " S"]:
    """`samples` with soft ends of at most `longest` samples and a quarter each; no sample becomes zero."""
    count = min(longest, len(samples) // 4)
    slope = np.arange(1, count + 1) / (count + 1)
    gains = np.ones(len(samples))
    gains[:count], gains[len(samples) - count :] = slope, slope[::-1]
    return samples * gains


def described(clip: Clip) -> str:
    """What is heard in `clip`, as part of an order: by its labels, its words or its caption; "" without any."""
    if clip.labels:
        return f"the sound of {' and '.join(sorted(_kinds(clip)))}"
    text = " ".join((clip.text or "").split()).rstrip(".")
    if not text:
        return ""
    return f'a voice that says "{text}"' if clip.speaker is not None else f'the sound described as "{text}"'


def _kinds(clip: Clip) -> set[str]:
    """The names by which two sounds can be told apart."""
    names = clip.labels or ((clip.text,) if clip.text else ())
    return {name.replace("_", " ").strip().lower() for name in names}


def _events(count: int, clip: Clip, rng: np.random.Generator, pool: Pool) -> list[Clip]:
    """Sounds to edit into `clip`, with names that neither it nor another of them has."""
    found: list[Clip] = []
    taken = _kinds(clip)
    for _ in range(count * TRIES):
        event = pool.sound(clip, rng)
        if event is None or event.id == clip.id:
            event = pool.another(clip, rng)
        if described(event) and not taken & _kinds(event):
            found.append(event)
            taken |= _kinds(event)
        if len(found) == count:
            return found
    raise ValueError(
        f"clip {clip.id!r}: got {len(found)} of {count} events to edit into it, in {count * TRIES} draws; "
        "wanted sounds of other names; give a corpus of sounds with labels or captions, or fewer "
        "`operations` of MixerOptions"
    )


def _base(clip: Clip) -> Float[np.ndarray, " S"]:
    return audible(clip).astype(np.float64)
