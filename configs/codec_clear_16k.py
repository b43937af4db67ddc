"""The codes of `voices_16k` with a decoder that was trained on for three codebooks, as many as the shipped model has.

    python -m data_pipelines.synthetic --out runs/universal/wide --minutes 50 --voices wide --grammar wide_sentences \\
        --domain speech --seed 3
    python -m uniaudio_jax.codec.train configs/codec_clear_16k.py --out runs/codec_clear_16k

after the data commands of configs/universal_tiny.py. The table of the codec that it starts from, over the same clips:

    from configs.codec_clear_16k import get_config
    from data_pipelines.codec_audio import domain_clips
    from uniaudio_jax.codec.audio_data import Audio
    from uniaudio_jax.codec.codec import load_codec
    from uniaudio_jax.reconstruction import markdown, reconstruction_table

    audio = Audio(domain_clips(get_config().audio, 16000), 16000)
    print(markdown(reconstruction_table(load_codec("voices_16k"), audio)))
"""

from dataclasses import replace

from configs import codec_voices_16k
from uniaudio_jax.codec.config import CodecTrainConfig

DATA = "runs/universal"
DOMAINS = ("corpus/speech", "corpus/singing", "corpus/sound", "corpus/music", "wide/speech")


def get_config() -> CodecTrainConfig:
    """2 CPU cores, 12000 steps, 83 minutes beside another training.

    Of 16 held-out clips at 3 codebooks, before and after: STOI 0.906 and 0.915, PESQ 1.95 and 2.09, mel distance 0.308
    and 0.294; Whisper's word error rate 0.137 and 0.153, of the originals 0.115. More:
    uniaudio_jax/codec/shipped/clear_16k/reconstruction.md.
    """
    voices = codec_voices_16k.get_config()
    return replace(
        voices,
        codec=replace(voices.codec, name="clear_16k"),
        audio=tuple(f"{DATA}/{domain}" for domain in DOMAINS),
        start_from="voices_16k",
        decoder_only=True,
        main_share=0.85,
        steps=12000,
        mix_share=0.1,
    )
