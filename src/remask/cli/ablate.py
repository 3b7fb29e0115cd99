"""`remask ablate`: what a step, a component, a size, experts or a cost is worth."""

from typing import TYPE_CHECKING, Annotated, Any, no_type_check

import typer

from remask.cli import options as option
from remask.cli import studies
from remask.cli.ablate_steps import steps
from remask.cli.judging import Judged, judged_by, with_judging

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from remask.config.schema import Recipe

app = typer.Typer(
    name="ablate",
    help="What denoising steps, a component, a size, experts or a cost is worth; each as one study.",
    add_completion=False,
    rich_markup_mode=None,
)

LIKELIHOOD = "likelihood"
"""The task by which arms are usually compared."""

app.command()(steps)


@app.callback(invoke_without_command=True)
@no_type_check  # typer's own annotation of the context is not the class that it hands over
def ablate(
    context: typer.Context,
    resume: studies.Resume = None,
    retry: studies.Retry = False,
    jobs: studies.Jobs = None,
    as_json: option.AsJson = False,
    html: studies.Html = None,
) -> None:
    """What denoising steps, a component, a size, experts or a cost is worth; each as one study."""
    from remask.errors import UserError

    if resume is not None and context.invoked_subcommand is not None:
        raise UserError(f"--resume takes all of a study from its folder: leave {context.invoked_subcommand} out")
    if resume is not None:
        studies.conduct(studies.reopened(resume, jobs=jobs, retry=retry, given={}), as_json=as_json, html=html)
        return
    studies.refuse_retry(retry)
    if context.invoked_subcommand is None:
        raise UserError(
            "remask ablate needs to know what: steps, component, size, experts or matched, or --resume NAME"
        )


@app.command()
@with_judging
@studies.with_place
def component(
    arguments: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE KEY=VALUE...", help="A recipe, and the changes whose worth is asked."),
    ],
    both: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A change of both arms; may be given again.")
    ] = None,
    seeds: studies.Seeds = "0,1,2",
    jobs: studies.Jobs = None,
    name: studies.Name = None,
    as_json: option.AsJson = False,
    html: studies.Html = None,
    *,
    place: "Mapping[str, Any]",
    judging: "Mapping[str, Any]",
) -> None:
    """Train a recipe with and without changes over several seeds, and say what the changes are worth."""
    from remask.cli.train import split_arguments
    from remask.config.load import recipe_hash
    from remask.errors import UserError
    from remask.laboratory.ablations import new_component, read_seeds
    from remask.runs import runs_home

    recipe_name, changes = split_arguments(arguments)
    if not changes:
        raise UserError("the changes are missing: remask ablate component RECIPE KEY=VALUE")
    numbers = read_seeds(seeds)
    recipe = checked(recipe_name, both or [])
    changed = checked(recipe_name, [*(both or []), *changes])
    if recipe_hash(changed) == recipe_hash(recipe):
        raise UserError(f"{' '.join(changes)} changes nothing in {recipe_name}: the recipe says so already")
    judged = judged_by(judging, recipe, changed, usual=LIKELIHOOD)
    study = new_component(
        runs_home(),
        studies.study_name(name, kind="component", recipe=recipe.name),
        recipe=recipe,
        source=studies.recipe_text(recipe_name),
        both=both or [],
        changes=changes,
        seeds=numbers,
        **shared("component", judged, jobs=jobs, name=name, place=place),
        command=studies.typed(
            *("ablate", "component", recipe_name, *changes),
            *(word for each in both or [] for word in ("--both", each)),
            *("--seeds", seeds),
            *judged.typed,
        ),
    )
    studies.conduct(study, as_json=as_json, html=html)


