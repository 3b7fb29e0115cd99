"""Margin and entropy unmasking: what they score, and whether their order leaves the law alone."""

import math

import numpy as np
import pytest
import torch

from doubles import Double, Posterior, make_noise, make_process
from exact import chi_squared, random_joint
from remask.randomness import keyed_generator
from remask.samplers import blank_prompt, confidence, entropy, margin
from remask.samplers.confidence import drawn_probability, negative_entropy, top_gap
from remask.schedules import time_grid

P = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.98, 0.0, 0.0, 0.02], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
DRAWN = torch.tensor([2, 0, 1])


def test_scores_by_hand():
    assert drawn_probability(P, DRAWN).tolist() == [0.2, 0.98, 0.25]
    assert top_gap(P, DRAWN).tolist() == pytest.approx([0.2, 0.96, 0])
    first = 0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2)
    assert negative_entropy(P, DRAWN).tolist() == pytest.approx(
        [first, 0.98 * math.log(0.98) + 0.02 * math.log(0.02), -math.log(4)], abs=1e-4
    )


class Split(Double):
    """Position 0 has the smaller entropy and the smaller gap; position 1 the larger of both."""

    def predict(self, z, t):
        p = torch.tensor([[0.5, 0.0, 0.5, 0.0], [0.6, 0.0, 0.2, 0.2]], dtype=torch.float64)
        return p.log().expand(len(z), 2, 4)


@pytest.mark.parametrize(("walk", "first"), [(margin, 1), (entropy, 0)])
def test_the_order_is_that_of_the_score(walk, first):
    frames = []
    model = Split(make_process("masking", "linear"))
    walk(model, time_grid(2), prompt=blank_prompt(50, 2), generator=keyed_generator(1), on_step=frames.append)
    assert (frames[1].z[:, first] != 1).all()
    assert (frames[1].z[:, 1 - first] == 1).all()


NOISE = make_noise("masking", "linear")
JOINT = random_joint(NOISE, 3, seed=7)


def p_value(walk, steps: int) -> float:
    model = Posterior(make_process("masking", "linear"), NOISE, JOINT)
    drawn = walk(model, time_grid(steps), prompt=blank_prompt(4000, 3), generator=keyed_generator(1)).numpy()
    return chi_squared(drawn, JOINT.texts, JOINT.p)


@pytest.mark.parametrize("walk", [margin, entropy])
def test_one_token_a_step_is_exact_when_the_order_does_not_see_the_draws(walk):
    assert p_value(walk, 3) > 1e-4


@pytest.mark.parametrize("walk", [margin, entropy])
def test_two_tokens_a_step_are_not_exact(walk):
    assert p_value(walk, 2) < 1e-4


def test_an_order_that_sees_the_draws_is_not_exact():
    """Confidence keeps likely draws: the law is sharper than the data, one token a step or not."""
    assert p_value(confidence, 3) < 1e-4
    model = Posterior(make_process("masking", "linear"), NOISE, JOINT)
    drawn = confidence(model, time_grid(3), prompt=blank_prompt(4000, 3), generator=keyed_generator(1)).numpy()
    place = {tuple(text): k for k, text in enumerate(JOINT.texts)}
    likelihood = np.array([JOINT.p[place[tuple(text)]] for text in drawn])
    assert -np.log(likelihood).mean() < JOINT.entropy - 0.1
