"""Two recipes at equal cost: the second is trained for as many steps as the first one's operations or time allow.

What a step costs is measured by short trainings: operations by counting them, time by the clock between two lines of
the log, so that starting up and judging do not count.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from remask.config.load import load_recipe
from remask.config.schema import Recipe
from remask.errors import RunError, UserError
from remask.laboratory.ablations import LIKELIHOOD, arm_name, compared, failures
from remask.laboratory.results import kept_runs
from remask.laboratory.study import Metric, Study, Trial, new_facts
from remask.runs import Registry, RunFolder

if TYPE_CHECKING:
    from remask.runs import RunRecord

ROUNDS = 2
"""Short trainings of each recipe that time is measured by, in turns."""
TIMED_STEPS = 48
"""Steps of each; the first quarter does not count."""
COUNTED_STEPS = 2
"""Steps of the short training that counts operations and tokens."""
CLOSE = 0.05
"""Share by which the achieved cost may miss before it is said."""
_EVERY = ("evaluate_every", "sample_every", "checkpoint_every")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One recipe of the pair.

    Attributes:
        arm: its name in the study.
        recipe: with all keys changed.
        source: the YAML text it starts from.
        overrides: its changed keys.
    """

    arm: str
    recipe: Recipe
    source: str
    overrides: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its recipe's name in the study's folder."""
        return f"recipe-{self.arm}.yaml"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A way to say what a step costs.

    Attributes:
        words: of what is equal.
        rounds: short trainings of each recipe.
        steps: of each.
        of_step: a short training's record and log → the cost of one step; None where it was not measured.
        of_run: a finished run's record → its whole cost.
    """

    words: str
    rounds: int
    steps: int
    of_step: Callable[["RunRecord", RunFolder], float | None]
    of_run: Callable[["RunRecord"], float | None]


def _flops_of_step(record: "RunRecord", folder: RunFolder) -> float | None:
    del folder
    if record.flops_per_token is None or not record.step:
        return None
    return record.flops_per_token * record.tokens_seen / record.step


def _seconds_of_step(record: "RunRecord", folder: RunFolder) -> float | None:
    """Time between the first and the last line of the log, over the steps between them."""
    del record
    lines = [line for line in folder.metrics() if line.get("kind") == "train"]
    if len(lines) < 2:
        return None
    first, last = lines[0], lines[-1]
    return (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])


COSTS: Mapping[str, Cost] = {
    "flops": Cost(
        words="training FLOPs",
        rounds=1,
        steps=COUNTED_STEPS,
        of_step=_flops_of_step,
        of_run=lambda record: record.flops,
    ),
    "time": Cost(
        words="training time",
        rounds=ROUNDS,
        steps=TIMED_STEPS,
        of_step=_seconds_of_step,
        of_run=lambda record: record.seconds,
    ),
}
"""What two trainings can be equal in."""


def new_matched(
    home: Path,
    name: str,
    *,
    sides: tuple[Side, Side],
    by: str,
    seeds: Sequence[int],
    metric: Metric = LIKELIHOOD,
    **more: Any,
) -> Study:
    """Makes the folder of a matched pair, with the short trainings that measure it.

    Args:
        home: of runs.
        name: of the study.
        sides: the recipe that sets the cost, and the one whose steps follow.
        by: of `COSTS`.
        seeds: both are trained with each of them.
        metric: what they are compared by.
        **more: further facts.

    Raises:
        UserError: the name is taken.
    """
    first, second = sides
    facts = new_facts(
        kind="matched",
        title=f"{first.arm} and {second.arm} at equal {COSTS[by].words}",
        recipe=first.arm,
        metric=metric,
        by=by,
        seeds=list(seeds),
        sides=[{"arm": side.arm, "recipe": side.file, "overrides": list(side.overrides)} for side in sides],
        **more,
    )
    recipes = {side.file: side.source for side in sides}
    trials = list(_calibrations(sides, COSTS[by], seed=seeds[0]))
    return Study.create(home, name, recipes=recipes, trials=trials, **facts)


