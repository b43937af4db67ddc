"""DNSMOS: what listeners would say of speech and its background, guessed by a model without a reference."""

import numpy as np

from uniaudio_jax.metrics.judges import Judges, Model, packaged_model
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import Sample, Score, Scores, at_rate, waveforms_of
from uniaudio_jax.packages import load_package

KEYS = {"dnsmos_overall": "ovrl_mos", "dnsmos_signal": "sig_mos", "dnsmos_background": "bak_mos"}
"""Our name of each opinion, and the package's."""
LOWEST, HIGHEST = 1.0, 5.0


def dnsmos(sample: Sample, model: Model) -> Scores:
    """P.835 opinions of the estimate alone, 1 to 5, higher is better (Reddy et al. 2022, by speechmos).

    A clip below 9 s is repeated to that length. A silent or empty estimate has the lowest value, 1.
    """
    wav = at_rate(waveforms_of(sample)[1], sample.sample_rate_hz, model.rate_hz)
    if not wav.any():
        return {name: Score(LOWEST, 1.0) for name in KEYS}
    package = load_package("speechmos.dnsmos", "metric dnsmos", "bash launch/install.sh metrics")
    opinions = package.run(np.clip(wav, -1, 1), model.rate_hz)
    return {name: Score(float(opinions[key]), 1.0) for name, key in KEYS.items()}


def dnsmos_model(judges: Judges) -> Model | None:
    return packaged_model("speechmos", "dnsmos_models/sig_bak_ovr.onnx")


DNSMOS = MetricKind(
    measure=dnsmos,
    scales=dict.fromkeys(KEYS, Scale("higher", LOWEST, HIGHEST)),
    packages=("speechmos", "onnxruntime"),
    extra="metrics",
    model=dnsmos_model,
)
