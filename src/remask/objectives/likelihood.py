r"""The likelihood bound of categorical diffusion in continuous time, once for every noise.

    −log p(x) ≤ ∫_{t0}^{1} E_q [ℓ_t(z, x)] dt  +  E_q [−log p(x | z_{t0})]  +  KL(q_1(· | x) ‖ prior)          (1)
                 diffusion                         reconstruction                prior

The integrand follows from the jump rates r_t of the process alone. With q the true and q̂ = α_t p + mix_t the
predicted distribution of the noisy token, and w = r_t[z] / q(z | x),

    ℓ_t(z, x) = w · { KL(q(· | x) ‖ q̂) + q(z | x)/q̂(z) − log(q(z | x)/q̂(z)) − 1 }                           (2)

(GIDD, arXiv:2503.04482, theorem 3; the same number as the score entropy of SEDD, arXiv:2310.16834, equation 5, with
scores q̂(y)/q̂(z)). For masking it collapses to MDLM's closed form (arXiv:2406.07524, equation 10):

    ℓ_t = −α'_t / (1 − α_t) · (−log p(x))  where z is the mask, 0 elsewhere.                                  (3)

Shape letters: B batch, L length, V vocabulary, M positions at which the integrand is not zero.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.objectives.base import Loss, Network
from remask.objectives.noisy import WantedRows, add_noise
from remask.processes import CategoricalProcess
from remask.randomness import batch_uniform
from remask.schedules import batch_times, stratified, with_slope

Integrand = Callable[
    [CategoricalProcess, Float[Tensor, "M V"], Int[Tensor, "M"], Int[Tensor, "M"], Float[Tensor, "M"]],
    Float[Tensor, "M"],
]


def generic_integrand(
    process: CategoricalProcess,
    logits: Float[Tensor, "M V"],
    z: Int[Tensor, "M"],
    x: Int[Tensor, "M"],
    t: Float[Tensor, "M"],
) -> Float[Tensor, "M"]:
    """Equation (2), for any process; nats per unit of time at each position.

    Args:
        process: the noise.
        logits: leave-one-out logits.
        z: noisy tokens.
        x: clean tokens.
        t: times in (0, 1).
    """
    alpha, mix = process.mixing(t)
    rate = _at(process.rates(t), z)
    log_p = process.log_clean(logits)
    alpha, mix, rate = alpha.to(log_p.dtype), mix.to(log_p.dtype), rate.to(log_p.dtype)
    log_predicted = _log_sum(alpha.log()[:, None] + log_p, mix.log())
    # KL(q(·|x) ‖ q̂): the sum over noise tokens, then the one term in which the clean token sits, put right.
    mix_x, log_predicted_x = _at(mix, x), _at(log_predicted, x)
    divergence = _weighted_log_ratio(mix, log_predicted).sum(-1)
    divergence = divergence - _weighted_log_ratio(mix_x, log_predicted_x)
    divergence = divergence + _weighted_log_ratio(mix_x + alpha, log_predicted_x)
    true_z = _at(mix, z) + alpha * (z == x)
    log_ratio = true_z.log() - _at(log_predicted, z)
    # expm1 keeps the difference exact where q and q̂ agree
    return rate / true_z * (divergence + torch.expm1(log_ratio) - log_ratio)


def masking_integrand(
    process: CategoricalProcess,
    logits: Float[Tensor, "M V"],
    z: Int[Tensor, "M"],
    x: Int[Tensor, "M"],
    t: Float[Tensor, "M"],
) -> Float[Tensor, "M"]:
    """Equation (3): equal to `generic_integrand` for masking noise, without any [M V] table but the logits.

    Args and result as there; `z` is not read, since only masked positions are passed in.
    """
    del z
    weight = -process.schedule.slope(t) / (1.0 - process.schedule.alpha(t))
    log_p = _at(process.log_clean(logits), x)
    return weight.to(log_p.dtype) * -log_p


def whole_range(step: int) -> float:
    """No curriculum: every time up to 1 from the first step on."""
    del step
    return 1.0


def row_noise(generator: torch.Generator, batch: Batch) -> Float[Tensor, "B L"]:
    """A uniform draw for each place of each row."""
    return batch_uniform(generator, batch, batch.ids.shape[1])


def rising_range(*, start: float, steps: int) -> Callable[[int], float]:
    """A curriculum from little noise to all: the largest time rises from `start` to 1 over the first `steps` steps."""
    return lambda step: min(1.0, start + (1.0 - start) * (step - 1) / max(steps, 1))


def root_weight(t: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """√t: takes the bound's weight 1/t of linear masking to t^(−1/2), so that rare, nearly clean rows weigh less."""
    return t.sqrt()


