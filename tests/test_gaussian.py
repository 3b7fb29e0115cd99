"""What Gaussian noise does to vectors, and what is derived from its two coefficients."""

import math

import pytest
import torch

from remask.gaussian import CLEAN, NOISE, VELOCITY, CosineNoise, LinearNoise, SquareRootNoise

PROCESSES = [CosineNoise(), LinearNoise(), SquareRootNoise()]
every_process = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
every_prediction = pytest.mark.parametrize("prediction", [CLEAN, NOISE, VELOCITY], ids=["clean", "noise", "velocity"])


def times(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def grid(count: int = 50) -> torch.Tensor:
    return torch.linspace(0.01, 0.99, count, dtype=torch.float64)


@every_process
def test_a_process_preserves_variance_and_loses_the_signal(process):
    alpha, sigma = process.coefficients(torch.linspace(0, 1, 101, dtype=torch.float64))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-12)
    assert bool((alpha.diff() < 0).all())
    assert bool((sigma.diff() > 0).all())
    assert float(alpha[-1]) < 0.01
    assert float(alpha[0]) >= math.sqrt(0.99)


def test_linear_noise_is_the_integral_of_a_rising_rate():
    t = torch.linspace(0, 1, 20001, dtype=torch.float64)
    integral = torch.cumulative_trapezoid(0.1 + (20.0 - 0.1) * t, t)
    torch.testing.assert_close(LinearNoise().coefficients(t)[0][1:], (-0.5 * integral).exp(), rtol=0, atol=1e-8)


@every_process
def test_log_snr_and_its_slope_agree_with_the_coefficients(process):
    t, h = grid(), 1e-6
    alpha, sigma = process.coefficients(t)
    torch.testing.assert_close(process.log_snr(t).exp(), (alpha / sigma) ** 2, rtol=1e-10, atol=0)
    for curve, slope in ((process.log_snr, process.log_snr_slope), (process.snr, process.snr_slope)):
        difference = (curve(t + h) - curve(t - h)) / (2 * h)
        torch.testing.assert_close(slope(t), difference, rtol=1e-5, atol=1e-5)


@every_process
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clean_noise_and_velocity_turn_into_each_other_and_back(process, dtype, generator):
    t = torch.linspace(0.05, 0.85, 64, dtype=torch.float64)
    x, noise = (torch.randn(64, 3, 4, generator=generator, dtype=dtype) for _ in range(2))
    z = process.corrupt(x, t, noise=noise)
    tolerance = {"rtol": 0, "atol": 1e-6 if dtype == torch.float64 else 2e-5}
    velocity = process.velocity(x, t, noise=noise)
    torch.testing.assert_close(process.clean_of_velocity(z, velocity, t), x, **tolerance)
    torch.testing.assert_close(process.noise_of_clean(z, x, t), noise, **tolerance)
    torch.testing.assert_close(process.clean_of_noise(z, noise, t), x, **tolerance)


