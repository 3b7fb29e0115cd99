"""`remask export`: a run's model for transformers."""

from pathlib import Path
from typing import Annotated

import typer

from remask.cli.options import RunReference


def export(
    run: RunReference,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it; made where it is missing.")],
) -> None:
    """Write a finished model as a folder that transformers loads after `import remask.hub`, ready for the Hub."""
    from remask.hub import export as write

    typer.echo(str(write(run, folder)))
