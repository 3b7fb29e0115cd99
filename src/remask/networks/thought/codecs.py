"""Tokens as vectors of mean square 1, which noise lies on: the latent of a thought.

The latent is narrow on purpose: noisy vectors of a wide table round to the right token at nearly all noise levels, and
those then teach nothing. A narrow one can be learned end to end (Diffusion-LM, arXiv:2205.14217, section 4.1).

Shape letters: V vocabulary, W features of a vector.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from remask.networks.normalisation import unit_rms


@runtime_checkable
class TableCodec(Protocol):
    """A vector for every token."""

    @property
    def width(self) -> int:
        """W."""
        ...

    def vectors(self) -> Float[Tensor, "V W"]:
        """All of them, float32; a coordinate has mean square 1."""
        ...


class LearnedTable(nn.Module):
    """A table whose rows are divided by their root mean square, so that each has the norm √W.

    Frozen (`requires_grad_(False)`), it is a table of random directions.

    Args:
        vocab_size: V.
        width: W.

    Weights hold nothing meaningful until `initialise` is called.
    """

    def __init__(self, *, vocab_size: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, width)

    @property
    def width(self) -> int:
        """W."""
        return self.table.embedding_dim

    def vectors(self) -> Float[Tensor, "V W"]:
        """The normalised rows."""
        return unit_rms(self.table.weight)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws the rows from `generator` (on the weights' device), standard normal."""
        nn.init.normal_(self.table.weight, generator=generator)


class OwnTable(nn.Module):
    """The embedding that the trunk reads tokens by, without a gradient and scaled to mean square 1 over all of it.

    Args:
        embedding: of the trunk; it stays the trunk's, and is no part of this module.
    """

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        # in a tuple, so that its weights are not registered, and saved, a second time
        self._embedding = (embedding,)

    @property
    def width(self) -> int:
        """W."""
        return self._weight.shape[1]

    @property
    def _weight(self) -> Float[Tensor, "V W"]:
        weight = self._embedding[0].weight
        assert isinstance(weight, Tensor)
        return weight

    def vectors(self) -> Float[Tensor, "V W"]:
        """The scaled rows."""
        table = self._weight.detach().float()
        return table / table.square().mean().sqrt()
