"""How vectors are drawn from Gaussian noise: DDPM, DDIM and Heun, as functions that walk a time grid.

They own no noise mathematics: the process takes each step. A grid may end above 0, where a decoder wants vectors with
some noise left.

Shape letters: B samples, *S any shape of one sample's latent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from remask.gaussian import GaussianProcess
from remask.randomness import widest_float


@runtime_checkable
class LatentDenoiser(Protocol):
    """A model of vectors as a sampler sees it."""

    @property
    def process(self) -> GaussianProcess:
        """The noise that sampling undoes."""
        ...

    def clean(
        self, z: Float[Tensor, "B *S"], t: Float[Tensor, "B"], *, before: Float[Tensor, "B *S"] | None
    ) -> Float[Tensor, "B *S"]:
        """The estimate x̂ of the clean vectors; `before` is the estimate made just before, None at the start.

        A network conditioned on its own last estimate (self-conditioning, arXiv:2208.04202) reads `before`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class LatentFrame:
    """The state after a step, handed to `on_step`.

    Attributes:
        step: 0 for the start, then 1, 2, … up to the number of steps.
        t: the time reached, in [0, 1].
        z: the vectors, noise included [B *S].
        clean: the estimate they were made with [B *S]; None at the start.
    """

    step: int
    t: float
    z: Float[Tensor, "B *S"]
    clean: Float[Tensor, "B *S"] | None


OnLatentStep = Callable[[LatentFrame], None]


def unseen(frame: LatentFrame) -> None:
    """Watches nothing."""
    del frame


@torch.no_grad()
def ddpm(
    model: LatentDenoiser,
    times: Sequence[float],
    *,
    start: Float[Tensor, "B *S"],
    generator: torch.Generator,
    on_step: OnLatentStep = unseen,
) -> Float[Tensor, "B *S"]:
    """Draws z_s ~ q(z_s | z_t, x̂) for each pair t > s of `times` (arXiv:2006.11239, algorithm 2).

    Args:
        model: network and process.
        times: decreasing, from 1 or where no signal is left.
        start: noise at the first time, as `GaussianProcess.draw_prior` gives it.
        generator: on the device of `start`.
        on_step: sees the start and the state after each step.

    Returns:
        The vectors at the last time; clean ones where its σ is 0.
    """

    def move(z: Tensor, t: Tensor, s: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        clean = model.clean(z, t, before=before)
        noise = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        return model.process.draw_step(z, clean, t, s, noise=noise), clean

    return _walk(move, times, start=start, on_step=on_step)


@torch.no_grad()
def ddim(
    model: LatentDenoiser,
    times: Sequence[float],
    *,
    start: Float[Tensor, "B *S"],
    generator: torch.Generator,
    on_step: OnLatentStep = unseen,
) -> Float[Tensor, "B *S"]:
    """Carries the start along the flow, one network call a step, error of order 1 in the step (arXiv:2010.02502).

    Args and result as for `ddpm`; a step draws nothing.
    """
    del generator
    process = model.process

    def move(z: Tensor, t: Tensor, s: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        clean = model.clean(z, t, before=before)
        return process.straight_step(z, clean, process.noise_of_clean(z, clean, t), t, s), clean

    return _walk(move, times, start=start, on_step=on_step)


@torch.no_grad()
def heun(
    model: LatentDenoiser,
    times: Sequence[float],
    *,
    start: Float[Tensor, "B *S"],
    generator: torch.Generator,
    on_step: OnLatentStep = unseen,
) -> Float[Tensor, "B *S"]:
    """Carries the start along the flow, two network calls a step, error of order 2 in the step.

    Heun's method (arXiv:2206.00364, algorithm 1) in the variables of `GaussianProcess.straight_step`; as there, a last
    step to where no noise is left is not corrected, since noise cannot be read off clean vectors.

    Args and result as for `ddpm`; a step draws nothing.
    """
    del generator
    process = model.process

    def move(z: Tensor, t: Tensor, s: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        first = model.clean(z, t, before=before)
        noise = process.noise_of_clean(z, first, t)
        reached = process.straight_step(z, first, noise, t, s)
        if not bool((process.coefficients(s)[1] > 0).all()):
            return reached, first
        clean = model.clean(reached, s, before=first)
        noise = 0.5 * (noise + process.noise_of_clean(reached, clean, s))
        return process.straight_step(z, 0.5 * (first + clean), noise, t, s), clean

    return _walk(move, times, start=start, on_step=on_step)


Move = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(z_t, t, s, the estimate made before) → z_s, and the estimate that it was made with."""


def _walk(
    move: Move, times: Sequence[float], *, start: Float[Tensor, "B *S"], on_step: OnLatentStep
) -> Float[Tensor, "B *S"]:
    """Moves along each pair t > s of a grid, the times one for each sample; steps are counted from 1."""
    z, clean = start, None
    on_step(LatentFrame(step=0, t=times[0], z=z, clean=None))
    wide = widest_float(z.device)
    for step, pair in enumerate(pairwise(times), start=1):
        t, s = (torch.full((len(z),), time, dtype=wide, device=z.device) for time in pair)
        z, clean = move(z, t, s, clean)
        on_step(LatentFrame(step=step, t=times[step], z=z, clean=clean))
    return z
