"""What `remask doctor --model` says: the memory a pretrained model takes, before anything of it is loaded."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from remask.cli.tables import aligned
from remask.errors import UserError

if TYPE_CHECKING:
    from remask.backbones.memory import Demand, Wish

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_LEAST = 10**6
"""Bytes below which a number without a unit is taken for a forgotten one."""
_PRECISIONS = ("fp16", "bf16", "float32")


def read_size(text: str) -> int:
    """Bytes of `16GB`, `15.5GiB` or a plain number.

    Raises:
        UserError: when it is none of them, or a number so small that its unit was forgotten.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2].upper() not in _UNITS or not float(match[1]):
        raise UserError(f"--memory {text}: write for example 16GB or 15GiB")
    if not match[2] and float(match[1]) < _LEAST:
        raise UserError(f"--memory {text} would be so many bytes: write for example {match[1]}GB or {match[1]}GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def read_wish(
    *, precision: str, quantisation: str, embeddings: str, batch: int, length: int, rank: int, checkpointing: bool
) -> "Wish":
    """What a command line asks for.

    Raises:
        UserError: for a word that is none of those valid, or words that do not go together.
    """
    import torch

    from remask.backbones.memory import Wish

    for option, given, valid in (
        ("--precision", precision, _PRECISIONS),
        ("--quantisation", quantisation, ("nf4", "none")),
        ("--embeddings", embeddings, ("cpu", "device")),
    ):
        if given not in valid:
            raise UserError(f"{option} {given}: valid are {', '.join(valid)}")
    if rank == 0 and quantisation == "nf4":
        raise UserError("--lora-rank 0 trains every weight, and those in 4 bits are frozen: --quantisation none")
    if rank == 0 and embeddings == "cpu":
        raise UserError("--lora-rank 0 trains every weight, and a table on the CPU is frozen: --embeddings device")
    compute = {"fp16": torch.float16, "bf16": torch.bfloat16, "float32": torch.float32}[precision]
    return Wish(
        compute=compute,
        quantisation=quantisation,  # pyright: ignore[reportArgumentType]
        embeddings=embeddings,  # pyright: ignore[reportArgumentType]
        batch=batch,
        length=length,
        rank=rank,
        checkpointing=checkpointing,
    )


def report(name: str, wish: "Wish", *, memory: int | None, json: bool) -> bool:
    """Prints what a model needs; whether that fits.

    Args:
        name: a folder, or a name on the Hub.
        wish: what is to be done with it.
        memory: of the device, in bytes; None: nothing is judged.
        json: one JSON object a line.

    Raises:
        UserError: when there is no such model, or its experts are held in a way that is not known.
    """
    from remask.backbones.layouts import skeleton
    from remask.backbones.memory import demands, total

    model = skeleton(_config(name))
    parts = demands(model, wish)
    totals = {
        f"{of} on {place}": total(parts, place=place, of=of)
        for place in ("device", "cpu")
        for of in ("training", "sampling")
    }
    fits = memory is None or totals["training on device"] <= memory
    changes = [] if fits else _changes(model, wish)
    figures: dict[str, Any] = {"model": name, **_flops(model, wish)}
    if json:
        from json import dumps

        for part in parts:
            typer.echo(dumps(asdict(part), ensure_ascii=False))
        verdict = {"totals": totals, "memory": memory, "fits": fits, "changes": dict(changes), **figures}
        typer.echo(dumps(verdict, ensure_ascii=False))
        return fits
    for line in _table(name, parts, totals):
        typer.echo(line)
    typer.echo(
        f"\n{figures['forward_flops_a_token'] / 1e9:.2f} GFLOPs a token forward at {wish.length} places, "
        f"{figures['training_flops_a_token'] / 1e9:.2f} in training"
    )
    if memory is not None:
        typer.echo(_verdict(totals["training on device"], memory))
    for change, saved in changes:
        typer.echo(f"  -> {change} saves {saved / 2**30:.2f} GiB")
    return fits


def _config(name: str) -> Any:
    """A model's configuration: its folder's, one kept here, or the Hub's."""
    from remask.backbones.published import published_config
    from remask.config.pretrained import find_model, quiet

    known = None if Path(name).expanduser().exists() else published_config(name)
    with quiet():
        return known if known is not None else find_model(name)[1]


def _flops(model: Any, wish: "Wish") -> dict[str, float]:
    from remask.backbones.costs import forward_flops, training_flops

    forward = forward_flops(model, places=wish.length)
    trained = training_flops(model, places=wish.length, rank=wish.rank) if wish.rank else 3 * forward
    return {"forward_flops_a_token": forward, "training_flops_a_token": trained}


def _changes(model: Any, wish: "Wish") -> list[tuple[str, int]]:
    from remask.backbones.memory import savings

    return savings(model, wish)


def _table(name: str, parts: Sequence["Demand"], totals: dict[str, int]) -> list[str]:
    rows = [["part", "where", "GiB", "when", ""]]
    for part in parts:
        size = f"{part.bytes / 2**30:.3f}" if part.exact else f"~{part.bytes / 2**30:.3f}"
        rows.append([part.name, part.place, size, "always" if part.of == "weights" else part.of, part.note])
    for of, size in totals.items():
        when, _, place = of.partition(" on ")
        rows.append(["total", place, f"{size / 2**30:.3f}", when, ""])
    return [f"{name}: predicted, ~ estimated, nothing was loaded", "", *aligned(rows, left=(0, 1, 3, 4))]


def _verdict(needed: int, memory: int) -> str:
    if needed <= memory:
        return f"fits: {needed / 2**30:.2f} GiB of {memory / 2**30:.2f} GiB in training"
    return f"does not fit: {needed / 2**30:.2f} GiB are needed in training, and there are {memory / 2**30:.2f} GiB"
