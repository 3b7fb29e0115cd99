r"""The autoregressive baseline: −log p(x) = −Σ_i log p(x_i | x_{<i}), exact.

A causal network's logits at position i do not depend on token i or later ones, so they are leave-one-out logits of a
special kind and the objective has no shift in it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from remask.data.batch import Batch
from remask.objectives.base import Loss, Network, scatter_positions


@dataclass(frozen=True, kw_only=True)
class NextToken:
    """Cross-entropy of each token given the tokens before it in its segment.

    Attributes:
        mask_id: the id that clean text never holds; it gets no probability, as in every other objective.
    """

    mask_id: int

    @property
    def exact(self) -> bool:
        """The sum is −log p(x) itself."""
        return True

    def at(self, step: int) -> "NextToken":
        """Itself, at every step."""
        del step
        return self

    def nats(self, network: Network, batch: Batch) -> Float[Tensor, "B L"]:
        """−log p(x_i | x_{<i}) in nats, zero where a token does not count."""
        t = torch.zeros(len(batch), dtype=torch.float32, device=batch.ids.device)
        logits = network(batch.ids, t, segments=batch.segments, positions=batch.targets)
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        mask = torch.tensor([self.mask_id], device=wide.device)
        log_p = wide.index_fill(-1, mask, -torch.inf).log_softmax(-1)
        values = functional.nll_loss(log_p, batch.ids[batch.targets], reduction="none")
        return scatter_positions(values, batch.targets)

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The training loss of a batch; nothing is drawn from `generator`."""
        del generator
        nats = self.nats(network, batch)
        return Loss(nats, batch.targets.to(nats.dtype), {"next_token": nats.detach().sum()})

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """One term, `next_token`, equal to −log p(x) in nats [B L]; needs no draws."""
        del generator, draws
        return {"next_token": self.nats(network, batch)}
