"""Left-to-right sampling against the exact likelihood of the same model."""

import numpy as np
import torch

from doubles import LeftToRight, full_batch, make_process
from exact import all_sequences, chi_squared
from remask.objectives import NextToken
from remask.randomness import keyed_generator
from remask.samplers import Prompt, blank_prompt, left_to_right

PROCESS = make_process("masking", "linear")
TEXTS = all_sequences([0, 2, 3], 3)


def likelihood(model) -> np.ndarray:
    nats = NextToken(mask_id=1).likelihood_terms(model, full_batch(TEXTS), generator=keyed_generator(0), draws=1)
    return (-nats["next_token"].sum(-1)).exp().numpy()


def test_it_draws_from_the_distribution_that_the_objective_scores():
    model = LeftToRight(PROCESS, seed=3)
    p = likelihood(model)
    assert abs(p.sum() - 1) < 1e-10
    drawn = left_to_right(model, prompt=blank_prompt(4000, 3), generator=keyed_generator(1)).numpy()
    assert chi_squared(drawn, TEXTS, p) > 1e-4
    assert chi_squared(drawn, TEXTS, likelihood(LeftToRight(PROCESS, seed=4))) < 1e-4


def test_a_prefix_is_a_condition():
    model = LeftToRight(PROCESS, seed=3)
    prompt = Prompt(
        ids=torch.tensor([[2, 0, 0]]).repeat(3000, 1), fixed=torch.tensor([[True, False, False]]).repeat(3000, 1)
    )
    drawn = left_to_right(model, prompt=prompt, generator=keyed_generator(1)).numpy()
    p = likelihood(model) * (TEXTS[:, 0] == 2)
    assert chi_squared(drawn, TEXTS, p / p.sum()) > 1e-4


def test_the_model_is_shown_no_token_to_the_right():
    class Watching(LeftToRight):
        def predict(self, z, t):
            assert (z[:, -1] == 1).all(), "the token to be drawn, or a later one, was shown"
            self.widths.append(z.shape[1])
            return super().predict(z, t)

    model = Watching(PROCESS, seed=3)
    model.widths = []
    left_to_right(model, prompt=blank_prompt(2, 4), generator=keyed_generator(1))
    assert model.widths == [1, 2, 3, 4]


def test_a_fixed_place_costs_no_network_call():
    model = LeftToRight(PROCESS, seed=3)
    prompt = Prompt(ids=torch.tensor([[2, 0, 3, 0]]), fixed=torch.tensor([[True, False, True, False]]))
    z = left_to_right(model, prompt=prompt, generator=keyed_generator(1))
    assert model.calls == 2
    assert z[0, [0, 2]].tolist() == [2, 3]
