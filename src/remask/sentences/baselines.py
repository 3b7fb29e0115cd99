"""What no trained network is needed for: the most frequent class, and TF-IDF.

Shape letters: n examples.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from remask.errors import UserError
from remask.sentences.metrics import Metric, Numbers
from remask.sentences.probes import Probed, probe
from remask.sentences.splits import Labelled, TaskData

WORDS = {"token_pattern": r"(?u)\b\w+\b", "sublinear_tf": True}
CHARACTERS = {"analyzer": "char_wb", "ngram_range": (3, 4), "sublinear_tf": True}
SIGNS = {"token_pattern": r"(?u)\S+", "sublinear_tf": True}
"""For sentences without a letter or a digit."""
PROBED = {"token_pattern": r"(?u)\b\w+\b", "ngram_range": (1, 2), "sublinear_tf": True, "min_df": 2}


def most_frequent(data: TaskData) -> Numbers:
    """Always the most frequent training class, or always the same degree (a correlation of 0) [n]."""
    said = 0 if data.task.graded else np.bincount(data.train.labels).argmax()
    return np.full(len(data.reported), said)


def all_positive(data: TaskData) -> Numbers:
    """Always the class that F1 counts [n]; of a task that names one."""
    return np.full(len(data.reported), data.positive)


def tfidf_cosines(data: TaskData, options: dict[str, Any]) -> Numbers:
    """The cosine between the TF-IDF weights of each reported pair, with frequencies of the training sentences [n]."""
    vectorizer = _fitted(data, options)
    return _cosines(*(vectorizer.transform(column) for column in data.reported.texts))


def tfidf_probe(data: TaskData, *, parts: tuple[Any, Any], metric: Metric) -> Probed:
    """A linear probe on TF-IDF: the weights of a sentence, or of a pair u, v, |u−v|, u·v and two cosines."""
    make = _features(data)
    return probe(
        make(data.train), data.train.labels, make(data.reported), parts=parts, metric=metric, graded=data.task.graded
    )


def _features(data: TaskData) -> Callable[[Labelled], Any]:
    from scipy import sparse

    words, letters = _fitted(data, PROBED), _fitted(data, CHARACTERS)

    def make(examples: Labelled) -> Any:
        if len(examples.texts) == 1:
            (column,) = examples.texts
            return sparse.hstack([words.transform(column), letters.transform(column)], format="csr")
        u, v = (words.transform(column) for column in examples.texts)
        near = np.stack([_cosines(u, v), _cosines(*(letters.transform(column) for column in examples.texts))], axis=1)
        return sparse.hstack([u, v, abs(u - v), u.multiply(v), sparse.csr_matrix(_STRESS * near)], format="csr")

    return make


_STRESS = 5.0
"""Cosines are one number among tens of thousands: so large, the penalty leaves them their say."""


def _fitted(data: TaskData, options: dict[str, Any]) -> Any:
    """TF-IDF of the training sentences; where no word of theirs could be counted so, of all that blanks divide.

    Raises:
        UserError: they are all empty.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    tries: tuple[dict[str, Any], ...] = (options, {**options, "min_df": 1}, SIGNS)
    for each in tries:
        with suppress(ValueError):  # of scikit-learn: no term is left
            return TfidfVectorizer(**each).fit(data.sentences)
    raise UserError(f"{data.task.name}, {data.trained_on}: its sentences are empty. Give some that say something")


def _cosines(u: Any, v: Any) -> Numbers:
    return np.asarray(u.multiply(v).sum(axis=1)).ravel()
