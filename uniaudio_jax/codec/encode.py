"""Audio files to codes: `python -m uniaudio_jax.codec.encode IN.wav [IN2.wav …] --codec tiny_16k --out DIR`.

Each input becomes DIR/<stem>.npz with `codes` int16 [T, Q], `samples` (its length) and `passport` (JSON text); a codec
of segments adds `scales` [N] and `frames` [N], one for each segment. Long files are worked through piece by piece.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tqdm
import tyro

from uniaudio_jax import cli
from uniaudio_jax.audio.files import AudioStream
from uniaudio_jax.codec.codec import Codec, open_codec
from uniaudio_jax.codec.segments import SegmentedCodec
from uniaudio_jax.files import atomic_write

SECONDS_AT_ONCE = 600.0  # of files in one batch; a longer file is a stream
PIECE_SECONDS = 20.0


@dataclass(frozen=True)
class Arguments:
    """Encodes audio files to .npz files of codes."""

    audio: tyro.conf.Positional[tuple[Path, ...]]
    """wav, flac or ogg files; other sample rates and numbers of channels are converted and counted"""
    out: Path
    """folder for the .npz files"""
    codec: str = "tiny_16k"
    """a shipped codec's name, or the folder of one"""
    codebooks: int | None = None
    """levels to keep; all when neither they nor a bandwidth are given"""
    bandwidth: float | None = None
    """kbit/s instead of codebooks, such as 6 of encodec_24khz"""


def save_codes(path: Path, codes: np.ndarray, samples: int, codec: Codec, **more: np.ndarray) -> None:
    """Writes one .npz by an atomic rename."""
    passport = np.str_(json.dumps(codec.passport()))
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, codes=codes, samples=np.int64(samples), passport=passport, **more)


def encode_files(arguments: Arguments) -> str:
    """Encodes every file; returns the closing line."""
    if not arguments.audio:
        raise ValueError("encode: got no audio file, wanted at least one path")
    stems = [path.stem for path in arguments.audio]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise ValueError(
            f"encode: got several files named {twice[0]!r}, wanted different names; use a different --out for each"
        )
    codec, converted, seconds = open_codec(arguments.codec), 0, 0.0
    levels = _levels(arguments, codec)
    with tqdm.tqdm(total=len(stems), desc="encode", unit="file", disable=len(stems) == 1) as bar:
        for group in _groups(arguments.audio, codec):
            _encode_group(group, codec, levels, arguments.out)
            converted += sum(bool(stream.converted) for stream in group)
            seconds += sum(stream.samples for stream in group) / codec.sample_rate_hz
            bar.update(len(group))
    made = f"encoded {len(stems)} files, {seconds:.1f} s of audio, into {arguments.out}"
    kind = {1: "mono", 2: "stereo"}[codec.channels]
    return f"{made}; {converted} converted to {kind} {codec.sample_rate_hz} Hz"


def _levels(arguments: Arguments, codec: Codec) -> int | None:
    if arguments.bandwidth is None:
        return arguments.codebooks
    if arguments.codebooks is not None:
        raise ValueError("encode: got both codebooks and a bandwidth, wanted one of them")
    return codec.codebooks_of(arguments.bandwidth)


def _groups(paths: tuple[Path, ...], codec: Codec) -> Iterator[list[AudioStream]]:
    """Files that are encoded together, up to SECONDS_AT_ONCE."""
    group: list[AudioStream] = []
    for path in paths:
        stream = AudioStream(path, codec.sample_rate_hz, codec.channels)
        if group and sum(s.samples for s in [*group, stream]) > SECONDS_AT_ONCE * codec.sample_rate_hz:
            yield group
            group = []
        group.append(stream)
    yield group


def _encode_group(group: list[AudioStream], codec: Codec, levels: int | None, out: Path) -> None:
    long = group[0].samples > SECONDS_AT_ONCE * codec.sample_rate_hz
    if codec.config.segment is not None:
        for stream in group:
            segments = list(SegmentedCodec(codec).encode_stream(stream.pieces(PIECE_SECONDS), levels))
            scales = np.array([segment.scale for segment in segments], np.float32)
            frames = np.array([len(segment.codes) for segment in segments])
            save_codes(
                out / f"{stream.path.stem}.npz",
                np.concatenate([segment.codes for segment in segments]),
                stream.samples,
                codec,
                scales=scales,
                frames=frames,
            )
        return
    if long:
        codes = [np.concatenate(list(codec.encoder_chain(levels).through(group[0].pieces(PIECE_SECONDS))))]
    else:
        codes = codec.encode_many([np.concatenate(list(stream.pieces())) for stream in group], levels)
    for stream, item in zip(group, codes, strict=True):
        save_codes(out / f"{stream.path.stem}.npz", item, stream.samples, codec)


if __name__ == "__main__":
    with cli.main_guard():
        print(encode_files(tyro.cli(Arguments)))
