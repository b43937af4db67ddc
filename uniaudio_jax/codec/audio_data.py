"""The audio a codec trains on and is judged by: clips of several domains, held in memory."""

import sys
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from uniaudio_jax.codec.config import CodecTrainConfig
from uniaudio_jax.errors import Refused, usable


class DomainClip(NamedTuple):
    """A clip to train on or to be judged by."""

    domain: str
    samples: Float[np.ndarray, " S"]
    heldout: bool = False
    words: str | None = None
    """What is said, if that is English."""
    converted: bool = False
    """Whether its file had another rate or number of channels."""


class Audio:
    """Training clips of every domain as int16, and held-out clips by domain."""

    def __init__(self, clips: Iterable[DomainClip | Refused], sample_rate_hz: int):
        self.train: list[np.ndarray] = []
        self.heldout: dict[str, list[np.ndarray]] = {}
        self.texts: dict[str, list[str | None]] = {}
        self.domains: list[str] = []
        self.converted = self.refused = 0
        self._sample_rate_hz = sample_rate_hz
        for clip in usable(clips, self._refuse):
            self.converted += clip.converted
            if clip.domain not in self.domains:
                self.domains.append(clip.domain)
            if clip.heldout:
                self.heldout.setdefault(clip.domain, []).append(clip.samples)
                self.texts.setdefault(clip.domain, []).append(clip.words)
            else:
                self.train.append(np.round(clip.samples * 32767).astype(np.int16))
        self._ends = np.cumsum([len(clip) for clip in self.train])

    def _refuse(self, reason: Refused) -> None:
        self.refused += 1
        print(f"left out: {reason}", file=sys.stderr)

    def check_trainable(self) -> None:
        """Raises ValueError when there is nothing to train on."""
        if not self.train:
            raise ValueError(
                f"CodecTrainConfig.audio: got no training clip ({self.refused} left out), wanted corpora with some"
            )

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
