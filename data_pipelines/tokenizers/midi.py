"""Melodies: ids of MIDI pitches at the frame rate of a codec, and pitches from MIDI files."""

import contextlib
import functools
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int16

from data_pipelines.corpora import MIDI_NOTES_PER_SECOND
from uniaudio_jax.errors import refusal
from uniaudio_jax.packages import load_package
from uniaudio_jax.vocab import MIDI_NOTES

REST = 128
PERCUSSION_CHANNEL = 9
MOST_SECONDS = 3600
"""The longest file; a broken one may state any time."""
ROUNDED_DIGITS = 6
"""Of times in frames: the tempo's float must not make a frame more of a length that is whole."""


class MidiTokenizer:
    """Ids 0 to 127 pitch, 128 rest; 129 to 137 are slots of the public vocabulary without a meaning.

    frame_rate_hz: ids for each second, those of the codec's frames.
    """

    size = MIDI_NOTES

    def __init__(self, frame_rate_hz: float = MIDI_NOTES_PER_SECOND) -> None:
        self.frame_rate_hz, self.name = frame_rate_hz, f"midi_{frame_rate_hz:g}hz"
        self.sha256 = hashlib.sha256(f"pitch 0-127, rest 128, {frame_rate_hz:g} Hz".encode()).hexdigest()

    def encode(self, midi: Int[np.ndarray, " T"]) -> Int16[np.ndarray, " T"]:
        """The ids of pitches at `MIDI_NOTES_PER_SECOND`: each frame has the pitch that stands in its middle.

        Raises ValueError for what is not [T] whole numbers from 0 to 128.
        """
        midi = np.asarray(midi)
        if midi.ndim != 1 or not midi.size or not np.issubdtype(midi.dtype, np.integer):
            raise ValueError(
                f"MidiTokenizer.encode: got {midi.dtype} of shape {midi.shape}, wanted whole numbers [T], "
                f"{MIDI_NOTES_PER_SECOND} a second"
            )
        if midi.min() < 0 or midi.max() > REST:
            raise ValueError(
                f"MidiTokenizer.encode: got {midi.min()} to {midi.max()}, wanted pitches 0 to 127, or {REST} for a rest"
            )
        notes_per_frame = MIDI_NOTES_PER_SECOND / self.frame_rate_hz
        frames = math.ceil(round(len(midi) / notes_per_frame, ROUNDED_DIGITS))
        middles = np.round((np.arange(frames) + 0.5) * notes_per_frame, ROUNDED_DIGITS)
        return midi[np.minimum(middles.astype(int), len(midi) - 1)].astype(np.int16)


def read_midi(path: Path) -> Int[np.ndarray, " T"]:
    """The pitches of a .mid file at `MIDI_NOTES_PER_SECOND`: the highest note that sounds in the middle of each 20 ms,
    percussion apart. Broken meta messages are passed over, those of tempo apart. Raises ValueError for a file that is
    no MIDI, lasts longer than `MOST_SECONDS`, or in which no note sounds."""
    notes, length = _read_notes(path)
    if length > MOST_SECONDS:
        raise ValueError(
            f"{path}: got {length:.0f} s of MIDI, wanted at most {MOST_SECONDS} s; cut it, or save it again if it is "
            "shorter"
        )
    midi = np.full(math.ceil(round(length * MIDI_NOTES_PER_SECOND, ROUNDED_DIGITS)), -1)
    for start, end, pitch in notes:
        # A note sounds in the 20 ms whose middle lies within it.
        first, stop = (math.ceil(round(time * MIDI_NOTES_PER_SECOND - 0.5, ROUNDED_DIGITS)) for time in (start, end))
        midi[first:stop] = np.maximum(midi[first:stop], pitch)
    if (midi < 0).all():
        raise ValueError(
            f"{path}: got no note that sounds in {length:.2f} s (percussion apart), wanted a melody; name another file"
        )
    return np.where(midi < 0, REST, midi)


def _read_notes(path: Path) -> tuple[list[tuple[float, float, int]], float]:
    """Start and end in seconds, and pitch, of each note, and the seconds of the file."""
    notes, sounding, now = [], {}, 0.0
    for message in _messages(path):
        now += message.time
        if message.type not in ("note_on", "note_off") or message.channel == PERCUSSION_CHANNEL:
            continue
        key = (message.channel, message.note)
        if message.type == "note_on" and message.velocity:
            sounding.setdefault(key, []).append(now)
        elif sounding.get(key):
            notes.append((sounding[key].pop(0), now, message.note))
    return notes + [(start, now, pitch) for (_, pitch), starts in sounding.items() for start in starts], now


def _messages(path: Path) -> list[Any]:
    """The messages of all tracks, in order, with the seconds since the one before."""
    mido = _mido()
    try:
        file = mido.MidiFile(path)
        wrong = _not_read(file)
        if not wrong:
            return list(file)
    except EOFError:
        wrong = "it breaks off"
    except Exception as error:  # mido raises errors of many kinds for broken files
        wrong = refusal(error)
    raise ValueError(
        f"{path}: got a file that cannot be read as MIDI ({wrong}), wanted a .mid file of type 0 or 1 in "
        "ticks of a beat; check the path, or save it again"
    )


def _not_read(file: Any) -> str:
    """What of a whole file is not read, or nothing."""
    if file.type == 2:
        return "type 2, whose tracks do not sound together"
    if file.ticks_per_beat < 0:
        return "SMPTE time, in parts of a film's frames, is not read"
    return "" if file.ticks_per_beat else "0 ticks a beat"


class _Lenient:
    """A kind of meta message that keeps its defaults where its bytes are broken."""

    def decode(self, message: Any, data: Any) -> None:
        with contextlib.suppress(Exception):
            super().decode(message, data)  # pyright: ignore[reportAttributeAccessIssue]


@functools.cache
def _mido() -> Any:
    """The package mido, which reads files with broken key signatures and the like from now on."""
    mido = load_package("mido", ".mid files", "pip install mido==1.3.3")
    meta = mido.midifiles.meta
    needed = (meta.MetaSpec_set_tempo, meta.MetaSpec_end_of_track)
    for name, spec in list(vars(meta).items()):
        if name.startswith("MetaSpec_") and spec not in needed:
            meta.add_meta_spec(type(name, (_Lenient, spec), {}))
    return mido
