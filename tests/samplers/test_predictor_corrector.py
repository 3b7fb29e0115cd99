"""Gibbs correctors leave the noisy marginal alone, and repair what parallel draws got wrong."""

from functools import partial

import numpy as np
import pytest
import torch

from doubles import KINDS, Posterior, Table, make_noise, make_process
from exact import all_sequences, chi_squared, product_law, random_joint
from remask.randomness import draw_categorical, keyed_generator
from remask.samplers import Prompt, blank_prompt, identity, predictor_corrector
from remask.samplers.predictor_corrector import gibbs

each_kind = pytest.mark.parametrize("kind", KINDS)
STATES = all_sequences(range(4), 2)
COUNT = 8000


def marginal(noise, joint, t: float) -> np.ndarray:
    """q_t over the noisy texts [S]."""
    return joint.p @ product_law(noise.matrix(t)[joint.texts], STATES)


def after_correctors(kind: str, t: float, *, share: float, times: int = 2) -> float:
    """The p-value of q_t for states drawn from it and corrected."""
    process, noise = make_process(kind, "linear"), make_noise(kind, "linear")
    joint = random_joint(noise, 2, seed=7)
    q = marginal(noise, joint, t)
    weights = torch.from_numpy(q).expand(COUNT, -1)
    z = torch.from_numpy(STATES)[draw_categorical(weights, generator=keyed_generator(1))]
    assert chi_squared(z.numpy(), STATES, q) > 1e-4
    model = Posterior(process, noise, joint)
    step = partial(gibbs, model, share=share, prompt=blank_prompt(COUNT, 2), transform=identity)
    before = z
    for seed in range(times):
        z = step(z, t, generator=keyed_generator(seed, "corrector"))
    assert not torch.equal(before, z)
    return chi_squared(z.numpy(), STATES, q)


@each_kind
@pytest.mark.parametrize("t", [0.0, 0.3, 0.7])
def test_a_corrector_of_one_position_leaves_the_noisy_marginal_alone(kind, t):
    assert after_correctors(kind, t, share=0.5) > 1e-4


@each_kind
def test_a_corrector_of_all_positions_at_once_does_not(kind):
    assert after_correctors(kind, 0.3, share=1.0, times=3) < 1e-4


@each_kind
def test_correctors_repair_a_coarse_grid(kind):
    """Two steps alone draw tokens nearly independently; Gibbs steps at the end bring the data's law back."""
    process, noise = make_process(kind, "linear"), make_noise(kind, "linear")
    joint = random_joint(noise, 2, seed=7)
    draw = partial(
        predictor_corrector,
        Posterior(process, noise, joint),
        [1.0, 0.5, 0.0],
        share=0.5,
        prompt=blank_prompt(3000, 2),
        generator=keyed_generator(1),
    )
    assert chi_squared(draw(corrector_steps=0).numpy(), joint.texts, joint.p) < 1e-4
    assert chi_squared(draw(corrector_steps=25).numpy(), joint.texts, joint.p) > 1e-4


def test_each_time_takes_one_call_and_its_correctors():
    model = Table(make_process("masking", "linear"), 4, seed=1)
    predictor_corrector(
        model, [1.0, 0.5, 0.0], corrector_steps=3, prompt=blank_prompt(2, 4), generator=keyed_generator(1)
    )
    assert model.calls == 2 * (1 + 3)


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.3, 3), (0.39, 3), (1.0, 10)])
def test_the_share_says_how_many_positions_are_drawn_again(share, count):
    class Watching(Table):
        def logits(self, z, t, *, positions):
            self.asked = positions
            assert (z[positions] == 1).all(), "a masking network was asked about a token that it can see"
            return super().logits(z, t, positions=positions)

    model = Watching(make_process("masking", "linear"), 12, seed=1)
    fixed = torch.zeros(5, 12, dtype=torch.bool)
    fixed[:, [0, 7]] = True
    prompt = Prompt(ids=torch.full((5, 12), 3), fixed=fixed)
    z = torch.full((5, 12), 3)
    after = gibbs(model, z, 0.0, share=share, prompt=prompt, generator=keyed_generator(1), transform=identity)
    assert model.asked.sum(-1).tolist() == [count] * 5
    assert not (model.asked & fixed).any()
    assert torch.equal(after[~model.asked], z[~model.asked])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corrector_steps": -1}, "corrector_steps: -1 was given; it must be at least 0"),
        ({"corrector_steps": 1, "share": 0.0}, "share: 0.0 was given; it must lie above 0"),
        ({"corrector_steps": 1, "share": 1.5}, "share: 1.5 was given; it must lie above 0"),
    ],
)
def test_numbers_out_of_range_are_refused(options, message):
    model = Table(make_process("masking", "linear"), 2, seed=1)
    with pytest.raises(ValueError, match=message):
        predictor_corrector(model, [1.0, 0.0], prompt=blank_prompt(1, 2), generator=keyed_generator(1), **options)
