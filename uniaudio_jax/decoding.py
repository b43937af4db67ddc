"""Compiled generation: caches for both stacks, sampling and stop test in one while-loop, and rows that are kept busy.

A row that has ended is given the next prompt of a queue at once. Random numbers belong to the seed, the task, the
prompt's number and the frame, so that what comes out does not depend on the rows or on the other prompts (up to
rounding: with other rows, a row's past lies in other slots of the caches and adds up in another order).
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.model.aligned import ALIGNED_KINDS, NOTHING, aligned_frames
from uniaudio_jax.model.attention import Cache
from uniaudio_jax.model.block import Block, unstack
from uniaudio_jax.model.global_stack import GlobalStack
from uniaudio_jax.model.local_stack import LocalStack
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.sampling import DRAWS, RECENT_FRAMES, Choose, Past, Rule, Sampling, Values, sample
from uniaudio_jax.sequence import Batch, Frames, empty_streams, to_prefix, unscored
from uniaudio_jax.tasks import KINDS, TASK_NUMBERS, Task
from uniaudio_jax.vocab import LOCAL_START, PAD, SPECIAL_IDS, Vocabulary

BLOCK_FRAMES = 64
"""Frames that one call of the compiled program generates at most."""
PREFIX_BUCKET, CONTEXT_BUCKET = 64, 256
"""Lengths of prefixes and caches are these, or 2, 4, 8, … times as much, so that few shapes are compiled."""
ROWS = 8
"""Prompts that are worked on at once where nothing else is said."""


class Prompt(NamedTuple):
    """What generation goes on from: its number, which its random numbers belong to, and the most frames to generate,
    None for as many as the model has positions."""

    number: int
    prefix: Frames
    frames: int | None = None


def fitting(task: Task, prompt: Prompt, context: int) -> Prompt:
    """The prompt with the frames to generate. Raises ValueError where they do not fit `context` positions."""
    length = len(prompt.prefix.tokens)
    frames = context - length if prompt.frames is None else prompt.frames
    if not 1 <= frames <= context - length:
        raise ValueError(
            f"task {task.name}: a prompt of {length} frames and {max(frames, 1)} frames to generate do not "
            f"fit the model's {context} positions; shorten the text or prompt, or ask for less audio"
        )
    return prompt._replace(frames=frames)


class State(NamedTuple):
    """What one frame leaves to the next.

    caches: of each global layer; slot: of the caches, for the next frame of all rows, behind the past of each;
    aligned: what conditions hold at the time of each frame to generate and ahead of it, [B, C, A, K, Q], see
    `aligned_frames`; frame: the last frame's tokens, [B, Q]; position: of the next frame, [B]; done: whether a row
    has ended, [B]; past: what choices know of the frames before; limit: frames that a row may generate, [B]; key:
    of each row's random numbers, [B].
    """

    caches: list[Cache]
    slot: Array
    aligned: Array
    frame: Array
    position: Array
    done: Array
    past: Past
    limit: Array
    key: Array


class PreparedModel(NamedTuple):
    """The two stacks, laid out for many single steps.

    ids: the ids that each level may choose among, [L, A], where later levels repeat the first when L is 1; heads: the
    head's columns for them, [D, A] of each level.
    """

    global_: GlobalStack
    local: LocalStack
    global_blocks: list[Block]
    local_blocks: list[Block]
    ids: Array
    heads: list[Array]


def prepare_for_decoding(definition: ModelDefinition, params: Params, ids: Int[Array, "L A"]) -> PreparedModel:
    """The model with logits over `ids` alone."""
    global_, local = definition.merge("global", params["global"]), definition.merge("local", params["local"])
    heads = [local.head.columns(level, row) for level, row in enumerate(ids)]
    global_blocks, local_blocks = unstack(global_.blocks), unstack(local.blocks)
    for block in global_blocks + local_blocks:
        block.attention.join_projections()
    return PreparedModel(global_, local, global_blocks, local_blocks, ids, heads)


def local_frame(
    model: PreparedModel, vectors: Float[Array, "B D"], choose: Choose, draws: Float[Array, "B Q 3"]
) -> tuple[Int[Array, "B Q"], Float[Array, "B L A"]]:
    """The tokens that `choose` takes for one frame, level after level, and the logits it chose from."""
    local = model.local
    linked = jnp.broadcast_to(local.linked(vectors), (len(vectors), local.codebooks, vectors.shape[-1]))
    caches: Sequence[Cache | None] = [None] * len(model.local_blocks)
    tokens, logits = [jnp.full(len(vectors), LOCAL_START)], []
    for level, head in enumerate(model.heads):
        x, caches = local.step(model.local_blocks, tokens[-1], linked[:, level], caches, level)
        logits.append(x @ head)
        tokens.append(choose(logits[-1], level, tokens[min(level, 1)], draws[:, level]))
    tokens += tokens[1:2] * (local.codebooks - len(model.heads))
    return jnp.stack(tokens[1:], axis=1), jnp.stack(logits, axis=1)


def next_frame(
    model: PreparedModel, state: State, choose: Choose, draws: Float[Array, "B Q 3"]
) -> tuple[State, Int[Array, "B Q"], Float[Array, "B L A"]]:
    """The state after one more frame, the frame's tokens, and the logits they were chosen from."""
    later = jnp.minimum(state.past.generated, state.aligned.shape[1] - 1)
    aligned = state.aligned[jnp.arange(len(later)), later]
    vectors, caches = model.global_.step(
        model.global_blocks, state.frame, state.caches, state.position, state.slot, aligned
    )
    tokens, logits = local_frame(model, vectors, choose, draws)
    recent = jnp.concatenate([state.past.recent[:, 1:], tokens[:, :1]], axis=1)
    new = state._replace(
        caches=caches,
        slot=state.slot + 1,
        frame=tokens,
        position=state.position + 1,
        past=Past(state.past.generated + 1, recent),
    )
    return new, tokens, logits