@app.command()
@with_judging
@studies.with_place
def size(
    arguments: option.RecipeWords = None,
    over: Annotated[
        list[str] | None, typer.Option(metavar="KEY=a,b,c", help="A key and its values; may be given again.")
    ] = None,
    seeds: studies.Seeds = "0",
    jobs: studies.Jobs = None,
    name: studies.Name = None,
    as_json: option.AsJson = False,
    html: studies.Html = None,
    *,
    place: "Mapping[str, Any]",
    judging: "Mapping[str, Any]",
) -> None:
    """Train a recipe at several sizes: quality against parameters, operations and time."""
    from remask.cli.train import split_arguments
    from remask.errors import UserError
    from remask.laboratory.ablations import new_size, read_seeds
    from remask.laboratory.space import Choice, check, read_over
    from remask.runs import runs_home

    if not over:
        raise UserError("sizes are missing: give --over network.width=64,128,256")
    numbers = read_seeds(seeds)
    recipe_name, overrides = split_arguments(arguments or [])
    recipe = checked(recipe_name, overrides)
    varied = read_over(over, recipe=recipe)
    refuse_seeds(each.key for each in varied)
    lists = [each for each in varied if isinstance(each, Choice)]
    if len(lists) < len(varied):
        raise UserError("sizes are lists: write --over network.width=64,128,256")
    judged = judged_by(judging, *check(recipe_name, overrides, varied), usual=LIKELIHOOD)
    study = new_size(
        runs_home(),
        studies.study_name(name, kind="size", recipe=recipe.name),
        recipe=recipe,
        source=studies.recipe_text(recipe_name),
        overrides=overrides,
        over=lists,
        seeds=numbers,
        **shared("size", judged, jobs=jobs, name=name, place=place),
        command=studies.typed(
            *("ablate", "size", recipe_name, *overrides),
            *(word for each in over for word in ("--over", each)),
            *("--seeds", seeds),
            *judged.typed,
        ),
    )
    studies.conduct(study, as_json=as_json, html=html)


@app.command()
@with_judging
@studies.with_place
def experts(
    arguments: option.RecipeWords = None,
    seeds: studies.Seeds = "0,1,2",
    jobs: studies.Jobs = None,
    name: studies.Name = None,
    as_json: option.AsJson = False,
    html: studies.Html = None,
    *,
    place: "Mapping[str, Any]",
    judging: "Mapping[str, Any]",
) -> None:
    """Train a mixture of experts, and dense networks of equal operations and of equal parameters, on the same text."""
    from remask.cli.train import split_arguments
    from remask.laboratory.ablations import read_seeds
    from remask.laboratory.experts import expert_arms, new_experts
    from remask.runs import runs_home

    recipe_name, overrides = split_arguments(arguments or [])
    numbers = read_seeds(seeds)
    recipe = checked(recipe_name, overrides)
    arms = [checked(recipe_name, [*overrides, *changes]) for changes in expert_arms(recipe).values()]
    judged = judged_by(judging, *arms, usual=LIKELIHOOD)
    study = new_experts(
        runs_home(),
        studies.study_name(name, kind="experts", recipe=recipe.name),
        recipe=recipe,
        source=studies.recipe_text(recipe_name),
        overrides=overrides,
        seeds=numbers,
        **shared("experts", judged, jobs=jobs, name=name, place=place),
        command=studies.typed("ablate", "experts", recipe_name, *overrides, "--seeds", seeds, *judged.typed),
    )
    studies.conduct(study, as_json=as_json, html=html)


