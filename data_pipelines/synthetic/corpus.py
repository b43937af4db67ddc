"""The synthetic corpus: offline audio with its ground truth for every task, as 16 kHz wav files.

    python -m data_pipelines.synthetic.corpus --out runs/quickstart/data/corpus

makes a folder for each domain, with wav files and a `manifest.jsonl`:

- speech: sentences in many voices (text, speaker, language). Noisy, mixed, reverberant or masked audio is made from it
  later, by data_pipelines/mixers.
- parallel: a sentence in two voices (audio and speaker; content_audio is the other voice).
- singing: a sentence on a melody (text, speaker, midi), with a .mid file of the melody beside it.
- instructed: speech in a manner that an instruction states.
- sound, music: captions and labels.
- language: sentences of eleven languages (language, text).

The same seed gives the same bytes, in any number of processes, where the same optional voices and recordings are
installed; neural voices do so on one machine. A finished domain is left alone; one that was cut off starts again. What
is held out stays so for every seed: see domains.py.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from data_pipelines.synthetic import kokoro, piper, recordings
from data_pipelines.synthetic.domains import SHARES, find_domains
from data_pipelines.synthetic.voices import Voices
from data_pipelines.synthetic.writing import make_pool, progress_bar, summary, write_domain
from uniaudio_jax.config import did_you_mean


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    """Make the synthetic corpus.

    out: folder of the domains. minutes: length of all domains together. seed: another seed, another corpus. domain:
    only these, each as long as among all. voices: "all" takes also Piper's and Kokoro's, where they are installed.
    """

    out: Path
    minutes: float = 130.0
    seed: int = 0
    domain: tuple[str, ...] = tuple(SHARES)
    voices: Voices = "all"

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf") or self.seed < 0:
            raise ValueError(
                f"synthetic corpus: got minutes={self.minutes}, seed={self.seed}; wanted minutes above 0 "
                "and a seed of 0 or more"
            )
        for name in self.domain:
            if name not in SHARES:
                raise ValueError(
                    f"synthetic corpus: got domain {name!r}, wanted some of {', '.join(SHARES)}"
                    f"{did_you_mean(name, SHARES)}"
                )

    def minutes_of(self, domain: str) -> float:
        return self.minutes * SHARES[domain]


def left_out(voices: Voices) -> list[str]:
    """A line for each optional source of audio that is wanted and not installed, with its remedy."""
    missing = []
    if voices == "all" and piper.find_piper() is None:
        missing.append(f"voices: without Piper's; for it run `{piper.INSTALL}`")
    if voices == "all" and not kokoro.speakers():
        missing.append(f"voices: without Kokoro's; for them run `{kokoro.INSTALL}`")
    if not recordings.find_recordings():
        missing.append(f"sound: without recordings; for them run `{recordings.INSTALL}`")
    return missing


def main(options: SyntheticOptions) -> None:
    """Makes the domains, and prints a line about them and one about each thing that was left out."""
    start, domains = time.monotonic(), find_domains(options.voices)
    for line in left_out(options.voices):
        print(line)
    minutes = sum(map(options.minutes_of, options.domain))
    with make_pool() as pool, progress_bar(minutes, "synthetic corpus") as bar:
        for name in options.domain:
            write_domain(options.out / name, domains[name], options.minutes_of(name), options.seed, pool, bar)
    done = summary(options.out, options.domain)
    print(f"synthetic corpus: {options.out}: {done}, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    from uniaudio_jax.cli import main_guard  # imports jax, which the processes that import this module do without

    with main_guard():
        main(tyro.cli(SyntheticOptions, description=__doc__))
