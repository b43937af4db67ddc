"""The shipped model learns a voice that it never heard, from eight minutes of its speech; two CPU cores, three minutes.

    python -m data_pipelines.synthetic --out runs/voice/corpus --minutes 29 --voices espeak --speakers en-us+linda \\
        --grammar wide_sentences --timed-share 1 --domain speech
    python -m data_pipelines.builder --corpus runs/voice/corpus/speech --task tts --codec clear_16k \\
        --out runs/voice/tokens
    python -m uniaudio_jax.train configs/new_voice.py --out runs/voice --data.root runs/voice/tokens

For a recorded voice, a folder of its recordings with their texts takes the place of the first command's, once

    python -m data_pipelines.align --corpus FOLDER --out runs/voice/voice.jsonl

has found when each phone is spoken; the builder's --corpus is then that file.
"""

from dataclasses import replace

from configs import universal_tiny
from uniaudio_jax.config import OptimConfig, RunConfig


def get_config() -> RunConfig:
    """The held-out loss stands in what the training prints, before and after."""
    run = universal_tiny.get_config()
    return replace(
        run,
        name="new_voice",
        start_from="universal_tiny",
        data=replace(
            run.data, root="runs/voice/tokens", tasks={"tts": 1.0}, loss_weights={}, history_dropout={"tts": 0.9}
        ),
        train=replace(run.train, steps=200, evaluate_every_steps=200, save_every_steps=100),
        optim=OptimConfig(
            name="muon", schedule="warmup_stable_decay", peak_learning_rate=5e-4, warmup_steps=20, decay_share=0.5
        ),
    )
