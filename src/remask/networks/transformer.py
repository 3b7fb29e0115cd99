"""The transformer that every token model starts from.

Pre-norm blocks with RMSNorm (arXiv:1910.07467), rotary positions (arXiv:2104.09864), scaled dot-product attention with
normalised queries and keys (arXiv:2010.04245) and a gated MLP (SwiGLU, arXiv:2002.05202), without biases or norm
weights. Time enters, where it is asked for, through AdaLN-Zero (DiT, arXiv:2212.09748).

A network that has to find out by gradient descent that neighbouring tokens matter most spends its first minutes at the
unigram predictor. Here the heads of the first two blocks begin by looking at a neighbour each (see `look_beside`).

Shape letters: B batch, L length, V vocabulary, D width, H heads, E head width, C condition width, M positions at which
logits are wanted.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from remask.networks.cache import Attach, KeyValueCache, alone
from remask.networks.normalisation import UnitRMS, unit_rms
from remask.networks.segments import Blocks, causal_mask, keep_inputs, no_context, segment_mask, shift_right

TOP_FREQUENCY, BASE = 2.0, 10_000.0
"""Rotary frequencies, in radians a position: from the first down to it over the second."""


@dataclass(frozen=True)
class Direction:
    """Which tokens a position may see.

    Attributes:
        mask: (segments [B L], since) → who attends to whom, bool [B 1 Q L], Q the places from `since` on.
        inputs: (embeddings [B L D], segments [B L], start [D]) → what each position reads as its own input [B L D]:
            its own token's embedding, or the one before.
        neighbours: relative places, nearest first, that heads begin by looking at.
        settled: how many of the first places have states that depend on a row's first `known` tokens alone.
        block_length: the number of tokens that see each other while later ones are seen by none; None for all.
        context_mask: segments [B L] → the mask of a noisy row followed by the same row clean, bool [B 1 2L 2L].
    """

    mask: Callable[..., Tensor]
    inputs: Callable[[Tensor, Tensor, Tensor], Tensor]
    neighbours: tuple[int, ...]
    settled: Callable[[int], int]
    block_length: int | None = None
    context_mask: Callable[[Tensor], Tensor] = no_context


BIDIRECTIONAL = Direction(segment_mask, keep_inputs, (-1, 1, -2, 2, -3, 3, -4, 4), settled=lambda known: 0)
"""Every position sees its whole segment: for denoisers."""
CAUSAL = Direction(
    causal_mask, shift_right, (-1, -2, -3, -4, -5, -6, -7, -8), settled=lambda known: known + 1, block_length=1
)
"""Position i sees the tokens before i in its segment, and not i itself: logits are log p(x_i | x_{<i})."""


def block_causal(block_length: int) -> Direction:
    """Position i sees its own block and those before it, within its segment: for block diffusion.

    Args:
        block_length: tokens a block, counted from the row's first place.

    Raises:
        ValueError: when it is below 1.
    """
    if block_length < 1:
        raise ValueError(f"block_length: {block_length} was given; a block holds 1 token or more")
    blocks = Blocks(block_length)
    nearest = sorted((*range(-8, 0), *range(1, min(block_length, 5))), key=lambda place: (abs(place), place))
    return Direction(
        blocks.mask,
        keep_inputs,
        tuple(nearest[:8]),
        settled=blocks.settled,
        block_length=block_length,
        context_mask=blocks.context_mask,
    )


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
        rotation: Complex[Tensor, "L F"],
        mask: Bool[Tensor, "B 1 L N"],
        attach: Attach = alone,
    ) -> Float[Tensor, "B L D"]:
        """Attention over those of the N positions that `attach` gives that `mask` allows."""
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

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """The same function at every position."""
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.out(functional.silu(gate) * up)


class Residual(nn.Module):
    """x + inner(norm(x)); the condition is not read."""

    def __init__(self, width: int, inner: nn.Module, *, dropout: float) -> None:
        super().__init__()
        self.norm = UnitRMS()
        self.inner = inner
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **inner: object
    ) -> Float[Tensor, "B L D"]:
        """The stream with this branch's update added."""
        del condition
        return x + self.dropout(self.inner(self.norm(x), **inner))


