"""Ancestral sampling against exact laws."""

import itertools

import numpy as np
import pytest
import torch

from doubles import KINDS, Posterior, Table, make_noise, make_process
from exact import (
    all_sequences,
    chi_squared,
    product_law,
    random_joint,
    random_order_law,
    reverse_by_enumeration,
    total_variation,
)
from remask.randomness import keyed_generator
from remask.samplers import Prompt, ancestral, blank_prompt
from remask.schedules import time_grid

each_kind = pytest.mark.parametrize("kind", KINDS)


def draws(model, times, *, count: int, length: int, seed: int = 1) -> np.ndarray:
    return ancestral(model, times, prompt=blank_prompt(count, length), generator=keyed_generator(seed)).numpy()


@each_kind
@pytest.mark.parametrize("length", [2, 3])
def test_a_fine_grid_draws_from_the_data(kind, length):
    """χ² of 2,000 draws: the grid's own error (measured in test_processes) is below what they can resolve."""
    process, noise = make_process(kind, "linear"), make_noise(kind, "linear")
    joint = random_joint(noise, length, seed=7)
    # steps get shorter towards both ends, where hybrid noise moves fastest
    times = [float(u * u * (3 - 2 * u)) for u in np.linspace(1, 0, 80)]
    drawn = draws(Posterior(process, noise, joint), times, count=2000, length=length)
    assert chi_squared(drawn, joint.texts, joint.p) > 1e-4
    wrong = random_joint(noise, length, seed=8)
    assert chi_squared(drawn, joint.texts, wrong.p) < 1e-4


@each_kind
def test_a_nearly_right_distribution_is_rejected(kind):
    """The test above has teeth: tokens drawn independently from the right marginals do not pass."""
    process, noise = make_process(kind, "linear"), make_noise(kind, "linear")
    joint = random_joint(noise, 2, seed=7)
    one_step = draws(Posterior(process, noise, joint), [1.0, 0.0], count=3000, length=2)
    assert chi_squared(one_step, joint.texts, joint.p) < 1e-4


@each_kind
def test_a_coarse_grid_draws_from_its_own_exact_law(kind):
    """Three steps, enumerated from definitions: q(z_s | z_t) of each position given the data."""
    process, noise = make_process(kind, "log_linear"), make_noise(kind, "log_linear")
    joint = random_joint(noise, 2, seed=7)
    times = [1.0, 0.7, 0.25, 0.0]
    states = all_sequences(range(4), 2)
    prior = noise.matrix(1.0)[noise.clean].mean(0)
    law = product_law(np.tile(prior, (2, 1)), states)
    for t, s in itertools.pairwise(times):
        likely = law > 1e-15
        move = np.array([reverse_by_enumeration(joint, noise, z, t, s) for z in states[likely]])
        law = law[likely] @ product_law(move, states)
    assert law.sum() == pytest.approx(1, abs=1e-10)
    drawn = draws(Posterior(process, noise, joint), times, count=20_000, length=2)
    assert chi_squared(drawn, states, law) > 1e-4
    assert chi_squared(drawn, joint.texts, joint.p) < 1e-4


def test_one_masked_token_a_step_has_a_law_that_sums_to_one():
    """For any network, and equal to the data for the true posterior."""
    process, noise = make_process("masking", "linear"), make_noise("masking", "linear")
    texts = all_sequences(noise.clean, 3)
    wrong = random_order_law(lambda z: Table(process, 3, seed=1).probabilities(z, 0.5), 1, texts)
    assert wrong.sum() == pytest.approx(1, abs=1e-10)
    joint = random_joint(noise, 3, seed=7)
    true = random_order_law(lambda z: Posterior(process, noise, joint).probabilities(z, 0.5), 1, texts)
    np.testing.assert_allclose(true, joint.p, atol=1e-12)


