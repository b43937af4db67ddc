"""Low-rank adapters (LoRA, arXiv 2106.09685): a training that leaves the weights as they are and learns what to add.

An adapted kernel W [in, out] is used as W + alpha / rank · A B, with A [in, rank] and B [rank, out], layer by layer
where layers are stacked. The programs of a step see these merged weights; the gradient of a merged weight is pulled
back to its A and B, which alone are trained, beside the weights that `LoraConfig.also` names.
"""

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from uniaudio_jax.config import LoraConfig
from uniaudio_jax.model.uniaudio import ModelDefinition, Params
from uniaudio_jax.sharding import replicated
from uniaudio_jax.trees import SHOWN, flatten, unflatten

ADAPTERS = "lora"
"""The part of the weights that holds the adapters, beside "global" and "local"."""
KERNEL = ".kernel"


class Trained:
    """Which of a model's weights a training changes: all of them, or adapters and the weights beside them.

    Raises ValueError for a pattern of the config that fits no weight.
    """

    def __init__(self, config: LoraConfig, definition: ModelDefinition):
        self.config, self.definition = config, definition
        shapes = definition.shapes()
        weights = flatten(shapes)
        self.adapters = {name: leaf.shape for name, leaf in flatten(adapter_shapes(config, shapes)).items()}
        whole = weights if config.rank is None else matching("LoraConfig.also", config.also, weights)
        self.names = [*whole, *self.adapters]

    def init(self, key: Array) -> Params:
        """Fresh weights, and adapters that change nothing: each A is normal, of variance 1 / in, each B is zero."""
        weights, adapters = self.definition.init(key), {}
        for number, kernel in enumerate(filter(self.has_adapters, flatten(weights))):
            a, b = adapters_of(kernel)
            shape = self.adapters[a]
            adapters[a] = jax.random.normal(jax.random.fold_in(key, number), shape) / jnp.sqrt(shape[-2])
            adapters[b] = jnp.zeros(self.adapters[b])
        return weights | unflatten(adapters)

    def axes(self) -> Params:
        """The tree of all weights with the names of their axes."""
        axes = flatten(self.definition.axes())
        for kernel in filter(self.has_adapters, [*axes]):
            *layers, inputs, outputs = axes[kernel]
            a, b = adapters_of(kernel)
            axes |= {a: (*layers, inputs, "rank"), b: (*layers, "rank", outputs)}
        return unflatten(axes)

    def has_adapters(self, name: str) -> bool:
        return adapters_of(name)[0] in self.adapters

    def of(self, params: Params) -> Params:
        """The part of a tree of weights that is trained."""
        flat = flatten(params)
        return unflatten({name: flat[name] for name in self.names})

    def merge(self, params: Params) -> Params:
        return merge(params, self.config.scale)

    def gradients(self, params: Params, gradients: Params) -> Params:
        """The gradients of the trained part, given those of the merged weights."""
        _, pullback = jax.vjp(lambda part: self.merge(overlay(params, part)), self.of(params))
        return pullback(gradients)[0]


def overlay(params: Params, part: Params) -> Params:
    """`params` with the weights of `part` in place of theirs."""
    return unflatten(flatten(params) | flatten(part))


def adapters_of(kernel: str) -> tuple[str, str]:
    """The names of the adapters A and B of a kernel, such as lora.local.link.a.kernel of local.link.kernel."""
    stem = f"{ADAPTERS}.{kernel.removesuffix(KERNEL)}"
    return f"{stem}.a{KERNEL}", f"{stem}.b{KERNEL}"


def merge(params: Params, scale: float) -> Params:
    """The weights to compute with: without adapters, whose products are added to the kernels they adapt."""
    flat = flatten(params)
    weights = {name: weight for name, weight in flat.items() if not name.startswith(f"{ADAPTERS}.")}
    for name in weights:
        a, b = adapters_of(name)
        if a in flat:
            weights[name] = weights[name] + scale * jnp.matmul(flat[a], flat[b], precision="highest")
    return unflatten(weights)


def merging(config: LoraConfig, shardings: Any) -> Callable[[Params], Params]:
    """A compiled `merge` whose results lie as `shardings` says; weights without adapters come back as they are."""
    merged = jax.jit(lambda params: merge(params, config.scale), out_shardings=shardings)
    return lambda params: merged(params) if ADAPTERS in params else params


def adapter_shapes(config: LoraConfig, shapes: Params) -> Params:
    """The adapters of weights of these shapes, each whole on every device where those have a place; {} without LoRA."""
    if config.rank is None:
        return {}
    kernels = {name: leaf for name, leaf in flatten(shapes).items() if name.endswith(KERNEL)}
    adapters = {}
    for name in matching("LoraConfig.targets", config.targets, kernels):
        *layers, inputs, outputs = kernels[name].shape
        dtype, place = kernels[name].dtype, _whole(kernels[name].sharding)
        a, b = adapters_of(name)
        adapters[a] = jax.ShapeDtypeStruct((*layers, inputs, config.rank), dtype, sharding=place)
        adapters[b] = jax.ShapeDtypeStruct((*layers, config.rank, outputs), dtype, sharding=place)
    return unflatten(adapters)


def _whole(sharding: Any) -> Any:
    mesh = getattr(sharding, "mesh", None)
    return sharding if mesh is None else replicated(mesh)


def matching(where: str, patterns: Iterable[str], weights: Mapping[str, Any]) -> list[str]:
    """The names that fit one of the patterns, in their order. Raises ValueError for a pattern that fits none."""
    chosen = {pattern: fnmatch.filter(weights, pattern) for pattern in patterns}
    for pattern, names in chosen.items():
        if not names:
            near = difflib.get_close_matches(pattern, weights, SHOWN, cutoff=0.0)
            raise ValueError(
                f"{where}: got {pattern!r}, which fits none of {len(weights)} weights; wanted a pattern of names; the "
                f"nearest are {', '.join(near)}"
            )
    return [name for name in weights if any(name in names for names in chosen.values())]
