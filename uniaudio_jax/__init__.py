"""UniAudio in JAX: one language model over codec tokens for eleven audio generation tasks."""

from typing import Any

from uniaudio_jax.xla_flags import keep_reductions_right

__version__ = "0.1.0"

keep_reductions_right()


def load_run(path: str) -> Any:
    """The run in folder `path`, with `logits`, `generate` and `codec`: see `uniaudio_jax.run.Run`."""
    from uniaudio_jax.run import load_run

    return load_run(path)
