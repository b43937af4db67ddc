"""How well a codec reconstructs held-out audio: distances per domain and number of codebooks, and codebook use."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from uniaudio_jax.codec.audio_data import Audio
from uniaudio_jax.codec.codec import Codec
from uniaudio_jax.metrics.waveform import mel_distance, pesq, si_sdr_db, stoi
from uniaudio_jax.metrics.words import RATE_HZ, can_hear, word_error_rate

TABLE_LEVELS = (1, 2, 3, 8)
COLUMNS = {
    "mel distance": ("mel_distance", 3),
    "SI-SDR dB": ("si_sdr_db", 1),
    "STOI": ("stoi", 3),
    "PESQ": ("pesq", 2),
    "WER": ("word_error_rate", 3),
}
CLEAN_SPEECH = ("speech", "tts")  # beginnings of the domains that STOI and PESQ are meant for


def reconstruction_table(codec: Codec, audio: Audio) -> dict:
    """Mel distance and SI-SDR per domain and number of codebooks; STOI and PESQ of speech; each codebook's use.

    Where every clip of a domain has its words, also the word error rate, with that of the originals as level
    "original".
    """
    table: dict[str, Any] = {"domains": {}}
    every = []
    for domain, clips in sorted(audio.heldout.items()):
        codes = codec.encode_many(clips)
        every += codes
        rows: dict[str, dict[str, float | None]] = {}
        texts = [text for text in audio.texts[domain] if text is not None]
        heard = len(texts) == len(clips) and codec.sample_rate_hz == RATE_HZ and can_hear()
        if heard:
            rows["original"] = {"word_error_rate": word_error_rate(texts, clips)}
        for levels in sorted({min(level, codec.codebooks) for level in TABLE_LEVELS}):
            wavs = codec.decode_many([item[:, :levels] for item in codes], [len(clip) for clip in clips])
            pairs = list(zip(clips, wavs, strict=True))
            rows[str(levels)] = _row(pairs, codec.sample_rate_hz, domain.startswith(CLEAN_SPEECH))
            if heard:
                rows[str(levels)]["word_error_rate"] = word_error_rate(texts, wavs)
        table["domains"][domain] = rows
    codes = np.concatenate(every)
    entries = codec.config.quantizer.entries
    table["frames"] = len(codes)
    table["codebook_use"] = [len(np.unique(level)) / min(entries, len(codes)) for level in codes.T]
    return table


def _row(pairs: list[tuple[np.ndarray, np.ndarray]], rate_hz: int, speech: bool) -> dict[str, float | None]:
    row: dict[str, float | None] = {
        "mel_distance": _mean(pairs, lambda wanted, got: mel_distance(wanted, got, rate_hz)),
        "si_sdr_db": _mean(pairs, si_sdr_db),
    }
    if speech:
        for name, package, measure in (("stoi", "pystoi", stoi), ("pesq", "pesq", pesq)):
            there = importlib.util.find_spec(package) is not None
            row[name] = _mean(pairs, lambda wanted, got, m=measure: m(wanted, got, rate_hz)) if there else None
    return row


def _mean(pairs: list[tuple[np.ndarray, np.ndarray]], measure: Callable[..., float]) -> float | None:
    """The mean over the clips that have a value; None where no clip has one."""
    values = np.array([measure(wanted, got) for wanted, got in pairs])
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def markdown(table: dict) -> str:
    """The reconstruction table as Markdown."""
    lines = [f"| domain | codebooks | {' | '.join(COLUMNS)} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for domain, rows in table["domains"].items():
        for levels, row in rows.items():
            values = [(row.get(key), digits) for key, digits in COLUMNS.values()]
            cells = ["" if value is None else f"{value:.{digits}f}" for value, digits in values]
            lines.append(f"| {domain} | {levels} | {' | '.join(cells)} |")
    use = ", ".join(f"{100 * share:.0f} %" for share in table["codebook_use"])
    return "\n".join([*lines, "", f"Entries in use per codebook over {table['frames']} held-out frames: {use}", ""])
