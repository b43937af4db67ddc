"""Two CPU cores, about five minutes: the eleven tasks, aimed at 0.3 nats per token under each one's unigram baseline.

python -m uniaudio_jax.train configs/quickstart.py --out runs/scratch
"""

from dataclasses import replace

from configs import base
from uniaudio_jax.config import OptimConfig, RunConfig, StackConfig

TASKS = {
    "tts": 1.0,
    "voice_conversion": 1.0,
    "enhancement": 1.0,
    "target_speech_extraction": 1.0,
    "singing": 1.8,
    "text_to_sound": 1.5,
    "text_to_music": 10.0,
    "audio_edit": 1.5,
    "dereverberation": 1.0,
    "instructed_tts": 1.8,
    "speech_edit": 1.0,
}
"""Shares of the frames. Speech tasks learn from each other, and so do sounds; music learns from music alone."""


def get_config() -> RunConfig:
    """A small model over short rows; the result table of the README is of this config."""
    run = base.get_config()
    return replace(
        run,
        name="quickstart",
        model=replace(
            run.model,
            context_frames=768,
            global_stack=StackConfig(layers=4, width=192, heads=3),
            local_stack=StackConfig(layers=2, width=192, heads=3),
        ),
        data=replace(
            run.data,
            root="runs/scratch/data/tokens",
            tasks=TASKS,
            row_frames=640,
            target_frames=480,
            rows=2,
            text_frames=96,
            prompt_seconds=1.0,
        ),
        train=replace(
            run.train, steps=680, global_remat="none", local_chunk_frames=128, save_every_steps=240, log_every_steps=20
        ),
        optim=OptimConfig(name="muon", peak_learning_rate=3e-3, warmup_steps=60),
    )
