"""A model that draws concepts before text, as a sampler of text sees it.

Shape letters: B samples, L places of a row, C concepts, W features of a concept, V vocabulary, M positions at which
logits are wanted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.continuation import SourceNetwork
from remask.errors import UserError
from remask.gaussian import GaussianProcess
from remask.objectives.concepts.prior import ConceptPrior, LatentReader
from remask.processes import CategoricalProcess
from remask.samplers.base import Prompt
from remask.samplers.gaussian import LatentDenoiser

Walk = Callable[..., Tensor]
"""`samplers.gaussian.ddpm`, `ddim` or `heun`."""


@runtime_checkable
class ImaginingNetwork(SourceNetwork, LatentReader, Protocol):
    """A network that denoises concepts and decodes text from them."""

    def told(self, vectors: Float[Tensor, "B C W"]) -> Any:
        """Vectors as `Concepts` that a decoder may read."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConceptDenoiser:
    """A prior over concepts as a sampler of vectors sees it.

    Attributes:
        network: says something of noisy vectors.
        objective: knows what that is.
    """

    network: LatentReader
    objective: ConceptPrior

    @property
    def process(self) -> GaussianProcess:
        """The noise on vectors."""
        return self.objective.diffusion.process

    def clean(
        self, z: Float[Tensor, "B C W"], t: Float[Tensor, "B"], *, before: Float[Tensor, "B C W"] | None
    ) -> Float[Tensor, "B C W"]:
        """The estimate of the clean vectors; the last one is not read."""
        del before
        return self.objective.diffusion.estimate(self.network, z, t)


@dataclass(frozen=True, kw_only=True)
class Imagined:
    """A decoder that was told concepts which were drawn.

    Attributes:
        process: the noise on tokens.
        network: decodes.
        concepts: one row of them for each sample.
    """

    process: CategoricalProcess
    network: SourceNetwork
    concepts: Any

    def logits(
        self, z: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, positions: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "M V"]:
        """Leave-one-out logits at the true places of `positions`, in row-major order."""
        return self.network.decode(z, t, self.concepts, segments=torch.ones_like(z), positions=positions)


def draw_vectors(
    model: LatentDenoiser,
    objective: ConceptPrior,
    *,
    count: int,
    walk: Walk,
    times: Sequence[float],
    generator: torch.Generator,
) -> Float[Tensor, "B C W"]:
    """Concept vectors with the noise that the decoder was trained with, drawn from the prior.

    Args:
        model: of vectors.
        objective: says how many there are, and of how many features.
        count: B.
        walk: a sampler of vectors.
        times: from the largest that the prior has learned to the channel's.
        generator: on the model's device; all draws are made from it.
    """
    shape = (count, objective.channel.concepts, objective.channel.width)
    start = model.process.draw_prior(*shape, generator=generator, dtype=torch.float32)
    return walk(model, times, start=start, generator=generator)


def imagine(
    network: ImaginingNetwork,
    objective: ConceptPrior,
    prompt: Prompt,
    *,
    walk: Walk,
    times: Sequence[float],
    generator: torch.Generator,
) -> Imagined:
    """The decoder of one row of drawn concepts for each row of a prompt that gives nothing.

    Args as those of `draw_vectors`.

    Raises:
        UserError: where the prompt gives tokens, of which drawn concepts would know nothing.
    """
    if bool(prompt.fixed.any()):
        raise UserError(
            "this model draws the concepts of a whole text before any token, so it takes no prompt: leave --prompt "
            "out, or give a run of recipe concept-diffusion"
        )
    denoiser = ConceptDenoiser(network=network, objective=objective)
    vectors = draw_vectors(denoiser, objective, count=len(prompt.ids), walk=walk, times=times, generator=generator)
    return Imagined(process=objective.bound.process, network=network, concepts=network.told(vectors))
