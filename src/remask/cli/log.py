"""`remask log`: the master experiment log, made from the records of all runs."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

_ENCODER = json.JSONEncoder(allow_nan=False)  # ASCII: safe in any terminal, pipe and encoding


def log(
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the Markdown to a file, in one step.")
    ] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="Runs of this recipe; may be given again.")] = None,
    family: Annotated[list[str] | None, typer.Option(help="Runs of this family; may be given again.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Runs with this tag; given again, with both.")] = None,
    status: Annotated[list[str] | None, typer.Option(help="Runs of this status; may be given again.")] = None,
    since: Annotated[str | None, typer.Option(metavar="DATE", help="Runs begun then or later, in UTC.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a row, and nothing else.")] = False,
) -> None:
    """Print the experiment log in Markdown: training runs and evaluations, best values marked where they compare."""
    from remask.logbook import Choice, gather_log, log_page
    from remask.runs import Registry, runs_home

    choice = Choice(recipes=recipe or (), families=family or (), tags=tag or (), statuses=status or (), since=since)
    made = gather_log(Registry(runs_home()), choice)
    if write is not None:
        _write(write, log_page(made))
    if as_json:
        sys.stdout.writelines(f"{_ENCODER.encode(row)}\n" for row in made.to_json())
    elif write is None:
        typer.echo(log_page(made), nl=False)
    else:
        typer.echo(str(write))


def _write(file: Path, text: str) -> None:
    from remask.errors import UserError
    from remask.runs import write_atomic

    if file.is_dir():
        raise UserError(f"--write {file} is a folder; give the file's name, e.g. {file / 'experiments.md'}")
    if not file.parent.is_dir():
        raise UserError(f"--write {file}: there is no folder {file.parent}; make it first")
    write_atomic(file, text)
