"""What the trainings of a study are judged by: options that sweeps and ablations share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option
from remask.cli.reasoning import OPTIONS as OF_REASONING
from remask.errors import UserError
from remask.reasoning_tasks.names import REASONING_TASKS

if TYPE_CHECKING:
    from remask.config.schema import Recipe
    from remask.laboratory.study import Metric

OPTIONS: dict[str, Any] = {
    "evaluate": Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="Rank by this task of remask evaluate: likelihood, answers, reconstruction, or one of reasoning, such "
            "as arithmetic [default: sweeps: the last validation in training; ablations: likelihood].",
        ),
    ],
    "metric": Annotated[
        str | None,
        typer.Option(
            help="The figure that ranks [default: bits_per_byte; answers: answers_right; reasoning: accuracy_strict]."
        ),
    ],
    "reasoning": OF_REASONING["reasoning"],
    "reasoning_limit": OF_REASONING["reasoning_limit"],
}
with_judging = option.with_options("judging", OPTIONS)
"""Gives a command these options, as its argument `judging`, for `judged_by`."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What trainings are judged by.

    Attributes:
        metric: the figure.
        evaluating: what `remask evaluate` is given behind a run; nothing where training has the figure.
        typed: the options as they may be typed again.
    """

    metric: "Metric"
    evaluating: tuple[str, ...]
    typed: tuple[str, ...]


def judged_by(judging: Mapping[str, Any], *recipes: "Recipe", usual: str | None) -> Judged:
    """What the options say, checked against the recipes that are trained.

    Args:
        judging: values of `OPTIONS`.
        recipes: that are trained.
        usual: the task where none is named; None: the last validation in training.

    Raises:
        UserError: a task or a figure is unknown or is none of the recipes', or an option is read by no task.
    """
    from remask.laboratory.results import read_metric

    task = judging["evaluate"] or usual
    metric = read_metric(judging["metric"], task=task)
    for recipe in recipes:
        refuse_missing(metric, recipe)
    given = {"--evaluate": judging["evaluate"], "--metric": judging["metric"]}
    more = {"--reasoning": judging["reasoning"], "--reasoning-limit": judging["reasoning_limit"]}
    if task not in REASONING_TASKS and any(value is not None for value in more.values()):
        flag = next(name for name, value in more.items() if value is not None)
        raise UserError(f"{flag} is read by reasoning tasks alone: give --evaluate arithmetic, or another of them")
    split = ["--split", "validation"] if task is not None and has_validation(task, judging["reasoning"]) else []
    return Judged(
        metric=metric,
        evaluating=() if task is None else ("--task", task, *split, *_words(more)),
        typed=_words({**given, **more}),
    )


def has_validation(task: str, place: str | None) -> bool:
    """Whether a task of reasoning has questions that are there to choose by, apart from those for the end.

    Args:
        task: any.
        place: of its files; None where they are made.

    Raises:
        UserError: its files are not there.
    """
    if task not in REASONING_TASKS:
        return False  # judged on the split that the recipe names
    from remask.data.cache import cache_home
    from remask.reasoning_tasks.exams import open_splits
    from remask.reasoning_tasks.tasks import reasoning_task

    known = reasoning_task(task)
    if place is None and known.made is not None:
        return True
    return "validation" in open_splits(known, place=place, cache=cache_home())


def refuse_missing(metric: "Metric", recipe: "Recipe") -> None:
    """Refuses to rank trials by a likelihood that their models do not have.

    Raises:
        UserError: naming the figure that they have.
    """
    from remask.config.words import own_figure_of
    from remask.laboratory.results import OF_ANSWERS

    own = own_figure_of(recipe)
    if own is None or metric.name == own or metric.task in OF_ANSWERS:
        return
    instead = f"give --metric {own}" if metric.task is None else f"give --evaluate reconstruction --metric {own}"
    thinks = recipe.process is not None and recipe.process.kind == "gaussian"
    answers = ", or --evaluate arithmetic or another task with answers" if thinks else ""
    raise UserError(
        f"--metric {metric.name}: objective {recipe.objective.kind} gives text no likelihood; {instead}{answers}"
    )


def _words(options: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(word) for name, value in options.items() if value is not None for word in (name, value))
