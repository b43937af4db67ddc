"""The PyTorch model of the tests, with our weights: the rival of the benchmarks and the judge of an export."""

from typing import Any

import numpy as np

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.convert import to_torch_names
from uniaudio_jax.model.uniaudio import Params


def load_torch_model(model: ModelConfig, params: Params) -> tuple[Any, Any]:
    """(torch, the model with these weights). Raises ValueError without PyTorch, or outside a checkout."""
    try:
        import torch

        from uniaudio_jax.pytorch.modeling_uniaudio import TorchUniAudio
    except ImportError as error:
        raise ValueError(
            f"PyTorch comparison: {error}; run inside a checkout, with `pip install torch==2.13.0`"
        ) from error
    rival = TorchUniAudio(model)
    state = {name: torch.from_numpy(np.array(value)) for name, value in to_torch_names(params, model).items()}
    rival.load_state_dict(state)
    return torch, rival
