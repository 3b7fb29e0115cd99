r"""Likelihood on held-out text: exact where the model allows it, else an upper bound, in three units.

With row sums n_r (nats), k_r (tokens) and b_r (bytes), each figure is a ratio of sums over rows, and its standard error
is that of a ratio estimator over R rows (Cochran, Sampling Techniques, equation 6.13):

    r̂ = Σ n_r / Σ k_r,     se(r̂) = √( R/(R − 1) · Σ (n_r − r̂ k_r)² ) / Σ k_r.

Rows of one document depend on each other where they overlap or follow each other: the error is then over documents,
each with the sums of its rows.

A network that sees both sides of a position is shown by its segments where the documents of a row end, so what it
bounds is −log p(x | ends). The ends are part of x: −log p(x) = −log p(ends) − log p(x | ends), and the first term is
paid by a model that ends a document after each token with one probability (see `ends_nats`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from remask.data.batch import Batch
from remask.data.packing import Rows
from remask.evaluation.measurement import Examples, Measurement, identity_of
from remask.objectives.base import Network, Objective
from remask.randomness import keyed_generator, widest_float

ROWS_AT_ONCE = 32
"""Rows of one evaluation batch; fixed, because noise is keyed by the batch and figures must not depend on memory."""


@runtime_checkable
class Judged(Protocol):
    """A model as an evaluation sees it."""

    @property
    def network(self) -> torch.nn.Module:
        """Emits leave-one-out logits."""
        ...

    @property
    def objective(self) -> Objective:
        """Measures the likelihood."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class RowSums:
    """What each judged row adds.

    Attributes:
        nats: −log p(x) or its bound, one a row [R].
        tokens: target tokens [R].
        bytes: UTF-8 bytes of text [R].
        terms: the parts of the nats, summed over rows.
        rows: the same of each row [R].
        documents: the document that each row lies in, where a row lies in one; None: rows are independent [R].
    """

    nats: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]
    bytes: npt.NDArray[np.float64]
    terms: Mapping[str, float]
    rows: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    documents: npt.NDArray[np.int64] | None = None


def evaluation_batches(rows: Rows, *, limit: int | None) -> Iterator[Batch]:
    """Batches over rows spread evenly through the split: all of them, or `limit`."""
    chosen = spread_indices(len(rows), limit)
    for start in range(0, len(chosen), ROWS_AT_ONCE):
        yield rows.batch(chosen[start : start + ROWS_AT_ONCE])


def spread_indices(total: int, limit: int | None) -> npt.NDArray[np.int64]:
    """`limit` indices evenly spaced in range(total), or all where `limit` is None or larger."""
    count = total if limit is None else min(limit, total)
    return np.arange(count, dtype=np.int64) * total // max(count, 1)


def placed_parts(batches: Sequence[Batch], *, at_once: int) -> Iterator[tuple[int, Batch]]:
    """The batches a few rows at a time, each with the place of its batch: the key of the noise that they share."""
    return ((place, part) for place, batch in enumerate(batches) for part in batch.parts(at_once))


@torch.no_grad()
def row_likelihoods(
    model: Judged,
    batches: Sequence[Batch],
    *,
    draws: int,
    seed: int,
    end_share: float | None = None,
    at_once: int = ROWS_AT_ONCE,
) -> RowSums:
    """Sums of the likelihood terms over each row, in evaluation mode (no dropout).

    Args:
        model: network and objective.
        batches: the judged rows.
        draws: noise draws a row, for a bound.
        seed: with the batch's place, the key of all noise.
        end_share: the share of training tokens that end a document: a bound then has a term `ends`, for the ends that
            the network was shown (an exact likelihood shows none). None leaves it out: no segment may show an end.
        at_once: rows of a batch that the network sees together; their noise is the same whatever it is.
    """
    was_training = model.network.training
    model.network.eval()
    network: Network = model.network  # pyright: ignore[reportAssignmentType]
    nats, tokens, lengths = [], [], []
    rows: dict[str, list[torch.Tensor]] = {}
    for place, part in placed_parts(batches, at_once=at_once):
        here = part.to(model.device)
        generator = keyed_generator(seed, "evaluation", place, device=model.device)
        terms = model.objective.likelihood_terms(network, here, generator=generator, draws=draws)
        if end_share is not None and not model.objective.exact:
            terms = {**terms, "ends": ends_nats(here, end_share=end_share)}
        wide = {name: term.to(widest_float(model.device)).sum(-1) for name, term in terms.items()}
        nats.append(sum(wide.values()))
        tokens.append(here.targets.sum(-1))
        lengths.append((here.byte_lengths * here.targets).sum(-1))
        for name, term in wide.items():
            rows.setdefault(name, []).append(term)
    model.network.train(was_training)
    arrays = {name: _numpy(parts) for name, parts in rows.items()}
    sums = {name: float(values.sum()) for name, values in arrays.items()}
    return RowSums(nats=_numpy(nats), tokens=_numpy(tokens), bytes=_numpy(lengths), terms=sums, rows=arrays)


def ends_nats(batch: Batch, *, end_share: float) -> Float[Tensor, "B L"]:
    """−log p of what the segments show: after each token but a row's last, whether its document ends there.

    Args:
        batch: the judged rows.
        end_share: p of an end after any token, in (0, 1).
    """
    ended = batch.segments[:, 1:] != batch.segments[:, :-1]
    nats = torch.where(ended, -math.log(end_share), -math.log1p(-end_share)) * batch.targets[:, :-1]
    return torch.nn.functional.pad(nats, (0, 1))


