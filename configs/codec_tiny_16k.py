"""The shipped codec: 16 kHz, 50 frames a second, 8 codebooks of 1024.

    python -m data_pipelines.synthetic.codec_training --out runs/codec_data
    python -m uniaudio_jax.codec.train configs/codec_tiny_16k.py --out runs/codec_tiny_16k

The first command leaves `speech_piper` out where Piper is not installed, and says so; the second then needs the other
folders by name (`--audio runs/codec_data/speech_espeak …`).

The shipped weights are not the bytes of such a run. They were trained in eight stretches. The first five (to steps
2000, 2500, 3500, 4000 and 6500) were on forerunners of the first command's audio, with a learning rate that fell
towards another last step in some of them. The others started from the weights before them (`--start-from`,
`--warmup-steps 0`): 5000 steps on 123 minutes (`--optim.peak-learning-rate 5e-4 --mix-share 0.2`), 5400 on 396
minutes of two seeds, the Piper voice twice (`--batch 16 --optim.peak-learning-rate 5e-4 --mix-share 0.15`, its last
step lowered as it was resumed), and 1500 on the same without replaced dead codes (`--batch 16
--optim.peak-learning-rate 2.5e-4 --mix-share 0.1 --optim.warmup-steps 50`). The command made the music, sounds and
clean and noisy espeak speech of that time in other folders than today. So a rerun in one go will not be bit-equal,
and its figures will differ somewhat from those below. curve.png, beside the weights, shows the last two stretches.
"""

from uniaudio_jax.codec.config import CodecConfig, CodecTrainConfig, QuantizerConfig
from uniaudio_jax.codec.layouts.frame_rate import FrameRateConfig

DATA = "runs/codec_data"
DOMAINS = (
    "speech_espeak",
    "speech_piper",
    *(f"synthetic/{name}" for name in ("speech", "singing", "sound", "music", "language")),
)


def get_config() -> CodecTrainConfig:
    """2 CPU cores, 18400 steps, about two hours; held-out figures of the shipped weights at 3 codebooks (and at 8).

    STOI: speech_piper 0.920 (0.936), speech_espeak 0.901 (0.922), tts 0.903 (0.921). Mel distance: speech_piper 0.291
    (0.239), speech_espeak 0.401 (0.327), music 0.531 (0.405), sound 0.266 (0.225). Word error rate: speech_piper 0.134,
    of the originals 0.137. All of them: uniaudio_jax/codec/shipped/tiny_16k/reconstruction.md.
    """
    layout = FrameRateConfig(width=256, hidden=512, encoder_blocks=3, decoder_blocks=7)
    return CodecTrainConfig(
        codec=CodecConfig(name="tiny_16k", layout=layout, quantizer=QuantizerConfig()),
        audio=tuple(f"{DATA}/{domain}" for domain in DOMAINS),
        steps=18400,
        warmup_steps=800,
        batch=12,
    )
