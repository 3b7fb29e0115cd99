"""What a denoiser of token vectors says at each place, and what that amounts to: tokens, or a vector.

Shape letters: M vectors, T tokens (as many, where each token has a vector), W features of a vector, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from remask.objectives.gaussian import LatentDiffusion
from remask.objectives.thought_rows import ThoughtRows


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a network said, and of what.

    Attributes:
        said: its words, logits [M V] or vectors [M W].
        z: the noisy vectors [M W].
        x: the clean ones [M W].
        noise: ε [M W].
        t: the time of each place [M].
        rows: what the vectors are of.
    """

    said: Float[Tensor, "M X"]
    z: Float[Tensor, "M W"]
    x: Float[Tensor, "M W"]
    noise: Float[Tensor, "M W"]
    t: Float[Tensor, "M"]
    rows: ThoughtRows


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What the words amount to.

    Attributes:
        log_p: log-probabilities of the responses' tokens; the mask has none [T V].
        clean: x̂ [M W].
    """

    log_p: Float[Tensor, "T V"]
    clean: Float[Tensor, "M W"]


@dataclass(frozen=True, kw_only=True)
class Readout(ABC):
    """What a network's words amount to.

    Attributes:
        diffusion: says what a squared error is of, and its weights.
        mask_id: a token that clean text never holds.
    """

    diffusion: LatentDiffusion
    mask_id: int

    @abstractmethod
    def read(
        self, said: Float[Tensor, "M X"], z: Float[Tensor, "M W"], t: Float[Tensor, "M"], rows: ThoughtRows
    ) -> Estimate:
        """The estimate that words about the z_t of some rows amount to."""

    @abstractmethod
    def away(self, given: Estimate, dropped: Estimate, rows: ThoughtRows, *, scale: float) -> Estimate:
        """`given` moved by `scale` times its difference from `dropped` (arXiv:2207.12598, equation 6)."""

    @abstractmethod
    def reshaped(
        self,
        estimate: Estimate,
        rows: ThoughtRows,
        transform: Callable[[Float[Tensor, "T V"]], Float[Tensor, "T V"]],
    ) -> Estimate:
        """An estimate under changed log-probabilities, where it is one of probabilities."""

    @abstractmethod
    def weighted_error(self, seen: Seen) -> tuple[Float[Tensor, "M W"], Float[Tensor, "M W"]]:
        """The weighted squared error of each coordinate, and x̂ without a gradient."""

    @abstractmethod
    def trivial_loss(self, *, variance: float) -> Mapping[str, float]:
        """Mean squared errors, weighted, of who has learned nothing; x has mean square `variance`."""

    def estimate(self, seen: Seen) -> Estimate:
        """The estimate of what was seen."""
        return self.read(seen.said, seen.z, seen.t, seen.rows)

    def vector(self, seen: Seen) -> Float[Tensor, "M W"]:
        """The estimate's vector alone."""
        return self.estimate(seen).clean

    def spoken(self, logits: Float[Tensor, "*M V"]) -> Float[Tensor, "*M V"]:
        """Log-probabilities of tokens, float32; the mask is never one."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        mask = torch.arange(wide.shape[-1], device=wide.device) == self.mask_id
        return wide.masked_fill(mask, -torch.inf).log_softmax(-1)


@dataclass(frozen=True, kw_only=True)
class TokenReadout(Readout):
    """Logits over tokens; x̂ = Σ p E."""

    def read(
        self, said: Float[Tensor, "M X"], z: Float[Tensor, "M W"], t: Float[Tensor, "M"], rows: ThoughtRows
    ) -> Estimate:
        """Softmax, and the mean vector under it."""
        del z, t
        return self.mean(self.spoken(said), rows)

    def mean(self, log_p: Float[Tensor, "T V"], rows: ThoughtRows) -> Estimate:
        """The estimate under given probabilities."""
        return Estimate(log_p=log_p, clean=rows.mean(log_p))

    def away(self, given: Estimate, dropped: Estimate, rows: ThoughtRows, *, scale: float) -> Estimate:
        """Log-probabilities moved; what is impossible given the question stays so."""
        moved = given.log_p + scale * (given.log_p - dropped.log_p)
        kept = torch.where(given.log_p == -torch.inf, given.log_p, moved)
        return self.mean(kept.log_softmax(-1), rows)

    def reshaped(
        self,
        estimate: Estimate,
        rows: ThoughtRows,
        transform: Callable[[Float[Tensor, "T V"]], Float[Tensor, "T V"]],
    ) -> Estimate:
        """The mean vector under the changed probabilities."""
        return self.mean(transform(estimate.log_p).log_softmax(-1), rows)

    def weighted_error(self, seen: Seen) -> tuple[Float[Tensor, "M W"], Float[Tensor, "M W"]]:
        """Of x̂ = Σ p E."""
        clean = self.vector(seen)
        return self.diffusion.weigh(clean - seen.x, self.diffusion.weighting, t=seen.t), clean.detach()

    def trivial_loss(self, *, variance: float) -> Mapping[str, float]:
        """The best multiple of z_t."""
        return {"linear filter": self.diffusion.linear_loss(variance=variance)}


@dataclass(frozen=True, kw_only=True)
class VectorReadout(Readout):
    """A vector: the clean one, the noise or the velocity, as the diffusion's prediction says.

    Tokens are read off x̂ by distance, log p ∝ −½ ‖x̂ − E‖², or by a codec's decoder.
    """

    def read(
        self, said: Float[Tensor, "M X"], z: Float[Tensor, "M W"], t: Float[Tensor, "M"], rows: ThoughtRows
    ) -> Estimate:
        """The clean vector that follows, and its tokens."""
        return self._named(self._clean(said, z, t), rows)

    def vector(self, seen: Seen) -> Float[Tensor, "M W"]:
        """The clean vector that follows."""
        return self._clean(seen.said, seen.z, seen.t)

    def away(self, given: Estimate, dropped: Estimate, rows: ThoughtRows, *, scale: float) -> Estimate:
        """Clean vectors moved."""
        return self._named(given.clean + scale * (given.clean - dropped.clean), rows)

    def reshaped(
        self,
        estimate: Estimate,
        rows: ThoughtRows,
        transform: Callable[[Float[Tensor, "T V"]], Float[Tensor, "T V"]],
    ) -> Estimate:
        """The estimate as it is: its vector was not made of probabilities."""
        del rows, transform
        return estimate

    def weighted_error(self, seen: Seen) -> tuple[Float[Tensor, "M W"], Float[Tensor, "M W"]]:
        """Of the network's own words: x̂ from noise has a pole at the end."""
        wide = seen.said.to(torch.promote_types(seen.said.dtype, torch.float32))
        return self.diffusion.said_loss(wide, seen.x, t=seen.t, noise=seen.noise), self.vector(seen).detach()

    def trivial_loss(self, *, variance: float) -> Mapping[str, float]:
        """Zero, and the best multiple of z_t."""
        return {
            "zero": self.diffusion.zero_loss(variance=variance),
            "linear filter": self.diffusion.linear_loss(variance=variance),
        }

    def _clean(
        self, said: Float[Tensor, "M X"], z: Float[Tensor, "M W"], t: Float[Tensor, "M"]
    ) -> Float[Tensor, "M W"]:
        wide = said.to(torch.promote_types(said.dtype, torch.float32))
        return self.diffusion.prediction.clean(self.diffusion.process, z, wide, t)

    def _named(self, clean: Float[Tensor, "M W"], rows: ThoughtRows) -> Estimate:
        return Estimate(log_p=self.spoken(rows.named(clean)), clean=clean)