def both_sides(
    first: tuple[Recipe, str, Sequence[str]], second: tuple[Recipe, str, Sequence[str]]
) -> tuple[Side, Side]:
    """The two sides with names that tell them apart.

    Args:
        first: recipe, its YAML text, and its changed keys.
        second: the other's.
    """
    names = [recipe.name for recipe, _, _ in (first, second)]
    if names[0] == names[1]:
        own = [[word for word in each[2] if word not in other[2]] for each, other in ((first, second), (second, first))]
        names = [arm_name(name, changes) for name, changes in zip(names, own, strict=True)]
    if names[0] == names[1]:
        names = [f"{names[0][:62]}-a", f"{names[1][:62]}-b"]
    a, b = (
        Side(arm=name, recipe=recipe, source=source, overrides=tuple(overrides))
        for name, (recipe, source, overrides) in zip(names, (first, second), strict=True)
    )
    return a, b


class Matching:
    """The trials of a matched pair: the short ones, and behind them the pair itself when they have told its steps.

    Args:
        study: of kind matched.
    """

    def __init__(self, study: Study) -> None:
        self._study = study

    def following(self) -> Trial | None:
        """The first that waits; once the short trainings have ended, those of the pair."""
        study = self._study
        if all(trial.calibration for trial in study.trials) and not _unended(study):
            study.add(list(_pair(study, steps=matched_steps(study, Registry(study.home)))))
        return next((trial for trial in study.trials if trial.state == "waiting"), None)

    def reported(self, trial: Trial, step: int, value: float) -> bool:
        """No trial is given up."""
        del trial, step, value
        return False

    def told(self, trial: Trial) -> None:
        """Nobody to tell."""


def matched_steps(study: Study, registry: Registry) -> tuple[int, int]:
    """Steps of both recipes for equal cost; the first keeps its own.

    Raises:
        RunError: a short training failed or measured nothing, or the second recipe cannot afford one step.
    """
    cost = COSTS[study.facts["by"]]
    first, second = study.facts["sides"]
    per_step = [_measured(study, registry, side["arm"], cost) for side in (first, second)]
    steps = load_recipe(str(study.path / first["recipe"]), first["overrides"]).training.steps
    others = round(steps * per_step[0] / per_step[1])
    if others < 1:
        raise RunError(
            f"{second['arm']} cannot make one step at the cost of {steps} steps of {first['arm']}: give the first more "
            "training.steps"
        )
    return steps, others


def conclude_matched(study: Study, registry: Registry) -> dict[str, Any]:
    """How equal the pair became, in what, and how it compares."""
    comparison, said = compared(study, registry)
    cost = COSTS[study.facts["by"]]
    arms = [side["arm"] for side in study.facts["sides"]]
    runs = {arm: list(kept_runs(registry, _finished(study, arm)).values()) for arm in arms}
    if not all(runs.values()):
        return {"comparison": comparison, "says": [*said, *failures(study)]}
    rows = [_row(arm, runs[arm], analytic=_analytic(registry, runs[arm][0])) for arm in arms]
    ratios = {name: _ratio(rows[1][key], rows[0][key]) for name, key in _RATIOS.items()}
    says = [_achieved(arms, rows, ratios, cost), *said, *failures(study)]
    matched = {
        "by": study.facts["by"],
        "arms": arms,
        "steps": [row["steps"] for row in rows],
        "ratios": ratios,
        "rows": rows,
    }
    return {"comparison": comparison, "matched": matched, "says": says}


_RATIOS = {
    "flops": "flops",
    "seconds": "seconds",
    "parameters": "parameters",
    "active_parameters": "active_parameters",
    "tokens": "tokens_seen",
}


def _calibrations(sides: Sequence[Side], cost: Cost, *, seed: int) -> Iterator[Trial]:
    """Short trainings in turns; nothing but steps within the time that is measured."""
    for number in range(len(sides) * cost.rounds):
        side = sides[number % len(sides)]
        short = (
            *(f"training.steps={cost.steps}", f"training.log_every={max(1, cost.steps // 4)}", f"seed={seed}"),
            *(f"training.{key}={cost.steps}" for key in _EVERY),
            f"name={arm_name(side.arm, ['calibration='])}",
        )
        yield Trial(
            number=number,
            arm=side.arm,
            recipe=side.file,
            overrides=(*side.overrides, *short),
            seed=seed,
            calibration=True,
        )