def test_fine_ancestral_masked_sampling_is_random_order_sampling():
    """Enumerated over 600 steps of the code's reverse weights: the difference is of the order of 1/steps."""
    process = make_process("masking", "linear")
    noise = make_noise("masking", "linear")
    model = Table(process, 3, seed=1)
    model.drift.zero_()
    states = all_sequences(range(4), 3)
    tokens = torch.from_numpy(states)
    p = model.predict(tokens, torch.zeros(len(states), dtype=torch.float64))
    law = (states == 1).all(1).astype(float)
    grid = torch.linspace(1, 0, 601, dtype=torch.float64)
    for t, s in itertools.pairwise(grid):
        weights = process.reverse_weights(p, tokens, t[None], s[None])
        still = torch.nn.functional.one_hot(tokens, 4).double()
        weights = torch.where((tokens == 1)[..., None], weights / weights.sum(-1, keepdim=True), still)
        law = law @ product_law(weights.numpy(), states)
    assert law.sum() == pytest.approx(1, abs=1e-10)
    texts = all_sequences(noise.clean, 3)
    exact = random_order_law(lambda z: model.probabilities(z, 0.0), 1, texts)
    assert total_variation(law[(states != 1).all(1)], exact) < 2e-3


@each_kind
def test_a_prompt_draws_from_the_conditional_distribution(kind):
    process, noise = make_process(kind, "linear"), make_noise(kind, "linear")
    joint = random_joint(noise, 2, seed=7)

    class Clamped(Posterior):
        """Given tokens are clean: their evidence is certain, whatever the time."""

        def predict(self, z, t):
            rows = self.joint.p * (self.joint.texts[None, :, 0] == z[:, :1].numpy())
            p = np.zeros((*z.shape, 4))
            p[:, 0, 0] = 1
            for v in range(4):
                p[:, 1, v] = rows[:, self.joint.texts[:, 1] == v].sum(1)
            return torch.from_numpy(p / p.sum(-1, keepdims=True)).log()

    count = 3000
    prompt = Prompt(ids=torch.tensor([[3, 0]]).repeat(count, 1), fixed=torch.tensor([[True, False]]).repeat(count, 1))
    drawn = ancestral(Clamped(process, noise, joint), time_grid(5), prompt=prompt, generator=keyed_generator(1)).numpy()
    conditional = joint.p * (joint.texts[:, 0] == 3)
    assert chi_squared(drawn, joint.texts, conditional / conditional.sum()) > 1e-4
    assert chi_squared(drawn, joint.texts, joint.p) == 0 or chi_squared(drawn, joint.texts, joint.p) < 1e-4


def test_visible_tokens_stay_under_masking_noise():
    model = Table(make_process("masking", "linear"), 6, seed=1)
    frames = []
    ancestral(model, time_grid(10), prompt=blank_prompt(50, 6), generator=keyed_generator(1), on_step=frames.append)
    for before, after in itertools.pairwise(frames):
        visible = before.z != 1
        assert torch.equal(after.z[visible], before.z[visible])


def test_masked_share_follows_the_schedule_step_by_step():
    process = make_process("masking", "cosine")
    frames = []
    ancestral(
        Table(process, 4, seed=1),
        time_grid(5),
        prompt=blank_prompt(2000, 4),
        generator=keyed_generator(1),
        on_step=frames.append,
    )
    for frame in frames:
        hidden = 1 - float(process.schedule.alpha(torch.tensor(frame.t, dtype=torch.float64)))
        spread = (hidden * (1 - hidden) / 8000) ** 0.5
        assert float((frame.z == 1).double().mean()) == pytest.approx(hidden, abs=4.5 * spread + 1e-12)


def test_a_grid_that_ends_above_zero_leaves_noise():
    model = Table(make_process("masking", "linear"), 4, seed=1)
    z = ancestral(model, [1.0, 0.5], prompt=blank_prompt(500, 4), generator=keyed_generator(1))
    assert float((z == 1).double().mean()) == pytest.approx(0.5, abs=0.05)
