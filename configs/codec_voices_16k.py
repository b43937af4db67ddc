"""The codec of the shipped model: `tiny_16k`, trained on with many neural voices.

    python -m data_pipelines.synthetic --out runs/universal/corpus --minutes 430 --voices wide \\
        --grammar wide_sentences --domain speech
    python -m data_pipelines.synthetic --out runs/universal/corpus --minutes 1071 --domain music
    python -m data_pipelines.synthetic --out runs/universal/corpus --minutes 857 --domain sound
    python -m data_pipelines.synthetic --out runs/universal/corpus --minutes 750 --grammar wide_sentences \\
        --domain singing
    python -m uniaudio_jax.codec.train configs/codec_voices_16k.py --out runs/codec_voices_16k

The shipped weights saw 112 minutes of the speech, and those of them in neural voices twice, which stood in a manifest
of their own.
"""

from dataclasses import replace

from configs import codec_tiny_16k
from uniaudio_jax.codec.config import CodecTrainConfig

DATA = "runs/universal/corpus"
DOMAINS = ("speech", "singing", "sound", "music")


def get_config() -> CodecTrainConfig:
    """2 CPU cores, 6000 steps, 36 minutes beside other work.

    STOI of held-out clips of neural voices at 3 codebooks (and at 8): 0.910 (0.930). More:
    uniaudio_jax/codec/shipped/voices_16k/reconstruction.md.
    """
    tiny = codec_tiny_16k.get_config()
    return replace(
        tiny,
        codec=replace(tiny.codec, name="voices_16k"),
        audio=tuple(f"{DATA}/{domain}" for domain in DOMAINS),
        start_from="tiny_16k",
        steps=6000,
        warmup_steps=0,
        batch=16,
        optim=replace(tiny.optim, peak_learning_rate=5e-4, warmup_steps=100),
        mix_share=0.15,
        dead_code_share=0.0,
    )
