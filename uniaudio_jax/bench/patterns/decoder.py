"""One plain decoder over positions, of the project's own blocks: what flattening, coarse-first, parallel and delay use.

Its width, heads and blocks are those of the global stack, and its layers are as many as bring its parameters nearest to
those of the multi-scale model. A position's vector is the sum of the vectors of the tokens at the position before it,
with learned vectors for the frame and the level that it begins with. One head has the columns of all ids: each further
level is chosen among its own codes, and level 1 among all other ids.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from uniaudio_jax.bench.patterns.pattern import Positions
from uniaudio_jax.config import ModelConfig, Remat
from uniaudio_jax.model.attention import Cache, choose_attend, linear
from uniaudio_jax.model.block import Block, fill_blocks, make_blocks, run_blocks, step_blocks
from uniaudio_jax.model.embed import place_text
from uniaudio_jax.model.norms import make_norm
from uniaudio_jax.model.uniaudio import ModelDefinition
from uniaudio_jax.vocab import CONTINUOUS, GLOBAL_START, Vocabulary


class Decoder(nnx.Module):
    """Positions [B, P] to vectors [B, P, D]: vector p knows the positions before p, and predicts what p holds."""

    def __init__(self, config: ModelConfig, layers: int, *, rngs: nnx.Rngs):
        stack = replace(config.global_stack, layers=layers)
        width, std = stack.width, stack.init_std
        self.attend = choose_attend(stack.attention, "global", config.layout.positions)
        table = nnx.initializers.normal(std)(rngs.params(), (config.vocabulary_size, width))
        self.embedding = nnx.Param(table, axes=("vocab", "embed"))
        self.frames = self.attend.positions.table((config.context_frames, width), ("positions", "embed"), std, rngs)
        levels = nnx.initializers.normal(std)(rngs.params(), (config.codebooks, width))
        self.levels = nnx.Param(levels, axes=("levels", "embed"))
        self.text = linear(config.text_width, width, ("text", "embed"), std, rngs)
        self.blocks = make_blocks(stack, config.layout, rngs)
        self.norm = make_norm(config.layout.norm, width)
        self.head = linear(width, config.vocabulary_size, ("embed", "vocab"), std, rngs, use_bias=False)

    def __call__(self, rows: Positions, remat: Remat = "none") -> Float[Array, "B P D"]:
        """The vectors, which the head maps to logits; see `run_blocks` for `remat`."""
        mix = self.attend.rows(rows.positions, rows.segments)
        return self.norm(run_blocks(self.blocks, self.inputs(rows), mix, remat))

    def inputs(self, rows: Positions) -> Float[Array, "B P D"]:
        """What the first block is given."""
        held = self.content(rows.tokens)
        mapped = self.text(rows.text_vectors.astype(held.dtype))
        held = held + place_text(jnp.zeros_like(held), mapped, rows.text_slots)
        start = self.embedding[...][GLOBAL_START]
        before = jnp.where(rows.positions[..., None] == 0, start, jnp.roll(held, 1, axis=1))
        return self.placed(before, rows.frames, rows.levels)

    def content(self, tokens: Int[Array, "*any Q"]) -> Float[Array, "*any D"]:
        """The sum of the vectors of a position's tokens; a text vector's stand-in has none."""
        held = (tokens >= 0) & (tokens != CONTINUOUS)
        return jnp.where(held[..., None], self.embedding[...][jnp.maximum(tokens, 0)], 0).sum(axis=-2)

    def placed(
        self, vectors: Float[Array, "*any D"], frames: Int[Array, "..."], levels: Int[Array, "..."]
    ) -> Float[Array, "*any D"]:
        """The vectors, which know where their positions lie."""
        return self.attend.positions.add(vectors, frames, self.frames) + self.levels[...][levels]

    def fill(self, rows: Positions) -> list[Cache]:
        """The cache of each layer that whole rows leave."""
        return fill_blocks(self.blocks, self.inputs(rows), self.attend.rows(rows.positions, rows.segments))[1]

    def step(
        self,
        blocks: list[Block],
        x: Float[Array, "B D"],
        caches: list[Cache],
        position: Int[Array, " B"],
        slot: Int[Array, ""],
    ) -> tuple[Float[Array, "B D"], list[Cache]]:
        """The vector of one more position, given what goes into its first block, and the new caches; see
        `Attend.step` for `slot`."""
        x, caches = step_blocks(blocks, x[:, None], self.attend.step(position, slot), caches)
        return self.norm(x)[:, 0], caches


class DecoderDefinition:
    """The decoder of a model without its weights: it creates them, and puts given ones back in."""

    def __init__(self, config: ModelConfig, layers: int):
        self.config, self.layers = config, layers
        self.graph, self.state = nnx.split(nnx.eval_shape(lambda: Decoder(config, layers, rngs=nnx.Rngs(0))))

    def init(self, key: Array) -> dict[str, Any]:
        """Fresh weights."""
        return nnx.to_pure_dict(nnx.state(Decoder(self.config, self.layers, rngs=nnx.Rngs(key)), nnx.Param))

    def merge(self, params: dict[str, Any]) -> Decoder:
        """The decoder with these weights."""
        state = jax.tree.map(lambda leaf: leaf, self.state)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(self.graph, state)


def parameters(tree: Any) -> int:
    """The numbers in a tree of arrays or shapes."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def layers_for(config: ModelConfig) -> int:
    """The layers that bring the parameters nearest to those of the multi-scale model."""
    wanted = parameters(ModelDefinition(config).shapes())
    one, two = (parameters(DecoderDefinition(config, layers).state) for layers in (1, 2))
    return max(1, round(1 + (wanted - one) / (two - one)))


def further_levels(vocabulary: Vocabulary) -> slice:
    """The ids of the codes of all levels but the first."""
    return slice(vocabulary.level(0).stop, vocabulary.level(vocabulary.codebooks - 1).stop)


def level_logits(logits: Float[Array, "*any V"], vocabulary: Vocabulary) -> list[Array]:
    """The logits that each level is chosen by."""
    further = further_levels(vocabulary)
    first = jnp.concatenate([logits[..., : further.start], logits[..., further.stop :]], axis=-1)
    levels = (vocabulary.level(level) for level in range(1, vocabulary.codebooks))
    return [first, *(logits[..., level.start : level.stop] for level in levels)]


def level_index(tokens: Int[Array, "*any Q"], vocabulary: Vocabulary) -> list[Array]:
    """Where each token stands among the `level_logits` of its level; 0 for what is absent."""
    further = further_levels(vocabulary)
    first = tokens[..., 0]
    first = jnp.where(first >= further.stop, first - (further.stop - further.start), first)
    levels = [tokens[..., level] - vocabulary.level(level).start for level in range(1, vocabulary.codebooks)]
    return [jnp.maximum(index, 0) for index in (first, *levels)]
