"""What a trial's run shows: its validations as they come, and the figure that it is judged by."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from remask.comparison.directions import better
from remask.errors import UserError, did_you_mean
from remask.health.evidence import OWN_FIGURES
from remask.laboratory.study import COSTS, Metric, Trial
from remask.reasoning_tasks.names import REASONING_TASKS
from remask.runs import Registry, RunFolder, RunRecord

IN_TRAINING: Mapping[str, str] = {
    "bits_per_byte": "bits/byte",
    "nats_per_token": "nats/token",
    **OWN_FIGURES,
}
"""Figures of validations in training, with their units; for all, lower is better."""

RANKING: Mapping[str, tuple[str, ...]] = {
    "likelihood": ("bits_per_byte", "nats_per_token", "perplexity"),
    "exact-likelihood": ("exact_bits_per_byte", "exact_nats_per_token", "exact_perplexity"),
    "answers": ("answers_right", "answers_equal"),
    "reconstruction": tuple(OWN_FIGURES),
    **dict.fromkeys(REASONING_TASKS, ("accuracy_strict", "accuracy_flexible", "answers_equal")),
}
"""Tasks of `remask evaluate` with the figures that rank models; of others, neither more nor less is better."""
OF_ANSWERS = frozenset({"answers", *REASONING_TASKS})
"""Those that ask for answers, which every model that answers prompts has."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The figure of a finished trial.

    Attributes:
        value: None where it is missing or not finite.
        stderr: its standard error.
        n: examples behind it.
        trivial: what trivial predictors get.
        unit: of all of them.
    """

    value: float | None
    stderr: float | None = None
    n: int | None = None
    trivial: Mapping[str, float] = field(default_factory=dict)
    unit: str = ""


def read_metric(name: str | None, *, task: str | None) -> Metric:
    """The metric that a user names.

    Args:
        name: None for the task's first.
        task: of `remask evaluate`; None: the figure of the last validation in training.

    Raises:
        UserError: the task ranks no models, or has no such figure that does.
    """
    if task is None:
        name = name or "bits_per_byte"
        if name not in IN_TRAINING:
            raise UserError(
                f"--metric {name}: of validations in training, {did_you_mean(name, IN_TRAINING)} "
                "For another figure give its task with --evaluate"
            )
        return Metric(name=name, task=None, better="lower", unit=IN_TRAINING[name])
    if task not in RANKING:
        raise UserError(f"--evaluate {task}: no trials can be ranked by that; {did_you_mean(task, RANKING)}")
    name = name or RANKING[task][0]
    if name not in RANKING[task]:
        raise UserError(f"--metric {name}: to rank trials by task {task}, {did_you_mean(name, RANKING[task])}")
    way = better(name)
    assert way is not None, "what ranks has a direction"
    return Metric(name=name, task=task, better=way, unit="")


def in_training(folder: RunFolder, metric: Metric) -> str:
    """The name of the figure that validations in training have: the metric's, or for a task the run's own."""
    if metric.task is None:
        return metric.name
    line = next((line for line in folder.metrics() if line.get("kind") == "validation"), {})
    return next((name for name in IN_TRAINING if name in line), "bits_per_byte")


def training_curve(folder: RunFolder, metric: Metric) -> tuple[str, list[tuple[int, float | None]]]:
    """The unit and (step, figure) of each validation so far: of the metric, or of what training has in its place."""
    name = in_training(folder, metric)
    return IN_TRAINING[name], validations(folder, name)


def validations(folder: RunFolder, name: str) -> list[tuple[int, float | None]]:
    """(step, figure) of each validation so far; None where the figure was not finite."""
    return [(line["step"], line.get(name)) for line in folder.metrics() if line.get("kind") == "validation"]


def figure_in_training(folder: RunFolder, metric: Metric) -> Figure:
    """The figure of the last validation, beside what trivial predictors get on the same rows."""
    lines, name = folder.metrics(), in_training(folder, metric)
    last = next((line for line in reversed(lines) if line.get("kind") == "validation"), None)
    if last is None:
        return Figure(value=None, unit=IN_TRAINING[name])
    trivial = next((line.get(name, {}) for line in lines if line.get("kind") == "trivial"), {})
    error = last.get("stderr") if name != "nats_per_token" else None
    return Figure(
        value=_finite(last.get(name)), stderr=error, n=last.get("rows"), trivial=trivial, unit=IN_TRAINING[name]
    )


def figure_of_task(registry: Registry, run: str, metric: Metric) -> Figure | None:
    """The figure of the newest evaluation of the metric's task; None where the task was not carried out.

    Of answers that were given in several ways it is that of the first: of a thought, that of the drawn row.

    Raises:
        UserError: it was, and has no such figure.
    """
    rows = [row for row in registry.evaluations(run) if row["task"] == metric.task]
    if not rows:
        return None
    named = [row for row in rows if row["name"] == metric.name]
    if not named:
        hint = did_you_mean(metric.name, {row["name"] for row in rows})
        raise UserError(f"task {metric.task} has no figure {metric.name}; {hint}")
    row = next(row for row in named if _evaluation(row) == _evaluation(named[-1]))
    return Figure(
        value=_finite(row["value"]), stderr=row["stderr"], n=row["n"], trivial=row["trivial"], unit=row["unit"]
    )


def _evaluation(row: Mapping[str, Any]) -> str:
    """What the figures of one evaluation share."""
    return row.get("evaluation") or row["created"]


def kept_runs(registry: Registry, trials: Iterable[Trial]) -> dict[str, RunRecord]:
    """The records of the trials' runs by id, in the trials' order, without those that were removed."""
    records = {record.id: record for record in registry.list()}
    return {trial.run: records[trial.run] for trial in trials if trial.run in records}


def costs_of(record: RunRecord) -> dict[str, Any]:
    """The costs of a run as its record has them."""
    return {name: getattr(record, name) for name in COSTS}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
