"""Seconds, samples and frames of a codec."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FrameClock:
    """Converts between the seconds, samples and frames of a codec: one frame every `hop_samples`."""

    sample_rate_hz: int
    hop_samples: int

    @classmethod
    def from_passport(cls, passport: Mapping[str, Any]) -> "FrameClock":
        """The clock of the codec that a dataset's or checkpoint's codec passport describes."""
        return cls(passport["sample_rate_hz"], passport["hop_samples"])

    @property
    def frame_rate_hz(self) -> float:
        return self.sample_rate_hz / self.hop_samples

    def frames(self, seconds: float) -> int:
        """The number of frames nearest to `seconds`."""
        return round(seconds * self.frame_rate_hz)

    def seconds(self, frames: float) -> float:
        """How long `frames` last."""
        return frames / self.frame_rate_hz

    def hours(self, frames: float) -> float:
        """How long `frames` last, in hours."""
        return self.seconds(frames) / 3600

    def frames_of_samples(self, samples: int) -> int:
        """The number of frames that cover `samples`; the last frame may be partly filled."""
        return -(-samples // self.hop_samples)
