"""Losses, the likelihood bound and skills of Gaussian diffusion, on densities whose posterior mean is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import mixtures
from remask.data.batch import Batch
from remask.gaussian import CLEAN, NOISE, VELOCITY, CosineNoise, LinearNoise, SquareRootNoise
from remask.objectives.gaussian import (
    LatentDiffusion,
    SkillByTime,
    bound_weight,
    min_snr,
    own_error,
    towards_noise,
)

PREDICTIONS = {"clean": CLEAN, "noise": NOISE, "velocity": VELOCITY}


def diffusion(process=None, prediction=VELOCITY, weighting=None, t_min=0.05):
    return LatentDiffusion(
        process=process or CosineNoise(),
        prediction=prediction,
        weighting=weighting or own_error(prediction),
        t_min=t_min,
    )


@pytest.mark.parametrize("t_min", [0.0, 0.9999999, 1.0])
def test_times_that_run_backwards_are_refused_since_their_bound_would_be_negative(t_min) -> None:
    with pytest.raises(ValueError, match="give a time above 0 and below 0"):
        diffusion(prediction=NOISE, t_min=t_min)


def said_by(setup, mixture, *, wrong=1.0):
    """What a network would say that knows the posterior mean, or a multiple of it."""

    def denoise(z, t):
        alpha, sigma = setup.process.coefficients(t)
        clean = wrong * mixture.posterior_mean(z, alpha, sigma)
        return setup.prediction.target(setup.process, clean, t, noise=setup.process.noise_of_clean(z, clean, t))

    return denoise


def hermite(count):
    """Nodes and weights of E over a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return torch.tensor(nodes), torch.tensor(weights / math.sqrt(2 * math.pi))


def bound_of(setup, mixture, x, *, wrong=1.0, cells=3000, nodes=24):
    """prior + diffusion + E[−log p(x | z_t0)] at one point x [1 1], by quadrature over times and noise."""
    (eps, weight), denoise = hermite(nodes), said_by(setup, mixture, wrong=wrong)
    t = setup.spread((torch.arange(cells, dtype=torch.float64) + 0.5) / cells)
    rows, noise = x.expand(cells * nodes, 1), eps.repeat(cells)[:, None]
    terms = setup.diffusion(denoise, rows, t=t.repeat_interleave(nodes), noise=noise)
    integral = (terms.view(cells, nodes) @ weight).mean()
    alpha, sigma = (float(v) for v in setup.process.coefficients(torch.tensor(setup.t_min, dtype=torch.float64)))
    z = alpha * x + sigma * eps[:, None]
    left = -(mixture.posterior_log_density(x.expand(nodes, 1), z, alpha, sigma) @ weight)
    return float(setup.prior(x).sum() + integral + left)


