"""Sentences for the language recognition task; data/languages.json lists them by espeak-ng's name of the language."""

from data_pipelines.corpora import Split, split_of
from data_pipelines.synthetic.texts import read_data

HELDOUT_EVERY = 5
SENTENCES: dict[str, list[str]] = read_data("languages")


def bank_split(sentence: str) -> Split:
    """The split in which a sentence of the bank may be used."""
    return split_of(sentence, HELDOUT_EVERY)


def bank(language: str, split: Split) -> tuple[str, ...]:
    """The sentences of a language in a split. Raises ValueError for a language that is not in the bank."""
    if language not in SENTENCES:
        raise ValueError(f"language bank: got language {language!r}, wanted one of {', '.join(SENTENCES)}")
    return tuple(sentence for sentence in SENTENCES[language] if bank_split(sentence) == split)
