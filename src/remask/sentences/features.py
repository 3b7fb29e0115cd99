"""Vectors of two sentences as one: cosines, whitening and features of a pair.

Shape letters: n pairs, C vectors of a sentence, D width, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from remask.sentences.encoders import Vectors, pooled

Numbers = npt.NDArray[np.floating]
LEAST_VARIANCE = 1e-4
"""Share of the largest variance below which a direction is left out of whitening: dividing by it would be noise."""


def cosines(one: Vectors, other: Vectors) -> Numbers:
    """The cosine between the sentences of each pair, their vectors side by side [n]; 0 where one is all zeros."""
    u, v = one.reshape(len(one), -1).astype(np.float64), other.reshape(len(other), -1).astype(np.float64)
    norms = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    return (u * v).sum(1) / np.where(norms > 0, norms, 1.0)


def features(columns: Sequence[Vectors]) -> Numbers:
    """What a linear probe reads [n F]: u of one sentence, [u; v; |u−v|; u·v] of two (InferSent, arXiv:1705.02364).

    A sentence of several vectors is compared vector by vector, and the comparisons are averaged.

    Args:
        columns: the vectors of the first sentences [n C D], and of the second ones where there are pairs.
    """
    if len(columns) == 1:
        return columns[0].mean(1)
    u, v = columns
    return np.concatenate([u, v, np.abs(u - v), u * v], axis=2).mean(1)


def with_cosines(columns: Sequence[Vectors], whiten: "Whitening") -> Numbers:
    """`features`, and of pairs `COSINES` numbers behind them: the cosine of the mean vectors, as they are and whitened.

    TF-IDF's probe is told its cosines too.

    Args:
        columns: as for `features`.
        whiten: fitted on mean vectors of training sentences.
    """
    if len(columns) == 1:
        return features(columns)
    means = [pooled(column) for column in columns]
    near = [cosines(*means), cosines(*(whiten(mean) for mean in means))]
    return np.concatenate([features(columns), np.stack(near, axis=1)], axis=1)


COSINES = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Whitening:
    """Sentence vectors made uncorrelated with unit variance (arXiv:2103.15316, equations 6 and 7).

    x̃ = (x − μ) U Λ^(−1/2), where the covariance of the vectors is U Λ Uᵀ.

    Attributes:
        mean: μ [D].
        matrix: U Λ^(−1/2) [D K], of the K directions whose variance is at least `LEAST_VARIANCE` of the largest.
    """

    mean: Numbers
    matrix: Numbers

    @staticmethod
    def fitted(vectors: Vectors) -> "Whitening":
        """The whitening of these vectors [n 1 D], no labels used."""
        flat = vectors[:, 0].astype(np.float64)
        mean = flat.mean(0)
        variances, directions = np.linalg.eigh(np.cov(flat - mean, rowvar=False, bias=True).reshape(flat.shape[1], -1))
        kept = variances > max(LEAST_VARIANCE * variances.max(), np.finfo(np.float64).tiny)
        return Whitening(mean=mean, matrix=directions[:, kept] / np.sqrt(variances[kept]))

    def __call__(self, vectors: Vectors) -> Vectors:
        """The vectors [n 1 D] whitened [n 1 K]."""
        return ((vectors.astype(np.float64) - self.mean) @ self.matrix).astype(np.float32)
