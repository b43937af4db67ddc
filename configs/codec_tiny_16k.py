"""The shipped codec: 16 kHz, 50 frames a second, 8 codebooks of 1024.

    python -m data_pipelines.corpora.codec_training --out runs/codec_data
    python -m uniaudio_jax.codec.train configs/codec_tiny_16k.py --out runs/codec_tiny_16k

The first command leaves `speech_piper` out where Piper is not installed, and says so; the second then needs the other
folders by name (`--audio runs/codec_data/speech_espeak …`).

The shipped weights are not the bytes of such a run. They were trained in five resumed stretches (to steps 2000, 2500,
3500, 4000 and 6500), on the first four domains alone up to step 2500 and with the quickstart corpus from there on. The
learning rate fell towards another last step in some of them (7500, 4500, 6500, 5200, 6500). Those four domains were
made by forerunners of the first command: other sentences, more instruments, drums, other sounds. So a rerun in one go
will not be bit-equal, and its figures will differ somewhat from those below.
"""

from uniaudio_jax.config import CodecConfig, CodecTrainConfig, FrameRateConfig, QuantizerConfig

DATA = "runs/codec_data"
DOMAINS = (
    *("speech_espeak", "speech_piper", "music", "sound"),
    *("quickstart/tts", "quickstart/enhancement", "quickstart/text_to_music"),
)


def get_config() -> CodecTrainConfig:
    """2 CPU cores, 6500 steps in about an hour; held-out figures of the shipped weights at 3 codebooks (and at 8).

    STOI: speech_piper 0.898 (0.923), speech_espeak 0.887 (0.912), tts 0.887 (0.907). Mel distance: speech_piper 0.336
    (0.273), speech_espeak 0.399 (0.333), tts 0.393 (0.343), enhancement 0.374 (0.316), sound 0.258 (0.237), music
    0.574 (0.415), text_to_music 0.580 (0.434). All of them: uniaudio_jax/codec/shipped/tiny_16k/reconstruction.md.
    """
    layout = FrameRateConfig(width=256, hidden=512, encoder_blocks=3, decoder_blocks=7)
    return CodecTrainConfig(
        codec=CodecConfig(name="tiny_16k", layout=layout, quantizer=QuantizerConfig()),
        audio=tuple(f"{DATA}/{domain}" for domain in DOMAINS),
        steps=6500,
        warmup_steps=800,
        batch=12,
    )
