r"""The exact probability of held-out text under a named sampler of masked tokens.

A sampler that reveals blocks in an order decided by what is already revealed draws a row x with the probability
P(x | π) = Π_k Π_{i ∈ B_k} p(x_i | x_{B_1 ∪ … ∪ B_{k−1}}): one network call a round, no noise, no bound (see
`samplers.bijection`). It is the likelihood of that sampler: another order, or other rounds, is another law, and none of
them is the mean over all orders, which the likelihood bound is about. It can lie above the bound or below it.

A row is read with its own segments, as for the bound, so what is measured is −log P(x | ends), and the ends are paid
for in the same way (see `evaluation.likelihood`).

Shape letters: B rows, L length, V vocabulary, M positions at which logits are wanted, R rows judged.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.evaluation.likelihood import (
    ROWS_AT_ONCE,
    Judged,
    RowSums,
    ends_nats,
    likelihood_measurements,
    placed_parts,
)
from remask.evaluation.measurement import Measurement
from remask.objectives.base import Network
from remask.processes import Masking
from remask.samplers.base import Denoiser

RowNats = Callable[[Denoiser, Int[Tensor, "B L"], Bool[Tensor, "B L"]], Float[Tensor, "B"]]
"""(model of these rows, their tokens, the places that are drawn) → −log P of each row given its other places; nats."""
PREFIX = "exact_"
"""Begins the names of these figures, which are no bounds and stand in columns of their own."""


@dataclass(kw_only=True)
class SegmentedRows:
    """A network as a sampler's model of some rows, whose documents it is told.

    Attributes:
        process: masking noise.
        network: emits leave-one-out logits.
        segments: the document of each place [B L].
        calls: of the network so far.
    """

    process: Masking
    network: Network
    segments: Int[Tensor, "B L"]
    calls: int = 0

    def logits(
        self, z: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "M V"]:
        """Leave-one-out logits at the true places of `positions`, in row-major order."""
        self.calls += 1
        return self.network(z, t, segments=self.segments, positions=positions)


@torch.no_grad()
def row_exact_likelihoods(
    model: Judged,
    batches: Sequence[Batch],
    *,
    process: Masking,
    nats: RowNats,
    end_share: float | None = None,
    at_once: int = ROWS_AT_ONCE,
) -> tuple[RowSums, int]:
    """−log P of each row under a sampler, in evaluation mode (no dropout).

    Args:
        model: a network of masks.
        batches: the judged rows; what is no target is given.
        process: masking noise.
        nats: of the sampler.
        end_share: the share of training tokens that end a document, for the term `ends`; None leaves it out.
        at_once: rows of a batch that the network sees together.

    Returns:
        the sums, with terms `sampler` and `ends`, and the most network calls that a batch of rows took.
    """
    was_training = model.network.training
    model.network.eval()
    found, ends, tokens, lengths, calls = [], [], [], [], 0
    for _, batch in placed_parts(batches, at_once=at_once):
        here = batch.to(model.device)
        rows = SegmentedRows(process=process, network=cast(Network, model.network), segments=here.segments)
        found.append(nats(rows, here.ids, here.targets).double().cpu())
        calls = max(calls, rows.calls)
        if end_share is not None:
            ends.append(ends_nats(batch, end_share=end_share).double().sum(-1))
        tokens.append(batch.targets.sum(-1))
        lengths.append((batch.byte_lengths * batch.targets).sum(-1))
    model.network.train(was_training)
    sampler = _joined(found)
    terms = {"sampler": sampler} | ({} if end_share is None else {"ends": _joined(ends)})
    sums = RowSums(
        nats=np.sum([*terms.values()], axis=0),
        tokens=_joined(tokens),
        bytes=_joined(lengths),
        terms={name: float(term.sum()) for name, term in terms.items()},
    )
    return sums, calls


def exact_measurements(
    sums: RowSums, *, trivial_nats: Mapping[str, float], protocol: Mapping[str, Any], identity: str | None = None
) -> list[Measurement]:
    """`exact_nats_per_token`, `exact_bits_per_byte` and `exact_perplexity`, each beside its trivial values.

    Args:
        sums: of the judged rows.
        trivial_nats: sums of −log p over the same rows, by predictor.
        protocol: split, rows, and the sampler whose probabilities these are.
        identity: which rows these are, for comparisons in pairs.
    """
    figures = likelihood_measurements(sums, trivial_nats=trivial_nats, protocol=protocol, identity=identity)
    return [replace(figure, name=PREFIX + figure.name) for figure in figures]


def sampler_in_words(measurements: Sequence[Measurement]) -> list[str]:
    """A sentence on whose probabilities the exact figures among these are; none where there are none."""
    how = next((m.protocol for m in measurements if m.name.startswith(PREFIX)), None)
    if how is None:
        return []
    calls = "1 network call" if how["network_calls"] == 1 else f"{how['network_calls']} network calls"
    blocks = f" in blocks of {how['block_length']}" if how.get("block_length") else ""
    which = f" (the permutation of seed {how['permutation']})" if "permutation" in how else ""
    causal = how["sampler"] == "left_to_right"  # which is not told where documents end
    ends = "Documents of a row are read apart, their ends paid for as in the bound; remask encode reads a row whole. "
    return [
        f"exact: −log of the probability with which the sampler {how['sampler']} draws the text, reveal "
        f"{how['reveal']}{which}, {how['steps']} steps{blocks} ({calls}). {'' if causal else ends}Another order or "
        "number of steps is another law."
    ]


def _joined(parts: Sequence[Tensor]) -> np.ndarray:
    return torch.cat([part.cpu() for part in parts]).numpy().astype(np.float64)
