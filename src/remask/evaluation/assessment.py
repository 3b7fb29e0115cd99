"""Figures of models that give text no likelihood: of reconstruction, of hidden tokens, of finding a view's partner.

They are ratios of sums over rows, as the likelihood is (`remask.evaluation.likelihood`), with names and units of their
own, so that nothing takes them for one.

Shape letters: R rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from remask.data.batch import Batch
from remask.evaluation.likelihood import ROWS_AT_ONCE, Judged, errors_over, examples_over, placed_parts, ratio
from remask.evaluation.measurement import Measurement
from remask.objectives.base import Assessed, Network, Objective
from remask.objectives.prompt_dropout import unwrapped
from remask.objectives.thought import ThoughtDiffusion
from remask.randomness import keyed_generator, widest_float


@dataclass(frozen=True, kw_only=True, eq=False)
class AssessedRows:
    """What each judged row adds.

    Attributes:
        nats: numerators [R].
        weights: denominators: tokens that were predicted, or draws [R].
        documents: the document of each row [R], where they share some; None: each row is by itself.
    """

    nats: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    documents: npt.NDArray[np.int64] | None = None


def assessed(objective: Objective) -> Assessed | None:
    """An objective as one that is judged by a figure of its own; None where it measures a likelihood."""
    plain = unwrapped(objective)
    return plain if isinstance(plain, Assessed) else None


def draws_text(objective: Objective) -> bool:
    """Whether text can be drawn from a model of an objective: it has a likelihood, or starts from noise."""
    return assessed(objective) is None or isinstance(unwrapped(objective), ThoughtDiffusion)


@torch.no_grad()
def row_assessments(
    model: Judged, batches: Sequence[Batch], *, draws: int, seed: int, at_once: int = ROWS_AT_ONCE
) -> AssessedRows:
    """The sums of each row, in evaluation mode (no dropout).

    Args:
        model: its objective must be `Assessed`.
        batches: the judged rows.
        draws: of what is hidden or deleted, a row.
        seed: with the batch's place, the key of all draws.
        at_once: as for `row_likelihoods`; of an objective that compares the rows of a batch, all of them.
    """
    objective = assessed(model.objective)
    assert objective is not None, "a model with a likelihood is judged by that"
    was_training = model.network.training
    model.network.eval()
    nats, weights = [], []
    for place, part in placed_parts(batches, at_once=at_once):
        generator = keyed_generator(seed, "evaluation", place, device=model.device)
        network = cast(Network, model.network)
        found = objective.assess(network, part.to(model.device), generator=generator, draws=draws)
        nats.append(found.nats)
        weights.append(found.weight)
    model.network.train(was_training)
    wide = widest_float(model.device)
    return AssessedRows(
        nats=torch.cat([part.to(wide) for part in nats]).cpu().numpy().astype(np.float64),
        weights=torch.cat([part.to(wide) for part in weights]).cpu().numpy().astype(np.float64),
    )


def assessment_measurement(
    rows: AssessedRows,
    *,
    objective: Assessed,
    unit: str,
    trivial: Mapping[str, float],
    protocol: Mapping[str, Any],
    identity: str | None = None,
) -> Measurement:
    """The figure of a model that has no likelihood, beside its trivial values.

    Args:
        rows: of the judged text.
        objective: names the figure.
        unit: of the figure.
        trivial: what trivial predictors get, in the same unit.
        protocol: everything that decides whether two figures compare.
        identity: which rows these are, for comparisons in pairs; without it the figure has no examples.
    """
    value, stderr = ratio(rows.nats, rows.weights, documents=rows.documents)
    return Measurement(
        name=objective.quantity,
        value=value,
        unit=unit,
        n=len(rows.nats),
        stderr=stderr,
        trivial=dict(trivial),
        protocol={**protocol, **errors_over(rows.documents)},
        examples=examples_over(rows.documents, identity=identity, values=rows.nats, weights=rows.weights),
    )


@torch.no_grad()
def rebuilt_text(model: Judged, batch: Batch, *, seed: int) -> torch.Tensor | None:
    """The tokens of a batch's first row as the model writes them again, greedily, from what it is told of the row.

    Args:
        model: its objective must be `Assessed`.
        batch: a row or more, of which the first is shown.
        seed: of what is hidden or deleted.

    Returns:
        ids of the row's real places, on the CPU; None of a model that writes nothing.
    """
    objective = assessed(model.objective)
    assert objective is not None, "a model with a likelihood draws samples"
    was_training = model.network.training
    model.network.eval()
    here = batch.to(model.device)
    generator = keyed_generator(seed, "reconstruction", device=model.device)
    ids = objective.rebuild(cast(Network, model.network), here, generator=generator)
    model.network.train(was_training)
    return None if ids is None else ids[0][here.segments[0] > 0].cpu()
