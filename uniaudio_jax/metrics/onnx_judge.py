"""Models that a user gives as an ONNX file: a waveform in, numbers out."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from uniaudio_jax.metrics.judges import Model
from uniaudio_jax.metrics.sample import at_rate
from uniaudio_jax.packages import load_package


def judged(wav: Float[np.ndarray, " S"], rate_hz: int, model: Model) -> Float[np.ndarray, "N D"]:
    """The first output of an ONNX model for a waveform, as rows of its last axis.

    Raises ValueError for a model that does not take one waveform [1, S], and for one that fails on this one.
    """
    session = open_session(model.path)
    inputs = session.get_inputs()
    wav = at_rate(wav, rate_hz, model.rate_hz)
    try:
        output = np.asarray(session.run(None, {inputs[0].name: wav[None]})[0])
    except Exception as error:  # onnxruntime has a kind of its own for each stage that fails
        raise ValueError(
            f"{model.path}: got a model that fails on a waveform of shape {wav[None].shape} ({error}); wanted one with "
            "a single float32 input [1, S] of any length S; export it again with a dynamic axis"
        ) from error
    return output.reshape(-1, output.shape[-1] if output.ndim else 1)


@functools.cache
def open_session(path: Path) -> Any:
    package = load_package("onnxruntime", f"the model {path}", "bash launch/install.sh metrics")
    return package.InferenceSession(str(path), providers=["CPUExecutionProvider"])
