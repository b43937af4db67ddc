"""Convolutions over [B, T, D] with the paddings and norms of EnCodec (arXiv 2210.13438).

Every kernel here is a whole number of strides long. Over hops of `stride` frames a convolution therefore has stride 1,
and a transposed convolution is a plain one that returns a hop for each frame. So XLA compiles plain convolutions of
stride 1 alone, forward and backward: on a CPU its gradients of strided and transposed convolutions are slow.
"""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

ConvNorm = Literal["weight_norm", "time_group_norm", "folded"]
"""Norm of a convolution: of its kernel, of its output, or of its kernel and already multiplied in."""
GROUP_NORM_EPSILON = 1e-5


def reflect_pad(x: Float[Array, "B T D"], left: int, right: int) -> Float[Array, "B U D"]:
    """Mirrors `left` and `right` frames at the two ends of x.

    An input that is too short to mirror is first lengthened by zeros on its right; the same number of frames is
    cut from the right of the result, so that U = left + T + right (the rule of the `encodec` package).
    """
    short = max(0, max(left, right) + 1 - x.shape[1])
    x = jnp.pad(x, ((0, 0), (0, short), (0, 0))) if short else x
    # One copy; the pad of jax.numpy makes one for each side.
    end = x.shape[1] - 1
    padded = jnp.concatenate([x[:, left:0:-1], x, x[:, end - right : end][:, ::-1]], axis=1)
    return padded[:, : padded.shape[1] - short]


def _correlate(x: Float[Array, "B U I"], kernel: Float[Array, "K I O"]) -> Float[Array, "B T O"]:
    return jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))


def convolve(x: Float[Array, "B U I"], kernel: Float[Array, "K I O"], stride: int) -> Float[Array, "B T O"]:
    """The convolution of x without padding; U and K are multiples of the stride, T = (U - K) / stride + 1."""
    width, inputs, outputs = kernel.shape
    hops = x.reshape(x.shape[0], x.shape[1] // stride, stride * inputs)
    return _correlate(hops, kernel.reshape(width // stride, stride * inputs, outputs))


def convolve_transposed(x: Float[Array, "B T I"], kernel: Float[Array, "I K O"], stride: int) -> Float[Array, "B U O"]:
    """The transposed convolution of x, nothing trimmed; K is a multiple of the stride, U = (T - 1) * stride + K.

    Output hop t is the sum of the contributions of the inputs t, t - 1, …
    """
    inputs, width, outputs = kernel.shape
    blocks = width // stride
    hops = kernel.reshape(inputs, blocks, stride * outputs).swapaxes(0, 1)[::-1]
    padded = jnp.pad(x, ((0, 0), (blocks - 1, blocks - 1), (0, 0)))
    return _correlate(padded, hops).reshape(x.shape[0], -1, outputs)


def weight_norm(direction: Any, length: Any) -> Any:
    """g v / |v|, with a norm for each index of the axes along which `length` has more than one entry."""
    others = tuple(axis for axis in range(3) if length.shape[axis] == 1)
    return direction * (length / jnp.sqrt(jnp.sum(jnp.square(direction), axis=others, keepdims=True)))


def fold(params: Mapping) -> dict:
    """The parameters for norm "folded": `weight`, the kernel, in the place of each `weight_g` and `weight_v`."""
    folded = {key: fold(value) if isinstance(value, Mapping) else value for key, value in params.items()}
    if "weight_g" in folded:
        folded["weight"] = np.asarray(weight_norm(folded.pop("weight_v"), folded.pop("weight_g")))
    return folded


class Kernel(nnx.Module):
    """A kernel and a bias; its parameters are the tensors of the published checkpoints with their axes in our order.

    norm "weight_norm": `weight_v` and its length `weight_g` for each index of `normed_axis`. "folded": the product of
    the two, `weight`. "time_group_norm": `weight`, and a norm over all frames and channels with `scale` and `shift`.
    """

    def __init__(self, shape: tuple[int, int, int], norm: ConvNorm, normed_axis: int, fan_in: int, *, rngs: nnx.Rngs):
        self.norm = norm
        weight = jax.random.uniform(rngs.params(), shape, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)
        self.bias = nnx.Param(jnp.zeros(shape[-1]))
        if norm == "weight_norm":
            others = tuple(axis for axis in range(3) if axis != normed_axis)
            self.weight_v = nnx.Param(weight)
            self.weight_g = nnx.Param(jnp.sqrt(jnp.sum(jnp.square(weight), axis=others, keepdims=True)))
        else:
            self.weight = nnx.Param(weight)
        if norm == "time_group_norm":
            self.scale, self.shift = nnx.Param(jnp.ones(shape[-1])), nnx.Param(jnp.zeros(shape[-1]))

    def kernel(self) -> Float[Array, "X Y O"]:
        if self.norm == "weight_norm":
            return weight_norm(self.weight_v[...], self.weight_g[...])
        return self.weight[...]

    def normed(self, x: Float[Array, "B T O"]) -> Float[Array, "B T O"]:
        """The normalised output of the convolution and its bias."""
        if self.norm != "time_group_norm":
            return x
        mean = jnp.mean(x, axis=(1, 2), keepdims=True)
        variance = jnp.var(x, axis=(1, 2), keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + GROUP_NORM_EPSILON) * self.scale[...] + self.shift[...]


class Conv(Kernel):
    """A convolution from T frames to ceil(T / stride); its kernel is [kernel, inputs, outputs].

    A causal one has all its padding on the left.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, norm: ConvNorm, causal: bool, rngs: nnx.Rngs
    ):
        super().__init__((kernel, inputs, outputs), norm, 2, inputs * kernel, rngs=rngs)
        self.stride = stride
        self.right = 0 if causal else (kernel - stride) // 2
        self.left = kernel - stride - self.right

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B U O"]:
        # The last window is padded on the right, so that no input frame is lost.
        fill = -x.shape[1] % self.stride
        padded = reflect_pad(x, self.left, self.right + fill)
        return self.normed(convolve(padded, self.kernel(), self.stride) + self.bias[...])


class TransposedConv(Kernel):
    """A transposed convolution from T frames to T * stride; its kernel is [inputs, kernel, outputs].

    A causal one trims the surplus frames on the right alone.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, *, norm: ConvNorm, causal: bool, rngs: nnx.Rngs
    ):
        # Each output frame sums `kernel / stride` taps of every input.
        super().__init__((inputs, kernel, outputs), norm, 0, inputs * kernel // stride, rngs=rngs)
        self.stride = stride
        self.left = 0 if causal else kernel - stride - (kernel - stride) // 2

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B U O"]:
        full = self.normed(convolve_transposed(x, self.kernel(), self.stride) + self.bias[...])
        return full[:, self.left : self.left + x.shape[1] * self.stride]
