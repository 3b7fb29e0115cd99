"""The row of a batch that operations are counted of.

Shape letters: B rows, L tokens a row.
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from remask.data.batch import Batch
from remask.model import Model
from remask.objectives.base import Loss, Objective
from remask.objectives.concepts.prior import ConceptPrior
from remask.objectives.prompt_dropout import unwrapped
from remask.objectives.text_autoencoder import TextReconstruction
from remask.objectives.thought import ThoughtDiffusion
from remask.randomness import keyed_generator

DRAWS = 64
"""Draws of noise over which the usual number of positions with logits is taken."""


def typical_row(model: Model, batch: Batch) -> Batch:
    """A row of the batch, alone, at a place of a larger batch at which noise hides about as much as in the mean.

    Args:
        model: says what noise does; the row goes to its device.
        batch: rows of which one has about the mean number of targets.
    """
    targets = batch.targets.sum(1)
    nearest = int((targets - targets.float().mean()).abs().argmin())
    alone = batch.to(model.device)
    tables = {name: getattr(alone, name)[[nearest]] for name in ("ids", "segments", "targets", "byte_lengths")}
    row = replace(alone, **tables, rows=torch.zeros(1, dtype=torch.int64, device=model.device), global_size=DRAWS)
    many = replace(
        row,
        **{name: table.expand(DRAWS, -1) for name, table in tables.items()},
        rows=torch.arange(DRAWS, device=model.device),
    )
    asked = _first_question(model, many).sum(1)
    usual = (asked - asked.float().mean()).abs().argmin()
    return replace(row, rows=usual[None])


def mean_targets(batch: Batch) -> float:
    """Target tokens a row."""
    return float(batch.targets.sum()) / len(batch)


def loss_of(objective: Objective, row: Batch, *, network: Any) -> Loss:
    """An objective's loss of a row under noise that is always the same."""
    return objective(network, row, generator=keyed_generator("flops", device=row.ids.device))


class _Asked(Exception):
    """A network was called."""

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.positions = positions


def _first_question(model: Model, batch: Batch) -> Bool[Tensor, "B L"]:
    """Where an objective first wants logits; nowhere, where it trains on vectors, which cost the same at any time."""
    if isinstance(unwrapped(model.objective), ConceptPrior | ThoughtDiffusion | TextReconstruction):
        return torch.zeros_like(batch.targets)

    def ask(*_: Any, positions: Tensor, **__: Any) -> Tensor:
        raise _Asked(positions)

    try:
        loss_of(model.objective, batch, network=ask)
    except _Asked as asked:
        return asked.positions
    return torch.zeros_like(batch.targets)
