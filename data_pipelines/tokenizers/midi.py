"""Melodies: a MIDI pitch for every 20 ms, from MIDI files or from the fundamental frequency of audio, and back."""

import functools
import hashlib
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Int16

from uniaudio_jax.vocab import MIDI_NOTES

REST = 128
NOTES_PER_SECOND = 50
SAMPLE_RATE_HZ, SAMPLES_PER_NOTE = 16000, 320
PERCUSSION_CHANNEL = 9
A4_HZ, A4_PITCH = 440.0, 69
LOWEST_HZ, HIGHEST_HZ = 65.4, 1046.5  # C2 to C6, the range of voices
PYIN_WINDOW_SAMPLES = 1024
VOICED_FROM = 0.5
TICKS_PER_BEAT, MICROSECONDS_PER_BEAT, TICKS_PER_NOTE = 500, 500_000, 20
VELOCITY = 90


class MidiTokenizer:
    """Ids 0 to 127 pitch, 128 rest, 50 a second; 129 to 137 are slots of the public vocabulary without a meaning."""

    name = "midi_50hz"
    size = MIDI_NOTES

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256(b"pitch 0-127, rest 128, 50 Hz").hexdigest()

    def encode(self, midi: Int[np.ndarray, " T"]) -> Int16[np.ndarray, " T"]:
        """`midi` as ids. Raises ValueError for what is not [T] whole numbers from 0 to 128."""
        midi = np.asarray(midi)
        if midi.ndim != 1 or not midi.size or not np.issubdtype(midi.dtype, np.integer):
            raise ValueError(
                f"MidiTokenizer.encode: got {midi.dtype} of shape {midi.shape}, wanted whole numbers [T], "
                f"{NOTES_PER_SECOND} a second"
            )
        if midi.min() < 0 or midi.max() > REST:
            raise ValueError(
                f"MidiTokenizer.encode: got {midi.min()} to {midi.max()}, wanted pitches 0 to 127, or {REST} for a rest"
            )
        return midi.astype(np.int16)

    def from_file(self, path: Path, seconds: float | None = None) -> Int[np.ndarray, " T"]:
        """The highest note that sounds in the middle of every 20 ms of a .mid file, percussion apart.

        T = ceil(seconds * 50), of the whole file if seconds is None. Raises ValueError for a file that is no MIDI, or
        in which no note sounds within these seconds.
        """
        if seconds is not None and not 0 < seconds < math.inf:
            raise ValueError(f"{path}: got {seconds} s, wanted more than 0 s of it")
        notes, length = _read_notes(path)
        # The tempo's float must not make a frame more of a length that is whole.
        frames = math.ceil(round((length if seconds is None else seconds) * NOTES_PER_SECOND, 6))
        midi = np.full(frames, -1)
        for start, end, pitch in notes:
            # A frame hears the note if its middle lies within it.
            first, stop = (math.ceil(round(time * NOTES_PER_SECOND - 0.5, 6)) for time in (start, end))
            midi[first:stop] = np.maximum(midi[first:stop], pitch)
        if (midi < 0).all():
            raise ValueError(
                f"{path}: got no note that sounds in {frames} frames of 20 ms (percussion apart), wanted a melody"
            )
        return np.where(midi < 0, REST, midi)

    @functools.cached_property
    def pitch_tracker(self) -> str:
        """What `from_audio` uses: "swift-f0" where that package is installed, otherwise "librosa.pyin"."""
        return "swift-f0" if importlib.util.find_spec("swift_f0") else "librosa.pyin"

    def from_audio(self, wav: Float[np.ndarray, " S"]) -> Int[np.ndarray, " T"]:
        """The nearest pitch to the fundamental frequency (65 to 1047 Hz) of every 20 ms of mono audio at 16 kHz,
        a rest where it is unvoiced. T = ceil(S / 320). Raises ValueError for no samples, or ones that are not finite.
        """
        wav = np.asarray(wav, np.float32)
        if wav.ndim != 1 or not wav.size or not np.isfinite(wav).all():
            raise ValueError(
                f"MidiTokenizer.from_audio: got {wav.size} samples of shape {wav.shape}, wanted finite mono audio [S]"
            )
        whole = np.pad(wav, (0, -len(wav) % SAMPLES_PER_NOTE))
        f0_hz, voiced = (self._swift_f0 if self.pitch_tracker == "swift-f0" else _pyin)(whole)
        pitch = A4_PITCH + 12 * np.log2(np.where(voiced, f0_hz, A4_HZ) / A4_HZ)
        return np.where(voiced, np.clip(np.rint(pitch), 0, 127), REST).astype(int)

    def to_file(self, ids: Int[np.ndarray, " T"], path: Path) -> None:
        """Writes a .mid file in which equal neighbours are one note; `from_file` gives the same ids back.

        Raises ValueError for ids that `encode` refuses, and for ids without a note.
        """
        ids = self.encode(ids)
        if (ids == REST).all():
            raise ValueError(f"{path}: got {len(ids)} rests and no note, wanted a melody; nothing was written")
        mido = _mido()
        track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=MICROSECONDS_PER_BEAT)])
        starts = np.flatnonzero(np.diff(ids, prepend=-1))
        waited = 0
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
            ticks = int(end - start) * TICKS_PER_NOTE
            if ids[start] == REST:
                waited = ticks
                continue
            track.append(mido.Message("note_on", note=int(ids[start]), velocity=VELOCITY, time=waited))
            track.append(mido.Message("note_off", note=int(ids[start]), velocity=0, time=ticks))
            waited = 0
        track.append(mido.MetaMessage("end_of_track", time=waited))
        mido.MidiFile(tracks=[track], ticks_per_beat=TICKS_PER_BEAT).save(path)

    @functools.cached_property
    def _swift_model(self) -> Any:
        from swift_f0 import SwiftF0  # pyright: ignore[reportMissingImports]

        return SwiftF0(threads=1, spin=False)

    def _swift_f0(self, wav: Float[np.ndarray, " S"]) -> tuple[Float[np.ndarray, " T"], np.ndarray]:
        """Hertz and voicing by SwiftF0 (arXiv 2508.18440), of whose frames of 16 ms the nearest counts."""
        found = self._swift_model.detect(wav, SAMPLE_RATE_HZ, fmin=LOWEST_HZ, fmax=HIGHEST_HZ)
        middles = (np.arange(len(wav) // SAMPLES_PER_NOTE) + 0.5) / NOTES_PER_SECOND
        frame_seconds = 256 / SAMPLE_RATE_HZ
        nearest = np.minimum(np.rint(middles / frame_seconds).astype(int), len(found.pitch_hz) - 1)
        return found.pitch_hz[nearest], found.confidence[nearest] >= VOICED_FROM


def _pyin(wav: Float[np.ndarray, " S"]) -> tuple[Float[np.ndarray, " T"], np.ndarray]:
    """Hertz and voicing by probabilistic YIN; its first frame is centred on the first sample, ours on the 160th."""
    import librosa

    half = SAMPLES_PER_NOTE // 2
    f0_hz, voiced, _ = librosa.pyin(
        wav[half:],
        fmin=LOWEST_HZ,
        fmax=HIGHEST_HZ,
        sr=SAMPLE_RATE_HZ,
        frame_length=PYIN_WINDOW_SAMPLES,
        hop_length=SAMPLES_PER_NOTE,
    )
    return f0_hz, voiced


def _read_notes(path: Path) -> tuple[list[tuple[float, float, int]], float]:
    """Start and end in seconds, and pitch, of each note, and the seconds of the file."""
    mido = _mido()
    try:
        messages = list(mido.MidiFile(path))
    except Exception as error:  # mido tells broken files by errors of many kinds
        raise ValueError(
            f"{path}: got a file that cannot be read as MIDI ({type(error).__name__}: {error}), wanted a "
            ".mid file of type 0 or 1; check the path, or save it again"
        ) from error
    notes, sounding, now = [], {}, 0.0
    for message in messages:
        now += message.time
        if message.type not in ("note_on", "note_off") or message.channel == PERCUSSION_CHANNEL:
            continue
        key = (message.channel, message.note)
        if message.type == "note_on" and message.velocity:
            sounding.setdefault(key, []).append(now)
        elif sounding.get(key):
            notes.append((sounding[key].pop(0), now, message.note))
    return notes + [(start, now, pitch) for (_, pitch), starts in sounding.items() for start in starts], now


def _mido() -> Any:
    try:
        import mido
    except ImportError as error:
        raise ValueError(
            "MidiTokenizer: got no package mido, wanted it for .mid files; run `pip install mido==1.3.3`"
        ) from error
    return mido
