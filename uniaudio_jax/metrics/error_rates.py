"""Error rates of tokens, words and characters: edits over the length of all references.

An edit is a substitution, a deletion or an insertion (Levenshtein). 0 is perfect, above 1 is possible. An empty
estimate lacks every token of its reference; to an empty reference every token of the estimate is an insertion.
"""

import re

from rapidfuzz.distance import Levenshtein

from uniaudio_jax.metrics.metric import MetricKind, Scale
from uniaudio_jax.metrics.sample import NO_SCORE, Sample, Score, Scores


def token_error_rate(sample: Sample) -> Scores:
    """Edits of ids over the number of reference ids."""
    edits = Levenshtein.distance(sample.reference.tolist(), sample.estimate.tolist())
    return {"token_error_rate": Score(edits, len(sample.reference))}


def text_error_rates(sample: Sample) -> Scores:
    """Word and character error rate of the estimate's text, by `text_scores`."""
    return text_scores(sample.text, sample.estimate_text)


def text_scores(text: str | None, estimate: str | None) -> Scores:
    """Edits over the lengths of `text` in words and in characters, in lower case and without punctuation.

    A space between words is a character too. Undefined where one of the two texts is unknown.
    """
    if text is None or estimate is None:
        return {"word_error_rate": NO_SCORE, "character_error_rate": NO_SCORE}
    words, estimate_words = (re.findall(r"[\w']+", line.lower()) for line in (text, estimate))
    letters, estimate_letters = " ".join(words), " ".join(estimate_words)
    return {
        "word_error_rate": Score(Levenshtein.distance(words, estimate_words), len(words)),
        "character_error_rate": Score(Levenshtein.distance(letters, estimate_letters), len(letters)),
    }


TOKEN_ERROR_RATE = MetricKind(measure=token_error_rate, scales={"token_error_rate": Scale("lower", 0)})
TEXT_ERROR_RATES = MetricKind(
    measure=text_error_rates, scales={"word_error_rate": Scale("lower", 0), "character_error_rate": Scale("lower", 0)}
)
