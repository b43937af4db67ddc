"""Prompts of a model out of phones, codes and text vectors, by the ids in vocabulary.json. This file needs PyTorch
alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STRESSES = {"1": "ˈ", "2": "ˌ"}
"""The mark in front of an ARPABET vowel with this digit."""


class Vocabulary:
    """What each id means: special tokens, ranges by name as (first id, size), the task table, the symbols of phones."""

    def __init__(self, values: dict[str, Any]):
        self.special: dict[str, int] = values["special"]
        self.ranges: dict[str, tuple[int, int]] = values["ranges"]
        self.size, self.codebooks, self.entries = values["size"], values["codebooks"], values["entries"]
        self.tasks, self.kinds = values["tasks"], values["kinds"]
        self.symbols: list[str] = values["phones"]["symbols"]
        self.arpabet: dict[str, str] = values["phones"]["arpabet"]

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Vocabulary":
        return cls(json.loads((Path(folder) / "vocabulary.json").read_text(encoding="utf-8")))

    def phones(self, names: Sequence[str]) -> Tensor:
        """Ids [n] of phones in ARPABET, such as AH0, or in IPA as espeak-ng writes it, with " " between words.

        Raises ValueError for names that are neither.
        """
        known = {symbol: number for number, symbol in enumerate(self.symbols)}
        symbols = [symbol for name in names for symbol in self._symbols(name)]
        if unknown := [symbol for symbol in symbols if symbol not in known]:
            raise ValueError(f"phones: got {unknown}, wanted ARPABET (HH AH0 L OW1) or the symbols of vocabulary.json")
        return torch.tensor([known[symbol] for symbol in symbols], dtype=torch.long)

    def _symbols(self, name: str) -> str:
        plain = name.rstrip("012")
        if name not in self.arpabet and plain not in self.arpabet:
            return name
        return STRESSES.get(name[-1], "") + self.arpabet.get(name, self.arpabet.get(plain, ""))

    def prompt(self, task: str, **conditions: Any) -> dict[str, Any]:
        """What `UniAudio.generate` takes for a task that makes audio.

        That is the prefix [1, P, Q] of its conditions, their text vectors, the ids that may come, and that of the end.
        A condition is codes [n, Q], of which -1 are masked, ids [n] counted within their range, or vectors [n, W].
        Raises ValueError for a missing or surplus condition.
        """
        row = self.tasks[task]
        if row["conditions"].keys() != conditions.keys():
            raise ValueError(f"{task}: got {[*conditions]}, wanted the conditions {[*row['conditions']]}")
        if row["target"] != "audio":
            raise ValueError(f"{task}: makes {row['target']}, wanted a task that makes audio")
        parts, vectors = [self._repeated([self.special["<start>"], self.special[row["token"]]])], []
        for name, kind in row["conditions"].items():
            items = torch.as_tensor(conditions[name])
            if self.kinds[kind]["form"] == "vectors":
                vectors.append(items.float())
            parts += [self._mark(kind, "start"), self._items(kind, items), self._mark(kind, "end")]
        prefix = torch.cat([*parts, self._mark("audio", "start")]).unsqueeze(0)
        is_text = prefix[..., 0] == self.special["<continuous_token>"]
        slots = torch.where(is_text, is_text.cumsum(1) - 1, -1)
        text = {"text_vectors": torch.cat(vectors).unsqueeze(0), "text_slots": slots} if is_text.any() else {}
        return {"prefix": prefix, "allowed": self.allowed(), "end": self.special["<audio_end>"], **text}

    def allowed(self) -> Tensor:
        """Which ids [Q, V] are the codes of each level."""
        allowed = torch.zeros(self.codebooks, self.size, dtype=torch.bool)
        for level, start in enumerate(self._starts().tolist()):
            allowed[level, start : start + self.entries] = True
        return allowed

    def codes(self, tokens: Tensor) -> list[Tensor]:
        """The codes [n, Q] of each row of generated tokens [B, T, Q], up to its end."""
        ends = tokens[..., 0] == self.special["<audio_end>"]
        return [row[: int((~end).sum())] - self._starts() for row, end in zip(tokens, ends, strict=True)]

    def _items(self, kind: str, items: Tensor) -> Tensor:
        """The frames [n, Q] of a condition's items."""
        form, span = self.kinds[kind]["form"], self.kinds[kind]["span"]
        if form == "vectors":
            return self._repeated([self.special["<continuous_token>"]] * len(items))
        if form == "ids":
            return self._repeated(items.long() + self.ranges[span][0])
        mask = sum(self.ranges["audio"]) - 1
        codes = items[:, : self.codebooks].long()
        return torch.where(codes < 0, mask, codes + self._starts())

    def _mark(self, kind: str, mark: str) -> Tensor:
        return self._repeated([self.special[f"<{kind}_{mark}>"]])

    def _repeated(self, ids: Sequence[int] | Tensor) -> Tensor:
        """A frame of Q equal tokens for each id."""
        return torch.as_tensor(ids, dtype=torch.long).reshape(-1, 1).expand(-1, self.codebooks)

    def _starts(self) -> Tensor:
        """The first id of each level."""
        return self.ranges["audio"][0] + self.entries * torch.arange(self.codebooks)
