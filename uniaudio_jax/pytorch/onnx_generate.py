"""UniAudio by onnxruntime: codes of audio out of prompts, with numpy and onnxruntime alone.

    model = UniAudio(".")
    prompt = model.prompt("<start>", "<tts_task>", "<phone_start>", model.ids("phone", [3, 7]), "<phone_end>", …)
    (tokens,) = model.generate([prompt], frames=150, temperature=0.8, top_k=30, seed=0)
    codes = model.codes(tokens)

Letters of shapes: B rows, P frames of a prompt, N new frames, Q tokens of a frame, V ids, W width of a text vector.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # pyright: ignore[reportMissingImports]


class UniAudio:
    """The model of frame.onnx, config.json and vocabulary.json in a folder."""

    def __init__(self, folder: str | Path):
        read = [json.loads((Path(folder) / f"{name}.json").read_text("utf-8")) for name in ("config", "vocabulary")]
        self.config, self.vocabulary = read
        self.special: dict[str, int] = self.vocabulary["special"]
        self.levels, self.size = self.vocabulary["codebooks"], self.vocabulary["size"]
        self.ahead: Sequence[int] = self.config.get("layout", {}).get("aligned", ())
        self.session = onnxruntime.InferenceSession(Path(folder) / "frame.onnx", providers=["CPUExecutionProvider"])
        self.caches = [each.name for each in self.session.get_inputs() if each.name.startswith(("keys_", "values_"))]
        self.outputs = [each.name for each in self.session.get_outputs()]
        entries = self.vocabulary["entries"]
        self.starts = self.vocabulary["ranges"]["audio"][0] + entries * np.arange(self.levels)
        ids = np.arange(self.size)
        self.code_ids = (ids >= self.starts[:, None]) & (ids < self.starts[:, None] + entries)

    def ids(self, name: str, items: Any) -> np.ndarray:
        """The ids [n] of items that are counted from 0 in the range of this name."""
        return np.asarray(items, np.int64) + self.vocabulary["ranges"][name][0]

    def tokens(self, codes: Any) -> np.ndarray:
        """The ids [n, Q] of a codec's codes."""
        return np.asarray(codes, np.int64) + self.starts

    def codes(self, tokens: np.ndarray) -> np.ndarray:
        """The codes [n, Q] of generated ids."""
        return tokens - self.starts

    def prompt(self, *parts: Any) -> np.ndarray:
        """Frames [P, Q] of special tokens by name, of ids [n] and of ids [n, Q], one after the other."""
        frames = []
        for part in parts:
            ids = np.asarray(self.special[part] if isinstance(part, str) else part, np.int64)
            frames.append(ids if ids.ndim == 2 else np.repeat(ids.reshape(-1, 1), self.levels, axis=1))
        return np.concatenate(frames)

    def generate(
        self,
        prompts: Sequence[np.ndarray],
        frames: int,
        *,
        texts: Sequence[np.ndarray] | None = None,
        allowed: np.ndarray | None = None,
        end: int | None = None,
        temperature: float = 1.0,
        top_k: int = 30,
        seed: int = 0,
    ) -> list[np.ndarray]:
        """At most `frames` frames [n, Q] after each prompt [P, Q], whose lengths may differ.

        texts: each prompt's vectors [n, W], one for each frame of `<continuous_token>`; allowed: which ids [Q, V] may
        come at each level, by default its codes; end: the id that ends a row when it comes first, by default
        `<audio_end>`, or -1 for none; temperature: 0 takes the most likely id; top_k: 0 for all. Raises ValueError
        where prompt and frames do not fit into the context.
        """
        longest = max(map(len, prompts))
        if longest + frames > self.config["context_frames"]:
            raise ValueError(
                f"generate: got a prompt of {longest} and {frames} frames, wanted at most context_frames="
                f"{self.config['context_frames']} together; ask for fewer frames"
            )
        allowed, rng = self.code_ids if allowed is None else allowed, np.random.default_rng(seed)
        end = self.special["<audio_end>"] if end is None else end
        shape = (len(prompts), self.levels, self.size)
        chosen = {"allowed": np.broadcast_to(allowed, shape), "temperature": temperature, "top_k": top_k}
        inputs = self.first_inputs(prompts, texts)
        found = [self.aligned_frames(prompt, frames)[len(prompt) + 1 :] for prompt in prompts]
        later = np.stack([np.pad(row, ((0, 1), *[(0, 0)] * 3), constant_values=-1) for row in found])
        made, lengths, caches = [], np.full(len(prompts), frames), None
        for frame in range(frames):
            noise = rng.gumbel(size=shape) if temperature else np.zeros(shape)
            ids, logits, caches = self.step(inputs, caches, noise=noise, **chosen)
            made.append(ids)
            if end >= 0:
                over = ends(logits[:, 0], allowed[0], end, temperature, top_k, rng)
                lengths = np.where(over, np.minimum(lengths, frame), lengths)
                if (lengths <= frame).all():
                    break
            inputs = {"before": ids[:, None], "padding": inputs["padding"], "aligned": later[:, frame : frame + 1]}
        tokens = np.stack(made, axis=1) if made else np.zeros((len(prompts), 0, self.levels), np.int64)
        return [row[:length] for row, length in zip(tokens, lengths, strict=True)]

    def first_inputs(self, prompts: Sequence[np.ndarray], texts: Sequence[np.ndarray] | None) -> dict[str, np.ndarray]:
        """What `step` takes to read prompts: their frames behind `<mega_global>`, with padding before short ones."""
        longest = max(map(len, prompts))
        before = np.full((len(prompts), longest + 1, self.levels), self.special["<mega_global>"])
        aligned = np.full((len(prompts), longest + 1, len(self.ahead), len(ALIGNED_KINDS), self.levels), -1)
        for row, beside, prompt in zip(before, aligned, prompts, strict=True):
            row[longest + 1 - len(prompt) :] = prompt
            beside[longest - len(prompt) :] = self.aligned_frames(prompt, 1)
        padding = np.array([longest - len(prompt) for prompt in prompts])
        inputs = {"before": before, "padding": padding, "aligned": aligned}
        if texts is None:
            return inputs
        is_text = before[..., 0] == self.special["<continuous_token>"]
        text = np.zeros((*is_text.shape, self.config["text_width"]), np.float32)
        text[is_text] = np.concatenate(texts)
        return inputs | {"text": text, "is_text": is_text}

    def aligned_frames(self, tokens: np.ndarray, more: int) -> np.ndarray:
        """What the conditions hold at the time of each of the frames [T, Q] of an example and of `more` after them, and
        so many frames ahead as the layout says, [T + more, A, K, Q]."""
        return aligned_frames(tokens, more, self.special, self.ahead)

    def step(
        self,
        inputs: dict[str, np.ndarray],
        caches: Sequence[Any] | None,
        *,
        allowed: np.ndarray,
        noise: np.ndarray,
        temperature: float,
        top_k: int,
    ) -> tuple[np.ndarray, np.ndarray, Sequence[Any]]:
        """Ids [B, Q] and logits [B, Q, V] of the next frame, and the caches, which are None at a row's begin.

        inputs: "before" [B, N, Q], "padding" [B], "aligned" [B, N, A, K, Q], and "text" [B, N, W] with "is_text" [B, N]
        where there are such; all others as frame.onnx has them. Caches stay onnxruntime's own values, so that none is
        copied.
        """
        rows, frames = inputs["before"].shape[:2]
        heads, width = self.config["heads"], self.config["width"] // self.config["heads"]
        feeds = {
            "text": np.zeros((rows, frames, self.config["text_width"]), np.float32),
            "is_text": np.zeros((rows, frames), bool),
            **inputs,
            "allowed": allowed,
            "noise": noise.astype(np.float32),
            "temperature": np.array([temperature], np.float32),
            "top_k": np.array([min(top_k or self.size, self.size)]),
        }
        values = {name: value_of(np.ascontiguousarray(array)) for name, array in feeds.items()}
        if caches is None:
            caches = [value_of(np.zeros((rows, heads, 0, width), np.float32)) for _ in self.caches]
        values |= dict(zip(self.caches, caches, strict=True))
        ids, logits, *caches = self.session.run_with_ort_values(self.outputs, values)
        return ids.numpy(), logits.numpy(), caches


