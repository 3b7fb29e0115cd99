"""`remask encode`: the noise from which a model's sampler would draw a text."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import coding as shared
from remask.cli import options as option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Int
    from torch import Tensor

    from remask.bijections.coding import Coded
    from remask.bijections.opening import HeldOut
    from remask.bijections.rows import TokenRows
    from remask.cli.coding import Opened

SHOWN = 20
"""Texts that get a line of their own; of more, those that do not return."""


@shared.with_coding_options
def encode(
    run: option.RunReference = "last",
    text: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts to encode.")] = None,
    texts: Annotated[Path | None, typer.Option(metavar="FILE", help="A file with one text a line.")] = None,
    rows: Annotated[int | None, typer.Option(help="So many rows of held-out text.")] = None,
    noise: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the noise there, as safetensors, for remask decode.")
    ] = None,
    as_json: option.AsJson = False,
    *,
    coding: "Mapping[str, Any]",
) -> None:
    """Recover the noise behind texts, with the exact log-probability that the sampler draws them.

    It works for every masked-diffusion model, one with a standard transformer included. Temperature and nucleus of the
    recipe are not read: the distributions are the model's own.
    """
    wanted = shared.wanted_texts(text, texts, rows)
    check_target(noise)
    opened = shared.opened(run, coding)
    found, held_out = shared.rows_for(opened, wanted, rows)
    from remask.bijections.coding import draw_noise
    from remask.bijections.exceptions import differing, in_float32
    from remask.bijections.noise_file import write_noise

    coded = opened.coder.encode(found, within=draw_noise(found, opened.origin.seed, "within"))
    if noise is not None:
        write_noise(noise, origin=opened.origin, rows=found, coded=coded)
    wrong = differing(opened.coder, found, coded.noise)
    wrong_float32 = differing(opened.coder, found, in_float32(coded))
    lines = text_lines(opened, found, coded, wrong=wrong, wrong_float32=wrong_float32)
    summed = summary(opened, found, coded, held_out, wrong=wrong, wrong_float32=wrong_float32)
    (shared.print_json if as_json else print_words)(lines, {**summed, "noise": None if noise is None else str(noise)})


def check_target(path: Path | None) -> None:
    """Refuses a place that cannot be written before anything is computed.

    Raises:
        UserError: when its folder is missing, or it is a folder.
    """
    from remask.errors import UserError

    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        said = "is a folder" if path.is_dir() else f"lies in {path.parent}, which is no folder"
        raise UserError(f"--noise {path} {said}: give a file in a folder that is there")


def text_lines(
    run: "Opened", rows: "TokenRows", coded: "Coded", *, wrong: "Int[Tensor, 'N']", wrong_float32: "Int[Tensor, 'N']"
) -> list[dict[str, Any]]:
    """One object a text."""
    lines = []
    nats, tokens = coded.nats.sum(-1).tolist(), rows.free.sum(-1).tolist()
    sizes = (rows.byte_lengths * rows.free).sum(-1).tolist()
    for place, words in enumerate(rows.texts(rows.ids, run.model.tokenizer)):
        lines.append(
            {
                "kind": "text",
                "text": words,
                "tokens": tokens[place],
                "bytes": sizes[place],
                "log_p": -nats[place],
                **per_unit(nats[place], tokens[place], sizes[place]),
                "bits_per_byte_uniform": bits_per_byte(uniform_nats(run, tokens[place]), sizes[place]),
                "returns": int(wrong[place]) == 0,
                "tokens_differing": int(wrong[place]),
                "tokens_differing_float32": int(wrong_float32[place]),
            }
        )
    return lines


def summary(
    run: "Opened",
    rows: "TokenRows",
    coded: "Coded",
    held_out: "HeldOut | None",
    *,
    wrong: "Int[Tensor, 'N']",
    wrong_float32: "Int[Tensor, 'N']",
) -> dict[str, Any]:
    """All texts together: their likelihood, the exceptions, and how uniform their noise is."""
    from remask.bijections.exceptions import noise_of_uniform_predictor, uniformity

    tokens, size = int(rows.free.sum()), int((rows.byte_lengths * rows.free).sum())
    ids, within, own = rows.ids[rows.free], coded.within[rows.free], run.model.tokenizer
    noise = uniformity(coded.noise[rows.free])
    trivial = uniformity(noise_of_uniform_predictor(ids, within, vocab_size=own.vocab_size, mask_id=own.mask_id))
    predictors = {"uniform": uniform_nats(run, tokens)}
    if held_out is not None:
        predictors = held_out.text.predictors.nats([held_out.batch])
    nats = float(coded.nats.sum())
    return {
        "kind": "summary",
        **run.protocol(),
        "texts": len(rows),
        "tokens": tokens,
        "bytes": size,
        "log_p": -nats,
        **per_unit(nats, tokens, size),
        "trivial_bits_per_byte": {name: bits_per_byte(value, size) for name, value in predictors.items()},
        "exceptions": int((wrong > 0).sum()),
        "exceptions_float32": int((wrong_float32 > 0).sum()),
        "tokens_differing": int(wrong.sum()),
        "tokens_differing_float32": int(wrong_float32.sum()),
        "ks_statistic": noise.statistic,
        "ks_p": noise.p,
        "ks_statistic_uniform": trivial.statistic,
    }


def per_unit(nats: float, tokens: int, size: int) -> dict[str, float | None]:
    """Nats a token and bits a byte."""
    return {"nats_per_token": nats / tokens if tokens else None, "bits_per_byte": bits_per_byte(nats, size)}


def bits_per_byte(nats: float, size: int) -> float | None:
    """Nats over some bytes in bits a byte; None without bytes, as of a lone end of text."""
    return nats / math.log(2) / size if size else None


def uniform_nats(run: "Opened", tokens: int) -> float:
    """What a predictor of equal probabilities pays for some tokens."""
    return tokens * math.log(run.model.tokenizer.vocab_size - 1)


def print_words(lines: "Sequence[Mapping[str, Any]]", summed: "Mapping[str, Any]") -> None:
    """A table of the texts, then what holds of all of them."""
    from remask.cli.text import number, print_table

    shown = lines if len(lines) <= SHOWN else [line for line in lines if not line["returns"]]
    if shown:
        header = ["log P", "tokens", "bits/byte", "uniform", "returns", "text"]
        print_table(
            header,
            [
                [
                    *(f"{line['log_p']:.2f}", str(line["tokens"])),
                    *(number(line["bits_per_byte"]), number(line["bits_per_byte_uniform"])),
                    "yes" if line["returns"] else f"{line['tokens_differing']} differ",
                    line["text"],
                ]
                for line in shown
            ],
            right=(0, 1, 2, 3),
        )
        typer.echo()
    trivial = ", ".join(f"{name} {number(value)}" for name, value in summed["trivial_bits_per_byte"].items())
    typer.echo(f"{summed['texts']} texts, {summed['tokens']} tokens under {shared.sampler_in_words(summed)}")
    typer.echo(f"exact: {number(summed['bits_per_byte'])} bits/byte, {number(summed['nats_per_token'])} nats/token")
    typer.echo(f"trivial bits/byte: {trivial}")
    typer.echo(
        f"texts that decoding does not return: {summed['exceptions']} of {summed['texts']}; with the noise kept in "
        f"float32: {summed['exceptions_float32']}"
    )
    typer.echo(
        f"noise against uniform: largest distance {summed['ks_statistic']:.4f} (p {summed['ks_p']:.2g}); behind a "
        f"uniform predictor: {summed['ks_statistic_uniform']:.4f}"
    )
    if summed["noise"] is not None:
        typer.echo(f"kept: {summed['noise']}")
