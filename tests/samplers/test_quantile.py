"""The quantile coupling layer: both directions, edges of shares, and its log-determinant."""

import pytest
import torch
from scipy import stats

from remask.randomness import keyed_generator
from remask.samplers import quantile
from remask.samplers.quantile import BELOW_ONE, draw, place


def uniform(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=keyed_generator(seed), dtype=torch.float64)


def laws(rows: int, size: int, *, seed: int = 1, scale: float = 3.0) -> torch.Tensor:
    """Sharp random distributions."""
    normal = torch.randn(rows, size, generator=keyed_generator(seed, "laws"), dtype=torch.float64)
    return (scale * normal).softmax(-1)


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_shares_lie_side_by_side_by_hand():
    p = numbers(0.5, 0.0, 0.3, 0.2).expand(6, 4)
    x, w = draw(p, numbers(0.0, 0.25, 0.5, 0.65, 0.8, 0.9))
    assert x.tolist() == [0, 0, 2, 2, 3, 3]
    torch.testing.assert_close(w, numbers(0.0, 0.5, 0.0, 0.5, 0.0, 0.5), rtol=0, atol=1e-15)
    torch.testing.assert_close(place(p, x, w), numbers(0.0, 0.25, 0.5, 0.65, 0.8, 0.9), rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [2, 5, 1000])
def test_both_directions_undo_each_other(size):
    p, u = laws(2000, size), uniform(2000)
    x, w = draw(p, u)
    torch.testing.assert_close(place(p, x, w), u, rtol=0, atol=1e-15)
    tokens = torch.randint(size, (2000,), generator=keyed_generator(2))
    token, within = draw(p, place(p, tokens, u))
    assert torch.equal(token, tokens)
    error = (within - u).abs() * p.gather(-1, tokens[:, None]).squeeze(-1)  # u has 53 bits, whatever the share's width
    assert float(error.max()) < 1e-15


@pytest.mark.parametrize("w", [0.0, 0.5, BELOW_ONE])
def test_the_ends_of_a_share_belong_to_it(w):
    p = laws(500, 50)
    tokens = torch.arange(500) % 50
    assert torch.equal(draw(p, place(p, tokens, torch.full((500,), w, dtype=torch.float64)))[0], tokens)


def test_a_token_without_probability_is_never_drawn():
    p = laws(400, 40)
    p[:, ::3] = 0.0
    edges = place(p / p.sum(-1, keepdim=True), torch.arange(400) % 40, torch.zeros(400, dtype=torch.float64))
    for u in (edges, numbers(0.0).expand(400), numbers(BELOW_ONE).expand(400), numbers(1.0).expand(400)):
        x, _ = draw(p, u)
        assert bool((p.gather(-1, x[:, None]) > 0).all())


def test_weights_that_do_not_sum_to_one_are_scaled():
    p, u = laws(300, 7), uniform(300)
    for scaled in (3.0 * p, p * (1 - 1e-7)):
        x, w = draw(scaled, u)
        assert torch.equal(x, draw(p, u)[0])
        torch.testing.assert_close(place(scaled, x, w), u, rtol=0, atol=1e-15)


def test_a_share_narrower_than_the_numbers_there_gives_its_edge_and_no_error():
    p = numbers(0.5, 1e-30, 0.5)[None]
    u = place(p, torch.tensor([1]), numbers(0.5))
    assert u.tolist() == [0.5]
    assert draw(p, u)[0].tolist() == [2]


def test_uniform_numbers_draw_the_law_and_leave_uniform_places():
    p = numbers(0.6, 0.05, 0.25, 0.1)
    x, w = draw(p.expand(20_000, 4), uniform(20_000))
    assert stats.chisquare(torch.bincount(x, minlength=4).numpy(), (20_000 * p).numpy()).pvalue > 1e-4
    for token in range(4):
        assert stats.kstest(w[x == token].numpy(), "uniform").pvalue > 1e-4


def test_the_log_determinant_of_the_jacobian_is_the_log_probability():
    p, w = laws(6, 5), uniform(6)
    x = torch.tensor([0, 1, 2, 3, 4, 0])
    jacobian = torch.autograd.functional.jacobian(lambda within: place(p, x, within), w)
    sign, log_determinant = torch.linalg.slogdet(jacobian)
    assert sign == 1
    expected = p.gather(-1, x[:, None]).log().sum()
    torch.testing.assert_close(log_determinant, expected, rtol=0, atol=1e-12)


def test_rows_that_are_cut_into_parts_give_the_same(monkeypatch):
    p, u = laws(50, 11), uniform(50)
    x, w = draw(p, u)
    back = place(p, x, w)
    monkeypatch.setattr(quantile, "NUMBERS_AT_ONCE", 30)
    assert torch.equal(draw(p, u)[0], x)
    assert torch.equal(draw(p, u)[1], w)
    assert torch.equal(place(p, x, w), back)
