"""Training without the prompt now and then, so that the same network also knows how responses look in general.

Shape letters: B batch, L length.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from remask.data.batch import Batch
from remask.objectives.base import Loss, Network, Objective
from remask.randomness import batch_uniform


@dataclass(frozen=True, kw_only=True)
class PromptDropout:
    """An objective on rows whose prompt is masked in a share of the examples.

    The network then models p(response) beside p(response | prompt), which classifier-free guidance compares (Ho and
    Salimans, arXiv:2207.12598, algorithm 1; for masked diffusion, arXiv:2410.18514). The prompt is masked as a whole,
    as it is when guidance asks for the unconditional prediction. What is reported as a likelihood always sees it.

    Attributes:
        objective: the loss.
        share: the share of examples without their prompt, in (0, 1).
        mask_id: what stands in place of a prompt's tokens.
    """

    objective: Objective
    share: float
    mask_id: int

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"the share of dropped prompts must lie between 0 and 1, got {self.share}")

    @property
    def exact(self) -> bool:
        """Whether the objective's likelihood is exact."""
        return self.objective.exact

    def at(self, step: int) -> "PromptDropout":
        """The objective of one optimiser step."""
        return replace(self, objective=self.objective.at(step))

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The objective's loss, with the prompts of some rows masked; the rows are drawn first."""
        dropped = batch_uniform(generator, batch) < self.share
        return self.objective(network, without_prompts(batch, dropped, mask_id=self.mask_id), generator=generator)

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """The objective's own, given every prompt."""
        return self.objective.likelihood_terms(network, batch, generator=generator, draws=draws)


def without_prompts(batch: Batch, dropped: Tensor, *, mask_id: int) -> Batch:
    """The batch with the given tokens of some rows masked: all that neither count nor are padding.

    Args:
        batch: rows of pairs.
        dropped: the rows to mask, bool [B].
        mask_id: what stands there instead.
    """
    given = (batch.segments != 0) & ~batch.targets
    return replace(batch, ids=batch.ids.masked_fill(given & dropped[:, None], mask_id))


def unwrapped(objective: Objective) -> Objective:
    """The objective itself, without the dropout of prompts around it."""
    return objective.objective if isinstance(objective, PromptDropout) else objective
