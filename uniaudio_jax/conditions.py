"""What a task is given: on the command line, or on each line of a file."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from uniaudio_jax.errors import did_you_mean
from uniaudio_jax.files import parse_json, read_text


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What a task is given, by the fields of a clip; each task wants its own."""

    text: str | None = None
    """What to say or sing, the caption, or the order to edit."""
    language: str | None = None
    """Language of the text, by its name or code, such as German or de."""
    words_per_minute: int | None = None
    """Pace, from 80 to 450, at which espeak tells how long each phone of the text lasts; for models that were trained
    on phones with durations."""
    instruction: str | None = None
    """How to say it, in words."""
    midi: Path | None = None
    """A .mid file with the tune to sing."""
    speaker_prompt: Path | None = None
    """Audio of the voice to take."""
    audio: Path | None = None
    """Audio to listen to or to fill in."""
    content_audio: Path | None = None
    """Speech to convert."""
    noisy_audio: Path | None = None
    """Speech to clean."""
    mixture_audio: Path | None = None
    """Speech of several people, to extract one from."""
    reverberant_audio: Path | None = None
    """Speech to take the reverberation out of."""
    source_audio: Path | None = None
    """Audio to edit."""
    paired_audio: Path | None = None
    """Speech to compare the voice of `audio` with."""
    masked_seconds: tuple[float, float] | None = None
    """From where to where in `audio` to speak anew."""

    def given(self) -> dict[str, Any]:
        """The conditions on the command line, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(Conditions)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Line:
    """One line of a list: its number from 0 and where it stands, its id, and the conditions by name."""

    number: int
    where: str
    id: str
    given: dict[str, Any]

    def written(self) -> dict[str, Any]:
        """The conditions as JSON values."""
        return {name: str(value) for name, value in self.given.items()}


def read_lines(path: Path, common: dict[str, Any]) -> list[Line]:
    """The lines of a list that are not empty, each with the `common` conditions that it does not have itself.

    Without an id of its own a line is called after the file and its number. Raises ValueError that names the line for
    what is no condition, and for an id that comes twice.
    """
    lines: dict[str, Line] = {}
    text = read_text(path, "a text on each line, in UTF-8")
    for number, content in enumerate(text.splitlines()):
        where = f"{path}:{number + 1}"
        if content.strip():
            named = _conditions_of(content, where) if path.suffix == ".jsonl" else {"text": content.strip()}
            name = str(named.pop("id", f"{path.stem}_{number:04d}"))
            if name in lines:
                raise ValueError(f"{where}: got the id {name!r} of {lines[name].where} again; give each line its own")
            lines[name] = Line(number, where, name, common | named)
    if not lines:
        raise ValueError(f"{path}: got no line, wanted a text on each")
    return list(lines.values())


def _conditions_of(content: str, where: str) -> dict[str, Any]:
    """The conditions of a JSON object, and its id."""
    named = parse_json(content, where, 'an object of conditions, such as {"text": "Good morning."}')
    kinds = {field.name: field.type for field in fields(Conditions)}
    for name, value in named.items():
        if name not in {"id", *kinds}:
            raise ValueError(f"{where}: got {name!r}, wanted one of {', '.join(kinds)}{did_you_mean(name, kinds)}")
        span = isinstance(value, list) and len(value) == 2 and all(isinstance(x, int | float) for x in value)
        wanted, fits = {
            "masked_seconds": ("two numbers", span),
            "words_per_minute": ("a whole number", isinstance(value, int) and not isinstance(value, bool)),
        }.get(name, ("a text", isinstance(value, str)))
        if not fits:
            raise ValueError(f"{where}: {name}: got {value!r}, wanted {wanted}")
    converted = {name: Path(value) for name, value in named.items() if kinds.get(name) == Path | None}
    return named | converted
