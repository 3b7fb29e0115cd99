r"""Gaussian noise on real vectors, and how one step of it is undone.

A Gaussian process is one function of time, `coefficients`, that says how a vector is drowned:

    q_t(z | x) = N(z; α_t x, σ_t² I),        z = α_t x + σ_t ε,        ε ~ N(0, I).                         (1)

Everything else is derived once. With SNR_t = α_t²/σ_t² and velocity v = α_t ε − σ_t x (arXiv:2202.00512, appendix D):

    conversions      x = (z − σ ε)/α = (α z − σ v)/(α² + σ²),  ε = (z − α x)/σ                               (2)
    posterior        q(z_s | z_t, x) = N(c_z z_t + c_x x, σ_q² I)  for s < t, with a = α_t/α_s,
                     b² = σ_t² − a² σ_s²,  c_z = a σ_s²/σ_t²,  c_x = α_s b²/σ_t²,  σ_q² = b² σ_s²/σ_t²       (3)
    straight step    z_s = z_t + (α_s − α_t) x̂ + (σ_s − σ_t) ε̂                                              (4)

(3) is equations 25 to 28 of VDM (arXiv:2107.00630, appendix A), with x̂ for x the step of DDPM (arXiv:2006.11239). (4)
integrates dz/dt = α'_t x̂ + σ'_t ε̂, the flow that carries q_t (arXiv:2011.13456, equation 13), for estimates that stay
as they are: with both taken at t it is DDIM (arXiv:2010.02502, equation 12 with σ = 0); with means of both ends, Heun's
method. Written so, neither has a pole where α or σ is 0.

Shape letters: B batch, *S any shape of one example's latent, N any leading shape.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from remask.schedules import with_slope

FAINTEST = 4e-5
"""The least SNR with a signal to divide by: about that of DDPM's last step (arXiv:2006.11239, section 4)."""
_HALVINGS = 60


