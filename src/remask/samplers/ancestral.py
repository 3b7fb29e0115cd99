"""Ancestral sampling: the process's own reverse step along a time grid."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from remask.randomness import widest_float
from remask.samplers.base import Denoiser, Frame, OnStep, Prompt, Transform, silent
from remask.samplers.transforms import identity


@torch.no_grad()
def ancestral(
    model: Denoiser,
    times: Sequence[float],
    *,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Draws z_s ~ p(z_s | z_t) for each pair t > s of `times`, every position on its own.

    With a true leave-one-out posterior the error against the data falls as the grid gets finer, and one token a step
    is exact (D3PM, arXiv:2107.03006, section 3; the plug-in step of MDLM, arXiv:2406.07524, equation 6).

    Args:
        model: network and process.
        times: decreasing, usually from 1 to 0.
        prompt: given tokens, and the shape [B L].
        generator: on the model's device; nothing else is random.
        transform: changes logits before each draw.
        on_step: sees the start and the state after each step.

    Returns:
        Tokens [B L]; noise remains where the grid ends above 0.
    """
    process = model.process
    z = prompt.over(process.draw_prior(*prompt.ids.shape, generator=generator))
    on_step(Frame(step=0, t=times[0], z=z))
    for step, (t, s) in enumerate(pairwise(times), start=1):
        positions = process.active(z) & ~prompt.fixed
        now = torch.full((z.shape[0],), t, dtype=widest_float(z.device), device=z.device)
        logits = transform(process.log_clean(model.logits(z, now, positions=positions)))
        then = torch.full_like(now[:1], s)
        drawn = process.reverse_step(logits, z[positions], now[:1], then, generator=generator)
        z = z.masked_scatter(positions, drawn)
        on_step(Frame(step=step, t=s, z=z))
    return z
