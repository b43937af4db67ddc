"""A folder whose files appear together, and only where the work that made them ended well."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

CERTIFICATE = "certificate.json"
WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")
"""Names of weights, of which a reader takes those that an index names."""


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Yields an empty folder beside `out`, whose files move there when the block ends without an error.

    Weights there that the new ones do not replace are deleted, and so are files that a certificate there names; all
    others stay. The certificate goes first and comes last, so that one that is there is of the files beside it.
    """
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as partial:
        yield Path(partial)
        out.mkdir(exist_ok=True)
        made = sorted(Path(partial).iterdir(), key=lambda path: path.name == CERTIFICATE)
        earlier = _certified(out)
        (out / CERTIFICATE).unlink(missing_ok=True)
        for path in out.iterdir():
            is_earlier = path.name in earlier or WEIGHTS.fullmatch(path.name)
            if is_earlier and path.is_file() and path.name not in {new.name for new in made}:
                path.unlink()
        for path in made:
            os.replace(path, out / path.name)


def _certified(folder: Path) -> set[str]:
    """The files that the certificate in a folder names; none where it has none that can be read."""
    try:
        return set(json.loads((folder / CERTIFICATE).read_bytes())["sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return set()
