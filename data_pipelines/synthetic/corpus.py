"""The synthetic corpus: audio with its ground truth for every task, made offline as 16 kHz wav files.

    python -m data_pipelines.synthetic --out runs/scratch/data/corpus

makes a folder for each domain, with wav files and a `manifest.jsonl`:

- speech: sentences in many voices (text, speaker, language). Noisy, mixed, reverberant or masked audio is made from it
  later, by data_pipelines/mixers.
- parallel: a sentence in two voices (audio and speaker; content_audio is the other voice).
- singing: a sentence on a melody (text, speaker, midi), with a .mid file of the melody beside it.
- instructed: speech in a manner that an instruction states.
- sound, music: captions and labels.
- language: sentences of eleven languages (language, text).

The same seed gives the same bytes, in any number of processes, where the same optional voices and recordings are
installed; neural voices do so on one machine. A finished domain is left alone; one that was cut off goes on. What
is held out stays so for every seed: see domains.py.
"""

from dataclasses import dataclass
from pathlib import Path

from data_pipelines.synthetic import kokoro, piper, recordings
from data_pipelines.synthetic.domains import SHARES, find_domains
from data_pipelines.synthetic.sentences import Grammar
from data_pipelines.synthetic.voices import Voices
from data_pipelines.synthetic.writing import Plan, write_domains
from uniaudio_jax.errors import did_you_mean


@dataclass(frozen=True, kw_only=True)
class AudioOptions:
    """What every command that makes audio asks for."""

    out: Path
    """Folder that gets a folder for each domain."""
    minutes: float
    """Minutes of audio, all domains together."""
    seed: int = 0
    """Another seed makes other audio."""
    voices: Voices = "all"
    """Voices of the synthetic corpus: espeak's; "all", which adds Piper's and Kokoro's where they are installed; or
    "wide", which adds to those the means of two of Kokoro's, and Piper's at other pitches."""

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf") or self.seed < 0:
            raise ValueError(
                f"{type(self).__name__}: got minutes={self.minutes}, seed={self.seed}; wanted minutes above 0 and a "
                "seed of 0 or more"
            )


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions(AudioOptions):
    """Make the synthetic corpus."""

    minutes: float = 130.0
    """Minutes of audio, if all domains are made; each domain has a fixed share of them."""
    domain: tuple[str, ...] = tuple(SHARES)
    """Make these domains alone, each as long as it would be among all of them."""
    speakers: tuple[str, ...] = ()
    """Voices of espeak that speak in speech and parallel, in place of all."""
    grammar: Grammar = "sentences"
    """Where the English sentences come from: a grammar of 240 words, or one of 800."""
    timed_share: float = 0.0
    """Share of the clips of speech whose phones come with their durations, as espeak tells them or as they are found
    by laying espeak's speech over a neural voice's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.timed_share <= 1:
            raise ValueError(f"synthetic corpus: got timed_share={self.timed_share}, wanted 0 to 1")
        for name in self.domain:
            if name not in SHARES:
                raise ValueError(
                    f"synthetic corpus: got domain {name!r}, wanted some of {', '.join(SHARES)}"
                    f"{did_you_mean(name, SHARES)}"
                )

    def plans(self) -> dict[str, Plan]:
        """The folders to write, by name."""
        domains = find_domains(self.voices, self.grammar, self.timed_share, self.speakers)
        return {name: Plan(domains[name], self.minutes * SHARES[name], self.seed) for name in self.domain}


def left_out(voices: Voices) -> list[str]:
    """A line for each wanted source of audio that is not installed, with its remedy."""
    missing = []
    if voices != "espeak" and piper.find_piper() is None:
        missing.append(f"voices: without Piper's; for it run `{piper.INSTALL}`")
    if voices != "espeak" and not kokoro.speakers():
        missing.append(f"voices: without Kokoro's; for them run `{kokoro.INSTALL}`")
    if not recordings.find_recordings():
        missing.append(f"sound: without recordings; for them run `{recordings.INSTALL}`")
    return missing


def main(options: SyntheticOptions) -> None:
    """Makes the domains, and prints a line about them and one about each thing that was left out."""
    for line in left_out(options.voices):
        print(line)
    write_domains("synthetic corpus", options.out, options.plans())
