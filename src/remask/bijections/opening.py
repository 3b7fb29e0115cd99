"""The bijection of a finished run, and held-out rows to use it on."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from remask.bijections.coding import Coder
from remask.bijections.noise_file import Origin
from remask.bijections.rows import TokenRows, rows_of_batch
from remask.config.build.sampling import USUAL_REVEAL, build_bijection
from remask.config.schema import Recipe
from remask.data.batch import Batch
from remask.data.cache import cache_home
from remask.errors import UserError
from remask.evaluation.likelihood import spread_indices
from remask.experiment import describe_device
from remask.judgement.text import JudgedText, open_judged_text
from remask.model import Model

OWN_SAMPLER = {
    "sampling.sampler": "bijective",
    "sampling.temperature": 1.0,
    "sampling.top_p": 1.0,
    "sampling.guidance": 0.0,
    "sampling.grid": "equal",
    "sampling.stop": False,
}
"""How a bijection draws, whatever way of drawing the recipe names: from the model's own distributions."""


def check_recipe(recipe: Recipe, *, run: str) -> None:
    """Refuses a run whose sampler no bijection runs backwards.

    Raises:
        UserError: when it is autoregressive, or its noise is not masking alone.
    """
    need = "Give a run that masks and nothing else, whatever its network, e.g. of recipe mdlm"
    if recipe.process is None:
        raise UserError(f"{run} is autoregressive: it has no rounds of unmasking that noise could run through. {need}")
    if recipe.process.kind != "masking":
        raise UserError(
            f"{run} has {recipe.process.kind} noise, under which a token is drawn more than once, so a text does not "
            f"say what was drawn. {need}"
        )


def open_coder(model: Model[Any], recipe: Recipe) -> Coder:
    """The bijection that a recipe's `sampling` names: reveal, steps, block_length.

    Raises:
        UserError: when blocks do not fit the model.
    """
    return Coder(model=model, bijection=build_bijection(recipe.sampling, model, seed=recipe.seed))


def origin_of(model: Model[Any], recipe: Recipe, *, run: str, weights: str) -> Origin:
    """What the noise of this model's texts is the noise of."""
    spec = recipe.sampling
    processor = describe_device(model.device) if model.device.type == "cuda" else f"cpu ({platform.machine()})"
    processor = "mps" if model.device.type == "mps" else processor
    return Origin(
        weights=weights,
        tokenizer=model.tokenizer.fingerprint,
        reveal=spec.reveal or USUAL_REVEAL,
        steps=spec.steps,
        block_length=spec.block_length,
        seed=recipe.seed,
        run=run,
        computed=f"{processor}, torch {torch.__version__}, {torch.get_num_threads()} threads",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Rows of held-out text.

    Attributes:
        rows: their tokens; a row is one text, in which ends of text are tokens like others.
        batch: the same, as evaluations see them.
        text: where they are from.
    """

    rows: TokenRows
    batch: Batch
    text: JudgedText


def open_held_out(model: Model[Any], recipe: Recipe, *, data_hash: str | None) -> JudgedText:
    """The text of a run's split that evaluations judge on.

    Raises:
        UserError: when it is gone, has changed, or has no such split.
    """
    return open_judged_text(model, recipe, cache=cache_home(), data_hash=data_hash)


def spread_rows(text: JudgedText, count: int) -> HeldOut:
    """`count` rows spread evenly through a split, or all where it has fewer."""
    return _held_out(text, spread_indices(len(text.rows), count))


def chosen_rows(text: JudgedText, numbers: Sequence[int]) -> HeldOut:
    """The rows of these numbers, from 0.

    Raises:
        UserError: when there is no such row.
    """
    total = len(text.rows)
    for number in numbers:
        if not 0 <= number < total:
            raise UserError(f"--rows {number}: the held-out text has {total} rows. Valid: 0 to {total - 1}")
    return _held_out(text, np.asarray(numbers, dtype=np.int64))


def _held_out(text: JudgedText, numbers: np.ndarray) -> HeldOut:
    batch = text.rows.batch(numbers)
    return HeldOut(rows=rows_of_batch(batch), batch=batch, text=text)