def idle_state(config: ModelConfig, rows: int) -> State:
    """A state whose rows wait for a prompt; its caches have no room yet."""
    stack = config.global_stack
    items = rows * stack.heads
    empty = Cache(jnp.zeros((items, stack.head_width, 0)), jnp.zeros((items, 0, stack.head_width)))
    none, looked_up = jnp.zeros(rows, jnp.int32), (len(config.layout.aligned), len(ALIGNED_KINDS))
    return State(
        caches=[empty] * stack.layers,
        slot=jnp.int32(0),
        aligned=jnp.full((rows, config.context_frames, *looked_up, config.codebooks), NOTHING),
        frame=jnp.zeros((rows, config.codebooks), jnp.int32),
        position=none,
        done=jnp.ones(rows, bool),
        past=Past(none, jnp.full((rows, RECENT_FRAMES), PAD)),
        limit=none,
        key=jax.random.split(jax.random.key(0), rows),
    )


def admit(
    global_: GlobalStack, state: State, row: Int[Array, ""], prefix: Batch, length: Array, limit: Array, key: Array
) -> State:
    """The state whose row goes on from all but the last of the `length` frames of a prefix [1, P, Q]."""
    _, filled = global_.fill(prefix)
    heads, _, frames = filled[0].keys.shape
    start = jnp.maximum(state.slot - frames, 0)
    filled = moved(filled, state.slot - start - length)
    caches = [
        Cache(
            jax.lax.dynamic_update_slice(cache.keys, new.keys, (row * heads, 0, start)),
            jax.lax.dynamic_update_slice(cache.values, new.values, (row * heads, start, 0)),
        )
        for cache, new in zip(state.caches, filled, strict=True)
    ]
    aligned = state.aligned
    if aligned.size:
        aligned = aligned.at[row].set(_aligned_later(prefix, length, aligned.shape[1], global_.ahead))
    return State(
        caches=caches,
        slot=state.slot,
        aligned=aligned,
        frame=state.frame.at[row].set(prefix.tokens[0, length - 1]),
        position=state.position.at[row].set(length),
        done=state.done.at[row].set(False),
        past=Past(state.past.generated.at[row].set(0), state.past.recent.at[row].set(PAD)),
        limit=state.limit.at[row].set(limit),
        key=state.key.at[row].set(key),
    )


