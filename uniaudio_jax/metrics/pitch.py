"""Pitch: how far the fundamental frequency is from that of the reference, and where there is one."""

import numpy as np
from jaxtyping import Float

from uniaudio_jax.audio.spectra import HOP, log_mel_frames
from uniaudio_jax.metrics.alignment import warping_path
from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores, free_waveforms, waveforms
from uniaudio_jax.packages import load_world

LOWEST_HZ, HIGHEST_HZ = 60.0, 1000.0
SHORTEST_SECONDS = 0.1
"""Of what WORLD can hear a pitch in."""
CENTS, QUARTER_TONE_CENTS = 1200.0, 50.0


def pitch(sample: Sample) -> Scores:
    """The scores of `compared` over frames at the same time, the estimate at the length of the reference."""
    reference, estimate = waveforms(sample)
    return compared(*(cents(wav, sample.sample_rate_hz) for wav in (reference, estimate)))


def aligned_pitch(sample: Sample) -> Scores:
    """The scores of `compared` at any pace, over the frames of the `warping_path` of the mel spectra.

    An empty estimate is silence as long as the reference.
    """
    rate_hz, (reference, estimate) = sample.sample_rate_hz, free_waveforms(sample)
    if not len(reference):
        scores = compared(reference, reference)
    else:
        mels, other_mels = (log_mel_frames(wav, rate_hz) for wav in (reference, estimate))
        frames, others, _ = warping_path(mels, other_mels, "cityblock")
        scores = compared(cents(reference, rate_hz)[frames], cents(estimate, rate_hz)[others])
    return {f"aligned_{name}": score for name, score in scores.items()}


def compared(reference: Float[np.ndarray, " T"], estimate: Float[np.ndarray, " T"]) -> Scores:
    """Scores of two curves of cents, NaN where there is no pitch.

    f0_rmse_cents: root of the mean square difference where both have a pitch, 100 for a semitone; undefined where
    they never have. f0_correlation: Pearson's, of the cents there; undefined where one of them does not change.
    voicing_error: the share of frames where one has a pitch and the other none; undefined for no frame.
    raw_pitch_accuracy: the share of the reference's frames with a pitch where the estimate's is within 50 cents of it.
    """
    scores: Scores = dict.fromkeys(SCALES, NO_SCORE)
    voiced = ~np.isnan([reference, estimate])
    if voiced[0].any():
        near = np.abs(reference - estimate)[voiced[0]] <= QUARTER_TONE_CENTS  # not where the estimate is NaN
        scores["raw_pitch_accuracy"] = Score(float(near.mean()), 1.0)
    if len(reference):
        scores["voicing_error"] = Score(float(np.mean(voiced[0] != voiced[1])), 1.0)
    pairs = np.stack([reference, estimate])[:, voiced.all(axis=0)]
    if pairs.size:
        scores["f0_rmse_cents"] = Score(float(np.sqrt(np.mean((pairs[0] - pairs[1]) ** 2))), 1.0)
        if (np.ptp(pairs, axis=1) > 0).all():
            scores["f0_correlation"] = Score(float(np.corrcoef(pairs)[0, 1]), 1.0)
    return scores


def cents(wav: Float[np.ndarray, " S"], sample_rate_hz: int) -> Float[np.ndarray, " T"]:
    """The fundamental frequency in cents above 1 Hz, once for each mel frame, by WORLD (DIO and StoneMask).

    NaN where there is none between 60 and 1000 Hz, and all of a clip below 0.1 s.
    """
    frames = -(-len(wav) // HOP)
    hertz = np.zeros(frames)
    if len(wav) >= SHORTEST_SECONDS * sample_rate_hz:
        world = load_world("metric pitch")
        signal, period_ms = wav.astype(np.float64), 1000 * HOP / sample_rate_hz
        rough, times = world.dio(signal, sample_rate_hz, LOWEST_HZ, HIGHEST_HZ, frame_period=period_ms)
        hertz = world.stonemask(signal, rough, times, sample_rate_hz)[:frames]
    return CENTS * np.log2(np.where(hertz > 0, hertz, np.nan))


SCALES = {
    "f0_rmse_cents": Scale("lower", 0),
    "f0_correlation": Scale("higher", -1, 1),
    "voicing_error": Scale("lower", 0, 1),
    "raw_pitch_accuracy": Scale("higher", 0, 1),
}
PITCH = MetricKind(measure=pitch, scales=SCALES, packages=("pyworld",), extra="quickstart")
ALIGNED_PITCH = MetricKind(
    measure=aligned_pitch,
    scales={f"aligned_{name}": scale for name, scale in SCALES.items()},
    packages=("pyworld",),
    extra="quickstart",
)
