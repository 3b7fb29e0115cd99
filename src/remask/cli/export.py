"""`remask export`: a run's model for transformers."""

from pathlib import Path
from typing import Annotated

import typer

from remask.cli.options import RunReference


def export(
    run: RunReference,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write it; made where it is missing.")],
    merged: Annotated[
        bool,
        typer.Option(
            "--merged",
            help="Write the pretrained model within it instead, updates added to its weights: a folder that "
            "AutoModelForCausalLM loads without remask.",
        ),
    ] = False,
) -> None:
    """Write a finished model as a folder that transformers loads after `import remask.hub`, ready for the Hub."""
    if merged:
        from remask.hub.merged import export_merged

        typer.echo(str(export_merged(run, folder)))
        return
    from remask.hub import export as write

    typer.echo(str(write(run, folder)))
