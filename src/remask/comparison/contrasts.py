"""The differences of the arms of one column, each with the error that the records allow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from remask.comparison import statistics
from remask.comparison.comparable import Figure
from remask.comparison.statistics import Contrast, Sample

ExamplesOf = Callable[[Figure], Mapping[str, Any] | None]
"""A figure's `Examples.to_json()`, or None where none were kept."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The difference of two arms in one figure.

    Attributes:
        arm: the arm that is named first.
        against: the other.
        contrast: the figure of `arm` minus that of `against`.
        by_seed: the same, paired by seed, where the same seeds occur in both.
        p_adjusted: the probability of so large a difference by chance, after Holm over all pairs of the column.
        pairs: how many pairs the column has.
    """

    arm: str
    against: str
    contrast: Contrast
    by_seed: Contrast | None
    p_adjusted: float | None
    pairs: int

    def told_apart(self, level: float) -> bool:
        """Whether a difference this large would come about by chance in a share of at most 1 − level of cases."""
        return self.p_adjusted is not None and self.p_adjusted <= 1 - level


def pairs_of(figures: Mapping[str, Sequence[Figure]], *, examples_of: ExamplesOf) -> list[Pair]:
    """All pairs of arms, in the order of the arms.

    Args:
        figures: by arm, one a run, each with a value.
        examples_of: looks up what each example added.
    """
    found = []
    for arm, against in combinations(figures, 2):
        first, second = figures[arm], figures[against]
        found.append(
            Pair(
                arm=arm,
                against=against,
                contrast=contrast(first, second, examples_of=examples_of),
                by_seed=statistics.paired_by_seed(_by_seed(first), _by_seed(second)),
                p_adjusted=None,
                pairs=0,
            )
        )
    known = [pair.contrast.p for pair in found]
    adjusted = iter(statistics.holm([p for p in known if p is not None]))
    return [
        replace(pair, p_adjusted=None if p is None else next(adjusted), pairs=len(found))
        for pair, p in zip(found, known, strict=True)
    ]


def contrast(first: Sequence[Figure], second: Sequence[Figure], *, examples_of: ExamplesOf) -> Contrast:
    """The difference of two arms: over seeds where one has several, else over examples, in pairs if they can be."""
    if min(len(first), len(second)) >= 2:
        return statistics.over_seeds(_values(first), _values(second))
    if max(len(first), len(second)) >= 2:
        return statistics.one_against_seeds(_values(first), _values(second))
    samples = [_sample(first, examples_of), _sample(second, examples_of)]
    if (a := samples[0]) and (b := samples[1]) and a.identity == b.identity:
        return statistics.paired_over_examples(a, b)
    return statistics.unpaired_over_examples(_summary(first), _summary(second))


def _sample(figures: Sequence[Figure], examples_of: ExamplesOf) -> Sample | None:
    """The mean of an arm's runs as a figure of their examples; None where one lacks them or has others."""
    samples = []
    for figure in figures:
        examples = examples_of(figure)
        sample = None if examples is None or figure.value is None else statistics.sample_of(figure.value, examples)
        if sample is None or (samples and sample.identity != samples[0].identity):
            return None
        samples.append(sample)
    return statistics.mean_sample(samples)


def _summary(figures: Sequence[Figure]) -> tuple[float, float | None, int]:
    """Mean, standard error over examples and number of examples of an arm.

    Runs of one arm are judged on one text, so the errors of several are taken as fully correlated: they do not shrink.
    """
    errors = [figure.stderr for figure in figures if figure.stderr is not None]
    error = sum(errors) / len(errors) if len(errors) == len(figures) else None
    return (
        statistics.mean_and_error(_values(figures))[0],
        error,
        min(int(figure.row.get("n") or 0) for figure in figures),
    )


def _values(figures: Sequence[Figure]) -> list[float]:
    return [figure.value for figure in figures if figure.value is not None]


def _by_seed(figures: Sequence[Figure]) -> dict[int, float]:
    return {figure.run.seed: figure.value for figure in figures if figure.value is not None}
