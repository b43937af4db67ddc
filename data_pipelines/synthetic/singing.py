"""Singing by rule: a sentence on a melody.

espeak speaks it, and the WORLD vocoder (pyworld, an optional package) stretches each syllable to its note and gives it
the note's pitch, with vibrato and glides.
"""

import importlib.metadata
import importlib.util
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soxr
from jaxtyping import Float, Int

from data_pipelines import espeak
from data_pipelines.corpora import MIDI_NOTES_PER_SECOND, SAMPLE_RATE_HZ, Split
from data_pipelines.synthetic.levels import loudness
from data_pipelines.synthetic.sentences import Grammar, sentence
from data_pipelines.synthetic.tunes import SCALES
from data_pipelines.synthetic.voices import SPEECH_RMS
from uniaudio_jax.packages import load_package, load_world

MIDI_FRAME_SECONDS = 1 / MIDI_NOTES_PER_SECOND
REST = 128
WORLD_MILLISECONDS = 5.0
LOWEST_HERTZ = 60.0
VOWELS = frozenset("aeiouyæøœɐɑɒɔəɚɛɜɝɞɨɪɯɵɶʉʊʌʏᵻ")
UNVOICED = frozenset("ptkcqfsʃθhxçχʔʂɕɸʈ")
STRESS = "ˈˌ"

SONG_SECONDS = (1.6, 5.0)
TEMPOS_BPM = (96, 184)
BEATS = (0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 1.5)
LEAST_VOWEL_SECONDS, LAST_NOTE_BEATS = 0.08, 1.5
REST_SECONDS = (0.1, 0.3)
TONIC_ABOVE_SPEECH = (-1, 5)  # semitones
GLIDE_SECONDS, VIBRATO_CENTS, VIBRATO_HERTZ, VIBRATO_AFTER_SECONDS = 0.06, 25.0, 5.5, 0.2
FADE_SECONDS = 0.01


@dataclass(frozen=True, kw_only=True)
class Syllable:
    """Where a syllable lies in speech, in seconds."""

    start: float
    vowel_start: float
    vowel_end: float
    end: float
    ends_clause: bool
    """Whether a pause follows."""

    @property
    def consonant_seconds(self) -> float:
        return self.vowel_start - self.start + self.end - self.vowel_end


@dataclass(frozen=True, kw_only=True)
class Note:
    """A sung note, or a rest."""

    frames: int
    """Its length in frames of MIDI_FRAME_SECONDS."""
    pitch: int = REST
    syllable: Syllable | None = None
    """The syllable that is sung on it."""


@dataclass(frozen=True, kw_only=True)
class Song:
    """A sung sentence at SAMPLE_RATE_HZ."""

    samples: Float[np.ndarray, " S"]
    text: str
    midi: Int[np.ndarray, " T"]
    """The pitch of each frame."""


def song(rng: np.random.Generator, voice: str, split: Split = "train", grammar: Grammar = "sentences") -> Song:
    """A sentence of `split`, sung in an espeak voice, as long as the clips of the corpus."""
    while True:
        text = sentence(rng, split, grammar)
        speech = espeak.speak_with_phones(text, voice)
        notes = melody(rng, syllables(speech.phones))
        if SONG_SECONDS[0] <= sum(note.frames for note in notes) * MIDI_FRAME_SECONDS <= SONG_SECONDS[1]:
            break
    wave = soxr.resample(speech.samples, speech.sample_rate_hz, SAMPLE_RATE_HZ).astype(np.float64)
    hertz = speech_hertz(wave, speech.phones)
    speaking = 69 + 12 * math.log2(np.median(hertz[hertz > 0]) / 440)
    tonic = round(speaking) + int(rng.integers(*TONIC_ABOVE_SPEECH))
    notes = [note if note.syllable is None else replace(note, pitch=note.pitch + tonic) for note in notes]
    return Song(samples=sing(wave, hertz, notes), text=text, midi=pitches(notes))


def pitches(notes: list[Note]) -> Int[np.ndarray, " T"]:
    """The pitch of each frame."""
    return np.repeat([note.pitch for note in notes], [note.frames for note in notes])


def syllables(phones: tuple[tuple[str, float], ...]) -> list[Syllable]:
    """The syllables of timed phones (`espeak.Speech.phones`), each with one vowel.

    Of the consonants between two vowels, the last one begins the next syllable and the others end this one.
    """
    ends = [start for _, start in phones[1:]] + [phones[-1][1]]
    spoken, clause = [], []
    for (name, start), end in zip(phones, ends, strict=True):
        if name:
            clause.append((any(letter in VOWELS for letter in name), start, end))
        if clause and (not name or end == ends[-1]):
            spoken += _clause_syllables(clause)
            clause = []
    return spoken


