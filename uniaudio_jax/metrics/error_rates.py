"""Error rates of tokens and of words: edits over the length of all references.

An edit is a substitution, a deletion or an insertion (Levenshtein). 0 is perfect, above 1 is possible. An empty
estimate lacks every token of its reference; to an empty reference every token of the estimate is an insertion.
"""

import re

from rapidfuzz.distance import Levenshtein

from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores


def token_error_rate(sample: Sample) -> Scores:
    """Edits of ids over the number of reference ids."""
    edits = Levenshtein.distance(sample.reference.tolist(), sample.estimate.tolist())
    return {"token_error_rate": Score(edits, len(sample.reference))}


def word_error_rate(sample: Sample) -> Scores:
    """Edits of words over the number of reference words, by `word_score`."""
    return {"word_error_rate": word_score(sample.text, sample.estimate_text)}


def word_score(text: str | None, estimate: str | None) -> Score:
    """Edits of words over the number of words in `text`, in lower case and without punctuation.

    Undefined where one of the two is unknown.
    """
    if text is None or estimate is None:
        return NO_SCORE
    words, estimate_words = (re.findall(r"[\w']+", line.lower()) for line in (text, estimate))
    return Score(Levenshtein.distance(words, estimate_words), len(words))
