"""Text to word pieces and back: byte-pair encoding by sentencepiece, which can express any text.

    python -m data_pipelines.tokenizers.words --text FILE … --size 1000 --out F.model

trains a model. Without --text it trains the shipped one, on sentences and captions of the synthetic corpora, the names
of sounds, and the plain English sentences in the documentation strings of Python's own modules (Python Software
Foundation License; the shipped model saw those of Python 3.11.7). The same text and size give the same bytes.
"""

import ast
import hashlib
import io
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import Int16

from data_pipelines.tokenizers.tables import SHIPPED
from uniaudio_jax.cli import checked, main_guard
from uniaudio_jax.files import atomic_write, read_text
from uniaudio_jax.packages import load_package

MODEL = SHIPPED / "english_1000.model"
SPACE_MARK = "▁"
"""sentencepiece's sign for a space; in a text it is encoded as bytes, to be told from a space."""
LARGEST, BYTES = 32767, 256
FEWEST_LINES = 10
GRAMMAR_SENTENCES, CAPTIONS = 3000, 500
PLAIN_SENTENCE = re.compile(r"(?<![\w.])[A-Z][a-z]*(?:,? [A-Za-z][a-z]*(?:'[a-z]+)?){4,24}[.?!](?=\s|$)")


class WordPieces:
    """Ids of word pieces; characters without a piece become bytes of UTF-8, so that decode(encode(text)) == text.

    Nothing is normalised: capitals, accents, spaces and line breaks stay as they are. model: a sentencepiece model with
    byte fallback, by default the shipped one of 1000 pieces. (A model that normalises gives normalised text back.)
    """

    name = "word_pieces"

    def __init__(self, model: Path | None = None) -> None:
        path = MODEL if model is None else model
        try:
            data = path.read_bytes()
            self._pieces = _sentencepiece().SentencePieceProcessor(model_proto=data)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"{path}: got a file that cannot be read as a sentencepiece model ({error}), wanted one; "
                "train it with `python -m data_pipelines.tokenizers.words`"
            ) from error
        self.size: int = self._pieces.get_piece_size()
        self.sha256 = hashlib.sha256(data).hexdigest()
        mark_bytes = [self._pieces.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE_MARK.encode()]
        if self.size > LARGEST or not all(self._pieces.is_byte(number) for number in mark_bytes):
            raise ValueError(
                f"{path}: got a model of {self.size} pieces, wanted at most {LARGEST}, a piece for each "
                "byte among them; train it with byte_fallback"
            )
        self._mark_bytes: list[int] = mark_bytes

    def encode(self, text: str) -> Int16[np.ndarray, " n"]:
        """Ids of the pieces of `text`. Raises ValueError for an empty text, and for one that is not Unicode."""
        if not text:
            raise ValueError("WordPieces.encode: got an empty text, wanted at least one character")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"WordPieces.encode: got text {text!r} ({error.reason}), wanted Unicode") from error
        first, *rest = (self._pieces.encode(part) if part else [] for part in text.split(SPACE_MARK))
        ids = [*first, *(number for part in rest for number in (*self._mark_bytes, *part))]
        return np.array(ids, np.int16)

    def decode(self, ids: Sequence[int] | Int16[np.ndarray, " n"]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become "�". Raises ValueError for an id that has no piece."""
        numbers = [int(number) for number in ids]
        if bad := [number for number in numbers if not 0 <= number < self.size]:
            raise ValueError(f"WordPieces.decode: got ids {bad[:5]}, wanted 0 to {self.size - 1}")
        return self._pieces.decode(numbers)


def train_pieces(lines: Sequence[str], size: int) -> bytes:
    """A sentencepiece BPE model of `size` pieces, unknown and 256 bytes among them, that normalises nothing.

    Raises ValueError for too little text for that many pieces, or for fewer pieces than bytes.
    """
    lines = [line for line in lines if line.strip()]
    if len(lines) < FEWEST_LINES or not BYTES + 1 < size <= LARGEST:
        raise ValueError(
            f"words: got {len(lines)} lines of text for {size} pieces, wanted at least {FEWEST_LINES} "
            f"lines and {BYTES + 2} to {LARGEST} pieces"
        )
    model = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=size,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            bos_id=-1,
            eos_id=-1,
            unk_surface="�",
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"words: got {len(lines)} lines of text, too few for {size} pieces ({error}); give more text, "
            "or a smaller --size"
        ) from error
    return model.getvalue()


def default_text() -> list[str]:
    """The text of the shipped model: sentences that are not held out, captions, names of sounds, plain English."""
    from data_pipelines.synthetic.sentences import sentence
    from data_pipelines.synthetic.tunes import compose
    from data_pipelines.tokenizers.labels import LABELS

    rng = np.random.default_rng(0)
    sentences = [sentence(rng) for _ in range(GRAMMAR_SENTENCES)]
    captions = [compose(rng, seconds=1.0).caption for _ in range(CAPTIONS)]
    return [*sentences, *captions, *LABELS, *sorted(set(_documentation_sentences()))]


def _documentation_sentences() -> Iterator[str]:
    """Sentences that consist of words only, without names of code, in the texts of Python's modules."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.glob("*.py")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library's own code
            tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                yield from PLAIN_SENTENCE.findall(" ".join((ast.get_docstring(node) or "").split()))


def _sentencepiece() -> Any:
    return load_package("sentencepiece", "WordPieces", "pip install sentencepiece==0.2.3")


@dataclass(frozen=True, kw_only=True)
class WordsOptions:
    """Train word pieces."""

    out: Path
    """The model file to write."""
    text: tuple[Path, ...] = ()
    """UTF-8 files, one sentence a line; the text of the shipped model if none is given."""
    size: int = 1000
    """Number of pieces."""


def main() -> None:
    with main_guard():
        options = checked(tyro.cli(WordsOptions, description=__doc__))
        lines = [line for path in options.text for line in read_text(path, "one sentence a line").split("\n")]
        model = train_pieces(lines if options.text else default_text(), options.size)
        with atomic_write(options.out) as partial:
            partial.write_bytes(model)
        print(f"{options.out}: {options.size} pieces, {len(model)} bytes")


if __name__ == "__main__":
    main()
