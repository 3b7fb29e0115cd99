"""Guidance against the distribution that it names."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from doubles import KINDS, Double, Posterior, Table, make_noise, make_process
from exact import all_sequences, chi_squared, random_joint
from remask.randomness import keyed_generator
from remask.samplers import Guided, Prompt, ancestral, blank_prompt, confidence
from remask.schedules import time_grid

IDS = torch.tensor([[3, 0, 2, 0], [0, 2, 3, 3]])
FIXED = torch.tensor([[True, False, True, False], [False, True, False, False]])
PROMPT = Prompt(ids=IDS, fixed=FIXED)
Z = torch.tensor([[3, 1, 2, 0], [1, 2, 1, 1]])
T = torch.tensor([0.5, 0.5], dtype=torch.float64)


def model(kind: str = "masking") -> Table:
    return Table(make_process(kind, "linear"), 4, seed=1)


@pytest.mark.parametrize("positions", [Z == 1, torch.ones_like(FIXED), FIXED, torch.zeros_like(FIXED)])
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_logits_are_pushed_away_from_those_without_the_prompt(positions, scale):
    plain = model()
    guided = Guided(plain, prompt=PROMPT, scale=scale).logits(Z, T, positions=positions)
    with_prompt = plain.predict(Z, T)[positions]
    without = plain.predict(torch.where(FIXED, 1, Z), T)[positions]
    torch.testing.assert_close(guided, (1 + scale) * with_prompt - scale * without)


def test_the_network_is_called_once_on_both_versions():
    plain = model()
    Guided(plain, prompt=PROMPT, scale=1.0).logits(Z, T, positions=Z == 1)
    assert plain.calls == 1


@pytest.mark.parametrize(("prompt", "scale"), [(PROMPT, 0.0), (blank_prompt(2, 4), 2.0)])
def test_without_weight_or_without_a_prompt_nothing_changes(prompt, scale):
    seen = []

    class Watching(Table):
        def predict(self, z, t):
            seen.append(len(z))
            return super().predict(z, t)

    plain = Watching(make_process("masking", "linear"), 4, seed=1)
    guided = Guided(plain, prompt=prompt, scale=scale).logits(Z, T, positions=Z == 1)
    assert seen == [2]
    assert torch.equal(guided, plain.logits(Z, T, positions=Z == 1))


@pytest.mark.parametrize("walk", [ancestral, confidence])
def test_samplers_draw_the_same_tokens_with_weight_zero(walk):
    draw = partial(walk, times=time_grid(4), prompt=PROMPT)
    plain = draw(model(), generator=keyed_generator(1))
    assert torch.equal(plain, draw(Guided(model(), prompt=PROMPT, scale=0.0), generator=keyed_generator(1)))


def test_impossible_tokens_stay_impossible():
    class Certain(Double):
        def predict(self, z, t):
            logits = torch.full((*z.shape, 4), -torch.inf, dtype=torch.float64)
            logits[..., 2:] = 0.0
            return logits

    guided = Guided(Certain(make_process("masking", "linear")), prompt=PROMPT, scale=1.0)
    p = guided.logits(Z, T, positions=Z == 1).softmax(-1)
    assert p.tolist() == [[0, 0, 0.5, 0.5]] * int((Z == 1).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_one_free_token_has_the_law_p_given_prompt_over_p_to_the_weight(kind):
    """p(x | c)^(1 + w) / p(x)^w, normalised; the unguided law is rejected."""
    process, noise = make_process(kind, "linear"), make_noise("masking", "linear")
    joint = random_joint(noise, 2, seed=7)

    class Clean(Posterior):
        """The second token given a clean first one, or given that it is masked."""

        def predict(self, z, t):
            z = z.clone()
            z[:, 1] = 1
            return super().predict(z, torch.full_like(t, 0.5))

    count, scale = 6000, 1.5
    prompt = Prompt(ids=torch.tensor([[3, 0]]).repeat(count, 1), fixed=torch.tensor([[True, False]]).repeat(count, 1))
    guided = Guided(Clean(process, noise, joint), prompt=prompt, scale=scale)
    drawn = ancestral(guided, time_grid(3), prompt=prompt, generator=keyed_generator(1)).numpy()
    texts = all_sequences(noise.clean, 2)
    first = joint.p * (texts[:, 0] == 3)
    given = first / first.sum()
    free = np.array([joint.p[texts[:, 1] == v].sum() for v in texts[:, 1]])
    law = np.where(given > 0, given ** (1 + scale) / free**scale, 0)
    law = law / law.sum()
    assert chi_squared(drawn, texts, law) > 1e-4
    assert chi_squared(drawn, texts, given) < 1e-4


@pytest.mark.parametrize("scale", [-0.5, math.nan, math.inf])
def test_a_scale_out_of_range_is_refused(scale):
    with pytest.raises(ValueError, match=f"^scale: {scale} was given; it must be a number of at least 0"):
        Guided(model(), prompt=PROMPT, scale=scale)
