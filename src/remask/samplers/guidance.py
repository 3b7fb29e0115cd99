"""Classifier-free guidance: a prompt is given more weight than the model itself gives it.

Shape letters: B samples, L length, V vocabulary, M positions at which logits are wanted.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.processes import CategoricalProcess
from remask.samplers.base import Denoiser, Prompt


class Guided:
    r"""A denoiser with logits (1 + w) · log p(· | prompt) − w · log p(· | prompt masked), up to a constant a position.

    Classifier-free guidance (arXiv:2207.12598, equation 6) on tokens (arXiv:2412.10193, section 3). The network must
    have been trained with rows whose prompt was masked. It is called once, on twice as many rows; with w = 0, or
    without a prompt, it is called as it is.

    Attributes:
        process: of the model.
    """

    def __init__(self, model: Denoiser, *, prompt: Prompt, scale: float) -> None:
        """Binds a model to the prompt of the rows that it will be asked about.

        Args:
            model: network and process.
            prompt: the given tokens that a sampler is run with [B L].
            scale: w, at least 0.

        Raises:
            ValueError: when `scale` is out of range.
        """
        if not 0 <= scale < math.inf:
            raise ValueError(
                f"scale: {scale} was given; it must be a number of at least 0 (0 leaves the model as it is)"
            )
        self._model = model
        self._fixed = prompt.fixed
        self._scale = scale
        self._plain = scale == 0 or not bool(prompt.fixed.any())

    @property
    def process(self) -> CategoricalProcess:
        """The noise that sampling undoes."""
        return self._model.process

    def logits(
        self, z: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "M V"]:
        """Guided logits at the true places of `positions`, in row-major order; the rows are those of the prompt."""
        if self._plain:
            return self._model.logits(z, t, positions=positions)
        without = torch.where(self._fixed, self.process.mask_id, z)
        both = self._model.logits(
            torch.cat([z, without]), torch.cat([t, t]), positions=torch.cat([positions, positions])
        )
        given, dropped = both.chunk(2)
        guided = given + self._scale * (given - dropped)
        # what is impossible given the prompt stays so: −∞ − (−∞) is no number
        return torch.where(given == -torch.inf, given, guided)
