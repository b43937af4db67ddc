"""Heads by name: what maps the local stack's vectors to logits. A new one is a file here and a line in HEADS."""

from flax import nnx

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.model.heads.head import Head
from uniaudio_jax.model.heads.levels import LevelsHead
from uniaudio_jax.model.heads.shared import SharedHead

HEADS: dict[str, type[Head]] = {"shared": SharedHead, "levels": LevelsHead}


def make_head(config: ModelConfig, rngs: nnx.Rngs) -> Head:
    """The fresh head of a model. Raises ValueError for an unknown name."""
    name = config.layout.head
    if name not in HEADS:
        raise ValueError(f"model.layout.head: got {name!r}, wanted {' or '.join(HEADS)}{did_you_mean(name, HEADS)}")
    return HEADS[name](config, rngs)