def ratio(
    numerator: npt.NDArray[np.float64],
    denominator: npt.NDArray[np.float64],
    *,
    documents: npt.NDArray[np.int64] | None = None,
) -> tuple[float, float | None]:
    """The ratio of sums and its standard error; the error is None for fewer than two rows.

    Args:
        numerator: of each row [R].
        denominator: of each row [R].
        documents: the document of each row [R]: the error is over them, where there are two or more.
    """
    value = float(numerator.sum() / denominator.sum())
    if _several(documents):
        numerator, denominator = (_of_documents(each, documents) for each in (numerator, denominator))
    rows = len(numerator)
    if rows < 2:
        return value, None
    spread = float(((numerator - value * denominator) ** 2).sum())
    return value, math.sqrt(rows / (rows - 1) * spread) / float(denominator.sum())


def errors_over(documents: npt.NDArray[np.int64] | None) -> dict[str, str]:
    """What a protocol says of errors that are not over rows."""
    return {"errors_over": f"{len(np.unique(documents))} documents"} if _several(documents) else {}


def examples_over(
    documents: npt.NDArray[np.int64] | None,
    *,
    identity: str | None,
    values: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
) -> Examples | None:
    """What each row adds to a ratio of sums, for comparisons in pairs; of rows that share documents, each document.

    Args:
        documents: the document of each row [R]: rows of one depend on each other, and are added up.
        identity: which rows these are; None: nothing is kept.
        values: numerators [R].
        weights: denominators [R].
    """
    if identity is None:
        return None
    if _several(documents):
        values, weights = (_of_documents(each, documents) for each in (values, weights))
        identity = identity_of(identity, "documents")
    return Examples(identity=identity, values=values.tolist(), weights=weights.tolist())


def _of_documents(rows: npt.NDArray[np.float64], documents: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The sums over the rows of each document."""
    place = np.unique(documents, return_inverse=True)[1]
    return np.bincount(place, weights=rows).astype(np.float64)


def _several(documents: npt.NDArray[np.int64] | None) -> TypeGuard[npt.NDArray[np.int64]]:
    return documents is not None and len(np.unique(documents)) > 1


def perplexity(nats_per_token: float) -> float:
    """e^nats; infinite where that is beyond a float."""
    return math.exp(nats_per_token) if nats_per_token < 700 else math.inf


def likelihood_measurements(
    sums: RowSums,
    *,
    trivial_nats: Mapping[str, float],
    protocol: Mapping[str, Any],
    identity: str | None = None,
) -> list[Measurement]:
    """`nats_per_token`, `bits_per_byte` and `perplexity` (a token), each beside its trivial values.

    Args:
        sums: of the judged rows.
        trivial_nats: sums of −log p over the same rows, by predictor.
        protocol: split, rows, draws, seed, and whether the figure is exact or a bound.
        identity: which rows these are, for comparisons in pairs; without it the figures have no examples.
    """
    tokens, text = float(sums.tokens.sum()), float(sums.bytes.sum())
    bits_of_rows = sums.nats / math.log(2)
    nats, nats_error = ratio(sums.nats, sums.tokens, documents=sums.documents)
    bits, bits_error = ratio(bits_of_rows, sums.bytes, documents=sums.documents)
    shared = {"n": len(sums.nats), "protocol": {**protocol, **errors_over(sums.documents)}}
    perplexity_error = None if nats_error is None else perplexity(nats) * nats_error  # delta method
    return [
        Measurement(
            name="nats_per_token",
            value=nats,
            unit="nats/token",
            stderr=nats_error,
            trivial={name: value / tokens for name, value in trivial_nats.items()},
            examples=examples_over(sums.documents, identity=identity, values=sums.nats, weights=sums.tokens),
            **shared,
        ),
        Measurement(
            name="bits_per_byte",
            value=bits,
            unit="bits/byte",
            stderr=bits_error,
            trivial={name: value / math.log(2) / text for name, value in trivial_nats.items()},
            examples=examples_over(sums.documents, identity=identity, values=bits_of_rows, weights=sums.bytes),
            **shared,
        ),
        Measurement(
            name="perplexity",
            value=perplexity(nats),
            unit="per token",
            stderr=perplexity_error,
            trivial={name: perplexity(value / tokens) for name, value in trivial_nats.items()},
            **shared,
        ),
    ]


def part_measurements(
    sums: RowSums,
    parts: Mapping[str, Sequence[str]],
    *,
    trivial_rows: Mapping[str, Mapping[str, float]],
    trivial_nats: Mapping[str, float],
    protocol: Mapping[str, Any],
) -> list[Measurement]:
    """`PART_nats_per_token` of each part of a likelihood; the parts and the ends of documents add up to the whole.

    Args:
        sums: of the judged rows.
        parts: part → its terms.
        trivial_rows: part → predictor → nats a row.
        trivial_nats: sums of −log p over the same rows, by predictors that know no parts: for those without their own.
        protocol: as of the likelihood.
    """
    tokens, found = float(sums.tokens.sum()), []
    for part, names in parts.items():
        nats = np.sum([sums.rows[name] for name in names], axis=0)
        value, error = ratio(nats, sums.tokens, documents=sums.documents)
        own = {name: each * len(sums.nats) / tokens for name, each in trivial_rows.get(part, {}).items()}
        found.append(
            Measurement(
                name=f"{part}_nats_per_token",
                value=value,
                unit="nats/token",
                n=len(sums.nats),
                stderr=error,
                trivial=own or {name: total / tokens for name, total in trivial_nats.items()},
                protocol={**protocol, **errors_over(sums.documents)},
            )
        )
    return found


def _numpy(parts: Sequence[torch.Tensor]) -> npt.NDArray[np.float64]:
    return torch.cat([part.cpu() for part in parts]).numpy().astype(np.float64)
