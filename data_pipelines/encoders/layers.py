"""The layers that the frozen encoders share, for numpy arrays and for JAX's; weights are dicts of arrays."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

Weights = Mapping[str, Any]
"""`weight`, and perhaps `bias`, of one layer; or such mappings by the names of layers."""


def linear(x: Any, weights: Weights) -> Any:
    """A linear map of the last axis, weight [out, in]."""
    x = x @ weights["weight"].T
    return x + weights["bias"] if "bias" in weights else x


def layer_norm(x: Any, weights: Weights, epsilon: float) -> Any:
    """Each vector at mean 0 and variance 1, then scaled and shifted."""
    return rms_norm(x - x.mean(axis=-1, keepdims=True), weights, epsilon) + weights["bias"]


def rms_norm(x: Any, weights: Weights, epsilon: float) -> Any:
    """Each vector at mean square 1, then scaled."""
    return x / ((x**2).mean(axis=-1, keepdims=True) + epsilon) ** 0.5 * weights["weight"]


def gelu(x: Any) -> Any:
    """The exact GELU."""
    erf = scipy.special.erf if isinstance(x, np.ndarray) else jax.scipy.special.erf
    return x * 0.5 * (1 + erf(x * 0.5**0.5))


def attention(x: Any, weights: Weights, heads: int, *, scale: float | None = None, bias: Any = 0.0) -> Any:
    """Self-attention over the vectors [..., T, D] of a clip or a text.

    weights: query, key, value and out. scale: of the scores, by default 1 / sqrt(width of a head). bias: added to the
    scores [..., heads, T, T]; minus infinity where a vector shall not be seen.
    """
    query, key, value = (_split_heads(linear(x, weights[name]), heads) for name in ("query", "key", "value"))
    scores = query @ key.swapaxes(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale) + bias
    numpy = scores.__array_namespace__()
    scores = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ value
    return linear(mixed.swapaxes(-2, -3).reshape(*x.shape[:-1], -1), weights["out"])


def _split_heads(x: Any, heads: int) -> Any:
    """[..., T, D] → [..., heads, T, D / heads]."""
    return x.reshape(*x.shape[:-1], heads, -1).swapaxes(-2, -3)


def encoder_layer(x: Any, weights: Weights, heads: int, *, norm_first: bool, epsilon: float, bias: Any = 0.0) -> Any:
    """Attention, then a GELU MLP, each with its layer norm before or after it.

    weights: those of `attention`, up, down, attention_norm and mlp_norm.
    """

    def attend(x: Any) -> Any:
        return attention(x, weights, heads, bias=bias)

    def mlp(x: Any) -> Any:
        return linear(gelu(linear(x, weights["up"])), weights["down"])

    for sublayer, norm in ((attend, weights["attention_norm"]), (mlp, weights["mlp_norm"])):
        if norm_first:
            x = x + sublayer(layer_norm(x, norm, epsilon))
        else:
            x = layer_norm(x + sublayer(x), norm, epsilon)
    return x


def encoder_stack(x: Any, layers: Weights, frames: Any, heads: int, *, norm_first: bool, epsilon: float) -> Any:
    """x [B, T, D] after equal layers, stacked, in JAX; a row sees its own `frames` and nothing behind them."""
    bias = jnp.where(np.arange(x.shape[1]) < frames[:, None], 0, -jnp.inf)[:, None, None]
    layer = partial(encoder_layer, heads=heads, norm_first=norm_first, epsilon=epsilon, bias=bias)
    return jax.lax.scan(lambda x, weights: (layer(x, weights), None), x, layers)[0]


def convolve(x: Any, weights: Weights, stride: int, padding: tuple[int, int], groups: int = 1) -> Any:
    """A convolution over time of x [B, T, C], weight [D, C / groups, K], with so many zeros before and behind."""
    x = jax.lax.conv_general_dilated(
        x, weights["weight"], (stride,), [padding], feature_group_count=groups, dimension_numbers=("NWC", "OIW", "NWC")
    )
    return x + weights["bias"] if "bias" in weights else x
