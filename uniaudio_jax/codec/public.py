"""The configs of the public codecs by name; weights for them come from their projects' files, see `import_torch.py`."""

from uniaudio_jax.codec.config import CodecConfig, QuantizerConfig, SegmentConfig
from uniaudio_jax.codec.layouts.seanet import SeanetConfig
from uniaudio_jax.errors import did_you_mean

PUBLIC_CODECS = {
    # 16 kHz, 50 frames a second, of which the language model of UniAudio (arXiv 2310.00704) uses 3 codebooks.
    "uniaudio_16k": CodecConfig(
        name="uniaudio_16k", layout=SeanetConfig(), quantizer=QuantizerConfig(codebooks=12, width=256)
    ),
    # Causal, 24 kHz, 75 frames a second: 0.75 kbit/s a codebook (arXiv 2210.13438).
    "encodec_24khz": CodecConfig(
        name="encodec_24khz",
        layout=SeanetConfig(causal=True),
        quantizer=QuantizerConfig(codebooks=32, width=128),
        sample_rate_hz=24000,
    ),
    # Stereo, 48 kHz, 150 frames a second in normalised segments of one second: 1.5 kbit/s a codebook.
    "encodec_48khz": CodecConfig(
        name="encodec_48khz",
        layout=SeanetConfig(channels=2, norm="time_group_norm"),
        quantizer=QuantizerConfig(codebooks=16, width=128),
        sample_rate_hz=48000,
        segment=SegmentConfig(samples=48000, stride=47520),
    ),
}


def public_codec(name: str) -> CodecConfig:
    """The config of the public codec of that name. Raises ValueError, with a suggestion, when there is none."""
    if name not in PUBLIC_CODECS:
        known = ", ".join(PUBLIC_CODECS)
        raise ValueError(f"public codec: got {name!r}, wanted one of {known}{did_you_mean(name, PUBLIC_CODECS)}")
    return PUBLIC_CODECS[name]
