"""The shipped codec: 16 kHz, 50 frames a second, 8 codebooks of 1024.

    python -m data_pipelines.corpora.codec_training --out runs/codec_data
    python -m uniaudio_jax.codec.train configs/codec_tiny_16k.py --out runs/codec_tiny_16k

The first command leaves `speech_piper` out where Piper is not installed, and says so; the second then needs the other
folders by name (`--audio runs/codec_data/speech_espeak …`).

The shipped weights are not the bytes of such a run. They were trained in six resumed stretches. The first five (to
steps 2000, 2500, 3500, 4000 and 6500) were on forerunners of the first command's audio, with a learning rate that fell
towards another last step in some of them, and with the quickstart corpus from step 2500 on. The sixth was on what that
command makes: 5000 steps with `--start-from` the weights of the fifth, `--warmup-steps 0 --peak-learning-rate 5e-4
--mix-share 0.2`, with the learning rate falling towards step 16000, then 6000, then 5000 as the run was resumed. So a
rerun in one go will not be bit-equal, and its figures will differ somewhat from those below.
"""

from uniaudio_jax.config import CodecConfig, CodecTrainConfig, FrameRateConfig, QuantizerConfig

DATA = "runs/codec_data"
DOMAINS = ("speech_espeak", "speech_piper", *(f"synthetic/{name}" for name in ("speech", "singing", "sound", "music",
           "language")))  # fmt: skip


def get_config() -> CodecTrainConfig:
    """2 CPU cores, 11500 steps, about 90 minutes; held-out figures of the shipped weights at 3 codebooks (and at 8).

    STOI: speech_piper 0.911 (0.930), speech_espeak 0.891 (0.913), tts 0.894 (0.913). Mel distance: speech_piper 0.308
    (0.254), speech_espeak 0.411 (0.336), tts 0.392 (0.339), enhancement 0.375 (0.313), sound 0.262 (0.228), music
    0.542 (0.420), text_to_music 0.507 (0.396). All of them: uniaudio_jax/codec/shipped/tiny_16k/reconstruction.md.
    """
    layout = FrameRateConfig(width=256, hidden=512, encoder_blocks=3, decoder_blocks=7)
    return CodecTrainConfig(
        codec=CodecConfig(name="tiny_16k", layout=layout, quantizer=QuantizerConfig()),
        audio=tuple(f"{DATA}/{domain}" for domain in DOMAINS),
        steps=11500,
        warmup_steps=800,
        batch=12,
    )
