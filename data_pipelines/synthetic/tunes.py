"""Short tunes by rule: scale, chords, tempo and instrument, and a caption that says them."""

from dataclasses import dataclass

import numpy as np

from data_pipelines.corpora import Split, split_of

HELDOUT_EVERY = 10
INSTRUMENTS = {
    "piano": 0,
    "electric piano": 4,
    "harpsichord": 6,
    "music box": 10,
    "vibraphone": 11,
    "marimba": 12,
    "church organ": 19,
    "accordion": 21,
    "nylon guitar": 24,
    "jazz guitar": 26,
    "violin": 40,
    "cello": 42,
    "harp": 46,
    "string ensemble": 48,
    "trumpet": 56,
    "clarinet": 71,
    "flute": 73,
    "sitar": 104,
}
BASS = 32  # acoustic bass of General MIDI
KEYS = ("C", "D flat", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
PROGRESSIONS = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (5, 3, 0, 4), (0, 1, 4, 0), (0, 3, 0, 4))
RHYTHMS = ((1.0, 1.0), (0.5, 0.5, 1.0), (1.0, 0.5, 0.5), (1.5, 0.5), (0.5, 0.5, 0.5, 0.5), (2.0,))
TEMPOS_BPM = range(64, 168, 4)
SLOW_BELOW_BPM, FAST_FROM_BPM = 88, 124
MOODS = {
    ("major", "slow"): ("calm", "peaceful", "gentle"),
    ("major", "moderate"): ("warm", "friendly", "bright"),
    ("major", "fast"): ("cheerful", "happy", "lively"),
    ("minor", "slow"): ("sad", "lonely", "melancholy"),
    ("minor", "moderate"): ("thoughtful", "dark", "mysterious"),
    ("minor", "fast"): ("tense", "restless", "dramatic"),
}
TEXTURES = {
    "melody": ("melody", "single line", "solo"),
    "accompanied": ("melody over chords", "song with accompaniment", "tune with chords and bass"),
    "arpeggios": ("broken chords", "arpeggios", "rolling chord pattern"),
    "chords": ("block chords", "sustained chords", "chord progression"),
}
CAPTIONS = (
    "A {mood} {speed} piece for {instrument} in {key} {mode}: {texture} at {bpm} beats per minute.",
    "{Instrument} playing {texture}, {mood}, {speed} tempo of {bpm} bpm, key of {key} {mode}.",
    "{Mood} {instrument} music, {speed}, {bpm} bpm, in {key} {mode}, with {texture}.",
    "Here is {texture} on the {instrument}. It sounds {mood}, it is in {key} {mode}, its tempo {speed}, {bpm} bpm.",
    "In {key} {mode}, the {instrument} sounds {mood}: {texture}, {speed}, around {bpm} beats per minute.",
    "{Speed} {mood} {instrument}, {texture}, {key} {mode}, {bpm} bpm.",
)


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

    labels: its instrument, its mood and how fast it is.
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
        instrument, key, mode = _pick(rng, list(INSTRUMENTS)), _pick(rng, KEYS), _pick(rng, list(SCALES))
        combination = f"{instrument} in {key} {mode}"
        if tune_split(combination) == split:
            break
    bpm, texture = int(rng.choice(TEMPOS_BPM)), _pick(rng, list(TEXTURES))
    notes = _notes(rng, seconds, bpm, texture, KEYS.index(key), SCALES[mode])
    speed = "slow" if bpm < SLOW_BELOW_BPM else "fast" if bpm >= FAST_FROM_BPM else "moderate"
    mood = _pick(rng, MOODS[mode, speed])
    caption = _caption(
        rng,
        instrument=instrument,
        key=key,
        mode=mode,
        speed=speed,
        bpm=str(bpm),
        mood=mood,
        texture=_pick(rng, TEXTURES[texture]),
    )
    return Tune(
        notes=tuple(notes),
        programs=(INSTRUMENTS[instrument], INSTRUMENTS[instrument], BASS),
        seconds=seconds,
        combination=combination,
        caption=caption,
        labels=(instrument, mood, speed),
    )


def tune_split(combination: str) -> Split:
    """The split in which an instrument and key ("flute in D minor") may be used."""
    return split_of(combination, HELDOUT_EVERY)


def _pick(rng: np.random.Generator, options):
    return options[rng.integers(len(options))]


def _caption(rng: np.random.Generator, **words: str) -> str:
    capitals = {name.capitalize(): word[0].upper() + word[1:] for name, word in words.items()}
    return _pick(rng, CAPTIONS).format(**words, **capitals)


def _notes(rng: np.random.Generator, seconds: float, bpm: int, texture: str, key: int, scale: tuple[int, ...]):
    """Two beats of a chord after another until the time is over; channel 0 melody, 1 chords, 2 bass."""
    beat, progression = 60 / bpm, _pick(rng, PROGRESSIONS)
    root = 48 + key if key < 7 else 36 + key
    degree, bars = int(rng.integers(7, 12)), int(np.ceil(seconds / (2 * beat)))

    def pitch(step: int) -> int:
        return root + 12 * (step // 7) + scale[step % 7]

    for bar in range(bars):
        start, chord = bar * 2 * beat, progression[bar % len(progression)]
        if texture in ("accompanied", "chords"):
            for step in (chord, chord + 2, chord + 4):
                yield Note(start=start, seconds=2 * beat * 0.95, pitch=pitch(step), velocity=70, channel=1)
        if texture == "accompanied":
            yield Note(start=start, seconds=2 * beat * 0.9, pitch=pitch(chord - 7), velocity=85, channel=2)
        if texture == "arpeggios":
            for number, step in enumerate((0, 2, 4, 7)):
                yield Note(
                    start=start + number * beat / 2,
                    seconds=beat * 0.6,
                    pitch=pitch(chord + step),
                    velocity=int(rng.integers(80, 105)),
                    channel=1,
                )
        if texture in ("accompanied", "melody"):
            at = start
            for length in _pick(rng, RHYTHMS):
                degree = int(np.clip(degree + rng.integers(-2, 3), 5, 14))
                yield Note(
                    start=at,
                    seconds=length * beat * 0.9,
                    pitch=pitch(degree),
                    velocity=int(rng.integers(85, 115)),
                    channel=0,
                )
                at += length * beat
