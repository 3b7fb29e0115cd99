"""What concept encoders and decoders are made of: attention to another row, and neighbours within a text.

Shape letters: B rows, G queries, N places that are read, L tokens, D width, H heads, E head width, F = E/2 rotary
pairs.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from remask.networks.concepts.places import coarse_pairs
from remask.networks.normalisation import unit_rms
from remask.networks.rotary import rotate

Mixing = Callable[..., Tensor]
"""(queries [B H G E], keys and values [B H N E], attn_mask=bool [B 1 G N]) → what each query reads [B H G E]."""


def never_empty(mask: Bool[Tensor, "B 1 G N"]) -> Bool[Tensor, "B 1 G N"]:
    """The mask with queries that may read nothing reading everything: what they get is finite, and goes nowhere."""
    return mask | ~mask.any(-1, keepdim=True)


class Reading(nn.Module):
    """Multi-head attention from one row to another, with normalised queries and keys.

    Args:
        width: D.
        heads: H.
        mixing: how queries share what is read.
    """

    def __init__(self, width: int, heads: int, *, mixing: Mixing = functional.scaled_dot_product_attention) -> None:
        super().__init__()
        self.heads, self.mixing = heads, mixing
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.query_bias = nn.Parameter(torch.zeros(width))
        self.key_bias = nn.Parameter(torch.zeros(width))

    def forward(
        self,
        x: Float[Tensor, "B G D"],
        *,
        memory: Float[Tensor, "B N D"],
        mask: Bool[Tensor, "B 1 G N"],
        turn: Float[Tensor, "B G F 2"] | None = None,
        memory_turn: Float[Tensor, "B N F 2"] | None = None,
    ) -> Float[Tensor, "B G D"]:
        """What each query reads of the places that `mask` allows.

        Args:
            x: the queries.
            memory: what is read.
            mask: who may read what; every query something (`never_empty`).
            turn: the rotations of the queries; None: places do not matter.
            memory_turn: the rotations of what is read.
        """
        key, value = self.key_value(memory).chunk(2, -1)
        q, k = self._headed(self.query(x) + self.query_bias, turn), self._headed(key + self.key_bias, memory_turn)
        v = value.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mixed = self.mixing(q.to(v.dtype), k.to(v.dtype), v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(-2))

    def _headed(self, x: Float[Tensor, "B N D"], turn: Tensor | None) -> Float[Tensor, "B H N E"]:
        parts = unit_rms(x.unflatten(-1, (self.heads, -1)))
        return (parts if turn is None else rotate(parts, turn)).transpose(1, 2)

    @torch.no_grad()
    def look_there(self) -> None:
        """Makes every query begin by reading around its own place.

        Queries and keys get the same constant, in the pairs that see distances in stretches: their rotary products are
        largest where places agree. What queries and keys themselves say starts at a third of its usual weight.
        """
        head_width = self.out.in_features // self.heads
        u = torch.zeros(self.heads, head_width // 2, 2)
        coarse = coarse_pairs(head_width // 2)
        u[:, : max(1, coarse // 2), 0] = 1.0  # the faster half: what turns slowly tells no stretch from the next
        u *= math.sqrt(head_width) / u[0].norm()
        self.query_bias.copy_(u.flatten())
        self.key_bias.copy_(u.flatten())
        self.query.weight *= 0.3
        self.key_value.weight[: self.out.in_features] *= 0.3


class LocalConvolution(nn.Module):
    """silu(x W_gate) · (neighbours of x W_value, weighted a channel), then W_out; nothing crosses into another text.

    Args:
        width: D.
        span: neighbours with the token itself; odd.
    """

    def __init__(self, width: int, span: int) -> None:
        super().__init__()
        assert span % 2 == 1, "a token stands in the middle of its neighbours"
        self.gate_value = nn.Linear(width, 2 * width, bias=False)
        self.kernel = nn.Parameter(torch.zeros(span, width))
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "B L D"], *, segments: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """Each token's mixture of itself and its neighbours in the same text; padding (0) is nobody's neighbour."""
        length, reach = x.shape[1], len(self.kernel) // 2
        gate, value = self.gate_value(x).chunk(2, -1)
        value = functional.pad(value * (segments != 0)[..., None], (0, 0, reach, reach))
        beside = functional.pad(segments, (reach, reach))
        mixed = torch.zeros_like(gate)
        for step, weight in enumerate(self.kernel):
            there = slice(step, step + length)
            same = (beside[:, there] == segments)[..., None]
            mixed = mixed + value[:, there] * same * weight.to(value.dtype)
        return self.out(functional.silu(gate) * mixed)

    @torch.no_grad()
    def look_beside(self) -> None:
        """Gives every channel one neighbour to begin with, the token itself among them."""
        span, width = self.kernel.shape
        self.kernel.zero_()
        self.kernel[torch.arange(width) % span, torch.arange(width)] = 1.0
