r"""Predictor–corrector sampling: reverse steps, with Gibbs steps at each time reached.

A corrector is a chain that leaves the noisy marginal q_s alone and so repairs what parallel draws got wrong (Campbell
et al., arXiv:2205.14987, section 4.4). Leave-one-out logits give the simplest one: the conditional of one noisy token
given the others is q̂_s = α_s p + mix_s itself, so drawing z_i ~ q̂_s is a Gibbs step of q_s (k-Gibbs of "Informed
Correctors", arXiv:2407.21243, with positions chosen at random). One position a row is exact; k at once, of L, err by
O((k / L)²).

Shape letters: B samples, L length.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from remask.randomness import draw_categorical, widest_float
from remask.samplers.ancestral import advance
from remask.samplers.base import Denoiser, Frame, OnStep, Prompt, Transform, silent
from remask.samplers.confidence import most_confident
from remask.samplers.transforms import identity


@torch.no_grad()
def predictor_corrector(
    model: Denoiser,
    times: Sequence[float],
    *,
    corrector_steps: int,
    prompt: Prompt,
    generator: torch.Generator,
    share: float = 0.1,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Takes an ancestral step to each time of the grid, then `corrector_steps` Gibbs steps there.

    Args:
        model: network and process; masking, uniform or hybrid noise.
        times: decreasing, usually from 1 to 0.
        corrector_steps: network calls at each time beside the one of the step itself, at least 0.
        prompt: given tokens, and the shape [B L].
        generator: on the model's device; nothing else is random.
        share: of a row's free positions that a Gibbs step draws again, in (0, 1]; rounded down, at least one.
        transform: changes logits before each draw.
        on_step: sees the start and the state after each time's last step.

    Returns:
        Tokens [B L]; noise remains where the grid ends above 0.

    Raises:
        ValueError: when `corrector_steps` or `share` is out of range.
    """
    if corrector_steps < 0:
        raise ValueError(f"corrector_steps: {corrector_steps} was given; it must be at least 0 (0 corrects nothing)")
    if not 0 < share <= 1:
        raise ValueError(f"share: {share} was given; it must lie above 0 and not above 1")
    process = model.process
    z = prompt.over(process.draw_prior(*prompt.ids.shape, generator=generator))
    on_step(Frame(step=0, t=times[0], z=z))
    for step, (t, s) in enumerate(pairwise(times), start=1):
        z = advance(
            model, z, t, s, weights=process.reverse_weights, prompt=prompt, generator=generator, transform=transform
        )
        for _ in range(corrector_steps):
            z = gibbs(model, z, s, share=share, prompt=prompt, generator=generator, transform=transform)
        on_step(Frame(step=step, t=s, z=z))
    return z


def gibbs(
    model: Denoiser,
    z: Int[Tensor, "B L"],
    s: float,
    *,
    share: float,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform,
) -> Int[Tensor, "B L"]:
    """Draws a random share of each row's free positions again from q̂_s; one network call."""
    process = model.process
    wide = widest_float(z.device)
    free = (~prompt.fixed).sum(-1)
    # 1e-9: a share such as 0.3 of 10 may fall short of 3 by rounding
    count = (free * share + 1e-9).long().clamp_min(1)
    order = torch.rand(z.shape, generator=generator, dtype=wide, device=z.device)
    positions = most_confident(order.masked_fill(prompt.fixed, -1.0), count) & ~prompt.fixed
    now = torch.full((z.shape[0],), s, dtype=wide, device=z.device)
    logits = transform(process.log_clean(model.logits(process.forget(z, positions), now, positions=positions)))
    drawn = draw_categorical(process.predicted(logits, now[:1]), generator=generator)
    return z.masked_scatter(positions, drawn)
