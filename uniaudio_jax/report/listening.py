"""A page of sounds with their spectrograms: one HTML file that holds them all."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from uniaudio_jax.report.media import mp3_address, read_sound, spectrogram_address

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8888; padding: 1rem 0; }
h2 { font-size: 1.1rem; margin: 0 0 .5rem; }
figure { margin: 0 0 1rem; } figcaption, small { color: #777; }
img { display: block; width: 100%; height: 8rem; } audio { width: 100%; }
"""


class Heard(NamedTuple):
    """Something to hear: its title, its task, and the names of its files by what they are."""

    title: str
    task: str
    files: dict[str, str]


def listening_page(title: str, heard: Sequence[Heard], folder: Path) -> str:
    """The page about files in a folder. Raises ValueError for a file that is missing or damaged, and without pillow."""
    sections = "\n".join(
        f"<section><h2>{html.escape(one.title)} <small>{html.escape(one.task)}</small></h2>\n"
        + "\n".join(_figure(name, folder / file) for name, file in one.files.items())
        + "</section>"
        for one in heard
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{sections}\n</body></html>\n"
    )


def _figure(name: str, path: Path) -> str:
    sound = read_sound(path)
    return (
        f"<figure><figcaption>{html.escape(name)}, {sound.seconds:.1f} s</figcaption>"
        f'<img alt="Spectrogram of {html.escape(path.name)}, low pitches below" '
        f'src="{spectrogram_address(sound, max(sound.seconds, 0.1))}">'
        f'<audio controls src="{mp3_address(sound)}"></audio></figure>'
    )
