"""How well a codec reconstructs held-out audio: distances per domain and number of codebooks, and codebook use."""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from uniaudio_jax.codec.audio_data import Audio
from uniaudio_jax.codec.codec import Codec
from uniaudio_jax.metrics.waveform import mel_distance, pesq, si_sdr_db, stoi

TABLE_LEVELS = (1, 2, 3, 8)
CLEAN_SPEECH = ("speech", "tts")  # beginnings of the domains that STOI and PESQ are meant for


def reconstruction_table(codec: Codec, audio: Audio) -> dict:
    """Mel distance and SI-SDR per domain and number of codebooks; STOI and PESQ of speech; each codebook's use."""
    table: dict[str, Any] = {"domains": {}}
    every = []
    for domain, clips in sorted(audio.heldout.items()):
        codes = codec.encode_many(clips)
        every += codes
        rows = {}
        for levels in sorted({min(level, codec.codebooks) for level in TABLE_LEVELS}):
            wavs = codec.decode_many([item[:, :levels] for item in codes], [len(clip) for clip in clips])
            pairs = list(zip(clips, wavs, strict=True))
            rows[str(levels)] = _row(pairs, codec.sample_rate_hz, domain.startswith(CLEAN_SPEECH))
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
    lines = ["| domain | codebooks | mel distance | SI-SDR dB | STOI | PESQ |", "|---|---|---|---|---|---|"]

    def shown(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    for domain, rows in table["domains"].items():
        for levels, row in rows.items():
            cells = [shown(row["mel_distance"], 3), shown(row["si_sdr_db"], 1), shown(row.get("stoi"), 3),
                     shown(row.get("pesq"), 2)]  # fmt: skip
            lines.append(f"| {domain} | {levels} | {' | '.join(cells)} |")
    use = ", ".join(f"{100 * share:.0f} %" for share in table["codebook_use"])
    return "\n".join([*lines, "", f"Entries in use per codebook over {table['frames']} held-out frames: {use}", ""])