@runtime_checkable
class SpreadNoise(Protocol):
    """A process whose noise is part mask, part uniform: mix_t = hidden_t · e_mask + (spread_t / n) · 1_clean."""

    def shares(self, t: Float[Tensor, "M"]) -> tuple[Float[Tensor, "M"], ...]:
        """α_t, hidden_t and spread_t, which add up to 1."""
        ...


def spread_integrand(
    process: CategoricalProcess,
    logits: Float[Tensor, "M V"],
    z: Int[Tensor, "M"],
    x: Int[Tensor, "M"],
    t: Float[Tensor, "M"],
) -> Float[Tensor, "M"]:
    """Equation (2) for uniform and hybrid noise: the [M V] tables of mix_t and its rates shrink to three numbers.

    With κ = spread_t / n and a = α_t / κ, each clean y has q̂(y) = κ (1 + a p(y)), and q and q̂ give the mask the same
    mass, so that

        KL(q(· | x) ‖ q̂) = κ · { (1 + a) log(1 + a) − a log(1 + a p(x)) − Σ_y log(1 + a p(y)) },

    in which logarithms of numbers near 1 keep their digits at large t, where w grows as fast as the rest falls.
    Args and result as for `generic_integrand`; `process` must be a `SpreadNoise`.
    """
    noise = cast(SpreadNoise, process)
    shares, slopes = with_slope(noise.shares, t)
    log_p = process.log_clean(logits)
    stay_slope = slopes[0] / shares[0]
    into = [(slope - stay_slope * share).to(log_p.dtype) for slope, share in zip(slopes, shares, strict=True)]
    alpha, hidden, spread = (share.to(log_p.dtype) for share in shares)
    n = process.data_size
    kappa = (spread / n).clamp_min(1e-30)  # without uniform noise: small beside any α p, and a stays finite
    a = alpha / kappa
    log_rise = torch.log1p(a[:, None] * log_p.exp())  # log(q̂/κ) of clean tokens; the mask's entry is 0
    log_true_x, log_rise_x = torch.log1p(a), _at(log_rise, x)
    divergence = kappa * ((log_true_x - log_rise.sum(-1)) + a * (log_true_x - log_rise_x))
    masked, kept = z == process.mask_id, z == x
    true_z = torch.where(masked, hidden, kappa + alpha * kept)
    rate = torch.where(masked, into[1], into[2] / n)
    log_ratio = torch.where(masked, 0.0, torch.where(kept, log_true_x, 0.0) - _at(log_rise, z))
    return rate / true_z * (divergence + torch.expm1(log_ratio) - log_ratio)


