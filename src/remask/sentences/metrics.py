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
Predictions = Sequence[Numbers]
"""Of the same examples, one a training."""
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
    """The linear correlation; 0 where either is constant, or its squares are too small for a number."""
    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    x, y = predicted - np.mean(predicted), labels - np.mean(labels)
    lengths = math.sqrt((x * x).sum()) * math.sqrt((y * y).sum())
    return float((x * y).sum() / lengths) if lengths else 0.0


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


def mean_score(metric: Metric, predictions: Predictions, labels: Numbers) -> float:
    """The mean score of some trainings."""
    return float(np.mean([metric(each, labels) for each in predictions]))


def standard_error(
    metric: Metric,
    predictions: Predictions,
    labels: Numbers,
    *,
    groups: npt.NDArray[np.int64],
    seed: int,
    against: Predictions | None = None,
) -> float:
    """The standard error of the mean score of some trainings, or of how far it is above that of others.

    Two sources are added: other examples, by the bootstrap of whole groups of them that belong together (Davison and
    Hinkley, Bootstrap Methods and Their Application, 1997, section 3.8; the same resample for all trainings, so a
    difference is one in pairs), and, of several trainings, other seeds, s²/S. Two sides of equally many trainings have
    the same seeds, so s² is that of their differences.

    Args:
        metric: the score.
        predictions: of each training [S][n].
        labels: [n].
        groups: the number of each example's group, from 0, none left out [n].
        seed: of the resamples.
        against: what is predicted by that whose mean score is subtracted [S'][n]; None: nothing is.
    """
    draw, count = np.random.default_rng(seed), int(groups.max()) + 1
    sides = [predictions] if against is None else [predictions, against]

    def resampled() -> float:
        often = np.bincount(draw.integers(0, count, count), minlength=count)
        chosen = np.repeat(np.arange(len(labels)), often[groups])
        own, *other = (mean_score(metric, [each[chosen] for each in side], labels[chosen]) for side in sides)
        return own - sum(other)

    scores = [np.array([metric(each, labels) for each in side]) for side in sides]
    if len({len(side) for side in scores}) < len(scores):
        scores = [scores[0] - scores[1]]
    spread = sum(float(np.var(side, ddof=1)) / len(side) for side in scores if len(side) > 1)
    return math.sqrt(float(np.var([resampled() for _ in range(RESAMPLES)], ddof=1)) + spread)
