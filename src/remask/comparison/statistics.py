r"""Differences of two figures, and how sure they are.

Over test examples, each figure is a ratio of sums r = Σ a_i / Σ w_i (a mean where all w_i = 1). To first order a change
of the examples changes it by the mean of its residuals e_i = n·(a_i − r w_i) / Σ w_j (Cochran, Sampling Techniques,
chapter 6), so two figures of the *same* examples differ with the standard error of a mean of paired differences,
whether or not their weights are equal:

    se² = Σ (e_i − f_i)² / (n (n − 1)).

Without pairing se² = se_a² + se_b², which is far too large where the examples that are hard for one model are hard for
the other. Over training seeds, each figure is a mean of runs, and their difference is Welch's (Biometrika 1947, 34,
28–35), with his and Satterthwaite's degrees of freedom.

Letters: n examples, k runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_REPRODUCES = 1e-5  # relative; examples are kept as float64, so what differs by more is another figure


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A difference of two figures.

    Attributes:
        difference: the first figure minus the second.
        stderr: its standard error; None where nothing tells it.
        df: degrees of freedom of Student's t; infinite for a normal distribution.
        method: how the error was found.
        covers: over what the interval ranges, in words.
    """

    difference: float
    stderr: float | None
    df: float
    method: str
    covers: str

    def interval(self, level: float) -> tuple[float, float] | None:
        """The interval that holds the true difference in a share `level` of repetitions.

        None without an error, and where nothing varies though the figures differ: an interval of no width would say
        that a few examples leave no doubt.
        """
        if self.stderr is None or (self.stderr == 0 and self.difference != 0):
            return None
        from scipy.special import ndtri, stdtrit

        below = (1 + level) / 2
        reach = float(stdtrit(self.df, below) if math.isfinite(self.df) else ndtri(below)) * self.stderr
        return self.difference - reach, self.difference + reach

    @property
    def p(self) -> float | None:
        """The two-sided probability of a difference at least as large if there were none; None without an error.

        Where nothing varies it is that of the sign test, 2 · 2^−n for n = df + 1 differences that all point one way.
        """
        if self.stderr is None:
            return None
        if self.stderr == 0:
            return 1.0 if self.difference == 0 else 0.5**self.df
        from scipy.special import ndtr, stdtr

        score = -abs(self.difference) / self.stderr
        return 2 * float(stdtr(self.df, score) if math.isfinite(self.df) else ndtr(score))


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean of k values and its standard error, which is None for one."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(_variance(values) / len(values))


