r"""Muon: momentum whose every matrix is made nearly orthogonal before it moves the weights (Jordan et al. 2024).

With G the gradient, B the momentum and η the rate,

    B ← μ B + (1 − μ) G,    O = NS((1 − μ) G + μ B),    θ ← (1 − ηλ) θ − η √max(1, rows/columns) · O,          (1)

where NS takes five steps of X ← aX + (bA + cA²)X, A = XXᵀ, from X = G/‖G‖ (kellerjordan.github.io/posts/muon). The
class is torch's (`torch.optim.Muon`), which does this in bfloat16: four times slower than float32 on a CPU without
matrix units for it, where this module therefore computes in float32.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from remask.sharding import is_sharded, own_range, own_rows, shared_out, whole


def nearly_orthogonal(
    matrix: Float[Tensor, "R C"], *, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Float[Tensor, "R C"]:
    """NS of equation (1): singular values go to about 1, singular vectors stay.

    Args:
        matrix: a gradient or momentum.
        coefficients: a, b and c.
        steps: how often.
        eps: smallest norm that it is divided by.

    Returns:
        float32 for a matrix on a CPU, else bfloat16.
    """
    a, b, c = coefficients
    x = matrix.to(torch.float32 if matrix.device.type == "cpu" else torch.bfloat16)
    wide = x.T if x.shape[0] > x.shape[1] else x
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if x.shape[0] > x.shape[1] else wide


class Muon(torch.optim.Muon):
    """torch's Muon with `nearly_orthogonal`, which sees sharded matrices whole, one at a time.

    Orthogonalising mixes all rows of a matrix: done on parts it would give other weights than on one process, and
    gather at each of its products.

    Args:
        params: matrices.
        lr: η.
        weight_decay: λ.
        momentum: μ.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], *, lr: float, weight_decay: float = 0.1, momentum: float = 0.95
    ) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, momentum=momentum)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One step; on sharded matrices all processes make it together.

        Args:
            closure: none; the gradient is there.
        """
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        """Equation (1) for one matrix."""
        assert parameter.grad is not None
        state, gradient = self.state[parameter], whole(parameter.grad)
        momentum = whole(state["momentum_buffer"]) if state else torch.zeros_like(gradient)
        momentum.lerp_(gradient, 1 - group["momentum"])
        update = nearly_orthogonal(
            gradient.lerp(momentum, group["momentum"]),
            coefficients=group["ns_coefficients"],
            steps=group["ns_steps"],
            eps=group["eps"],
        )
        rate = group["lr"] * math.sqrt(max(1.0, gradient.shape[0] / gradient.shape[1]))
        rows = slice(None)
        state["momentum_buffer"] = momentum
        if is_sharded(parameter):
            rows = slice(own_range(parameter).start, own_range(parameter).stop)
            state["momentum_buffer"] = shared_out(momentum[rows].clone(), like=parameter)
        own = own_rows(parameter)
        own.mul_(1 - group["lr"] * group["weight_decay"]).add_(update[rows].to(own.dtype), alpha=-rate)
