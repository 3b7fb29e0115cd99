"""`remask interpolate`: texts on the way between two, through the noise that makes them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import coding as shared
from remask.cli import options as option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from remask.bijections.interpolation import Path
    from remask.bijections.rows import TokenRows
    from remask.cli.coding import Opened


@shared.with_coding_options
def interpolate(
    run: option.RunReference = "last",
    first: Annotated[str | None, typer.Argument(metavar="[FIRST]", help="The text to start from.")] = None,
    second: Annotated[str | None, typer.Argument(metavar="[SECOND]", help="The text to end at.")] = None,
    rows: Annotated[
        tuple[int, int] | None, typer.Option(metavar="A B", help="Instead: two rows of held-out text, from 0.")
    ] = None,
    count: Annotated[int, typer.Option(help="Texts, both ends included.", min=2)] = 5,
    as_json: option.AsJson = False,
    *,
    coding: "Mapping[str, Any]",
) -> None:
    """Walk from one text to another through their noise, on a sphere.

    Texts of different lengths are cut to the shorter. It works for every masked-diffusion model, one with a standard
    transformer included.
    """
    from remask.errors import UserError

    texts = [text for text in (first, second) if text is not None]
    if (len(texts), rows is None) not in ((2, True), (0, False)):
        raise UserError("two ends are wanted: give FIRST and SECOND, or --rows A B of held-out text")
    opened = shared.opened(run, coding)
    from remask.bijections.interpolation import interpolate as walk

    ends = two_ends(opened, texts, rows)
    path = walk(opened.coder, ends, count=count, seed=opened.origin.seed)
    lines = text_lines(opened, ends, path)
    summed = {"kind": "summary", **opened.protocol(), "tokens": ends.ids.shape[1], **strangers(ends, path)}
    (shared.print_json if as_json else print_words)(lines, summed)


def two_ends(run: "Opened", texts: "Sequence[str]", rows: tuple[int, int] | None) -> "TokenRows":
    """The two texts as rows of one length, cut to the shorter, which is said on standard error.

    Raises:
        UserError: when a text is empty, too long or has a character that the tokenizer lacks, when there is no such
            row, or rows are pairs, whose prompts lie between no two.
    """
    from remask.bijections.opening import chosen_rows, open_held_out
    from remask.bijections.rows import rows_of_texts
    from remask.errors import UserError

    if rows is None:
        ends = rows_of_texts(texts, run.model.tokenizer, length=run.model.length)
    else:
        held_out = open_held_out(run.model, run.recipe, data_hash=run.record.data_hash)
        if held_out.corpus.paired:
            raise UserError(
                "--rows: the held-out rows are pairs, and no prompt lies between two. Give FIRST and SECOND"
            )
        ends = chosen_rows(held_out, rows).rows
    sizes = ends.valid.sum(-1).tolist()
    if sizes[0] != sizes[1]:
        typer.echo(f"the texts have {sizes[0]} and {sizes[1]} tokens: both are cut to {min(sizes)}", err=True)
    return ends.cut(min(sizes))


def text_lines(run: "Opened", ends: "TokenRows", path: "Path") -> list[dict[str, Any]]:
    """One object a text."""
    length = ends.ids.shape[1]
    return [
        {
            "kind": "text",
            "share": share,
            "text": run.model.tokenizer.decode(ids),
            "equal_to_first": int((ids == ends.ids[0]).sum()) / length,
            "equal_to_second": int((ids == ends.ids[1]).sum()) / length,
            "nats_per_token": float(nats.sum()) / length,
        }
        for share, ids, nats in zip(path.shares, path.ids, path.nats, strict=True)
    ]


def strangers(ends: "TokenRows", path: "Path") -> dict[str, float]:
    """The share of tokens that texts of fresh noise have in common with the ends, and the ends with each other."""
    return {
        "ends_equal": float((ends.ids[0] == ends.ids[1]).double().mean()),
        "fresh_equal_to_first": float((path.strangers == ends.ids[0]).double().mean()),
        "fresh_equal_to_second": float((path.strangers == ends.ids[1]).double().mean()),
    }


def print_words(lines: "Sequence[Mapping[str, Any]]", summed: "Mapping[str, Any]") -> None:
    """The texts, then how much each has of either end."""
    from remask.cli.text import number, print_table, printable

    for line in lines:
        typer.echo(f"{line['share']:.2f}: {printable(line['text'])}\n{'─' * 40}")
    rows = [
        [f"{line['share']:.2f}", *(number(line[k]) for k in ("equal_to_first", "equal_to_second", "nats_per_token"))]
        for line in lines
    ]
    fresh = ["fresh noise", number(summed["fresh_equal_to_first"]), number(summed["fresh_equal_to_second"]), ""]
    print_table(["way", "equal to first", "to second", "nats/token"], [*rows, fresh], right=(1, 2, 3))
    typer.echo(f"{summed['tokens']} tokens; {shared.sampler_in_words(summed)}")
