"""Training frames per second: the separate programs, one fused program, and PyTorch eager with the same weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uniaudio_jax.bench.fused import fused_loss_and_gradients
from uniaudio_jax.bench.options import RoundsOptions
from uniaudio_jax.bench.synthetic import tts_batch
from uniaudio_jax.bench.timing import report, side_by_side
from uniaudio_jax.config import RunConfig
from uniaudio_jax.config_files import load_config
from uniaudio_jax.optim import TrainState, apply_gradients
from uniaudio_jax.programs import Programs
from uniaudio_jax.pytorch.load import load_torch_model
from uniaudio_jax.sequence import Batch
from uniaudio_jax.sharding import make_mesh, place_batch


@dataclass(frozen=True, kw_only=True)
class Options(RoundsOptions):
    """A training step by AdamW on packed rows of task tts, with the loss on the target."""

    config: str = "configs/quickstart.py"
    """Config file whose model and rows are used."""
    condition_share: float = 0.4
    """Share of the frames that are conditions."""


def run(options: Options) -> dict[str, Any]:
    """Frames per second of a whole training step by rival, and their ratios."""
    config = load_config(options.config, RunConfig)
    config = replace(
        config,
        train=replace(config.train, loss_on="target", compute_dtype="float32"),
        optim=replace(config.optim, name="adamw"),
    )
    batch = tts_batch(config, options.condition_share)
    programs = Programs(config.model, config.train, config.optim, make_mesh(config.mesh, jax.devices()[:1]))
    rivals = {
        "two programs": two_programs(programs, batch),
        "fused": fused_program(programs, config, batch),
        "pytorch eager": pytorch(programs, config, batch, all_frames=True),
        "pytorch eager, counted frames": pytorch(programs, config, batch, all_frames=False),
    }
    seconds = side_by_side(rivals, options.rounds, warmup=2)
    frames = int((batch.segments > 0).sum())
    counted = int(batch.loss_weights.sum())
    return report(seconds, "two programs", "frames", frames) | {"frames": frames, "target_frames": counted}


def two_programs(programs: Programs, batch: Batch) -> Callable[[], None]:
    """Our training step."""
    state = [programs.init(jax.random.key(0))]
    placed = place_batch(batch, programs.mesh)

    def step() -> None:
        state[0], metrics = programs.step(state[0], [placed])
        jax.block_until_ready((state[0], metrics))

    return step


def fused_program(programs: Programs, config: RunConfig, batch: Batch) -> Callable[[], None]:
    """The same step as one program, whose local stack runs over all frames."""
    gradients = fused_loss_and_gradients(config.model)

    def update(state: TrainState, batch: Batch) -> TrainState:
        loss, grads = gradients(state.params, batch)
        tokens = batch.loss_weights.sum() * config.model.codebooks
        return apply_gradients(programs.optimizer, state, grads, tokens, loss)[0]

    fused = jax.jit(update, donate_argnums=0)
    state = [programs.init(jax.random.key(0))]
    placed = jax.tree.map(jnp.asarray, batch)

    def step() -> None:
        state[0] = jax.block_until_ready(fused(state[0], placed))

    return step


def pytorch(programs: Programs, config: RunConfig, batch: Batch, all_frames: bool) -> Callable[[], None]:
    """The step in eager PyTorch. Its local stack runs over all frames, as in the public code, or the counted ones."""
    torch, model = load_torch_model(config.model, jax.device_get(programs.init(jax.random.key(0)).params))
    optim = config.optim
    optimizer = torch.optim.AdamW(
        model.parameters(), optim.peak_learning_rate, (optim.beta1, optim.beta2), weight_decay=optim.weight_decay
    )
    mask = np.zeros(batch.segments.shape, bool)
    for row, (frames, weights) in enumerate(zip(batch.loss_frames, batch.loss_weights, strict=True)):
        mask[row, frames[weights > 0]] = True
    arrays = (batch.tokens, batch.positions, batch.segments)
    tokens, positions, segments = (torch.from_numpy(array.astype(np.int64)) for array in arrays)
    loss_mask = torch.from_numpy(mask)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model.loss(tokens, loss_mask, positions, segments, local_on_all_frames=all_frames).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim.clip_norm)
        optimizer.step()

    return step
