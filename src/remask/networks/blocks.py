"""What a transformer's blocks are made of.

Pre-norm residual branches with RMSNorm (arXiv:1910.07467), scaled dot-product attention with normalised queries and
keys (arXiv:2010.04245) at rotary positions and a gated MLP (SwiGLU, arXiv:2002.05202), without biases or norm weights.

Shape letters: B batch, L length, N places that are attended to, D width, H heads, E head width, F = E/2, C condition
width.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from remask.networks.cache import Attach, alone
from remask.networks.normalisation import UnitRMS, unit_rms
from remask.networks.rotary import rotary_frequencies, rotate

LIMIT = 1.0
"""What bounded shifts, scales and gates stay below."""


class Timeless(nn.Module):
    """The condition of a network that does not see the time: nothing, [B 0]."""

    def forward(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B C"]:
        """An empty condition for each example."""
        return t.new_zeros(t.shape[0], 0)


class TimeEmbedding(nn.Module):
    """Time in [0, 1] to a condition: sines of 1000·t at geometric frequencies, then a two-layer MLP.

    Args:
        width: C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Float[Tensor, "B"]) -> Float[Tensor, "B C"]:
        """The condition of each example."""
        half = self.width // 2
        frequencies = torch.exp(-math.log(10_000.0) * torch.arange(half, device=t.device) / half)
        # 1000·t: sines of a raw t in [0, 1] barely change over the interval and carry no resolution
        angles = 1000.0 * t[:, None] * frequencies
        features = torch.cat([angles.sin(), angles.cos()], -1)
        return self.mlp(features.to(next(self.mlp.parameters()).dtype))


class Attention(nn.Module):
    """Multi-head attention with rotary positions and normalised queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        *,
        rotation: Float[Tensor, "*rows L F 2"],
        mask: Bool[Tensor, "B 1 L N"] | None,
        attach: Attach = alone,
    ) -> Float[Tensor, "B L D"]:
        """Attention over those of the N positions that `attach` gives that `mask` allows; None: over all."""
        batch, length, width = x.shape
        qk, v = self.qkv(x).view(batch, length, 3 * self.heads, -1).split((2 * self.heads, self.heads), 2)
        q, k = rotate(unit_rms(qk), rotation).to(v.dtype).transpose(1, 2).chunk(2, 1)
        k, v = attach(k, v.transpose(1, 2))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

    @torch.no_grad()
    def look_beside(self, neighbours: Sequence[int]) -> None:
        """Makes head h begin by attending from position i to i + neighbours[h].

        Coordinate 0 of every embedding is the same constant, so through it queries and keys read their position alone:
        keys get a direction u, queries the same turned by the neighbour's distance, and rotary products are then
        largest where the distances agree. What the rest of the token says starts at a third of its usual weight.
        """
        width, head_width = self.qkv.in_features, self.qkv.in_features // self.heads
        angles = rotary_frequencies(head_width, device=self.qkv.weight.device)
        u = torch.zeros_like(angles).masked_fill(angles > 0.3, 1.0)
        u = 4.0 * math.sqrt(head_width / width) * u / u.norm()
        weight = self.qkv.weight.view(3, self.heads, head_width, width)
        weight[:2] *= 0.3
        for head, distance in enumerate(neighbours):
            weight[0, head, :, 0] = torch.view_as_real(torch.polar(u, distance * angles)).flatten()
            weight[1, head, :, 0] = torch.view_as_real(torch.polar(u, 0.0 * angles)).flatten()


class GatedMLP(nn.Module):
    """silu(x W_gate) · (x W_up), then W_out (SwiGLU)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*N D"], *, real: Bool[Tensor, "*N"] | None = None) -> Float[Tensor, "*N D"]:
        """The same function at every position, whichever of them are `real`."""
        del real
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.out(functional.silu(gate) * up)


class Branch(nn.Module):
    """inner(norm(x)), what a block adds to its stream; the condition is not read.

    Args:
        width: D.
        inner: what the branch computes.
        dropout: share of the branch's output that is dropped in training.
    """

    def __init__(self, width: int, inner: nn.Module, *, dropout: float) -> None:
        super().__init__()
        del width
        self.norm = UnitRMS()
        self.inner = inner
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **inner: object
    ) -> Float[Tensor, "B L D"]:
        """The update alone."""
        del condition
        return self.dropout(self.inner(self.norm(x), **inner))


