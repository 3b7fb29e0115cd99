r"""What a model's concepts are worth in nats: its conditional bound under concepts that were changed.

Every variant of the concepts is judged on the same rows under the same noise, so a difference is a mean of paired ones:

    shuffle gap   NLL(concepts of another text) − NLL(own)         0 for concepts that carry nothing of this text
    none gap      NLL(no concept) − NLL(own)
    slot gap      NLL(all but slot c) − NLL(own)                   0 for a slot that nothing reads
    recovered     R(C) = (NLL_none − NLL_C) / (NLL_none − NLL_full),                                          (1)

the last against two other models on the same rows: one that is shown no context and one that attends to all of it.

Shape letters: B rows of a batch, R rows judged, S slots left out in turn, C concepts.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from remask.data.batch import Batch
from remask.data.given import split_given
from remask.evaluation.concepts import ROWS_FOR_RANK, geometry
from remask.evaluation.likelihood import Judged, ends_nats, errors_over, examples_over, ratio
from remask.evaluation.measurement import NEGLIGIBLE, Measurement
from remask.objectives.concepts.bound import ConceptBound
from remask.objectives.concepts.contract import ConceptReader
from remask.objectives.prompt_dropout import unwrapped
from remask.randomness import keyed_generator, widest_float

Change = Callable[[Any, Any], Any]
"""(a batch's own concepts, those of other rows) → the concepts that it is decoded from."""
MOST_SLOTS = 16
"""Slots that are left out in turn at most, spread evenly over all."""
OWN, SHUFFLED, NONE = "own", "shuffled", "none"
_NORMAL = 1.96


def own(mine: Any, others: Any) -> Any:
    """The row's own."""
    del others
    return mine


def shuffled(mine: Any, others: Any) -> Any:
    """Another row's."""
    del mine
    return others


def keeping(count: int) -> Change:
    """The first `count` of the row's own."""

    def change(mine: Any, others: Any) -> Any:
        del others
        return mine.keep(torch.full((len(mine.real),), count, device=mine.real.device))

    return change


def lacking(slot: int) -> Change:
    """All of the row's own but one."""
    return lambda mine, others: mine.without(slot)


def ladder(concepts: int) -> list[int]:
    """1, 2, 4, … below C, and C."""
    return [2**k for k in range(math.ceil(math.log2(concepts)))] + [concepts] if concepts > 1 else [concepts]


def spread_slots(concepts: int) -> list[int]:
    """Up to `MOST_SLOTS` slots, evenly spaced."""
    count = min(concepts, MOST_SLOTS)
    return [k * concepts // count for k in range(count)]


@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptSums:
    """What each judged row costs under each variant of the concepts.

    Attributes:
        nats: the bound of each row, ends included, by variant [R].
        tokens: target tokens [R].
        documents: the document that each row lies in, where rows of one overlap or follow each other; None: rows are
            taken for independent [R].
    """

    nats: Mapping[str, npt.NDArray[np.float64]]
    tokens: npt.NDArray[np.float64]
    documents: npt.NDArray[np.int64] | None = None


@torch.no_grad()
def row_nats(
    model: Judged,
    batches: Sequence[Batch],
    others: Sequence[Batch],
    *,
    changes: Mapping[str, Change],
    draws: int,
    seed: int,
    end_share: float | None,
) -> ConceptSums:
    """The conditional bound of each row under each change of its concepts, on the same noise, without dropout.

    Args:
        model: network and objective; the objective is a `ConceptBound`.
        batches: the judged rows.
        others: as many rows, whose concepts take the place of a row's own.
        changes: by the variant's name.
        draws: noise draws a row.
        seed: with the batch's place, the key of all noise: that of `row_likelihoods`.
        end_share: as for `row_likelihoods`.
    """
    objective = unwrapped(model.objective)
    assert isinstance(objective, ConceptBound), "checked before"
    was_training = model.network.training
    model.network.eval()
    reader = cast(ConceptReader, model.network)
    nats: dict[str, list[Tensor]] = {name: [] for name in changes}
    tokens = []
    for place, (batch, other) in enumerate(zip(batches, others, strict=True)):
        here = batch.to(model.device)
        given, theirs = split_given(here), split_given(other.to(model.device))
        mine = reader.encode(given.source, real=given.source_real)
        foreign = reader.encode(theirs.source, real=theirs.source_real)
        ends = 0.0 if end_share is None else ends_nats(here, end_share=end_share)
        for name, change in changes.items():
            generator = keyed_generator(seed, "evaluation", place, device=model.device)
            terms = objective.terms_given(reader, given, change(mine, foreign), generator=generator, draws=draws)
            wide = torch.stack([term.to(widest_float(model.device)) for term in terms.values()]).sum(0)
            nats[name].append((wide + ends).sum(-1).double().cpu())
        tokens.append(here.targets.sum(-1).double().cpu())
    model.network.train(was_training)
    return ConceptSums(
        nats={name: torch.cat(parts).numpy() for name, parts in nats.items()}, tokens=torch.cat(tokens).numpy()
    )


@torch.no_grad()
def row_vectors(model: Judged, batches: Sequence[Batch]) -> Float[Tensor, "R C D"]:
    """The concept vectors of the rows that have all of them, on the CPU: of what is given, else of the whole row."""
    was_training = model.network.training
    model.network.eval()
    reader = cast(ConceptReader, model.network)
    found = []
    for batch in batches:
        source, real = read_tokens(batch.to(model.device))
        concepts = reader.encode(source, real=real)
        found.append(concepts.vectors[concepts.real.all(-1)].float().cpu())
    model.network.train(was_training)
    return torch.cat(found)


def comparable_slots(network: object) -> int:
    """C of texts that have all concepts; 0 where there is none, or any number: slots of two texts are not the same."""
    return getattr(network, "most_concepts", getattr(network, "concepts", None)) or 0


def concept_figures(model: Judged, batches: Sequence[Batch]) -> dict[str, float]:
    """Effective rank and share η of a training model's concepts on held-out rows that have all of them.

    Empty for a model without concepts, and of few rows, of which noise has no rank either.

    Args:
        model: network and objective.
        batches: held-out rows.
    """
    if not comparable_slots(model.network) or not isinstance(model.network, ConceptReader):
        return {}
    vectors = row_vectors(model, batches)
    if len(vectors) < ROWS_FOR_RANK:
        return {}
    found = geometry(vectors)
    return {"effective_rank": found.effective_rank, "input_share": found.input_share}


def read_tokens(batch: Batch) -> tuple[Tensor, Tensor]:
    """What an encoder is shown of rows, and what of it is real: given tokens where there are any, else all of a row."""
    given = split_given(batch)
    if bool(given.source_real.any()):
        return given.source, given.source_real
    return batch.ids, batch.segments > 0


def gap_measurements(sums: ConceptSums, *, protocol: Mapping[str, Any], identity: str) -> list[Measurement]:
    """`shuffle_gap` and `none_gap`, in nats a token; 0 for concepts that nothing is read from.

    Args:
        sums: with the variants `OWN`, `SHUFFLED` and `NONE`.
        protocol: of the likelihood.
        identity: which rows these are.
    """
    named = {"shuffle_gap": (SHUFFLED, "unread concepts"), "none_gap": (NONE, "unread concepts")}
    return [
        _gap(name, sums.nats[variant] - sums.nats[OWN], sums, beside=beside, protocol=protocol, identity=identity)
        for name, (variant, beside) in named.items()
    ]


def slot_measurements(sums: ConceptSums, *, protocol: Mapping[str, Any], identity: str) -> list[Measurement]:
    """`slot_gap` of each slot that was left out, in nats a token; 0 for a slot that nothing is read from.

    Args:
        sums: with the variants `OWN` and `slot N`.
        protocol: of the likelihood; the slot is added.
        identity: which rows these are.
    """
    return [
        _gap(
            "slot_gap",
            nats - sums.nats[OWN],
            sums,
            beside="unread slot",
            protocol={**protocol, "slot": int(name.removeprefix("slot "))},
            identity=identity,
        )
        for name, nats in sums.nats.items()
        if name.startswith("slot ")
    ]


def _gap(
    name: str,
    difference: npt.NDArray[np.float64],
    sums: ConceptSums,
    *,
    beside: str,
    protocol: Mapping[str, Any],
    identity: str,
) -> Measurement:
    """A mean of paired differences."""
    value, error = ratio(difference, sums.tokens, documents=sums.documents)
    return Measurement(
        name=name,
        value=value,
        unit="nats/token",
        n=len(sums.tokens),
        stderr=error,
        trivial={beside: 0.0},
        protocol={**protocol, **errors_over(sums.documents)},
        examples=examples_over(sums.documents, identity=identity, values=difference, weights=sums.tokens),
    )


def kept_measurements(
    sums: ConceptSums, *, trivial_nats: Mapping[str, float], protocol: Mapping[str, Any], identity: str
) -> list[Measurement]:
    """`nats_at_kept`: the bound a token when a row keeps its first k concepts, for each k.

    Args:
        sums: with the variants `kept N`.
        trivial_nats: sums of −log p over the same rows, by predictor.
        protocol: of the likelihood; k is added.
        identity: which rows these are.
    """
    figures = []
    for name, nats in sums.nats.items():
        if not name.startswith("kept "):
            continue
        value, error = ratio(nats, sums.tokens, documents=sums.documents)
        figures.append(
            Measurement(
                name="nats_at_kept",
                value=value,
                unit="nats/token",
                n=len(nats),
                stderr=error,
                trivial={key: total / float(sums.tokens.sum()) for key, total in trivial_nats.items()},
                protocol={**protocol, "kept": int(name.removeprefix("kept ")), **errors_over(sums.documents)},
                examples=examples_over(sums.documents, identity=identity, values=nats, weights=sums.tokens),
            )
        )
    return figures


def recovered(
    sums: ConceptSums,
    *,
    none: npt.NDArray[np.float64],
    full: npt.NDArray[np.float64],
    protocol: Mapping[str, Any],
    identity: str,
) -> Measurement:
    """R(C) of (1), a ratio of sums over rows with that ratio's standard error.

    Args:
        sums: with the variant `OWN`.
        none: nats of each row under a model that is shown no context [R].
        full: under one that attends to all of it [R].
        protocol: of the likelihood, with the names of both models.
        identity: which rows these are.
    """
    gained, possible = none - sums.nats[OWN], none - full
    value, error = ratio(gained, possible, documents=sums.documents)
    return Measurement(
        name="recovered_share",
        value=value,
        unit="share",
        n=len(none),
        stderr=None if error is None else abs(error),
        trivial={"no context": 0.0, "full attention": 1.0},
        protocol={**protocol, **errors_over(sums.documents)},
        examples=examples_over(sums.documents, identity=identity, values=gained, weights=possible),
    )


def interval(measurement: Measurement) -> tuple[float, float] | None:
    """A 95 % interval by the normal approximation; None without a standard error."""
    if measurement.stderr is None:
        return None
    return measurement.value - _NORMAL * measurement.stderr, measurement.value + _NORMAL * measurement.stderr


def _over(measurement: Measurement) -> str:
    return f"over {measurement.protocol.get('errors_over', 'rows')}"


def gap_sentences(measurements: Sequence[Measurement]) -> list[str]:
    """What the shuffle gap and R(C) say, in words; nothing where they were not measured."""
    said = []
    for figure in measurements:
        bounds = interval(figure)
        if figure.name == "shuffle_gap" and bounds is not None:
            between = (
                f"{figure.value:.4f} nats a token, 95 % interval {bounds[0]:.4f} to {bounds[1]:.4f} {_over(figure)}"
            )
            used = bounds[0] > NEGLIGIBLE
            told = "the concepts carry the text they were read from" if used else "NO USE OF THE CONCEPTS"
            said.append(f"shuffle gap: {between}: {told}")
        if figure.name == "recovered_share" and figure.examples and sum(figure.examples.weights or ()) <= 0:
            said.append("R(C) MEANS NOTHING HERE: the model of all context is no better than the one of none.")
    return said
