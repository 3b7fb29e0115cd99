"""What objectives have in common that give text no likelihood.

Shape letters: B rows, L places of a row, V vocabulary, M positions at which logits are wanted.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.objectives.base import Network


class WithoutLikelihood:
    """An objective that has no likelihood terms; what it is judged by instead is in `Assessed`."""

    @property
    def exact(self) -> bool:
        """There is no likelihood that could be exact."""
        return False

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """Refused.

        Raises:
            ValueError: always.
        """
        del network, batch, generator, draws
        raise ValueError(
            "this objective shows a network an encoding, or noisy vectors, of the text that it predicts: no likelihood"
        )

    def trivial(self, batches: Sequence[Batch], text: Mapping[str, float]) -> Mapping[str, float]:
        """The predictors of text, which are told more: all that lies to the left of a token."""
        del batches
        return text


def clean_nats(log_p: Float[Tensor, "M V"], ids: Int[Tensor, "M"]) -> Float[Tensor, "M"]:
    """−log p of the clean tokens."""
    return -log_p.gather(-1, ids[:, None]).squeeze(-1)


def greedy(log_p: Float[Tensor, "M V"], batch: Batch, positions: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """The rows with the likeliest token at each of the positions, in the row-major order of `log_p`."""
    return batch.ids.masked_scatter(positions, log_p.argmax(-1))