@dataclass(frozen=True, kw_only=True)
class LikelihoodBound:
    """The bound (1) as an objective.

    Attributes:
        process: the noise.
        integrand: `generic_integrand`, or a closed form equal to it for this process.
        t_min: t0 of (1), in (0, 1): where the diffusion term ends and reconstruction takes over.
        reweight: a factor on each example's training loss as a function of its time [B] → [B].
        curriculum: optimiser step (from 1) → the largest time drawn in training at that step, in (t_min, 1].
        t_max: that time; 1 for the bound. What is reported as a likelihood is never reweighted nor cut short.
        draw: the uniform draws that noise is made of. Another one is for rows that were cut out of longer ones, whose
            noise must not depend on how long the other rows of a batch are.
    """

    process: CategoricalProcess
    integrand: Integrand
    t_min: float
    reweight: Callable[[Float[Tensor, "B"]], Float[Tensor, "B"]] = torch.ones_like
    curriculum: Callable[[int], float] = whole_range
    t_max: float = 1.0
    draw: Callable[[torch.Generator, Batch], Float[Tensor, "B L"]] = row_noise

    @property
    def exact(self) -> bool:
        """A bound, never the likelihood itself."""
        return False

    def at(self, step: int) -> "LikelihoodBound":
        """The objective of one optimiser step: its largest time is the curriculum's."""
        return replace(self, t_max=self.curriculum(step))

    def __call__(self, network: Network, batch: Batch, *, generator: torch.Generator) -> Loss:
        """One time an example, stratified over the global batch; the diffusion term of (1) in nats a token.

        The reconstruction and prior terms are left out: at t0 the first has the same minimiser and a weight of
        order t0, and the second does not depend on the network. The record's `diffusion` is free of `reweight`, and
        left out while the curriculum holds back the noisier times, when the loss estimates no likelihood.
        """
        t = batch_times(generator, batch, t_min=self.t_min, t_max=self.t_max)
        noise = self.draw(generator, batch)
        nats = self.diffusion(network, batch, t=t, noise=noise)
        terms = {"diffusion": nats.detach().sum()} if self.t_max == 1.0 else {}
        return Loss(nats * self.reweight(t).to(nats.dtype)[:, None], batch.targets.to(nats.dtype), terms)

    def diffusion(
        self, network: Network, batch: Batch, *, t: Float[Tensor, "B"], noise: Float[Tensor, "B L"]
    ) -> Float[Tensor, "B L"]:
        """A one-draw estimate of the diffusion term: (t_max − t0) · ℓ_t, for t uniform in [t0, t_max); nats."""
        noisy = add_noise(self.process, batch, t=t, noise=noise)
        nats = self.integrand(self.process, noisy.ask(network), *noisy.pairs())
        return noisy.spread(nats * (self.t_max - self.t_min))

    def reconstruction(self, network: Network, batch: Batch, *, noise: Float[Tensor, "B L"]) -> Float[Tensor, "B L"]:
        """A one-draw estimate of E_q[−log p(x | z_{t0})], by Bayes' rule on the logits; nats.

        So near to clean text masking noise may leave every row whole: then the network is not asked.
        """
        t = torch.full((len(batch),), self.t_min, dtype=noise.dtype, device=noise.device)
        noisy = add_noise(self.process, batch, t=t, noise=noise)
        if not bool(noisy.positions.any()):
            return torch.zeros_like(noise, dtype=torch.float32)
        z, x, _ = noisy.pairs()
        # all stand at one time: noise is one row of [V] for them, not one each
        return noisy.spread(-_at(self.process.posterior(noisy.ask(network), z, t[:1]), x))

    def likelihood_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """The three terms of (1), each averaged over `draws` noise draws; times stratified over a row's draws.

        Args:
            network: emits leave-one-out logits.
            batch: clean rows.
            generator: on the batch's device.
            draws: noise draws a row, at least 1.

        Returns:
            `diffusion`, `reconstruction`, `prior` in nats [B L]; their sum bounds −log p(x) from above in mean.
        """
        return self.drawn_terms(WantedRows(network), batch, generator=generator, draws=draws)

    def drawn_terms(
        self, network: Network, batch: Batch, *, generator: torch.Generator, draws: int
    ) -> dict[str, Float[Tensor, "B L"]]:
        """As `likelihood_terms`, for a network that must see the whole batch at each call."""
        whole = replace(self, t_max=1.0)  # a curriculum cuts training short, never a likelihood
        times = self.t_min + (1.0 - self.t_min) * stratified(batch_uniform(generator, batch, draws))
        diffusion, reconstruction = [], []
        for t in times.unbind(-1):
            noise = self.draw(generator, batch)
            diffusion.append(whole.diffusion(network, batch, t=t, noise=noise))
            noise = self.draw(generator, batch)
            reconstruction.append(self.reconstruction(network, batch, noise=noise))
        prior = self.process.prior_divergence(batch.ids, like=times) * batch.targets
        return {
            "diffusion": torch.stack(diffusion).mean(0),
            "reconstruction": torch.stack(reconstruction).mean(0),
            "prior": prior.to(diffusion[0].dtype),
        }


def _log_sum(a: Tensor, b: Tensor) -> Tensor:
    """log(e^a + e^b) whose gradient is 0, not NaN, where both are −∞ (a token that neither signal nor noise gives)."""
    nothing = a.isneginf() & b.isneginf()
    return torch.logaddexp(a.masked_fill(nothing, 0.0), b).masked_fill(nothing, -torch.inf)


def _at(table: Float[Tensor, "M V"], index: Int[Tensor, "M"]) -> Float[Tensor, "M"]:
    return table.gather(-1, index[:, None]).squeeze(-1)


def _weighted_log_ratio(weight: Tensor, log_denominator: Tensor) -> Tensor:
    """Weight · (log weight − log_denominator), and 0 where the weight is 0."""
    positive = weight > 0
    log_weight = torch.where(positive, weight, 1.0).log()
    return torch.where(positive, weight * (log_weight - torch.where(positive, log_denominator, 0.0)), 0.0)
