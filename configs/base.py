"""What the other configs start from: a 25 M parameter model over 3 codebooks, three tasks, one device."""

from uniaudio_jax.config import MODERN, DataConfig, ModelConfig, OptimConfig, RunConfig, StackConfig, TrainConfig


def get_config() -> RunConfig:
    """A starting point, not a recipe: no result is claimed for it."""
    return RunConfig(
        name="base",
        codec="tiny_16k",
        model=ModelConfig(
            context_frames=2048,
            codebooks=3,
            text_width=384,
            layout=MODERN,
            global_stack=StackConfig(layers=8, width=384, heads=6),
            local_stack=StackConfig(layers=4, width=384, heads=6),
        ),
        data=DataConfig(
            root="tokens",
            tasks={"tts": 1.0, "enhancement": 1.0, "text_to_music": 1.0},
            row_frames=1024,
            target_frames=640,
            rows=8,
            text_frames=128,
        ),
        train=TrainConfig(steps=100_000),
        optim=OptimConfig(name="muon", peak_learning_rate=1e-3),
    )
