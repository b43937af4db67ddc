"""ViSQOL: the opinion of speech beside its reference."""

import functools
from typing import Any

from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, at_rate, waveforms
from uniaudio_jax.packages import load_package

RATE_HZ = 16000
LOWEST, HIGHEST = 1.0, 5.0
SHORTEST_SECONDS = 0.5


def visqol(sample: Sample) -> Scores:
    """ViSQOL in its mode for speech, 1 to 5, higher is better (Chinen et al. 2020, by the package visqol-python).

    The opinion is by the polynomial of ViSQOL version 2, scaled so that the reference itself has 5; Google's program
    takes another one, a lattice, by default. 1 for a silent estimate. Undefined where the reference is silent or
    shorter than 0.5 s.
    """
    reference, estimate = (at_rate(wav, sample.sample_rate_hz, RATE_HZ) for wav in waveforms(sample))
    if not reference.any() or len(reference) < SHORTEST_SECONDS * RATE_HZ:
        return {"visqol": NO_SCORE}
    if not estimate.any():
        return {"visqol": Score(LOWEST, 1.0)}
    opinion = _judge().measure_from_arrays(reference.astype(float), estimate.astype(float), RATE_HZ)
    return {"visqol": Score(float(opinion.moslqo), 1.0)}


@functools.cache
def _judge() -> Any:
    judge = load_package("visqol", "metric visqol", "bash launch/install.sh judges").VisqolApi()
    judge.create(mode="speech", use_lattice_model=False)
    return judge


VISQOL = MetricKind(
    measure=visqol,
    scales={"visqol": Scale("higher", LOWEST, HIGHEST)},
    packages=("visqol",),
    extra="judges",
    rate_hz=RATE_HZ,
)