ALIGNED_KINDS = ("phone", "semantic", "sing_midi", "audio")
"""Kinds of streams that tell what sounds at each time."""


def aligned_frames(tokens: np.ndarray, more: int, special: dict[str, int], ahead: Sequence[int]) -> np.ndarray:
    """For each of the frames [T, Q] of one example, and `more` after them, the frames of each of the K `ALIGNED_KINDS`
    that lie as far behind its mark, and each of the A `ahead` further, [T + more, A, K, Q].

    A frame belongs to the stream whose mark came last before it. Of each kind the last stream that began before that
    one counts; where there is none, or it is shorter, the ids are -1.
    """
    starts = {number: name for name, number in special.items() if name.endswith("_start>")}
    stops = {number for name, number in special.items() if name.endswith("_end>")}
    found = np.full((len(tokens) + more, len(ahead), len(ALIGNED_KINDS), tokens.shape[1]), -1)
    earlier: dict[str, np.ndarray] = {}
    name, begun = "", 0
    for place in range(len(tokens) + more):
        for number, kind in enumerate(ALIGNED_KINDS):
            items = earlier.get(f"<{kind}_start>", tokens[:0])
            for row, frames in zip(found[place, :, number], ahead, strict=True):
                if name and place - begun + frames <= len(items):
                    row[:] = items[place - begun - 1 + frames]
        first = int(tokens[place, 0]) if place < len(tokens) else -1
        if first in stops:
            earlier[name] = tokens[begun + 1 : place]
        if first in starts:
            name, begun = starts[first], place
    return found


value_of = onnxruntime.OrtValue.ortvalue_from_numpy


def ends(
    logits: np.ndarray, allowed: np.ndarray, end: int, temperature: float, top_k: int, rng: np.random.Generator
) -> np.ndarray:
    """Whether each row [B] ends, by the logits [B, V] of its frame's first id.

    The end is drawn with its probability beside all `allowed` ids [V], if it is at least as likely as the last one that
    is kept: its share among those alone would end most rows too early.
    """
    best = -np.sort(-logits[:, allowed], axis=1)
    if temperature == 0:
        return logits[:, end] > best[:, 0]
    ending, best = logits[:, end] / temperature, best / temperature
    total = np.logaddexp.reduce(best, axis=1)
    chance = np.exp(ending - np.logaddexp(ending, total))
    return (rng.random(len(logits)) < chance) & (ending >= best[:, : top_k or None][:, -1])
