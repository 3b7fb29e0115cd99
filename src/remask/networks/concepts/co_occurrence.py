"""Tokens by the company that they keep in the training text, which a network is told before training begins.

Shape letters: V vocabulary, N tokens, W width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from remask.networks.normalisation import unit_rms


class CoOccurrence(nn.Module):
    """A vector a token (data/co_occurrences.py), of root mean square 1; as drawn until `hear` was told of a text.

    They are counted, not trained: no gradient reaches them.

    Args:
        vocab_size: V.
        width: W.
    """

    def __init__(self, vocab_size: int, *, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(vocab_size, width), requires_grad=False)

    def forward(self, ids: Int[Tensor, "*N"]) -> Float[Tensor, "*N W"]:
        """The vectors of tokens."""
        return self.table[ids]

    @torch.no_grad()
    def hear(self, vectors: Float[Tensor, "V W"]) -> None:
        """Takes the vectors, of root mean square 1; a token that has zeros stays as drawn, like itself alone."""
        heard = vectors.to(self.table)
        self.table.copy_(torch.where(heard.any(-1, keepdim=True), heard, self.table))

    @torch.no_grad()
    def begin(self, generator: torch.Generator) -> None:
        """Random vectors: a token is like itself alone."""
        self.table.copy_(unit_rms(torch.randn(self.table.shape, generator=generator, device=self.table.device)))
