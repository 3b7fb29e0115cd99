r"""What a network learns under Gaussian noise on vectors, the likelihood bound it gives, and what it must beat.

Every loss here is a weight times the squared error of the clean estimate, w(t) · ‖x − x̂‖²: the network may speak of
the clean vector, the noise or the velocity, and w turns one loss into another (arXiv:2303.09556, section 3.3):

    clean 1        noise SNR        velocity SNR + 1 (variance-preserving)        min-SNR min(SNR, γ)           (1)

The weight that makes it a likelihood bound is w = −½ dSNR/dt. In continuous time, down to a time t0 > 0 (VDM,
arXiv:2107.00630, equations 11 and 17, with the integral cut at t0):

    KL(q(z_{t0} | x) ‖ p(z_{t0})) ≤ KL(q(z_1 | x) ‖ N(0, I)) + ½ ∫_{t0}^1 (−dSNR/dt) E ‖x − x̂(z_t, t)‖² dt.    (2)

It holds with any other end in the place of 1. The noise says what x is only while there is a signal: where it is what
the network speaks of, all times end at `GaussianProcess.t_max`.

What a trivial predictor gets is known in closed form at every t (`Prediction.mean_square`, `Prediction.linear_floor`);
an average over t can look well while some times are worse than predicting nothing, so skill is told by ranges of t.

Shape letters: B batch, *S any shape of one example's latent, K ranges of time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from remask.data.batch import Batch
from remask.gaussian import CLEAN, GaussianProcess, Prediction
from remask.randomness import widest_float
from remask.schedules import stratified

Denoise = Callable[[Float[Tensor, "B *S"], Float[Tensor, "B"]], Float[Tensor, "B *S"]]
"""(z_t, t) → what the network says of it: clean vector, noise or velocity."""

Weighting = Callable[[GaussianProcess, Float[Tensor, "B"]], Float[Tensor, "B"]]
"""The weight of ‖x − x̂‖² at each time."""

_GRID = 4096
"""Times over which a known mean loss is taken."""


def bound_weight(process: GaussianProcess, t: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """The integrand's weight in (2), −½ dSNR/dt; per unit of time."""
    return -0.5 * process.snr_slope(t)


def own_error(prediction: Prediction) -> Weighting:
    """The plain squared error of what the network speaks of, as in (1)."""
    return prediction.amplification


def min_snr(gamma: float) -> Weighting:
    """min(SNR, γ) (arXiv:2303.09556, equation 7; γ = 5 there): the noise's own error, cut where little noise is left.

    Raises:
        ValueError: when γ is not positive.
    """
    if not gamma > 0:
        raise ValueError(f"gamma: {gamma} was given; min-SNR needs a positive bound")
    return lambda process, t: process.snr(t).clamp_max(gamma)


