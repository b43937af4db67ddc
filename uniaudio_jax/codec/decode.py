"""Codes to audio files: `python -m uniaudio_jax.codec.decode X.npz [Y.npz …] --out DIR` writes DIR/<stem>.wav."""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tqdm
import tyro

from uniaudio_jax import cli
from uniaudio_jax.audio.files import write_audio, write_pieces
from uniaudio_jax.codec.codec import Codec, open_codec
from uniaudio_jax.codec.segments import Segment, SegmentedCodec

FRAMES_AT_ONCE = 30_000  # of files in one batch; a longer file is a stream
PIECE_FRAMES = 1000


@dataclass(frozen=True)
class Arguments:
    """Decodes .npz files of codes to wav files."""

    codes: tyro.conf.Positional[tuple[Path, ...]]
    """files that `uniaudio_jax.codec.encode` wrote"""
    out: Path
    """folder for the wav files"""
    codec: str | None = None
    """a shipped codec's name, or the folder of one; when not given, the name in the first file's passport"""
    codebooks: int | None = None
    """levels to use; all that the file has when not given"""


class CodesFile(NamedTuple):
    """What a file of `encode` holds; `segments`, (scales, frames) of each segment, of a codec with segments alone."""

    codes: np.ndarray
    samples: int
    passport: dict
    segments: tuple[np.ndarray, np.ndarray] | None


def load_codes(path: Path) -> CodesFile:
    """One file of codes."""
    if not path.is_file():
        raise ValueError(
            f"{path}: got no file, wanted an .npz of `python -m uniaudio_jax.codec.encode`; check the path"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            segments = (file["scales"], file["frames"]) if "scales" in file else None
            return CodesFile(file["codes"], int(file["samples"]), json.loads(str(file["passport"])), segments)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: got a file that is no .npz with codes, samples and passport ({error}); "
            "make it again with `python -m uniaudio_jax.codec.encode`"
        ) from error


def check_codec(path: Path, passport: dict, codec: Codec) -> None:
    """Refuses codes that another codec made."""
    if passport.get("weights_sha256") != codec.weights_sha256:
        raise ValueError(
            f"{path}: its codes were made by codec {passport.get('codec')!r} "
            f"({str(passport.get('weights_sha256'))[:16]}…), but this is {codec.name!r} "
            f"({codec.weights_sha256[:16]}…); give the right one with --codec, or encode the audio again"
        )


def decode_files(arguments: Arguments) -> str:
    """Decodes every file; returns the closing line."""
    if not arguments.codes:
        raise ValueError("decode: got no file, wanted at least one .npz path")
    if arguments.codebooks is not None and arguments.codebooks < 1:
        raise ValueError(f"decode: got codebooks={arguments.codebooks}, wanted at least 1")
    name = arguments.codec or load_codes(arguments.codes[0]).passport.get("codec", "")
    codec, seconds, total = open_codec(name), 0.0, len(arguments.codes)
    with tqdm.tqdm(total=total, desc="decode", unit="file", disable=total == 1) as bar:
        for group in _groups(arguments.codes, codec):
            for path, file in group:
                check_codec(path, file.passport, codec)
                seconds += file.samples / codec.sample_rate_hz
            cut = [(path, file._replace(codes=file.codes[:, : arguments.codebooks])) for path, file in group]
            _decode_group(cut, codec, arguments.out)
            bar.update(len(group))
    return f"decoded {total} files, {seconds:.1f} s of audio, into {arguments.out}"


Group = list[tuple[Path, CodesFile]]


def _groups(paths: tuple[Path, ...], codec: Codec) -> Iterator[Group]:
    """Files that are decoded together, up to FRAMES_AT_ONCE; a file of segments alone."""
    group: Group = []
    for path in paths:
        file = load_codes(path)
        frames = sum(len(member.codes) for _, member in group) + len(file.codes)
        if group and (frames > FRAMES_AT_ONCE or codec.config.segment is not None):
            yield group
            group = []
        group.append((path, file))
    yield group


def _decode_group(group: Group, codec: Codec, out: Path) -> None:
    path, file = group[0]
    if codec.config.segment is None and len(file.codes) <= FRAMES_AT_ONCE:
        wavs = codec.decode_many([file.codes for _, file in group], [file.samples for _, file in group])
        for (path, _), wav in zip(group, wavs, strict=True):
            write_audio(out / f"{path.stem}.wav", wav, codec.sample_rate_hz)
        return
    if codec.config.segment is None:
        starts = range(0, len(file.codes), PIECE_FRAMES)
        pieces = codec.decoder_chain().through(file.codes[start : start + PIECE_FRAMES] for start in starts)
    else:
        pieces = SegmentedCodec(codec).decode_stream(_segments(path, file))
    write_pieces(out / f"{path.stem}.wav", _first(pieces, file.samples), codec.sample_rate_hz)


def _segments(path: Path, file: CodesFile) -> list[Segment]:
    """The segments of a file. Raises ValueError when it has none, or they are not its codes."""
    scales, frames = file.segments or (np.zeros(0), np.zeros(0, int))
    if not len(frames) or frames.sum() != len(file.codes):
        raise ValueError(
            f"{path}: got segments of {frames.sum()} frames for {len(file.codes)} frames of codes, wanted "
            "all of them; encode the audio again"
        )
    parts = np.split(file.codes, np.cumsum(frames)[:-1])
    return [Segment(codes, float(scale)) for codes, scale in zip(parts, scales, strict=True)]


def _first(pieces: Iterator[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    for piece in pieces:
        if len(piece := piece[:samples]):
            yield piece
        samples -= len(piece)


if __name__ == "__main__":
    with cli.main_guard():
        print(decode_files(tyro.cli(Arguments)))
