"""Audio files to codes: `python -m uniaudio_jax.codec.encode IN.wav [IN2.wav …] --codec tiny_16k --out DIR`.

Each input becomes DIR/<stem>.npz with `codes` int16 [T, Q], `samples` (its length) and `passport` (JSON text).
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tqdm
import tyro

from uniaudio_jax import cli
from uniaudio_jax.codec.audio_files import read_audio
from uniaudio_jax.codec.codec import Codec, load_codec

FILES_AT_ONCE = 64


@dataclass(frozen=True)
class Arguments:
    """Encodes audio files to .npz files of codes."""

    audio: tyro.conf.Positional[tuple[Path, ...]]
    """wav, flac or ogg files; other sample rates and several channels are converted and counted"""
    out: Path
    """folder for the .npz files"""
    codec: str = "tiny_16k"
    """a shipped codec's name, or the folder of one"""
    codebooks: int | None = None
    """levels to keep; all when not given"""


def save_codes(path: Path, codes: np.ndarray, samples: int, codec: Codec) -> None:
    """Writes one .npz by an atomic rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, codes=codes, samples=np.int64(samples), passport=np.str_(json.dumps(codec.passport())))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
    codec, converted, seconds = load_codec(arguments.codec), 0, 0.0
    with tqdm.tqdm(total=len(stems), desc="encode", unit="file", disable=len(stems) == 1) as bar:
        for start in range(0, len(stems), FILES_AT_ONCE):
            paths = arguments.audio[start : start + FILES_AT_ONCE]
            clips = [read_audio(path, codec.sample_rate_hz) for path in paths]
            codes = codec.encode_many([clip.samples for clip in clips], arguments.codebooks)
            for path, clip, item in zip(paths, clips, codes, strict=True):
                save_codes(arguments.out / f"{path.stem}.npz", item, len(clip.samples), codec)
                converted += bool(clip.converted)
                seconds += len(clip.samples) / codec.sample_rate_hz
            bar.update(len(paths))
    made = f"encoded {len(stems)} files, {seconds:.1f} s of audio, into {arguments.out}"
    return f"{made}; {converted} converted to mono {codec.sample_rate_hz} Hz"


if __name__ == "__main__":
    with cli.main_guard():
        print(encode_files(tyro.cli(Arguments)))
