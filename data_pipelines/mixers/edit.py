"""A clip before and after an edit, and the order to edit it (the tasks of AUDIT, arXiv 2304.00830)."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import signal

from data_pipelines.corpora import Clip
from data_pipelines.mixers.mask import random_span
from data_pipelines.mixers.options import MixerOptions, Operation
from data_pipelines.mixers.pool import TRIES, Pool
from data_pipelines.mixers.signals import audible, fit_length, safe_gain
from data_pipelines.synthetic.levels import rms

EVENT_SHARE = (0.3, 1.0)
"""Range of an event's share of the clip."""
FADE_SECONDS = 0.01
CUTOFF_HZ = (2000, 3000)
LOWPASS_SECONDS = 0.008
"""Half the length of the low-pass filter."""
STALE_FIELDS = (
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
"""Fields that describe the words or the audio before the edit."""

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

Samples = Float[np.ndarray, " S"]


class Edit(NamedTuple):
    """Two sounds of the same length, and the words that fill the gaps of a wording."""

    source: Samples
    target: Samples
    words: dict[str, str]


def edit_audio(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Clip:
    """`clip` edited: source_audio before the edit, `audio` after it, the order in `text`, and no stale fields.

    The operation is one of the options'. Both sounds are scaled down together where one would clip. Raises ValueError
    for a silent clip, and where the pool has no event with a name.
    """
    operation = options.operations[rng.integers(len(options.operations))]
    edit = EDITS[operation](clip, rng, pool, options)
    gain = min(safe_gain(edit.source), safe_gain(edit.target))
    source, target = ((gain * samples).astype(np.float32) for samples in (edit.source, edit.target))
    wording = WORDINGS[operation][rng.integers(len(WORDINGS[operation]))]
    text = wording.format(**edit.words)
    return replace(clip, audio=target, source_audio=source, text=text, **dict.fromkeys(STALE_FIELDS))


def _add(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Edit:
    (event,), base = _draw_events(1, clip, rng, pool), _base(clip)
    (sound,) = place_events([event], base, clip.sample_rate_hz, rng, options.event_db)
    return Edit(base, base + sound, {"new": describe(event)})


def _remove(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Edit:
    added = _add(clip, rng, pool, options)
    return Edit(added.target, added.source, {"old": added.words["new"]})


def _replace(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Edit:
    (old, new), base = _draw_events(2, clip, rng, pool), _base(clip)
    before, after = place_events([old, new], base, clip.sample_rate_hz, rng, options.event_db)
    return Edit(base + before, base + after, {"old": describe(old), "new": describe(new)})


def _inpaint(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Edit:
    target = _base(clip)
    start, stop = (step / options.span_steps_per_second for step in random_span(clip, rng, options))
    source = target.copy()
    source[round(start * clip.sample_rate_hz) : round(stop * clip.sample_rate_hz)] = 0
    return Edit(source, target, {"start": f"{start:.2f}", "stop": f"{stop:.2f}"})


def _super_resolution(clip: Clip, rng: np.random.Generator, pool: Pool, options: MixerOptions) -> Edit:
    target = _base(clip)
    hertz = int(rng.integers(CUTOFF_HZ[0] // 100, CUTOFF_HZ[1] // 100 + 1)) * 100
    half = round(LOWPASS_SECONDS * clip.sample_rate_hz)
    taps = signal.firwin(2 * half - 1, hertz, fs=clip.sample_rate_hz)
    return Edit(signal.oaconvolve(target, taps, mode="same"), target, {"hertz": str(hertz)})


EDITS: dict[Operation, Callable[[Clip, np.random.Generator, Pool, MixerOptions], Edit]] = {
    "add": _add,
    "remove": _remove,
    "replace": _replace,
    "inpaint": _inpaint,
    "super_resolution": _super_resolution,
}


def place_events(
    events: list[Clip],
    base: Samples,
    sample_rate_hz: int,
    rng: np.random.Generator,
    base_over_event_db: tuple[float, float],
) -> list[Samples]:
    """Each event in the same random span of `base`, at one ratio of levels within the range; zero outside of it.

    Events are cut or repeated to the length of the span, and their ends faded, so that no click marks where they were.
    """
    longest = int(np.ceil(rng.uniform(*EVENT_SHARE) * len(base)))
    count = min(longest, *(len(audible(event)) for event in events))
    start = rng.integers(len(base) - count + 1)
    level = rms(base) * 10 ** (-rng.uniform(*base_over_event_db) / 20)
    placed = []
    for event in events:
        part = _fade(fit_length(audible(event), count, rng).astype(np.float64), sample_rate_hz)
        sound = np.zeros(len(base))
        sound[start : start + count] = part * (level / rms(part))
        placed.append(sound)
    return placed


def _fade(samples: Samples, sample_rate_hz: int) -> Samples:
    """`samples` with soft ends, each at most a quarter of them; no sample becomes zero."""
    count = min(round(FADE_SECONDS * sample_rate_hz), len(samples) // 4)
    slope = np.arange(1, count + 1) / (count + 1)
    gains = np.ones(len(samples))
    gains[:count], gains[len(samples) - count :] = slope, slope[::-1]
    return samples * gains


def describe(clip: Clip) -> str:
    """How an order names what is heard in `clip`: by its labels, its words or its caption; "" without any of them."""
    if clip.labels:
        return f"the sound of {' and '.join(sorted(_names(clip)))}"
    text = " ".join((clip.text or "").split()).rstrip(".")
    if not text:
        return ""
    return f'a voice that says "{text}"' if clip.speaker is not None else f'the sound described as "{text}"'


def _names(clip: Clip) -> set[str]:
    """The names by which a listener tells this clip from others."""
    names = clip.labels or ((clip.text,) if clip.text else ())
    return {name.replace("_", " ").strip().lower() for name in names}


def _draw_events(count: int, clip: Clip, rng: np.random.Generator, pool: Pool) -> list[Clip]:
    """Sounds to edit into `clip`, with names that neither the clip nor another of them has."""
    events: list[Clip] = []
    taken = _names(clip)
    for _ in range(count * TRIES):
        event = pool.sound(clip, rng) or pool.another(clip, rng)
        if describe(event) and not taken & _names(event):
            events.append(event)
            taken |= _names(event)
        if len(events) == count:
            return events
    raise ValueError(
        f"clip {clip.id!r}: got {len(events)} of {count} events to edit into it, in {count * TRIES} draws; "
        "wanted sounds of other names; give a corpus of sounds with labels or captions, or fewer "
        "`operations` of MixerOptions"
    )


def _base(clip: Clip) -> Samples:
    return audible(clip).astype(np.float64)
