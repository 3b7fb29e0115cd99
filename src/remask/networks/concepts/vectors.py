"""What an encoder hands to a decoder: a row of concept vectors for each text.

Shape letters: B rows, C concepts, D width.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Concepts:
    """The concept vectors of some texts.

    Attributes:
        vectors: one vector a slot; those that are not real hold finite numbers without meaning.
        real: which slots a decoder may read.
    """

    vectors: Float[Tensor, "B C D"]
    real: Bool[Tensor, "B C"]

    def __len__(self) -> int:
        return len(self.vectors)

    def keep(self, kept: Int[Tensor, "B"]) -> "Concepts":
        """The first `kept` concepts of each row, the others hidden (nested dropout, arXiv:1402.0915)."""
        slots = torch.arange(self.real.shape[1], device=self.real.device)
        return replace(self, real=self.real & (slots < kept[:, None]))

    def shuffled(self, order: Int[Tensor, "R"]) -> "Concepts":
        """Row i holds the concepts of row `order[i]`; rows may be left out or come again."""
        return replace(self, vectors=self.vectors[order], real=self.real[order])

    def without(self, slot: int) -> "Concepts":
        """All concepts but those of one slot, counted from 0."""
        slots = torch.arange(self.real.shape[1], device=self.real.device)
        return replace(self, real=self.real & (slots != slot))
