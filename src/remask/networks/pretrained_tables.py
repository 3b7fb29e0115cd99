"""Embeddings and vocabulary projection of a pretrained model, held smaller than float32 or away from the device.

Both are frozen and give float32, so that the residual stream is float32 whatever the tables are held in.

Shape letters: B batch, N places, D width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class WideEmbedding(nn.Embedding):
    """A frozen table that is looked up where it lies; what it gives is float32, where the ids are.

    Args:
        weight: [V D], in any dtype of floats.
    """

    def __init__(self, weight: Float[Tensor, "V D"]) -> None:
        super().__init__(weight.shape[0], weight.shape[1], device="meta")
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)

    def forward(self, input: Int[Tensor, "..."]) -> Float[Tensor, "... D"]:
        """Ids to their vectors."""
        found = nn.functional.embedding(input.to(self.weight.device), self.weight)
        return found.to(input.device).float()

    def resize(self, size: int) -> None:
        """Cuts the table to `size` rows, or adds rows that are the mean of those it has."""
        self.weight = nn.Parameter(_resized(self.weight, size), requires_grad=False)
        self.num_embeddings = size


class StayingEmbedding(WideEmbedding):
    """A frozen table that stays on the CPU, whatever device the network around it is sent to.

    Of a batch, B·N·D numbers are sent over instead of a table of V·D held there.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "StayingEmbedding":
        """Neither moves nor converts it: `.to`, `.cuda`, `.half` of a network around it pass it by."""
        del fn, recurse
        return self


class HeldHead(nn.Linear):
    """A frozen vocabulary projection in the dtype that its device multiplies in; its logits are float32.

    Args:
        weight: [V D].
        bias: [V], or None.
    """

    def __init__(self, weight: Float[Tensor, "V D"], bias: Float[Tensor, "V"] | None = None) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        if bias is not None:
            self.bias = nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, input: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """Hidden states to logits."""
        return super().forward(input.to(self.weight.dtype)).float()

    def resize(self, size: int) -> None:
        """As `WideEmbedding.resize`."""
        self.weight = nn.Parameter(_resized(self.weight, size), requires_grad=False)
        self.out_features = size
        if self.bias is not None:
            self.bias = nn.Parameter(_resized(self.bias, size), requires_grad=False)


@torch.no_grad()
def _resized(table: Tensor, size: int) -> Tensor:
    """The first `size` rows, or all and their mean as often as is missing, in memory of their own."""
    kept = table[:size]
    if len(kept) == size:
        return kept.clone()
    mean: Any = kept.float().mean(0).to(kept.dtype)
    return torch.cat([kept, mean.expand(size - len(kept), *kept.shape[1:])])
