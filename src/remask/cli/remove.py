"""`remask remove`: takes runs and evaluations away for good, after saying what would be lost."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from remask.runs import EvaluationRecord, Registry, RunFolder, RunRecord


def remove(
    references: Annotated[
        list[str],
        typer.Argument(metavar="RUN[:EVALUATION]...", help="Runs, or evaluations of runs, by id, prefix or `last`."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove runs or evaluations with their folders, after saying what would be lost and asking."""
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    runs, evaluations = _meant(registry, references)
    for run in runs:
        _say(_losses(registry, run, among=runs))
    for evaluation in evaluations:
        figures = sum(row["evaluation"] == evaluation.id for row in registry.measurements(evaluation.run_id))
        _say([f"evaluation {evaluation.reference} ({evaluation.status}), with {_counted(figures, 'figure')}"])
    _ask(yes=yes)
    for evaluation in evaluations:
        registry.forget_evaluation(evaluation.reference)
        typer.echo(f"removed {evaluation.reference}")
    for run in runs:
        registry.forget(run.id)
        typer.echo(f"removed {run.id}")


def _meant(registry: "Registry", references: Sequence[str]) -> "tuple[list[RunRecord], list[EvaluationRecord]]":
    """The runs, and the evaluations of other runs, each once; all are found before anything is removed."""
    from remask.cli.show import names_evaluation
    from remask.errors import UserError

    runs = {run.id: run for run in (registry.find(name) for name in references if not names_evaluation(name))}
    named = [registry.find_evaluation(name) for name in references if names_evaluation(name)]
    evaluations = {record.reference: record for record in named if record.run_id not in runs}
    for reference, record in {**runs, **evaluations}.items():
        if record.status == "running":
            raise UserError(f"{reference} is running. Stop it first, or wait for its end")
    return list(runs.values()), list(evaluations.values())


def _losses(registry: "Registry", run: "RunRecord", *, among: Sequence["RunRecord"]) -> list[str]:
    """What removing a run takes away: its folder, its evaluations, and the start of others' lineage."""
    from pathlib import Path

    from remask.runs.lineage import names_run

    folder = registry.folder_of(run)
    lines = [f"run {run.id} ({run.status}, step {run.step} of {run.steps if run.steps is not None else '?'})"]
    if not folder.exists():
        lines.append("  its folder is gone already: only the list's entry is removed")
    elif Path(run.folder).is_absolute():
        lines.append(f"  its folder {folder.path} lies outside {registry.home}: it stays, only the entry is removed")
    else:
        files, size = _size(folder)
        lines.append(f"  its folder {folder.path}: {_counted(files, 'file')}, {_bytes(size)}")
    lines.append(f"  {_counted(len(registry.evaluation_records(run.id)), 'evaluation')}")
    if run.conclusion:
        lines.append(f"  its conclusion: {run.conclusion}")
    going = {record.id for record in among}
    heirs = [record.id for record in registry.list() if record.id not in going and names_run(record.lineage, run.id)]
    if heirs:
        lines.append(f"  {', '.join(heirs)} went on from it")
    return lines


def _size(folder: "RunFolder") -> tuple[int, int]:
    files = [path.lstat() for path in folder.path.rglob("*") if path.is_symlink() or path.is_file()]
    return len(files), sum(entry.st_size for entry in files)


def _say(lines: Sequence[str]) -> None:
    from remask.cli.text import printable

    for line in lines:
        typer.echo(printable(line), err=True)


def _ask(*, yes: bool) -> None:
    from remask.errors import UserError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("nobody can be asked without a terminal: give --yes to remove what is named above")
    if not typer.confirm("Remove this for good?", err=True):
        typer.echo("nothing was removed", err=True)
        raise typer.Exit


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _bytes(size: int) -> str:
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size} bytes"
