"""Ancestral sampling: the process's own reverse step along a time grid.

Shape letters: B samples, L length, V vocabulary, M positions that a step may change.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from remask.randomness import draw_categorical, widest_float
from remask.samplers.base import Denoiser, Frame, OnStep, Prompt, Transform, silent
from remask.samplers.transforms import identity

StepWeights = Callable[
    [Float[Tensor, "M V"], Int[Tensor, "M"], Float[Tensor, "1"], Float[Tensor, "1"]], Float[Tensor, "M V"]
]
"""(leave-one-out logits, z_t, t, s) → unnormalised probabilities of z_s, each position on its own."""


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
    return walk(
        model,
        times,
        weights=model.process.reverse_weights,
        prompt=prompt,
        generator=generator,
        transform=transform,
        on_step=on_step,
    )


@torch.no_grad()
def walk(
    model: Denoiser,
    times: Sequence[float],
    *,
    weights: StepWeights,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Draws z_s of every active free position from `weights`, for each pair t > s of `times`.

    Args:
        model: network and process.
        times: decreasing, usually from 1 to 0.
        weights: the law of one position's step.
        prompt: given tokens, and the shape [B L].
        generator: on the model's device; nothing else is random.
        transform: changes logits before each draw.
        on_step: sees the start and the state after each step.

    Returns:
        Tokens [B L]; noise remains where the grid ends above 0.
    """
    z = prompt.over(model.process.draw_prior(*prompt.ids.shape, generator=generator))
    on_step(Frame(step=0, t=times[0], z=z))
    for step, (t, s) in enumerate(pairwise(times), start=1):
        z = advance(model, z, t, s, weights=weights, prompt=prompt, generator=generator, transform=transform)
        on_step(Frame(step=step, t=s, z=z))
    return z


def advance(
    model: Denoiser,
    z: Int[Tensor, "B L"],
    t: float,
    s: float,
    *,
    weights: StepWeights,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform,
) -> Int[Tensor, "B L"]:
    """One step of `walk`, from z_t to z_s; one network call."""
    process = model.process
    positions = process.active(z) & ~prompt.fixed
    now = torch.full((z.shape[0],), t, dtype=widest_float(z.device), device=z.device)
    logits = transform(process.log_clean(model.logits(z, now, positions=positions)))
    drawn = draw_categorical(weights(logits, z[positions], now[:1], torch.full_like(now[:1], s)), generator=generator)
    return z.masked_scatter(positions, drawn)
