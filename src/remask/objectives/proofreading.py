r"""Proofreading: one network learns to fill in masked tokens and to answer [MASK] where a visible token is wrong.

A row is corrupted in two ways. Masking noise at time t hides each token with probability 1 − α_t; of the tokens still
visible, a share is replaced by a proposal. With P the network's probability of [MASK] at a position and q its
distribution over words there, so that p(v) = (1 − P) q(v), the nats of a position are cross-entropies of p:

    masked, the truth is x:       w_t · { (1 − τ) [−log q(x) − log(1 − P)] + τ [−log P] }                   unmask task
    visible and wrong:            −log P                                                                   remask task
    visible and right:            −log q(x) − log(1 − P)                                                   remask task

with masking's weight w_t = −α'_t / (1 − α_t). Weights multiply them, and none looks at an argmax:

- unmask: 1 − (1 − r) Σ_v q(v)², r being `reward_correct_unmask`. The sum (detached) is the probability that a draw of
  the network is right if the network is calibrated: what it knows already counts r, what it does not know 1. It does
  not depend on x, so cross-entropy still has its minimum at the true distribution, as long as r > 0. (The weight
  1 − (1 − r) q(x), which does, makes frequent answers cheap to get wrong: it turns 0.9 against 0.1 into 0.78.)
- remask, right tokens: 1 + penalty · P (detached), so that calling a right token wrong with certainty costs
  1 + `penalty_mask_correct` times as much. It rises from 0: before the network can tell wrong from right tokens, a
  penalty only teaches it to keep silent.

**Why the bias stays near 0.** `mask_logit_bias` is steered so that the mean of P over masked positions is τ =
`target_mask_prob`. With hard targets (τ = 0 above) that cannot rest. [MASK] is never the answer at a masked position,
so cross-entropy pushes its logit down from any value: the only minimum is at −∞. The controller has to follow for as
long as training goes on, and it adds the same number at visible positions, where right words are then called wrong. A
loss that sees the biased logits does not help: the controller restores the very gradient that it fights, P − 0 = τ at
every masked position of every step, so the network undoes the bias as it is raised: their sum stands still as they
part. (On toys both versions were still climbing when training ended, at biases of 4 to 6; the first system of this kind
ended above 90.)
Two changes give both a place to rest: the target puts a mass τ on [MASK], so that the network itself has its minimum at
P = τ, at finite logits; and the loss reads the logits *without* the bias, so nothing that the controller does changes a
gradient. What is left for the bias is the difference between P in the mean over masked positions and P where the
weights look.

A target mass that grew with the network's doubt, 1 − q(x), would say nothing new: given what the network sees its mean
is a function of q alone (1 − Σ_v q(v)² when calibrated), which a sampler can read from q.

Shape letters: B batch, L length, V vocabulary, M target positions, R right and W wrong words.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from remask.data.batch import Batch
from remask.objectives.base import Loss, Network, scatter_positions
from remask.objectives.likelihood import LikelihoodBound, masking_integrand
from remask.objectives.proposals import Propose, own_proposals
from remask.processes import Masking
from remask.randomness import batch_uniform, widest_float
from remask.schedules import Schedule, batch_times


@runtime_checkable
class Biased(Protocol):
    """A network whose [MASK] logit is shifted by a stored number."""

    mask_logit_bias: Tensor


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """A batch with both kinds of errors in it; each target position is masked, wrong or right.

    Attributes:
        z: what the network reads [B L].
        t: the time of each row [B].
        masked: targets that hold [MASK] [B L].
        wrong: visible targets whose word is not the true one [B L].
        right: visible targets whose word is [B L].
    """

    z: Int[Tensor, "B L"]
    t: Float[Tensor, "B"]
    masked: Bool[Tensor, "B L"]
    wrong: Bool[Tensor, "B L"]
    right: Bool[Tensor, "B L"]


@dataclass(frozen=True, kw_only=True)
class Proofreading:
    """The two tasks as an objective; the network must have a `mask_logit_bias` (`networks.mask_bias.MaskBias`).

    Attributes:
        mask_id: the id of [MASK].
        vocab_size: V, every id with the mask.
        schedule: α(t) of the masking noise.
        t_min: the least time, in (0, 1), as in the bound.
        replaced_share: of the visible tokens, once risen; in [0, 1).
        proofreading_warmup_iters: optimiser steps over which that share rises from 0.
        penalty_mask_correct: at least 0; 0 for none.
        masking_warmup_iters: optimiser steps over which the penalty rises from 0.
        target_mask_prob: τ, in (0, 1).
        weight_unmask_task: a factor on the unmask task.
        weight_remask_task: a factor on the remask task.
        reward_correct_unmask: r, in (0, 1]; 1 for plain cross-entropy.
        propose: where wrong words come from.
        bias_rate: largest change of the bias a step.
        step: the optimiser step at which the curricula stand; at their end by default.

    Raises:
        ValueError: when a number is out of its range.
    """

    mask_id: int
    vocab_size: int
    schedule: Schedule
    t_min: float
    replaced_share: float
    proofreading_warmup_iters: int
    penalty_mask_correct: float
    masking_warmup_iters: int
    target_mask_prob: float
    weight_unmask_task: float = 1.0
    weight_remask_task: float = 1.0
    reward_correct_unmask: float = 0.1
    propose: Propose = own_proposals
    bias_rate: float = 0.02
    step: float = math.inf

    def __post_init__(self) -> None:
        if not 0 < self.reward_correct_unmask <= 1:
            raise ValueError(
                f"reward_correct_unmask: {self.reward_correct_unmask} was given; it must lie above 0, or a network "
                "that is sure of a wrong word never learns better, and not above 1"
            )
        if not 0 < self.target_mask_prob < 1:
            raise ValueError(f"target_mask_prob: {self.target_mask_prob} was given; it must lie between 0 and 1")
        if not 0 <= self.replaced_share < 1:
            raise ValueError(f"replaced_share: {self.replaced_share} was given; it must be at least 0 and below 1")

    @property
    def process(self) -> Masking:
        """The noise of the masked positions."""
        return Masking(schedule=self.schedule, vocab_size=self.vocab_size, mask_id=self.mask_id)

    @property
    def exact(self) -> bool:
        """A bound, never the likelihood itself."""
        return False

    @property
    def bound(self) -> LikelihoodBound:
        """The likelihood bound of the masked positions' noise."""
        return LikelihoodBound(process=self.process, integrand=masking_integrand, t_min=self.t_min)

    def at(self, step: int) -> "Proofreading":
        """The objective of one optimiser step: both curricula as far as they are."""
        return replace(self, step=step)

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The training loss: one time an example, stratified over the global batch.

        The terms `unmask` and `remask` add up to it. The others are sums from which `diagnostics` makes means.
        """
        noisy = self.corrupt(network, batch, generator=generator)
        logits = network(noisy.z, noisy.t, segments=batch.segments, positions=batch.targets)
        bias = mask_logit_bias(network).detach()
        log_q, gate = self.split(logits, bias=bias)
        x = batch.ids[batch.targets]
        masked, wrong, right = (kind[batch.targets] for kind in (noisy.masked, noisy.wrong, noisy.right))
        log_q_x = log_q.gather(-1, x[:, None]).squeeze(-1)
        times = noisy.t[:, None].expand(noisy.z.shape)[batch.targets]
        unmask = torch.where(masked, self.unmask_nats(log_q, log_q_x, gate, times), 0.0)
        remask = self.remask_nats(log_q_x, gate, wrong=wrong, right=right)
        terms = {"unmask": unmask.detach().sum(), "remask": remask.detach().sum()}
        with torch.no_grad():
            terms |= self.observe(log_q, gate + bias, batch, masked=masked, wrong=wrong, right=right)
        nats = scatter_positions(unmask + remask, batch.targets)
        return Loss(nats, batch.targets.to(nats.dtype), terms)

    def corrupt(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Corrupted:
        """Both kinds of errors, as functions of each example's place in the global batch."""
        t = batch_times(generator, batch, t_min=self.t_min)
        length = batch.ids.shape[1]
        hide, choose, draw = batch_uniform(generator, batch, 3, length).unbind(1)
        z = torch.where(batch.targets, self.process.corrupt(batch.ids, t, noise=hide), batch.ids)
        masked = batch.targets & (z == self.mask_id)
        share = self.replaced_share * _risen(self.step, self.proofreading_warmup_iters)
        chosen = batch.targets & ~masked & (choose < share)
        if share > 0:
            hidden = z.masked_fill(chosen, self.mask_id)
            words = self.propose(self.process, network, batch, z=hidden, t=t, positions=chosen, noise=draw)
            z = z.masked_scatter(chosen, words)
        wrong = chosen & (z != batch.ids)
        return Corrupted(z=z, t=t, masked=masked, wrong=wrong, right=batch.targets & ~masked & ~wrong)

    def split(
        self, logits: Float[Tensor, "M V"], *, bias: Float[Tensor, "1"]
    ) -> tuple[Float[Tensor, "M V"], Float[Tensor, "M"]]:
        """Biased logits as log q over words (−∞ at [MASK]) and the logit of P without the bias."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        mask = torch.tensor([self.mask_id], device=wide.device)
        words = wide.index_fill(-1, mask, -torch.inf)
        total = words.logsumexp(-1)
        return words - total[:, None], wide[:, self.mask_id] - bias.to(wide.dtype) - total

    def unmask_nats(
        self,
        log_q: Float[Tensor, "M V"],
        log_q_x: Float[Tensor, "M"],
        gate: Float[Tensor, "M"],
        t: Float[Tensor, "M"],
    ) -> Float[Tensor, "M"]:
        """The weighted nats of the unmask task, for positions that are masked at times `t`."""
        tau = self.target_mask_prob
        nats = (1.0 - tau) * (functional.softplus(gate) - log_q_x) + tau * functional.softplus(-gate)
        noise_weight = -self.schedule.slope(t) / (1.0 - self.schedule.alpha(t)) * (1.0 - self.t_min)
        surely_right = log_q.detach().exp().square().sum(-1)
        reward = 1.0 - (1.0 - self.reward_correct_unmask) * surely_right
        return self.weight_unmask_task * noise_weight.to(nats.dtype) * reward * nats

    def remask_nats(
        self,
        log_q_x: Float[Tensor, "M"],
        gate: Float[Tensor, "M"],
        *,
        wrong: Bool[Tensor, "M"],
        right: Bool[Tensor, "M"],
    ) -> Float[Tensor, "M"]:
        """The weighted nats of the remask task; zero where a position is neither wrong nor right.

        At positions that are wrong with probability w the minimum has w (1 − P) = (1 − w) (1 + penalty · P) P: it is
        at P = w without a penalty, and below w with one.
        """
        penalty = self.penalty_mask_correct * _risen(self.step, self.masking_warmup_iters)
        weight = 1.0 + penalty * gate.detach().sigmoid()
        leave = torch.where(right, weight * (functional.softplus(gate) - log_q_x), 0.0)
        return self.weight_remask_task * torch.where(wrong, functional.softplus(-gate), leave)

    def observe(
        self,
        log_q: Float[Tensor, "M V"],
        odds: Float[Tensor, "M"],
        batch: Batch,
        *,
        masked: Bool[Tensor, "M"],
        wrong: Bool[Tensor, "M"],
        right: Bool[Tensor, "M"],
    ) -> dict[str, Tensor]:
        """Counts and sums over masked, wrong and right positions, with the bias in the logit `odds` of P.

        Chance is the word at another place of the row, a guess by the text's own frequencies.
        """
        best, guess = log_q.max(-1)
        p = odds.sigmoid()
        x = batch.ids[batch.targets]
        row = batch.targets.nonzero()[:, 0]
        pairs, ordered = ordered_pairs(p[right], p[wrong], row_low=row[right], row_high=row[wrong])
        return {
            "masked": masked.sum(),
            "masked_probability": p[masked].sum(),
            "masked_gap": (odds - best)[masked].sum(),
            "masked_hits": (guess == x)[masked].sum(),
            "masked_chance": row_chance(batch)[masked].sum(),
            "wrong": wrong.sum(),
            "wrong_probability": p[wrong].sum(),
            "pairs": pairs,
            "ordered_pairs": ordered,
            "right": right.sum(),
            "right_probability": p[right].sum(),
        }

    @torch.no_grad()
    def steer(self, network: nn.Module, terms: Mapping[str, float]) -> None:
        """Moves the bias towards where the mean of P over masked positions, bias included, is `target_mask_prob`.

        By `bias_rate` times the difference of the two in logits, which is cut to [−1, 1]: in the first steps, when P
        is 1/V everywhere, the network finds its own way to τ sooner than the bias can.

        Args:
            network: has the bias.
            terms: of one optimiser step, all micro-batches together.
        """
        if terms["masked"] > 0:
            error = _logit(self.target_mask_prob) - _logit(terms["masked_probability"] / terms["masked"])
            mask_logit_bias(network).add_(self.bias_rate * max(-1.0, min(1.0, error)))

    def diagnostics(self, network: nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """Figures for the training record, without those of a task that had no position.

        Args:
            network: has the bias.
            terms: sums over some steps.

        Returns:
            `mask_logit_bias`; over masked positions the mean `mask_probability` (P), `logit_gap` ([MASK] against the
            best word), `unmask_accuracy` of the best word and its `unmask_chance`; the mean P on wrong and on right
            words, `mask_on_wrong` and `mask_on_right`; and `remask_auc`, the chance that a
            wrong word has a higher P than a right one of its row (1/2 for a network that cannot tell them apart).
        """
        means = {
            "mask_probability": ("masked_probability", "masked"),
            "logit_gap": ("masked_gap", "masked"),
            "unmask_accuracy": ("masked_hits", "masked"),
            "unmask_chance": ("masked_chance", "masked"),
            "mask_on_wrong": ("wrong_probability", "wrong"),
            "mask_on_right": ("right_probability", "right"),
        }
        figures = {name: terms[total] / terms[count] for name, (total, count) in means.items() if terms[count] > 0}
        if terms["pairs"] > 0:
            figures["remask_auc"] = terms["ordered_pairs"] / terms["pairs"]
        return {"mask_logit_bias": float(mask_logit_bias(network).detach()), **figures}

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """The bound of masked diffusion on the same network, its words alone: [MASK] and the bias play no part."""
        return self.bound.likelihood_terms(network, batch, generator=generator, draws=draws)


def mask_logit_bias(network: Network | nn.Module) -> Float[Tensor, "1"]:
    """The bias of a network, also where it is wrapped for several processes.

    Raises:
        ValueError: when it has none.
    """
    modules = network.modules() if isinstance(network, nn.Module) else [network]
    found = [module.mask_logit_bias for module in modules if isinstance(module, Biased)]
    if not found:
        raise ValueError("proofreading needs a network with a mask_logit_bias: wrap it in networks.mask_bias.MaskBias")
    return found[0]


def ordered_pairs(
    low: Float[Tensor, "R"], high: Float[Tensor, "W"], *, row_low: Int[Tensor, "R"], row_high: Int[Tensor, "W"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Pairs within a row of one from `low` and one from `high`, and those of them with the larger in `high`.

    Equal ones count by half (Mann–Whitney's U). Pairs of one row only, so that micro-batches change nothing.

    Args:
        low: probabilities, in [0, 1].
        high: probabilities, in [0, 1].
        row_low: the row of each of `low`.
        row_high: the row of each of `high`.
    """
    wide = widest_float(low.device)
    ranked = (low.to(wide) + 2.0 * row_low).sort().values  # rows lie apart, so that one search serves all
    key = high.to(wide) + 2.0 * row_high
    first, last = torch.searchsorted(ranked, 2.0 * row_high - 0.5), torch.searchsorted(ranked, 2.0 * row_high + 1.5)
    below, upto = torch.searchsorted(ranked, key), torch.searchsorted(ranked, key, right=True)
    return (last - first).sum().to(wide), (0.5 * (below + upto) - first).sum().to(wide)


def row_chance(batch: Batch) -> Float[Tensor, "M"]:
    """The chance that a target and another target of its row, drawn evenly, hold the same token (0 if it is alone)."""
    width = int(batch.ids.max()) + 1
    counts = torch.zeros(len(batch), width, device=batch.ids.device).scatter_add(1, batch.ids, batch.targets.float())
    same = counts.gather(1, batch.ids) - 1.0
    others = batch.targets.sum(-1, keepdim=True) - 1
    return (same / others.clamp_min(1))[batch.targets]


def _risen(step: float, over: int) -> float:
    """The share of a curriculum that is done: from 0 to 1 over the first `over` steps."""
    return min(1.0, step / over) if over > 0 else 1.0


def _logit(p: float) -> float:
    """Log p / (1 − p), finite at 0 and 1."""
    p = min(max(p, 1e-12), 1.0 - 1e-12)
    return math.log(p / (1.0 - p))
