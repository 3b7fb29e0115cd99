"""Root-mean-square normalisation without weights, as one differentiable step.

torch's own rms_norm falls apart into many passes over memory on a CPU; this one costs about a third there.
Shape letters: D the normalised width.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

EPSILON = 1e-6


class _UnitRMS(torch.autograd.Function):
    """y = x / (rms(x) + ε), in the dtype of x; differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.mul_(x.shape[-1] ** -0.5).add_(EPSILON).reciprocal_()
        y = x * inverse
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        y, inverse = ctx.saved_tensors
        along = torch.linalg.vecdot(gradient, y).unsqueeze(-1).div_(y.shape[-1])
        return torch.addcmul(gradient, y, along, value=-1).mul_(inverse)


def unit_rms(x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
    """The input over its root mean square along the last axis; at least float32.

    RMSNorm (arXiv:1910.07467) without its gain.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return _UnitRMS.apply(wide)  # pyright: ignore[reportReturnType]


class UnitRMS(nn.Module):
    """`unit_rms` as a layer, in the dtype of its input: what follows has weights of that dtype."""

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """The normalised input."""
        return unit_rms(x).to(x.dtype)
