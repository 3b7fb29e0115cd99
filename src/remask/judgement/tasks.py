"""What `remask evaluate` can do: each task's check, which costs nothing, and its measuring."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from remask.config.schema import Recipe
from remask.errors import UserError
from remask.evaluation.mauve import check_installed
from remask.evaluation.measurement import Measurement
from remask.judgement.answers import check_answers, judge_answers
from remask.judgement.concepts import Comparator, ConceptTask
from remask.judgement.exact import ExactTask
from remask.judgement.levels import check_levels, judge_levels
from remask.judgement.likelihood import judge_likelihood
from remask.judgement.readers import Reader
from remask.judgement.reconstruction import (
    check_draws,
    check_likelihood,
    check_reconstruction,
    judge_reconstruction,
)
from remask.judgement.samples import Yardstick, check_samples, draw_for_judging, open_yardstick
from remask.judgement.text import JudgedText
from remask.judgement.thoughts import check_thoughts, judge_thoughts
from remask.model import Model

Check = Callable[[Model, Recipe, JudgedText], None]
Measure = Callable[[Model, Recipe, JudgedText], list[Measurement]]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing to measure.

    Attributes:
        check: raises UserError where the model or its text is not of the kind that the task is for.
        measure: the figures.
    """

    check: Check
    measure: Measure


def tasks(
    *,
    levels: int,
    judge: Reader | None,
    features: Reader | None,
    reveal: str | None,
    none: Comparator | None = None,
    full: Comparator | None = None,
) -> Mapping[str, Task]:
    """All tasks by name.

    Args:
        levels: of noise, for `levels` and `thought`.
        judge: for `judged`.
        features: for `mauve`.
        reveal: the order of revealing, for `exact-likelihood`; None for each recipe's own.
        none: a run that is shown no context, for `concepts`.
        full: a run that attends to all context, for `concepts`.
    """
    exact = ExactTask(reveal=reveal)
    concepts = ConceptTask(none=none, full=full)
    samples = _Samples(judge=judge, features=features)
    of_likelihoods = {
        "likelihood": Task(check=_any_model, measure=judge_likelihood),
        "exact-likelihood": Task(check=exact.check, measure=exact.measure),
        "levels": Task(check=check_levels, measure=partial(judge_levels, levels=levels)),
    }
    of_samples = {
        "quality": Task(check=check_samples, measure=samples.quality),
        "answers": Task(check=check_answers, measure=judge_answers),
        "judged": Task(check=check_samples, measure=samples.judged),
        "mauve": Task(check=_check_mauve, measure=samples.mauve),
    }
    return {
        **{name: replace(task, check=_behind(check_likelihood, task.check)) for name, task in of_likelihoods.items()},
        **{name: replace(task, check=_behind(check_draws, task.check)) for name, task in of_samples.items()},
        "concepts": Task(check=concepts.check, measure=concepts.measure),
        "thought": Task(check=check_thoughts, measure=partial(judge_thoughts, levels=levels)),
        "reconstruction": Task(check=check_reconstruction, measure=judge_reconstruction),
    }


@dataclass(kw_only=True)
class _Samples:
    """The tasks on samples: those that want equally many draw them once.

    Attributes:
        judge: for `judged`.
        features: for `mauve`.
    """

    judge: Reader | None
    features: Reader | None
    _drawn: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)

    def quality(self, model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
        bench = self._yardstick(model, recipe, text)
        return bench.quality(self._ids(model, recipe, bench), recipe)

    def judged(self, model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
        bench = self._yardstick(model, recipe, text)
        return bench.judged(self._ids(model, recipe, bench), recipe)

    def mauve(self, model: Model, recipe: Recipe, text: JudgedText) -> list[Measurement]:
        bench = self._yardstick(model, recipe, text)
        return bench.mauve(self._ids(model, recipe, bench), recipe)

    def _ids(self, model: Model, recipe: Recipe, bench: Yardstick) -> npt.NDArray[np.int64]:
        count = recipe.sampling.count
        if count not in self._drawn:
            self._drawn[count] = draw_for_judging(model, recipe, bench)
        return self._drawn[count]

    def _yardstick(self, model: Model, recipe: Recipe, text: JudgedText) -> Yardstick:
        return open_yardstick(model, recipe, text, judge=self.judge, features=self.features)


def _behind(first: Callable[[Model, Recipe], None], check: Check) -> Check:
    """A check that first refuses a model of the wrong kind."""

    def both(model: Model, recipe: Recipe, text: JudgedText) -> None:
        first(model, recipe)
        check(model, recipe, text)

    return both


def _any_model(model: Model, recipe: Recipe, text: JudgedText) -> None:
    del model, recipe, text


def _check_mauve(model: Model, recipe: Recipe, text: JudgedText) -> None:
    check_installed()
    check_samples(model, recipe, text)
    if recipe.data.prefix:
        raise UserError("MAUVE compares samples from nothing, and this model goes on from given tokens: --task judged")
