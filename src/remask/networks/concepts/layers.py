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
"""(queries [B H G E], keys and values [B H N E], attn_mask=bool [B 1 G N] or [B 1 1 N]) → what is read [B H G E]."""


QUIET = 0.3
"""What queries and keys say themselves where they begin by looking at a place, as a share of the usual."""


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
        mask: Bool[Tensor, "B 1 #G N"],
        turn: Float[Tensor, "B G F 2"] | None = None,
        memory_turn: Float[Tensor, "B N F 2"] | None = None,
    ) -> Float[Tensor, "B G D"]:
        """What each query reads of the places that `mask` allows.

        Args:
            x: the queries.
            memory: what is read.
            mask: who may read what, all queries alike where there is one row; every query something (`never_empty`).
            turn: the rotations of the queries; None: places do not matter.
            memory_turn: the rotations of what is read.
        """
        key, value = self.key_value(memory).chunk(2, -1)
        q = headed(self.query(x) + self.query_bias, self.heads, turn)
        k = headed(key + self.key_bias, self.heads, memory_turn)
        v = value.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mixed = self.mixing(q.to(v.dtype), k.to(v.dtype), v, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(-2))

    @torch.no_grad()
    def look_there(self) -> None:
        """Makes every query begin by reading around its own place (`place_bias`)."""
        place = place_bias(self.out.in_features, self.heads)
        self.query_bias.copy_(place)
        self.key_bias.copy_(place)
        self.query.weight *= QUIET
        self.key_value.weight[: self.out.in_features] *= QUIET

    @torch.no_grad()
    def hand_on(self, share: float) -> None:
        """Makes what is read begin as the memory itself times `share`: keys say where to look, values are copied."""
        width = self.out.in_features
        eye = torch.eye(width, device=self.out.weight.device)
        self.key_value.weight[width:].copy_(eye)
        self.out.weight.copy_(share * eye)


def headed(x: Float[Tensor, "B N D"], heads: int, turn: Float[Tensor, "B N F 2"] | None) -> Float[Tensor, "B H N E"]:
    """Queries or keys: each head's part of root mean square 1, turned by its place; None: places do not matter."""
    parts = unit_rms(x.unflatten(-1, (heads, -1)))
    return (parts if turn is None else rotate(parts, turn)).transpose(1, 2)


def place_bias(width: int, heads: int) -> Float[Tensor, "D"]:
    """What to add to queries and keys so that their rotary products are largest where their places agree.

    The same in all heads, and in those pairs alone that see distances in stretches, the faster half of them: what turns
    slowly does not tell a stretch from the next.
    """
    head_width = width // heads
    u = torch.zeros(heads, head_width // 2, 2, device="cpu")
    u[:, : max(1, coarse_pairs(head_width // 2) // 2), 0] = 1.0
    return (u * math.sqrt(head_width) / u[0].norm()).flatten()


class TwoWay(nn.Module):
    """One similarity between latents and tokens serves both ways (BiXT, arXiv:2402.12138, section 3.2).

        A = R_latents R_tokensᵀ / √E,  Δlatents = softmax_tokens(A) V_tokens,  Δtokens = softmax_latents(Aᵀ) V_latents

    Args:
        width: D.
        heads: H.
        weights: how latents share tokens: `reading_weights` or `competing_weights`.
    """

    def __init__(self, width: int, heads: int, *, weights: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.heads, self.weights = heads, weights
        self.latent = nn.Linear(width, 2 * width, bias=False)
        self.token = nn.Linear(width, 2 * width, bias=False)
        self.latent_bias = nn.Parameter(torch.zeros(width))
        self.token_bias = nn.Parameter(torch.zeros(width))
        self.latent_out = nn.Linear(width, width, bias=False)
        self.token_out = nn.Linear(width, width, bias=False)

    def forward(
        self,
        latents: Float[Tensor, "B G D"],
        tokens: Float[Tensor, "B N D"],
        *,
        mask: Bool[Tensor, "B 1 #G N"],
        turn: Float[Tensor, "B G F 2"],
        token_turn: Float[Tensor, "B N F 2"],
    ) -> tuple[Float[Tensor, "B G D"], Float[Tensor, "B N D"]]:
        """What latents learn of the tokens that the mask allows, and what tokens learn of all latents."""
        q, latent_value = self.latent(latents).chunk(2, -1)
        k, token_value = self.token(tokens).chunk(2, -1)
        q, k = headed(q + self.latent_bias, self.heads, turn), headed(k + self.token_bias, self.heads, token_turn)
        similarity = q @ k.mT * q.shape[-1] ** -0.5
        to_latents, to_tokens = self.weights(similarity, mask), similarity.mT.softmax(-1)

        def read(weights: Tensor, value: Tensor) -> Tensor:
            values = value.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            return (weights.to(value.dtype) @ values).transpose(1, 2).flatten(-2)

        return self.latent_out(read(to_latents, token_value)), self.token_out(read(to_tokens, latent_value))

    @torch.no_grad()
    def look_there(self) -> None:
        """As that of `Reading`."""
        width = self.latent_out.in_features
        for linear, bias in ((self.latent, self.latent_bias), (self.token, self.token_bias)):
            bias.copy_(place_bias(width, self.heads))
            linear.weight[:width] *= QUIET

    @torch.no_grad()
    def hand_on(self, share: float) -> None:
        """As that of `Reading`, of what latents read."""
        width = self.latent_out.in_features
        eye = torch.eye(width, device=self.token.weight.device)
        self.token.weight[width:].copy_(eye)
        self.latent_out.weight.copy_(share * eye)
        self.token_out.weight *= QUIET


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
        channels = torch.arange(width, device=self.kernel.device)
        self.kernel[channels % span, channels] = 1.0
