"""What errors about a user's input share, and how one item that fails is kept from ending the work on the others."""

import difflib
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Item = TypeVar("Item")
Result = TypeVar("Result")
SPECIFICATION = re.compile(r"\. See full TensorStore details| \[\w+(?:\[\d+\])?='")
"""Where an error of Orbax or TensorStore turns from words to the specification of an array."""


def require(where: str, good: bool, got: str, wanted: str) -> None:
    """Raises ValueError with these words unless `good`."""
    if not good:
        raise ValueError(f"{where}: got {got}, wanted {wanted}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """An ending for an error about an unknown `name`: "; did you mean 'tts'?", or nothing when none is near."""
    spelled = {one.casefold(): one for one in known}
    near = difflib.get_close_matches(name.casefold(), spelled, n=1)
    return f"; did you mean {spelled[near[0]]!r}?" if near else ""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without TensorStore's specifications, or its type where it says nothing."""
    return next(iter(SPECIFICATION.split(str(error))[0].strip().splitlines()), type(error).__name__)


class Refused(str):
    """Why one item of many could not be used, as text that any file can hold."""


def refusal(error: Exception) -> Refused:
    """What an error says; one that is not about a user's input is named, with the line that raised it."""
    reason = str(error)
    if not isinstance(error, ValueError | OSError):
        lines = traceback.extract_tb(error.__traceback__)
        reason = f"{type(error).__name__}{f' at {lines[-1].filename}:{lines[-1].lineno}' if lines else ''}: {reason}"
    return Refused(as_unicode(reason))


def as_unicode(text: str) -> str:
    """`text` with escapes for what UTF-8 cannot hold: lone surrogates, as in the names of files that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def attempt(
    work: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
) -> Result | Refused:
    """What `work` returns, or why it could not be done, whatever it raises. The wall around one item of many."""
    try:
        return work(*arguments, **options)
    except Exception as error:
        return refusal(error)


def attempt_each(work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> list[Result | Refused]:
    """What `work` returns for each item, all done at once; if that fails each half, so that one costs only itself."""
    results = attempt(work, items) if items else []
    if not isinstance(results, Refused):
        return list(results)
    half = len(items) // 2
    return attempt_each(work, items[:half]) + attempt_each(work, items[half:]) if half else [results]


def usable(results: Iterable[Result | Refused], refuse: Callable[[Refused], None]) -> Iterator[Result]:
    """The results that are there; `refuse` is told of the others."""
    for result in results:
        if isinstance(result, Refused):
            refuse(result)
        else:
            yield result
