"""`remask sweep`: one recipe, many values of some of its keys."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option
from remask.cli import studies
from remask.cli.judging import judged_by, with_judging

if TYPE_CHECKING:
    from collections.abc import Mapping

    from remask.laboratory.study import Study


@with_judging
@studies.with_place
def sweep(
    arguments: option.RecipeWords = None,
    over: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=…", help="A key to vary: KEY=a,b,c or KEY=LOW..HIGH[:log]; may be given again."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="grid: all combinations of lists [default]; random; tpe: learns from trials.")
    ] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="random, tpe: how many trainings.")] = None,
    jobs: studies.Jobs = None,
    prune: Annotated[
        str | None, typer.Option(help="Stop hopeless trainings: median, halving, or none [default].")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the search; that of the trainings is the recipe's.")] = 0,
    name: studies.Name = None,
    resume: studies.Resume = None,
    retry: studies.Retry = False,
    as_json: option.AsJson = False,
    html: studies.Html = None,
    *,
    place: "Mapping[str, Any]",
    judging: "Mapping[str, Any]",
) -> None:
    """Train a recipe with many values of some keys, and rank them; a killed sweep goes on with --resume."""
    from remask.laboratory.search import require_optuna

    require_optuna()
    if resume is not None:
        given = {
            **{"RECIPE and KEY=VALUE": arguments, "--over": over, "--sampler": sampler, "--trials": trials},
            **{"--prune": prune, "--name": name, "--seed": seed},
            **{f"--{key.replace('_', '-')}": value for key, value in judging.items()},
            **studies.place_given(place),
        }
        study = studies.reopened(resume, jobs=jobs, retry=retry, given=given)
    else:
        studies.refuse_retry(retry)
        study = _new(
            arguments or [],
            over=over or [],
            sampler=sampler or "grid",
            trials=trials,
            jobs=jobs or 1,
            judging=judging,
            prune=prune or "none",
            seed=seed,
            name=name,
            cluster=studies.asked_of(name=name or "sweep", **place),
        )
    studies.conduct(study, as_json=as_json, html=html)


def _new(
    arguments: list[str],
    *,
    over: list[str],
    sampler: str,
    trials: int | None,
    jobs: int,
    judging: "Mapping[str, Any]",
    prune: str,
    seed: int,
    name: str | None,
    cluster: object,
) -> "Study":
    """Checks everything that can be wrong, then makes the study."""
    from remask.cli.train import split_arguments
    from remask.config.load import load_recipe
    from remask.errors import UserError
    from remask.laboratory.search import planned
    from remask.laboratory.space import check, read_over
    from remask.laboratory.sweeps import new_sweep
    from remask.runs import runs_home

    if not over:
        raise UserError("a sweep varies something: give --over training.learning_rate=1e-3,3e-3 or another key")
    refuse_unknown(sampler, prune)
    recipe_name, overrides = split_arguments(arguments)
    recipe = load_recipe(recipe_name, overrides)
    varied = read_over(over, recipe=recipe)
    total = planned(varied, sampler=sampler, trials=trials)
    judged = judged_by(judging, *check(recipe_name, overrides, varied), usual=None)
    asked = {"--sampler": sampler, "--trials": trials, "--prune": prune, "--seed": seed}
    return new_sweep(
        runs_home(),
        studies.study_name(name, kind="sweep", recipe=recipe.name),
        recipe=recipe,
        source=studies.recipe_text(recipe_name),
        overrides=overrides,
        over=varied,
        metric=judged.metric,
        sampler=sampler,
        trials=total,
        prune=prune,
        seed=seed,
        jobs=jobs,
        cluster=cluster,
        evaluate=list(judged.evaluating),
        command=studies.typed(
            *("sweep", recipe_name, *overrides),
            *(word for each in over for word in ("--over", each)),
            *(word for each, value in asked.items() if value is not None for word in (each, value)),
            *judged.typed,
        ),
    )


def refuse_unknown(sampler: str, prune: str) -> None:
    """Looks at names that are chosen from a few.

    Raises:
        UserError: one is unknown.
    """
    from remask.errors import UserError, did_you_mean
    from remask.laboratory.search import PRUNERS, SAMPLERS

    for option_name, given, valid in (("--sampler", sampler, SAMPLERS), ("--prune", prune, PRUNERS)):
        if given not in valid:
            raise UserError(f"{option_name} {given}: {did_you_mean(given, valid)}")
