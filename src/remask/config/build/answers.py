"""What makes an answer right, from a recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from remask.config import schema
from remask.data.tasks import TASKS, Checker
from remask.data.tasks.written import is_equal, is_equal_behind_mark


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How answers are judged.

    Attributes:
        name: as in `evaluation.checker`.
        right: whether a response is right.
        guess: a response by someone who knows only the form of one; None where a form is not known.
    """

    name: str
    right: Checker
    guess: Callable[[str, Random], str] | None = None


def build_judging(recipe: schema.Recipe) -> Judging:
    """The checker that a recipe names; by default the source's own, or equal text."""
    source = recipe.data.source
    name = recipe.evaluation.checker or (source if source in TASKS else "exact")
    if name in TASKS:
        return Judging(name=name, right=TASKS[name].right, guess=TASKS[name].guess)
    return Judging(name=name, right={"exact": is_equal, "marked": is_equal_behind_mark}[name])
