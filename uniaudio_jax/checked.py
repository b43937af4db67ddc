"""Dataclasses whose values are of their fields' types, and whose numbers are finite."""

import dataclasses
import math
import typing
from typing import Any

from typeguard import CollectionCheckStrategy, TypeCheckError, check_type


def misfit(name: str, value: Any, hint: Any) -> str:
    """What is wrong with the value of a field of this type hint, such as "got steps = 'many', wanted int"; or ""."""
    try:
        check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError:
        return f"got {name} = {value!r}, wanted {hint.__name__ if isinstance(hint, type) else hint}"
    numbers = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
        return f"got {name} = {value!r}, wanted finite numbers"
    return ""


class Checked:
    """The base of a dataclass whose values must be of their fields' types, and its numbers finite: a ValueError names
    the field that is not."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for each in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            wrong = misfit(each.name, getattr(self, each.name), hints[each.name])
            if wrong:
                raise ValueError(f"{type(self).__name__}: {wrong}")