def _clause_syllables(clause: list[tuple[bool, float, float]]) -> list[Syllable]:
    """The syllables of phones without a pause between them; a phone is (whether it is a vowel, start, end)."""
    nuclei = [number for number, (is_vowel, *_) in enumerate(clause) if is_vowel]
    if not nuclei:
        return []
    firsts = [0] + [max(before + 1, nucleus - 1) for before, nucleus in zip(nuclei, nuclei[1:], strict=False)]
    lasts = [first - 1 for first in firsts[1:]] + [len(clause) - 1]
    return [
        Syllable(
            start=clause[first][1],
            vowel_start=clause[nucleus][1],
            vowel_end=clause[nucleus][2],
            end=clause[last][2],
            ends_clause=nucleus == nuclei[-1],
        )
        for first, nucleus, last in zip(firsts, nuclei, lasts, strict=True)
    ]


def melody(rng: np.random.Generator, sung: list[Syllable]) -> list[Note]:
    """A note for each syllable, in one key and tempo; pitches are semitones above the tonic, an octave at most."""
    beat_seconds = 60 / rng.uniform(*TEMPOS_BPM)
    scale = SCALES["major" if rng.random() < 0.5 else "minor"]
    degree, notes = int(rng.choice((0, 2, 4))), [_rest(rng)]
    for syllable in sung:
        beats = LAST_NOTE_BEATS if syllable.ends_clause else rng.choice(BEATS)
        seconds = max(beats * beat_seconds, syllable.consonant_seconds + LEAST_VOWEL_SECONDS)
        degree = 0 if syllable is sung[-1] else int(np.clip(degree + rng.integers(-2, 3), 0, len(scale)))
        pitch = 12 * (degree // len(scale)) + scale[degree % len(scale)]
        notes.append(Note(frames=math.ceil(seconds / MIDI_FRAME_SECONDS), pitch=pitch, syllable=syllable))
        if syllable.ends_clause:
            notes.append(_rest(rng))
    return notes


def _rest(rng: np.random.Generator) -> Note:
    return Note(frames=round(rng.uniform(*REST_SECONDS) / MIDI_FRAME_SECONDS))


def speech_hertz(wave: Float[np.ndarray, " S"], phones: tuple[tuple[str, float], ...]) -> Float[np.ndarray, " M"]:
    """The pitch of speech (float64) every WORLD_MILLISECONDS, and 0 in unvoiced phones.

    It is interpolated within voiced phones, for where a voice creaks, no pitch is measured, and a long note would
    whisper.
    """
    world, settings = load_world("singing"), {"f0_floor": LOWEST_HERTZ, "frame_period": WORLD_MILLISECONDS}
    rough, times = world.dio(wave, SAMPLE_RATE_HZ, **settings)
    measured = world.stonemask(wave, rough, times, SAMPLE_RATE_HZ)
    hertz, stops = np.zeros_like(measured), [start for _, start in phones[1:]]
    for (name, start), stop in zip(phones, stops, strict=False):
        if name and name.strip(STRESS)[:1] not in UNVOICED:
            inside = (start <= times) & (times < stop)
            hertz[inside] = np.interp(times[inside], times[measured > 0], measured[measured > 0])
    return hertz


def sing(wave: Float[np.ndarray, " S"], hertz: Float[np.ndarray, " M"], notes: list[Note]) -> Float[np.ndarray, " S2"]:
    """Speech (float64) with its syllables moved onto `notes`; it is as long as the notes' frames.

    hertz: the pitch of the speech as `speech_hertz` returns it.
    """
    world, rate = load_world("singing"), SAMPLE_RATE_HZ
    times = np.arange(len(hertz)) * WORLD_MILLISECONDS / 1000
    envelope = world.cheaptrick(wave, hertz, times, rate, f0_floor=LOWEST_HERTZ)
    noise = world.d4c(wave, hertz, times, rate, threshold=0.0)  # as noisy as measured, wherever there is a pitch
    frames = sum(note.frames for note in notes)
    moments = np.arange(round(frames * MIDI_FRAME_SECONDS * 1000 / WORLD_MILLISECONDS) + 1) * WORLD_MILLISECONDS / 1000
    positions = np.clip(np.interp(moments, *_time_map(notes)) * 1000 / WORLD_MILLISECONDS, 0, len(hertz) - 1)
    near = np.round(positions).astype(int)
    curve = np.where(hertz[near] > 0, _pitch_curve(notes, moments), 0.0)
    low, part = np.floor(positions).astype(int), (positions % 1)[:, None]
    high = np.minimum(low + 1, len(hertz) - 1)
    spectrum = envelope[low] ** (1 - part) * envelope[high] ** part
    samples = world.synthesize(curve, spectrum, np.ascontiguousarray(noise[near]), rate, WORLD_MILLISECONDS)
    length = round(frames * MIDI_FRAME_SECONDS * rate)
    samples = np.pad(samples, (0, max(0, length - len(samples))))[:length]
    return loudness(samples * _gate(notes, length), SPEECH_RMS)


def _time_map(notes: list[Note]) -> tuple[list[float], list[float]]:
    """Moments of the song, and the moments of the speech that sound at them.

    Consonants keep their length; vowels are stretched or shortened.
    """
    at, sung, spoken = 0.0, [0.0], [0.0]
    for note in notes:
        if syllable := note.syllable:
            end = at + note.frames * MIDI_FRAME_SECONDS
            vowel_start, vowel_end = at + syllable.vowel_start - syllable.start, end - syllable.end + syllable.vowel_end
            sung += [at, vowel_start, vowel_end, end]
            spoken += [syllable.start, syllable.vowel_start, syllable.vowel_end, syllable.end]
        at += note.frames * MIDI_FRAME_SECONDS
    return sung, spoken


def _pitch_curve(notes: list[Note], moments: Float[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
    """Hertz at each moment: the notes, with glides between them and vibrato on long ones."""
    ends = np.cumsum([note.frames for note in notes]) * MIDI_FRAME_SECONDS
    number = np.minimum(np.searchsorted(ends, moments, side="right"), len(notes) - 1)
    starts = np.concatenate([[0], ends[:-1]])
    held = [note.pitch for note in notes]
    for index, note in enumerate(notes):  # a rest has the pitch of its neighbour, so that no glide starts from it
        if note.syllable is None:
            held[index] = held[index - 1] if index else notes[1].pitch
    pitch = np.array(held, float)[number]
    width = round(GLIDE_SECONDS * 1000 / WORLD_MILLISECONDS)
    pitch = np.convolve(np.pad(pitch, width // 2, mode="edge"), np.ones(width) / width, mode="same")
    pitch = pitch[width // 2 : width // 2 + len(moments)]
    since = moments - starts[number]
    depth = VIBRATO_CENTS / 100 * np.clip((since - VIBRATO_AFTER_SECONDS) / 0.2, 0, 1)
    return 440 * 2 ** ((pitch + depth * np.sin(2 * np.pi * VIBRATO_HERTZ * since) - 69) / 12)


def _gate(notes: list[Note], length: int) -> Float[np.ndarray, " S"]:
    """The gain of each sample: 1 in notes, 0 in rests, with short ramps."""
    sounds = np.repeat([float(note.syllable is not None) for note in notes], [note.frames for note in notes])
    gate = np.repeat(sounds, round(MIDI_FRAME_SECONDS * SAMPLE_RATE_HZ))[:length]
    ramp = round(FADE_SECONDS * SAMPLE_RATE_HZ)
    return np.convolve(gate, np.ones(ramp) / ramp, mode="same")


def write_midi(path: str | Path, midi: Int[np.ndarray, " T"]) -> bool:
    """Writes the melody as a .mid file of one track; returns False without the package mido, which is optional."""
    if importlib.util.find_spec("mido") is None:
        return False
    mido = load_package("mido", "singing", "pip install mido==1.3.3")
    track, waiting = mido.MidiTrack(), 0
    changes = [0, *(np.flatnonzero(np.diff(midi)) + 1), len(midi)]
    for start, stop in zip(changes, changes[1:], strict=False):
        milliseconds = round((stop - start) * MIDI_FRAME_SECONDS * 1000)
        if midi[start] == REST:
            waiting += milliseconds
            continue
        track.append(mido.Message("note_on", note=int(midi[start]), velocity=90, time=waiting))
        track.append(mido.Message("note_off", note=int(midi[start]), velocity=0, time=milliseconds))
        waiting = 0
    track.append(mido.MetaMessage("end_of_track", time=waiting))
    mido.MidiFile(ticks_per_beat=500, tracks=[track]).save(str(path))  # at 120 beats a minute, a tick is 1 ms
    return True
