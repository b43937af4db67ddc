"""Cached generation by the plain decoder: positions one after the other in one compiled loop.

The number of frames is given, so that the cells of the whole example are known beforehand: of what a position holds,
marks and what the prefix gives are taken as they are, the codes of the target are chosen.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from uniaudio_jax.bench.patterns.decoder import DecoderDefinition
from uniaudio_jax.bench.patterns.pattern import Pattern, Positions, lay_out, row_cells, sizes_of, to_frames
from uniaudio_jax.model.attention import Cache
from uniaudio_jax.model.block import unstack
from uniaudio_jax.sampling import DRAWS, RECENT_FRAMES, Choose, Past, Rule, Sampling, Values, sample
from uniaudio_jax.sequence import Batch, Frames, pack
from uniaudio_jax.tasks import Task
from uniaudio_jax.vocab import END, PAD, SPECIAL_IDS, Vocabulary

CHOSEN = -2
"""Stands for a token that is to be chosen."""


class Steps(NamedTuple):
    """Positions that are generated one after the other, [S, B, …]: their tokens (known, ABSENT or CHOSEN), and where
    they lie."""

    tokens: Any
    positions: Any
    frames: Any
    levels: Any


class Work(NamedTuple):
    """What is generated: the steps, the positions before them, and the tokens [B, Q] of the last of these."""

    prefix: Positions
    last: Any
    steps: Steps


class Decoding:
    """Generation of targets of codes by one pattern; the weights are given to each call."""

    def __init__(self, definition: DecoderDefinition, pattern: Pattern):
        self.definition, self.pattern, self.vocabulary = definition, pattern, definition.config.ids
        self._choose = jax.jit(self._choose_all, static_argnames=("rule", "end", "room"))

    def generate(
        self, params: Any, task: Task, prefixes: Sequence[Frames], sampling: Sampling, frames: int
    ) -> Int[np.ndarray, "B N Q"]:
        """The codes of each prefix's target, all of `frames` frames; prefixes may differ in length."""
        end = SPECIAL_IDS[f"<{task.target.kind}_end>"]
        batch = whole_examples(prefixes, frames, end, self.vocabulary)
        sizes = sizes_of(self.pattern, [batch], self.vocabulary)
        rows = with_chosen(lay_out(self.pattern, batch, self.vocabulary, sizes))
        starts = rows.counted[:, 0]
        each, count = np.arange(len(starts))[:, None], 1 + rows.counted[0].max() - starts[0]
        places = starts[:, None] + np.arange(count)
        lying = (rows.tokens, rows.positions, rows.frames, rows.levels)
        steps = Steps(*(field[each, places].swapaxes(0, 1) for field in lying))
        work = Work(first_positions(rows, starts.max()), rows.tokens[each[:, 0], starts - 1], steps)
        values, key = replace(sampling, min_frames=frames).values(), jax.random.key(sampling.seed)
        chosen = self._choose(params, work, values, key, rule=sampling.rule, end=end, room=sizes.positions)
        rows.tokens[each, places] = np.asarray(chosen).swapaxes(0, 1)
        targets = enumerate(slice(len(prefix.tokens), len(prefix.tokens) + frames) for prefix in prefixes)
        return np.stack([self._codes(batch, row, rows.tokens[row], target) for row, target in targets])

    def _codes(self, batch: Batch, row: int, tokens: Int[np.ndarray, "P Q"], target: slice) -> Int[np.ndarray, "N Q"]:
        """The codes of the frames of a row's target, out of the tokens of its positions."""
        cells, _ = row_cells(self.pattern, batch.tokens[row], batch.segments[row], self.vocabulary)
        ids = to_frames(cells, tokens[: len(cells)], len(batch.tokens[row]))[target]
        return ids - np.array([self.vocabulary.level(level).start for level in range(ids.shape[1])])

    def _choose_all(
        self, params: Any, work: Work, values: Values, key: Array, rule: Rule, end: int, room: int
    ) -> Int[Array, "S B Q"]:
        """The tokens of the steps; `room` is for all positions."""
        decoder = self.definition.merge(params)
        blocks = unstack(decoder.blocks)
        ids = jnp.asarray([[*self.vocabulary.level(level), end] for level in range(self.vocabulary.codebooks)])
        heads = [params["head"]["kernel"][:, of_level] for of_level in ids]
        rows = len(work.last)
        past = Past(jnp.zeros(rows, jnp.int32), jnp.full((rows, RECENT_FRAMES), PAD))
        choose = sample(rule, values, ids, end, past)
        shape = (*work.steps.tokens.shape, DRAWS)
        draws = jnp.zeros(shape) if rule.greedy else jax.random.uniform(key, shape)

        def body(carry: tuple[Array, list[Cache]], step: tuple[Steps, Array, Array]) -> tuple[Any, Array]:
            last, caches = carry
            at, draws, slot = step
            x = decoder.placed(decoder.content(last), at.frames, at.levels)
            x, caches = decoder.step(blocks, x, caches, at.positions, slot)
            tokens = fill_in(at.tokens, x, heads, choose, draws)
            return (tokens, caches), tokens

        first = work.steps.positions[0]
        caches = [with_room(cache, room, first.max() - first) for cache in decoder.fill(work.prefix)]
        slots = first.max() + jnp.arange(len(draws))
        return jax.lax.scan(body, (work.last, caches), (work.steps, draws, slots))[1]


