"""Codes to audio files: `python -m uniaudio_jax.codec.decode X.npz [Y.npz …] --out DIR` writes DIR/<stem>.wav."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tqdm
import tyro

from uniaudio_jax import cli
from uniaudio_jax.codec.audio_files import write_audio
from uniaudio_jax.codec.codec import Codec, load_codec

FILES_AT_ONCE = 64


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


def load_codes(path: Path) -> tuple[np.ndarray, int, dict]:
    """(codes [T, Q], samples, passport) of one file."""
    if not path.is_file():
        raise ValueError(
            f"{path}: got no file, wanted an .npz of `python -m uniaudio_jax.codec.encode`; check the path"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["codes"], int(file["samples"]), json.loads(str(file["passport"]))
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
    name = arguments.codec or load_codes(arguments.codes[0])[2].get("codec", "")
    codec, seconds = load_codec(name), 0.0
    total = len(arguments.codes)
    with tqdm.tqdm(total=total, desc="decode", unit="file", disable=total == 1) as bar:
        for start in range(0, total, FILES_AT_ONCE):
            paths = arguments.codes[start : start + FILES_AT_ONCE]
            items = [load_codes(path) for path in paths]
            for path, (_, _, passport) in zip(paths, items, strict=True):
                check_codec(path, passport, codec)
            levels = [codes[:, : arguments.codebooks] for codes, _, _ in items]
            wavs = codec.decode_many(levels, [samples for _, samples, _ in items])
            for path, wav in zip(paths, wavs, strict=True):
                write_audio(arguments.out / f"{path.stem}.wav", wav, codec.sample_rate_hz)
                seconds += len(wav) / codec.sample_rate_hz
            bar.update(len(paths))
    return f"decoded {total} files, {seconds:.1f} s of audio, into {arguments.out}"


if __name__ == "__main__":
    with cli.main_guard():
        print(decode_files(tyro.cli(Arguments)))