@pytest.mark.parametrize("process", [CosineNoise(), LinearNoise(), SquareRootNoise()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
def test_the_bound_of_the_true_denoiser_is_the_density_of_a_gaussian(process, prediction):
    """What is left is the mismatch of q_1 and the prior: none for cosine and square root, 1e-4 nats for linear."""
    values = ([1.0], [[0.4]], [0.7])
    target = mixtures.Mixture(*(torch.tensor(value, dtype=torch.float64) for value in values))
    x = torch.tensor([[1.1]], dtype=torch.float64)
    bound = bound_of(diffusion(process, prediction), target, x)
    assert bound == pytest.approx(-float(target.log_density(x)), abs=2e-4)


@pytest.mark.parametrize("place", [-1.2, -0.3, 0.9])
def test_the_bound_of_the_true_denoiser_is_the_density_of_a_mixture(place):
    target, x = mixtures.two_humps(), torch.tensor([[place]], dtype=torch.float64)
    bound = bound_of(diffusion(), target, x)
    assert bound == pytest.approx(-float(target.log_density(x)), abs=1e-3)


def test_a_wrong_denoiser_has_a_bound_above_the_density():
    """In the mean over x, here the mixture's own: by half the integral of the squared error, far from rounding."""
    target, (eps, weight) = mixtures.two_humps(), hermite(12)
    points = torch.cat([m + s * eps for m, s in zip(target.means[:, 0], target.spreads, strict=True)])
    chance = torch.cat([w * weight for w in target.weights])
    gap = 0.0
    for place, share in zip(points, chance, strict=True):
        x = place.view(1, 1)
        right, wrong = (bound_of(diffusion(), target, x, wrong=factor, cells=150) for factor in (1.0, 0.9))
        gap += float(share) * (wrong - right)
    assert gap > 0.1


def test_one_draw_of_the_bound_is_the_integrand_at_its_time(generator):
    setup = diffusion(prediction=CLEAN, t_min=0.2)
    x, noise = (torch.randn(4, 2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    found = setup.diffusion(lambda z, t: torch.zeros_like(z), x, t=t, noise=noise)
    slope = math.pi / torch.tan(math.pi * t / 2) / torch.sin(math.pi * t / 2) ** 2  # −d cot²(πt/2)/dt
    torch.testing.assert_close(found, 0.8 * 0.5 * slope[:, None, None] * x**2, rtol=1e-10, atol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
@pytest.mark.parametrize("weighting", [bound_weight, min_snr(5.0), lambda process, t: torch.ones_like(t)])
def test_a_weighted_loss_is_the_same_whatever_the_network_speaks_of(prediction, weighting, generator):
    target = mixtures.three_clouds()
    x, noise = (torch.randn(6, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    setup = diffusion(prediction=prediction, weighting=weighting)
    loss, told = setup.training_loss(said_by(setup, target), x, t=t, noise=noise)
    error = setup.clean(said_by(setup, target), x, t=t, noise=noise) - x
    torch.testing.assert_close(loss, weighting(setup.process, t)[:, None] * error**2, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(told, error, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("prediction", PREDICTIONS.values(), ids=PREDICTIONS)
def test_a_networks_own_error_is_the_plain_squared_error_of_what_it_says(prediction, generator):
    x, noise, said = (torch.randn(6, 2, generator=generator, dtype=torch.float64) for _ in range(3))
    t = torch.linspace(0.1, 1.0, 6, dtype=torch.float64)
    setup = diffusion(prediction=prediction)
    loss, _ = setup.training_loss(lambda z, t: said, x, t=t, noise=noise)
    target = prediction.target(setup.process, x, t, noise=noise)
    torch.testing.assert_close(loss, (said - target) ** 2, rtol=1e-10, atol=1e-12)


def test_min_snr_weighs_like_the_noise_until_the_bound_and_refuses_none():
    process, t = CosineNoise(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    assert min_snr(5.0)(process, t).tolist() == pytest.approx([5.0, 1.0, math.tan(math.pi / 20) ** 2])
    with pytest.raises(ValueError, match="gamma: 0"):
        min_snr(0)


def rows(global_size, here):
    ids = torch.zeros(len(here), 2, dtype=torch.int64)
    return Batch(
        ids=ids,
        segments=ids + 1,
        targets=ids == 0,
        byte_lengths=ids,
        rows=torch.tensor(here),
        global_size=global_size,
    )


def test_training_times_are_stratified_and_do_not_depend_on_the_number_of_processes():
    setup = diffusion(t_min=0.2)
    whole = setup.times(torch.Generator().manual_seed(3), rows(8, range(8)))
    part = setup.times(torch.Generator().manual_seed(3), rows(8, [5, 2]))
    assert part.tolist() == whole[[5, 2]].tolist()
    assert ((whole - 0.2) / 0.8 * 8).long().tolist() == list(range(8))


def test_times_warped_towards_noise_lie_later_and_within_the_range():
    setup = replace(diffusion(t_min=0.2), warp=towards_noise(0.3))
    t = setup.times(torch.Generator().manual_seed(3), rows(64, range(64)))
    assert bool(((t >= 0.2) & (t <= 1)).all())
    assert float(t.mean()) == pytest.approx(0.2 + 0.8 / 1.3, abs=0.01)
    with pytest.raises(ValueError, match="exponent: 0"):
        towards_noise(0)


@pytest.mark.parametrize("process", [CosineNoise(), LinearNoise()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("variance", [0.5, 2.0])
def test_a_linear_filter_costs_what_a_gaussian_channel_carries(process, variance):
    """The bound for the error of Wiener, by quadrature, against the closed form; and the loss by its mean."""
    setup = diffusion(process, t_min=0.2)
    t = 0.2 + 0.8 * (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    floor = CLEAN.linear_floor(process, t, variance=variance)
    integral = 0.8 * float((bound_weight(process, t) * floor).mean())
    assert setup.linear_rate(variance=variance) == pytest.approx(integral, rel=1e-6)
    own = VELOCITY.linear_floor(process, t, variance=variance)
    assert setup.linear_loss(variance=variance) == pytest.approx(float(own.mean()), rel=1e-5)


# ── skill ──────────────────────────────────────────────────────────────────────────────────────────────────────


def skills(clean_of, *, variance=1.0, count=4000):
    """Figures of a denoiser (z, t) → x̂ on Gaussian vectors."""
    setup, generator = diffusion(prediction=CLEAN), torch.Generator().manual_seed(7)
    x, noise = (torch.randn(count, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    x = x * math.sqrt(variance)
    t = setup.times(generator, rows(count, range(count)))
    error = setup.clean(clean_of, x, t=t, noise=noise) - x
    watch = SkillByTime(diffusion=setup, variance=variance)
    return watch.figures({name: float(value) for name, value in watch.terms(error, t).items()})


def wiener(z, t, *, variance=1.0):
    alpha, sigma = CosineNoise().coefficients(t)
    return (alpha * variance / (alpha**2 * variance + sigma**2))[:, None] * z


@pytest.mark.parametrize("variance", [0.5, 1.0])
def test_the_best_linear_filter_has_no_skill_at_any_time(variance):
    figures = skills(lambda z, t: wiener(z, t, variance=variance), variance=variance)
    assert [figures[f"skill_t{k}"] for k in range(5)] == pytest.approx([0.0] * 5, abs=0.04)


def test_who_knows_what_all_vectors_share_has_no_skill_over_a_filter_that_knows_it_too():
    setup, draw = diffusion(prediction=CLEAN), torch.Generator().manual_seed(8)
    noise = torch.randn(4000, 8, generator=draw, dtype=torch.float64)
    mean, variance = torch.linspace(-2, 2, 8).double(), torch.logspace(-3, 0, 8).double()
    x = mean + variance.sqrt() * torch.randn(4000, 8, generator=draw, dtype=torch.float64)
    t = setup.times(torch.Generator().manual_seed(7), rows(4000, range(4000)))

    def knowing(z, t):
        alpha, sigma = (each[:, None] for each in CosineNoise().coefficients(t))
        return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (z - alpha * mean)

    error = setup.clean(knowing, x, t=t, noise=noise) - x
    watch = SkillByTime(diffusion=setup)

    def found(**known):
        figures = watch.figures({name: float(value) for name, value in watch.terms(error, t, **known).items()})
        return [figures[f"skill_t{k}"] for k in range(5)]

    assert found(varying=x.var(0)) == pytest.approx([0.0] * 5, abs=0.04)
    assert min(found()) > 0.3  # the filter of white vectors around zero is no match


def test_who_says_zero_is_below_the_filter_and_by_as_much_as_is_said():
    figures = skills(lambda z, t: torch.zeros_like(z))
    for k in range(5):
        assert figures[f"skill_of_zero_t{k}"] < -0.02
        assert figures[f"skill_t{k}"] == pytest.approx(figures[f"skill_of_zero_t{k}"], rel=0.06, abs=0.06)


def test_one_bad_range_of_times_shows_however_good_the_others_are():
    def denoise(z, t):
        return torch.where(t[:, None] > 0.85, -3.0, 1.0) * wiener(z, t)

    figures = skills(denoise)
    assert figures["worst_skill"] == figures["skill_t4"] < -0.05
    assert figures["skill_t1"] == pytest.approx(0.0, abs=0.04)


def test_ranges_without_an_example_have_no_skill():
    watch = SkillByTime(diffusion=diffusion(), ranges=4)
    terms = watch.terms(torch.zeros(1, 3), torch.tensor([0.99], dtype=torch.float64))
    figures = watch.figures({name: float(value) for name, value in terms.items()})
    assert figures["worst_skill"] == figures["skill_t3"] == 1.0
    assert "skill_t0" not in figures
    assert watch.figures({}) == {}
