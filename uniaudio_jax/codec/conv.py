"""Weight-normed convolutions over [B, T, D] in the non-causal padding of EnCodec (arXiv 2210.13438).

In this layout every kernel is a whole number of strides long. Cut the input into hops of `stride` frames and a
convolution is a sum of matrix products over shifted hops. So are its gradients, which XLA then runs as matrix
products too. A transposed convolution is the mirror: each input frame makes `kernel / stride` hops, which are added
up with a shift.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


def reflect_pad(x: Float[Array, "B T D"], left: int, right: int) -> Float[Array, "B U D"]:
    """Mirrors `left` and `right` frames at the two ends of x.

    An input that is too short to mirror is first lengthened by zeros on its right; the same number of frames is
    cut from the right of the result, so that U = left + T + right (the rule of the `encodec` package).
    """
    short = max(0, max(left, right) + 1 - x.shape[1])
    x = jnp.pad(x, ((0, 0), (0, short), (0, 0)))
    padded = jnp.pad(x, ((0, 0), (left, right), (0, 0)), mode="reflect")
    return padded[:, : padded.shape[1] - short]


def convolve(x: Float[Array, "B U I"], kernel: Float[Array, "K I O"], stride: int) -> Float[Array, "B T O"]:
    """The convolution of x without padding; U and K are multiples of the stride, T = (U - K) / stride + 1."""
    width, inputs, outputs = kernel.shape
    blocks = width // stride
    hops = x.reshape(x.shape[0], x.shape[1] // stride, stride * inputs)
    weights = kernel.reshape(blocks, stride * inputs, outputs)
    frames = hops.shape[1] - blocks + 1
    return sum((hops[:, j : j + frames] @ weights[j] for j in range(1, blocks)), start=hops[:, :frames] @ weights[0])


def convolve_transposed(x: Float[Array, "B T I"], kernel: Float[Array, "I K O"], stride: int) -> Float[Array, "B U O"]:
    """The transposed convolution of x, nothing trimmed; K is a multiple of the stride, U = (T - 1) * stride + K."""
    inputs, width, outputs = kernel.shape
    blocks = width // stride
    rows, frames, _ = x.shape
    hops = (x @ kernel.reshape(inputs, width * outputs)).reshape(rows, frames, blocks, stride * outputs)
    shifted = (jnp.pad(hops[:, :, j], ((0, 0), (j, blocks - 1 - j), (0, 0))) for j in range(1, blocks))
    summed = sum(shifted, start=jnp.pad(hops[:, :, 0], ((0, 0), (0, blocks - 1), (0, 0))))
    return summed.reshape(rows, (frames + blocks - 1) * stride, outputs)


class WeightNormed(nnx.Module):
    """A kernel kept as length and direction, g v / |v|, with a norm for each index of `normed_axis`, and a bias.

    `weight_g` and `weight_v` are the tensors of the published checkpoints with their axes in the order that the
    matrix products want. The kernel is made anew in each call; beside the convolutions that costs no time that we
    could measure.
    """

    def __init__(self, shape: tuple[int, int, int], normed_axis: int, fan_in: int, *, rngs: nnx.Rngs):
        self.normed_axis = normed_axis
        direction = jax.random.uniform(rngs.params(), shape, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)
        self.weight_v = nnx.Param(direction)
        self.weight_g = nnx.Param(self._norm(direction))
        self.bias = nnx.Param(jnp.zeros(shape[-1]))

    def _norm(self, direction: Float[Array, "X Y O"]) -> Float[Array, "..."]:
        others = tuple(axis for axis in range(3) if axis != self.normed_axis)
        return jnp.sqrt(jnp.sum(jnp.square(direction), axis=others, keepdims=True))

    def kernel(self) -> Float[Array, "X Y O"]:
        """g v / |v|."""
        return self.weight_v[...] * (self.weight_g[...] / self._norm(self.weight_v[...]))


class Conv(WeightNormed):
    """A convolution that turns T frames into ceil(T / stride); `weight_v` is [kernel, inputs, outputs]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, rngs: nnx.Rngs):
        super().__init__((kernel, inputs, outputs), 2, inputs * kernel, rngs=rngs)
        self.stride = stride
        self.right = (kernel - stride) // 2
        self.left = kernel - stride - self.right

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B U O"]:
        # The last window is filled up on the right, so that no input frame is lost.
        fill = -x.shape[1] % self.stride
        return convolve(reflect_pad(x, self.left, self.right + fill), self.kernel(), self.stride) + self.bias[...]


class TransposedConv(WeightNormed):
    """A transposed convolution that turns T frames into T * stride; `weight_v` is [inputs, kernel, outputs]."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, *, rngs: nnx.Rngs):
        # Each output frame sums `kernel / stride` taps of every input.
        super().__init__((inputs, kernel, outputs), 0, inputs * kernel // stride, rngs=rngs)
        self.stride = stride
        self.left = kernel - stride - (kernel - stride) // 2

    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B U O"]:
        full = convolve_transposed(x, self.kernel(), self.stride)
        return full[:, self.left : self.left + x.shape[1] * self.stride] + self.bias[...]
