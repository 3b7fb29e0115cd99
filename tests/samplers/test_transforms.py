"""Temperature and nucleus against hand-computed distributions."""

import math

import pytest
import torch

from remask.samplers import identity, reshape_distribution

P = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]], dtype=torch.float64)


def reshaped(**shape) -> torch.Tensor:
    return reshape_distribution(**shape)(P.log()).softmax(-1)


def test_temperature_raises_probabilities_to_its_inverse():
    torch.testing.assert_close(reshaped(temperature=0.5), P**2 / (P**2).sum(-1, keepdim=True))
    torch.testing.assert_close(reshaped(temperature=2.0), P**0.5 / (P**0.5).sum(-1, keepdim=True))


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.2, 1), (0.5 - 1e-9, 1), (0.5 + 1e-9, 2), (0.79, 2), (0.81, 3), (0.96, 4), (1.0, 4)]
)
def test_a_nucleus_is_the_smallest_set_that_holds_its_share(top_p, kept):
    least = P[0].sort(descending=True)[0][kept - 1]
    expected = P * P.ge(least)
    torch.testing.assert_close(reshaped(top_p=top_p), expected / expected.sum(-1, keepdim=True))


def test_temperature_comes_before_the_nucleus():
    """At temperature 1/2 the likeliest token holds 0.685 of the mass, and is a nucleus of 0.6 by itself."""
    assert reshaped(temperature=0.5, top_p=0.6)[0].tolist() == [1, 0, 0, 0]
    assert (reshaped(top_p=0.6)[0] > 0).sum() == 2


def test_the_likeliest_token_always_stays():
    assert reshaped(top_p=1e-12)[:, [0, 3]].tolist() == [[1, 0], [0, 1]]


def test_impossible_tokens_stay_impossible():
    logits = torch.tensor([[0.0, -math.inf, 1.0, -math.inf]])
    for shape in ({"temperature": 0.3}, {"temperature": 50.0}, {"top_p": 0.99}):
        p = reshape_distribution(**shape)(logits).softmax(-1)
        assert p[0, [1, 3]].tolist() == [0, 0]
        assert p.isfinite().all()


def test_one_and_one_change_nothing():
    assert reshape_distribution() is identity
    assert identity(P) is P


@pytest.mark.parametrize(
    "shape",
    [
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"top_p": math.nan},
    ],
)
def test_values_out_of_range_are_refused_with_the_valid_range(shape):
    ((name, value),) = shape.items()
    with pytest.raises(ValueError, match=rf"^{name}: {value} was given; it must"):
        reshape_distribution(**shape)
