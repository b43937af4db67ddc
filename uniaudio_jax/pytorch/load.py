"""The PyTorch model with our weights, which benchmarks compare with."""

from typing import Any

import numpy as np

from uniaudio_jax.config import ModelConfig
from uniaudio_jax.convert import config_to_json, to_torch_names
from uniaudio_jax.model.uniaudio import Params
from uniaudio_jax.packages import load_package

INSTALL = "pip install torch==2.13.0"


def load_torch_model(model: ModelConfig, params: Params) -> tuple[Any, Any]:
    """(torch, the model with these weights). Raises ValueError without PyTorch."""
    torch = load_package("torch", "comparison with PyTorch", INSTALL)
    from uniaudio_jax.pytorch.modeling_uniaudio import UniAudio, UniAudioConfig

    torch_model = UniAudio(UniAudioConfig.from_json(config_to_json(model)))
    state = {name: torch.from_numpy(np.array(value)) for name, value in to_torch_names(params, model).items()}
    torch_model.load_state_dict(state)
    return torch, torch_model