@dataclass(frozen=True)
class GaussianProcess(ABC):
    """Noise on vectors, defined by `coefficients` alone. Times t are in [0, 1], one for each example."""

    @abstractmethod
    def coefficients(self, t: Float[Tensor, "*N"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"]]:
        """α_t (falling) and σ_t (rising) of equation (1), both in [0, 1], in the shape and dtype of `t`."""

    def snr(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """The signal-to-noise ratio α_t²/σ_t², falling in t; infinite where σ_t = 0."""
        alpha, sigma = self.coefficients(t)
        return (alpha / sigma).square()

    def snr_slope(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """The slope d SNR/dt, never positive."""
        return with_slope(self.snr, t)[1]

    def log_snr(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """The logarithm of SNR_t, in nats."""
        alpha, sigma = self.coefficients(t)
        return 2.0 * (alpha.log() - sigma.log())

    def log_snr_slope(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """The slope d log SNR/dt, never positive; infinite where α_t = 0 or σ_t = 0."""
        return with_slope(self.log_snr, t)[1]

    def like(
        self, t: Float[Tensor, "B"], vectors: Float[Tensor, "B *S"]
    ) -> tuple[Float[Tensor, "B ..."], Float[Tensor, "B ..."]]:
        """α_t and σ_t, computed as wide as `t` is, in the dtype of `vectors` and shaped to multiply them."""
        shape = (-1,) + (1,) * (vectors.ndim - 1)
        alpha, sigma = self.coefficients(t)
        return alpha.to(vectors.dtype).view(shape), sigma.to(vectors.dtype).view(shape)

    # ── forward ────────────────────────────────────────────────────────────────────────────────────────────────

    def corrupt(
        self, x: Float[Tensor, "B *S"], t: Float[Tensor, "B"], *, noise: Float[Tensor, "B *S"]
    ) -> Float[Tensor, "B *S"]:
        """The noisy vectors z = α_t x + σ_t ε of equation (1).

        Args:
            x: clean vectors.
            t: one time an example.
            noise: ε, standard normal draws.
        """
        alpha, sigma = self.like(t, x)
        return alpha * x + sigma * noise

    def draw_prior(self, *shape: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """What sampling starts from: N(0, I) of the given shape, on the generator's device."""
        return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)

    @cached_property
    def t_max(self) -> float:
        """The largest time at which SNR_t is no less than `FAINTEST`.

        Behind it an estimate (z − σ ε̂)/α magnifies each error of ε̂ without bound; at it, by less than 160. There q_t is
        N(0, I) but for 2e-5 nats a coordinate of mean square 1.
        """
        low, high = 0.0, 1.0

        def heard(time: float) -> bool:
            return float(self.snr(torch.tensor(time, dtype=torch.float64, device="cpu"))) >= FAINTEST

        if heard(high):
            return high
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if heard(middle) else (low, middle)
        return low

    def prior_divergence(self, x: Float[Tensor, "B *S"], *, at: float = 1.0) -> Float[Tensor, "B *S"]:
        """KL(q_t(· | x) ‖ N(0, I)) of each coordinate at one time, in nats: ½ (α_t² x² + σ_t² − 1 − log σ_t²)."""
        last = torch.full((len(x),), at, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        alpha, sigma = self.like(last, x)
        return 0.5 * ((alpha * x).square() + sigma.square() - 1.0 - 2.0 * sigma.log())

    def expected_square(self, t: Float[Tensor, "B"], *, variance: float | Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """The mean square of a coordinate of z_t, α_t² s² + σ_t², where x has mean square s² = `variance`."""
        alpha, sigma = self.coefficients(t)
        return alpha.square() * variance + sigma.square()

    # ── conversions ────────────────────────────────────────────────────────────────────────────────────────────

    def velocity(
        self, x: Float[Tensor, "B *S"], t: Float[Tensor, "B"], *, noise: Float[Tensor, "B *S"]
    ) -> Float[Tensor, "B *S"]:
        """The velocity v = α_t ε − σ_t x."""
        alpha, sigma = self.like(t, x)
        return alpha * noise - sigma * x

    def noise_of_clean(
        self, z: Float[Tensor, "B *S"], x: Float[Tensor, "B *S"], t: Float[Tensor, "B"]
    ) -> Float[Tensor, "B *S"]:
        """The noise ε = (z − α x)/σ of equation (2); σ_t > 0."""
        alpha, sigma = self.like(t, z)
        return (z - alpha * x) / sigma

    def clean_of_noise(
        self, z: Float[Tensor, "B *S"], noise: Float[Tensor, "B *S"], t: Float[Tensor, "B"]
    ) -> Float[Tensor, "B *S"]:
        """The clean vectors x = (z − σ ε)/α of equation (2); α_t > 0."""
        alpha, sigma = self.like(t, z)
        return (z - sigma * noise) / alpha

    def clean_of_velocity(
        self, z: Float[Tensor, "B *S"], velocity: Float[Tensor, "B *S"], t: Float[Tensor, "B"]
    ) -> Float[Tensor, "B *S"]:
        """The clean vectors x = (α z − σ v)/(α² + σ²) of equation (2), at every time."""
        alpha, sigma = self.like(t, z)
        return (alpha * z - sigma * velocity) / (alpha.square() + sigma.square())

    # ── backward ───────────────────────────────────────────────────────────────────────────────────────────────

    def posterior(
        self, z: Float[Tensor, "B *S"], x: Float[Tensor, "B *S"], t: Float[Tensor, "B"], s: Float[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B *S"], Float[Tensor, "B ..."]]:
        """Mean [B *S] and standard deviation (shaped to multiply) of q(z_s | z_t, x), equation (3), for s < t.

        Args:
            z: at time t.
            x: clean vectors, or a network's estimate of them.
            t: σ_t > 0.
            s: earlier times, α_s > 0.
        """
        alpha_t, sigma_t = self.coefficients(t)
        alpha_s, sigma_s = self.coefficients(s)
        a, kept = alpha_t / alpha_s, (sigma_s / sigma_t).square()
        added = (sigma_t.square() - (a * sigma_s).square()).clamp_min(0.0)  # rounding may leave −1e-17
        shape = (-1,) + (1,) * (z.ndim - 1)
        from_z, from_x, spread = (
            value.to(z.dtype).view(shape)
            for value in (a * kept, alpha_s * added / sigma_t.square(), (added * kept).sqrt())
        )
        return from_z * z + from_x * x, spread

    def draw_step(
        self,
        z: Float[Tensor, "B *S"],
        x: Float[Tensor, "B *S"],
        t: Float[Tensor, "B"],
        s: Float[Tensor, "B"],
        *,
        noise: Float[Tensor, "B *S"],
    ) -> Float[Tensor, "B *S"]:
        """z_s ~ q(z_s | z_t, x̂), equation (3): the step of DDPM. `noise` is standard normal."""
        mean, spread = self.posterior(z, x, t, s)
        return mean + spread * noise

    def straight_step(
        self,
        z: Float[Tensor, "B *S"],
        x: Float[Tensor, "B *S"],
        noise: Float[Tensor, "B *S"],
        t: Float[Tensor, "B"],
        s: Float[Tensor, "B"],
    ) -> Float[Tensor, "B *S"]:
        """z_s by equation (4) from estimates x̂ and ε̂: of DDIM where both are those at t, of Heun where means."""
        alpha_t, sigma_t = self.like(t, z)
        alpha_s, sigma_s = self.like(s, z)
        return z + (alpha_s - alpha_t) * x + (sigma_s - sigma_t) * noise


@dataclass(frozen=True)
class CosineNoise(GaussianProcess):
    """α_t = cos(π t/2), σ_t = sin(π t/2), without the offset of arXiv:2102.09672, equation 17."""

    def coefficients(self, t: Float[Tensor, "*N"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"]]:
        """Exactly 1 and 0 at t = 0; α_1 is 0 to rounding, and `t_max` 0.996."""
        angle = 0.5 * torch.pi * t
        return angle.cos(), angle.sin()


@dataclass(frozen=True)
class LinearNoise(GaussianProcess):
    """α_t² = exp(−∫β), β rising linearly in t (DDPM in continuous time: arXiv:2011.13456, equation 33).

    Attributes:
        first: β at t = 0, per unit of time.
        last: β at t = 1; with 20, α_1 = 0.0066 is left of the signal.
    """

    first: float = 0.1
    last: float = 20.0

    def coefficients(self, t: Float[Tensor, "*N"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"]]:
        """From log α_t² = −(β_0 t + ½ (β_1 − β_0) t²), and σ_t² = 1 − α_t², without loss of digits near t = 0."""
        log_square = -(self.first * t + 0.5 * (self.last - self.first) * t.square())
        return (0.5 * log_square).exp(), (-torch.expm1(log_square)).sqrt()


@dataclass(frozen=True)
class SquareRootNoise(GaussianProcess):
    """α_t² = 1 − √(o + (1 − o) t): much noise at once (Diffusion-LM, arXiv:2205.14217, section 4.2 and appendix A).

    The paper's o + t is scaled so that α_1 = 0. At t = 0 a noise of variance √o is there already.

    Attributes:
        offset: o, in (0, 1).
    """

    offset: float = 1e-4

    def coefficients(self, t: Float[Tensor, "*N"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"]]:
        """σ_t² = √(o + (1 − o) t), α_t² = 1 − σ_t²."""
        variance = (self.offset + (1.0 - self.offset) * t).sqrt()
        return (1.0 - variance).clamp_min(0.0).sqrt(), variance.sqrt()


# ── what a network may be asked for ────────────────────────────────────────────────────────────────────────────


Vectors = Float[Tensor, "B *S"]
Times = Float[Tensor, "B"]


class Prediction(ABC):
    """One of the vectors that, with z_t, say what the others are: clean, noise or velocity."""

    @abstractmethod
    def target(self, process: GaussianProcess, x: Vectors, t: Times, *, noise: Vectors) -> Vectors:
        """What a perfect network would say where it knew x and ε."""

    @abstractmethod
    def clean(self, process: GaussianProcess, z: Vectors, said: Vectors, t: Times) -> Vectors:
        """The estimate x̂ that a network's answer `said` amounts to."""

    @abstractmethod
    def amplification(self, process: GaussianProcess, t: Times) -> Times:
        """By how much a squared error of this vector exceeds that of x: ‖said − target‖² = factor · ‖x̂ − x‖²."""

    @abstractmethod
    def mean_square(self, process: GaussianProcess, t: Times, *, variance: float) -> Times:
        """The squared error a coordinate of who says zero, where a coordinate of x has mean square `variance`."""

    def latest(self, process: GaussianProcess) -> float:
        """The largest time at which this vector says what x is."""
        del process
        return 1.0

    def linear_floor(self, process: GaussianProcess, t: Times, *, variance: float | Times) -> Times:
        """The squared error a coordinate of the best multiple of z_t (Wiener), where x has mean square `variance`.

        Where x has a mean, of z_t without its own, and `variance` is that around it. For x it is s² σ²/(α² s² + σ²);
        for Gaussian x with independent coordinates nobody can do better.
        """
        _, sigma = process.coefficients(t)
        floor = variance * sigma.square() / process.expected_square(t, variance=variance)
        return self.amplification(process, t) * floor


class _Clean(Prediction):
    """x itself."""

    def target(self, process: GaussianProcess, x: Vectors, t: Times, *, noise: Vectors) -> Vectors:
        """As `Prediction.target`."""
        del process, t, noise
        return x

    def clean(self, process: GaussianProcess, z: Vectors, said: Vectors, t: Times) -> Vectors:
        """As `Prediction.clean`."""
        del process, z, t
        return said

    def amplification(self, process: GaussianProcess, t: Times) -> Times:
        """As `Prediction.amplification`."""
        del process
        return torch.ones_like(t)

    def mean_square(self, process: GaussianProcess, t: Times, *, variance: float) -> Times:
        """As `Prediction.mean_square`."""
        del process
        return torch.full_like(t, variance)


class _Noise(Prediction):
    """ε."""

    def target(self, process: GaussianProcess, x: Vectors, t: Times, *, noise: Vectors) -> Vectors:
        """As `Prediction.target`."""
        del process, x, t
        return noise

    def clean(self, process: GaussianProcess, z: Vectors, said: Vectors, t: Times) -> Vectors:
        """As `Prediction.clean`."""
        return process.clean_of_noise(z, said, t)

    def amplification(self, process: GaussianProcess, t: Times) -> Times:
        """As `Prediction.amplification`."""
        return process.snr(t)

    def mean_square(self, process: GaussianProcess, t: Times, *, variance: float) -> Times:
        """As `Prediction.mean_square`."""
        del process, variance
        return torch.ones_like(t)

    def latest(self, process: GaussianProcess) -> float:
        """As `Prediction.latest`: where there is a signal to divide by."""
        return process.t_max


class _Velocity(Prediction):
    """v = α ε − σ x."""

    def target(self, process: GaussianProcess, x: Vectors, t: Times, *, noise: Vectors) -> Vectors:
        """As `Prediction.target`."""
        return process.velocity(x, t, noise=noise)

    def clean(self, process: GaussianProcess, z: Vectors, said: Vectors, t: Times) -> Vectors:
        """As `Prediction.clean`."""
        return process.clean_of_velocity(z, said, t)

    def amplification(self, process: GaussianProcess, t: Times) -> Times:
        """As `Prediction.amplification`."""
        alpha, sigma = process.coefficients(t)
        return ((alpha.square() + sigma.square()) / sigma).square()

    def mean_square(self, process: GaussianProcess, t: Times, *, variance: float) -> Times:
        """As `Prediction.mean_square`."""
        alpha, sigma = process.coefficients(t)
        return alpha.square() + sigma.square() * variance


CLEAN: Prediction = _Clean()
NOISE: Prediction = _Noise()
VELOCITY: Prediction = _Velocity()
