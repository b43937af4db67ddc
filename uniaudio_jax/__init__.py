"""UniAudio in JAX: one language model over codec tokens for eleven audio generation tasks."""

from typing import Any

from uniaudio_jax.interrupted import end_at_ctrl_c
from uniaudio_jax.xla_flags import keep_reductions_right

__version__ = "0.1.0"

end_at_ctrl_c()
keep_reductions_right()


def load_run(path: str, data_root: str | None = None, step: int | None = None) -> Any:
    """The run in folder `path`, with `logits`, `generate` and `codec`: see `uniaudio_jax.run.Run`.

    data_root: folder of the tokenised corpora, where it is not that of the run's config.
    """
    from uniaudio_jax.run import load_run

    return load_run(path, data_root, step)
