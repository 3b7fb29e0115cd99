"""Scores of predictions, and how far they would vary on other examples.

Shape letters: n examples, S predictions of the same examples (seeds), R resamples.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

Numbers = npt.NDArray[np.int64] | npt.NDArray[np.floating]
Metric = Callable[[Numbers, Numbers], float]
"""(predictions, labels) → score."""
RESAMPLES = 200


def accuracy(predicted: Numbers, labels: Numbers) -> float:
    """The share of right predictions."""
    return float((predicted == labels).mean())


def f1_of(positive: int) -> Metric:
    """F1 of a class, 2·TP / (2·TP + FP + FN); 0 where it is neither predicted nor there."""

    def f1(predicted: Numbers, labels: Numbers) -> float:
        said, is_so = predicted == positive, labels == positive
        together = int(said.sum() + is_so.sum())
        return 2.0 * int((said & is_so).sum()) / together if together else 0.0

    return f1


def matthews(predicted: Numbers, labels: Numbers) -> float:
    """Matthews' correlation (of any number of classes); 0 for a constant prediction."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predicted))


def spearman(predicted: Numbers, labels: Numbers) -> float:
    """The correlation of ranks; 0 where either is constant."""
    return pearson(stats.rankdata(predicted), stats.rankdata(labels))


def pearson(predicted: Numbers, labels: Numbers) -> float:
    """The linear correlation; 0 where either is constant."""
    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    x, y = predicted - np.mean(predicted), labels - np.mean(labels)
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


def metric_of(name: str, *, positive: int | None) -> Metric:
    """The metric of a task's name for it.

    Args:
        name: accuracy, f1, matthews, spearman or pearson.
        positive: the index of the class that F1 counts.
    """
    plain = {"accuracy": accuracy, "matthews": matthews, "spearman": spearman, "pearson": pearson}
    if name == "f1":
        assert positive is not None, "a task with F1 names its class"
        return f1_of(positive)
    return plain[name]


def unit_of(name: str) -> str:
    """The unit of a metric."""
    return "share" if name in ("accuracy", "f1") else "correlation"


def standard_error(metric: Metric, predictions: Sequence[Numbers], labels: Numbers, *, seed: int) -> float:
    """The standard error of the mean score of some trainings.

    Two sources are added: other examples, by the bootstrap (the same resample for all trainings; Efron 1979), and, of
    several trainings, other seeds, s²/S.

    Args:
        metric: the score.
        predictions: of each training [S][n].
        labels: [n].
        seed: of the resamples.
    """
    draw = np.random.default_rng(seed)
    n = len(labels)
    means = []
    for _ in range(RESAMPLES):
        chosen = draw.integers(0, n, n)
        means.append(np.mean([metric(each[chosen], labels[chosen]) for each in predictions]))
    variance = float(np.var(means, ddof=1))
    if len(predictions) > 1:
        scores = [metric(each, labels) for each in predictions]
        variance += float(np.var(scores, ddof=1)) / len(scores)
    return math.sqrt(variance)
