"""Short tunes by rule: scale, chords, tempo and instrument, and a caption that names them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_pipelines.corpora import Split, split_of
from data_pipelines.synthetic.texts import filled, pick, read_data

HELDOUT_EVERY = 10
WORDS = read_data("tunes")
INSTRUMENTS: dict[str, int] = WORDS["instruments"]
"""Names → programs of General MIDI."""
BASS = 32  # acoustic bass of General MIDI
KEYS: list[str] = WORDS["keys"]
SCALES: dict[str, list[int]] = WORDS["scales"]
MOODS: dict[str, list[str]] = WORDS["moods"]
"""Mode and speed → words for how that sounds."""
TEXTURES: dict[str, list[str]] = WORDS["textures"]
TEMPOS_BPM = range(64, 168, 4)
SLOW_BELOW_BPM, FAST_FROM_BPM = 88, 124


@dataclass(frozen=True, kw_only=True)
class Note:
    """One note: seconds from the start of the tune, MIDI pitch, velocity 1 to 127."""

    start: float
    seconds: float
    pitch: int
    velocity: int
    channel: int


@dataclass(frozen=True, kw_only=True)
class Tune:
    """Notes for the General MIDI `programs`, one a channel; `combination` (instrument and key) decides the split.

    labels: the instrument, the mood and the speed.
    """

    notes: tuple[Note, ...]
    programs: tuple[int, ...]
    seconds: float
    combination: str
    caption: str
    labels: tuple[str, str, str]


def compose(rng: np.random.Generator, seconds: float, split: Split = "train") -> Tune:
    """A tune of `seconds` whose instrument and key belong to `split`."""
    while True:
        instrument, key, mode = pick(rng, list(INSTRUMENTS)), pick(rng, KEYS), pick(rng, list(SCALES))
        combination = f"{instrument} in {key} {mode}"
        if tune_split(combination) == split:
            break
    bpm, texture = int(rng.choice(TEMPOS_BPM)), pick(rng, list(TEXTURES))
    speed = "slow" if bpm < SLOW_BELOW_BPM else "fast" if bpm >= FAST_FROM_BPM else "moderate"
    mood = pick(rng, MOODS[f"{mode} {speed}"])
    words = {"instrument": instrument, "key": key, "mode": mode, "speed": speed, "bpm": str(bpm), "mood": mood}
    words["texture"] = pick(rng, TEXTURES[texture])
    caption = filled(pick(rng, WORDS["captions"]), **words)
    return Tune(
        notes=tuple(_notes(rng, seconds, bpm, texture, KEYS.index(key), SCALES[mode])),
        programs=(INSTRUMENTS[instrument], INSTRUMENTS[instrument], BASS),
        seconds=seconds,
        combination=combination,
        caption=caption,
        labels=(instrument, mood, speed),
    )


def tune_split(combination: str) -> Split:
    """The split in which an instrument and key ("flute in D minor") may be used."""
    return split_of(combination, HELDOUT_EVERY)


def _notes(
    rng: np.random.Generator, seconds: float, bpm: int, texture: str, key: int, scale: list[int]
) -> Iterator[Note]:
    """A chord for every two beats until the time is over; channel 0 is the melody, 1 the chords, 2 the bass."""
    beat, progression = 60 / bpm, pick(rng, WORDS["progressions"])
    root = 48 + key if key < 7 else 36 + key
    degree, bars = int(rng.integers(7, 12)), int(np.ceil(seconds / (2 * beat)))

    def note(start: float, length: float, step: int, velocity: int, channel: int) -> Note:
        pitch = root + 12 * (step // 7) + scale[step % 7]
        return Note(start=start, seconds=length, pitch=pitch, velocity=velocity, channel=channel)

    for bar in range(bars):
        start, chord = bar * 2 * beat, progression[bar % len(progression)]
        if texture in ("accompanied", "chords"):
            for step in (chord, chord + 2, chord + 4):
                yield note(start, 2 * beat * 0.95, step, 70, channel=1)
        if texture == "accompanied":
            yield note(start, 2 * beat * 0.9, chord - 7, 85, channel=2)
        if texture == "arpeggios":
            for number, step in enumerate((0, 2, 4, 7)):
                velocity = int(rng.integers(80, 105))
                yield note(start + number * beat / 2, beat * 0.6, chord + step, velocity, channel=1)
        if texture in ("accompanied", "melody"):
            for beats in pick(rng, WORDS["rhythms"]):
                degree = int(np.clip(degree + rng.integers(-2, 3), 5, 14))
                yield note(start, beats * beat * 0.9, degree, int(rng.integers(85, 115)), channel=0)
                start += beats * beat
