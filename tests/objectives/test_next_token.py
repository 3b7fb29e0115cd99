"""The autoregressive objective: exact, normalised and blind to padding."""

import numpy as np
import pytest
import torch

from doubles import LeftToRight, full_batch, make_process
from exact import all_sequences
from remask.data.batch import Batch
from remask.objectives import NextToken
from remask.randomness import keyed_generator

OBJECTIVE = NextToken(mask_id=1)
NETWORK = LeftToRight(make_process("masking", "linear"), seed=3)


def nats(texts) -> torch.Tensor:
    return OBJECTIVE.likelihood_terms(NETWORK, full_batch(texts), generator=keyed_generator(1), draws=1)["next_token"]


@pytest.mark.parametrize("length", [1, 2, 4])
def test_probabilities_of_all_texts_sum_to_one(length):
    texts = all_sequences([0, 2, 3], length)
    assert float((-nats(texts).sum(-1)).exp().sum()) == pytest.approx(1, abs=1e-10)


def test_it_is_the_chain_rule_over_the_networks_distributions():
    text = [3, 0, 2]
    expected = 0.0
    for i in range(3):
        logits = NETWORK.predict(torch.tensor([text]), torch.zeros(1))[0, i].numpy()
        p = np.exp(logits) * np.array([1, 0, 1, 1])
        expected -= np.log(p[text[i]] / p.sum())
    assert float(nats([text]).sum()) == pytest.approx(expected)
    assert OBJECTIVE.exact


def test_the_training_loss_is_the_likelihood_and_draws_nothing():
    batch = full_batch([[3, 0, 2], [2, 2, 0]])
    generator = keyed_generator(1)
    before = generator.get_state()
    loss = OBJECTIVE(NETWORK, batch, generator=generator)
    torch.testing.assert_close(loss.nats, nats(batch.ids))
    assert torch.equal(before, generator.get_state())
    assert float(loss.terms["next_token"]) == pytest.approx(float(loss.nats.sum()))


def test_padding_costs_nothing_and_weighs_nothing():
    wide = Batch(
        ids=torch.tensor([[3, 0, 2, 0, 0]]),
        segments=torch.tensor([[1, 1, 1, 0, 0]]),
        targets=torch.tensor([[True, True, True, False, False]]),
        byte_lengths=torch.tensor([[1, 1, 1, 0, 0]]),
        rows=torch.tensor([0]),
        global_size=1,
    )
    loss = OBJECTIVE(NETWORK, wide, generator=keyed_generator(1))
    torch.testing.assert_close(loss.nats[:, :3], nats([[3, 0, 2]]))
    assert loss.nats[:, 3:].tolist() == [[0, 0]]
    assert loss.weight.tolist() == [[1, 1, 1, 0, 0]]


def test_a_constant_predictor_gets_exactly_log_v():
    class Flat(LeftToRight):
        def predict(self, z, t):
            return torch.zeros(*z.shape, 4, dtype=torch.float64)

    flat = Flat(NETWORK.process, seed=0)
    terms = OBJECTIVE.likelihood_terms(flat, full_batch([[3, 0, 2]]), generator=keyed_generator(1), draws=1)
    np.testing.assert_allclose(terms["next_token"], np.log(3))