class Residual(Branch):
    """x + inner(norm(x)): a `Branch` on one stream."""

    def forward(
        self, x: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **inner: object
    ) -> Float[Tensor, "B L D"]:
        """The stream with this branch's update added."""
        return x + super().forward(x, condition, **inner)


def unbounded(modulation: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
    """Shift, scale and gate as the condition gives them (AdaLN-Zero, DiT, arXiv:2212.09748)."""
    return modulation


def bounded(modulation: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
    """LIMIT · tanh(modulation / LIMIT): the same near zero, and never beyond ±LIMIT.

    Shift, scale and gate that grow without limit multiply from block to block, and the gradient with them.
    """
    return LIMIT * torch.tanh(modulation / LIMIT)


class ModulatedBranch(nn.Module):
    """gate · inner(norm(x) · (1 + scale) + shift), all three linear in the condition and zero at the start.

    Args:
        width: D.
        inner: what the branch computes.
        dropout: share of the branch's output that is dropped in training.
        condition_width: C.
        bound: `unbounded` or `bounded`, applied to shift, scale and gate.
    """

    def __init__(
        self,
        width: int,
        inner: nn.Module,
        *,
        dropout: float,
        condition_width: int,
        bound: Callable[[Tensor], Tensor] = unbounded,
    ) -> None:
        super().__init__()
        self.bound = bound
        self.norm = UnitRMS()
        self.inner = inner
        self.dropout = nn.Dropout(dropout)
        self.modulation = nn.Linear(condition_width, 3 * width)

    def forward(
        self, x: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **inner: object
    ) -> Float[Tensor, "B L D"]:
        """The gated update alone."""
        shift, scale, gate = self.bound(self.modulation(functional.silu(condition)))[:, None].chunk(3, -1)
        return gate * self.dropout(self.inner(self.norm(x) * (1.0 + scale) + shift, **inner))


class ModulatedResidual(ModulatedBranch):
    """x + gate · inner(norm(x) · (1 + scale) + shift): a `ModulatedBranch` on one stream."""

    def forward(
        self, x: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **inner: object
    ) -> Float[Tensor, "B L D"]:
        """The stream with this branch's gated update added."""
        return x + super().forward(x, condition, **inner)


class Final(nn.Module):
    """The norm before the vocabulary projection; the condition is not read."""

    def __init__(self, width: int) -> None:
        super().__init__()
        del width
        self.norm = UnitRMS()

    def forward(self, x: Float[Tensor, "M D"], condition: Float[Tensor, "M C"]) -> Float[Tensor, "M D"]:
        """What the projection reads."""
        del condition
        return self.norm(x)


class ModulatedFinal(nn.Module):
    """norm(x) · (1 + scale) + shift: the final layer of DiT (arXiv:2212.09748, section 3.2).

    Args:
        width: D.
        condition_width: C.
        bound: as in `ModulatedBranch`.
    """

    def __init__(self, width: int, *, condition_width: int, bound: Callable[[Tensor], Tensor] = unbounded) -> None:
        super().__init__()
        self.bound = bound
        self.norm = UnitRMS()
        self.modulation = nn.Linear(condition_width, 2 * width)

    def forward(self, x: Float[Tensor, "M D"], condition: Float[Tensor, "M C"]) -> Float[Tensor, "M D"]:
        """What the projection reads."""
        shift, scale = self.bound(self.modulation(functional.silu(condition))).chunk(2, -1)
        return self.norm(x) * (1.0 + scale) + shift


class Block(nn.Module):
    """Attention, then MLP (a `GatedMLP`, or `Experts` in its place), each on the residual stream."""

    def __init__(self, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.mlp = mlp

    def forward(
        self,
        x: Float[Tensor, "B L D"],
        condition: Float[Tensor, "B C"],
        *,
        real: Bool[Tensor, "B L"] | None = None,
        **attention: object,
    ) -> Float[Tensor, "B L D"]:
        """One layer of the stream; `real` tells text from padding, None where there is none."""
        return self.mlp(self.attention(x, condition, **attention), condition, real=real)
