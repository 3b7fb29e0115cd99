"""How slots share the tokens of a text.

Shape letters: B rows, H heads, G slots, N tokens, E head width.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST = 1e-8
"""Added to the sum that a slot's weights are divided by: a slot that wins no token reads nothing."""


def reading_weights(similarity: Float[Tensor, "B H G N"], mask: Bool[Tensor, "B 1 #G N"]) -> Float[Tensor, "B H G N"]:
    """Each slot reads for itself: softmax over the tokens that the mask allows."""
    return similarity.masked_fill(~mask, -torch.inf).softmax(-1)


def competing_weights(similarity: Float[Tensor, "B H G N"], mask: Bool[Tensor, "B 1 #G N"]) -> Float[Tensor, "B H G N"]:
    """Slots compete for each token, then average what they won (Slot Attention, arXiv:2006.15055, equations 1 and 2).

    attn_gn = softmax over slots g of the similarity; a slot's weights are attn_gn / Σ_n attn_gn over tokens that are
    real. The tokens that a slot may read are the same for all slots.
    """
    won = similarity.softmax(-2) * mask
    return won / (won.sum(-1, keepdim=True) + SMALLEST)


def competing(
    query: Float[Tensor, "B H G E"],
    key: Float[Tensor, "B H N E"],
    value: Float[Tensor, "B H N E"],
    *,
    attn_mask: Bool[Tensor, "B 1 #G N"],
) -> Float[Tensor, "B H G E"]:
    """As `scaled_dot_product_attention`, with `competing_weights`; holds a number for every slot and token."""
    similarity = (query @ key.mT).float() * query.shape[-1] ** -0.5
    return competing_weights(similarity, attn_mask).to(value.dtype) @ value
