"""The codec layouts by kind: a new layout is one file in this folder and one line of `LAYOUTS`."""

from uniaudio_jax.codec.layouts.base import Layout as Layout
from uniaudio_jax.codec.layouts.frame_rate import FrameRateConfig
from uniaudio_jax.codec.layouts.seanet import SeanetConfig

LAYOUTS: dict[str, type[Layout]] = {FrameRateConfig.kind: FrameRateConfig, SeanetConfig.kind: SeanetConfig}
