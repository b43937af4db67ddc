"""The audio a codec trains on and is judged by: folders of files, each folder a domain."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from uniaudio_jax.audio.files import read_audio
from uniaudio_jax.codec.config import CodecTrainConfig
from uniaudio_jax.files import parse_json, read_text

HELDOUT_CLIPS = 16  # of each domain
ENGLISH = "en-us"


class Audio:
    """Training clips of every folder as int16, and held-out clips by domain."""

    def __init__(self, folders: tuple[str, ...], sample_rate_hz: int):
        self.train: list[np.ndarray] = []
        self.heldout: dict[str, list[np.ndarray]] = {}
        self.texts: dict[str, list[str | None]] = {}
        self.converted = 0
        self._sample_rate_hz = sample_rate_hz
        for folder in map(Path, folders):
            for path, heldout, words in _files_of(folder):
                if heldout and len(self.heldout.get(folder.name, [])) == HELDOUT_CLIPS:
                    continue
                clip = read_audio(path, sample_rate_hz)
                self.converted += bool(clip.converted)
                if heldout:
                    self.heldout.setdefault(folder.name, []).append(clip.samples)
                    self.texts.setdefault(folder.name, []).append(words)
                else:
                    self.train.append(np.round(clip.samples * 32767).astype(np.int16))
        self._ends = np.cumsum([len(clip) for clip in self.train])

    def check_trainable(self) -> None:
        """Raises ValueError when there is nothing to train on."""
        if not self.train:
            raise ValueError("CodecTrainConfig.audio: got no training clip, wanted wav files in the folders")

    @property
    def minutes(self) -> float:
        return float(self._ends[-1]) / self._sample_rate_hz / 60

    def _segment(self, rng: np.random.Generator, samples: int) -> np.ndarray:
        clip = self.train[int(np.searchsorted(self._ends, rng.integers(self._ends[-1]), side="right"))]
        start = int(rng.integers(max(1, len(clip) - samples + 1)))
        part = clip[start : start + samples].astype(np.float32) / 32767
        return np.pad(part, (0, samples - len(part)))

    def batch(self, config: CodecTrainConfig, *key: int) -> Float[np.ndarray, "B S"]:
        """Random segments at 0 to -12 dB, some of them sums of two clips; a function of (seed, key)."""
        rng = np.random.default_rng([config.seed, *key])
        hop = config.codec.hop_samples
        samples = round(config.segment_seconds * config.codec.sample_rate_hz / hop) * hop
        rows = np.zeros((config.batch, samples), np.float32)
        for row in rows:
            row += self._segment(rng, samples)
            if rng.random() < config.mix_share:
                row += self._segment(rng, samples) * 10 ** (-rng.uniform(0, 20) / 20)
            row *= 10 ** (-rng.uniform(0, 12) / 20) / max(1.0, float(np.abs(row).max()))
        return rows


def _files_of(folder: Path) -> list[tuple[Path, bool, str | None]]:
    """(path, held out?, its words if they are English) of the folder's audio, in a fixed order."""
    if (folder / "manifest.jsonl").is_file():
        lines = _manifest(folder / "manifest.jsonl")
        return [
            (folder / line[key], line["split"] == "heldout", _words_in(line) if key == "audio" else None)
            for line in lines
            for key in ("audio", "noisy_audio")
            if line.get(key)
        ]
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac", ".ogg"))
    if not paths:
        raise ValueError(f"{folder}: no manifest.jsonl and no wav, flac or ogg file; wanted a folder of audio")
    return [(path, "heldout" in path.relative_to(folder).parts, _words_beside(path)) for path in paths]


def _manifest(path: Path) -> list[dict]:
    """The lines of a manifest. Raises ValueError that names the file and the line."""
    wanted = "an object with split, as `data_pipelines.corpora.folder.write_manifest` writes it"
    lines = enumerate(read_text(path, "one clip a line").splitlines(), 1)
    return [parse_json(line, f"{path}:{number}", wanted, ("split",)) for number, line in lines]


def _words_in(line: dict) -> str | None:
    return line.get("text") if line.get("language") == ENGLISH else None


def _words_beside(path: Path) -> str | None:
    words = path.with_suffix(".txt")
    return read_text(words, "the words of the recording beside it") if words.is_file() else None
