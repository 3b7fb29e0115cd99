r"""What noise does to tokens, and how one step of it is undone.

A categorical process is one function of time, `mixing`, that says how a token is hidden:

    q_t(z | x) = α_t · 1[z = x] + mix_t[z],        Σ_z mix_t[z] = 1 − α_t.                              (1)

Everything else is derived once. With p the network's leave-one-out posterior p(x_i | z without i) and
q̂_t = α_t p + mix_t the predicted distribution of the noisy token:

    transition       q(z_t | z_s) = a · 1[z_t = z_s] + m[z_t],   a = α_t / α_s,  m = mix_t − a · mix_s   (2)
    posterior        p(x | z) ∝ p(x) · q_t(z | x)                                                        (3)
    reverse step     p(z_s | z_t) ∝ q(z_t | z_s) · q̂_s(z_s)                                              (4)
    jump rates       r_t[z] = d mix_t[z]/dt − (α'_t / α_t) · mix_t[z],  the rate from any y ≠ z into z    (5)

(4) is exact when p is the true leave-one-out posterior: summing Bayes' rule for q(z_s | z_t, x) over x cancels the
normaliser. For masking (3) is the "SUBS" rule of MDLM (arXiv:2406.07524, section 3.2).

Shape letters: B batch, L length, V vocabulary (all ids, the mask among them), N any leading shape. Times broadcast
against the token shape: t of shape [B 1] for tokens [B L].
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.randomness import draw_alike, draw_categorical, widest_float
from remask.schedules import Schedule, with_slope


@dataclass(frozen=True, kw_only=True)
class CategoricalProcess(ABC):
    """Noise on token ids, defined by `mixing` alone.

    Attributes:
        schedule: α(t).
        vocab_size: V, the number of ids, mask included.
        mask_id: the id that no clean text holds; it is a noise token for masking and hybrid noise, and unused by
            uniform noise.
    """

    schedule: Schedule
    vocab_size: int
    mask_id: int

    @abstractmethod
    def mixing(self, t: Float[Tensor, "*N"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N V"]]:
        """α_t [*N] and mix_t [*N V] of equation (1), in the dtype of `t`."""

    def active(self, z: Int[Tensor, "*N"]) -> Bool[Tensor, "*N"]:
        """Positions that a reverse step may change and that the bound's integrand sees: all, unless noise shows."""
        return torch.ones_like(z, dtype=torch.bool)

    def forget(self, z: Int[Tensor, "*N"], where: Bool[Tensor, "*N"]) -> Int[Tensor, "*N"]:
        """`z` as a network must see it to give leave-one-out logits at `where`: as it is, by the contract."""
        del where
        return z

    def time_hiding(self, hidden: Int[Tensor, "*N"], free: Int[Tensor, "*#N"]) -> Float[Tensor, "*N"]:
        """The time at which 1 − α_t is the share of `hidden` places among `free` ones; of no free place, none."""
        share = hidden.to(widest_float(hidden.device)) / free.clamp_min(1)
        return self.schedule.time(1.0 - share)

    @property
    def data_size(self) -> int:
        """The number of tokens that clean text can hold: V − 1."""
        return self.vocab_size - 1

    def data_uniform(self, like: Tensor) -> Float[Tensor, "V"]:
        """The uniform distribution over clean tokens [V], with the dtype and device of `like`."""
        uniform = torch.full((self.vocab_size,), 1.0 / self.data_size, dtype=like.dtype, device=like.device)
        uniform[self.mask_id] = 0.0
        return uniform

    def mask_onehot(self, like: Tensor) -> Float[Tensor, "V"]:
        """The distribution that holds the mask alone [V], with the dtype and device of `like`."""
        onehot = torch.zeros(self.vocab_size, dtype=like.dtype, device=like.device)
        onehot[self.mask_id] = 1.0
        return onehot

    # ── forward ────────────────────────────────────────────────────────────────────────────────────────────────

    def corrupt(
        self, x: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, noise: Float[Tensor, "B L"]
    ) -> Int[Tensor, "B L"]:
        """Z ~ q_t(· | x), as the quantile function of (1) at `noise`: x below α_t, then mix_t's cumulative sum.

        Args:
            x: clean tokens.
            t: one time an example, in [0, 1].
            noise: uniform draws in [0, 1), one a token.

        Returns:
            Noisy tokens; a deterministic function of its arguments.
        """
        alpha, mix = self.mixing(t)
        cumulative = mix.cumsum(-1)
        beyond = (noise - alpha[:, None]).clamp_min(0.0)
        # right=True takes the first index whose cumulative sum exceeds the draw: indices of weight zero are skipped.
        drawn = torch.searchsorted(cumulative, beyond.to(cumulative.dtype), right=True)
        last = self.vocab_size - 1 - mix.flip(-1).gt(0).to(torch.int8).argmax(-1, keepdim=True)
        return torch.where(noise < alpha[:, None], x, torch.minimum(drawn, last))

    def rates(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N V"]:
        """Jump rates r_t of equation (5), a unit of time being the whole of [0, 1]; infinite where α_t = 0."""
        (alpha, mix), (alpha_slope, mix_slope) = with_slope(self.mixing, t)
        return mix_slope - (alpha_slope / alpha)[..., None] * mix

    def transition(
        self, s: Float[Tensor, "*N"], t: Float[Tensor, "*N"]
    ) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N V"]]:
        """The chance a to stay [*N] and m [*N V] of equation (2), for s <= t and α_s > 0."""
        alpha_s, mix_s = self.mixing(s)
        alpha_t, mix_t = self.mixing(t)
        stay = alpha_t / alpha_s
        return stay, (mix_t - stay[..., None] * mix_s).clamp_min(0.0)  # rounding may leave −1e-17

    def prior(self, like: Tensor) -> Float[Tensor, "V"]:
        """The distribution [V] that sampling starts from: q_1 of a uniformly drawn token.

        Where the schedule ends at α_1 > 0 this keeps the prior term of the bound finite, and honest.
        """
        alpha, mix = self.mixing(torch.ones((), dtype=like.dtype, device=like.device))
        return alpha * self.data_uniform(like) + mix

    def draw_prior(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Tokens of the given shape drawn from `prior`, int64, on the generator's device."""
        like = torch.zeros((), dtype=widest_float(generator.device), device=generator.device)
        return draw_alike(self.prior(like), *shape, generator=generator)

    def prior_divergence(self, x: Int[Tensor, "*N"], *, like: Tensor) -> Float[Tensor, "*N"]:
        """KL(q_1(· | x) ‖ prior) of each token, in nats [*N]: zero when the schedule ends at α_1 = 0."""
        one = torch.ones((), dtype=like.dtype, device=like.device)
        alpha, mix = self.mixing(one)
        prior = self.prior(like)
        unhidden = _xlogy_ratio(mix, mix, prior)
        hidden = _xlogy_ratio(mix + alpha, mix + alpha, prior)
        return (unhidden.sum() - unhidden + hidden)[x]

    # ── backward ───────────────────────────────────────────────────────────────────────────────────────────────

    def log_clean(self, logits: Float[Tensor, "*N V"]) -> Float[Tensor, "*N V"]:
        """Log p(x = ·) from leave-one-out logits: clean text never holds the mask. At least float32."""
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        mask = torch.tensor([self.mask_id], device=logits.device)
        return wide.index_fill(-1, mask, -torch.inf).log_softmax(-1)

    def log_likelihood(self, z: Int[Tensor, "*N"], t: Float[Tensor, "*#N"]) -> Float[Tensor, "*N V"]:
        """Log q_t(z | x = ·) for every clean token [*N V]."""
        alpha, mix = self.mixing(t)
        at_z = _pick(mix, z)
        other = at_z.log()[..., None].expand(*z.shape, self.vocab_size)
        return other.scatter(-1, z[..., None], (at_z + alpha).log()[..., None])

    def posterior(
        self, logits: Float[Tensor, "*N V"], z: Int[Tensor, "*N"], t: Float[Tensor, "*#N"]
    ) -> Float[Tensor, "*N V"]:
        """Log p(x | z): Bayes' rule (3) on leave-one-out logits, normalised, in nats [*N V]."""
        log_p = self.log_clean(logits)
        return (log_p + self.log_likelihood(z, t).to(log_p.dtype)).log_softmax(-1)

    def predicted(self, logits: Float[Tensor, "*N V"], t: Float[Tensor, "*#N"]) -> Float[Tensor, "*N V"]:
        """The predicted distribution of the noisy token, q̂_t = α_t p + mix_t [*N V]."""
        p = self.log_clean(logits).exp()
        alpha, mix = (value.to(p.dtype) for value in self.mixing(t))
        return alpha[..., None] * p + mix

    def undo(
        self,
        marginal: Float[Tensor, "*N V"],
        z: Int[Tensor, "*N"],
        t: Float[Tensor, "*#N"],
        s: Float[Tensor, "*#N"],
    ) -> Float[Tensor, "*N V"]:
        """q(z_t = z | z_s = ·) · marginal(·), the right side of equation (4) for any `marginal` of z_s [*N V]."""
        stay, enter = (value.to(marginal.dtype) for value in self.transition(s, t))
        weights = _pick(enter, z)[..., None] * marginal
        at_z = stay.expand(z.shape) * marginal.expand(*z.shape, -1).gather(-1, z[..., None]).squeeze(-1)
        return weights.scatter_add(-1, z[..., None], at_z[..., None])

    def reverse_weights(
        self,
        logits: Float[Tensor, "*N V"],
        z: Int[Tensor, "*N"],
        t: Float[Tensor, "*#N"],
        s: Float[Tensor, "*#N"],
    ) -> Float[Tensor, "*N V"]:
        """Unnormalised p(z_s = · | z_t = z) of equation (4), for s < t [*N V]."""
        return self.undo(self.predicted(logits, s), z, t, s)

    def reverse_step(
        self,
        logits: Float[Tensor, "*N V"],
        z: Int[Tensor, "*N"],
        t: Float[Tensor, "*#N"],
        s: Float[Tensor, "*#N"],
        *,
        generator: torch.Generator,
    ) -> Int[Tensor, "*N"]:
        """z_s ~ p(z_s | z_t = z), equation (4), for s < t; tokens [*N]."""
        return draw_categorical(self.reverse_weights(logits, z, t, s), generator=generator)


@dataclass(frozen=True, kw_only=True)
class Masking(CategoricalProcess):
    """Tokens turn into the mask and stay so (absorbing noise; D3PM, arXiv:2107.03006; MDLM; MD4)."""

    def mixing(self, t: Float[Tensor, "*N"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N V"]]:
        """mix_t = (1 − α_t) · e_mask."""
        alpha = self.schedule.alpha(t)
        return alpha, (1.0 - alpha)[..., None] * self.mask_onehot(t)

    def corrupt(
        self, x: Int[Tensor, "B L"], t: Float[Tensor, "B"], *, noise: Float[Tensor, "B L"]
    ) -> Int[Tensor, "B L"]:
        """As for any process, without a table [B V]: block diffusion has a row for each block."""
        return torch.where(noise < self.schedule.alpha(t)[:, None], x, self.mask_id)

    def active(self, z: Int[Tensor, "*N"]) -> Bool[Tensor, "*N"]:
        """Only masked positions: a visible token is known to be clean."""
        return z == self.mask_id

    def forget(self, z: Int[Tensor, "*N"], where: Bool[Tensor, "*N"]) -> Int[Tensor, "*N"]:
        """Masked at `where`: no network is trained at visible tokens, so its logits there mean nothing."""
        return torch.where(where, self.mask_id, z)


@dataclass(frozen=True, kw_only=True)
class Uniform(CategoricalProcess):
    """Tokens turn into uniformly drawn ones (UDLM, arXiv:2412.10193)."""

    def shares(self, t: Float[Tensor, "*N"]) -> tuple[Float[Tensor, "*N"], ...]:
        """α_t, the share hidden by the mask (0), and the share spread over clean tokens, 1 − α_t."""
        alpha = self.schedule.alpha(t)
        return alpha, torch.zeros_like(alpha), 1.0 - alpha

    def mixing(self, t: Float[Tensor, "*N"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N V"]]:
        """mix_t = (1 − α_t) / (V − 1) on every clean token."""
        alpha, _, spread = self.shares(t)
        return alpha, spread[..., None] * self.data_uniform(t)


@dataclass(frozen=True, kw_only=True)
class Hybrid(CategoricalProcess):
    r"""Masking with a share of uniform noise on the way (GIDD, arXiv:2503.04482, equations 9 to 11, γ = 1).

    With ρ = 1 − α(t) of the schedule, n = V − 1 clean tokens and u = `uniform_share` in [0, 1):

        c = √(ρ (1 − ρ)) · 2u / (n (1 − u)),   C = 1 + n c,
        α_t = (1 − ρ) / C,   mix_t = (ρ / C) e_mask + (c / C) 1_clean.

    At t = 1 all is mask; where the schedule stands at ρ = 1/2, a share u of the tokens is uniform noise.
    """

    uniform_share: float

    def shares(self, t: Float[Tensor, "*N"]) -> tuple[Float[Tensor, "*N"], ...]:
        """α_t = (1 − ρ)/C, the share hidden by the mask ρ/C, and the share spread over clean tokens n c/C."""
        keep = self.schedule.alpha(t)
        hidden = 1.0 - keep
        spread = (hidden * keep).sqrt() * 2.0 * self.uniform_share / (1.0 - self.uniform_share)
        total = 1.0 + spread
        return keep / total, hidden / total, spread / total

    def mixing(self, t: Float[Tensor, "*N"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N V"]]:
        """mix_t = (ρ/C) e_mask + (c/C) 1_clean."""
        alpha, hidden, spread = self.shares(t)
        return alpha, hidden[..., None] * self.mask_onehot(t) + spread[..., None] * self.data_uniform(t)


def _pick(table: Float[Tensor, "*M V"], index: Int[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """table[…, index] with the table's leading shape broadcast to the index's."""
    return table.expand(*index.shape, table.shape[-1]).gather(-1, index[..., None]).squeeze(-1)


def _xlogy_ratio(weight: Tensor, numerator: Tensor, denominator: Tensor) -> Tensor:
    """Weight · log(numerator / denominator), and 0 where the weight is 0."""
    safe = torch.where(weight > 0, numerator / denominator, torch.ones_like(weight))
    return weight * safe.log()
