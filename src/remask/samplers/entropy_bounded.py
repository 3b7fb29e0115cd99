"""Entropy-bounded unmasking: as many tokens a call as a budget of total entropy allows.

Shape letters: B samples, L length.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.randomness import draw_categorical, widest_float
from remask.samplers.base import Denoiser, Frame, OnStep, Prompt, Transform, silent
from remask.samplers.transforms import identity
from remask.schedules import Schedule


@torch.no_grad()
def entropy_bounded(
    model: Denoiser,
    *,
    budget: float,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Reveals at each call the most certain positions S with Σ_S H − max_S H <= budget (EB-sampler, arXiv:2505.24857).

    The left side bounds the divergence of independent draws from a joint draw, if the model is right. Budget 0 gives
    one token a call, and those that are certain along with it: an exact draw from a true posterior.

    There is no time grid: a row's time is the one at which the schedule leaves its share of masks. The number of
    calls is not known before; a frame follows each.

    Args:
        model: network and a masking process.
        budget: in nats, at least 0; each call reveals at least one token of each unfinished row.
        prompt: given tokens, and the shape [B L].
        generator: on the model's device; nothing else is random.
        transform: changes logits before each draw; the budget is of the model's own entropies.
        on_step: sees the start and the state after each call; a frame's time is the mean over rows.

    Returns:
        Tokens [B L].

    Raises:
        ValueError: when `budget` is not a number of at least 0.
    """
    if not 0 <= budget < math.inf:
        raise ValueError(f"budget: {budget} was given; it must be a number of nats, at least 0 (0: a token a call)")
    process = model.process
    z = prompt.over(torch.full_like(prompt.ids, process.mask_id))
    masked = ~prompt.fixed
    now = _times(process.schedule, masked, prompt)
    on_step(Frame(step=0, t=1.0, z=z))
    step = 0
    while bool(masked.any()):
        step += 1
        log_p = process.log_clean(model.logits(z, now, positions=masked))
        drawn = draw_categorical(transform(log_p).softmax(-1), generator=generator)
        # the model's own entropies: after a transform that leaves one token all would be certain, and revealed at once
        entropy = torch.full(z.shape, torch.inf, dtype=log_p.dtype, device=z.device)
        entropy = entropy.masked_scatter(masked, torch.special.entr(log_p.exp()).sum(-1))
        revealed = within_budget(entropy, budget) & masked
        z = torch.where(revealed, z.masked_scatter(masked, drawn), z)
        masked = masked & ~revealed
        now = _times(process.schedule, masked, prompt)
        on_step(Frame(step=step, t=float(now.mean()), z=z))
    return z


def within_budget(entropy: Float[Tensor, "B L"], budget: float) -> Bool[Tensor, "B L"]:
    """The largest set of each row's lowest entropies whose sum without the largest is at most `budget`.

    In ascending order the largest comes last, so a position joins while the sum before it is within the budget. Ties
    go to the earlier position.
    """
    ordered, order = entropy.sort(dim=-1, stable=True)
    before = torch.cat([torch.zeros_like(ordered[:, :1]), ordered[:, :-1].cumsum(-1)], dim=-1)
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, before <= budget)


def _times(schedule: Schedule, masked: Bool[Tensor, "B L"], prompt: Prompt) -> Float[Tensor, "B"]:
    """The time of each row at which `schedule` masks the share of free positions that is masked; 0 when none is."""
    masks, free = masked.sum(-1), (~prompt.fixed).sum(-1)
    share = masks.to(widest_float(masked.device)) / free.clamp_min(1)
    return schedule.time(1.0 - share) * (masks > 0)
