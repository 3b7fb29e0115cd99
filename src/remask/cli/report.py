"""`remask report`: a run as one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from remask.cli import options as option


def report(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's id, the unique start of one, `last`, or a folder.")
    ],
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Where to write it [default: report.html in the run's folder]."),
    ] = None,
) -> None:
    """Write a run's report: one HTML file with verdict, loss curve, denoising picture, samples, figures."""
    from remask.report import write_report
    from remask.runs import RunFolder

    folder = RunFolder(_folder_of(run))
    file = folder.report_path if html is None else html
    write_report(folder.path, file=file)
    typer.echo(str(file))


def _folder_of(reference: str) -> Path:
    """The folder of the run that a reference names.

    Raises:
        UserError: nothing or more than one run fits.
    """
    from remask.config.load import differs
    from remask.errors import UserError
    from remask.report import holds_run
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    try:
        record = registry.find(reference)
        folder = registry.folder_of(record)
        option.complain(registry, record)
        if folder.recipe_path.exists() and (changed := differs(str(folder.recipe_path), record.config_hash)):
            typer.echo(changed, err=True)
        return folder.path
    except UserError:
        # A run whose record was torn is in no registry, and yet its folder can be reported.
        if holds_run(Path(reference)):
            return Path(reference)
        raise
