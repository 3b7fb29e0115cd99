"""`remask runs`: the list of all runs."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from remask.runs import Registry, RunRecord

_HEADLINE = "bits_per_byte"
_BIGRAM = "byte 2-gram"  # the trivial predictor that stands beside the headline figure
Filter = list[str] | None


def runs(
    status: Annotated[
        Filter, typer.Option(help="Only of this status: running, finished, failed, killed or interrupted; repeatable.")
    ] = None,
    recipe: Annotated[Filter, typer.Option(help="Only of this recipe; repeatable.")] = None,
    family: Annotated[Filter, typer.Option(help="Only of this family, e.g. token or baseline; repeatable.")] = None,
    tag: Annotated[Filter, typer.Option(help="Only with this tag; given again, with all of them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a run, and nothing else.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="First make the registry anew from the run folders.")
    ] = False,
) -> None:
    """List all runs, newest first, each beside what a trivial predictor gets."""
    from remask.runs import Registry, runs_home

    check_statuses(status or [])
    registry = Registry(runs_home())
    if rebuild:
        _rebuild(registry)
    records = registry.list()
    chosen = [record for record in records if _fits(record, status, recipe, family, tag)]
    if as_json:
        from remask.cli import text

        sys.stdout.writelines(f"{text.as_json(record.to_json())}\n" for record in chosen)
    elif chosen:
        _print(chosen)
    elif records:
        typer.echo(f"none of the {len(records)} runs in {registry.home} is of that kind", err=True)
    else:
        typer.echo(f"no runs in {registry.home} yet: `remask train` starts one", err=True)


def check_statuses(given: Sequence[str]) -> None:
    """Refuses a status that no run has.

    Raises:
        UserError: naming those that there are.
    """
    from remask.errors import UserError, did_you_mean
    from remask.runs import STATUSES

    for status in given:
        if status not in STATUSES:
            raise UserError(f"--status {status} is unknown; {did_you_mean(status, STATUSES)}")


def _fits(record: "RunRecord", status: Filter, recipe: Filter, family: Filter, tag: Filter) -> bool:
    wanted = ((status, record.status), (recipe, record.recipe), (family, record.family))
    return all(not among or value in among for among, value in wanted) and set(tag or ()) <= set(record.tags)


def _rebuild(registry: "Registry") -> None:
    rebuilt = registry.rebuild()
    typer.echo(f"{rebuilt.runs} runs read from their folders into {registry.path}", err=True)
    if rebuilt.kept is not None:
        typer.echo(f"the unusable registry is kept as {rebuilt.kept}", err=True)
    for folder in rebuilt.skipped:
        typer.echo(f"skipped {folder}: its run.json is unreadable or names another folder's run", err=True)


def _print(records: Sequence["RunRecord"]) -> None:
    from remask.cli.text import age, number, print_table

    now = datetime.now(UTC)
    header = ("run", "status", "steps", "bits/byte", "bigram", "age", "verdict")
    rows = [
        (
            record.id,
            record.status,
            f"{record.step}/{record.steps if record.steps is not None else '?'}",
            number(record.headline.get(_HEADLINE)),
            number(record.trivial.get(_BIGRAM) if _HEADLINE in record.headline else None),
            age(record.created, now=now),
            record.verdict or record.error or "",
        )
        for record in records
    ]
    print_table(header, rows, right=(2, 3, 4, 5))
