"""Weights of loss terms that are learned beside a network's own, within bounds.

Shape letters: K terms.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEAST, MOST = 1e-3, 1.0
"""Bounds of a learned weight."""


TERM_WEIGHTS = "term_weights"
"""The module of a network that is one."""


class TermWeights(nn.Module):
    """A log-variance s a term, whose weight is e^(−s), bounded smoothly so that the weight stays in (0.001, 1).

    s = S·sigmoid(θ) with S = log 1000 and θ learned: a bound that can be left again, unlike a cut.

    Args:
        weights: name → where its weight begins; kept a little inside the bounds (0.0014 to 0.7).
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.names = tuple(weights)
        self.span = math.log(MOST / LEAST)
        shares = [min(max(math.log(MOST / weight) / self.span, 0.05), 0.95) for weight in weights.values()]
        self.logits = nn.Parameter(torch.tensor([math.log(share / (1 - share)) for share in shares]))

    def log_variances(self) -> dict[str, Float[Tensor, ""]]:
        """S of each term, with its gradient."""
        bounded: Float[Tensor, "K"] = -math.log(MOST) + self.span * torch.sigmoid(self.logits)
        return dict(zip(self.names, bounded.unbind(), strict=True))
