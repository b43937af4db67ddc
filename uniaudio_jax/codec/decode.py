"""Codes to audio files: `python -m uniaudio_jax.codec.decode X.npz [Y.npz …] --out DIR` writes DIR/<stem>.wav.

A wav file that is there already is never overwritten: it may be the recording that was encoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tqdm
import tyro

from uniaudio_jax import cli
from uniaudio_jax.audio.files import write_pieces
from uniaudio_jax.codec.codec import Codec, open_codec
from uniaudio_jax.codec.groups import groups
from uniaudio_jax.codec.passports import same_codes
from uniaudio_jax.codec.segments import Segment, SegmentedCodec
from uniaudio_jax.files import output_paths, parse_json

FRAMES_AT_ONCE = 30_000  # in one batch of files; a longer file is streamed
PIECE_FRAMES = 1000


@dataclass(frozen=True)
class Arguments:
    """Decodes .npz files of codes to wav files."""

    codes: tyro.conf.Positional[tuple[Path, ...]]
    """Files that `uniaudio_jax.codec.encode` wrote."""
    out: Path
    """Folder for the wav files."""
    codec: str | None = None
    """Name of a shipped codec, or the folder of one; by default the name in the first file's passport."""
    codebooks: int | None = None
    """Levels to use, by default all that a file has."""


class CodesFile(NamedTuple):
    """A file of `encode`. `segments`, (scales, frames) of each segment, is there with a codec of segments alone."""

    path: Path
    codes: np.ndarray
    samples: int
    passport: dict
    segments: tuple[np.ndarray, np.ndarray] | None


def load_codes(path: Path) -> CodesFile:
    """The contents of a file of codes. Raises ValueError when it is missing or not such a file."""
    if not path.is_file():
        raise ValueError(
            f"{path}: got no file, wanted an .npz of `python -m uniaudio_jax.codec.encode`; check the path"
        )
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            segments = (file["scales"], file["frames"]) if "scales" in file else None
            passport = parse_json(str(file["passport"]), "passport", "an object")
            return CodesFile(path, file["codes"], int(file["samples"]), passport, segments)
    except Exception as error:  # numpy lets through what zipfile and zlib raise
        raise ValueError(
            f"{path}: got a file that is no .npz with codes, samples and passport ({error}); "
            "make it again with `python -m uniaudio_jax.codec.encode`"
        ) from error


def check_codec(path: Path, passport: dict, codec: Codec) -> None:
    """Raises ValueError for codes that a codec of other codes made."""
    if "weights_sha256" not in passport or not same_codes(passport, codec.passport()):
        raise ValueError(
            f"{path}: its codes were made by codec {passport.get('codec')!r} "
            f"({str(passport.get('weights_sha256'))[:16]}…), but this is {codec.name!r} "
            f"({codec.weights_sha256[:16]}…); give the right one with --codec, or encode the audio again"
        )


def decode_files(arguments: Arguments) -> str:
    """Decodes every file; returns a summary line."""
    if not arguments.codes:
        raise ValueError("decode: got no file, wanted at least one .npz path")
    if arguments.codebooks is not None and arguments.codebooks < 1:
        raise ValueError(f"decode: got codebooks={arguments.codebooks}, wanted at least 1")
    paths = output_paths(arguments.codes, arguments.out, ".wav")
    for path in paths:
        if path.exists():
            raise ValueError(f"{path}: got a file that is there already; move it away or choose another --out")
    unwritten = iter(paths)
    codec = open_codec(arguments.codec or load_codes(arguments.codes[0]).passport.get("codec", ""))
    files = (load_codes(path) for path in arguments.codes)
    seconds, total = 0.0, len(arguments.codes)
    with tqdm.tqdm(total=total, desc="decode", unit="file", disable=total == 1) as bar:
        for group in groups(files, lambda file: len(file.codes), FRAMES_AT_ONCE):
            for file in group:
                check_codec(file.path, file.passport, codec)
                seconds += file.samples / codec.sample_rate_hz
            cut = [file._replace(codes=file.codes[:, : arguments.codebooks]) for file in group]
            for pieces in _decode(cut, codec):
                write_pieces(next(unwritten), pieces, codec.sample_rate_hz)
            bar.update(len(group))
    return f"decoded {total} files, {seconds:.1f} s of audio, into {arguments.out}"


def _decode(group: list[CodesFile], codec: Codec) -> list[Iterator[np.ndarray]]:
    """The waveform of each file, as one piece or several."""
    if codec.config.segment is not None:
        segmented = SegmentedCodec(codec)
        return [_first(segmented.decode_stream(_segments(file)), file.samples) for file in group]
    file = group[0]
    if len(file.codes) > FRAMES_AT_ONCE:
        starts = range(0, len(file.codes), PIECE_FRAMES)
        pieces = codec.decoder_chain().through(file.codes[start : start + PIECE_FRAMES] for start in starts)
        return [_first(pieces, file.samples)]
    wavs = codec.decode_many([file.codes for file in group], [file.samples for file in group])
    return [iter([wav]) for wav in wavs]


def _segments(file: CodesFile) -> list[Segment]:
    """The segments of a file. Raises ValueError when it has none, or they do not add up to its codes."""
    scales, frames = file.segments or (np.zeros(0), np.zeros(0, int))
    if not len(frames) or frames.sum() != len(file.codes):
        raise ValueError(
            f"{file.path}: got segments of {frames.sum()} frames for {len(file.codes)} frames of codes, wanted "
            "all of them; encode the audio again"
        )
    parts = np.split(file.codes, np.cumsum(frames)[:-1])
    return [Segment(codes, float(scale)) for codes, scale in zip(parts, scales, strict=True)]


def _first(pieces: Iterator[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """The pieces, cut off after so many samples."""
    for piece in pieces:
        if len(piece := piece[:samples]):
            yield piece
        samples -= len(piece)


def main() -> None:
    with cli.main_guard():
        print(decode_files(cli.parse(Arguments, None)))


if __name__ == "__main__":
    main()