def whole_examples(prefixes: Sequence[Frames], frames: int, end: int, vocabulary: Vocabulary) -> Batch:
    """A batch with a row for each prefix, followed by `frames` frames of codes, which are counted, and the end."""
    levels = vocabulary.codebooks
    codes = np.tile([vocabulary.level(level).start for level in range(levels)], (frames, 1))
    rest = np.concatenate([codes, np.repeat([[end], [END]], levels, axis=1)]).astype(np.int32)
    wholes = []
    for prefix in prefixes:
        tokens = np.concatenate([prefix.tokens, rest])
        target = np.arange(len(tokens)) >= len(prefix.tokens) - 1
        slots = np.pad(prefix.text_slots, (0, len(rest)), constant_values=-1)
        wholes.append(prefix._replace(tokens=tokens, target=target, text_slots=slots))
    longest, texts = (max(map(len, parts)) for parts in zip(*((w.tokens, w.text_vectors) for w in wholes), strict=True))
    rows = [pack([whole], longest, frames, max(texts, 1), "items") for whole in wholes]
    return Batch(*(np.stack(field) for field in zip(*rows, strict=True)))


def with_chosen(rows: Positions) -> Positions:
    """The rows with CHOSEN in place of what counts."""
    tokens, each = rows.tokens.copy(), np.arange(len(rows.tokens))[:, None]
    tokens[each, rows.counted] = np.where(rows.weights > 0, CHOSEN, tokens[each, rows.counted])
    return rows._replace(tokens=tokens)


def first_positions(rows: Positions, count: int) -> Positions:
    """The first `count` positions of the rows."""
    fields = {name: field[:, :count] for name, field in rows._asdict().items() if name != "text_vectors"}
    return Positions(**fields, text_vectors=rows.text_vectors)


def fill_in(
    tokens: Int[Array, "B Q"], x: Float[Array, "B D"], heads: list[Array], choose: Choose, draws: Float[Array, "B Q 3"]
) -> Int[Array, "B Q"]:
    """The tokens of a position with what is CHOSEN chosen; a level that no row has to choose costs nothing."""
    none, levels = jnp.zeros(len(tokens), tokens.dtype), []
    for level, head in enumerate(heads):
        known = tokens[:, level]
        chosen = jax.lax.cond(
            (known == CHOSEN).any(),
            lambda level=level, head=head: choose(x @ head, level, none, draws[:, level]).astype(tokens.dtype),
            lambda known=known: known,
        )
        levels.append(jnp.where(known == CHOSEN, chosen, known))
    return jnp.stack(levels, axis=1)


def with_room(cache: Cache, room: int, slots: Int[Array, " B"]) -> Cache:
    """The cache with room for so many positions, and each row's positions so many slots further."""
    more, none = (0, room - cache.values.shape[1]), (0, 0)
    of_heads = jnp.repeat(slots, len(cache.keys) // len(slots))
    keys, values = jnp.pad(cache.keys, (none, none, more)), jnp.pad(cache.values, (none, more, none))
    return Cache(*(jax.vmap(partial(jnp.roll, axis=axis))(x, of_heads) for x, axis in ((keys, 1), (values, 0))))