def unwarped(u: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """Times as they are drawn: uniform."""
    return u


def towards_noise(exponent: float) -> Callable[[Float[Tensor, "B"]], Float[Tensor, "B"]]:
    """Times u^exponent of uniform u: an exponent below 1 draws more of the noisy ones.

    Raises:
        ValueError: when the exponent is not positive.
    """
    if not exponent > 0:
        raise ValueError(f"exponent: {exponent} was given; times u^exponent need a positive one")
    return lambda u: u**exponent


@dataclass(frozen=True, kw_only=True)
class LatentDiffusion:
    """Diffusion of vectors whose shape and meaning are the caller's.

    Attributes:
        process: the noise.
        prediction: what the network speaks of.
        weighting: of squared errors of x̂ in training.
        t_min: t0 of (2), above 0 and below `t_max`: nothing is learned nor asked of less noise.
        warp: uniform u in [0, 1) → where in [t_min, t_max) training times are; the bound's are always uniform.

    Raises:
        ValueError: when no time lies between t_min and t_max; the bound (2) would be negative.
    """

    process: GaussianProcess
    prediction: Prediction
    weighting: Weighting
    t_min: float
    warp: Callable[[Tensor], Tensor] = unwarped

    def __post_init__(self) -> None:
        if not 0.0 < self.t_min < self.t_max:
            raise ValueError(f"t_min: {self.t_min} was given; give a time above 0 and below {self.t_max:.6g}")

    @property
    def t_max(self) -> float:
        """The largest time that is learned, judged or drawn from: 1, unless the prediction says nothing of x there."""
        return self.prediction.latest(self.process)

    def spread(self, u: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """Where numbers in [0, 1] lie in [t_min, t_max]."""
        return self.t_min + (self.t_max - self.t_min) * u

    def placed(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """Where in [0, 1] times lie: the inverse of `spread`."""
        return (t - self.t_min) / (self.t_max - self.t_min)

    def times(self, generator: torch.Generator, batch: Batch) -> Float[Tensor, "B"]:
        """Training times in [t_min, t_max], stratified over the global batch, one for each example here."""
        device = generator.device
        everyone = torch.rand(batch.global_size, generator=generator, device=device, dtype=widest_float(device))
        return self.spread(self.warp(stratified(everyone)[batch.rows]))

    def clean(
        self, denoise: Denoise, x: Float[Tensor, "B *S"], *, t: Float[Tensor, "B"], noise: Float[Tensor, "B *S"]
    ) -> Float[Tensor, "B *S"]:
        """The network's estimate x̂ of `x` from z_t = α_t x + σ_t ε."""
        return self.estimate(denoise, self.process.corrupt(x, t, noise=noise), t)

    def estimate(self, denoise: Denoise, z: Float[Tensor, "B *S"], t: Float[Tensor, "B"]) -> Float[Tensor, "B *S"]:
        """The network's estimate x̂ from noisy vectors."""
        return self.prediction.clean(self.process, z, denoise(z, t), t)

    def weigh(
        self, error: Float[Tensor, "B *S"], weighting: Weighting, *, t: Float[Tensor, "B"]
    ) -> Float[Tensor, "B *S"]:
        """w(t) · (x − x̂)² of each coordinate."""
        weight = weighting(self.process, t).to(error.dtype)
        return weight.view((-1,) + (1,) * (error.ndim - 1)) * error.square()

    def training_loss(
        self, denoise: Denoise, x: Float[Tensor, "B *S"], *, t: Float[Tensor, "B"], noise: Float[Tensor, "B *S"]
    ) -> tuple[Float[Tensor, "B *S"], Float[Tensor, "B *S"]]:
        """The weighted squared error of what the network speaks of, and the error x̂ − x (detached), each coordinate."""
        z = self.process.corrupt(x, t, noise=noise)
        said = denoise(z, t)
        loss = self.said_loss(said, x, t=t, noise=noise)
        return loss, self.prediction.clean(self.process, z, said.detach(), t) - x

    def said_loss(
        self,
        said: Float[Tensor, "B *S"],
        x: Float[Tensor, "B *S"],
        *,
        t: Float[Tensor, "B"],
        noise: Float[Tensor, "B *S"],
    ) -> Float[Tensor, "B *S"]:
        """The weighted squared error of what the network speaks of, each coordinate.

        It is computed from the network's own words: turning noise into a clean vector divides by α_t, which is 0 at the
        end, and the weight would multiply by it again.
        """
        missed = said - self.prediction.target(self.process, x, t, noise=noise)
        own = self.prediction.amplification(self.process, t)
        weight = (self.weighting(self.process, t) / own).to(missed.dtype)
        return weight.view((-1,) + (1,) * (missed.ndim - 1)) * missed.square()

    def diffusion(
        self, denoise: Denoise, x: Float[Tensor, "B *S"], *, t: Float[Tensor, "B"], noise: Float[Tensor, "B *S"]
    ) -> Float[Tensor, "B *S"]:
        """A one-draw estimate of the integral in (2), for t uniform in [t_min, t_max); nats a coordinate."""
        error = self.clean(denoise, x, t=t, noise=noise) - x
        return (self.t_max - self.t_min) * self.weigh(error, bound_weight, t=t)

    def linear_loss(self, *, variance: float) -> float:
        """The mean training loss of the best multiple of z_t, each coordinate of mean square `variance`."""
        u = (torch.arange(_GRID, dtype=torch.float64, device="cpu") + 0.5) / _GRID
        t = self.spread(self.warp(u))
        return float((self.weighting(self.process, t) * CLEAN.linear_floor(self.process, t, variance=variance)).mean())

    def zero_loss(self, *, variance: float) -> float:
        """As `linear_loss`, of who says zero: with noise and its own weight, 1."""
        u = (torch.arange(_GRID, dtype=torch.float64, device="cpu") + 0.5) / _GRID
        t = self.spread(self.warp(u))
        own = self.prediction.amplification(self.process, t)
        said = self.prediction.mean_square(self.process, t, variance=variance)
        return float((self.weighting(self.process, t) / own * said).mean())

    def linear_rate(self, *, variance: float | Float[Tensor, "*S"]) -> float:
        """The integral in (2) for the best multiple of z_t: ½ log(1 + s² SNR_{t0}) − the same at t_max, a coordinate.

        A prior that has learned nothing pays so many nats: what Gaussian noise carries of white vectors. Of a variance
        for each coordinate the mean: so many are paid by who knows each one's mean and variance, and nothing else.
        """
        ends = torch.tensor([self.t_min, self.t_max], dtype=torch.float64, device="cpu")
        wide = torch.as_tensor(variance, dtype=torch.float64, device="cpu").flatten()
        first, last = (0.5 * torch.log1p(wide * self.process.snr(ends)[:, None])).mean(-1).tolist()
        return first - last

    def prior(self, x: Float[Tensor, "B *S"]) -> Float[Tensor, "B *S"]:
        """KL(q(z_{t_max} | x) ‖ N(0, I)) of (2); nats a coordinate."""
        return self.process.prior_divergence(x, at=self.t_max)


@dataclass(frozen=True, kw_only=True)
class SkillByTime:
    """R = 1 − error / floor in K equal ranges of t, the floor being the best multiple of z_t (Wiener).

    0 is what a linear filter gets without having learned anything, 1 would be perfect; below 0 the network is worse
    than the filter. Where coordinates have means and variances of their own, a filter that knows them is the one to
    beat: else who knows what all texts share would have skill. Sums travel as terms of a loss, since they add up over
    micro-batches and processes.

    Attributes:
        diffusion: whose times and floors these are.
        variance: s², the mean square of a coordinate of the clean vectors.
        ranges: K.
    """

    diffusion: LatentDiffusion
    variance: float = 1.0
    ranges: int = 5

    def terms(
        self, error: Float[Tensor, "B *S"], t: Float[Tensor, "B"], *, varying: Float[Tensor, "*S"] | None = None
    ) -> dict[str, Tensor]:
        """Sums over the batch of the mean squared error of x̂, of the filter's and of who says zero, by range of t.

        Errors are divided by the filter's mean at their time, so that no time of a range outweighs the others.

        Args:
            error: x̂ − x.
            t: in [t_min, t_max].
            varying: the variance of each coordinate, where the filter is to know its mean and that; None: `variance`.
        """
        wide = widest_float(error.device)
        squared = error.detach().to(wide).square().flatten(1).mean(-1)
        floor = self._floor(t.to(wide), t.new_tensor([self.variance]) if varying is None else varying.detach())
        place = (self.diffusion.placed(t) * self.ranges).long()
        here = torch.nn.functional.one_hot(place.clamp(0, self.ranges - 1), self.ranges).to(wide)
        ratio, zero = squared / floor, self.variance / floor
        values = {"error": ratio, "zero": zero, "count": torch.ones_like(ratio)}
        return {
            f"skill_{name}_{k}": (value * here[:, k]).sum()
            for name, value in values.items()
            for k in range(self.ranges)
        }

    def _floor(self, t: Float[Tensor, "B"], variance: Float[Tensor, "*S"]) -> Float[Tensor, "B"]:
        """The filter's mean squared error over coordinates of these variances."""
        each = variance.to(t).flatten().expand(len(t), -1)
        times = t[:, None].expand_as(each)
        floor = CLEAN.linear_floor(self.diffusion.process, times.flatten(), variance=each.flatten())
        return floor.view_as(each).mean(-1)

    def figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """Skill by range of t (`skill_t0` the cleanest), the worst of them, and that of who says zero (`_of_zero`)."""
        skills, zeros = {}, {}
        for k in range(self.ranges):
            count = terms.get(f"skill_count_{k}", 0.0)
            if count:
                skills[f"skill_t{k}"] = 1.0 - terms[f"skill_error_{k}"] / count
                zeros[f"skill_of_zero_t{k}"] = 1.0 - terms[f"skill_zero_{k}"] / count
        return {**skills, **zeros, **({"worst_skill": min(skills.values())} if skills else {})}
