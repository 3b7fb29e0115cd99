"""Normalisation to root mean square 1."""

import pytest
import torch
from torch.nn import functional

from remask.networks.normalisation import EPSILON, unit_rms
from remask.randomness import keyed_generator


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=keyed_generator(1), dtype=torch.float64)


def test_every_vector_gets_root_mean_square_one():
    rms = unit_rms(5.0 * draw(3, 4, 16)).square().mean(-1).sqrt()
    torch.testing.assert_close(rms, torch.ones(3, 4, dtype=torch.float64), atol=2 * EPSILON, rtol=0)


def test_it_is_torchs_rms_norm_but_for_the_place_of_epsilon():
    x = draw(7, 32)
    torch.testing.assert_close(unit_rms(x), functional.rms_norm(x, (32,), eps=0.0), atol=1e-5, rtol=1e-5)


def test_its_gradient_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(unit_rms, draw(3, 8).requires_grad_())


def test_a_zero_vector_gives_zeros_and_a_finite_gradient():
    x = torch.zeros(1, 4, requires_grad=True)
    y = unit_rms(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(1, 4))
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_normalised_in_float32(dtype):
    assert unit_rms(draw(2, 8).to(dtype)).dtype == torch.float32
