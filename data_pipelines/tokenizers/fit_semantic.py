"""Fits the cluster centres of semantic units: k-means over the features of a speech encoder.

    python -m data_pipelines.tokenizers.fit_semantic --audio DIR [DIR …] --out FILE.npz

reads wav, flac and ogg files below the folders, `heldout` folders excepted, in a random order that --seed fixes, until
--minutes of audio are read. On one machine the same files and options give the same bytes. FILE.npz holds `centroids`,
float16 [V, K], `projection` [D, K] of features to them, if there is one, and `record`, JSON that names the encoder, its
hash and layer. Memory: 0.3 GB for each hour of audio
with Whisper-tiny.

--phones N projects the features first to the N dimensions in which phones differ most beside their spread (linear
discriminant analysis); the folders must then be corpora whose clips have phones with durations, as
`data_pipelines.synthetic --timed-share 1` makes them. Units should say which phone is spoken, not who speaks.

--judge then speaks held-out sentences in several voices and prints how well units tell what is said: `phones`, the
share of the frames of a voice whose phone is the one that their unit most often stands for in the other voices (high is
good), and distances between units of the same sentence in different voices (low) and of different sentences (high).

The shipped file is of layer 3 with --phones 38, from 60 minutes of the speech that `configs/universal_tiny.py` names.
The file before it was of layer 4 without a projection, from 60 minutes of espeak's and Piper's speech. By --judge:

    units                   phones   same_sentence   same_sentence_piper   other_sentence
    layer 4, as it is        0.427       0.367              0.595              0.850
    layer 2, --phones 38     0.676       0.669              0.884              0.951
    layer 3, --phones 38     0.652       0.643              0.838              0.952

Projected units are finer, so that fewer are equal between voices, but what they stand for is more often the same phone.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from jaxtyping import Float32, Int16
from sklearn.cluster import MiniBatchKMeans, kmeans_plusplus
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from data_pipelines.corpora.folder import open_folder
from data_pipelines.encoders.whisper import FRAMES_PER_SECOND, SAMPLE_RATE_HZ
from data_pipelines.tokenizers.judging import judge
from data_pipelines.tokenizers.phone import PhoneTokenizer
from data_pipelines.tokenizers.phone_projection import phone_projection, phones_of_frames
from data_pipelines.tokenizers.semantic import Clusters, SpeechEncoder, load_encoder, read_clusters, speech_features
from uniaudio_jax.audio.files import read_audio
from uniaudio_jax.cli import checked, main_guard, use_compile_cache
from uniaudio_jax.files import atomic_write
from uniaudio_jax.vocab import SEMANTIC_UNITS

SUFFIXES = (".wav", ".flac", ".ogg")
FILES_AT_ONCE = 32
PASSES, BATCH_FRAMES = 20, 10_000
START_FRAMES = 50_000  # of which k-means++ draws the first centres


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Fit the cluster centres of semantic units."""

    audio: tuple[Path, ...]
    """Folders of speech; wav, flac and ogg files below them are read, those in `heldout` folders excepted."""
    out: Path
    """The .npz file to write."""
    encoder: Path | None = None
    """Folder of a HuBERT (Hugging Face) or Whisper (CTranslate2) model; the packaged Whisper-tiny if not given."""
    layer: int | None = None
    """Layer of the encoder whose features are clustered; HuBERT's 9th and Whisper's last if not given."""
    clusters: int = SEMANTIC_UNITS
    """Number of clusters; the vocabulary has slots for 500."""
    phones: int | None = None
    """Project to so many dimensions that tell phones apart, below their number; `audio` must then be corpora with timed
    phones. Without it the features are clustered as they are."""
    minutes: float = 60.0
    """Minutes of audio to fit to, drawn from all files."""
    seed: int = 0
    """Seed of the draw of files and of k-means."""
    judge: bool = False
    """Also measure how well units tell what is said, whoever says it."""

    def __post_init__(self) -> None:
        if self.out.suffix != ".npz":
            raise ValueError(f"--out: got {self.out}, wanted a name that ends in .npz")
        if self.phones is not None and self.phones < 1:
            raise ValueError(f"--phones: got {self.phones}, wanted at least 1 dimension")
        if not (0 < self.minutes < float("inf") and 2 <= self.clusters <= np.iinfo(np.int16).max and self.seed >= 0):
            raise ValueError(
                f"fit_semantic: got minutes={self.minutes}, clusters={self.clusters}, seed={self.seed}; "
                "wanted minutes above 0, 2 to 32767 clusters and a seed of 0 or more"
            )


class Recording(NamedTuple):
    """A file to fit to, and what is said in it."""

    path: Path
    phones: tuple[tuple[str, float], ...]
    """Symbols and seconds; empty where they are not asked for."""


def recordings_in(folders: tuple[Path, ...], with_phones: bool) -> list[Recording]:
    """Audio files below the folders, those of `heldout` folders excepted; `with_phones`, the training clips of corpora
    whose phones have durations. Raises ValueError where a folder has none."""
    found = []
    for folder in folders:
        of_folder = _timed_clips(folder) if with_phones else _audio_files(folder)
        if not of_folder:
            wanted = "training clips whose phones have durations" if with_phones else "speech to fit to"
            raise ValueError(f"{folder}: got no {', '.join(SUFFIXES)} file below this folder, wanted {wanted}")
        found += of_folder
    return found