def over_seeds(first: Sequence[float], second: Sequence[float]) -> Contrast:
    """Welch's difference of two means over training runs.

    Raises:
        ValueError: an arm has one run only, of which nothing is known over seeds.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("one seed says nothing of other seeds: two runs of each arm are needed")
    a, b = _variance(first) / len(first), _variance(second) / len(second)
    freedom = _satterthwaite([a, b], [len(first) - 1, len(second) - 1])
    runs = f"{len(first)} seeds each" if len(first) == len(second) else f"{len(first)} and {len(second)} seeds"
    return Contrast(
        difference=math.fsum(first) / len(first) - math.fsum(second) / len(second),
        stderr=math.sqrt(a + b),
        df=freedom,
        method="over seeds (Welch t)",
        covers=f"over {runs}",
    )


def one_against_seeds(first: Sequence[float], second: Sequence[float]) -> Contrast:
    """The difference of one training run and the mean of several, whose spread s tells how much one run varies.

    If runs of both setups vary alike, se² = s² (1 + 1/k) with k − 1 degrees of freedom (a prediction interval).

    Raises:
        ValueError: not one run on one side and two or more on the other.
    """
    single, several = sorted((first, second), key=len)
    if len(single) != 1 or len(several) < 2:
        raise ValueError("one run of one arm and several of the other are needed")
    return Contrast(
        difference=math.fsum(first) / len(first) - math.fsum(second) / len(second),
        stderr=math.sqrt(_variance(several) * (1 + 1 / len(several))),
        df=len(several) - 1,
        method="one run against several seeds (t)",
        covers=f"over {len(several)} seeds against one, taken to vary alike",
    )


def paired_by_seed(first: Mapping[int, float], second: Mapping[int, float]) -> Contrast | None:
    """The mean difference of runs of equal seeds; None where fewer than two seeds occur in both.

    Runs of two setups share nothing of a seed but its number, or all of the data order: so this stands beside
    `over_seeds` and never in its place.
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < 2:
        return None
    mean, error = mean_and_error([first[seed] - second[seed] for seed in seeds])
    return Contrast(
        difference=mean,
        stderr=error,
        df=len(seeds) - 1,
        method="paired by seed (t)",
        covers=f"over {len(seeds)} pairs of equal seeds",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """A figure as its test examples make it.

    Attributes:
        value: the figure.
        identity: which examples in which order.
        residuals: what each example adds, e_i [n]; their mean is 0.
    """

    value: float
    identity: str
    residuals: Sequence[float]


def sample_of(value: float, examples: Mapping[str, Any]) -> Sample | None:
    """A figure with its examples, or None where the examples do not make that figure.

    They make it as the ratio of their sums, or, for a perplexity, as e to that ratio (delta method).

    Args:
        value: the figure that was recorded.
        examples: `identity`, `values` [n] and `weights` [n], or None for weights of 1.
    """
    a, weights = examples.get("values") or [], examples.get("weights")
    w = [1.0] * len(a) if weights is None else list(weights)
    if len(a) < 2 or len(a) != len(w) or not all(isinstance(x, int | float) and math.isfinite(x) for x in [*a, *w]):
        return None
    total = math.fsum(w)
    if total <= 0:
        return None
    ratio = math.fsum(a) / total
    made = ((ratio, 1.0), (math.exp(min(ratio, 700.0)), math.exp(min(ratio, 700.0))))
    slope = next((slope for figure, slope in made if math.isclose(figure, value, rel_tol=_REPRODUCES)), None)
    if slope is None:
        return None
    scale = slope * len(a) / total
    residuals = [scale * (x - ratio * weight) for x, weight in zip(a, w, strict=True)]
    return Sample(value=value, identity=str(examples.get("identity")), residuals=residuals)


def mean_sample(samples: Sequence[Sample]) -> Sample:
    """The mean of several runs' figures of the same examples, as one figure of those examples.

    Raises:
        ValueError: the examples are not the same.
    """
    _check_same(samples)
    return Sample(
        value=math.fsum(sample.value for sample in samples) / len(samples),
        identity=samples[0].identity,
        residuals=[math.fsum(e) / len(samples) for e in zip(*(s.residuals for s in samples), strict=True)],
    )


def paired_over_examples(first: Sample, second: Sample) -> Contrast:
    """The difference of two figures of the same examples.

    Raises:
        ValueError: the examples are not the same.
    """
    _check_same([first, second])
    n = len(first.residuals)
    gaps = [e - f for e, f in zip(first.residuals, second.residuals, strict=True)]
    return Contrast(
        difference=first.value - second.value,
        stderr=math.sqrt(math.fsum(gap * gap for gap in gaps) / (n * (n - 1))),
        df=n - 1,
        method="paired over examples",
        covers=f"over {n} examples in pairs",
    )


def unpaired_over_examples(first: tuple[float, float | None, int], second: tuple[float, float | None, int]) -> Contrast:
    """The difference of two figures of different examples, each given as (value, standard error, n).

    Without both errors the difference has none.
    """
    (a, a_error, n), (b, b_error, m) = first, second
    if a_error is None or b_error is None or min(n, m) < 2:
        return Contrast(difference=a - b, stderr=None, df=math.inf, method="none", covers="without a standard error")
    counts = f"{n}" if n == m else f"{n} and {m}"
    return Contrast(
        difference=a - b,
        stderr=math.hypot(a_error, b_error),
        df=_satterthwaite([a_error**2, b_error**2], [n - 1, m - 1]),
        method="unpaired over examples",
        covers=f"over {counts} examples, not in pairs",
    )


def holm(probabilities: Sequence[float]) -> list[float]:
    """Holm's adjusted probabilities (Scandinavian Journal of Statistics 1979, 6, 65–70), in the order given.

    Rejecting where one is at most α rejects no true hypothesis at all with probability 1 − α.
    """
    order = sorted(range(len(probabilities)), key=probabilities.__getitem__)
    adjusted, greatest = [0.0] * len(order), 0.0
    for rank, place in enumerate(order):
        greatest = max(greatest, min(1.0, (len(order) - rank) * probabilities[place]))
        adjusted[place] = greatest
    return adjusted


def _variance(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _satterthwaite(variances: Sequence[float], freedoms: Sequence[int]) -> float:
    """Degrees of freedom of a sum of squared errors; the least where all of them are 0."""
    whole = math.fsum(variances)
    if whole == 0:
        return float(min(freedoms))
    # as shares of the whole: squares of tiny variances would vanish
    shares = [variance / whole for variance in variances]
    return 1 / math.fsum(share**2 / freedom for share, freedom in zip(shares, freedoms, strict=True))


def _check_same(samples: Sequence[Sample]) -> None:
    if len({(sample.identity, len(sample.residuals)) for sample in samples}) > 1:
        raise ValueError("only figures of the same examples in the same order can be paired")
