"""Compiled generation: caches for both stacks, sampling and stop test in one while-loop, run in blocks of frames."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from uniaudio_jax.model.attention import Cache
from uniaudio_jax.model.block import Block, unstack
from uniaudio_jax.model.global_stack import GlobalStack
from uniaudio_jax.model.kernels.kernel import MASKED
from uniaudio_jax.model.local_stack import LocalStack
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.sequence import Batch, Frames, unscored
from uniaudio_jax.tasks import KINDS, TASK_NUMBERS, Task
from uniaudio_jax.vocab import LOCAL_START, PAD, SPECIAL_IDS, Vocabulary

BLOCK_FRAMES = 64
"""Frames that one call of the compiled program generates."""
PREFIX_BUCKET, CONTEXT_BUCKET = 64, 128
"""Lengths of prefixes and caches are rounded up to these, so that few shapes are compiled."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is chosen. Each task draws its own random numbers from a seed."""

    temperature: float = 1.0
    """Divides the logits before sampling; 0 takes the most likely token."""
    top_k: int = 30
    """Tokens are drawn among the k most likely ones; 0 draws among all of the level."""
    seed: int = 0
    """Start of the random numbers: the same seed gives the same tokens."""
    min_frames: int = 1
    """Frames that are generated before the end may come."""

    def __post_init__(self):
        if self.temperature < 0 or self.top_k < 0 or self.min_frames < 0:
            raise ValueError(
                f"Sampling: got temperature={self.temperature}, top_k={self.top_k}, "
                f"min_frames={self.min_frames}, wanted none below 0"
            )


class State(NamedTuple):
    """What one frame leaves to the next.

    caches: of each global layer; frame: the last frame's tokens, [B, Q]; position: of the next frame, [B]; done:
    whether a row has ended, [B]; key: of the random numbers; generated: frames so far.
    """

    caches: list[Cache]
    frame: Array
    position: Array
    done: Array
    key: Array
    generated: Array


class PreparedModel(NamedTuple):
    """The two stacks, laid out for many single steps.

    ids: the ids that each level may choose among, [Q, A]; heads: the head's columns for them, [D, A] of each level.
    """

    global_: GlobalStack
    local: LocalStack
    global_blocks: list[Block]
    local_blocks: list[Block]
    ids: Array
    heads: list[Array]


def prepare_for_decoding(definition: ModelDefinition, params: Params, ids: Int[Array, "Q A"]) -> PreparedModel:
    """The model with logits over `ids` alone."""
    global_, local = definition.merge("global", params["global"]), definition.merge("local", params["local"])
    heads = [params["local"]["head"]["kernel"][:, row] for row in ids]
    return PreparedModel(global_, local, unstack(global_.blocks), unstack(local.blocks), ids, heads)


Choose = Callable[[Float[Array, "B A"], int, Int[Array, " B"], Array], Int[Array, " B"]]
"""(logits of the level's ids, level, the frame's first token, key) → id of each row."""


def local_frame(
    model: PreparedModel, vectors: Float[Array, "B D"], choose: Choose, key: Array
) -> tuple[Int[Array, "B Q"], Float[Array, "B Q A"]]:
    """The tokens that `choose` takes for one frame, level after level, and the logits it chose from."""
    local, keys = model.local, jax.random.split(key, model.local.codebooks)
    linked = local.linked(vectors)
    caches: Sequence[Cache | None] = [None] * len(model.local_blocks)
    tokens, logits = [jnp.full(len(vectors), LOCAL_START)], []
    for level in range(local.codebooks):
        x, caches = local.step(model.local_blocks, tokens[-1], linked[:, level], caches, level)
        logits.append(x @ model.heads[level])
        tokens.append(choose(logits[-1], level, tokens[min(level, 1)], keys[level]))
    return jnp.stack(tokens[1:], axis=1), jnp.stack(logits, axis=1)


def next_frame(
    model: PreparedModel, state: State, choose: Choose
) -> tuple[State, Int[Array, "B Q"], Float[Array, "B Q A"]]:
    """The state after one more frame, the frame's tokens, and the logits they were chosen from."""
    vectors, caches = model.global_.step(model.global_blocks, state.frame, state.caches, state.position)
    key, frame_key = jax.random.split(state.key)
    tokens, logits = local_frame(model, vectors, choose, frame_key)
    return State(caches, tokens, state.position + 1, state.done, key, state.generated + 1), tokens, logits


