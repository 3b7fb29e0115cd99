r"""Terms that keep concepts from collapsing, all of them of what varies between inputs.

A slot whose vector is the same for every text tells a decoder nothing, however orthogonal it is to the other slots. So
each term sees the vectors v_bs of a batch after the mean of their slot was taken away, and most see directions:

    c_bs = v_bs − mean_b v_bs,        u_bs = c_bs / √(|c_bs|² + ε·mean_b |v_bs|²),      ε = 0.01,                (1)

so that |u| falls from 1 to 0 as a slot stops varying. Every term is at least 0, and at its worst or next to it where
no slot varies. There are as many slots as concepts.

Shape letters: B rows, C concepts, D features a concept.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from remask.objectives.base import Loss, Network
from remask.objectives.concepts.contract import Concepts

RELATIVE = 0.01
"""ε of (1): the share of a slot's mean squared length below which what varies no longer counts as a direction."""
SHARPNESS = 2.0
"""t of the uniformity term, as in the paper."""
NEAREST = 0.1
"""Distance below which neighbours are as good as one; keeps the gradient of a logarithm finite."""
TINY = 1e-12


@dataclass(frozen=True)
class Varying:
    """What of a batch's concepts varies between its rows.

    Attributes:
        parts: c of (1) [B C D].
        directions: u of (1) [B C D].
    """

    parts: Float[Tensor, "B C D"]
    directions: Float[Tensor, "B C D"]


def between_inputs(concepts: Concepts) -> Varying:
    """Equation (1), over the rows whose concepts are real; at least float32. Of fewer than two rows nothing varies."""
    vectors = concepts.vectors[concepts.real.all(1)]
    if len(vectors) < 2:
        vectors = concepts.vectors[:1].repeat(2, 1, 1)
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    parts = vectors - vectors.mean(0)
    size = vectors.square().sum(-1, keepdim=True).mean(0)
    length = (parts.square().sum(-1, keepdim=True) + RELATIVE * size + TINY).sqrt()
    return Varying(parts=parts, directions=parts / length)


Term = Callable[[Varying], Tensor]
"""A number of at least 0, the smaller the more diverse."""


def orthogonality(varying: Varying) -> Tensor:
    r"""Slots of one text point elsewhere, and all of them vary: mean_s (1 − |u_s|²)² + mean_{s≠s'} (u_s·u_s')².

    (Soft orthogonality, Bansal et al., arXiv:1810.09102, equation 2, of directions.) In [0, 1]: 1 where no slot varies,
    and where all slots say the same.
    """
    overlap = varying.directions @ varying.directions.mT
    own = overlap.diagonal(dim1=-2, dim2=-1)
    value = (1.0 - own).square().mean()
    count = overlap.shape[-1]
    if count < 2:
        return value
    others = overlap.square().sum() - own.square().sum()
    return value + others / max(len(overlap) * count * (count - 1), 1)


def uniformity(varying: Varying) -> Tensor:
    r"""The texts of a batch lie evenly on each slot's sphere: mean_s log mean_{b≠b'} exp(−t|u_b − u_b'|²) + 2tB/(B−1).

    (Wang and Isola, arXiv:2005.10242, equation 2, shifted by its least value, which Jensen's inequality gives.) In
    [0, 2tB/(B−1)], t = 2: the largest where no slot varies.
    """
    squared, count = _distances(varying)
    least = 2.0 * SHARPNESS * count / (count - 1)
    return (-SHARPNESS * squared).logsumexp((1, 2)).mean() - math.log(count * (count - 1)) + least


def variance_covariance(varying: Varying) -> Tensor:
    r"""Every feature varies, none with another: mean_{s,d} max(0, 1 − std_b c_bsd) + mean_{d≠d'} cov(c_d, c_d')².

    (VICReg, Bardes et al., arXiv:2105.04906, equations 1 to 4; features of all slots share one covariance, and the sum
    over pairs of features is a mean, not D − 1 times one: else vectors of few directions in many features would score
    worse than such as say nothing, and a network would shrink what depends on its input.) At least 0; 0.99 where no
    slot varies; of vectors of root mean square 1 at most about 1.
    """
    parts = varying.parts
    rows, _, width = parts.shape
    deviation = (parts.square().sum(0) / max(rows - 1, 1) + 1e-4).sqrt()
    flat = parts.flatten(0, 1)
    covariance = flat.mT @ flat / max(len(flat) - 1, 1)
    shared = (covariance.square().sum() - covariance.diagonal().square().sum()) / max(width * (width - 1), 1)
    return (1.0 - deviation).relu().mean() + shared


def spread(varying: Varying) -> Tensor:
    r"""No text lies close to another in any slot: mean_{s,b} log(ρ_max/ρ_bs), ρ_bs = min_{b'≠b} |u_bs − u_b's|.

    (KoLeo, Sablayrolles et al., arXiv:1806.03198, equation 2; ρ_max² = 2B/(B−1) bounds the mean of ρ² and shifts the
    term to at least 0; ρ is no less than 0.1.) The largest, about 2.7, where no slot varies.
    """
    squared, count = _distances(varying)
    nearest = squared.amin(-1)
    most = 2.0 * count / (count - 1) + NEAREST**2
    return 0.5 * (math.log(most) - (nearest + NEAREST**2).log()).mean()


