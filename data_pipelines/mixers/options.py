"""The ranges that mixers draw from."""

import hashlib
import importlib.util
import itertools
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from data_pipelines.corpora import SPLITS, Split, hashes_of, splits_of
from data_pipelines.synthetic.noises import NOISES

Operation = Literal["add", "remove", "replace", "inpaint", "super_resolution"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
LIMITS = {
    "snr_db": (-60.0, 100.0),
    "talker_db": (-60.0, 60.0),
    "event_db": (-60.0, 60.0),
    "reverberation_seconds": (0.1, 1.0),  # longer ones need more reflections than are simulated
    "masked_share": (0.001, 0.999),
}
ROOM_SUFFIXES = (".wav", ".flac", ".ogg")


def available_noises() -> tuple[str, ...]:
    """The kinds of procedural noise that can be made here: babble needs espeak's voices."""
    has_espeak = importlib.util.find_spec("espeakng_loader") is not None
    return tuple(kind for kind in NOISES if has_espeak or kind != "babble")


@dataclass(frozen=True, kw_only=True)
class MixerOptions:
    """How conditions are derived from clips. A range is a lowest and a highest value."""

    snr_db: tuple[float, float] = (0.0, 15.0)
    """Range of the level of a clip over the noise that is added to it."""
    talker_db: tuple[float, float] = (-5.0, 5.0)
    """Range of the level of a clip over the other talker."""
    event_db: tuple[float, float] = (-5.0, 5.0)
    """Range of the level of a clip over a sound that is edited into it."""
    reverberation_seconds: tuple[float, float] = (0.2, 0.8)
    """Range of the time in which sound in a simulated room falls by 60 dB."""
    rooms_from: Path | None = None
    """Folder of recorded impulse responses, which are used instead of simulated rooms."""
    masked_share: tuple[float, float] = (0.1, 0.5)
    """Range of the share of a clip that is masked."""
    span_steps_per_second: float = 50.0
    """Masked spans start and end at whole steps, this many a second; give at most the frame rate of the codec."""
    operations: tuple[Operation, ...] = OPERATIONS
    """Kinds of edit."""
    noises: tuple[str, ...] = field(default_factory=available_noises)
    """Kinds of procedural noise, which is used where no corpus of sounds is given."""

    def __post_init__(self) -> None:
        for name, (lowest, highest) in LIMITS.items():
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise ValueError(
                    f"MixerOptions.{name}: got {low} to {high}, wanted a lowest and a highest value "
                    f"within {lowest:g} to {highest:g}"
                )
        if not 0 < self.span_steps_per_second < float("inf"):
            raise ValueError(
                f"MixerOptions.span_steps_per_second: got {self.span_steps_per_second}, wanted a number above 0, such "
                "as 50"
            )
        for name, known in (("operations", OPERATIONS), ("noises", tuple(NOISES))):
            chosen = getattr(self, name)
            if not chosen or not set(chosen) <= set(known):
                raise ValueError(f"MixerOptions.{name}: got {chosen}, wanted one or more of {', '.join(known)}")
        if self.rooms_from is not None:
            _ = self.room_files  # refuses a folder without rooms now rather than at the first clip

    @cached_property
    def room_files(self) -> dict[Split, list[Path]]:
        """Recorded impulse responses of each split: no room of a training clip is heard in a held-out one."""
        root = Path(self.rooms_from or "")
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in ROOM_SUFFIXES)
        splits = splits_of(hashes_of(path.relative_to(root).as_posix() for path in paths))
        files: dict[Split, list[Path]] = {
            split: list(itertools.compress(paths, splits == number)) for number, split in enumerate(SPLITS)
        }
        if missing := [split for split in SPLITS if not files[split]]:
            raise ValueError(
                f"MixerOptions.rooms_from: got {len(paths)} impulse responses in {root} and none for the "
                f"{' and the '.join(missing)} split, wanted at least two {', '.join(ROOM_SUFFIXES)} "
                "files; add some"
            )
        return files

    def describe(self) -> dict[str, Any]:
        """The options as JSON values, for a dataset's passport; recorded rooms by a hash of their names and sizes."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        if self.rooms_from is not None:
            paths = sorted(itertools.chain(*self.room_files.values()))
            rows = [f"{path.relative_to(self.rooms_from).as_posix()} {path.stat().st_size}" for path in paths]
            digest = hashlib.sha256("\n".join(rows).encode()).hexdigest()
            values["rooms_from"] = f"{len(paths)} files@{digest[:16]}"
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
