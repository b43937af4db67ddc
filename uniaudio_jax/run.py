"""A trained run, for notebooks and entry points: logits, generation, codec."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from uniaudio_jax.checkpoint import Checkpoints, load_config_of, one_device
from uniaudio_jax.codec.codec import Codec, load_codec
from uniaudio_jax.config import check_codec
from uniaudio_jax.decoding import Generator, Sampling
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.sequence import MASK_CODE, to_prefix, unscored
from uniaudio_jax.tasks import DRAWN, Task, get_task
from uniaudio_jax.vocab import CONTINUOUS

SPARE = 1.3
"""A held-out example may become this much longer than its reference."""


class Run:
    """The newest checkpoint of a run folder, on the first device."""

    def __init__(self, path: Path):
        self.path = path
        self.config, self.meta = load_config_of(path)
        self.vocabulary = self.config.model.ids
        self.definition = ModelDefinition(self.config.model)
        checkpoints = Checkpoints(path)
        self.params: Params = checkpoints.restore({"params": one_device(self.definition.shapes())})["params"]
        self.step = checkpoints.latest()
        checkpoints.close()
        self._forward = jax.jit(self.definition.logits)

    @cached_property
    def codec(self) -> Codec:
        """The codec that made the run's tokens. Raises ValueError when its weights have changed since."""
        if self.config.codec is None:
            raise ValueError(f"{self.path}: this run was imported without a codec; import again with --codec NAME")
        codec, wanted = load_codec(self.config.codec), self.meta["codec"]
        check_codec(self.config.model, codec.passport())
        if wanted and codec.weights_sha256 != wanted["weights_sha256"]:
            raise ValueError(
                f"{self.path}: trained on tokens of codec {wanted['codec']} ({wanted['weights_sha256'][:12]}), "
                f"but {self.config.codec} is now {codec.weights_sha256[:12]}; restore that codec"
            )
        return codec

    @cached_property
    def generator(self) -> Generator:
        return Generator(self.definition, self.params, self.vocabulary)

    @property
    def prompt_frames(self) -> int:
        return round(self.config.data.prompt_seconds * self.codec.sample_rate_hz / self.codec.hop_samples)

    def logits(
        self, tokens: Int[ArrayLike, "B T Q"], text_vectors: Float[ArrayLike, "B M W"] | None = None
    ) -> Float[Array, "B T Q V"]:
        """Logits of every token given those before it; frame t's `<continuous_token>` takes the next text vector.

        Raises ValueError when shapes or ids are not the model's, or a row has more text frames than vectors.
        """
        model = self.config.model
        tokens = np.asarray(tokens)
        if tokens.ndim != 3 or tokens.shape[2] != model.codebooks or tokens.shape[1] > model.context_frames:
            raise ValueError(
                f"tokens: got shape {tokens.shape}, wanted [B, T, {model.codebooks}] with T at most "
                f"{model.context_frames}"
            )
        if tokens.size and not (tokens.min() >= 0 and tokens.max() < model.vocabulary_size):
            raise ValueError(
                f"tokens: got ids {tokens.min()} to {tokens.max()}, wanted 0 to {model.vocabulary_size - 1}"
            )
        rows, frames = tokens.shape[:2]
        vectors = (
            np.zeros((rows, 1, model.text_width), np.float32) if text_vectors is None else np.asarray(text_vectors)
        )
        is_text = tokens[..., 0] == CONTINUOUS
        if (
            vectors.shape[0] != rows
            or vectors.shape[2] != model.text_width
            or (text_vectors is not None and is_text.sum(1).max(initial=0) > vectors.shape[1])
        ):
            raise ValueError(
                f"text_vectors: got shape {vectors.shape} for rows with up to {is_text.sum(1).max()} text "
                f"frames, wanted [{rows}, M, {model.text_width}]"
            )
        slots = np.where(is_text & (text_vectors is not None), np.cumsum(is_text, 1) - 1, -1)
        segments, places = np.ones((rows, frames), np.int32), np.tile(np.arange(frames, dtype=np.int32), (rows, 1))
        batch = unscored(tokens, segments, places, slots, vectors)
        return self._forward(self.params, batch)

    def generate(
        self, task: str, *, sampling: Sampling | None = None, seconds: float | None = None, **conditions: Any
    ) -> Any:
        """A 16 kHz waveform [S], or the text that a task such as `asr` makes, for the conditions of `task`.

        run.generate("tts", text="Hello there.", speaker_prompt=wav). Conditions are fields of a clip (see
        data_pipelines/corpora): texts, labels, notes, and waveforms at the codec's rate. seconds: the most to make;
        without it as long as the model's positions allow. Raises ValueError for a missing or surplus condition, or a
        prompt too long.
        """
        streams, frames = self._conditions(task, conditions), self._frames(seconds)
        made = self.generate_streams(task, [streams], sampling=sampling, frames=frames)[0]
        return self.codec.decode(made) if get_task(task).makes_audio else self.text_of(task, made)

    def waveform_of(self, codes: Int[np.ndarray, "T Q"]) -> Float[np.ndarray, " S"]:
        """The waveform of codes; frames that a speech edit has masked are silent."""
        masked = (codes == MASK_CODE).any(axis=1)
        wav = self.codec.decode(np.where(codes == MASK_CODE, 0, codes))
        return np.where(np.repeat(masked, self.codec.hop_samples), np.float32(0), wav)

    def text_of(self, task: str, ids: np.ndarray) -> str:
        """What the ids of a target say, such as words or names of sounds."""
        return self.tokenizers.text_of(get_task(task).target.kind, ids)

    def stream(
        self, task: str, *, sampling: Sampling | None = None, seconds: float | None = None, **conditions: Any
    ) -> Iterator[np.ndarray]:
        """As `generate` of audio, but in pieces while it is being made; together they are the same samples."""
        row, streams = get_task(task), self._conditions(task, conditions)
        prefix = to_prefix(row, streams, self.vocabulary, self.config.model.text_width)
        codes = self.generator.stream(row, prefix, sampling or Sampling(), self._frames(seconds))
        return self.codec.decoder_chain().through(codes)

    @cached_property
    def tokenizers(self) -> Any:
        """The tokenizers of the run's config, opened as they are needed."""
        from data_pipelines.streams import Tokenizers

        return Tokenizers(self.codec, self.config.data.tokenizers, self.config.model.codebooks)

    def _conditions(self, task: str, conditions: Mapping[str, Any]) -> dict[str, np.ndarray]:
        from data_pipelines.streams import clip_of_conditions

        row = get_task(task)
        streams = self.tokenizers.streams(row, clip_of_conditions(row, conditions, self.codec.sample_rate_hz))
        self._check_tokenizers(row)
        return {key: value[: self.prompt_frames] if key == DRAWN else value for key, value in streams.items()}

    def _check_tokenizers(self, task: Task) -> None:
        """Raises ValueError when a tokenizer of `task` is not the one that made the run's datasets."""
        mine = self.tokenizers.passport(task)
        for folder, passport in self.meta.get("datasets", {}).items():
            for name in set(mine) & set(passport["tokenizers"]):
                if mine[name] != passport["tokenizers"][name]:
                    raise ValueError(
                        f"{self.path}: {folder} was made with the {name} tokenizer "
                        f"{passport['tokenizers'][name]}, here it is {mine[name]}; install that one, or "
                        "name its files in the config (data.tokenizers)"
                    )

    def _frames(self, seconds: float | None) -> int | None:
        if seconds is None:
            return None
        return max(1, round(seconds * self.codec.sample_rate_hz / self.codec.hop_samples))

    def generate_streams(
        self,
        task: str,
        streams: Sequence[Mapping[str, np.ndarray]],
        *,
        sampling: Sampling | None = None,
        frames: int | None = None,
    ) -> list[np.ndarray]:
        """Codes [T, Q], or ids [T], for the condition streams of each example, made as one batch."""
        row = get_task(task)
        prefixes = [to_prefix(row, one, self.vocabulary, self.config.model.text_width) for one in streams]
        return self.generator.generate(row, prefixes, sampling or Sampling(), frames)

    def generate_like(
        self, task: str, examples: Sequence[Mapping[str, np.ndarray]], sampling: Sampling
    ) -> list[np.ndarray]:
        """As `generate_streams` for the conditions of whole examples, each at most SPARE times as long as its own
        target (and one item more)."""
        key = get_task(task).target.key
        most = [1 + int(SPARE * len(example[key])) for example in examples]
        codes = self.generate_streams(task, examples, sampling=sampling, frames=max(most))
        return [one[:length] for one, length in zip(codes, most, strict=True)]


def load_run(path: str | Path) -> Run:
    """The run in folder `path`: its newest checkpoint, config and codec."""
    return Run(Path(path))
