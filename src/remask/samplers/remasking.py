r"""Remasking: masked diffusion that may take back tokens it has revealed (ReMDM, arXiv:2503.00307).

With a chance σ to be masked again, the posterior of a step from t to s is (section 3)

    z_t = x       z_s = mask with probability σ,   else x
    z_t = mask    z_s = x with probability (α_s − (1 − σ) α_t) / (1 − α_t),   else mask

and has the marginals of masked diffusion, 1 − α_s masks at s, for every 0 <= σ <= σ_max = min(1, (1 − α_s) / α_t).
σ = 0 is the reverse step itself. Strategies choose σ (section 4).

Shape letters: B samples, L length.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from remask.randomness import draw_categorical, widest_float
from remask.samplers.base import Denoiser, Frame, OnStep, Prompt, Transform, silent
from remask.samplers.transforms import identity

Strategy = Callable[[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, "B L"]], Float[Tensor, "B L"]]
"""(α_t, α_s, sureness) → σ of each position. Sureness is the probability that a visible token was drawn with, and ∞
where there is nothing to remask."""


def largest_sigma(alpha_t: Float[Tensor, ""], alpha_s: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """σ_max = min(1, (1 − α_s) / α_t)."""
    tiny = torch.finfo(alpha_t.dtype).tiny
    return ((1.0 - alpha_s) / alpha_t.clamp_min(tiny)).clamp_max(1.0)


def cap(eta: float) -> Strategy:
    """σ = min(η, σ_max): up to a share η of the visible tokens at every step.

    Args:
        eta: in [0, 1].

    Raises:
        ValueError: when it is out of range.
    """
    _check_eta(eta)
    return lambda alpha_t, alpha_s, sureness: largest_sigma(alpha_t, alpha_s).clamp_max(eta).expand(sureness.shape)


def rescale(eta: float) -> Strategy:
    """σ = η · σ_max.

    Args:
        eta: in [0, 1].

    Raises:
        ValueError: when it is out of range.
    """
    _check_eta(eta)
    return lambda alpha_t, alpha_s, sureness: (eta * largest_sigma(alpha_t, alpha_s)).expand(sureness.shape)


def by_sureness(strategy: Strategy) -> Strategy:
    """Spreads the σ of `strategy` over a row's visible tokens as the softmax of −sureness: the unsurest go first.

    At most one token a row is remasked in expectation. A mask is revealed as with σ = 0, so the marginals are not kept.
    """

    def sigma(
        alpha_t: Float[Tensor, ""], alpha_s: Float[Tensor, ""], sureness: Float[Tensor, "B L"]
    ) -> Float[Tensor, "B L"]:
        weight = (-sureness).exp()
        # a row without visible tokens has no weight at all
        share = weight / weight.sum(-1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        return share * strategy(alpha_t, alpha_s, sureness)

    return sigma


def while_held(strategy: Strategy) -> Strategy:
    """The σ of `strategy` where the grid stands still, else 0: with `held_time_grid` this is the paper's loop."""
    return lambda alpha_t, alpha_s, sureness: torch.where(alpha_s == alpha_t, strategy(alpha_t, alpha_s, sureness), 0.0)


@torch.no_grad()
def remdm(
    model: Denoiser,
    times: Sequence[float],
    *,
    strategy: Strategy,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Reveals masked tokens and remasks visible ones along a time grid.

    With a true posterior the marginals of each position are right for `cap` and `rescale`; the joint law is right in
    the limit of steps in which few tokens change, so η should fall as the number of steps grows.

    Args:
        model: network and a masking process.
        times: non-increasing, from 1 to 0.
        strategy: chooses σ of each step and position.
        prompt: given tokens, and the shape [B L].
        generator: on the model's device; nothing else is random.
        transform: changes logits before each draw.
        on_step: sees the start and the state after each step.

    Returns:
        Tokens [B L]; masks remain where the grid ends above 0.
    """
    process = model.process
    z = prompt.over(process.draw_prior(*prompt.ids.shape, generator=generator))
    wide = widest_float(z.device)
    sureness = torch.full(z.shape, 1.0 / process.data_size, dtype=wide, device=z.device)
    on_step(Frame(step=0, t=times[0], z=z))
    for step, (t, s) in enumerate(pairwise(times), start=1):
        masked = (z == process.mask_id) & ~prompt.fixed
        now = torch.full((z.shape[0],), t, dtype=wide, device=z.device)
        p = transform(process.log_clean(model.logits(z, now, positions=masked))).to(wide).softmax(-1)
        drawn = draw_categorical(p, generator=generator)
        sureness = sureness.masked_scatter(masked, p.gather(-1, drawn[:, None]).squeeze(-1))
        alpha_t, alpha_s = process.schedule.alpha(torch.tensor([t, s], dtype=wide, device=z.device)).unbind()
        sigma = strategy(alpha_t, alpha_s, sureness.masked_fill(masked | prompt.fixed, torch.inf))
        u = torch.rand(z.shape, generator=generator, dtype=wide, device=z.device)
        revealed = u < reveal_probability(alpha_t, alpha_s, sigma)
        from_mask = torch.where(revealed, z.masked_scatter(masked, drawn), process.mask_id)
        from_token = torch.where((u < sigma) & ~prompt.fixed, process.mask_id, z)
        z = torch.where(masked, from_mask, from_token)
        on_step(Frame(step=step, t=s, z=z))
    return z


def reveal_probability(
    alpha_t: Float[Tensor, ""], alpha_s: Float[Tensor, ""], sigma: Float[Tensor, "*N"]
) -> Float[Tensor, "*N"]:
    """(α_s − (1 − σ) α_t) / (1 − α_t), for α_t < 1; 1 at α_s = 1, exactly."""
    return (alpha_s - (1.0 - sigma) * alpha_t) / (1.0 - alpha_t)


def _check_eta(eta: float) -> None:
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: {eta} was given; it must lie in [0, 1] (0 remasks nothing)")
