r"""Masked diffusion trained on the exact likelihood of a named sampler beside its bound.

A schedule π of K rounds (`remask.orders`) reveals the n targets of a row in blocks B_1 … B_K, each chosen by what is
already revealed. The sampler that draws the tokens of a block independently, each from the network's distribution
given the revealed ones, produces a row x with the probability (for the log-determinant that this is, see the sampler
`bijective`)

    −log P(x | π) = Σ_k ℓ_k,        ℓ_k = Σ_{i ∈ B_k} −log p(x_i | x_{B_1 ∪ … ∪ B_{k−1}}),                         (1)

for each π a likelihood of its own, Σ_x P(x | π) = 1: neither a bound nor the marginal over orders. What is minimised is

    L_denoise + λ · (−log P(x | π)),                                                                               (2)

L_denoise being the diffusion bound. Both have their minimum at the true conditionals, the bound over all sets of
revealed tokens, (1) over the K sets that π meets.

**One round instead of K.** One round k drawn with chance |B_k|/n, at weight n/|B_k|, has (1) as its mean. Where K
divides n that is K times one round drawn evenly; elsewhere blocks differ in size, and with this draw size adds no
variance: a constant predictor costs n log V whichever round is drawn, and no draw falls on an empty block.

Shape letters: B batch, L length, V vocabulary, K rounds, M positions at which logits are wanted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.data.batch import Batch
from remask.objectives.base import Loss, Network, scatter_positions
from remask.objectives.likelihood import LikelihoodBound
from remask.orders import FixedOrder, Order, block_counts
from remask.processes import CategoricalProcess, Masking
from remask.schedules import batch_times

Estimate = Callable[..., Tensor]
"""(sampler, network, batch, *, generator) → nats of each target [B L], whose sum is in mean −log P(x | π) of a row."""


@dataclass(frozen=True, kw_only=True)
class Revealed:
    """The sampler whose likelihood is trained: which tokens it reveals when, and what it asks then.

    Attributes:
        process: masking noise.
        order: chooses each next block.
        steps: K, rounds in which a row's targets are revealed.

    Raises:
        ValueError: when the noise is not masking, or `steps` is below 1.
    """

    process: CategoricalProcess
    order: Order
    steps: int

    def __post_init__(self) -> None:
        if not isinstance(self.process, Masking):
            raise ValueError(
                f"process: {type(self.process).__name__} was given; only masking noise leaves a revealed token as it "
                "is, so give Masking"
            )
        if self.steps < 1:
            raise ValueError(f"steps: {self.steps} was given; a row is revealed in 1 round or more")

    def counts(self, batch: Batch) -> Int[Tensor, "B K"]:
        """|B_k| of each row; where K is above the length, of as many rounds as places, since the others are empty."""
        return block_counts(batch.targets.sum(-1), min(self.steps, batch.ids.shape[1]))

    def log_p(
        self, network: Network, batch: Batch, *, hidden: Bool[Tensor, "B L"], positions: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "M V"]:
        """The network's log-probabilities at `positions` of rows of which the targets in `hidden` are masked.

        The time is that at which noise hides this share of a row's targets.
        """
        t = self.process.time_hiding(hidden.sum(-1), batch.targets.sum(-1))
        z = batch.ids.masked_fill(hidden, self.process.mask_id)
        return self.process.log_clean(network(z, t, segments=batch.segments, positions=positions))

    def nats(
        self, network: Network, batch: Batch, *, hidden: Bool[Tensor, "B L"], count: Int[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """One round: −log p of the true tokens of the next block, 0 elsewhere, and which places that block is.

        Args:
            network: emits leave-one-out logits.
            batch: clean rows.
            hidden: targets not yet revealed.
            count: how many of them the round reveals.
        """
        wanted = self.order.wanted(hidden, count)
        log_p = self.log_p(network, batch, hidden=hidden, positions=wanted)
        block = self.order.choose(log_p.detach(), wanted, hidden, count)
        x = batch.ids[wanted]
        nats = scatter_positions(-log_p.gather(-1, x[:, None]).squeeze(-1), wanted)
        return torch.where(block, nats, 0.0), block

    @torch.no_grad()
    def hidden_before(self, network: Network, batch: Batch, drawn: "DrawnRound") -> Bool[Tensor, "B L"]:
        """The targets that are still hidden when each row's drawn round begins.

        A fixed order knows that without the network. Another walks there over the true tokens, as the sampler would
        that has drawn them, by K − 1 calls whatever the rounds, so that all processes make as many.
        """
        if isinstance(self.order, FixedOrder):
            return batch.targets & ~self.order.wanted(batch.targets, drawn.revealed)
        hidden = batch.targets
        for k, count in enumerate(self.counts(batch)[:, :-1].unbind(-1)):
            reveal = torch.where(drawn.number > k, count, 0)
            hidden = hidden & ~self.nats(network, batch, hidden=hidden, count=reveal)[1]
        return hidden


@dataclass(frozen=True, kw_only=True)
class DrawnRound:
    """A round of each row.

    Attributes:
        number: k, from 0 [B].
        revealed: targets revealed before it [B].
        count: targets that it reveals, |B_k| [B].
        weight: n/|B_k|, one over the chance that it is drawn; 0 for a row without targets [B].
    """

    number: Int[Tensor, "B"]
    revealed: Int[Tensor, "B"]
    count: Int[Tensor, "B"]
    weight: Float[Tensor, "B"]


def round_at(u: Float[Tensor, "B"], counts: Int[Tensor, "B K"]) -> DrawnRound:
    """The round of each row in which the u-th part of its targets is revealed: round k with chance |B_k|/n.

    Args:
        u: in [0, 1).
        counts: |B_k|.
    """
    ends = counts.cumsum(-1)
    targets = ends[:, -1]
    place = (u * targets).floor().long()
    # a row without targets has no such round, nor has a draw that rounding took to 1: the last one then
    number = (ends <= place[:, None]).sum(-1).clamp_max(counts.shape[1] - 1)
    count = counts.gather(-1, number[:, None]).squeeze(-1)
    revealed = ends.gather(-1, number[:, None]).squeeze(-1) - count
    return DrawnRound(number=number, revealed=revealed, count=count, weight=targets.to(u.dtype) / count.clamp_min(1))


def one_step(sampler: Revealed, network: Network, batch: Batch, *, generator: torch.Generator) -> Float[Tensor, "B L"]:
    """One drawn round of each row at its weight: (1) in mean, for one pass with a gradient; nats of each target.

    The draws are one in each of G equal strata for the G rows of the global batch, all turned by one further draw: so
    rounds are spread evenly over the batch, and each row's draw is uniform for itself. Arguments as for `all_steps`.
    """
    strata = batch_times(generator, batch, t_min=0.0)
    turn = torch.rand((), generator=generator, device=strata.device, dtype=strata.dtype)
    return step_at((strata + turn) % 1.0, sampler, network, batch)


def step_at(u: Float[Tensor, "B"], sampler: Revealed, network: Network, batch: Batch) -> Float[Tensor, "B L"]:
    """One round of each row at its weight, `round_at(u)`; for u uniform in [0, 1) its mean is (1).

    An order that asks the model costs K − 1 passes without a gradient besides the one with it.
    """
    drawn = round_at(u, sampler.counts(batch))
    hidden = sampler.hidden_before(network, batch, drawn)
    nats, _ = sampler.nats(network, batch, hidden=hidden, count=drawn.count)
    return nats * drawn.weight.to(nats.dtype)[:, None]


def all_steps(sampler: Revealed, network: Network, batch: Batch, *, generator: torch.Generator) -> Float[Tensor, "B L"]:
    """Every round: (1) itself, K passes with a gradient; nats of each target, 0 elsewhere.

    Args:
        sampler: the rounds.
        network: emits leave-one-out logits.
        batch: clean rows; what is no target is given from the start.
        generator: on the batch's device; not drawn from here.
    """
    del generator
    hidden, total = batch.targets, torch.zeros(batch.ids.shape, device=batch.ids.device)
    for count in sampler.counts(batch).unbind(-1):
        nats, block = sampler.nats(network, batch, hidden=hidden, count=count)
        total = total + nats
        hidden = hidden & ~block
    return total


@dataclass(frozen=True, kw_only=True)
class BijectiveLikelihood:
    """Equation (2) as an objective.

    Attributes:
        bound: L_denoise, over masking noise; what is reported as the model's likelihood is this bound, as without λ.
        order: chooses each next block.
        steps: K, rounds in which a row's targets are revealed.
        weight: λ, at least 0; at 0 the network is not asked for more than the bound needs.
        warmup: optimiser steps over which λ rises to its value, from 0 at the first.
        estimate: `one_step` or `all_steps`.

    Raises:
        ValueError: when a number is out of its range, or the bound's noise is not masking.
    """

    bound: LikelihoodBound
    order: Order
    steps: int
    weight: float = 0.1
    warmup: int = 0
    estimate: Estimate = one_step

    def __post_init__(self) -> None:
        if not self.weight >= 0 or self.warmup < 0:
            raise ValueError(
                f"weight: {self.weight}, warmup: {self.warmup} were given; give a weight and a number of steps of at "
                "least 0"
            )
        _ = self.sampler  # whose own checks are of noise and rounds

    @property
    def sampler(self) -> Revealed:
        """What (1) is the likelihood of."""
        return Revealed(process=self.bound.process, order=self.order, steps=self.steps)

    @property
    def exact(self) -> bool:
        """`likelihood_terms` are the bound's; (1) is exact, but for another law, that of the named sampler."""
        return False

    def at(self, step: int) -> "BijectiveLikelihood":
        """The objective of one optimiser step: λ and the bound's curriculum are those of the step."""
        risen = min(1.0, (step - 1) / self.warmup) if self.warmup else 1.0
        return replace(self, bound=self.bound.at(step), weight=self.weight * risen)

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """(2) in nats a token; the noise of the bound is drawn first, so it is that of the bound alone.

        The record's `diffusion` is the bound's; where λ > 0, `sampler_nats` estimates (1) without it, over as many
        `sampler_tokens`.
        """
        loss = self.bound(network, batch, generator=generator)
        if self.weight == 0:
            return loss
        nats = self.estimate(self.sampler, network, batch, generator=generator)
        own = {"sampler_nats": nats.detach().sum(), "sampler_tokens": loss.weight.sum()}
        return Loss(loss.nats + self.weight * nats, loss.weight, {**loss.terms, **own})

    def diagnostics(self, network: nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """`sampler_nats` a token for the training record, once λ is above 0.

        It compares with the bound's nats and with the trivial predictors': log n for a uniform one.

        Args:
            network: has no part in it.
            terms: sums over some steps.
        """
        del network
        tokens = terms.get("sampler_tokens", 0.0)
        return {"sampler_nats": terms["sampler_nats"] / tokens} if tokens else {}

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """The three terms of the bound, as `LikelihoodBound.likelihood_terms`."""
        return self.bound.likelihood_terms(network, batch, generator=generator, draws=draws)
