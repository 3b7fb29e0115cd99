r"""Samplers written through the scores of SEDD (arXiv:2310.16834, section 4.2).

The score of a token is the ratio of predicted marginals s_y = q̂_t(y) / q̂_t(z), read off the leave-one-out posterior.

    τ-leaping (Euler)    p(z_s = y | z_t = z) = (t − s) · r_t[z] · s_y  for y ≠ z,  the rest of the mass on z
    analytic (Tweedie)   p(z_s = y | z_t = z) ∝ q(z_t = z | z_s = y) · (s_y − m_y Σ_v s_v) / a           (theorem 4.2)

with jump rates r_t and the forward step (a, m) of `processes`, equations (5) and (2). The last factor is
q̂_s(y) / q̂_t(z), because q̂_t = a q̂_s + m: with normalised posteriors the analytic step is the reverse step itself.

Shape letters: B samples, L length, V vocabulary, M positions that a step may change.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from remask.processes import CategoricalProcess
from remask.randomness import widest_float
from remask.samplers.ancestral import StepWeights, walk
from remask.samplers.base import Denoiser, OnStep, Prompt, Transform, silent
from remask.samplers.transforms import identity

ProcessWeights = Callable[
    [CategoricalProcess, Float[Tensor, "M V"], Int[Tensor, "M"], Float[Tensor, "1"], Float[Tensor, "1"]],
    Float[Tensor, "M V"],
]
LATEST = 1.0 - 1e-5
"""Steps count as starting no later than here: at t = 1 a schedule may end at α = 0, where scores say nothing."""


def analytic(
    model: Denoiser,
    times: Sequence[float],
    *,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Draws by SEDD's analytic step: the law of `ancestral`, reached through scores.

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
        weights=_bind(model.process, analytic_weights),
        prompt=prompt,
        generator=generator,
        transform=transform,
        on_step=on_step,
    )


def tau_leaping(
    model: Denoiser,
    times: Sequence[float],
    *,
    prompt: Prompt,
    generator: torch.Generator,
    transform: Transform = identity,
    on_step: OnStep = silent,
) -> Int[Tensor, "B L"]:
    """Draws by Euler steps of the reverse chain; a step that ends at 0 is analytic, so that no noise is left.

    A first-order approximation of `ancestral`: the law of a step differs by O((t − s)²). Arguments as for `analytic`.
    """
    euler, last = _bind(model.process, euler_weights), _bind(model.process, analytic_weights)

    def weights(
        logits: Float[Tensor, "M V"], z: Int[Tensor, "M"], t: Float[Tensor, "1"], s: Float[Tensor, "1"]
    ) -> Float[Tensor, "M V"]:
        return (last if float(s) == 0 else euler)(logits, z, t, s)

    return walk(model, times, weights=weights, prompt=prompt, generator=generator, transform=transform, on_step=on_step)


def scores(
    process: CategoricalProcess, logits: Float[Tensor, "M V"], z: Int[Tensor, "M"], t: Float[Tensor, "1"]
) -> Float[Tensor, "M V"]:
    """s_y = q̂_t(y) / q̂_t(z) for every y; 1 at y = z."""
    marginal = process.predicted(logits, t)
    return marginal / marginal.gather(-1, z[:, None])


def analytic_weights(
    process: CategoricalProcess,
    logits: Float[Tensor, "M V"],
    z: Int[Tensor, "M"],
    t: Float[Tensor, "1"],
    s: Float[Tensor, "1"],
) -> Float[Tensor, "M V"]:
    """Unnormalised p(z_s = · | z_t = z) of theorem 4.2, for s < t <= `LATEST`."""
    score = scores(process, logits, z, t)
    stay, enter = process.transition(s, t)
    before = ((score - enter * score.sum(-1, keepdim=True)) / stay).clamp_min(0.0)  # rounding may leave −1e-12
    return process.undo(before, z, t, s)


def euler_weights(
    process: CategoricalProcess,
    logits: Float[Tensor, "M V"],
    z: Int[Tensor, "M"],
    t: Float[Tensor, "1"],
    s: Float[Tensor, "1"],
) -> Float[Tensor, "M V"]:
    """p(z_s = · | z_t = z) of an Euler step; a step so long that jumps exceed 1 is scaled down to 1."""
    rate = process.rates(t).expand(z.shape[0], -1).gather(-1, z[:, None])
    jump = ((t - s) * rate.clamp_min(0.0) * scores(process, logits, z, t)).scatter(-1, z[:, None], 0.0)
    stay = (1.0 - jump.sum(-1, keepdim=True)).clamp_min(0.0)
    return jump.scatter(-1, z[:, None], stay)


def _bind(process: CategoricalProcess, weights: ProcessWeights) -> StepWeights:
    """`weights` of one process, as wide as the device can and no later than `LATEST`."""
    return lambda logits, z, t, s: weights(
        process, logits.to(widest_float(logits.device)), z, t.clamp_max(LATEST), s.clamp_max(LATEST)
    )