def _distances(varying: Varying) -> tuple[Float[Tensor, "C B B"], int]:
    """|u_bs − u_b's|² of each slot, infinite on the diagonal; and B."""
    u = varying.directions.transpose(0, 1)
    length = u.square().sum(-1)
    squared = (length[:, :, None] + length[:, None, :] - 2.0 * u @ u.mT).clamp_min(0.0)
    rows = squared.shape[-1]
    same = torch.eye(rows, dtype=torch.bool, device=squared.device)
    return squared.masked_fill(same, torch.inf), rows


TERMS: Mapping[str, Term] = {
    "orthogonality": orthogonality,
    "uniformity": uniformity,
    "variance_covariance": variance_covariance,
    "spread": spread,
}


@dataclass(frozen=True)
class Weights:
    """What the terms weigh at a step.

    Attributes:
        factors: of each term, without a gradient.
        regret: what trains the weights themselves; None where they are fixed.
    """

    factors: Mapping[str, Tensor | float]
    regret: Tensor | None = None


def fixed(weights: Mapping[str, float]) -> Callable[[Network, Mapping[str, Tensor]], Weights]:
    """Weights that stay as they are."""
    return lambda network, values: Weights(weights)


def learned(network: Network, values: Mapping[str, Tensor]) -> Weights:
    r"""Weights w = e^(−s) that the network learns beside its own, by ½(w·d + s) for each term d (Kendall and Gal).

    (arXiv:1705.07115, equation 7, for losses that are never negative.) A term's own gradient on s drives w towards 1/d,
    so a term weighs more the smaller it is; s is bounded, the task's weight stays 1, and `Diversity` caps them all.
    The network holds them as `term_weights`.
    """
    module: Any = getattr(network, "module", network)  # of a network that is wrapped for training
    s: Mapping[str, Tensor] = module.term_weights.log_variances()
    regret = torch.stack([0.5 * (torch.exp(-s[name]) * value.detach() + s[name]) for name, value in values.items()])
    return Weights({name: torch.exp(-s[name]).detach() for name in values}, regret.sum())


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """A weighted sum of terms beside a task's loss, never larger than a share of it.

    Attributes:
        terms: by name; none of them costs nothing.
        weigh: the network and the terms' values → their weights.
        cap: the most that the weighted sum may be, as a share of the task's loss, above 0; 1 at most.

    Raises:
        ValueError: when `cap` is out of range.
    """

    terms: Mapping[str, Term] = field(default_factory=dict)
    weigh: Callable[[Network, Mapping[str, Tensor]], Weights] = field(default_factory=lambda: fixed({}))
    cap: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.cap <= 1.0:
            raise ValueError(f"cap: {self.cap} was given; give a share of the task's loss above 0 and at most 1")

    def added(self, loss: Loss, concepts: Concepts, network: Network) -> Loss:
        """The task's loss with the weighted terms spread over its targets.

        The mean over targets rises by cap-limited Σ_k w_k d_k. What trains learned weights adds a gradient and no
        value, so that the loss stays the task's and the terms' own.

        Args:
            loss: the task's, in nats.
            concepts: of the batch, one text a row.
            network: holds learned weights.
        """
        if not self.terms:
            return loss
        varying = between_inputs(concepts)
        values = {name: term(varying) for name, term in self.terms.items()}
        weights = self.weigh(network, values)
        sides = torch.stack([weights.factors[name] * value for name, value in values.items()]).sum()
        tokens = loss.weight.sum()
        task = (loss.nats.detach().sum() / tokens.clamp_min(1.0)).to(sides.dtype)
        held = (self.cap * task / sides.detach().clamp_min(TINY)).clamp_max(1.0)
        added = held * sides
        total = added if weights.regret is None else added + (weights.regret - weights.regret.detach())
        record = {name: value.detach() for name, value in values.items()}
        record |= {f"{name}_weight": added.new_tensor(float(weights.factors[name])) for name in values}
        record |= {
            "task_nats": task,
            "diversity_terms": added.detach(),
            "diversity_cap": held,
            "diversity_steps": torch.ones_like(held),
        }
        counted = {name: value * tokens for name, value in record.items()}
        return Loss(loss.nats + total * loss.weight, loss.weight, {**loss.terms, **counted})

    def diagnostics(self, network: nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """Each term and its weight, the task's loss, the capped weighted sum, and the factor that the cap left of it.

        Args:
            network: not read.
            terms: of the losses, summed over the steps since the last record.
        """
        del network
        steps = terms.get("diversity_steps", 0.0)
        if not steps:
            return {}
        whole = ("task_nats", "diversity_terms", "diversity_cap")
        return {name: terms[name] / steps for name in (*self.terms, *(f"{n}_weight" for n in self.terms), *whole)}


NOTHING = Diversity()
"""No term at all."""
