"""NAME NUMBER pairs on the command line: `--data.tasks tts 1.0 enhancement 0.5`."""

from typing import Annotated

import tyro


def _pairs(kind: type) -> tyro.constructors.PrimitiveConstructorSpec:
    """NAME VALUE pairs on the command line as a dict of `kind` values."""

    def parse(words: list[str]) -> dict:
        if len(words) % 2:
            raise ValueError(f"got {' '.join(words)!r}, wanted pairs of a name and a number, such as tts 1")
        return {name: kind(value) for name, value in zip(words[::2], words[1::2], strict=True)}

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME NUMBER ...",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [word for name, number in value.items() for word in (name, str(number))],
    )


TaskWeights = Annotated[dict[str, float], _pairs(float)]
"""On the command line: `--data.tasks tts 1.0 enhancement 0.5`."""
RangeSizes = Annotated[dict[str, int], _pairs(int)]