def start_state(global_: GlobalStack, prefix: Batch, lengths: Int[Array, " B"], context: int, key: Array) -> State:
    """The state after all but the last frame of each prefix [B, P, Q]; the caches have room for `context` frames."""
    _, caches = global_.fill(prefix)
    room = [(0, 0), (0, 0), (0, context - prefix.tokens.shape[1]), (0, 0)]
    last = jnp.take_along_axis(prefix.tokens, (lengths - 1)[:, None, None], axis=1)[:, 0]
    caches = jax.tree.map(lambda x: jnp.pad(x, room), caches)
    return State(caches, last, lengths, jnp.zeros(len(lengths), bool), key, jnp.zeros((), jnp.int32))


def sample(sampling: Sampling, ids: Int[Array, "Q A"], end: int, repeated: bool, generated: Int[Array, ""]) -> Choose:
    """Returns a function that chooses a token among the ids of its level, the last of which is `end`.

    Only the first level may choose `end`, once `sampling.min_frames` frames are generated, and the whole frame is then
    `end`; with `repeated`, the first level's token always fills the frame. Under top_k, `end` is drawn with its
    probability among all ids, if it is at least as likely as the k-th best code, and the other draws are among the k
    best codes: the renormalised share that `end` has among a few ids would stop most examples too early.
    """

    def choose(logits: Array, level: int, first: Array, key: Array) -> Array:
        may_end = generated >= sampling.min_frames if level == 0 else False
        is_end = jnp.arange(logits.shape[-1]) == logits.shape[-1] - 1
        logits = jnp.where(is_end & ~jnp.asarray(may_end), MASKED, logits.astype(jnp.float32))
        if sampling.temperature == 0:
            index = logits.argmax(-1)
        elif 0 < sampling.top_k < logits.shape[-1]:
            end_key, key = jax.random.split(key)
            ends = jax.random.uniform(end_key, first.shape) < jax.nn.softmax(logits / sampling.temperature)[:, -1]
            best, indices = jax.lax.top_k(logits[:, :-1], sampling.top_k)
            ends &= logits[:, -1] >= best[:, -1]
            drawn = jax.random.categorical(key, best / sampling.temperature)
            index = jnp.take_along_axis(indices, drawn[:, None], axis=1)[:, 0]
            index = jnp.where(ends, logits.shape[-1] - 1, index)
        else:
            index = jax.random.categorical(key, logits / sampling.temperature)
        token = ids[level, index]
        return token if level == 0 else jnp.where((first == end) | repeated, first, token)

    return choose


