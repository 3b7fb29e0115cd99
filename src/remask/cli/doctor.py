"""`remask doctor`: whether this machine has what remask needs."""

from typing import Annotated

import typer


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line and nothing else.")] = False,
) -> None:
    """Look at Python, packages, devices, memory, disk and folders; exit code 1 when something is missing."""
    from dataclasses import asdict

    from remask.cli.checks import checks

    found = list(checks())
    if json:
        from json import dumps

        for check in found:
            typer.echo(dumps(asdict(check), ensure_ascii=False))
    else:
        for check in found:
            typer.echo(f"{check.status:<8} {check.name:<22} {check.detail}")
            if check.remedy:
                typer.echo(f"{'':<8} {'':<22} -> {check.remedy}")
    problems = sum(check.status == "problem" for check in found)
    if problems:
        typer.echo(f"\n{problems} problem(s): remask needs what is marked so.", err=True)
        raise typer.Exit(1)
