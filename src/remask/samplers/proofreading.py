"""Proofreading: masked tokens are filled in, and filled ones that the model calls wrong are masked again.

Shape letters: B samples, L length, V vocabulary, M free positions.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.randomness import draw_categorical, widest_float
from remask.samplers.base import Denoiser, Frame, OnStep, Prompt, Transform, silent
from remask.samplers.confidence import drawn_probability, most_confident
from remask.samplers.transforms import identity

Order = Callable[[Float[Tensor, "M V"], Int[Tensor, "M"], torch.Generator], Float[Tensor, "M"]]
"""(probabilities, drawn tokens, generator) → a number a position; the highest are revealed first."""


def by_confidence(p: Float[Tensor, "M V"], drawn: Int[Tensor, "M"], generator: torch.Generator) -> Float[Tensor, "M"]:
    """The most probable draws first. It favours likely text: samples are less varied than the data."""
    del generator
    return drawn_probability(p, drawn)


def by_chance(p: Float[Tensor, "M V"], drawn: Int[Tensor, "M"], generator: torch.Generator) -> Float[Tensor, "M"]:
    """In an order drawn evenly, as ancestral sampling reveals: samples stay as varied as the data."""
    return torch.rand(drawn.shape, generator=generator, dtype=p.dtype, device=p.device)


@torch.no_grad()
def proofread(
    model: Denoiser,
    times: Sequence[float],
    *,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
    order: Order = by_confidence,
    threshold: float = 0.2,
    remask_share: float = 0.2,
    finish: float = 0.25,
) -> Int[Tensor, "B L"]:
    """Starts from all-[MASK]; each step is one network call that fills in and takes back.

    It draws every masked token and keeps the first by `order`, and masks again the visible tokens that the model was
    asked about and gives [MASK] more than `threshold`, the worst first. A token taken back does not slow the schedule
    down: another masked one is revealed in its place. Once all is revealed, the steps that are left only take back and
    fill in. The last step takes nothing back, so no mask is left. Where the model calls nothing wrong and `finish` is
    0, the result by confidence is that of `confidence`.

    Args:
        model: a network trained to proofread, and a masking process.
        times: decreasing, usually from 1 to 0.
        prompt: given tokens, and the shape [B L].
        generator: on the model's device; nothing else is random.
        transform: changes the words' logits before each draw; order and doubt go by the network's own probabilities.
        on_step: sees the start and the state after each step.
        order: `by_confidence` or `by_chance`: which masked positions are revealed first.
        threshold: in [0, 1]; at 1 nothing is taken back.
        remask_share: at most this share of the free positions is taken back a step (rounded up), in [0, 1].
        finish: the share of the steps, in [0, 1), that is kept for proofreading the full text.

    Returns:
        Tokens [B L].
    """
    process = model.process
    free, size = ~prompt.fixed, (~prompt.fixed).sum(-1)
    z = prompt.over(torch.full_like(prompt.ids, process.mask_id))
    on_step(Frame(step=0, t=times[0], z=z))
    grid, settled = hold_end(times, finish), False
    for step, (t, s) in enumerate(pairwise(grid), start=1):
        if not settled:
            now = torch.full((z.shape[0],), t, dtype=widest_float(z.device), device=z.device)
            logits = model.logits(z, now, positions=free)
            masked = free & (z == process.mask_id)
            share = remask_share if step < len(grid) - 1 else 0.0
            doubt = mask_probability(logits, free & ~masked, free=free, mask_id=process.mask_id)
            taken = called_wrong(doubt, threshold=threshold, most=(size * share).ceil().long())
            hidden_share = 1.0 - process.schedule.alpha(torch.full_like(now, s))
            # a share such as 1 − (1 − 0.7) may fall short of the whole number that it stands for by rounding
            hidden = (size * hidden_share + 1e-9).floor().long()
            count = masked.sum(-1) - (hidden - taken.sum(-1)).clamp_min(0)
            log_p = process.log_clean(logits[masked[free]])
            z = fill_in(z, log_p, masked, count=count, order=order, generator=generator, transform=transform)
            z = z.masked_fill(taken, process.mask_id)
            # with nothing masked and nothing taken back, further calls would say the same
            settled = not bool((masked | taken).any())
        on_step(Frame(step=step, t=s, z=z))
    return z


def called_wrong(doubt: Float[Tensor, "B L"], *, threshold: float, most: Int[Tensor, "B"]) -> Bool[Tensor, "B L"]:
    """The positions of each row whose probability of [MASK] is above `threshold`, the `most` worst of them."""
    return most_confident(doubt, (doubt > threshold).sum(-1).minimum(most))


def fill_in(
    z: Int[Tensor, "B L"],
    log_p: Float[Tensor, "M V"],
    masked: Bool[Tensor, "B L"],
    *,
    count: Int[Tensor, "B"],
    order: Order,
    generator: torch.Generator,
    transform: Transform,
) -> Int[Tensor, "B L"]:
    """Draws a token at each masked position, and puts the first `count` of each row into `z`.

    Ordered by the model's own probabilities: after a transform that leaves one token all would be equally sure.
    """
    drawn = draw_categorical(transform(log_p).softmax(-1), generator=generator)
    sureness = torch.full(z.shape, -torch.inf, dtype=log_p.dtype, device=z.device)
    sureness = sureness.masked_scatter(masked, order(log_p.exp(), drawn, generator))
    return torch.where(most_confident(sureness, count) & masked, z.masked_scatter(masked, drawn), z)


def mask_probability(
    logits: Float[Tensor, "M V"], positions: Bool[Tensor, "B L"], *, free: Bool[Tensor, "B L"], mask_id: int
) -> Float[Tensor, "B L"]:
    """The probability of [MASK] at `positions`, which lie among the `free` ones that `logits` are of; −1 elsewhere."""
    wide = logits[positions[free]].to(torch.promote_types(logits.dtype, torch.float32))
    elsewhere = torch.full(positions.shape, -1.0, dtype=wide.dtype, device=wide.device)
    return elsewhere.masked_scatter(positions, wide.softmax(-1)[:, mask_id])


def hold_end(times: Sequence[float], share: float) -> list[float]:
    """A grid of as many times that reaches its end early and stays there for a share of the steps.

    Args:
        times: at least two.
        share: in [0, 1); rounded to whole steps, and at least one step is left to get there.

    Raises:
        ValueError: when `share` is out of range.
    """
    if not 0 <= share < 1:
        raise ValueError(f"finish: {share} was given; it must be at least 0 and below 1")
    steps = len(times) - 1
    moving = max(1, steps - round(share * steps))
    return [times[min(round(k * steps / moving), steps)] for k in range(steps + 1)]
