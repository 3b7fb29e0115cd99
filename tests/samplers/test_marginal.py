"""The exact likelihood under a random order, against all orders one by one."""

import itertools

import numpy as np
import pytest
import torch

from doubles import Constant, Posterior, Table, make_noise, make_process
from exact import all_sequences, random_joint, random_order_law
from remask.orders import FixedOrder
from remask.samplers import Bijection, subset_nats

CLEAN, MASK = [0, 2, 3], 1
TEXTS = all_sequences(CLEAN, 4)
X = torch.from_numpy(TEXTS)
FREE = torch.ones_like(X, dtype=torch.bool)


def table(length: int = 4) -> Table:
    return Table(make_process("masking", "linear"), length, seed=3, scale=1.5)


def mean_over_orders(model: Table, x: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """−log of the mean of the chain's probability over every order of a row's places."""
    length = x.shape[1]
    chains = []
    for ranks in itertools.permutations(range(length)):
        order = FixedOrder(lambda size, device, ranks=ranks: torch.tensor(ranks, device=device))
        chains.append(Bijection(model=model, order=order, steps=length).nats(x, free).sum(-1))
    return -torch.stack(chains).neg().exp().mean(0).log()


def test_the_sum_over_subsets_is_the_mean_over_all_orders():
    model, some = table(), slice(0, 81, 20)
    nats = subset_nats(model, X[some], FREE[some])
    torch.testing.assert_close(nats, mean_over_orders(model, X[some], FREE[some]), rtol=0, atol=1e-12)


def test_its_probabilities_sum_to_one():
    assert float(subset_nats(table(), X, FREE).neg().exp().sum()) == pytest.approx(1, abs=1e-10)


def test_it_is_the_recursion_as_it_is_defined():
    model = Table(make_process("masking", "linear"), 3, seed=4)
    model.drift.zero_()  # the reference asks without a time
    texts = all_sequences(CLEAN, 3)
    expected = random_order_law(lambda z: model.probabilities(z, 0.5), MASK, texts)
    nats = subset_nats(model, torch.from_numpy(texts), torch.ones(texts.shape, dtype=torch.bool))
    np.testing.assert_allclose(nats.neg().exp().numpy(), expected, atol=1e-12)


def test_rows_with_unlike_given_tokens_are_each_summed_over_their_own_places():
    model = table()
    free = torch.tensor([[True, False, True, False], [False] * 4, [True] * 4, [False, False, False, True]])
    together = subset_nats(model, X[[5, 5, 5, 5]], free)
    alone = torch.cat([subset_nats(model, X[[5]], free[row : row + 1]) for row in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert together[1] == 0
    torch.testing.assert_close(together[2:3], mean_over_orders(model, X[[5]], FREE[:1]), rtol=0, atol=1e-12)


def test_under_the_true_posterior_every_order_gives_the_data_s_probability():
    noise = make_noise("masking", "linear")
    joint = random_joint(noise, 3, seed=3)
    model = Posterior(make_process("masking", "linear"), noise, joint)
    nats = subset_nats(model, torch.from_numpy(joint.texts), torch.ones(joint.texts.shape, dtype=torch.bool))
    np.testing.assert_allclose(nats.numpy(), -np.log(joint.p), atol=1e-10)


def test_it_takes_a_call_for_every_proper_subset_and_refuses_long_rows():
    model = Constant(make_process("masking", "linear"))
    nats = subset_nats(model, torch.zeros(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.bool))
    assert model.calls == 2**5 - 1
    torch.testing.assert_close(nats, 5 * torch.full((2,), 3.0, dtype=torch.float64).log(), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="a row has 13 free places; the sum over subsets is for 12 at most"):
        subset_nats(model, torch.zeros(1, 13, dtype=torch.int64), torch.ones(1, 13, dtype=torch.bool))