def _pair(study: Study, *, steps: tuple[int, int]) -> Iterator[Trial]:
    """Both recipes with each seed in turns; the second is judged and sampled as often as the first."""
    number = len(study.trials)
    for seed in study.facts["seeds"]:
        for side, own in zip(study.facts["sides"], steps, strict=True):
            every = load_recipe(str(study.path / side["recipe"]), side["overrides"]).training
            scaled = [f"training.{key}={max(1, round(getattr(every, key) * own / every.steps))}" for key in _EVERY]
            extra = () if own == every.steps else (f"training.steps={own}", *scaled)
            yield Trial(
                number=number,
                arm=side["arm"],
                recipe=side["recipe"],
                overrides=(*side["overrides"], *extra, f"seed={seed}", f"name={side['arm']}"),
                values={"training.steps": own},
                seed=seed,
            )
            number += 1


def _unended(study: Study) -> bool:
    return any(trial.state in ("waiting", "running") for trial in study.trials)


def _measured(study: Study, registry: Registry, arm: str, cost: Cost) -> float:
    found = []
    for trial in study.trials:
        if trial.arm != arm or not trial.calibration:
            continue
        if trial.state == "failed":
            raise RunError(f"{arm} cannot be measured: its short training failed: {trial.error}")
        record = kept_runs(registry, [trial]).get(trial.run or "")
        if record is None:
            raise RunError(f"{arm} cannot be measured: the run {trial.run} of its short training was removed")
        value = cost.of_step(record, registry.folder_of(record))
        if not value:
            raise RunError(f"the {cost.words} of {arm} could not be measured by run {trial.run}: match them --by time")
        found.append(value)
    return median(found)


def _finished(study: Study, arm: str) -> list[Trial]:
    return [t for t in study.trials if t.arm == arm and t.state == "finished" and not t.calibration]


def _row(arm: str, runs: Sequence["RunRecord"], *, analytic: float | None) -> dict[str, Any]:
    """An arm's costs: means over its runs, and its operations a token as counted and as a formula has them."""
    return {
        "arm": arm,
        "steps": runs[0].step,
        **{
            name: _mean([getattr(run, name) for run in runs])
            for name in ("parameters", "active_parameters", "tokens_seen", "flops", "seconds")
        },
        "flops_per_token_measured": _mean([run.flops_per_token for run in runs]),
        "flops_per_token_analytic": analytic,
    }


def _analytic(registry: Registry, run: "RunRecord") -> float | None:
    """Operations a token by the closed form, of the run's finished model and a row of its text."""
    import torch

    from remask.config.build import build_rows, build_text_for
    from remask.config.saved import load_model
    from remask.data.cache import cache_home
    from remask.evaluation.likelihood import evaluation_batches
    from remask.flops import analytic_flops

    folder = registry.folder_of(run)
    recipe = load_recipe(str(folder.recipe_path))
    try:
        model, _ = load_model(folder.model_path, device=torch.device("cpu"))
        text = build_text_for(recipe, model.tokenizer, cache=cache_home())
    except UserError:
        return None
    rows = build_rows(recipe.data, text.stores["validation"])
    return analytic_flops(model, next(evaluation_batches(rows, limit=recipe.training.evaluate_rows)))


def _achieved(
    arms: Sequence[str], rows: Sequence[Mapping[str, Any]], ratios: Mapping[str, float | None], cost: Cost
) -> str:
    first, second = arms
    said = f"{second} was trained {rows[1]['steps']} steps, {first} {rows[0]['steps']}, for equal {cost.words}; "
    parts = [f"{_times(ratios[name])} the {word}" for name, word in _SPOKEN.items()]
    said += f"{second} had {', '.join(parts[:-1])} and {parts[-1]}"
    achieved = ratios["flops" if cost is COSTS["flops"] else "seconds"]
    if achieved is None or abs(achieved - 1) > CLOSE:
        said += f". In {cost.words} they are not equal: read the verdict with that in mind"
    return said


_SPOKEN = {
    "flops": "FLOPs",
    "seconds": "seconds",
    "tokens": "tokens",
    "parameters": "parameters",
    "active_parameters": "active parameters",
}


def _times(ratio: float | None) -> str:
    return "an unknown share of" if ratio is None else f"{ratio:.3g} times"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known and len(known) == len(values) else None


def _ratio(second: float | None, first: float | None) -> float | None:
    return None if second is None or not first else second / first
