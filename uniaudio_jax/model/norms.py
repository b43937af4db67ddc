"""Normalisations of vectors, by name. A new one is a class here and a line in NORMS."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from uniaudio_jax.errors import did_you_mean

EPSILON = 1e-5
"""Added to the variance, or to the mean square."""


class LayerNorm(nnx.Module):
    """Layer normalisation in float32."""

    def __init__(self, width: int, axis: str = "embed"):
        self.scale = nnx.Param(jnp.ones(width), axes=(axis,))
        self.bias = nnx.Param(jnp.zeros(width), axes=(axis,))

    def __call__(self, x: Float[Array, "*any D"]) -> Float[Array, "*any D"]:
        return (normalise(x.astype(jnp.float32)) * self.scale[...] + self.bias[...]).astype(x.dtype)


class RmsNorm(nnx.Module):
    """Division by the root of the mean square (arXiv 1910.07467), in float32."""

    def __init__(self, width: int, axis: str = "embed"):
        self.scale = nnx.Param(jnp.ones(width), axes=(axis,))

    def __call__(self, x: Float[Array, "*any D"]) -> Float[Array, "*any D"]:
        return (unit_power(x.astype(jnp.float32)) * self.scale[...]).astype(x.dtype)


@jax.custom_vjp
def normalise(x: Float[Array, "*any D"]) -> Float[Array, "*any D"]:
    """Mean 0 and variance 1 along the last axis."""
    return _normalise(x)[0]


def _normalise(x: Array) -> tuple[Array, tuple[Array, Array]]:
    centred = x - x.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + EPSILON)
    normal = centred * inverse
    return normal, (normal, inverse)


def _normalise_back(kept: tuple[Array, Array], d: Array) -> tuple[Array]:
    normal, inverse = kept
    return (inverse * (d - d.mean(-1, keepdims=True) - normal * (d * normal).mean(-1, keepdims=True)),)


normalise.defvjp(_normalise, _normalise_back)


@jax.custom_vjp
def unit_power(x: Float[Array, "*any D"]) -> Float[Array, "*any D"]:
    """Mean square 1 along the last axis."""
    return _unit_power(x)[0]


def _unit_power(x: Array) -> tuple[Array, tuple[Array, Array]]:
    inverse = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + EPSILON)
    return x * inverse, (x * inverse, inverse)


def _unit_power_back(kept: tuple[Array, Array], d: Array) -> tuple[Array]:
    unit, inverse = kept
    return (inverse * (d - unit * (d * unit).mean(-1, keepdims=True)),)


unit_power.defvjp(_unit_power, _unit_power_back)


NORMS = {"layer": LayerNorm, "rms": RmsNorm}


def make_norm(name: str, width: int) -> LayerNorm | RmsNorm:
    """A fresh normalisation of vectors of this width. Raises ValueError for an unknown name."""
    if name not in NORMS:
        raise ValueError(f"model.layout.norm: got {name!r}, wanted {' or '.join(NORMS)}{did_you_mean(name, NORMS)}")
    return NORMS[name](width)
