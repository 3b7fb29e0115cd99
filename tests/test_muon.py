"""Muon against torch's own, and against its equation in float64."""

import pytest
import torch
from torch import nn

from remask.muon import Muon, nearly_orthogonal

SHAPES = [(6, 6), (12, 5), (5, 12)]
USUAL = {"coefficients": (3.4445, -4.775, 2.0315), "steps": 5, "eps": 1e-7}


def gradients(shape: tuple[int, int], *, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def trained(optimizer: type[torch.optim.Optimizer], shape: tuple[int, int]) -> torch.Tensor:
    """A matrix after four steps with the same gradients."""
    start, *rest = gradients(shape, count=5)
    matrix = nn.Parameter(start.clone())
    moving = optimizer([matrix], lr=0.1, weight_decay=0.2, momentum=0.9)  # pyright: ignore[reportCallIssue]
    for gradient in rest:
        matrix.grad = gradient.clone()
        moving.step()
    return matrix.detach()


@pytest.mark.parametrize("shape", SHAPES)
def test_four_steps_lead_where_those_of_torch_lead_but_for_its_rounding_to_bfloat16(shape: tuple[int, int]) -> None:
    """Torch's own products carry three digits: 0.02 of the steps' 0.1 to 0.2 each."""
    start = gradients(shape, count=1)[0]
    ours, theirs = trained(Muon, shape), trained(torch.optim.Muon, shape)
    assert (ours - start).abs().mean() > 0.05, "the steps moved the matrix"
    torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_step_on_a_cpu_is_its_equation_to_float32(shape: tuple[int, int]) -> None:
    """Written out in float64: momentum, Newton-Schulz, decay and the rate of a tall matrix."""
    matrix = gradients(shape, count=1)[0].double()
    momentum = torch.zeros_like(matrix)
    for gradient in gradients(shape, count=5)[1:]:
        momentum = 0.9 * momentum + 0.1 * gradient.double()
        x = 0.1 * gradient.double() + 0.9 * momentum
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
        matrix = matrix * (1 - 0.1 * 0.2) - 0.1 * max(1.0, shape[0] / shape[1]) ** 0.5 * x
    torch.testing.assert_close(trained(Muon, shape).double(), matrix, atol=2e-5, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_one_and_singular_vectors_stay(shape: tuple[int, int]) -> None:
    """Five steps lift all but the smallest to within a third of 1, and those towards it: ratios shrink."""
    matrix = gradients(shape, count=1)[0]
    result = nearly_orthogonal(matrix, **USUAL)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ result @ right.T
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-4, rtol=0)
    assert inner.diagonal().max() < 1.35
    assert inner.diagonal()[values > 0.1 * values.norm()].min() > 0.65
    assert inner.diagonal().max() / inner.diagonal().min() < 0.7 * values.max() / values.min()


def test_parameters_without_a_gradient_stay_where_they_are() -> None:
    """As torch's: no decay either."""
    matrix = nn.Parameter(torch.ones(3, 3))
    Muon([matrix], lr=0.1).step()
    assert torch.equal(matrix, torch.ones(3, 3))