def _aligned_later(prefix: Batch, length: Array, frames: int, ahead: tuple[int, ...]) -> Int[Array, "C A K Q"]:
    """What the conditions of a prefix [1, P, Q] hold at the time of so many frames after its `length` ones."""
    tokens = jnp.pad(prefix.tokens, ((0, 0), (0, frames), (0, 0)))
    found = aligned_frames(tokens, jnp.arange(tokens.shape[1])[None], ahead)[0]
    return jax.lax.dynamic_slice_in_dim(found, length, frames)


def with_room(state: State, context: int) -> State:
    """The same state with caches for `context` frames."""
    more, none = (0, max(0, context - held_by(state))), (0, 0)

    def resized(cache: Cache) -> Cache:
        keys = jnp.pad(cache.keys[..., :context], (none, none, more))
        return Cache(keys, jnp.pad(cache.values[:, :context], (none, more, none)))

    return state._replace(caches=[resized(cache) for cache in state.caches])


def with_slot(state: State, slot: Array) -> State:
    """The same state with another slot for the next frame, and the past of each row moved there."""
    return state._replace(caches=moved(state.caches, slot - state.slot), slot=slot)


def moved(caches: list[Cache], slots: Array) -> list[Cache]:
    """The caches with all items so many slots further; what leaves at one end comes in at the other."""
    return [Cache(jnp.roll(cache.keys, slots, axis=2), jnp.roll(cache.values, slots, axis=1)) for cache in caches]


def held_by(state: State) -> int:
    """Frames that the caches have room for."""
    return state.caches[0].values.shape[1]


def block_of_frames(
    model: PreparedModel, values: Values, state: State, waiting: Array, rule: Rule, end: int
) -> tuple[State, Int[Array, "B F Q"]]:
    """Up to BLOCK_FRAMES more frames of each row, and `<pad>` after a row's end.

    While prompts are `waiting` it stops as soon as a row ends, so that the row can take the next.
    """
    begun, codebooks = state.done, model.local.codebooks
    draws = jnp.zeros((BLOCK_FRAMES, len(state.frame), codebooks, DRAWS))
    if not rule.greedy:
        frames = state.past.generated + jnp.arange(BLOCK_FRAMES)[:, None]
        keys = jax.vmap(jax.vmap(jax.random.fold_in), (None, 0))(state.key, frames)
        draws = jax.vmap(jax.vmap(lambda key: jax.random.uniform(key, (codebooks, DRAWS))))(keys)

    def unfinished(carry: tuple[State, Array, Array]) -> Array:
        state, _, frame = carry
        freed = waiting & (state.done & ~begun).any()
        return (frame < BLOCK_FRAMES) & ~state.done.all() & ~freed

    def body(carry: tuple[State, Array, Array]) -> tuple[State, Array, Array]:
        state, block, frame = carry
        choose = sample(rule, values, model.ids, end, state.past)
        new, tokens, _ = next_frame(model, state, choose, draws[frame])
        written = jnp.where(state.done[:, None], PAD, tokens)
        block = jax.lax.dynamic_update_index_in_dim(block, written, frame, axis=1)
        done = state.done | (tokens[:, 0] == end) | (new.past.generated >= state.limit)
        return new._replace(done=done), block, frame + 1

    empty = jnp.full((len(state.frame), BLOCK_FRAMES, codebooks), PAD)
    state, block, _ = jax.lax.while_loop(unfinished, body, (state, empty, jnp.int32(0)))
    return state, block


