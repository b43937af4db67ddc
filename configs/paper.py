"""The 1 B model of arXiv 2310.00704: 24 global and 8 local layers of width 1536, 16 heads, 8000 positions, T5 vectors.

Hardware: a pod, by default of 256 chips with 16 GB each (8 rows a chip; other sizes by data.rows). Nobody has trained
it with this code yet; `python -m uniaudio_jax.planner` says what it needs.
"""

from dataclasses import replace

from configs import base
from uniaudio_jax.config import PAPER, MeshConfig, OptimConfig, RunConfig, StackConfig


def get_config() -> RunConfig:
    """694.4 M parameters in the global part, 240.4 M in the local part, 1.2 M for text vectors."""
    run = base.get_config()
    return replace(
        run,
        name="paper",
        model=replace(
            run.model,
            context_frames=8000,
            text_width=768,
            layout=PAPER,
            global_stack=StackConfig(layers=24, width=1536, heads=16),
            local_stack=StackConfig(layers=8, width=1536, heads=16),
        ),
        data=replace(run.data, row_frames=2048, target_frames=1280, rows=2048, text_frames=256),
        train=replace(run.train, steps=800_000, compute_dtype="bfloat16", local_chunk_frames=2048, local_remat="dots"),
        optim=OptimConfig(),
        mesh=MeshConfig(fsdp=32),
    )
