"""`remask report`: a run, or several beside each other, as one HTML file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remask.runs import Registry, RunRecord


def report(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="A run's id, the unique start of one, `last`, or a folder; several are compared."
        ),
    ],
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Where to write it [default: report.html in the run's folder; for several comparison.html in the "
            "home of runs].",
        ),
    ] = None,
) -> None:
    """Write one HTML file: a run with verdict, curves, denoising, samples and figures, or several compared."""
    file = _report_run(run[0], html) if len(run) == 1 else _report_comparison(run, html)
    typer.echo(str(file))


def _report_run(reference: str, html: Path | None) -> Path:
    """Writes the page of one run, and returns its file."""
    from remask.report import write_report
    from remask.runs import RunFolder

    folder = RunFolder(_folder_of(reference))
    file = folder.report_path if html is None else html
    write_report(folder.path, file=file)
    return file


def _report_comparison(references: "Sequence[str]", html: Path | None) -> Path:
    """Writes the page of a comparison, and returns its file; runs that cannot be compared are shown all the same.

    Raises:
        UserError: a reference fits no run or more than one, two name the same run, or a run's folder is gone.
    """
    from remask.report import write_comparison
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    records = [registry.find(reference) for reference in references]
    for record in records:
        option.complain(registry, record)
    folders = [registry.folder_of(record).path for record in records]
    file = registry.home / "comparison.html" if html is None else html
    write_comparison(_compared(registry, records), folders, file=file)
    return file


def _compared(registry: "Registry", records: "Sequence[RunRecord]") -> "dict[str, Any]":
    """`Comparison.to_json()`; where nothing compares the arms alone, with the reason as the verdict."""
    from remask.comparison import compare_runs
    from remask.comparison.arms import arms_of
    from remask.errors import UserError

    arms, said = arms_of(records)  # refuses what is no comparison at all, such as a run beside itself
    try:
        return compare_runs(registry, records).to_json()
    except UserError as refusal:
        return {"verdict": str(refusal), "arms": [arm.to_json() for arm in arms], "figures": [], "flags": said}


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