@dataclass
class Row:
    """What a row of the state works on, and how many frames it has generated."""

    prompt: Prompt
    generated: int = 0

    def past(self) -> int:
        """Frames before the next one."""
        return len(self.prompt.prefix.tokens) + self.generated

    def ahead(self) -> int:
        """Frames that the next block may generate."""
        return min(BLOCK_FRAMES, (self.prompt.frames or 0) - self.generated)


class Generator:
    """Generation with one set of weights."""

    def __init__(self, definition: ModelDefinition, params: Params, vocabulary: Vocabulary):
        self.definition, self.params, self.vocabulary = definition, params, vocabulary
        self._models: dict[str, PreparedModel] = {}
        self._prepare = jax.jit(partial(prepare_for_decoding, definition))
        self._admit = jax.jit(admit, donate_argnames="state")
        self._with_room = jax.jit(with_room, static_argnames="context")
        self._with_slot = jax.jit(with_slot, donate_argnames="state")
        self._block = jax.jit(block_of_frames, static_argnames=("rule", "end"), donate_argnames="state")

    def generate(
        self, task: Task, prefixes: Sequence[Frames], sampling: Sampling, frames: int | None = None
    ) -> list[np.ndarray]:
        """The raw target of each prefix: codes [T, Q], or ids [T]; at most `frames` items each."""
        prompts = [Prompt(number, prefix, frames) for number, prefix in enumerate(prefixes)]
        made = dict(self.results(task, prompts, sampling, len(prompts)))
        return [made[number] for number in range(len(prompts))]

    def stream(self, task: Task, prompt: Prompt, sampling: Sampling) -> Iterator[np.ndarray]:
        """The raw target of one prompt, block after block as it is generated."""
        return (piece for _, piece, _ in self.pieces(task, [prompt], sampling) if len(piece))

    def results(
        self, task: Task, prompts: Iterable[Prompt], sampling: Sampling, rows: int = ROWS
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The number and the raw target of each prompt, in the order in which they end; no number comes twice."""
        made: dict[int, list[np.ndarray]] = defaultdict(list)
        for number, piece, is_last in self.pieces(task, prompts, sampling, rows):
            made[number].append(piece)
            if is_last:
                yield number, np.concatenate(made.pop(number))

    def pieces(
        self, task: Task, prompts: Iterable[Prompt], sampling: Sampling, rows: int = ROWS
    ) -> Iterator[tuple[int, np.ndarray, bool]]:
        """(number of the prompt, raw items, whether they are its last), block after block.

        A prompt is taken when a row becomes free for it, and one is held ready. With guidance each row has a second
        one, so many rows behind it, for the same prompt without conditions. Raises ValueError for a prompt that does
        not fit.
        """
        end, key = SPECIAL_IDS[f"<{task.target.kind}_end>"], jax.random.key(sampling.seed)
        key = jax.random.fold_in(key, TASK_NUMBERS[task.name])
        later, working = iter(prompts), dict[int, Row]()
        ahead = list(itertools.islice(later, rows))
        rows = len(ahead)
        ahead += itertools.islice(later, 1)
        model, guided = self._model(task, end), sampling.rule.guided
        state = idle_state(self.definition.config, 2 * rows if guided else rows)
        while ahead or working:
            free = [row for row in range(rows) if row not in working][: len(ahead)]
            fresh = {row: Row(fitting(task, ahead.pop(0), self.definition.config.context_frames)) for row in free}
            working |= fresh
            state = self._roomy(state, working)
            for row, of_row in fresh.items():
                state = self._start(model, state, row, of_row.prompt, key)
                if guided:
                    bare = of_row.prompt._replace(prefix=self._bare_prefix(task))
                    state = self._start(model, state, rows + row, bare, key)
            ahead += itertools.islice(later, 1 - len(ahead))
            state, block = self._block(
                model, sampling.values(), state, np.bool_(bool(ahead)), rule=sampling.rule, end=end
            )
            tokens, done, generated = jax.device_get((block, state.done, state.past.generated))
            for row, of_row in list(working.items()):
                size = generated[row] - of_row.generated
                of_row.generated = int(generated[row])
                if done[row]:
                    del working[row]
                yield of_row.prompt.number, self._raw(task, tokens[row, :size]), bool(done[row])

    def _roomy(self, state: State, working: Mapping[int, Row]) -> State:
        """The state with caches as large as the rows need for their next block, where the longest past begins them."""
        slot = max(row.past() for row in working.values())
        most = slot + max(row.ahead() for row in working.values())
        needed = min(self.definition.config.context_frames + BLOCK_FRAMES, _bucket(most, CONTEXT_BUCKET))
        if needed > held_by(state):
            state = self._with_room(state, context=needed)
        if slot != state.slot:
            state = self._with_slot(state, np.int32(slot))
        return state if needed == held_by(state) else self._with_room(state, context=needed)

    def _start(self, model: PreparedModel, state: State, row: int, prompt: Prompt, key: Array) -> State:
        """The state whose row works on a fresh prompt."""
        prefix, length = self._padded(prompt.prefix, min(held_by(state), self.definition.config.context_frames))
        key = jax.random.fold_in(key, prompt.number)
        return self._admit(
            model.global_, state, np.int32(row), prefix, np.int32(length), np.int32(prompt.frames or 0), key
        )

    def _bare_prefix(self, task: Task) -> Frames:
        """The prefix of a prompt whose conditions are dropped."""
        width = self.definition.config.text_width
        return to_prefix(task, empty_streams(task.conditions, self.vocabulary, width), self.vocabulary, width)

    def _model(self, task: Task, end: int) -> PreparedModel:
        """The model prepared for the target of `task`, once; it holds a second copy of the weights."""
        if (kind := task.target.kind) not in self._models:
            self._models[kind] = self._prepare(self.params, self._ids(task, end))
        return self._models[kind]

    def _padded(self, prefix: Frames, most: int) -> tuple[Batch, int]:
        """The prefix as a batch of one row, rounded up to a bucket of at most `most` frames, and its length."""
        length, texts = len(prefix.tokens), len(prefix.text_vectors)
        frames, room = min(most, _bucket(length, PREFIX_BUCKET)), _bucket(texts, PREFIX_BUCKET) - texts
        behind = (0, frames - length)
        tokens = np.pad(prefix.tokens, (behind, (0, 0)))
        slots = np.pad(prefix.text_slots, behind, constant_values=-1)
        vectors = np.pad(prefix.text_vectors, ((0, room), (0, 0)))
        positions = np.arange(frames, dtype=np.int32)
        segments = (positions < length).astype(np.int32)
        return unscored(*(part[None] for part in (tokens, segments, positions, slots, vectors))), length

    def _ids(self, task: Task, end: int) -> Int[Array, "L A"]:
        """The ids that each level may choose among, the last of which is `end`; for ids, of the first level alone."""
        kind = KINDS[task.target.kind]
        levels = map(self.vocabulary.level, range(self.vocabulary.codebooks))
        spans = levels if kind.form == "codes" else [self.vocabulary.span(kind.span or "")]
        return jnp.asarray([[*span, end] for span in spans])

    def _raw(self, task: Task, tokens: Int[np.ndarray, "T Q"]) -> np.ndarray:
        """A row's tokens up to its end, as codes [T, Q] or ids [T] of their range."""
        kind = KINDS[task.target.kind]
        ends = np.flatnonzero((tokens[:, 0] == SPECIAL_IDS[f"<{kind.name}_end>"]) | (tokens[:, 0] == PAD))
        tokens = tokens[: ends[0]] if len(ends) else tokens
        if kind.form == "ids":
            return tokens[:, 0] - self.vocabulary.span(kind.span or "").start
        return tokens - np.array([self.vocabulary.level(level).start for level in range(tokens.shape[1])])


def _bucket(length: int, least: int) -> int:
    """`least` times the power of 2 that makes it no less than `length`."""
    return least << max(0, -(-length // least) - 1).bit_length()
