r"""Text from concepts that are drawn, too: the bound of a latent diffusion over concept vectors.

With f the encoder of a finished autoencoder, z_t = α_t f(x) + σ_t ε, a prior p over z that is a Gaussian diffusion, and
a decoder that was trained on z_{t0},

    −log p(x) ≤ KL(q(z_1 | x) ‖ N(0, I)) + ½ ∫_{t0}^1 (−dSNR/dt) E ‖f(x) − x̂(z_t, t)‖² dt                   (rate)
                + E [ bound on −log p(x | z_{t0}) ],                                                    (distortion)

the evidence bound with z_{t0} for its latent, whose KL(q(z_{t0} | x) ‖ p(z_{t0})) is bounded by the rate (VDM,
arXiv:2107.00630, equation 11; latent diffusion of arXiv:2106.05931, equation 1), and whose distortion is the
three-term bound of masked diffusion. Nothing of x reaches the decoder but z_{t0}, and the rate pays for that.

Shape letters: B rows, L places of a row, C concepts, W features of a concept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from remask.data.batch import Batch
from remask.objectives.base import Loss, Network
from remask.objectives.concepts.channel import LatentChannel
from remask.objectives.concepts.contract import ConceptReader, Told
from remask.objectives.gaussian import LatentDiffusion, SkillByTime
from remask.objectives.likelihood import LikelihoodBound
from remask.randomness import batch_uniform, widest_float
from remask.schedules import stratified

VARIANCE = 1.0
"""Mean square of a coordinate of a concept: its vector leaves the encoder with mean 0 and variance 1."""
ROWS_FOR_SKILL = 16
"""Rows of a micro-batch below which it says nothing of skill."""
LEAST = 1e-4
"""Variance over texts below which a coordinate counts as constant."""


@runtime_checkable
class LatentReader(Protocol):
    """A network that denoises concept vectors, and knows the encoder and the decoder on both sides of them."""

    def encode(self, source: Int[Tensor, "B N"], *, real: Bool[Tensor, "B N"]) -> Any:
        """The `Concepts` of a text, without noise and without a gradient."""
        ...

    def __call__(self, z: Float[Tensor, "B C W"], t: Float[Tensor, "B"]) -> Float[Tensor, "B C W"]:
        """What it says of noisy vectors."""
        ...


@dataclass(frozen=True, kw_only=True)
class ConceptPrior:
    """The prior over concepts as an objective: trained on vectors, judged by the bound on the text's likelihood.

    Attributes:
        bound: of the text given z_{t0}.
        channel: between the encoder and the decoder.
        diffusion: of the vectors, from t0 on.
        skill: by ranges of t, for the record.
    """

    bound: LikelihoodBound
    channel: LatentChannel
    diffusion: LatentDiffusion
    skill: SkillByTime

    @property
    def exact(self) -> bool:
        """A bound, never the likelihood itself."""
        return False

    @property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """What the bound's terms add up to: nats that the concepts cost, and nats of the text given them."""
        return {
            "rate": ("concepts_prior", "concepts_diffusion"),
            "distortion": ("diffusion", "reconstruction", "prior"),
        }

    @property
    def trivial_loss(self) -> Mapping[str, float]:
        """The training loss of who has learned nothing: the best multiple of z_t at each time."""
        return {"linear filter": self.diffusion.linear_loss(variance=VARIANCE)}

    @torch.no_grad()
    def trivial_parts(self, network: Network, batches: Sequence[Batch]) -> Mapping[str, Mapping[str, float]]:
        """What concepts cost under a prior that has learned nothing, and under one that knows what all texts share.

        The latter knows mean and variance of each coordinate over the judged rows: an encoder whose slots hardly
        depend on the text makes them cheap without anything learned of texts.
        """
        vectors = torch.cat([concepts_of(network, batch).vectors for batch in batches])
        vectors = vectors.to(widest_float(vectors.device))
        if len(vectors) < 2:
            return {"rate": {"linear filter": self.trivial_rate}}
        knowing = self.diffusion.linear_rate(variance=vectors.var(0).cpu())
        return {"rate": {"linear filter": self.trivial_rate, "means and variances": self._coordinates * knowing}}

    @property
    def trivial_rate(self) -> float:
        """Nats a row that concepts cost under a prior that has learned nothing: white vectors."""
        return self._coordinates * self.diffusion.linear_rate(variance=VARIANCE)

    @property
    def _coordinates(self) -> int:
        return self.channel.concepts * self.channel.width

    def at(self, step: int) -> "ConceptPrior":
        """The same at every step."""
        del step
        return self

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """The squared error of what the prior says of the row's concepts, at one time a row; no nats.

        A row's loss is the mean over its coordinates, held by each of its targets: a row counts by its tokens.
        """
        reader, x = cast(LatentReader, network), concepts_of(network, batch).vectors
        t, noise = self.diffusion.times(generator, batch), self.channel.draw(generator, batch).to(x.dtype)
        loss, error = self.diffusion.training_loss(reader, x, t=t, noise=noise)
        loss = loss.flatten(1).mean(-1)
        weight = batch.targets.to(loss.dtype)
        return Loss(loss[:, None] * weight, weight, self._skill(error, t, x))

    def _skill(
        self, error: Float[Tensor, "B C W"], t: Float[Tensor, "B"], x: Float[Tensor, "B C W"]
    ) -> dict[str, Tensor]:
        """Skill over the filter that knows each coordinate's mean and variance over the batch; nothing of few rows.

        The filter's error is concave in the variance: of few rows, whose variance is uncertain, it would be too small.
        """
        if len(x) < ROWS_FOR_SKILL:
            return {name: 0.0 * value for name, value in self.skill.terms(error, t).items()}
        return self.skill.terms(error, t, varying=x.var(0).clamp(min=LEAST))

    def diagnostics(self, network: nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """Skill by ranges of t, for the record: see `SkillByTime.figures`."""
        del network
        return self.skill.figures(terms)

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """The terms of the bound, each row's rate spread evenly over its targets.

        Args:
            network: the reader.
            batch: clean rows, all of whose tokens are targets.
            generator: on the batch's device.
            draws: noise draws a row, at least 1; times of the rate and of the masks are stratified over them.

        Returns:
            `concepts_prior` and `concepts_diffusion` (the rate), `diffusion`, `reconstruction` and `prior` (the
            distortion), in nats [B L].
        """
        concepts = concepts_of(network, batch)
        rate = self.rate_terms(network, concepts.vectors, batch, generator=generator, draws=draws)
        noisy = self.channel.noisy(concepts, self.channel.draw(generator, batch))
        told = Told(network=cast(ConceptReader, network), concepts=noisy)
        return {
            **{name: per_target(nats, batch) for name, nats in rate.items()},
            **self.bound.drawn_terms(told, batch, generator=generator, draws=draws),
        }

    def rate_terms(
        self, network: Network, x: Float[Tensor, "B C W"], batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B"]]:
        """The rate's two terms, in nats a row."""
        reader = cast(LatentReader, network)
        times = self.diffusion.spread(stratified(batch_uniform(generator, batch, draws)))
        integral = []
        for t in times.unbind(-1):
            noise = self.channel.draw(generator, batch).to(x.dtype)
            integral.append(self.diffusion.diffusion(reader, x, t=t, noise=noise).flatten(1).sum(-1))
        return {
            "concepts_prior": self.diffusion.prior(x).flatten(1).sum(-1),
            "concepts_diffusion": torch.stack(integral).mean(0),
        }


def concepts_of(network: Network, batch: Batch) -> Any:
    """The concepts of whole rows, by the part of a network that is not trained; `network` may be wrapped."""
    reader = cast(LatentReader, getattr(network, "module", network))
    return reader.encode(batch.ids, real=batch.segments > 0)


def per_target(nats: Float[Tensor, "B"], batch: Batch) -> Float[Tensor, "B L"]:
    """A row's nats spread evenly over its targets."""
    targets = batch.targets.to(nats.dtype)
    return nats[:, None] * targets / targets.sum(-1, keepdim=True).clamp_min(1.0)


def skill_of(diffusion: LatentDiffusion) -> SkillByTime:
    """Skill of a diffusion of concept vectors."""
    return SkillByTime(diffusion=diffusion, variance=VARIANCE)
