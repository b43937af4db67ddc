"""How well a codec reconstructs held-out audio: metrics per domain and number of codebooks, and codebook use."""

from typing import Any

import numpy as np

from uniaudio_jax.codec.audio_data import Audio
from uniaudio_jax.codec.codec import Codec
from uniaudio_jax.metrics.judges import Judges
from uniaudio_jax.metrics.registry import METRICS, Metrics, make_metrics, scores_of
from uniaudio_jax.metrics.sample import Sample, mean_score
from uniaudio_jax.metrics.tables import cell, markdown_table

TABLE_LEVELS = (1, 2, 3, 8)
HEARD = "whisper_word_error_rate"
COLUMNS = {
    "mel_distance": ("mel distance", 3),
    "si_sdr_db": ("SI-SDR dB", 1),
    "stoi": ("STOI", 3),
    "pesq": ("PESQ", 2),
    HEARD: ("WER", 3),
}
"""Metric → its title, and digits after the point."""
CLEAN_SPEECH = ("speech", "tts")
"""Beginnings of the domains that STOI and PESQ are meant for."""


def reconstruction_table(codec: Codec, audio: Audio) -> dict[str, Any]:
    """Metrics per domain and number of codebooks, and the share of each codebook's entries in use.

    STOI and PESQ are of speech alone. Where every clip of a domain has its words, there is also a word error rate, with
    that of the originals as level "original". Metrics whose package is not installed are left out.
    """
    domains, codes = {}, []
    for domain, clips in sorted(audio.heldout.items()):
        domain_codes = codec.encode_many(clips)
        domains[domain] = _rows(codec, _metrics_for(domain, audio), clips, domain_codes, audio.texts[domain])
        codes += domain_codes
    frames = np.concatenate(codes)
    entries = min(codec.config.quantizer.entries, len(frames))
    use = [len(np.unique(level)) / entries for level in frames.T]
    return {"domains": domains, "frames": len(frames), "codebook_use": use}


def _metrics_for(domain: str, audio: Audio) -> Metrics:
    names = ["mel_distance", "si_sdr_db"]
    if domain.startswith(CLEAN_SPEECH):
        names += ["stoi", "pesq"]
    if None not in audio.texts[domain]:
        names.append("whisper")
    return make_metrics([name for name in names if METRICS[name].installed], Judges())


def _rows(
    codec: Codec, metrics: Metrics, clips: list[np.ndarray], codes: list[np.ndarray], texts: list[str | None]
) -> dict[str, dict[str, float | None]]:
    """The means of these metrics over the clips of a domain, by number of codebooks."""

    def means(wavs: list[np.ndarray], metrics: Metrics) -> dict[str, float | None]:
        scores = [
            scores_of(Sample(reference=clip, estimate=wav, sample_rate_hz=codec.sample_rate_hz, text=text), metrics)
            for clip, wav, text in zip(clips, wavs, texts, strict=True)
        ]
        return {name: mean_score(score[name] for score in scores) for name in scores[0]}

    rows = {"original": means(clips, {"whisper": metrics["whisper"]})} if "whisper" in metrics else {}
    for levels in sorted({min(level, codec.codebooks) for level in TABLE_LEVELS}):
        wavs = codec.decode_many([item[:, :levels] for item in codes], [len(clip) for clip in clips])
        rows[str(levels)] = means(wavs, metrics)
    return rows


def markdown(table: dict[str, Any]) -> str:
    """The reconstruction table as Markdown."""
    head = ["domain", "codebooks", *(title for title, _ in COLUMNS.values())]
    rows = [
        [domain, levels, *(cell(row.get(name), digits) for name, (_, digits) in COLUMNS.items())]
        for domain, levels_rows in table["domains"].items()
        for levels, row in levels_rows.items()
    ]
    use = ", ".join(f"{100 * share:.0f} %" for share in table["codebook_use"])
    return (
        f"{markdown_table(head, rows)}\n\nEntries in use per codebook over {table['frames']} held-out frames: {use}\n"
    )
