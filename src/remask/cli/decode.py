"""`remask decode`: texts back from the noise that `remask encode` kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import coding as shared
from remask.cli import options as option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from remask.bijections.noise_file import NoiseFile
    from remask.cli.coding import Opened


@shared.with_coding_options
def decode(
    run: option.RunReference,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Noise that remask encode --noise kept.")],
    as_json: option.AsJson = False,
    *,
    coding: "Mapping[str, Any]",
) -> None:
    """Decode noise into texts, and count those that are what was encoded.

    The file says in which order, steps and seed; one given here must be the same.
    """
    from remask.bijections.noise_file import check_origin, read_noise

    noise = read_noise(file)
    origin = noise.origin
    made = {name: getattr(origin, name) for name in ("reveal", "steps", "seed")}
    opened = shared.opened(run, made | {name: value for name, value in coding.items() if value is not None})
    check_origin(noise, file, own=opened.origin)
    if opened.origin.computed != origin.computed:
        typer.echo(
            f"encoded on {origin.computed}, decoded on {opened.origin.computed}: the last bits of logits may differ, "
            "and with them tokens near an edge",
            err=True,
        )
    (shared.print_json if as_json else print_words)(*decoded(opened, noise))


def decoded(run: "Opened", noise: "NoiseFile") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One object a text, and all together."""
    rows = noise.rows
    found = run.coder.decode(rows, noise.noise)
    wrong = rows.differing(found.ids)
    lines = [
        {"kind": "text", "text": words, "returns": count == 0, "tokens_differing": count, "log_p": -nats}
        for words, count, nats in zip(
            rows.texts(found.ids, run.model.tokenizer), wrong.tolist(), found.nats.sum(-1).tolist(), strict=True
        )
    ]
    return lines, {
        "kind": "summary",
        **run.protocol(),
        "texts": len(rows),
        "tokens": int(rows.free.sum()),
        "exceptions": int((wrong > 0).sum()),
        "tokens_differing": int(wrong.sum()),
    }


def print_words(lines: "list[dict[str, Any]]", summed: "dict[str, Any]") -> None:
    """The texts, then how many returned."""
    from remask.cli.text import printable

    for line in lines:
        typer.echo(f"{printable(line['text'])}\n{'─' * 40}")
    typer.echo(
        f"{summed['texts'] - summed['exceptions']} of {summed['texts']} texts return; {summed['tokens_differing']} of "
        f"{summed['tokens']} tokens differ"
    )