@app.command()
@with_judging
def matched(
    arguments: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [KEY=VALUE]...",
            help="Two recipes; KEY=VALUE changes both, a:KEY=VALUE the first, b:KEY=VALUE the second.",
        ),
    ],
    by: Annotated[str, typer.Option(help="What both may spend: flops or time.")] = "flops",
    seeds: studies.Seeds = "0,1,2",
    jobs: studies.Jobs = None,
    name: studies.Name = None,
    as_json: option.AsJson = False,
    html: studies.Html = None,
    *,
    judging: "Mapping[str, Any]",
) -> None:
    """Train two recipes at equal cost: the second gets the steps that the first one's operations or time allow."""
    from remask.config.load import recipe_hash
    from remask.errors import UserError, did_you_mean
    from remask.laboratory.ablations import read_seeds
    from remask.laboratory.matching import COSTS, both_sides, new_matched
    from remask.runs import runs_home

    if by not in COSTS:
        raise UserError(f"--by {by}: {did_you_mean(by, COSTS)}")
    studies.refuse_side_by_side(jobs)
    numbers = read_seeds(seeds)
    first, second, words = split_pair(arguments)
    sides = [
        (checked(recipe, changes), studies.recipe_text(recipe), changes)
        for recipe, changes in ((first, words["a"]), (second, words["b"]))
    ]
    if recipe_hash(sides[0][0]) == recipe_hash(sides[1][0]):
        raise UserError(f"{first} and {second} are the same recipe: change one of them with b:KEY=VALUE")
    judged = judged_by(judging, *(recipe for recipe, _, _ in sides), usual=LIKELIHOOD)
    study = new_matched(
        runs_home(),
        studies.study_name(name, kind="matched", recipe=sides[0][0].name),
        sides=both_sides(*sides),
        by=by,
        seeds=numbers,
        jobs=1,
        cluster=None,
        metric=judged.metric,
        evaluate=list(judged.evaluating),
        command=studies.typed("ablate", "matched", *arguments, "--by", by, "--seeds", seeds, *judged.typed),
    )
    studies.conduct(study, as_json=as_json, html=html)


def shared(
    kind: str, judged: Judged, *, jobs: int | None, name: str | None, place: "Mapping[str, Any]"
) -> dict[str, Any]:
    """The facts of a new study that do not depend on what it varies.

    Args:
        kind: of study; its jobs on a cluster are called so where it has no name.
        judged: what its trainings are judged by.
        jobs: trainings side by side; None for one.
        name: of the study, if one was given.
        place: options of where trainings run.
    """
    return {
        "jobs": jobs or 1,
        "cluster": studies.asked_of(name=name or kind, **place),
        "metric": judged.metric,
        "evaluate": list(judged.evaluating),
    }


def split_pair(arguments: list[str]) -> tuple[str, str, dict[str, list[str]]]:
    """Two recipes and the changes of each.

    Raises:
        UserError: there are not two recipes, or a later word is no change.
    """
    from remask.errors import UserError

    recipes, changes = arguments[:2], arguments[2:]
    if len(recipes) < 2 or any("=" in word for word in recipes):
        raise UserError(
            "a matched pair is two recipes: remask ablate matched A B [KEY=VALUE] [a:KEY=VALUE] [b:KEY=VALUE]"
        )
    words: dict[str, list[str]] = {"a": [], "b": []}
    for change in changes:
        if "=" not in change:
            raise UserError(
                f"'{change}' is not KEY=VALUE: write training.steps=60, or b:training.steps=60 for the second"
            )
        side, colon, rest = change.partition(":")
        own = bool(colon) and side in words
        for each in (side,) if own else words:
            words[each].append(rest if own else change)
    return recipes[0], recipes[1], words


def refuse_seeds(keys: "Iterable[str]") -> None:
    """Looks whether a seed is among changed keys: each arm is trained with those of `--seeds`.

    Raises:
        UserError: one is.
    """
    from remask.errors import UserError

    if any(key.strip() == "seed" for key in keys):
        raise UserError("an ablation trains each arm with the same seeds: leave seed out, and give --seeds 0,1,2")


def checked(recipe: str, overrides: list[str]) -> "Recipe":
    """A recipe whose texts are there.

    Raises:
        UserError: something about it is wrong, or a seed is among the overrides, which every arm gets its own of.
    """
    from remask.config.load import load_recipe
    from remask.laboratory.space import refuse_missing_texts

    refuse_seeds(word.partition("=")[0] for word in overrides)
    loaded = load_recipe(recipe, overrides)
    refuse_missing_texts(loaded)
    return loaded
