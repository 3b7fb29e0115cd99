"""Noise schedules α(t), stratified times, and the time grids of samplers.

A schedule is one decreasing function α: [0, 1] → [0, 1], the probability that a token is still untouched at time t;
its slope is derived by forward-mode differentiation, so each curve is written down once.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from remask.data.batch import Batch
from remask.randomness import widest_float

Curves = TypeVar("Curves", bound=Tensor | tuple[Tensor, ...])

_BISECTIONS = 60
"""Halvings of [0, 1] that leave less than the spacing of float64 numbers near 1e-2."""


def with_slope(curves: Callable[[Tensor], Curves], t: Float[Tensor, "*N"]) -> tuple[Curves, Curves]:
    """`curves(t)` and d curves/dt, by forward-mode differentiation; `t` may be a broadcast view."""
    t = t.contiguous()
    return cast(tuple[Curves, Curves], torch.func.jvp(curves, (t,), (torch.ones_like(t),)))


class Schedule(ABC):
    """α(t) for t in [0, 1]: non-increasing, from 1 (clean) towards 0 (noise)."""

    @abstractmethod
    def alpha(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """The share of signal left at time t, in [0, 1]; same shape and dtype as `t`."""

    def slope(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """dα/dt, never positive; same shape and dtype as `t`."""
        return with_slope(self.alpha, t)[1]

    def time(self, alpha: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """The earliest time at which no more than the share `alpha` is left, or 1; to rounding, by bisection.

        Args:
            alpha: in [0, 1].

        Returns:
            t in (0, 1]; same shape and dtype as `alpha`. About 1e-18 where `alpha` is 1.
        """
        low, high = torch.zeros_like(alpha), torch.ones_like(alpha)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            reached = self.alpha(middle) <= alpha
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        return high


@dataclass(frozen=True)
class Linear(Schedule):
    """α(t) = 1 − t: each moment reveals the same number of tokens (MDLM, arXiv:2406.07524; MD4's linear)."""

    def alpha(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """α(t) = 1 − t."""
        return 1.0 - t

    def time(self, alpha: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """As `Schedule.time`, in closed form: samplers ask at every step, and 60 halvings cost more than the answer."""
        t = (1.0 - alpha).clamp(min=0.5**_BISECTIONS)
        late = torch.nextafter(t, torch.ones_like(t))
        return torch.where(self.alpha(t) <= alpha, t, late)  # 1 − (1 − α) may round to more than α


@dataclass(frozen=True)
class Cosine(Schedule):
    """α(t) = 1 − cos(π/2 · (1 − t)) (MD4, arXiv:2406.04329, table 1)."""

    def alpha(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """α(t) = 1 − sin(π/2 · t): the same curve, but exactly 1 at t = 0 and 0 at t = 1 in floating point."""
        return 1.0 - torch.sin(0.5 * math.pi * t)


@dataclass(frozen=True)
class Polynomial(Schedule):
    """α(t) = 1 − t^w (MD4, arXiv:2406.04329, table 1). `power` w > 0."""

    power: float

    def alpha(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """α(t) = 1 − t^w."""
        return 1.0 - t**self.power


@dataclass(frozen=True)
class LogLinear(Schedule):
    """α(t) = 1 − (1 − ε)·t, the log-linear total noise −log α of SEDD (arXiv:2310.16834, appendix C).

    A share ε of signal is left at t = 1, so the bound has a prior term that is not zero. `epsilon` in (0, 1).
    """

    epsilon: float

    def alpha(self, t: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """α(t) = 1 − (1 − ε)·t."""
        return 1.0 - (1.0 - self.epsilon) * t


def stratified(u: Float[Tensor, "*B G"]) -> Float[Tensor, "*B G"]:
    """One time in each of G equal strata of [0, 1): t_k = (k + u_k) / G along the last axis, u uniform in [0, 1).

    Every t_k is uniform over its stratum, so means over the batch are unbiased with less variance than free draws
    (VDM, arXiv:2107.00630, appendix I.1).
    """
    n = u.shape[-1]
    return (torch.arange(n, device=u.device, dtype=u.dtype) + u) / n


def batch_times(generator: torch.Generator, batch: Batch, *, t_min: float, t_max: float = 1.0) -> Float[Tensor, "B"]:
    """Times in [t_min, t_max), stratified over the global batch of a step, one for each example here."""
    device = generator.device
    everyone = torch.rand(batch.global_size, generator=generator, device=device, dtype=widest_float(device))
    return t_min + (t_max - t_min) * stratified(everyone)[batch.rows]


def time_grid(steps: int, *, start: float = 1.0, end: float = 0.0) -> list[float]:
    """`steps` + 1 equally spaced times from `start` down to `end`, both included.

    Raises:
        ValueError: when `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps} was given; a sampler needs at least 1 step")
    return [start + (end - start) * k / steps for k in range(steps)] + [end]


def smooth_time_grid(steps: int) -> list[float]:
    """`steps` + 1 times from 1 down to 0, denser at both ends: t = u² (3 − 2u) for equally spaced u.

    Hybrid noise moves fastest at both ends, where its share of uniform noise grows as √t.

    Raises:
        ValueError: when `steps` is below 1.
    """
    return [u * u * (3.0 - 2.0 * u) for u in time_grid(steps)]


def held_time_grid(steps: int, *, at: float, share: float) -> list[float]:
    """As `time_grid` from 1 to 0, but a share of the steps stands still at one time, for samplers that remask there.

    Args:
        steps: at least 1, the held ones included.
        at: the time to stand at, in (0, 1); it is reached exactly.
        share: of the steps that are held, in [0, 1]; rounded so that one step before and one after are left.

    Returns:
        `steps` + 1 non-increasing times.

    Raises:
        ValueError: when a number is out of range, or fewer than 2 steps are asked for.
    """
    if steps < 2:
        raise ValueError(f"steps: {steps} was given; a grid that stands still needs at least 2 steps")
    if not 0 < at < 1:
        raise ValueError(f"at: {at} was given; it must lie above 0 and below 1")
    if not 0 <= share <= 1:
        raise ValueError(f"share: {share} was given; it must lie in [0, 1]")
    held = min(round(share * steps), steps - 2)
    before = min(max(round((1.0 - at) * (steps - held)), 1), steps - held - 1)
    return time_grid(before, end=at) + [at] * held + time_grid(steps - held - before, start=at)[1:]
