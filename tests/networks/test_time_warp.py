"""Training times that follow the loss."""

import pytest
import torch

from remask.networks.thought.warping import RANGES, RATE, SHARE, TimeWarp

U = (torch.arange(20_000, device="cpu") + 0.5) / 20_000


def knowing(nats: list[float]) -> TimeWarp:
    warp = TimeWarp()
    warp.nats.data = torch.tensor(nats, device="cpu")
    return warp


def ranges_of(where: torch.Tensor) -> torch.Tensor:
    return (where * RANGES).long().bincount(minlength=RANGES) / len(where)


def test_times_are_uniform_before_anything_is_known():
    warp = TimeWarp()
    warp.initialise()
    assert torch.allclose(warp(U), U, atol=1e-6)


def test_times_fall_into_each_range_as_often_as_the_loss_rises_there():
    warp = knowing([0.0] * 10 + [1.0] * 5 + [4.0] * 5)
    shares = ranges_of(warp(U))
    even = SHARE / RANGES
    assert shares[10] == pytest.approx(even + (1 - SHARE) / 4, abs=1e-3)
    assert shares[15] == pytest.approx(even + (1 - SHARE) * 3 / 4, abs=1e-3)
    assert shares[3] == pytest.approx(even, abs=1e-3)


def test_a_loss_that_falls_with_noise_is_taken_for_level():
    assert torch.equal(knowing([1.0] * 5 + [0.2] * 15).probabilities(), knowing([1.0] * 20).probabilities())


def test_times_rise_with_u_and_stay_below_one():
    where = knowing([0.1 * k**2 for k in range(RANGES)])(U)
    assert bool((where.diff() > -1e-6).all())
    assert 0 <= float(where[0]) < float(where[-1]) < 1


def test_the_mean_loss_of_each_range_is_found_from_sums_over_parts():
    """However a batch is cut up, and where a range is not seen it keeps what it knew."""
    warp, parted = knowing([1.0] * RANGES), knowing([1.0] * RANGES)
    loss, where = torch.tensor([1.0, 3.0, 5.0], device="cpu"), torch.tensor([0.01, 0.02, 0.99], device="cpu")
    whole = {name: float(value) for name, value in warp.terms(loss, where).items()}
    first, second = warp.terms(loss[:1], where[:1]), warp.terms(loss[1:], where[1:])
    warp.learn(whole)
    parted.learn({name: float(first[name] + second[name]) for name in first})
    assert torch.equal(warp.nats, parted.nats)
    assert float(warp.nats[0]) == pytest.approx(1 + RATE * (2 - 1)), "towards the mean of 1 and 3"
    assert float(warp.nats[-1]) == pytest.approx(1 + RATE * (5 - 1))
    assert bool((warp.nats[1:-1] == 1.0).all())
