"""Who sees whom in a packed row.

Segments number the documents of a row from 1; 0 marks padding. No position ever attends to another segment.
Shape letters: B batch, L length, D width, Q queries: the places of a row from `since` on, Q = L − since.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def segment_mask(segments: Int[Tensor, "B L"], *, since: int = 0) -> Bool[Tensor, "B 1 Q L"]:
    """True where query i ≥ `since` may attend to key j: the same segment. Padding is its own, seen by no text."""
    return (segments[:, since:, None] == segments[:, None, :])[:, None]


def causal_mask(segments: Int[Tensor, "B L"], *, since: int = 0) -> Bool[Tensor, "B 1 Q L"]:
    """As `segment_mask`, and j ≤ i."""
    length = segments.shape[1]
    below = torch.ones(length - since, length, dtype=torch.bool, device=segments.device).tril(since)
    return segment_mask(segments, since=since) & below


@dataclass(frozen=True)
class Blocks:
    """A row cut into blocks of `length` places, counted from the row's first place; the last may be shorter.

    The masks are those of block diffusion (BD3LM, arXiv:2503.09573, section 3.1).
    """

    length: int

    def mask(self, segments: Int[Tensor, "B L"], *, since: int = 0) -> Bool[Tensor, "B 1 Q L"]:
        """As `segment_mask`, and block(j) ≤ block(i)."""
        block = self._blocks(segments)
        return segment_mask(segments, since=since) & (block[since:, None] >= block)

    def context_mask(self, segments: Int[Tensor, "B L"]) -> Bool[Tensor, "B 1 2*L 2*L"]:
        """Who sees whom in a noisy row followed by the same row clean.

        A noisy place sees its own block noisy (M_BD) and the blocks before it clean (M_OBC); a clean place sees the
        clean blocks up to its own (M_BC) and nothing noisy:

            ( M_BD  M_OBC )
            (  0    M_BC  )
        """
        block = self._blocks(segments)
        own, before = block[:, None] == block, block[:, None] > block
        noisy, clean = torch.cat([own, before], 1), torch.cat([torch.zeros_like(own), own | before], 1)
        return segment_mask(segments.repeat(1, 2)) & torch.cat([noisy, clean])

    def settled(self, known: int) -> int:
        """Places whose states depend on the first `known` tokens alone: those of whole blocks."""
        return known // self.length * self.length

    def _blocks(self, segments: Int[Tensor, "B L"]) -> Int[Tensor, "L"]:
        return torch.arange(segments.shape[1], device=segments.device) // self.length


def no_context(segments: Int[Tensor, "B L"]) -> Bool[Tensor, "B 1 2*L 2*L"]:
    """Refuses a clean context.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"a clean context was given for {len(segments)} rows; this network's direction has no mask for one. Build it "
        "with block_causal(block_length), or call it without context"
    )


def keep_inputs(
    embeddings: Float[Tensor, "B L D"], segments: Int[Tensor, "B L"], start: Float[Tensor, "D"]
) -> Float[Tensor, "B L D"]:
    """Each position reads its own (noisy) token."""
    del segments, start
    return embeddings


def shift_right(
    embeddings: Float[Tensor, "B L D"], segments: Int[Tensor, "B L"], start: Float[Tensor, "D"]
) -> Float[Tensor, "B L D"]:
    """Each position reads the token before it, and the first of a segment reads `start`.

    With `causal_mask`, logits at position i then depend on tokens before i alone.
    """
    shifted = embeddings.roll(1, dims=1)
    previous = segments.roll(1, dims=1)
    first = segments != previous
    first[:, 0] = True
    return torch.where(first[..., None], start.to(shifted.dtype), shifted)