@every_process
@every_prediction
def test_what_a_network_is_asked_for_gives_the_clean_vectors_back(process, prediction, generator):
    t = grid(32)
    x, noise = (torch.randn(32, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    target = prediction.target(process, x, t, noise=noise)
    back = prediction.clean(process, process.corrupt(x, t, noise=noise), target, t)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-6)


@every_process
@every_prediction
def test_an_error_is_amplified_by_the_stated_factor(process, prediction, generator):
    t = grid(16)
    x, noise, off = (torch.randn(16, 5, generator=generator, dtype=torch.float64) for _ in range(3))
    z, target = process.corrupt(x, t, noise=noise), prediction.target(process, x, t, noise=noise)
    clean_error = prediction.clean(process, z, target + off, t) - x
    factor = off.square().sum(-1) / clean_error.square().sum(-1)
    torch.testing.assert_close(prediction.amplification(process, t), factor, rtol=1e-6, atol=0)


def test_velocity_stands_at_both_ends_where_the_others_divide_by_zero():
    process, t = CosineNoise(), times(0.0, 1.0)
    x, noise = torch.tensor([[2.0], [2.0]]).double(), torch.tensor([[-1.0], [-1.0]]).double()
    z, v = process.corrupt(x, t, noise=noise), process.velocity(x, t, noise=noise)
    torch.testing.assert_close(process.clean_of_velocity(z, v, t), x, rtol=0, atol=1e-12)


@every_process
def test_a_posterior_step_leads_from_one_marginal_to_the_earlier_one(process):
    """Σ over z_t of q(z_s | z_t, x) q(z_t | x) is q(z_s | x): mean and variance, for unit noise and any x."""
    t, s = times(0.9, 0.6, 0.3, 0.05), times(0.7, 0.1, 0.29, 0.01)
    x = torch.tensor([[1.7], [-0.4], [0.2], [3.0]], dtype=torch.float64)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = process.coefficients(t), process.coefficients(s)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    from_z = process.posterior(one, zero, t, s)[0]
    mean, spread = process.posterior(alpha_t[:, None] * x, x, t, s)
    torch.testing.assert_close(mean, alpha_s[:, None] * x, rtol=1e-10, atol=1e-12)
    variance = (from_z * sigma_t[:, None]).square() + spread.square()
    torch.testing.assert_close(variance, sigma_s[:, None].square(), rtol=1e-10, atol=1e-12)


@every_process
def test_the_last_signal_is_that_of_ddpm_and_no_prediction_but_the_noise_ends_there(process):
    last = process.t_max
    assert 0.99 < last <= 1.0
    assert float(process.snr(times(last))) == pytest.approx(4e-5, rel=0.1)
    assert [kind.latest(process) for kind in (CLEAN, VELOCITY, NOISE)] == [1.0, 1.0, last]
    left = process.prior_divergence(torch.ones(1, 1, dtype=torch.float64), at=last)
    assert float(left) < 3e-5, "nats that are lost where drawing begins with pure noise there"


@every_process
def test_the_divergence_from_the_prior_is_that_of_two_gaussians(process):
    x = torch.tensor([[0.0, 1.0, -2.0]], dtype=torch.float64)
    alpha, sigma = process.coefficients(times(1.0))
    here = torch.distributions.Normal(alpha * x, sigma)
    expected = torch.distributions.kl_divergence(here, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(process.prior_divergence(x), expected, rtol=1e-6, atol=1e-15)


@every_process
@every_prediction
@pytest.mark.parametrize("variance", [0.25, 1.0, 3.0])
def test_floors_are_what_regression_on_noisy_gaussians_leaves(process, prediction, variance):
    """Least squares of the target on z from second moments, against the closed forms."""
    t = grid(20)
    alpha, sigma = process.coefficients(t)
    clean, noise = {CLEAN: (1.0, 0.0), NOISE: (0.0, 1.0), VELOCITY: (-sigma, alpha)}[prediction]
    square = clean**2 * variance + noise**2 + 0 * t
    across = clean * alpha * variance + noise * sigma
    left = square - across**2 / (alpha**2 * variance + sigma**2)
    torch.testing.assert_close(prediction.linear_floor(process, t, variance=variance), left, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(prediction.mean_square(process, t, variance=variance), square, rtol=1e-12, atol=0)


def test_the_floors_of_the_design_hold_for_preserved_variance():
    process, t, s2 = CosineNoise(), grid(20), 0.7
    a = process.coefficients(t)[0] ** 2
    total = a * s2 + 1 - a
    for prediction, floor in ((NOISE, a * s2 / total), (CLEAN, s2 * (1 - a) / total), (VELOCITY, s2 / total)):
        torch.testing.assert_close(prediction.linear_floor(process, t, variance=s2), floor, rtol=1e-10, atol=0)
    assert prediction.mean_square(process, t, variance=s2).shape == t.shape
    torch.testing.assert_close(NOISE.mean_square(process, t, variance=s2), torch.ones_like(t))
