"""A trained run, for notebooks and entry points: logits, generation, codec."""

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from uniaudio_jax.audio.files import read_audio
from uniaudio_jax.checkpoint import CheckpointReader, Saved, one_device, read_newest
from uniaudio_jax.codec.codec import Codec, load_codec
from uniaudio_jax.codec.passports import same_codes
from uniaudio_jax.config import check_codec
from uniaudio_jax.decoding import ROWS, Prompt, fitting
from uniaudio_jax.generators import Generators
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.paths import Place
from uniaudio_jax.sampling import Sampling
from uniaudio_jax.sequence import MASK_CODE, to_prefix, unscored
from uniaudio_jax.shipped import place_of_run, voices_of
from uniaudio_jax.tasks import DRAWN, KINDS, Task, get_task
from uniaudio_jax.vocab import CONTINUOUS

SPARE = 1.3
"""What is generated for a held-out example may be this many times as long as its reference."""


class Run:
    """A checkpoint of a run folder: the newest, or that of a step. Its weights are on the first device; results are
    generated on all devices of this machine.

    weights: those of a training in progress, which are taken instead of a checkpoint's.
    """

    def __init__(self, path: Place, saved: Saved):
        self.path = path
        self.step, self.config, self.meta = saved.step, saved.config, saved.meta
        if saved.weights is not None:
            self.params = saved.weights
        self.vocabulary = self.config.model.ids
        self.definition = ModelDefinition(self.config.model.canonical())  # with kernels of this platform
        self._forward = jax.jit(self.definition.logits)
        self._warned = False

    @cached_property
    def params(self) -> Params:
        """The weights, or their running mean where the training keeps one, read when they are first needed: what is
        wrong with a command is told before.

        Where the training has deleted the checkpoint since, they are those of the newest, and `step` says so.
        """
        shapes = one_device(self.definition.shapes())
        saved = read_newest(self.path, lambda *_: shapes, self.step)
        self.step, self.meta, self.adapters = saved.step, saved.meta, saved.adapters
        return saved.weights

    @cached_property
    def codec(self) -> Codec:
        """A codec of the run's tokens. Raises ValueError when the one of that name has other codes since."""
        if self.config.codec is None:
            raise ValueError(f"{self.path}: this run was imported without a codec; import again with --codec NAME")
        codec, passport = load_codec(self.config.codec), self.meta["codec"]
        check_codec(self.config.model, codec.passport())
        if passport and not same_codes(codec.passport(), passport):
            raise ValueError(
                f"{self.path}: trained on tokens of codec {passport['codec']} ({passport['weights_sha256'][:12]}), "
                f"but {self.config.codec} is now {codec.weights_sha256[:12]}; restore that codec"
            )
        return codec

    @cached_property
    def generator(self) -> Generators:
        return Generators(self.definition, self.params, self.vocabulary, jax.local_devices())

    def logits(
        self, tokens: Int[ArrayLike, "B T Q"], text_vectors: Float[ArrayLike, "B M W"] | None = None
    ) -> Float[Array, "B T Q V"]:
        """Logits of every token given those before it; frame t's `<continuous_token>` takes the next text vector.

        Raises ValueError when shapes or ids are not the model's, or a row has more text frames than vectors.
        """
        tokens = self._checked_tokens(np.asarray(tokens))
        rows, frames = tokens.shape[:2]
        is_text = tokens[..., 0] == CONTINUOUS
        if text_vectors is None:
            vectors = np.zeros((rows, 1, self.config.model.text_width), np.float32)
            slots = np.full((rows, frames), -1)
        else:
            vectors = self._checked_vectors(np.asarray(text_vectors), is_text)
            slots = np.where(is_text, np.cumsum(is_text, axis=1) - 1, -1)
        segments = np.ones((rows, frames), np.int32)
        positions = np.tile(np.arange(frames, dtype=np.int32), (rows, 1))
        return self._forward(self.params, unscored(tokens, segments, positions, slots, vectors))

    def _checked_tokens(self, tokens: np.ndarray) -> np.ndarray:
        model = self.config.model
        if tokens.ndim != 3 or tokens.shape[2] != model.codebooks or tokens.shape[1] > model.context_frames:
            raise ValueError(
                f"tokens: got shape {tokens.shape}, wanted [B, T, {model.codebooks}] with T at most "
                f"{model.context_frames}"
            )
        if tokens.size and not (tokens.min() >= 0 and tokens.max() < model.vocabulary_size):
            raise ValueError(
                f"tokens: got ids {tokens.min()} to {tokens.max()}, wanted 0 to {model.vocabulary_size - 1}"
            )
        return tokens

    def _checked_vectors(self, vectors: np.ndarray, is_text: np.ndarray) -> np.ndarray:
        rows, width, most = len(is_text), self.config.model.text_width, is_text.sum(axis=1).max(initial=0)
        if vectors.ndim != 3 or vectors.shape[::2] != (rows, width) or vectors.shape[1] < most:
            raise ValueError(
                f"text_vectors: got shape {vectors.shape} for rows with up to {most} text frames, "
                f"wanted [{rows}, M, {width}] with M at least {most}"
            )
        return vectors

    def generate(
        self,
        task: str,
        *,
        sampling: Sampling | None = None,
        seconds: float | None = None,
        number: int = 0,
        **conditions: Any,
    ) -> Any:
        """What `task` makes of its conditions: a waveform [S] at the codec's rate, or the text of a task such as `asr`.

        run.generate("tts", text="Hello there.", speaker_prompt=wav). Conditions are fields of a clip (see
        data_pipelines/corpora): texts, labels, notes, and waveforms at the codec's rate. A run that came with voices
        takes the first for a speaker prompt that is not given, and one that has learned durations the pace that its
        passport names. seconds: the longest result; by default as long as the conditions tell, or as the positions
        allow. number: whose random numbers are drawn, as `generate_many` counts. Raises ValueError for a missing or
        surplus condition, or a prompt too long.
        """
        prompt = self.prompt(task, conditions, number=number, seconds=seconds)
        ((_, tokens),) = self.results(task, [prompt], sampling)
        return self._target_of(task, tokens)

    def generate_many(
        self,
        task: str,
        conditions: Iterable[Mapping[str, Any]],
        *,
        rows: int = ROWS,
        sampling: Sampling | None = None,
        seconds: float | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """(number, what `generate` returns for it) for any number of conditions, in the order in which they end.

        `rows` are worked on at once, and the next conditions are read when a row becomes free. Each gets what it
        gets alone from `generate` with its number, counted from 0.
        """
        prompts = (self.prompt(task, given, number=n, seconds=seconds) for n, given in enumerate(conditions))
        results = self.results(task, prompts, sampling, rows)
        return ((number, self._target_of(task, tokens)) for number, tokens in results)

    def prompt(
        self, task: str, conditions: Mapping[str, Any], *, number: int = 0, seconds: float | None = None
    ) -> Prompt:
        """The conditions as a prompt, for `results`. Raises ValueError as `generate`."""
        row, frames = get_task(task), self._frames(seconds)
        conditions = {**self._defaults(row, conditions), **conditions}
        streams = self._conditions(row, conditions)
        prompt = self._prompt(row, streams, number, frames)
        told = _told_length(row, streams, "words_per_minute" in conditions)
        if frames is not None or told is None or prompt.frames is None:
            return prompt
        return prompt._replace(frames=min(prompt.frames, max(1, told)))

    def _prompt(self, task: Task, streams: Mapping[str, np.ndarray], number: int, frames: int | None) -> Prompt:
        model = self.config.model
        prefix = to_prefix(task, streams, self.vocabulary, model.text_width)
        return fitting(task, Prompt(number, prefix, frames), model.context_frames)

    def results(
        self, task: str, prompts: Iterable[Prompt], sampling: Sampling | None = None, rows: int = ROWS
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(number, codes [T, Q] or ids [T]) of each prompt, in the order in which they end."""
        prompts = iter(prompts)
        first = list(itertools.islice(prompts, 1))  # what is wrong with it is told before the weights are read
        if not first:
            return iter(())
        prompts = itertools.chain(first, prompts)
        return self.generator.results(get_task(task), prompts, self.sampling_of(task, sampling), rows)

    def results_like(
        self, task: str, examples: Sequence[Mapping[str, np.ndarray]], sampling: Sampling, rows: int = ROWS
    ) -> Iterator[tuple[int, np.ndarray]]:
        """As `results` for whole examples, each at most SPARE times as long as its target and one item more."""
        row = get_task(task)
        lengths = (1 + int(SPARE * len(example[row.target.key])) for example in examples)
        numbered = enumerate(zip(examples, lengths, strict=False))
        return self.results(task, (self._prompt(row, e, n, most) for n, (e, most) in numbered), sampling, rows)

    def _target_of(self, task: str, tokens: np.ndarray) -> Any:
        return self.waveform_of(tokens) if get_task(task).makes_audio else self.text_of(task, tokens)

    def waveform_of(self, codes: Int[np.ndarray, "T Q"]) -> Float[np.ndarray, " S"]:
        """The waveform of codes, empty for no frame; frames that a speech edit has masked are silent."""
        if not len(codes):
            return np.zeros(0, np.float32)
        masked = codes == MASK_CODE
        wav = self.codec.decode(np.where(masked, 0, codes))
        return np.where(np.repeat(masked.any(axis=1), self.codec.hop_samples), np.float32(0), wav)

    def text_of(self, task: str, ids: np.ndarray) -> str:
        """What the ids of a target say, such as words or names of sounds."""
        return self.tokenizers.text_of(get_task(task).target.kind, ids)

    def stream(
        self, task: str, *, sampling: Sampling | None = None, seconds: float | None = None, **conditions: Any
    ) -> Iterator[np.ndarray]:
        """The samples that `generate` returns for a task that makes audio, in pieces while they are generated."""
        prompt = self.prompt(task, conditions, seconds=seconds)
        codes = self.generator.stream(get_task(task), prompt, self.sampling_of(task, sampling))
        return self.codec.decoder_chain().through(codes)

    def sampling_of(self, task: str, sampling: Sampling | None = None) -> Sampling:
        """The sampling with the temperature and guidance that a shipped model has for the task, where it names none.

        Prints a warning, once, where the model has not learned what its guidance needs.
        """
        sampling = sampling or Sampling()
        if sampling.temperature is None:
            sampling = replace(sampling, temperature=self.meta.get("temperatures", {}).get(task, 1.0))
        if sampling.guidance is None:
            sampling = replace(sampling, guidance=self.meta.get("guidances", {}).get(task, 1.0))
        if sampling.guidance != 1 and not self.config.data.condition_dropout and not self._warned:
            self._warned = True
            print(
                f"warning: {self.path}: guidance={sampling.guidance:g}, but the run was trained with "
                "data.condition_dropout=0 and never saw a task without its conditions; leave --sampling.guidance out, "
                "or train with --data.condition-dropout 0.1",
                file=sys.stderr,
            )
        return sampling

    @cached_property
    def tokenizers(self) -> Any:
        """The tokenizers of the run's config, each loaded when it is first needed."""
        from data_pipelines.streams import Tokenizers

        return Tokenizers(self.codec, self.config.data.tokenizers, self.config.model.codebooks)

    def _conditions(self, row: Task, conditions: Mapping[str, Any]) -> dict[str, np.ndarray]:
        from data_pipelines.streams import clip_of_conditions

        streams = self.tokenizers.streams(row, clip_of_conditions(row, conditions, self.codec.sample_rate_hz))
        self._check_tokenizers(row)
        if DRAWN in streams:
            streams[DRAWN] = streams[DRAWN][: self.codec.clock.frames(self.config.data.prompt_seconds)]
        return streams

    def _defaults(self, task: Task, given: Mapping[str, Any]) -> dict[str, Any]:
        """What a task gets beside what a user has given."""
        defaults, paces = {}, self.meta.get("paces", {})
        if task.name in paces:
            defaults["words_per_minute"] = round(paces[task.name])
        wants_voice = DRAWN not in given and any(stream.source == DRAWN for stream in task.conditions)
        if wants_voice and (voices := voices_of(self.path)):
            defaults[DRAWN] = read_audio(next(iter(voices.values())), self.codec.sample_rate_hz).samples
        return defaults

    def _check_tokenizers(self, task: Task) -> None:
        """Raises ValueError when a tokenizer of `task` is not the one that made the run's datasets."""
        tokenizers = self.tokenizers.passport(task)
        for folder, passport in self.meta.get("datasets", {}).items():
            trained_with = passport["tokenizers"]
            for name in tokenizers.keys() & trained_with.keys():
                if tokenizers[name] != trained_with[name]:
                    raise ValueError(
                        f"{self.path}: {folder} was made with the {name} tokenizer {trained_with[name]}, "
                        f"here it is {tokenizers[name]}; install that one, or name its files in the config "
                        "(data.tokenizers)"
                    )

    def _frames(self, seconds: float | None) -> int | None:
        return None if seconds is None else max(1, self.codec.clock.frames(seconds))


def _told_length(task: Task, streams: Mapping[str, np.ndarray], phones_have_durations: bool) -> int | None:
    """The frames of a result whose conditions tell how long it is: as long as the audio, units or notes that it is made
    of, or the phones with durations; None where nothing tells."""
    telling = [s.key for s in task.conditions if KINDS[s.kind].timed and s.source != DRAWN]
    telling += [s.key for s in task.conditions if s.kind == "phone" and phones_have_durations]
    return max((len(streams[key]) for key in telling), default=None) if task.makes_audio else None


def load_run(path: str | Place, data_root: str | Place | None = None, step: int | None = None) -> Run:
    """The run in folder `path`: its newest checkpoint or that of a step, config and codec. data_root: where its corpora
    lie now. The name of a shipped model stands for its run. Raises ValueError where there is no such checkpoint."""
    path = place_of_run(path)
    saved = read_newest(path, wanted=step)
    if step not in (None, saved.step):
        with closing(CheckpointReader(path)) as reader:
            reader.existing(step)  # raises: it names those that there are
    run = Run(path, saved)
    if data_root is not None:
        run.config = replace(run.config, data=replace(run.config.data, root=str(data_root)))
    return run
