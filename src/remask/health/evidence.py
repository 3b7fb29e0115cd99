"""What a run's records say: its losses, gradients, samples, and the one figure that is judged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

Record = Mapping[str, Any]

BEATS = 0.01
"""Share of a trivial value by which it must be beaten, and more than the figure's standard error."""

EARLY_STEPS = 100
"""Steps below which a figure says little about the idea behind it."""

OWN_FIGURES: Mapping[str, str] = {
    "reconstruction_nats_per_token": "nats/token of reconstruction",
    "hidden_nats_per_token": "nats/token of hidden tokens",
    "matching_nats": "nats of matching",
    "thought_nats_per_token": "nats/token of a noisy thought",
}
"""Figures of objectives that give text no likelihood, with their units; such a run is judged by its own alone."""

OTHER_TASKS = ("likelihood", "exact-likelihood", "answers", "judged", "steps", "reconstruction", "concepts")
"""Tasks of `remask evaluate` whose figures say nothing of how samples look."""

RIGHT = ("answers_right", "accuracy_strict")
"""Figures of drawn answers: the share that is right."""

SPOKEN = {
    "uniform": "a uniform guess",
    "unigram": "the token unigram",
    "byte 1-gram": "the byte unigram",
    "byte 2-gram": "the byte bigram",
    "byte 3-gram": "the byte trigram",
    "random guess": "a random guess",
    "equal guess": "an equal guess",
    "words in common": "words in common",
    "zero": "predicting zero",
    "linear filter": "the linear filter",
}
"""Trivial predictors in words; others are `the NAME`."""


COMMON = "words in common"
FLOORS = ("unigram", "byte 1-gram", "equal guess", COMMON)
"""What is reached without any context, or by words that two texts share: who does not beat it has not learned."""

_IGNORES = (
    "a network that ignores its input (cut attention, everything masked), or too low a learning rate",
    "overfitting one batch; if that works, more steps or a higher learning rate",
)
_SHARED = (
    "texts are told apart by the words that they share alone",
    "views that share fewer words (objective.views=halves, or a larger objective.share), or more steps",
)


