"""Confidence sampling: the tokens the model is surest of are revealed first."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.randomness import draw_categorical, widest_float
from remask.samplers.base import Denoiser, Frame, OnStep, Prompt, Transform, silent
from remask.samplers.transforms import identity


@torch.no_grad()
def confidence(
    model: Denoiser,
    times: Sequence[float],
    *,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Draws every masked token, keeps the most probable draws, and masks the rest again (MaskGIT, arXiv:2202.04200).

    At time s a share 1 − α_s of the free positions stays masked (rounded down), so the last step reveals all. The
    order depends on the drawn tokens: this favours likely text and is not a draw from the model.

    Args:
        model: network and a masking process.
        times: decreasing, usually from 1 to 0.
        prompt: given tokens, and the shape [B L].
        generator: on the model's device; nothing else is random.
        transform: changes logits before each draw.
        on_step: sees the start and the state after each step.

    Returns:
        Tokens [B L].
    """
    process = model.process
    z = prompt.over(torch.full_like(prompt.ids, process.mask_id))
    free = (~prompt.fixed).sum(-1)
    on_step(Frame(step=0, t=times[0], z=z))
    for step, (t, s) in enumerate(pairwise(times), start=1):
        masked = (z == process.mask_id) & ~prompt.fixed
        now = torch.full((z.shape[0],), t, dtype=widest_float(z.device), device=z.device)
        log_p = transform(process.log_clean(model.logits(z, now, positions=masked)))
        p = log_p.softmax(-1)
        drawn = draw_categorical(p, generator=generator)
        score = torch.full(z.shape, -1.0, dtype=p.dtype, device=z.device)
        score = score.masked_scatter(masked, p.gather(-1, drawn[:, None]).squeeze(-1))
        hidden_share = 1.0 - process.schedule.alpha(torch.full_like(now, s))
        # a share such as 1 − (1 − 0.7) may fall short of the whole number that it stands for by rounding
        reveal = masked.sum(-1) - (free * hidden_share + 1e-9).floor().long()
        candidates = z.masked_scatter(masked, drawn)
        z = torch.where(most_confident(score, reveal) & masked, candidates, z)
        on_step(Frame(step=step, t=s, z=z))
    return z


def most_confident(score: Float[Tensor, "B L"], count: Int[Tensor, "B"]) -> Bool[Tensor, "B L"]:
    """The `count` highest scores of each row; ties go to the earlier position, so the choice is deterministic."""
    rank = score.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    return rank < count[:, None]
