r"""Training times where the loss changes: time warping (CDCD, arXiv:2211.15089).

Let m_k be the running mean of the loss at times of the k-th of K equal ranges of [0, 1], and M_k = max_{j ≤ k} m_j,
since more noise never makes a token easier to tell (M_0 = 0). A time is drawn from the k-th range with probability

    p_k = ρ/K + (1 − ρ) (M_k − M_{k−1}) / M_K,                                                                  (1)

uniformly within it, so that equal steps of u are equal steps of loss; ρ keeps every range in sight. Before anything is
known of the loss, p_k = 1/K.

Shape letters: K ranges, N numbers.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

RANGES = 20
SHARE = 0.1
"""ρ of equation (1)."""
RATE = 0.02
"""Of the running mean, a step."""


class TimeWarp(nn.Module):
    """Equation (1); m is a parameter without gradient: no optimiser moves it, and it travels with the weights.

    Weights hold nothing meaningful until `initialise` is called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nats = nn.Parameter(torch.zeros(RANGES), requires_grad=False)

    @torch.no_grad()
    def initialise(self) -> None:
        """Forgets what is known of the loss."""
        self.nats.zero_()

    def probabilities(self) -> Float[Tensor, "K"]:
        """Those of equation (1), float32."""
        risen = self.nats.detach().float().clamp_min(0.0).cummax(0).values
        even = torch.full_like(risen, 1.0 / RANGES)
        steps = risen.diff(prepend=risen.new_zeros(1))
        return torch.where(risen[-1] > 0, SHARE * even + (1.0 - SHARE) * steps / risen[-1].clamp_min(1e-30), even)

    @torch.no_grad()
    def forward(self, u: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Uniform numbers in [0, 1) → where in [0, 1) times of equation (1) are: the inverse of its distribution."""
        chance = self.probabilities().to(u.device)
        ends = chance.cumsum(0)
        place = torch.searchsorted(ends, u.float(), right=True).clamp_max(RANGES - 1)
        within = (u.float() - (ends - chance)[place]) / chance[place]
        return ((place + within.clamp(0.0, 1.0)) / RANGES).to(u.dtype)

    def terms(self, loss: Float[Tensor, "N"], where: Float[Tensor, "N"]) -> dict[str, Tensor]:
        """Sums of losses at places in [0, 1] by range, and their number: they add up over batches and processes."""
        here = functional.one_hot((where * RANGES).long().clamp(0, RANGES - 1), RANGES).to(loss.dtype)
        sums = {"nats": loss.detach() @ here, "count": here.sum(0)}
        return {f"warp_{name}_{k}": values[k] for name, values in sums.items() for k in range(RANGES)}

    @torch.no_grad()
    def learn(self, terms: Mapping[str, float]) -> None:
        """Moves m towards the mean losses of a step, of the ranges in which it had times, from the sums of `terms`."""
        for k in range(RANGES):
            if count := terms[f"warp_count_{k}"]:
                self.nats[k] += RATE * (terms[f"warp_nats_{k}"] / count - self.nats[k])
