"""Schedules, stratified times and time grids."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from doubles import CURVES, full_batch
from exact import SCHEDULES
from remask.schedules import (
    Linear,
    Polynomial,
    Schedule,
    batch_times,
    held_time_grid,
    smooth_time_grid,
    stratified,
    time_grid,
)

TIMES = torch.linspace(0.001, 0.999, 101, dtype=torch.float64)


@pytest.mark.parametrize("name", CURVES)
def test_alpha_is_the_papers_curve(name):
    np.testing.assert_allclose(CURVES[name].alpha(TIMES), SCHEDULES[name](TIMES.numpy()), atol=1e-15)


@pytest.mark.parametrize("name", CURVES)
def test_alpha_starts_clean_and_never_rises(name):
    alpha = CURVES[name].alpha(torch.linspace(0, 1, 1001, dtype=torch.float64))
    assert alpha[0] == 1
    assert (alpha.diff() <= 0).all()
    assert alpha.min() >= 0
    assert alpha[-1] == pytest.approx(0.1 if name == "log_linear" else 0.0, abs=1e-15)


@pytest.mark.parametrize("name", CURVES)
def test_slope_is_the_derivative_of_alpha(name):
    exact = SCHEDULES[name](TIMES.numpy() + 1e-30j).imag / 1e-30
    np.testing.assert_allclose(CURVES[name].slope(TIMES), exact, rtol=1e-12)


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_polynomial_has_the_power_that_was_asked_for(power):
    np.testing.assert_allclose(Polynomial(power).alpha(TIMES), 1 - TIMES**power)
    np.testing.assert_allclose(Polynomial(power).slope(TIMES), -power * TIMES ** (power - 1))


def test_slope_accepts_a_broadcast_view_of_times():
    view = torch.tensor([0.5], dtype=torch.float64).expand(3)
    assert Linear().slope(view).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("name", CURVES)
def test_time_undoes_alpha(name):
    torch.testing.assert_close(CURVES[name].time(CURVES[name].alpha(TIMES)), TIMES, atol=1e-12, rtol=0)
    assert CURVES[name].time(torch.ones(2, dtype=torch.float64)).tolist() == pytest.approx([0, 0], abs=1e-7)


def test_a_share_that_the_schedule_never_falls_to_is_reached_at_the_end():
    assert CURVES["log_linear"].time(torch.tensor([0.05, 0.0], dtype=torch.float64)).tolist() == [1, 1]
    assert CURVES["linear"].time(torch.zeros(1, dtype=torch.float64)).tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_closed_form_of_linear_times_is_what_bisection_finds(dtype):
    generator = torch.Generator().manual_seed(3)
    edges = torch.tensor([0.0, 1e-300, 1e-9, 0.5, 1.0 - 1e-12, 1.0], dtype=dtype)
    alpha = torch.cat([edges, torch.rand(2000, generator=generator, dtype=dtype)])
    found, halved = Linear().time(alpha), Schedule.time(Linear(), alpha)
    assert (Linear().alpha(found) <= alpha).all()
    torch.testing.assert_close(found, halved, rtol=0, atol=torch.finfo(dtype).eps)
    assert found[5] == halved[5] > 0


@given(st.integers(1, 40), st.integers(0, 2**31))
def test_every_stratum_holds_one_time(count, seed):
    u = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    times = stratified(u)
    assert (times * count).floor().tolist() == list(range(count))
    torch.testing.assert_close(times * count - torch.arange(count), u, atol=1e-12, rtol=0)


def test_stratified_works_along_the_last_axis(generator):
    u = torch.rand(3, 8, generator=generator, dtype=torch.float64)
    for row, times in zip(u, stratified(u), strict=True):
        torch.testing.assert_close(times, stratified(row))


def test_batch_times_put_one_time_in_each_stratum_of_the_asked_interval(generator):
    times = batch_times(generator, full_batch(torch.zeros(10, 2, dtype=torch.int64)), t_min=0.2, t_max=0.7)
    assert times.dtype == torch.float64
    assert ((times - 0.2) / 0.05).floor().tolist() == list(range(10))


def test_batch_times_are_uniform_within_their_strata():
    batch = full_batch(torch.zeros(4, 1, dtype=torch.int64))
    draws = torch.stack([batch_times(torch.Generator().manual_seed(seed), batch, t_min=0.0) for seed in range(2000)])
    within = draws * 4 - torch.arange(4)
    # the mean of 2,000 uniform draws: 4.5 standard errors
    assert (within.mean(0) - 0.5).abs().max() < 4.5 * (1 / 12 / 2000) ** 0.5


def test_a_time_grid_has_both_ends_and_equal_steps():
    assert time_grid(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert time_grid(2, start=0.8, end=0.2) == pytest.approx([0.8, 0.5, 0.2])
    grid = time_grid(7)
    assert (grid[0], grid[-1]) == (1.0, 0.0)


@pytest.mark.parametrize("steps", [0, -3])
def test_a_time_grid_without_steps_is_refused(steps):
    with pytest.raises(ValueError, match=f"steps: {steps} was given; .* at least 1"):
        time_grid(steps)


@pytest.mark.parametrize("steps", [1, 2, 5, 100])
def test_a_smooth_grid_is_dense_at_both_ends(steps):
    grid = smooth_time_grid(steps)
    assert len(grid) == steps + 1
    assert (grid[0], grid[-1]) == (1.0, 0.0)
    gaps = -np.diff(grid)
    assert (gaps > 0).all()
    np.testing.assert_allclose(gaps, gaps[::-1], atol=1e-12)
    assert gaps.argmax() == pytest.approx((steps - 1) / 2, abs=0.5)


@pytest.mark.parametrize(("steps", "at", "share"), [(2, 0.5, 0.9), (10, 0.3, 0.5), (7, 0.01, 1.0), (50, 0.99, 0.0)])
def test_a_held_grid_stands_still_for_its_share_of_the_steps(steps, at, share):
    grid = held_time_grid(steps, at=at, share=share)
    assert len(grid) == steps + 1
    assert (grid[0], grid[-1]) == (1.0, 0.0)
    assert at in grid
    gaps = -np.diff(grid)
    assert (gaps >= 0).all()
    assert (gaps == 0).sum() == min(round(share * steps), steps - 2)


def test_a_held_grid_by_hand():
    assert held_time_grid(7, at=0.5, share=0.4) == [1.0, 0.75, 0.5, 0.5, 0.5, 0.5, 0.25, 0.0]


@pytest.mark.parametrize(
    ("steps", "at", "share", "message"),
    [(1, 0.5, 0.5, "steps: 1"), (9, 0.0, 0.5, "at: 0.0"), (9, 1.0, 0.5, "at: 1.0"), (9, 0.5, 1.5, "share: 1.5")],
)
def test_a_held_grid_out_of_range_is_refused(steps, at, share, message):
    with pytest.raises(ValueError, match=f"^{message} was given"):
        held_time_grid(steps, at=at, share=share)