def _audio_files(folder: Path) -> list[Recording]:
    return [
        Recording(path, ())
        for path in sorted(folder.rglob("*"))
        if path.suffix in SUFFIXES and "heldout" not in path.relative_to(folder).parts
    ]


def _timed_clips(folder: Path) -> list[Recording]:
    corpus = open_folder(folder)
    entries = (corpus.entries[int(number)] for number in corpus.numbers("train"))
    return [
        Recording(entry.audio["audio"].path, entry.about["phones"])
        for entry in entries
        if "audio" in entry.audio and "phones" in entry.about
    ]


def training_features(
    encoder: SpeechEncoder, options: FitOptions
) -> tuple[Float32[np.ndarray, "N D"], Int16[np.ndarray, " P"]]:
    """Features of all frames of recordings in a random order, until `minutes` of audio are read or none is left, and
    the phone of each frame; no phones where they are not asked for."""
    recordings = recordings_in(options.audio, options.phones is not None)
    order = np.random.default_rng(options.seed).permutation(len(recordings))
    features: list[np.ndarray] = []
    phones: list[np.ndarray] = []
    seconds, wanted, tokenizer = 0.0, 60 * options.minutes, PhoneTokenizer()
    with tqdm(total=round(wanted), desc="features", unit="s") as bar:
        for first in range(0, len(recordings), FILES_AT_ONCE):
            if seconds >= wanted:
                break
            wavs, of_wavs = [], []
            for number in order[first : first + FILES_AT_ONCE]:
                if seconds < wanted:
                    wavs.append(read_audio(recordings[number].path, SAMPLE_RATE_HZ).samples)
                    of_wavs.append(recordings[number].phones)
                    seconds += len(wavs[-1]) / SAMPLE_RATE_HZ
            read = speech_features(encoder, wavs)
            features += read
            if options.phones is not None:
                phones += [phones_of_frames(tokenizer, p, len(f)) for p, f in zip(of_wavs, read, strict=True)]
            bar.update(round(min(seconds, wanted)) - bar.n)
    return np.concatenate(features), np.concatenate(phones) if phones else np.zeros(0, np.int16)


def fit_centroids(frames: Float32[np.ndarray, "N D"], clusters: int, seed: int) -> Float32[np.ndarray, "V D"]:
    """Centres of `clusters` clusters: k-means++ on some frames, then mini-batch k-means in 20 passes over all.

    Raises ValueError for fewer frames than clusters.
    """
    if len(frames) < clusters:
        raise ValueError(
            f"fit_semantic: got {len(frames)} frames of 20 ms, wanted at least {clusters}, one for each "
            "cluster; give more audio or fewer clusters"
        )
    rng = np.random.default_rng(seed)
    with threadpool_limits(1):  # so that sums do not depend on the number of cores
        start, _ = kmeans_plusplus(frames[rng.permutation(len(frames))[:START_FRAMES]], clusters, random_state=seed)
        # Every first centre is a frame, so that no cluster is empty and none has to be drawn again.
        settings: Any = {"init": start, "n_init": 1, "random_state": seed, "reassignment_ratio": 0}
        model = MiniBatchKMeans(clusters, **settings)
        for _ in tqdm(range(PASSES), desc="k-means", unit="pass"):
            order = rng.permutation(len(frames))
            for first in range(0, len(frames), BATCH_FRAMES):
                model.partial_fit(frames[order[first : first + BATCH_FRAMES]])
    return np.asarray(model.cluster_centers_, np.float32)


def write_clusters(path: Path, clusters: Clusters) -> None:
    """Writes the .npz file that `read_clusters` reads, its numbers in half precision."""
    arrays: dict[str, Any] = {"centroids": clusters.centroids.astype(np.float16)}
    if clusters.projection is not None:
        arrays["projection"] = clusters.projection.astype(np.float16)
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays, record=np.array(json.dumps(clusters.record, allow_nan=False)))


def main(options: FitOptions) -> None:
    """Fits the clusters, writes their file and prints a line about it; with --judge a second line."""
    encoder = load_encoder(options.encoder, options.layer)
    frames, phones = training_features(encoder, options)
    projection, projected = None, frames
    if options.phones is not None:
        projection = phone_projection(frames, phones, options.phones).astype(np.float16).astype(np.float32)
        projected = frames @ projection
    centroids = fit_centroids(projected, options.clusters, options.seed)
    minutes = len(frames) / FRAMES_PER_SECOND / 60
    record = {
        "encoder": encoder.name,
        "encoder_sha256": encoder.sha256,
        "layer": encoder.layer,
        "minutes": round(minutes, 2),
        "seed": options.seed,
    }
    write_clusters(options.out, Clusters(centroids, projection, record))
    clusters = read_clusters(options.out)
    units = clusters.nearest(frames)
    counts = np.bincount(units, minlength=options.clusters)
    print(
        f"{options.out}: {options.clusters} clusters of {encoder.name}, layer {encoder.layer}, from {minutes:.1f} "
        f"min; the rarest has {counts.min()} frames, the most frequent {counts.max() / len(frames):.1%}"
    )
    if options.judge:
        print(f"{options.out}: " + ", ".join(f"{name} {value:.3f}" for name, value in judge(encoder, clusters).items()))


if __name__ == "__main__":
    use_compile_cache()
    with main_guard():
        main(checked(tyro.cli(FitOptions, description=__doc__)))
