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
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.networks.blocks import Attention, Final, GatedMLP
from remask.networks.cache import KeyValueCache
from remask.networks.rotary import rotary
from remask.networks.segments import Blocks, causal_mask, keep_inputs, no_context, segment_mask, shift_right
from remask.networks.stacks import Inner, Stack


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


class Transformer(nn.Module):
    """Tokens to leave-one-out logits.

    Args:
        vocab_size: V, every id with the mask.
        mask_id: its embedding also starts a causal segment.
        width: D; a multiple of `heads`, with an even quotient (rotary positions turn pairs).
        layers: the number of blocks.
        heads: H.
        mlp_width: hidden width of the gated MLP, or of each expert.
        direction: `BIDIRECTIONAL` or `CAUSAL`.
        time: a `Timeless` or a `TimeEmbedding`.
        stack: (width, the (attention, MLP) of each block) → the blocks as one `nn.ModuleList` that carries the stream
            through all of them: `straight` (networks/stacks.py) or `mixed` (networks/reversible.py).
        final: width → a `Final` or a `ModulatedFinal`, before the vocabulary projection.
        mlp: (width, mlp_width) → a `GatedMLP` or `Experts`.

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
        stack: Callable[[int, Sequence[Inner]], Stack],
        final: Callable[[int], nn.Module] = Final,
        mlp: Callable[[int, int], nn.Module] = GatedMLP,
    ) -> None:
        super().__init__()
        self.mask_id = mask_id
        self.head_width = width // heads
        self.direction = direction
        self.embedding = nn.Embedding(vocab_size, width)
        self.time = time
        self.blocks = stack(width, [(Attention(width, heads), mlp(width, mlp_width)) for _ in range(layers)])
        self.norm = final(width)
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
            z, segments, rotation = torch.cat([z, context], 1), segments.repeat(1, 2), rotation.repeat(2, 1, 1)
        x = self._read(z, segments)
        condition, real = self.time(t), segments != 0
        x = self.blocks(x, condition, rotation=rotation, mask=mask, real=real)
        return self._logits(x[:, :length], condition, positions)

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
        x = self.blocks(x, condition, rotation=rotation, mask=mask, attach=[layer.attach for layer in cache.layers])
        cache.keep(min(self.direction.settled(known), length))
        return self._logits(x, condition, positions[:, start:])

    def _logits(
        self, x: Float[Tensor, "B N D"], condition: Float[Tensor, "B C"], positions: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "M V"]:
        rows, places = positions.nonzero(as_tuple=True)
        return self.head(self.norm(x[rows, places], condition[rows]))

    def _read(self, z: Int[Tensor, "B L"], segments: Int[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        return self.direction.inputs(self.embedding(z), segments, self.embedding.weight[self.mask_id])

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws all weights from `generator` (on the weights' device).

        Matrices are normal with variance 1/fan-in, those that write to the stream or choose experts (which then begin
        about evenly used) a tenth of that deviation, the head 0.02, so that the first loss is log V within a few per
        cent; AdaLN-Zero and the scales of affine couplings start at zero. A tied head begins small enough not to repeat
        its input, which is normalised in any case. Coordinate 0 of all embeddings is one constant with a fifth of their
        power, for `Attention.look_beside`.
        """
        width = self.embedding.embedding_dim
        spread = 0.5 / width if self.head.weight is self.embedding.weight else 0.2
        for name, parameter in self.named_parameters():
            if "modulation" in name or "coupling" in name or name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                scale = 0.1 if name.endswith(("out.weight", "router.weight")) else 1.0
                nn.init.normal_(parameter, std=scale * parameter.shape[-1] ** -0.5, generator=generator)
        nn.init.normal_(self.head.weight, std=0.02, generator=generator)
        nn.init.normal_(self.embedding.weight, std=spread, generator=generator)
        self.embedding.weight[:, 0] = 0.5 * spread * math.sqrt(width)
        beside = iter(self.direction.neighbours)
        for attention in islice((m for m in self.modules() if isinstance(m, Attention)), 2):
            attention.look_beside(list(islice(beside, attention.heads)))

    def repeated_layers(self) -> Iterator[nn.Module]:
        """The stack's own, in order: what is sharded, compiled or computed again as one."""
        return self.blocks.repeated_layers()

    def begin_step(self, step: int) -> None:
        """Tells the stack which optimiser step begins."""
        self.blocks.begin_step(step)

    def hidden_matrices(self) -> Iterator[nn.Parameter]:
        """The weight matrices inside the blocks: what Muon orthogonalises."""
        return (parameter for parameter in self.blocks.parameters() if parameter.ndim == 2)
