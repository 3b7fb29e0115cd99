"""The judgement of one figure beside its trivial values."""

import math
from collections.abc import Mapping
from typing import Literal

from remask.health.evidence import BEATS, Evidence, Figure

Level = Literal["learns", "weak", "trivial", "broken"]
LEVELS: tuple[Level, ...] = ("learns", "weak", "trivial", "broken")
HEADS: Mapping[Level, str] = {
    "learns": "learns",
    "weak": "weak",
    "trivial": "has not learned",
    "broken": "broken",
}
_WEAK_GAP = 0.05  # share of the unigram's value below which a gap to it is called small


def trivial_gap(value: float, trivial: Mapping[str, float]) -> dict[str, float]:
    """How far a figure lies below each trivial value, in their common unit; negative where it is worse."""
    return {name: reference - value for name, reference in trivial.items() if math.isfinite(reference - value)}


def judge(evidence: Evidence) -> tuple[Level, str]:
    """The level that a run's figure alone earns, and the sentence that says so."""
    figure = evidence.figure
    if figure is None:
        return "trivial", f"{HEADS['trivial']}: nothing shows that it beats a trivial predictor"
    uniform, floor = "uniform" in figure.trivial, figure.floor()
    if uniform and is_worse_than_uniform(figure):
        if evidence.is_early:
            return "trivial", f"has not learned: {figure} is worse than {figure.named('uniform')}"
        return "broken", f"worse than uniform: {figure}, where {figure.named('uniform')} does better"
    if floor is None:
        return "trivial", f"cannot be judged: {figure}, and no trivial value stands beside it"
    if not figure.beats(floor):
        at_uniform = uniform and not figure.beats("uniform")
        reference = figure.named("uniform" if at_uniform else floor)
        return "trivial", f"has not learned: {figure} is no better than {reference}"
    if figure.is_likelihood:
        return _judge_against_ngrams(figure, floor)
    return _judge_own_figure(figure, floor)


def _judge_against_ngrams(figure: Figure, floor: str) -> tuple[Level, str]:
    if "byte 2-gram" not in figure.trivial:
        return "weak", f"weak: {figure} beats {figure.named(floor)}; no n-gram value stands beside it"
    if not figure.beats("byte 2-gram"):
        return "weak", f"weak: {figure} beats {figure.named(floor)} but not {figure.named('byte 2-gram')}"
    if figure.value > figure.trivial[floor] * (1 - _WEAK_GAP):
        gap = figure.trivial[floor] - figure.value
        return "weak", f"weak: {figure}, only {gap:.2f} below {figure.named(floor)}"
    return "learns", f"learns: {figure}, {_ladder(figure)}"


def _judge_own_figure(figure: Figure, floor: str) -> tuple[Level, str]:
    """Of a figure that is no likelihood, which every sentence says: it may be small for a network that only copies."""
    if "byte 2-gram" in figure.trivial:
        level, sentence = _judge_against_ngrams(figure, floor)
        return level, f"{sentence}; no likelihood"
    gap = figure.trivial[floor] - figure.value
    level = "weak" if gap < _WEAK_GAP * figure.trivial[floor] else "learns"
    return level, f"{HEADS[level]}: {figure}, {gap:.2f} below {figure.named(floor)}; no likelihood"


def _ladder(figure: Figure) -> str:
    """`0.86 below the byte bigram (3.81), 0.02 below the byte trigram (2.97)`, and the next order."""
    orders = [f"byte {k}-gram" for k in range(2, 10) if f"byte {k}-gram" in figure.trivial]
    gaps = trivial_gap(figure.value, figure.trivial)
    beaten = [name for name in orders if gaps[name] > 0]
    clauses = [f"{gaps[name]:.2f} below {figure.named(name)}" for name in dict.fromkeys((beaten[0], beaten[-1]))]
    clauses += [f"above {figure.named(name)}" for name in orders if gaps[name] <= 0][:1]
    return ", ".join(clauses)


def is_worse_than_uniform(figure: Figure) -> bool:
    """Whether a figure that has a uniform value beside it is worse by more than 1 % and its error."""
    reference = figure.trivial["uniform"]
    return figure.value > reference + max(BEATS * reference, figure.stderr)
