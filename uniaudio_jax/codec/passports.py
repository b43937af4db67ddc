"""Which codec made the codes, told from a codec's passport."""

from collections.abc import Mapping
from typing import Any

KEYS = ("codec", "weights_sha256")


def codes_of(passport: Mapping[str, Any]) -> dict[str, str]:
    """Name and hash of the codec whose codes this one makes and reads.

    It is the codec itself, unless a training of the decoder alone left the encoder and the codebooks of another as they
    were; its passport then names that one as `codes_of`.
    """
    origin = passport.get("codes_of", passport)
    return {key: origin[key] for key in KEYS}


def same_codes(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether tokens of the one codec may be decoded by the other."""
    return codes_of(one)["weights_sha256"] == codes_of(other)["weights_sha256"]
