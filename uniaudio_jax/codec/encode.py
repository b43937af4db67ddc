"""Audio files to codes: `python -m uniaudio_jax.codec.encode IN.wav [IN2.wav …] --codec tiny_16k --out DIR`.

Each input becomes DIR/<stem>.npz with `codes` int16 [T, Q], `samples` (its length) and `passport` (JSON text); a codec
of segments adds `scales` [N] and `frames` [N], one for each segment. Long files are encoded piece by piece. Of several
files a broken one is named and left out.
"""

import functools
import json
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tqdm
import tyro

from uniaudio_jax import cli
from uniaudio_jax.audio.files import AudioStream
from uniaudio_jax.codec.codec import Codec, open_codec
from uniaudio_jax.codec.groups import groups
from uniaudio_jax.codec.segments import SegmentedCodec
from uniaudio_jax.errors import Refused, attempt, attempt_each, usable
from uniaudio_jax.files import atomic_write, output_paths

SECONDS_AT_ONCE = 600.0  # of audio in one batch of files; a longer file is streamed
PIECE_SECONDS = 20.0


@dataclass(frozen=True)
class Arguments:
    """Encodes audio files to .npz files of codes."""

    audio: tyro.conf.Positional[tuple[Path, ...]]
    """Wav, flac or ogg files. Other sample rates and numbers of channels are converted, and counted."""
    out: Path
    """Folder for the .npz files."""
    codec: str = "tiny_16k"
    """Name of a shipped codec, or the folder of one."""
    codebooks: int | None = None
    """Levels to keep, all by default."""
    bandwidth: float | None = None
    """Levels to keep, as kbit/s: 6 keeps 8 levels of encodec_24khz."""


def save_codes(path: Path, *, codec: Codec, samples: int, **arrays: np.ndarray) -> None:
    """Writes one .npz, atomically."""
    passport = np.str_(json.dumps(codec.passport()))
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, samples=np.int64(samples), passport=passport, **arrays)


def encode_files(arguments: Arguments) -> str:
    """Encodes every file; returns a summary line. Raises ValueError where none of them can be encoded."""
    if not arguments.audio:
        raise ValueError("encode: got no audio file, wanted at least one path")
    targets = dict(zip(map(str, arguments.audio), output_paths(arguments.audio, arguments.out, ".npz"), strict=True))
    for path in targets.values():
        _check_free(path)
    codec, converted, seconds = open_codec(arguments.codec), 0, 0.0
    levels, reasons = _levels(arguments, codec), []

    def refuse(reason: Refused) -> None:
        reasons.append(reason)
        if len(reasons) == len(targets):
            several = f"encode: got {len(targets)} broken files; the last: " if len(targets) > 1 else ""
            raise ValueError(several + reason)
        tqdm.tqdm.write(f"left out: {reason}", file=sys.stderr)

    opened = (attempt(AudioStream, path, codec.sample_rate_hz, codec.channels) for path in arguments.audio)
    most = round(SECONDS_AT_ONCE * codec.sample_rate_hz)
    with tqdm.tqdm(total=len(targets), desc="encode", unit="file", disable=len(targets) == 1) as bar:
        for group in groups(usable(opened, refuse), lambda stream: stream.samples, most):
            for stream, arrays in usable(attempt_each(functools.partial(_encode, codec, levels), group), refuse):
                save_codes(targets[stream.where], codec=codec, samples=stream.samples, **arrays)
                converted += bool(stream.converted)
                seconds += stream.samples / codec.sample_rate_hz
            bar.update(len(group))
    kind = {1: "mono", 2: "stereo"}[codec.channels]
    return (
        f"encoded {len(targets) - len(reasons)} files, {seconds:.1f} s of audio, into {arguments.out}; "
        f"{converted} converted to {kind} {codec.sample_rate_hz} Hz"
        f"{f', {len(reasons)} left out' if reasons else ''}"
    )


def _check_free(path: Path) -> None:
    """Raises ValueError where a file that is no earlier result would be overwritten."""
    if not path.exists():
        return
    arrays = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if not {"codes.npy", "passport.npy"} <= set(arrays):
        raise ValueError(f"{path}: got a file that is there and holds no codes; move it away or choose another --out")


def _levels(arguments: Arguments, codec: Codec) -> int | None:
    if arguments.codebooks is not None and not 1 <= arguments.codebooks <= codec.codebooks:
        raise ValueError(f"encode: got codebooks={arguments.codebooks}, wanted 1 to {codec.codebooks}")
    if arguments.bandwidth is None:
        return arguments.codebooks
    if arguments.codebooks is not None:
        raise ValueError("encode: got both codebooks and a bandwidth, wanted one of them")
    return codec.codebooks_of(arguments.bandwidth)


def _encode(
    codec: Codec, levels: int | None, group: Sequence[AudioStream]
) -> list[tuple[AudioStream, dict[str, np.ndarray]]]:
    """Each file with the arrays of its .npz: codes, and with a codec of segments their scales and frames."""
    if codec.config.segment is not None:
        return [(stream, _encode_segments(stream, SegmentedCodec(codec), levels)) for stream in group]
    if group[0].samples > SECONDS_AT_ONCE * codec.sample_rate_hz:
        pieces = codec.encoder_chain(levels).through(group[0].pieces(PIECE_SECONDS))
        return [(group[0], {"codes": np.concatenate(list(pieces))})]
    wavs = [np.concatenate(list(stream.pieces())) for stream in group]
    codes = codec.encode_many(wavs, levels)
    return [(stream, {"codes": item}) for stream, item in zip(group, codes, strict=True)]


def _encode_segments(stream: AudioStream, codec: SegmentedCodec, levels: int | None) -> dict[str, np.ndarray]:
    segments = list(codec.encode_stream(stream.pieces(PIECE_SECONDS), levels))
    return {
        "codes": np.concatenate([segment.codes for segment in segments]),
        "scales": np.array([segment.scale for segment in segments], np.float32),
        "frames": np.array([len(segment.codes) for segment in segments]),
    }


def main() -> None:
    with cli.main_guard():
        print(encode_files(cli.parse(Arguments, None)))


if __name__ == "__main__":
    main()