class ModulatedResidual(nn.Module):
    """x + gate · inner(norm(x) · (1 + scale) + shift), all three linear in the condition and zero at the start."""

    def __init__(self, width: int, inner: nn.Module, *, dropout: float, condition_width: int) -> None:
        super().__init__()
        self.norm = UnitRMS()
        self.inner = inner
        self.dropout = nn.Dropout(dropout)
        self.modulation = nn.Linear(condition_width, 3 * width)

    def forward(
        self, x: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **inner: object
    ) -> Float[Tensor, "B L D"]:
        """The stream with this branch's gated update added."""
        shift, scale, gate = self.modulation(functional.silu(condition))[:, None].chunk(3, -1)
        return x + gate * self.dropout(self.inner(self.norm(x) * (1.0 + scale) + shift, **inner))


class Block(nn.Module):
    """Attention, then MLP, each on the residual stream."""

    def __init__(self, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.mlp = mlp

    def forward(
        self, x: Float[Tensor, "B L D"], condition: Float[Tensor, "B C"], **attention: object
    ) -> Float[Tensor, "B L D"]:
        """One layer of the stream."""
        return self.mlp(self.attention(x, condition, **attention), condition)


class Transformer(nn.Module):
    """Tokens to leave-one-out logits.

    Args:
        vocab_size: V, every id with the mask.
        mask_id: its embedding also starts a causal segment.
        width: D; a multiple of `heads`, with an even quotient (rotary positions turn pairs).
        layers: the number of blocks.
        heads: H.
        mlp_width: hidden width of the gated MLP.
        direction: `BIDIRECTIONAL` or `CAUSAL`.
        time: `Timeless()` or a `TimeEmbedding`.
        residual: (width, inner) → `Residual` or `ModulatedResidual`.

    Weights hold nothing meaningful until `initialise` is called.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        mask_id: int,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int,
        direction: Direction,
        time: nn.Module,
        residual: Callable[[int, nn.Module], nn.Module],
    ) -> None:
        super().__init__()
        self.mask_id = mask_id
        self.head_width = width // heads
        self.direction = direction
        self.embedding = nn.Embedding(vocab_size, width)
        self.time = time
        self.blocks = nn.ModuleList(
            Block(residual(width, Attention(width, heads)), residual(width, GatedMLP(width, mlp_width)))
            for _ in range(layers)
        )
        self.norm = UnitRMS()
        self.head = nn.Linear(width, vocab_size, bias=False)

    def tie_head(self) -> None:
        """Makes the vocabulary projection share the embedding's weights."""
        self.head.weight = self.embedding.weight

    def forward(
        self,
        z: Int[Tensor, "B L"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        context: Int[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "M V"]:
        """Logits at the M true places of `positions`, in row-major order; the projection runs there alone.

        Args:
            z: noisy tokens.
            t: the time of each row; unread by a `Timeless` network.
            segments: the document of each place, 0 for padding.
            positions: where logits are wanted.
            context: the same rows clean. Each block of `z` then sees the blocks before it clean instead of noisy, in
                one pass over the row twice, [z ; context] (BD3LM, arXiv:2503.09573, section 3.1).

        Raises:
            ValueError: when `context` is given and the direction has no mask for it.
        """
        length = z.shape[1]
        rotation = rotary(length, self.head_width, device=z.device)
        if context is None:
            mask = self.direction.mask(segments)
        else:
            mask = self.direction.context_mask(segments)
            z, segments, rotation = torch.cat([z, context], 1), segments.repeat(1, 2), rotation.repeat(2, 1)
        x = self._read(z, segments)
        condition = self.time(t)
        for block in self.blocks:
            x = block(x, condition, rotation=rotation, mask=mask)
        return self.head(self.norm(x[:, :length][positions]))

    @property
    def block_length(self) -> int | None:
        """Tokens that see each other while later ones are seen by none; None where all see all."""
        return self.direction.block_length

    def open_cache(self, capacity: int) -> KeyValueCache:
        """An empty cache for rows of at most `capacity` places, for `resume`."""
        return KeyValueCache(len(self.blocks), capacity)

    @torch.no_grad()
    def resume(
        self,
        z: Int[Tensor, "B N"],
        t: Float[Tensor, "B"],
        *,
        segments: Int[Tensor, "B N"],
        positions: Bool[Tensor, "B N"],
        cache: KeyValueCache,
        known: int,
    ) -> Float[Tensor, "M V"]:
        """As `forward` on a row's first N places, of which those in the cache are not computed again.

        Args:
            z: tokens from the row's start.
            t: as in all earlier calls with this cache, if the network reads it.
            segments: the document of each place.
            positions: where logits are wanted, behind the places in the cache.
            cache: made by `open_cache`; leaves with every place whose state the first `known` tokens settle.
            known: the number of tokens that will not change.
        """
        length, start = z.shape[1], cache.length
        reached = max(start - 1, 0)  # a place reads its own token or the one before it
        x = self._read(z[:, reached:], segments[:, reached:])[:, start - reached :]
        rotation = rotary(length, self.head_width, device=z.device)[start:]
        mask = self.direction.mask(segments, since=start)
        condition = self.time(t)
        for block, layer in zip(self.blocks, cache.layers, strict=True):
            x = block(x, condition, rotation=rotation, mask=mask, attach=layer.attach)
        cache.keep(min(self.direction.settled(known), length))
        return self.head(self.norm(x[positions[:, start:]]))

    def _read(self, z: Int[Tensor, "B L"], segments: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        return self.direction.inputs(self.embedding(z), segments, self.embedding.weight[self.mask_id])

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights from `generator` (on the weights' device).

        Matrices are normal with variance 1/fan-in, those that write to the stream a tenth of that deviation, the head
        0.02, so that the first loss is log V within a few per cent; AdaLN-Zero starts at zero. A tied head begins small
        enough not to repeat its input, which is normalised in any case. Coordinate 0 of all embeddings is one constant
        with a fifth of their power, for `Attention.look_beside`.
        """
        width = self.embedding.embedding_dim
        spread = 0.5 / width if self.head.weight is self.embedding.weight else 0.2
        for name, parameter in self.named_parameters():
            if "modulation" in name or name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                scale = 0.1 if name.endswith("out.weight") else 1.0
                nn.init.normal_(parameter, std=scale * parameter.shape[-1] ** -0.5, generator=generator)
        nn.init.normal_(self.head.weight, std=0.02, generator=generator)
        nn.init.normal_(self.embedding.weight, std=spread, generator=generator)
        self.embedding.weight[:, 0] = 0.5 * spread * math.sqrt(width)
        beside = iter(self.direction.neighbours)
        for attention in islice((m for m in self.modules() if isinstance(m, Attention)), 2):
            attention.look_beside(list(islice(beside, attention.heads)))

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """The weight matrices inside the blocks: what Muon orthogonalises."""
        return (parameter for parameter in self.blocks.parameters() if parameter.ndim == 2)


def rotary_frequencies(head_width: int, *, device: torch.device) -> Float[Tensor, "F"]:
    """Radians a position of each rotary pair, F = head width / 2."""
    half = head_width // 2
    return TOP_FREQUENCY * BASE ** (-torch.arange(half, device=device, dtype=torch.float32) / half)


def rotary(length: int, head_width: int, *, device: torch.device) -> Complex[Tensor, "L F"]:
    """Unit complex numbers of angle position × frequency."""
    angles = torch.arange(length, device=device)[:, None] * rotary_frequencies(head_width, device=device)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Float[Tensor, "B L H E"], rotation: Complex[Tensor, "L F"]) -> Float[Tensor, "B L H E"]:
    """Turns each pair (x_2f, x_2f+1) by its angle, so that products of queries and keys see distances only."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation.to(pairs.dtype)[:, None]).flatten(-2)
