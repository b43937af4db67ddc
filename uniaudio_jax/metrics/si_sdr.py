"""Scale-invariant signal to distortion ratio."""

import numpy as np

from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, waveforms

LIMIT_DB = 100.0


def si_sdr_db(sample: Sample) -> Scores:
    """SI-SDR in dB, higher is better (Le Roux et al. 2019, equation 5), after the means are subtracted.

    Kept within ±100 dB: 100 for the reference itself at any scale, -100 for silence. Undefined where the reference is
    empty, silent or constant.
    """
    reference, estimate = (wav.astype(np.float64) for wav in waveforms(sample))
    if not len(reference) or np.ptp(reference) == 0:
        return {"si_sdr_db": NO_SCORE}
    reference, estimate = reference - reference.mean(), estimate - estimate.mean()
    target = np.dot(estimate, reference) / np.dot(reference, reference) * reference
    signal, distortion = np.square(target).sum(), np.square(estimate - target).sum()
    if signal == 0:
        return {"si_sdr_db": Score(-LIMIT_DB, 1.0)}
    ratio_db = 10 * np.log10(signal / max(distortion, signal * 1e-20))
    return {"si_sdr_db": Score(float(np.clip(ratio_db, -LIMIT_DB, LIMIT_DB)), 1.0)}


SI_SDR = MetricKind(measure=si_sdr_db, scales={"si_sdr_db": Scale("higher", -LIMIT_DB, LIMIT_DB)})