class Generator:
    """Generation with one set of weights."""

    def __init__(self, definition: ModelDefinition, params: Params, vocabulary: Vocabulary):
        self.definition, self.params, self.vocabulary = definition, params, vocabulary
        self._models: dict[tuple[str, int], PreparedModel] = {}
        self._prepare = jax.jit(partial(prepare_for_decoding, definition))
        self._start = jax.jit(start_state, static_argnames="context")
        self._block = jax.jit(
            self._block_program, static_argnames=("sampling", "end", "repeated"), donate_argnames="state"
        )

    def generate(
        self, task: Task, prefixes: Sequence[Frames], sampling: Sampling, frames: int | None = None
    ) -> list[np.ndarray]:
        """The raw target of each prefix: codes [T, Q], or ids [T]; at most `frames` items each."""
        blocks = list(self.blocks(task, prefixes, sampling, frames))
        tokens = np.concatenate(blocks, axis=1)
        return [self._raw(task, row) for row in tokens]

    def stream(self, task: Task, prefix: Frames, sampling: Sampling, frames: int | None = None) -> Iterator[np.ndarray]:
        """The raw target of one prefix, block after block as it is generated."""
        for block in self.blocks(task, [prefix], sampling, frames):
            if len(raw := self._raw(task, block[0])):
                yield raw

    def blocks(
        self, task: Task, prefixes: Sequence[Frames], sampling: Sampling, frames: int | None = None
    ) -> Iterator[np.ndarray]:
        """Blocks [B, up to BLOCK_FRAMES, Q] of ids, until every row has ended or has `frames` frames."""
        longest, context = max(len(p.tokens) for p in prefixes), self.definition.config.context_frames
        room = context - longest
        wanted = room if frames is None else frames
        if room < 1 or wanted > room:
            raise ValueError(
                f"task {task.name}: a prompt of {longest} frames and {max(wanted, 1)} frames to generate do not "
                f"fit the model's {context} positions; shorten the text or prompt, or ask for less audio"
            )
        end, repeated = SPECIAL_IDS[f"<{task.target.kind}_end>"], KINDS[task.target.kind].form == "ids"
        batch, lengths = self._pad(prefixes, context)
        held = min(context, _round_up(longest + wanted, CONTEXT_BUCKET))
        model = self._model(task, end)
        key = jax.random.fold_in(jax.random.key(sampling.seed), TASK_NUMBERS[task.name])
        state = self._start(model.global_, batch, lengths, context=held, key=key)
        for first in range(0, wanted, BLOCK_FRAMES):
            size = min(BLOCK_FRAMES, wanted - first)
            state, tokens = self._block(model, state, jnp.int32(size), sampling=sampling, end=end, repeated=repeated)
            yield np.asarray(tokens)[:, :size]
            if bool(state.done.all()):
                return

    def _model(self, task: Task, end: int) -> PreparedModel:
        """The model prepared for the target of `task`, once; it holds a second copy of the weights."""
        key = (task.target.kind, end)
        if key not in self._models:
            self._models[key] = self._prepare(self.params, self._ids(task, end))
        return self._models[key]

    def _block_program(
        self, model: PreparedModel, state: State, size: Array, sampling: Sampling, end: int, repeated: bool
    ) -> tuple[State, Int[Array, "B F Q"]]:
        """Up to `size` more frames in a block of BLOCK_FRAMES; rows that have ended are filled with `<pad>`."""
        first = state.generated

        def unfinished(carry: tuple[State, Array]) -> Array:
            state, _ = carry
            return (state.generated - first < size) & ~state.done.all()

        def body(carry: tuple[State, Array]) -> tuple[State, Array]:
            state, block = carry
            choose = sample(sampling, model.ids, end, repeated, state.generated)
            new, tokens, _ = next_frame(model, state, choose)
            written = jnp.where(state.done[:, None], PAD, tokens)
            block = jax.lax.dynamic_update_index_in_dim(block, written, state.generated - first, axis=1)
            return new._replace(done=state.done | (tokens[:, 0] == end)), block

        empty = jnp.full((len(state.frame), BLOCK_FRAMES, self.vocabulary.codebooks), PAD)
        return jax.lax.while_loop(unfinished, body, (state, empty))

    def _pad(self, prefixes: Sequence[Frames], context: int) -> tuple[Batch, np.ndarray]:
        """The prefixes as one batch, whose lengths are rounded up, and the length of each prefix."""
        lengths = np.array([len(p.tokens) for p in prefixes], np.int32)
        longest = min(context, _round_up(int(lengths.max()), PREFIX_BUCKET))
        texts = _round_up(max(1, *(len(p.text_vectors) for p in prefixes)), PREFIX_BUCKET)
        rows, codebooks = len(prefixes), self.vocabulary.codebooks
        tokens, slots = np.zeros((rows, longest, codebooks), np.int32), np.full((rows, longest), -1, np.int32)
        vectors = np.zeros((rows, texts, self.definition.config.text_width), np.float32)
        for row, prefix in enumerate(prefixes):
            tokens[row, : lengths[row]] = prefix.tokens
            slots[row, : lengths[row]] = prefix.text_slots
            vectors[row, : len(prefix.text_vectors)] = prefix.text_vectors
        positions = np.tile(np.arange(longest, dtype=np.int32), (rows, 1))
        segments = (positions < lengths[:, None]).astype(np.int32)
        return unscored(tokens, segments, positions, slots, vectors), lengths

    def _ids(self, task: Task, end: int) -> Int[Array, "Q A"]:
        """The ids that each level may choose among, the last of which is `end`."""
        kind = KINDS[task.target.kind]
        spans = [
            self.vocabulary.level(level) if kind.form == "codes" else self.vocabulary.span(kind.span or "")
            for level in range(self.vocabulary.codebooks)
        ]
        return jnp.asarray([[*span, end] for span in spans])

    def _raw(self, task: Task, tokens: Int[np.ndarray, "T Q"]) -> np.ndarray:
        """A row's tokens up to its end, as codes [T, Q] or ids [T] of their range."""
        kind = KINDS[task.target.kind]
        ends = np.flatnonzero((tokens[:, 0] == SPECIAL_IDS[f"<{kind.name}_end>"]) | (tokens[:, 0] == PAD))
        tokens = tokens[: ends[0]] if len(ends) else tokens
        if kind.form == "ids":
            return tokens[:, 0] - self.vocabulary.span(kind.span or "").start
        return tokens - np.array([self.vocabulary.level(level).start for level in range(tokens.shape[1])])


def _round_up(length: int, step: int) -> int:
    return -(-length // step) * step