def cause_and_remedy(floor: str) -> tuple[str, str]:
    """Why a figure is usually no better than a trivial predictor, and what to try."""
    return _SHARED if floor == COMMON else _IGNORES


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The number that is judged, and what trivial predictors get in the same unit."""

    value: float
    stderr: float
    unit: str
    source: str
    trivial: Mapping[str, float]
    is_likelihood: bool = True

    def __str__(self) -> str:
        return f"{self.value:.2f} {self.unit}{' on training text' if self.source == 'train' else ''}"

    def beats(self, name: str) -> bool:
        """Whether the figure lies below a trivial value by more than 1 % of it and the figure's error."""
        reference = self.trivial[name]
        return self.value < reference - max(BEATS * reference, self.stderr)

    def named(self, name: str) -> str:
        """A trivial predictor in words, with its value."""
        return f"{SPOKEN.get(name, f'the {name}')} ({self.trivial[name]:.2f})"

    def floor(self) -> str | None:
        """The least of the `FLOORS` that are there."""
        present = [name for name in FLOORS if name in self.trivial]
        return min(present, key=self.trivial.__getitem__, default=None)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The records of a run, sorted by what they say; a number that was not finite is nan.

    `comparable` says whether training losses compare over steps. One without bits per byte estimates no likelihood (a
    curriculum, a reweighting): it may rise while the model learns, and only the validations tell. `alarms` are the
    lines that the watch over the training wrote. `skills` are the skills of training lines, by range of noise,
    where a network denoises vectors; `levels` are the figures of the last thought evaluation that have a range of time,
    and `loss_trivial` what predictors that have learned nothing get for the training loss. `concepts` are effective
    rank and varying share at the last validation. `unmeasured` says that the newest evaluation of the likelihood came
    to no finite number; `answers_right` that answers were drawn, and more were right than any trivial predictor's.
    """

    losses: Sequence[tuple[int, float]]
    comparable: bool
    gradients: Sequence[tuple[int, float]]
    rates: Sequence[tuple[int, float]]
    validations: Sequence[tuple[int, float]]
    sample: str | None
    quality: Mapping[str, Record]
    uniform_nats: float | None
    figure: Figure | None
    alarms: Sequence[Record] = ()
    skills: Sequence[Mapping[str, float]] = ()
    levels: Sequence[Record] = ()
    loss_trivial: Mapping[str, float] = field(default_factory=dict)
    concepts: Mapping[str, float] = field(default_factory=dict)
    unmeasured: bool = False
    answers_right: bool = False

    @property
    def last_step(self) -> int:
        """The last recorded training step, 0 where there is none."""
        return self.losses[-1][0] if self.losses else 0

    @property
    def is_early(self) -> bool:
        """Whether the run has hardly begun, or its learning rate still rises."""
        rates = [rate for _, rate in self.rates]
        warming_up = len(rates) > 1 and rates[-1] > rates[-2] and rates[-1] == max(rates)
        return self.last_step < EARLY_STEPS or warming_up

    @property
    def beats_unigrams(self) -> bool:
        """Whether the figure shows that the network uses any context."""
        floor = self.figure.floor() if self.figure else None
        return self.figure is not None and floor is not None and self.figure.beats(floor)


def gather(metrics: Sequence[Record], evaluations: Sequence[Record]) -> Evidence:
    """Sorts metric and evaluation records, each oldest first."""
    trivial = next((r for r in reversed(metrics) if r.get("kind") == "trivial"), {})
    own = own_figure(trivial)
    uniform = number((trivial.get(own or "nats_per_token") or {}).get("uniform"))
    texts = [r.get("text") for r in metrics if r.get("kind") == "sample"]
    metrics = [r for r in metrics if not _only_skipped(r)]
    return Evidence(
        losses=_series(metrics, "train", "loss"),
        comparable=all("bits_per_byte" in r for r in metrics if r.get("kind") == "train"),
        gradients=_series(metrics, "train", "gradient_norm"),
        rates=_series(metrics, "train", "learning_rate"),
        validations=_series(metrics, "validation", own or "bits_per_byte"),
        sample=texts[-1] if texts else None,
        quality={str(r.get("name")): r for r in evaluations if r.get("task") not in OTHER_TASKS},
        uniform_nats=None if math.isnan(uniform) else uniform,
        figure=_figure(metrics, evaluations, trivial),
        alarms=[r for r in metrics if r.get("kind") == "alarm"],
        skills=[_skills(r) for r in metrics if r.get("kind") == "train" and "worst_skill" in r],
        levels=_levels(evaluations),
        loss_trivial={k: v for k, each in (trivial.get("loss") or {}).items() if not math.isnan(v := number(each))},
        concepts=next((_concepts(r) for r in reversed(metrics) if "effective_rank" in r), {}),
        answers_right=any(_beats_all(r) for name in RIGHT for r in _named(evaluations, name)),
        unmeasured=any(math.isnan(number(r.get("value"))) for r in _named(evaluations, own or "bits_per_byte")[-1:]),
    )


def own_figure(trivial: Record) -> str | None:
    """The figure that a run is judged by where it gives text no likelihood, from its line of trivial values."""
    return next((name for name in OWN_FIGURES if name in trivial), None)


def _named(evaluations: Sequence[Record], name: str) -> list[Record]:
    return [r for r in evaluations if r.get("name") == name]


def _beats_all(record: Record) -> bool:
    """Whether a share of right answers lies above all that stands beside it by more than two standard errors."""
    value, stderr = number(record.get("value")), number(record.get("stderr"))
    beside = [number(each) for each in (record.get("trivial") or {}).values()]
    return bool(beside) and all(value - 2 * stderr > each for each in beside)  # never above what is not known


def _only_skipped(record: Record) -> bool:
    """Whether a training line has no figures because each of its steps was skipped, as the recipe asked."""
    return bool(record.get("skipped_steps")) and math.isnan(number(record.get("loss")))


def _figure(metrics: Sequence[Record], evaluations: Sequence[Record], trivial: Record) -> Figure | None:
    own = own_figure(trivial)
    units = {own: OWN_FIGURES[own]} if own else {"bits_per_byte": "bits/byte", "nats_per_token": "nats/token"}
    for source in ("evaluation", "validation") if own else ("evaluation", "validation", "train"):
        for name, unit in units.items():
            value, stderr, beside = _last_value(metrics, evaluations, source, name)
            if not math.isnan(value):
                known = {k: number(v) for k, v in {**(trivial.get(name) or {}), **beside}.items()}
                return Figure(
                    value=value,
                    stderr=0.0 if math.isnan(stderr) else stderr,
                    unit=unit,
                    source=source,
                    trivial={k: v for k, v in known.items() if not math.isnan(v)},
                    is_likelihood=own is None,
                )
    return None


def _last_value(
    metrics: Sequence[Record], evaluations: Sequence[Record], source: str, name: str
) -> tuple[float, float, Mapping[str, Any]]:
    """The newest figure of a source, its standard error, and trivial values that came with it."""
    if source == "evaluation":
        found = _named(evaluations, name)
        record = found[-1] if found else {}
        return number(record.get("value")), number(record.get("stderr")), record.get("trivial") or {}
    key = "loss" if source == "train" and name == "nats_per_token" else name
    found = [r for r in metrics if r.get("kind") == source and not math.isnan(number(r.get(key)))]
    if not found:
        return math.nan, math.nan, {}
    if source == "train":  # single steps are noisy
        return fmean(number(r[key]) for r in found[-max(1, len(found) // 10) :]), math.nan, {}
    stderr = number(found[-1].get("stderr")) if name != "nats_per_token" else math.nan
    return number(found[-1][key]), stderr, {}


_ROWS_FOR_RANK = 4
"""Of fewer rows independent noise has an effective rank of 2 or less."""


def _concepts(record: Record) -> dict[str, float]:
    """What a validation line says of concept vectors; nothing where even noise would have collapsed (rank < rows)."""
    if number(record.get("rows", _ROWS_FOR_RANK)) < _ROWS_FOR_RANK:
        return {}
    return {key: number(record.get(key)) for key in ("effective_rank", "input_share")}


def _levels(evaluations: Sequence[Record]) -> list[Record]:
    """The figures of the last thought evaluation that are given for ranges of time."""
    own = [r for r in evaluations if r.get("task") == "thought"]
    key = "evaluation" if own and own[-1].get("evaluation") is not None else "created"
    return [r for r in own if r.get(key) == own[-1].get(key) and "t_low" in (r.get("protocol") or {})]


def _skills(record: Record) -> dict[str, float]:
    """Range of noise, `t0` the cleanest, → skill, from the `skill_t0` … of a training line."""
    return {key.removeprefix("skill_"): number(value) for key, value in record.items() if key.startswith("skill_t")}


def _series(records: Sequence[Record], kind: str, key: str) -> list[tuple[int, float]]:
    return [(int(r.get("step", 0)), number(r[key])) for r in records if r.get("kind") == kind and key in r]


def number(value: Any) -> float:
    """A finite number as it is; anything else (null, NaN, infinity, missing) as nan."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else math.nan
