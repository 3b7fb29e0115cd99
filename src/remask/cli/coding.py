"""What the commands on text and its noise share: options, the run's bijection, texts from arguments or files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from remask.bijections.coding import Coder
    from remask.bijections.noise_file import Origin
    from remask.bijections.opening import HeldOut
    from remask.bijections.rows import TokenRows
    from remask.config.schema import Recipe
    from remask.model import Model
    from remask.runs import RunFolder, RunRecord

OPTIONS: dict[str, Any] = {
    "reveal": Annotated[
        str | None,
        typer.Option(
            help="Order of unmasking: left_to_right, random, spread, confidence, margin or entropy [default: the "
            "recipe's, or random]."
        ),
    ],
    "steps": Annotated[int | None, typer.Option(help="Network calls of a text, or of each block.")],
    "seed": option.Seed,
    "device": option.Device,
}
USUAL = {"device": "auto"}


def with_coding_options(command: Any) -> Any:
    """Gives a command the options that say which bijection, and hands it their values as its argument `coding`."""
    return option.with_options("coding", OPTIONS, usual=USUAL)(command)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A run as these commands see it.

    Attributes:
        record: the run's.
        model: its finished model.
        recipe: its recipe, whose sampling is the bijection's.
        coder: the bijection.
        origin: what its noise is the noise of.
    """

    record: "RunRecord"
    model: "Model[Any]"
    recipe: "Recipe"
    coder: "Coder"
    origin: "Origin"

    def protocol(self) -> dict[str, Any]:
        """What decides whether two figures compare."""
        facts = {"run": self.record.id, "reveal": self.origin.reveal, "steps": self.origin.steps}
        blocks = {} if self.origin.block_length is None else {"block_length": self.origin.block_length}
        return {**facts, **blocks, "seed": self.origin.seed}


def sampler_in_words(told: "Mapping[str, Any]") -> str:
    """The sampler of a protocol, as `Opened.protocol` gives it, in words."""
    blocks = f" in each block of {told['block_length']}" if "block_length" in told else ""
    return f"sampler bijective, reveal {told['reveal']}, {told['steps']} steps{blocks}, seed {told['seed']}"


def opened(run: str, coding: "Mapping[str, Any]") -> Opened:
    """The bijection of a run's finished model.

    Args:
        run: which.
        coding: values of `OPTIONS`.

    Raises:
        UserError: when there is no such run, or it is autoregressive, or its noise is not masking alone.
    """
    from remask.bijections.opening import OWN_SAMPLER, check_recipe, open_coder, origin_of
    from remask.config.build import resolve_device
    from remask.config.saved import load_model
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    record = registry.find(run)
    folder = registry.folder_of(record)
    check_recipe(option.changed_recipe(folder, {}), run=record.id)
    options = {"sampling.reveal": coding["reveal"], "sampling.steps": coding["steps"], "seed": coding["seed"]}
    recipe = option.changed_recipe(folder, {**OWN_SAMPLER, **options})
    model, _ = load_model(folder.model_path, device=resolve_device(coding["device"]))
    origin = origin_of(model, recipe, run=record.id, weights=weights_of(folder))
    return Opened(record=record, model=model, recipe=recipe, coder=open_coder(model, recipe), origin=origin)


def weights_of(folder: "RunFolder") -> str:
    """The digest of a finished model's weights, which `load_model` holds them against."""
    saved = folder.model_path / "config.json"
    return json.loads(saved.read_text(encoding="utf-8"))["weights"]


def wanted_texts(texts: "Sequence[str] | None", file: Path | None, rows: int | None) -> list[str] | None:
    """Texts from arguments or a file, one a line; None for held-out rows.

    Raises:
        UserError: when none or more than one of the three is given, or the file holds none.
    """
    from remask.errors import UserError

    given = [name for name, value in (("TEXT", texts), ("--texts", file), ("--rows", rows)) if value]
    if rows is not None and rows < 1:
        raise UserError(f"--rows {rows}: give 1 or more")
    if len(given) != 1:
        said = f"{' and '.join(given)} are given" if given else "no text is given"
        raise UserError(
            f"{said}: give TEXT (behind the run), --texts FILE with one text a line, or --rows N of held-out text"
        )
    if rows is not None:
        return None
    return list(texts) if texts else read_texts(file)


def read_texts(path: Path | None) -> list[str]:
    """The lines of a file, empty ones left out.

    Raises:
        UserError: when the file cannot be read, is not UTF-8, or holds no text.
    """
    from remask.data.readers import text_lines
    from remask.errors import UserError

    assert path is not None, "one of the three is given"
    found = [line.rstrip("\r\n") for line in text_lines(path)]
    kept = [line for line in found if line]
    if not kept:
        raise UserError(f"{path} holds no text: write one a line")
    return kept


def rows_for(run: Opened, texts: "Sequence[str] | None", count: int | None) -> "tuple[TokenRows, HeldOut | None]":
    """Rows of the given texts, or of held-out text.

    Raises:
        UserError: when a text is empty, too long, or has a character that the tokenizer lacks.
    """
    from remask.bijections.opening import open_held_out, spread_rows
    from remask.bijections.rows import rows_of_texts

    if texts is not None:
        return rows_of_texts(texts, run.model.tokenizer, length=run.model.length), None
    assert count is not None, "either texts or rows are wanted"
    held_out = spread_rows(open_held_out(run.model, run.recipe, data_hash=run.record.data_hash), count)
    return held_out.rows, held_out


def print_json(lines: "Sequence[Mapping[str, Any]]", summed: "Mapping[str, Any]") -> None:
    """One object a text, then the summary."""
    from remask.cli.text import as_json

    for line in (*lines, summed):
        typer.echo(as_json(line))
