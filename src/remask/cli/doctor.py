"""`remask doctor`: whether this machine has what remask needs, and whether a pretrained model fits a device."""

from typing import Annotated

import typer


def doctor(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Say what this pretrained model takes instead: a folder or a name on the Hub."
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="With --model: the device's, 16GB or 15GiB; exit code 1 above it."),
    ] = None,
    precision: Annotated[str, typer.Option(help="With --model: what 4-bit layers multiply in.")] = "fp16",
    quantisation: Annotated[str, typer.Option(help="With --model: nf4 or none.")] = "nf4",
    embeddings: Annotated[str, typer.Option(help="With --model: cpu or device.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="With --model: rows a step.")] = 2,
    length: Annotated[int, typer.Option(min=1, help="With --model: places a row.")] = 256,
    lora_rank: Annotated[int, typer.Option(min=0, help="With --model: 0 trains every weight.")] = 16,
    gradient_checkpointing: Annotated[bool, typer.Option(help="With --model: compute layers again.")] = True,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line and nothing else.")] = False,
) -> None:
    """Look at Python, packages, devices, memory, disk and folders; exit code 1 when something is missing."""
    if model is None:
        _machine(json=json)
        return
    from remask.cli.model_memory import read_size, read_wish, report

    wish = read_wish(
        precision=precision,
        quantisation=quantisation,
        embeddings=embeddings,
        batch=batch,
        length=length,
        rank=lora_rank,
        checkpointing=gradient_checkpointing,
    )
    if not report(model, wish, memory=None if memory is None else read_size(memory), json=json):
        raise typer.Exit(1)


def _machine(*, json: bool) -> None:
    """What of this machine remask needs."""
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
