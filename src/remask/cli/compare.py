"""`remask compare`: runs beside each other, as fairly as their records allow."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remask.cli import options as option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remask.comparison import Comparison


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="Run ids, unique prefixes, `last`, or folders.")
    ],
    metric: Annotated[
        list[str] | None, typer.Option(help="Compare this figure; may be given again [default: all].")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Compare the figures of this task; may be given again.")
    ] = None,
    level: Annotated[float, typer.Option(help="Of the confidence intervals.")] = 0.95,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse where parameters, budget, code or protocol differ at all.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the comparison as one HTML file too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, and nothing else.")] = False,
) -> None:
    """Compare runs: differences with their errors, a verdict, and what is not fair of it.

    Runs of one setup with other seeds count as repetitions of it. Figures of other text, tokens or protocols are
    refused, other budgets are flagged. Ends with 2 where nothing can be compared.
    """
    from remask.comparison import compare_runs, refuse_unfair
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    records = [registry.find(run) for run in runs]
    for record in records:
        option.complain(registry, record)
    comparison = compare_runs(registry, records, metrics=metric, tasks=task, level=level)
    if strict:
        refuse_unfair(comparison)
    if html is not None:
        _write_page(comparison, [registry.folder_of(record).path for record in records], file=html)
    _print(comparison, as_json=as_json)
    if html is not None:
        typer.echo(str(html), err=as_json)


def _write_page(comparison: "Comparison", folders: "Sequence[Path]", *, file: Path) -> None:
    from remask.report.comparison_page import write_comparison

    write_comparison(comparison.to_json(), folders, file=file)


def _print(comparison: "Comparison", *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(comparison.to_json(), allow_nan=False) + "\n")
        return
    from remask.cli.text import one_line
    from remask.comparison.text import comparison_lines

    typer.echo("\n".join(map(one_line, comparison_lines(comparison))))
