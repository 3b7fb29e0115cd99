"""`remask import`: takes run folders of another machine into the home."""

from typing import Annotated

import typer


def import_runs(
    folders: Annotated[list[str], typer.Argument(metavar="FOLDER...", help="Run folders, each with a run.json.")],
) -> None:
    """Copy run folders, say from another machine, into the home of runs, and list them with their evaluations."""
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    for folder in folders:
        taken = registry.take_in(folder)
        record = taken.record
        if taken.was_there:
            typer.echo(f"{record.id} is there already, with the same content")
        else:
            evaluations = len(registry.evaluation_records(record.id))
            typer.echo(
                f"{record.id} ({record.status}, step {record.step}, "
                f"{evaluations} evaluation{'' if evaluations == 1 else 's'}) → {registry.folder_of(record).path}"
            )
