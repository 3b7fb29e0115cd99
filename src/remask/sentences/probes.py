"""Linear probes on frozen features: logistic regression for classes, ridge for degrees, strength chosen on a part.

Shape letters: n examples, F features.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from remask.sentences.metrics import Metric, Numbers
from remask.sentences.splits import Labels

STRENGTHS = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1.0)
"""C of the logistic regression, of standardised features; the least of them leave thousands of features little say."""
SPARSE_STRENGTHS = (0.3, 1.0, 3.0, 10.0)
"""C on TF-IDF weights, which are not standardised."""
PENALTIES = (1.0, 10.0, 100.0, 1_000.0, 10_000.0, 30_000.0, 100_000.0)
"""α of the ridge regression, of standardised features."""
SPARSE_PENALTIES = (0.1, 0.3, 1.0, 3.0)
ITERATIONS = 300
STRESS = 5.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Probed:
    """What a probe predicts.

    Attributes:
        predictions: of the reported examples [n].
        strength: that was chosen, C or α.
    """

    predictions: Numbers
    strength: float


def probe(
    train: Any,
    labels: Labels,
    reported: Any,
    *,
    parts: tuple[Any, Any],
    metric: Metric,
    graded: bool,
    plain: int = 0,
) -> Probed:
    """Fits with each strength on a part of the training examples, chooses on the rest, and fits again on all.

    Args:
        train: features, dense or sparse [n F].
        labels: classes as indices, or degrees [n].
        reported: features of the examples to predict.
        parts: numbers of the examples to fit on, and of those to choose on.
        metric: higher is better.
        graded: whether labels are degrees.
        plain: how many of the last features are plain cosines: few among many, they are multiplied by `STRESS` once
            they are standardised, so that the penalty leaves them their say. TF-IDF weights come with their own.
    """
    sparse = not isinstance(train, np.ndarray)
    grid = (SPARSE_PENALTIES if graded else SPARSE_STRENGTHS) if sparse else (PENALTIES if graded else STRENGTHS)
    fit, choose = parts

    def fitted(strength: float, rows: Any) -> Any:
        model = _model(strength, graded=graded, sparse=sparse, plain=plain)
        return model.fit(train[rows], labels[rows])

    scores = [metric(fitted(each, fit).predict(train[choose]), labels[choose]) for each in grid]
    best = grid[int(np.argmax(scores))]
    whole = fitted(best, np.arange(len(labels)))
    return Probed(predictions=whole.predict(reported), strength=best)


def _model(strength: float, *, graded: bool, sparse: bool, plain: int) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    model: Any = Ridge(alpha=strength) if graded else LogisticRegression(C=strength, max_iter=ITERATIONS, tol=1e-3)
    if sparse:
        return model

    def stressed(features: Any) -> Any:
        weight = np.ones(features.shape[1])
        weight[len(weight) - plain :] = STRESS
        return features * weight

    return make_pipeline(StandardScaler(), FunctionTransformer(stressed), model)
