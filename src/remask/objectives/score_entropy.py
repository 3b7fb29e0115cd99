r"""Score entropy, the loss of SEDD (Lou, Meng, Ermon; arXiv:2310.16834), for absorbing and uniform noise.

With scores s_y ≈ q_t(y)/q_t(z), the probability of each other token y beside that of the one seen, the true ratios
r_y = q(y | x)/q(z | x) of a clean token, and R(y → z) the jump rates of the noise, the integrand is (equations 5, 9)

    ℓ_t(z, x) = Σ_{y ≠ z} R(y → z) · ( s_y − r_y log s_y + r_y (log r_y − 1) )                                (1)
              = Σ_{y ≠ z} R(y → z) · r_y · φ(log s_y − log r_y),      φ(u) = e^u − 1 − u ≥ 0.                 (2)

Networks emit leave-one-out logits f over the n = V − 1 clean tokens, and the scores are read off them.

**Absorbing noise.** At a mask every y has s_y = α_t/(1 − α_t) · exp(f_y − log n), which need not sum to anything: SEDD
subtracts log n so that Z = Σ_y exp(f_y − log n) starts near 1. With w = −α'_t/(1 − α_t), (1) becomes

    ℓ_t = w · (Z − 1 − f_x + log n) = w · (−log softmax(f)_x)  +  w · (Z − 1 − log Z).                        (3)
                                      the bound's integrand       what lack of normalisation costs, ≥ 0

So the loss is the likelihood bound plus a penalty that pulls Z to 1 and is 0 there.

**Uniform noise.** The ratios of q̂ = α_t p + (1 − α_t)/n are all that (1) sees, and p = softmax(f) reaches every
marginal there is, so s_y = q̂(y)/q̂(z) and the loss equals the likelihood bound.

Shape letters: B batch, L length, V vocabulary, M positions at which the integrand is not zero.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.objectives.base import Loss, Network
from remask.objectives.likelihood import Integrand, LikelihoodBound, masking_integrand
from remask.objectives.noisy import add_noise
from remask.processes import CategoricalProcess, Masking, Uniform
from remask.randomness import batch_uniform
from remask.schedules import batch_times


def absorbing_score_entropy(
    process: CategoricalProcess,
    logits: Float[Tensor, "M V"],
    z: Int[Tensor, "M"],
    x: Int[Tensor, "M"],
    t: Float[Tensor, "M"],
) -> Float[Tensor, "M"]:
    """Equation (3) at masked positions; nats a unit of time, at least `masking_integrand`.

    Args:
        process: masking noise.
        logits: leave-one-out logits, whose constant counts; the mask's own is not read.
        z: noisy tokens; not read, since only masked positions are passed in.
        x: clean tokens.
        t: times in (0, 1).
    """
    weight = -process.schedule.slope(t) / (1.0 - process.schedule.alpha(t))
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    mask = torch.tensor([process.mask_id], device=logits.device)
    log_z = wide.index_fill(-1, mask, -torch.inf).logsumexp(-1) - math.log(process.data_size)
    # expm1(log Z) is Z − 1, exact where Z is near 1
    excess = torch.expm1(log_z) - log_z
    return masking_integrand(process, logits, z, x, t) + weight.to(wide.dtype) * excess


def uniform_score_entropy(
    process: CategoricalProcess,
    logits: Float[Tensor, "M V"],
    z: Int[Tensor, "M"],
    x: Int[Tensor, "M"],
    t: Float[Tensor, "M"],
) -> Float[Tensor, "M"]:
    """Equation (2) for uniform noise; nats a unit of time, equal to `generic_integrand`.

    With κ = (1 − α_t)/n and a = α_t/κ: q̂(y) = κ (1 + a p(y)), q(y | x) = κ (1 + a·1[y = x]), and every clean token
    jumps into z at the same rate −α'_t/(α_t n). A term with y = z is φ(0) = 0 and need not be left out.

    Args:
        process: uniform noise.
        logits: leave-one-out logits.
        z: noisy tokens.
        x: clean tokens.
        t: times in (0, 1).
    """
    n = process.data_size
    log_p = process.log_clean(logits)
    alpha, slope = process.schedule.alpha(t), process.schedule.slope(t)
    rate = (-slope / (alpha * n)).to(log_p.dtype)
    a = (alpha * n / (1.0 - alpha)).to(log_p.dtype)
    log_rise = torch.log1p(a[:, None] * log_p.exp())  # log(q̂/κ)
    log_score = log_rise - log_rise.gather(-1, z[:, None])
    log_true_z = torch.where(z == x, torch.log1p(a), 0.0)  # log(q(z | x)/κ)
    # r_y is the same for every y but x, and there it is put right
    terms = _gap(log_score, -log_true_z[:, None])
    at_x = _gap(log_score.gather(-1, x[:, None]), (torch.log1p(a) - log_true_z)[:, None])
    mask = torch.tensor([process.mask_id], device=logits.device)
    return rate * terms.index_fill(-1, mask, 0.0).scatter(-1, x[:, None], at_x).sum(-1)


def _gap(log_score: Tensor, log_ratio: Tensor) -> Tensor:
    """One term of (2), r · φ(log s − log r): never negative, and exact where score and ratio nearly agree."""
    difference = log_score - log_ratio
    return log_ratio.exp() * (torch.expm1(difference) - difference)


@dataclass(frozen=True, kw_only=True)
class ScoreEntropy:
    """Score entropy (1) as an objective.

    Samplers and `likelihood_terms` read the same logits through softmax, that is with Z = 1.

    Attributes:
        process: masking or uniform noise.
        t_min: where the integral over time begins, in (0, 1), as for `LikelihoodBound`.

    Raises:
        ValueError: when the process is neither `Masking` nor `Uniform`.
    """

    process: CategoricalProcess
    t_min: float

    def __post_init__(self) -> None:
        _forms(self.process)

    @property
    def exact(self) -> bool:
        """A bound, never the likelihood itself."""
        return False

    @property
    def bound(self) -> LikelihoodBound:
        """The likelihood bound of the same noise."""
        _, integrand = _forms(self.process)
        return LikelihoodBound(process=self.process, integrand=integrand, t_min=self.t_min)

    def at(self, step: int) -> "ScoreEntropy":
        """Itself, at every step."""
        del step
        return self

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """One time an example, stratified over the global batch; score entropy in nats a token.

        The record has `score_entropy`, what is minimised, and `diffusion`, the bound's diffusion term on the same
        draws: equal for uniform noise, and smaller by the cost of Z ≠ 1 for masking.
        """
        t = batch_times(generator, batch, t_min=self.t_min)
        noisy = add_noise(self.process, batch, t=t, noise=batch_uniform(generator, batch, batch.ids.shape[1]))
        logits = noisy.ask(network)
        score_entropy, integrand = _forms(self.process)
        nats = noisy.spread(score_entropy(self.process, logits, *noisy.pairs()) * (1.0 - self.t_min))
        total = diffusion = nats.detach().sum()
        if integrand is not score_entropy:
            diffusion = integrand(self.process, logits.detach(), *noisy.pairs()).sum() * (1.0 - self.t_min)
        terms = {"score_entropy": total, "diffusion": diffusion}
        return Loss(nats, batch.targets.to(nats.dtype), terms)

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """The three terms of the likelihood bound, as `LikelihoodBound.likelihood_terms`."""
        return self.bound.likelihood_terms(network, batch, generator=generator, draws=draws)


def _forms(process: CategoricalProcess) -> tuple[Integrand, Integrand]:
    """The process's score entropy, and the integrand of its bound."""
    match process:
        case Masking():
            return absorbing_score_entropy, masking_integrand
        case Uniform():
            return uniform_score_entropy, uniform_score_entropy
    raise ValueError(
        f"process: {type(process).__name__} was given; score entropy is defined here for Masking and Uniform. "
        "LikelihoodBound is the same number for every noise"
    )
