"""The whole model as two modules, and as a pure dict of arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.model.global_stack import GlobalStack
from uniaudio_jax.model.local_stack import LocalStack
from uniaudio_jax.sequence import Batch

Params = dict[str, Any]
"""{"global": {...}, "local": {...}}: nested dicts of arrays, in float32."""


class UniAudio(nnx.Module):
    """The multi-scale Transformer: `global_` over frames, `local` inside a frame."""

    def __init__(self, config: ModelConfig, platform: str | None = None, *, rngs: nnx.Rngs):
        self.global_ = GlobalStack(config, platform, rngs=rngs)
        self.local = LocalStack(config, platform, rngs=rngs)


class ModelDefinition:
    """The model without its weights: it creates them, names their axes, and puts given ones back in.

    platform: that attention is for; by default the one that JAX computes on.
    """

    def __init__(self, config: ModelConfig, platform: str | None = None):
        self.config, self.platform = config, platform
        model = nnx.eval_shape(lambda: UniAudio(config, platform, rngs=nnx.Rngs(0)))
        self.graph = {"global": nnx.split(model.global_), "local": nnx.split(model.local)}

    def init(self, key: Array) -> Params:
        """Fresh weights; under jit with out_shardings they are born sharded."""
        model = UniAudio(self.config, self.platform, rngs=nnx.Rngs(key))
        parts = {"global": model.global_, "local": model.local}
        return {name: nnx.to_pure_dict(nnx.state(part, nnx.Param)) for name, part in parts.items()}

    def shapes(self) -> Params:
        """The tree of weights as ShapeDtypeStructs."""
        return jax.eval_shape(self.init, jax.ShapeDtypeStruct((2,), jnp.uint32))

    def axes(self) -> Params:
        """The tree of weights with the names of each one's axes, such as ("layers", "embed", "mlp")."""
        return {name: _axes(state) for name, (_, state) in self.graph.items()}

    def merge(self, part: str, params: Params) -> Any:
        """The module `part` ("global" or "local") with these weights."""
        graph, state = self.graph[part]
        state = jax.tree.map(lambda leaf: leaf, state)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graph, state)

    def logits(self, params: Params, batch: Batch) -> Float[Array, "B T Q V"]:
        """The full forward, for small rows: it holds the logits of all frames at once."""
        vectors = self.merge("global", params["global"])(batch)
        rows, frames, codebooks = batch.tokens.shape
        local = self.merge("local", params["local"])
        logits = local.logits(vectors.reshape(rows * frames, -1), batch.tokens.reshape(-1, codebooks))
        return logits.reshape(rows, frames, codebooks, -1)


def count_parameters(shapes: Params) -> dict[str, int]:
    """Parameters of the "global", "local" and "text" parts of the model."""

    def count(tree: Any) -> int:
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))

    text = count(shapes["global"]["text"])
    return {"global": count(shapes["global"]) - text, "local": count(shapes["local"]), "text": text}


def _axes(state: nnx.State) -> Params:
    axes: Params = {}
    for path, weight in nnx.to_flat_state(state):
        node = axes
        for name in path[:-1]:
            node = node.setdefault(str(name), {})
        node[str(path[-1])] = tuple(weight.get_metadata("axes"))
    return axes
