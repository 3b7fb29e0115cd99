"""`remask resample`: part of a text drawn anew, with the noise of the rest held."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import coding as shared
from remask.cli import options as option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool
    from torch import Tensor

    from remask.bijections.resampling import Resampled
    from remask.bijections.rows import TokenRows
    from remask.cli.coding import Opened

SHOWN = 8
"""Texts that are printed with what each way made of them; of more, the figures alone."""


@shared.with_coding_options
def resample(
    run: option.RunReference = "last",
    text: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="The texts.")] = None,
    texts: Annotated[Path | None, typer.Option(metavar="FILE", help="A file with one text a line.")] = None,
    rows: Annotated[int | None, typer.Option(help="So many rows of held-out text.")] = None,
    span: Annotated[str | None, typer.Option(help="The words to draw anew; they stand in TEXT once.")] = None,
    share: Annotated[
        float | None, typer.Option(help="Or a random share of the tokens, above 0 to 1; other ones in each text.")
    ] = None,
    count: Annotated[int, typer.Option(help="New texts of each.", min=1)] = 1,
    as_json: option.AsJson = False,
    *,
    coding: "Mapping[str, Any]",
) -> None:
    """Draw some tokens of texts anew while the noise of the others is held.

    Beside it stand two references: the same tokens filled in with the rest of the text held, and fresh noise
    everywhere. It works for every masked-diffusion model, one with a standard transformer included.
    """
    wanted = shared.wanted_texts(text, texts, rows)
    check_choice(wanted, span=span, share=share)
    opened = shared.opened(run, coding)
    from remask.bijections.resampling import resample as resampled

    found = shared.rows_for(opened, wanted, rows)[0].repeated(count)
    fresh = fresh_tokens(found, wanted, span=span, share=share, count=count, seed=opened.origin.seed)
    ways = resampled(opened.coder, found, fresh, seed=opened.origin.seed)
    lines = text_lines(opened, found, fresh, ways, count=count)
    summed = summary(opened, found, fresh, ways, count=count)
    (shared.print_json if as_json else print_words)(lines, summed)


def check_choice(texts: "Sequence[str] | None", *, span: str | None, share: float | None) -> None:
    """Refuses what says nothing of which tokens to draw anew, or too much.

    Raises:
        UserError: when both or neither of span and share is given, the share is out of range, or words are looked for
            in rows that nobody gave.
    """
    from remask.errors import UserError

    if (span is None) == (share is None):
        said = "both are given" if span is not None else "neither is given"
        raise UserError(f"--span and --share: {said}. Give words with --span, or a share of the tokens with --share")
    if share is not None and not 0 < share <= 1:
        raise UserError(f"--share: {share} given; it must be above 0 and at most 1")
    if span is not None and texts is None:
        raise UserError("--span is given with --rows: words are looked for in a TEXT. Give --share with --rows")


def fresh_tokens(
    rows: "TokenRows", texts: "Sequence[str] | None", *, span: str | None, share: float | None, count: int, seed: int
) -> "Bool[Tensor, 'N L']":
    """The tokens to draw anew in each row.

    Raises:
        UserError: when the words are not in a text, or stand there more than once.
    """
    import torch

    from remask.bijections.spans import random_share, tokens_of_span

    if share is not None:
        return random_share(rows.free, share, seed=seed)
    assert span is not None, "one of the two is given"
    assert texts is not None, "words are looked for in texts"
    chosen = torch.zeros_like(rows.free)
    for place in range(len(rows)):
        sizes = rows.byte_lengths[place][rows.valid[place]].tolist()
        chosen[place, : len(sizes)] = torch.tensor(tokens_of_span(texts[place // count], span, byte_lengths=sizes))
    return chosen


def text_lines(
    run: "Opened",
    rows: "TokenRows",
    fresh: "Bool[Tensor, 'N L']",
    ways: "Mapping[str, Resampled]",
    *,
    count: int,
) -> list[dict[str, Any]]:
    """One object a text and way."""
    from remask.bijections.resampling import kept

    held, own = rows.free & ~fresh, run.model.tokenizer
    first = rows.texts(rows.ids, own)
    lines = []
    for name, way in ways.items():
        after, kept_held, kept_fresh = rows.texts(way.ids, own), kept(rows, way.ids, held), kept(rows, way.ids, fresh)
        for place, words in enumerate(after):
            lines.append(
                {
                    "kind": "text",
                    "source": place // count,
                    "way": name,
                    "text": words,
                    "from": first[place],
                    "tokens_held": int(held[place].sum()),
                    "kept_of_held": int(kept_held[place]),
                    "tokens_fresh": int(fresh[place].sum()),
                    "kept_of_fresh": int(kept_fresh[place]),
                    "log_p": -float(way.nats[place].sum()),
                }
            )
    return lines


def summary(
    run: "Opened",
    rows: "TokenRows",
    fresh: "Bool[Tensor, 'N L']",
    ways: "Mapping[str, Resampled]",
    *,
    count: int,
) -> dict[str, Any]:
    """The share of tokens that each way keeps, and the likelihood of what it makes."""
    from remask.bijections.resampling import grouped_share, kept

    held, groups = rows.free & ~fresh, count if len(rows) > count else 1  # draws of one text are no texts of their own
    own = float(run.coder.nats(rows).sum()) / int(rows.free.sum())
    found = {}
    for name, way in ways.items():
        value, error = grouped_share(kept(rows, way.ids, held), held.sum(-1), size=groups)
        inside, inside_error = grouped_share(kept(rows, way.ids, fresh), fresh.sum(-1), size=groups)
        found[name] = {
            **{"kept_of_held": value, "kept_of_held_stderr": error},
            **{"kept_of_fresh": inside, "kept_of_fresh_stderr": inside_error},
            "nats_per_token": float(way.nats.sum()) / int(rows.free.sum()),
        }
    return {
        "kind": "summary",
        **run.protocol(),
        "texts": len(rows) // count,
        "count": count,
        "tokens_held": int(held.sum()),
        "tokens_fresh": int(fresh.sum()),
        "nats_per_token_of_texts": own,
        "ways": found,
    }


def print_words(lines: "Sequence[Mapping[str, Any]]", summed: "Mapping[str, Any]") -> None:
    """The texts where they are few, then a table of the ways."""
    from remask.cli.text import number, print_table, printable

    if summed["texts"] * summed["count"] <= SHOWN:
        for line in lines:
            typer.echo(f"{line['way']}: {printable(line['text'])}\n{'─' * 40}")
    header = ["", f"kept of {summed['tokens_held']} held", "± s.e."]
    header += [f"kept of {summed['tokens_fresh']} fresh", "± s.e.", "nats/token"]
    rows = [
        [
            name,
            *(number(way["kept_of_held"]), number(way["kept_of_held_stderr"])),
            *(number(way["kept_of_fresh"]), number(way["kept_of_fresh_stderr"])),
            number(way["nats_per_token"]),
        ]
        for name, way in summed["ways"].items()
    ]
    print_table(header, rows, right=(1, 2, 3, 4, 5))
    typer.echo(
        f"the texts themselves: {number(summed['nats_per_token_of_texts'])} nats/token; "
        f"{shared.sampler_in_words(summed)}"
    )
