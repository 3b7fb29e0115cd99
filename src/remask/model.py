"""A model: a network, the noise it was trained against, the objective and the tokenizer, as one thing to use.

Shape letters: B batch, L length, V vocabulary, M positions at which logits are wanted.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.objectives.base import Objective
from remask.processes import CategoricalProcess
from remask.tokenizers import Tokenizer

P = TypeVar("P", bound=CategoricalProcess | None)


@dataclass(frozen=True, kw_only=True)
class Model(Generic[P]):
    """What `remask sample` and `remask evaluate` load.

    Attributes:
        network: emits leave-one-out logits.
        process: the noise that a sampler undoes; None for an autoregressive model.
        objective: measures the network's likelihood.
        tokenizer: text ⇄ ids.
        length: the row length in tokens that the network was trained on.
    """

    network: nn.Module
    process: P
    objective: Objective
    tokenizer: Tokenizer
    length: int

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    @property
    def mask_id(self) -> int:
        """The id that clean text never holds."""
        return self.tokenizer.mask_id

    @property
    def parameters(self) -> int:
        """The number of trained numbers, shared ones counted once."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def logits(
        self, z: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "M V"]:
        """Logits at the true places of `positions`.

        A denoiser takes each row for one document, since only noise says yet where one could end; an autoregressive
        model begins a new one after each end of text, as its training rows do.
        """
        segments = torch.ones_like(z)
        if self.process is None:
            segments[:, 1:] += (z[:, :-1] == self.tokenizer.eos_id).cumsum(-1)
        return self.network(z, t, segments=segments, positions=positions)
