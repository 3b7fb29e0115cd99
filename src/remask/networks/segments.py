"""Who sees whom in a packed row.

Segments number the documents of a row from 1; 0 marks padding. No position ever attends to another segment.
Shape letters: B batch, L length, D width.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def segment_mask(segments: Int[Tensor, "B L"]) -> Bool[Tensor, "B 1 L L"]:
    """True where query i may attend to key j: the same segment. Padding is a segment of its own, seen by no text."""
    return (segments[:, :, None] == segments[:, None, :])[:, None]


def causal_mask(segments: Int[Tensor, "B L"]) -> Bool[Tensor, "B 1 L L"]:
    """As `segment_mask`, and j ≤ i."""
    length = segments.shape[1]
    below = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    return segment_mask(segments) & below


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
