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
from uniaudio_jax.model.kernels import MASKED
from uniaudio_jax.model.local_stack import LocalStack
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.sequence import Batch, Frames, unscored
from uniaudio_jax.tasks import KINDS, TASK_NUMBERS, Task
from uniaudio_jax.vocab import LOCAL_START, PAD, SPECIAL_IDS, Vocabulary

BLOCK_FRAMES = 64
PREFIX_BUCKET = 64
CONTEXT_BUCKET = 128


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is chosen. temperature 0 is greedy; top_k 0 keeps every id of the level; each task has its own random
    numbers of a seed."""

    temperature: float = 1.0
    top_k: int = 30
    seed: int = 0
    min_frames: int = 1

    def __post_init__(self):
        if self.temperature < 0 or self.top_k < 0 or self.min_frames < 0:
            raise ValueError(
                f"Sampling: got temperature={self.temperature}, top_k={self.top_k}, "
                f"min_frames={self.min_frames}, wanted none below 0"
            )


class State(NamedTuple):
    """What one frame leaves to the next.

    caches: of each global layer; frame: the last frame's tokens, [B, Q]; position: of the next frame, [B]; done: [B];
    key: of the random numbers; made: frames made so far.
    """

    caches: list[Cache]
    frame: Array
    position: Array
    done: Array
    key: Array
    made: Array


class Model(NamedTuple):
    """The two stacks, laid out for many single steps.

    ids: the ids that may come at each level, [Q, A]; heads: the head's columns for them, [D, A] of each level.
    """

    global_: GlobalStack
    local: LocalStack
    global_blocks: list[Block]
    local_blocks: list[Block]
    ids: Array
    heads: list[Array]


def prepare_for_decoding(definition: ModelDefinition, params: Params, ids: Int[Array, "Q A"]) -> Model:
    """The model whose logits are over `ids` alone."""
    global_, local = definition.merge("global", params["global"]), definition.merge("local", params["local"])
    heads = [params["local"]["head"]["kernel"][:, row] for row in ids]
    return Model(global_, local, unstack(global_.blocks), unstack(local.blocks), ids, heads)


Choose = Callable[[Float[Array, "B A"], int, Int[Array, " B"], Array], Int[Array, " B"]]
"""(logits of the ids that may come, level, the frame's first token, key) → id of each row."""


def local_frame(
    model: Model, vectors: Float[Array, "B D"], choose: Choose, key: Array
) -> tuple[Int[Array, "B Q"], Float[Array, "B Q A"]]:
    """The tokens that `choose` takes for one frame, level after level, and the logits it was shown."""
    local, keys = model.local, jax.random.split(key, model.local.codebooks)
    linked = local.linked(vectors)
    caches: list[Cache | None] = [None] * len(model.local_blocks)
    tokens, shown = [jnp.full(len(vectors), LOCAL_START)], []
    for level in range(local.codebooks):
        x, caches = local.step(model.local_blocks, tokens[-1], linked[:, level], caches, level)
        shown.append(x @ model.heads[level])
        tokens.append(choose(shown[-1], level, tokens[min(level, 1)], keys[level]))
    return jnp.stack(tokens[1:], axis=1), jnp.stack(shown, axis=1)


def next_frame(model: Model, state: State, choose: Choose) -> tuple[State, Int[Array, "B Q"], Float[Array, "B Q A"]]:
    """One more frame: the state after it, its tokens and the logits they were chosen from."""
    vectors, caches = model.global_.step(model.global_blocks, state.frame, state.caches, state.position)
    key, now = jax.random.split(state.key)
    tokens, logits = local_frame(model, vectors, choose, now)
    return State(caches, tokens, state.position + 1, state.done, key, state.made + 1), tokens, logits


def start_state(global_: GlobalStack, prefix: Batch, lengths: Int[Array, " B"], context: int, key: Array) -> State:
    """The state after all but the last frame of each prefix [B, P, Q]; the caches have room for `context` frames."""
    _, caches = global_.fill(prefix)
    room = [(0, 0), (0, 0), (0, context - prefix.tokens.shape[1]), (0, 0)]
    last = jnp.take_along_axis(prefix.tokens, (lengths - 1)[:, None, None], axis=1)[:, 0]
    caches = jax.tree.map(lambda x: jnp.pad(x, room), caches)
    return State(caches, last, lengths, jnp.zeros(len(lengths), bool), key, jnp.zeros((), jnp.int32))


def sample(sampling: Sampling, ids: Int[Array, "Q A"], end: int, repeated: bool, made: Int[Array, ""]) -> Choose:
    """Chooses among the ids of the level, the last of which is `end`.

    `end` may come at the first level only, and then fills the frame; `repeated` fills every frame with its first id.
    With top_k it may come where it is as likely as one of the k best other ids, and then with the probability that it
    has among all: among the few best it would get a larger share, and end most examples too early.
    """

    def choose(logits: Array, level: int, first: Array, key: Array) -> Array:
        may_end = made >= sampling.min_frames if level == 0 else False
        last = jnp.arange(logits.shape[-1]) == logits.shape[-1] - 1
        logits = jnp.where(last & ~jnp.asarray(may_end), MASKED, logits.astype(jnp.float32))
        if sampling.temperature == 0:
            place = logits.argmax(-1)
        elif 0 < sampling.top_k < logits.shape[-1]:
            end_key, key = jax.random.split(key)
            ends = jax.random.uniform(end_key, first.shape) < jax.nn.softmax(logits / sampling.temperature)[:, -1]
            best, places = jax.lax.top_k(logits[:, :-1], sampling.top_k)
            ends &= logits[:, -1] >= best[:, -1]
            chosen = jax.random.categorical(key, best / sampling.temperature)
            place = jnp.take_along_axis(places, chosen[:, None], axis=1)[:, 0]
            place = jnp.where(ends, logits.shape[-1] - 1, place)
        else:
            place = jax.random.categorical(key, logits / sampling.temperature)
        token = ids[level, place]
        return token if level == 0 else jnp.where((first == end) | repeated, first, token)

    return choose


class Generator:
    """Generation with one set of weights."""

    def __init__(self, definition: ModelDefinition, params: Params, vocabulary: Vocabulary):
        self.definition, self.params, self.vocabulary = definition, params, vocabulary
        self._models: dict[tuple[str, int], Model] = {}
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
        """The raw target of one prefix, block after block while it is made."""
        for block in self.blocks(task, [prefix], sampling, frames):
            if len(raw := self._raw(task, block[0])):
                yield raw

    def blocks(
        self, task: Task, prefixes: Sequence[Frames], sampling: Sampling, frames: int | None = None
    ) -> Iterator[np.ndarray]:
        """Blocks [B, up to BLOCK_FRAMES, Q] of ids as they are made, until every row has ended or has `frames`."""
        longest, context = max(len(p.tokens) for p in prefixes), self.definition.config.context_frames
        room = context - longest
        wanted = room if frames is None else frames
        if room < 1 or wanted > room:
            raise ValueError(
                f"task {task.name}: a prompt of {longest} frames and {max(wanted, 1)} frames to make do not "
                f"fit the model's {context} positions; shorten the text or prompt, or ask for less audio"
            )
        end, repeated = SPECIAL_IDS[f"<{task.target.kind}_end>"], KINDS[task.target.kind].form == "ids"
        batch, lengths = self._pad(prefixes, context)
        held = min(context, -(-(longest + wanted) // CONTEXT_BUCKET) * CONTEXT_BUCKET)
        model = self._model(task, end)
        key = jax.random.fold_in(jax.random.key(sampling.seed), TASK_NUMBERS[task.name])
        state = self._start(model.global_, batch, lengths, context=held, key=key)
        for first in range(0, wanted, BLOCK_FRAMES):
            size = min(BLOCK_FRAMES, wanted - first)
            state, tokens = self._block(model, state, jnp.int32(size), sampling=sampling, end=end, repeated=repeated)
            yield np.asarray(tokens)[:, :size]
            if bool(state.done.all()):
                return

    def _model(self, task: Task, end: int) -> Model:
        """The model laid out for the target of `task`, made once; it holds a second copy of the weights."""
        key = (task.target.kind, end)
        if key not in self._models:
            self._models[key] = self._prepare(self.params, self._ids(task, end))
        return self._models[key]

    def _block_program(
        self, model: Model, state: State, size: Array, sampling: Sampling, end: int, repeated: bool
    ) -> tuple[State, Int[Array, "B F Q"]]:
        """Up to `size` more frames, of BLOCK_FRAMES that are returned; rows that ended are filled with `<pad>`."""
        first = state.made

        def going(carry: tuple[State, Array]) -> Array:
            state, _ = carry
            return (state.made - first < size) & ~state.done.all()

        def body(carry: tuple[State, Array]) -> tuple[State, Array]:
            state, made = carry
            done = state.done
            fresh, tokens, _ = next_frame(model, state, sample(sampling, model.ids, end, repeated, state.made))
            shown = jnp.where(done[:, None], PAD, tokens)
            made = jax.lax.dynamic_update_index_in_dim(made, shown, state.made - first, axis=1)
            return fresh._replace(done=done | (tokens[:, 0] == end)), made

        empty = jnp.full((len(state.frame), BLOCK_FRAMES, self.vocabulary.codebooks), PAD)
        return jax.lax.while_loop(going, body, (state, empty))

    def _pad(self, prefixes: Sequence[Frames], context: int) -> tuple[Batch, np.ndarray]:
        """The prefixes as one batch whose length is rounded up, so that few shapes are compiled."""
        lengths = np.array([len(p.tokens) for p in prefixes], np.int32)
        longest = min(context, -(-lengths.max() // PREFIX_BUCKET) * PREFIX_BUCKET)
        texts = -(-max(1, *(len(p.text_vectors) for p in prefixes)) // PREFIX_BUCKET) * PREFIX_BUCKET
        rows, codebooks = len(prefixes), self.vocabulary.codebooks
        tokens, slots = np.zeros((rows, longest, codebooks), np.int32), np.full((rows, longest), -1, np.int32)
        vectors = np.zeros((rows, texts, self.definition.config.text_width), np.float32)
        for row, prefix in enumerate(prefixes):
            tokens[row, : lengths[row]] = prefix.tokens
            slots[row, : lengths[row]] = prefix.text_slots
            vectors[row, : len(prefix.text_vectors)] = prefix.text_vectors
        places = np.tile(np.arange(longest, dtype=np.int32), (rows, 1))
        segments = (places < lengths[:, None]).astype(np.int32)
        return unscored(tokens, segments, places, slots, vectors), lengths

    def _ids(self, task: Task, end: int) -> Int[Array, "Q A"]:
        """The ids that may come at each level, and last the end."""
        kind = KINDS[task.target.kind]
        spans = [
            self.vocabulary.level(level) if kind.form == "codes" else self.vocabulary.span(kind.span or "")
            for level in range(self.vocabulary.codebooks)
        ]
        return jnp.asarray([[*span, end] for span in spans])

    def _raw(self, task: Task, tokens: Int[np.ndarray, "T Q"]) -> np.ndarray:
        """A row's tokens up to its end, as codes or ids."""
        kind = KINDS[task.target.kind]
        ends = np.flatnonzero((tokens[:, 0] == SPECIAL_IDS[f"<{kind.name}_end>"]) | (tokens[:, 0] == PAD))
        tokens = tokens[: ends[0]] if len(ends) else tokens
        if kind.form == "ids":
            return tokens[:, 0] - self.vocabulary.span(kind.span or "").start
        return tokens - np.array([self.vocabulary.level(level).start for level in range(tokens.shape[1])])
