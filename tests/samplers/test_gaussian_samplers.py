"""DDPM, DDIM and Heun on densities whose posterior mean is known in closed form."""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import pytest
import torch
from scipy import stats

import mixtures
from remask.gaussian import CosineNoise, GaussianProcess, LinearNoise, SquareRootNoise
from remask.samplers.gaussian import ddim, ddpm, heun
from remask.schedules import time_grid

SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "heun": heun}
COUNT = 1500
"""Draws; the variance of DDPM is short by 2 % at 250 steps, half of what so many draws could show."""


@dataclass(frozen=True)
class Knowing:
    """A denoiser that knows the posterior mean, or a multiple of it."""

    process: GaussianProcess
    mixture: mixtures.Mixture
    factor: float = 1.0

    def clean(self, z, t, *, before):
        del before
        return self.factor * self.mixture.posterior_mean(z, *self.process.coefficients(t))


def noisy(mixture, variance):
    """The law of √(1 − variance) x + √variance ε."""
    spreads = ((1 - variance) * mixture.spreads**2 + variance).sqrt()
    return mixtures.Mixture(mixture.weights, math.sqrt(1 - variance) * mixture.means, spreads)


def draw(sampler, model, *, steps, end=0.0, count=COUNT, seed=11, bend=1, on_step=None):
    generator = torch.Generator().manual_seed(seed)
    width = model.mixture.means.shape[1]
    start = model.process.draw_prior(count, width, generator=generator, dtype=torch.float64)
    watch = {} if on_step is None else {"on_step": on_step}
    times = [end + (t - end) ** bend / (1 - end) ** (bend - 1) for t in time_grid(steps, end=end)]
    return sampler(model, times, start=start, generator=generator, **watch)


def chance_of_moments(x, mixture):
    """p of a test that first and second moments are the mixture's, by the normal law of sample means (Wald)."""
    centred = x - mixture.mean()
    rows, columns = torch.tril_indices(x.shape[1], x.shape[1])
    features = torch.cat([centred, (centred[:, rows] * centred[:, columns])], -1)
    expected = torch.cat([torch.zeros(x.shape[1]), mixture.covariance()[rows, columns]])
    gap = features.mean(0) - expected
    spread = torch.cov(features.T) / len(x)
    return float(stats.chi2.sf(float(gap @ torch.linalg.solve(spread, gap)), len(gap)))


@pytest.mark.parametrize(("name", "steps"), [("ddpm", 250), ("ddim", 80), ("heun", 20)])
@pytest.mark.parametrize("process", [CosineNoise(), LinearNoise(), SquareRootNoise()], ids=lambda p: type(p).__name__)
def test_many_steps_reproduce_mean_and_covariance(name, steps, process):
    mixture = mixtures.three_clouds()
    bend = 2 if isinstance(process, SquareRootNoise) else 1  # its noise falls from 0.3 to 0.1 in the last of 120 steps
    x = draw(SAMPLERS[name], Knowing(process, mixture), steps=steps, bend=bend)
    left = 0.01 if isinstance(process, SquareRootNoise) else 0.0  # the variance of its noise at t = 0
    assert chance_of_moments(x, noisy(mixture, left)) > 1e-3


@pytest.mark.parametrize(("name", "steps"), [("ddpm", 250), ("ddim", 80), ("heun", 20)])
def test_a_wrong_denoiser_is_rejected(name, steps):
    mixture = mixtures.three_clouds()
    x = draw(SAMPLERS[name], Knowing(CosineNoise(), mixture, factor=0.95), steps=steps)
    assert chance_of_moments(x, mixture) < 1e-6


@pytest.mark.parametrize(("name", "steps"), [("ddpm", 120), ("ddim", 80), ("heun", 20)])
def test_draws_have_the_whole_law_of_a_mixture_on_a_line(name, steps):
    mixture = mixtures.two_humps()
    x = draw(SAMPLERS[name], Knowing(CosineNoise(), mixture), steps=steps)[:, 0].numpy()

    def cumulative(value):
        parts = zip(mixture.weights, mixture.means[:, 0], mixture.spreads, strict=True)
        return sum(float(w) * stats.norm.cdf(value, float(m), float(s)) for w, m, s in parts)

    assert stats.kstest(x, cumulative).pvalue > 1e-3


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_grid_that_ends_above_zero_leaves_the_noise_of_its_last_time(name):
    mixture, end = mixtures.two_humps(), 0.4
    x = draw(SAMPLERS[name], Knowing(CosineNoise(), mixture), steps=60, end=end)
    assert chance_of_moments(x, noisy(mixture, math.sin(math.pi * end / 2) ** 2)) > 1e-3


@cache
def end_of_the_flow(end):
    """Where the flow carries its start, by the rule of Richardson: an error of order 2 cancels between two grids."""
    model = Knowing(CosineNoise(), mixtures.two_humps())
    coarse, fine = (draw(heun, model, steps=steps, end=end, count=40) for steps in (80, 160))
    return (4 * fine - coarse) / 3


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2)])
@pytest.mark.parametrize("end", [0.1, 0.0])
def test_the_error_falls_with_the_order_of_the_method(name, order, end):
    model = Knowing(CosineNoise(), mixtures.two_humps())
    errors = []
    for steps in (16, 32, 64):
        reached = draw(SAMPLERS[name], model, steps=steps, end=end, count=40)
        errors.append(float((reached - end_of_the_flow(end)).abs().mean()))
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([order, order], abs=0.2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_gaussian_is_carried_from_the_prior_exactly_in_the_limit_of_one_point(name):
    """A target without spread: the estimate never changes, and one step lands on it."""
    values = ([1.0], [[0.7, -0.2]], [0.0])
    point = mixtures.Mixture(*(torch.tensor(value, dtype=torch.float64) for value in values))
    x = draw(SAMPLERS[name], Knowing(CosineNoise(), point), steps=1, count=3)
    torch.testing.assert_close(x, point.means.expand(3, 2), rtol=0, atol=1e-12)


@dataclass(frozen=True)
class Remembering(Knowing):
    """Notes what it was handed as its estimate before."""

    seen: list = None  # pyright: ignore[reportAssignmentType]

    def clean(self, z, t, *, before):
        self.seen.append(before)
        return super().clean(z, t, before=before)


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_estimate_is_handed_to_the_next_call(name):
    model, frames = Remembering(CosineNoise(), mixtures.two_humps(), seen=[]), []
    draw(SAMPLERS[name], model, steps=3, count=2, on_step=frames.append)
    assert model.seen[0] is None
    assert all(before is not None for before in model.seen[1:])
    assert len(model.seen) == (5 if name == "heun" else 3)
    assert [frame.step for frame in frames] == [0, 1, 2, 3]
    assert [frame.t for frame in frames] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert model.seen[-1] is not None


@pytest.mark.parametrize(("name", "draws"), [("ddpm", True), ("ddim", False), ("heun", False)])
def test_only_ddpm_draws_in_its_steps(name, draws):
    model, generator = Knowing(CosineNoise(), mixtures.two_humps()), torch.Generator().manual_seed(0)
    start = torch.zeros(2, 1, dtype=torch.float64)
    before = generator.get_state()
    SAMPLERS[name](model, time_grid(4), start=start, generator=generator)
    assert bool((generator.get_state() != before).any()) is draws
