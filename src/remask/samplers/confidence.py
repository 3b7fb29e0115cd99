"""Ranked unmasking: the tokens that the model is surest of are revealed first.

Shape letters: B samples, L length, V vocabulary, M masked positions.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask import orders
from remask.randomness import draw_categorical, widest_float
from remask.samplers.base import Denoiser, Frame, OnStep, Prompt, Transform, silent
from remask.samplers.transforms import identity

Score = Callable[[Float[Tensor, "M V"], Int[Tensor, "M"]], Float[Tensor, "M"]]
"""(probabilities, drawn tokens) → how sure the model is of each position; the highest are revealed first."""


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

    The order depends on the drawn tokens: this favours likely text and is not a draw from the model, however fine
    the grid. Arguments as for `ranked`.
    """
    return ranked(
        model,
        times,
        score=drawn_probability,
        prompt=prompt,
        generator=generator,
        transform=transform,
        on_step=on_step,
    )


def margin(
    model: Denoiser,
    times: Sequence[float],
    *,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Reveals first where the two most probable tokens lie far apart (top-k margin, arXiv:2502.06768, section 4).

    With one token a step this draws exactly from a true posterior: the order depends on what is revealed, not on the
    draws. Arguments as for `ranked`.
    """
    return ranked(model, times, score=top_gap, prompt=prompt, generator=generator, transform=transform, on_step=on_step)


def entropy(
    model: Denoiser,
    times: Sequence[float],
    *,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Reveals first where the predicted distribution has the least entropy; exact as `margin` is.

    Arguments as for `ranked`.
    """
    return ranked(
        model, times, score=negative_entropy, prompt=prompt, generator=generator, transform=transform, on_step=on_step
    )


@torch.no_grad()
def ranked(
    model: Denoiser,
    times: Sequence[float],
    *,
    score: Score,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Draws every masked token, keeps the draws of the highest score, and masks the rest again.

    At time s a share 1 − α_s of the free positions stays masked (rounded down), so the last step reveals all.

    Args:
        model: network and a masking process.
        times: decreasing, usually from 1 to 0.
        score: says which positions go first.
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
        log_p = process.log_clean(model.logits(z, now, positions=masked))
        drawn = draw_categorical(transform(log_p).softmax(-1), generator=generator)
        # scored by the model's own probabilities: after a transform that leaves one token all would be equally sure
        sureness = torch.full(z.shape, -torch.inf, dtype=log_p.dtype, device=z.device)
        # places that look alike (a block of masks alone) go in order, whatever the rounding of each says
        sureness = sureness.masked_scatter(masked, score(log_p.exp(), drawn).round(decimals=orders.DECIMALS))
        hidden_share = 1.0 - process.schedule.alpha(torch.full_like(now, s))
        # a share such as 1 − (1 − 0.7) may fall short of the whole number that it stands for by rounding
        reveal = masked.sum(-1) - (free * hidden_share + 1e-9).floor().long()
        candidates = z.masked_scatter(masked, drawn)
        z = torch.where(most_confident(sureness, reveal) & masked, candidates, z)
        on_step(Frame(step=step, t=s, z=z))
    return z


def drawn_probability(p: Float[Tensor, "M V"], drawn: Int[Tensor, "M"]) -> Float[Tensor, "M"]:
    """The probability of the token that was drawn, in [0, 1]."""
    return p.gather(-1, drawn[:, None]).squeeze(-1)


def top_gap(p: Float[Tensor, "M V"], drawn: Int[Tensor, "M"]) -> Float[Tensor, "M"]:
    """The largest probability less the second largest, in [0, 1]; the draw does not count."""
    del drawn
    return orders.top_gap(p)


def negative_entropy(p: Float[Tensor, "M V"], drawn: Int[Tensor, "M"]) -> Float[Tensor, "M"]:
    """−H(p) in nats, in [−log V, 0]; the draw does not count."""
    del drawn
    return orders.negative_entropy(p)


def most_confident(score: Float[Tensor, "B L"], count: Int[Tensor, "B"]) -> Bool[Tensor, "B L"]:
    """The `count` highest scores of each row; ties go to the earlier position, so the choice is deterministic."""
    rank = score.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    return rank < count[:, None]
