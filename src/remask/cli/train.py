"""`remask train`: from a recipe to a finished run."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option

if TYPE_CHECKING:
    from remask.trainer import Run, Watcher


def train(
    arguments: option.RecipeWords = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with a stopped run: its id, a prefix, `last`, or a folder."),
    ] = None,
    run_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the run's id in FILE; where FILE names a run, go on with that one."),
    ] = None,
) -> None:
    """Train a recipe, with its loss beside what trivial predictors get; keep everything in a run folder."""
    from remask.errors import UserError

    recipe_name, overrides = split_arguments(arguments or [])
    if resume is not None and (arguments or run_file):
        given = " ".join([*(arguments or []), *(["--run-file"] if run_file else [])])
        raise UserError(f"--resume takes the run's own recipe; leave out {given}, or start a new run without --resume")
    resume = resume or _noted(run_file)
    loaded = None
    if resume is None:
        from remask.config.load import load_recipe

        loaded = load_recipe(recipe_name, overrides)  # before torch is imported: mistakes are answered at once
    elif run_file and _has_finished(resume):
        typer.echo(f"run {resume} of {run_file} has finished", err=True)
        return
    from remask import experiment
    from remask.cli.progress import make_watcher
    from remask.data.cache import cache_home
    from remask.parallel import launched
    from remask.runs import runs_home

    with make_watcher() as watch:
        told = watch if run_file is None else Noting(watch, run_file)
        if loaded is not None:
            record = experiment.start(loaded, home=runs_home(), cache=cache_home(), watch=told)
        else:
            assert resume is not None
            record = experiment.resume(resume, home=runs_home(), cache=cache_home(), watch=told)
    if launched().rank == 0:  # of several processes one speaks
        watch.finished(record)


def _noted(run_file: Path | None) -> str | None:
    """The run that a file names; None where there is no such file or it is empty."""
    if run_file is None or not run_file.exists():
        return None
    return run_file.read_text(encoding="utf-8").strip() or None


def _has_finished(run: str) -> bool:
    from remask.runs import Registry, runs_home

    return Registry(runs_home()).find(run).status == "finished"


class Noting:
    """Notes the run's id in a file before training begins, and hands everything on to another watcher."""

    def __init__(self, watch: "Watcher", run_file: Path) -> None:
        self._watch, self._run_file = watch, run_file

    def learning(self, done: int, total: int | None) -> None:
        """Hands it on."""
        self._watch.learning(done, total)

    def tokenizing(self, done: int, total: int | None) -> None:
        """Hands it on."""
        self._watch.tokenizing(done, total)

    def prepared(self, run: "Run") -> None:
        """Notes the run's id, and hands it on."""
        from remask.runs import write_atomic

        write_atomic(self._run_file, f"{run.folder.run_id}\n")
        self._watch.prepared(run)

    def logged(self, record: Mapping[str, Any]) -> None:
        """Hands it on."""
        self._watch.logged(record)

    def said(self, message: str) -> None:
        """Hands it on."""
        self._watch.said(message)


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
