"""Which way a figure is better, and which of the values beside it are there to be beaten."""

from collections.abc import Mapping
from typing import Literal

from remask.evaluation.measurement import DIFFERENCE
from remask.health.evidence import BEATS, OWN_FIGURES

Better = Literal["lower", "higher"]

_LOWER = frozenset(
    {
        *("bits_per_byte", "nats_per_token", "perplexity", "nats_at_level"),
        *("exact_bits_per_byte", "exact_nats_per_token", "exact_perplexity"),
        *OWN_FIGURES,
        *("seconds_per_sample", "seconds_alone", "network_calls"),
    }
)
_HIGHER = frozenset(
    {
        *("answers_right", "answers_equal", "accuracy_strict", "accuracy_flexible"),
        *("mauve", "tokens_per_second", "samples_per_second"),
    }
)
_SCORES = frozenset({"accuracy", "f1", "matthews", "pearson", "spearman"})
"""Scores of labels, all the better the higher."""
_GOALS = ("held-out", "other held-out", "every text")
"""How names of references begin that good samples come near to: text of people, which no predictor made."""


def better(name: str) -> Better | None:
    """Which way a measurement of this name is better.

    None for a figure that says nothing of quality by itself: the perplexity of samples under a judge is lowest for a
    text that repeats one word, and the most distinct n-grams are those of noise. None for a difference too, since what
    is subtracted may be another thing for each model.
    """
    if name.endswith(DIFFERENCE):
        return None
    if name in _LOWER:
        return "lower"
    return "higher" if name in _HIGHER or is_of_sentences(name) else None


def is_of_sentences(name: str) -> bool:
    """Whether a measurement is the score of a sentence task, or the difference of one: `mrpc_probe_accuracy`."""
    return name.removesuffix(DIFFERENCE).rpartition("_")[2] in _SCORES


def is_better(value: float, other: float, *, way: Better) -> bool:
    """Whether a value lies on the better side of another."""
    return value < other if way == "lower" else value > other


def to_be_beaten(trivial: Mapping[str, float | None]) -> dict[str, float]:
    """The values of trivial predictors, without those of people's text and those that are no numbers."""
    return {name: value for name, value in trivial.items() if value is not None and not name.lower().startswith(_GOALS)}


def beats(value: float, stderr: float | None, reference: float, *, way: Better) -> bool:
    """Whether a figure beats a trivial value by more than 1 % of it and more than the figure's own error."""
    margin = max(BEATS * abs(reference), stderr or 0.0)
    return is_better(value, reference - margin if way == "lower" else reference + margin, way=way)
