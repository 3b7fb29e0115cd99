"""`remask train`: from a recipe to a finished run."""

from typing import Annotated

import typer


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE] [KEY=VALUE]...",
            help="A recipe's name or a YAML file (default: quickstart), and keys to change: training.steps=60 seed=1.",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with a stopped run: its id, a prefix, `last`, or a folder."),
    ] = None,
) -> None:
    """Train a recipe, with its loss beside what trivial predictors get; keep everything in a run folder."""
    from remask.errors import UserError

    recipe_name, overrides = split_arguments(arguments or [])
    if resume is not None and arguments:
        raise UserError(
            f"--resume takes the run's own recipe; leave out {' '.join(arguments)}, or start a new run without --resume"
        )
    loaded = None
    if resume is None:
        from remask.config.load import load_recipe

        loaded = load_recipe(recipe_name, overrides)  # before torch is imported: mistakes are answered at once
    from remask import experiment
    from remask.cli.progress import make_watcher
    from remask.data.cache import cache_home
    from remask.runs import runs_home

    with make_watcher() as watch:
        if loaded is not None:
            record = experiment.start(loaded, home=runs_home(), cache=cache_home(), watch=watch)
        else:
            assert resume is not None
            record = experiment.resume(resume, home=runs_home(), cache=cache_home(), watch=watch)
    watch.finished(record)


def split_arguments(arguments: list[str]) -> tuple[str, list[str]]:
    """The recipe and the overrides of a command line: a first word without `=` names the recipe.

    Raises:
        UserError: when a later word has no `=`.
    """
    from remask.errors import UserError

    recipe = arguments[0] if arguments and "=" not in arguments[0] else None
    overrides = arguments[1:] if recipe is not None else arguments
    for word in overrides:
        if "=" not in word:
            raise UserError(f"'{word}' is not KEY=VALUE: write for example training.steps=60, after one recipe name")
    return recipe or "quickstart", overrides
