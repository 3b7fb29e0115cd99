"""Score samplers against the reverse step."""

import itertools

import numpy as np
import pytest
import torch

from doubles import KINDS, Posterior, Table, make_noise, make_process
from exact import all_sequences, chi_squared, product_law, random_joint, total_variation
from remask.randomness import keyed_generator
from remask.samplers import analytic, blank_prompt, tau_leaping
from remask.samplers.tau_leaping import analytic_weights, euler_weights, scores
from remask.schedules import smooth_time_grid

each_kind = pytest.mark.parametrize("kind", KINDS)
Z = torch.from_numpy(all_sequences(range(4), 2))


def case(kind: str, schedule: str):
    """Process, logits and tokens of every active position of every text of two tokens."""
    process = make_process(kind, schedule)
    z = Z[(Z != 1).any(-1) | torch.tensor(kind != "uniform")]
    active = process.active(z)
    if kind == "uniform":
        active = active & (z != 1)
    logits = Table(process, 2, seed=3).logits(z, torch.full((len(z),), 0.5, dtype=torch.float64), positions=active)
    return process, logits, z[active]


def normalised(weights: torch.Tensor) -> torch.Tensor:
    return weights / weights.sum(-1, keepdim=True)


@each_kind
@pytest.mark.parametrize("schedule", ["linear", "cosine", "log_linear"])
@pytest.mark.parametrize(("t", "s"), [(0.9, 0.4), (0.5, 0.49), (0.3, 0.0), (1 - 1e-5, 0.6)])
def test_the_analytic_step_is_the_reverse_step(kind, schedule, t, s):
    process, logits, z = case(kind, schedule)
    times = (torch.tensor([t], dtype=torch.float64), torch.tensor([s], dtype=torch.float64))
    expected = normalised(process.reverse_weights(logits, z, *times))
    # the cosine's α falls to 1e-10 at the latest time, and q̂_s is a difference divided by it
    tolerance = 1e-5 if t > 0.99 else 1e-10
    torch.testing.assert_close(
        normalised(analytic_weights(process, logits, z, *times)), expected, atol=tolerance, rtol=0
    )


@each_kind
def test_scores_are_ratios_of_the_predicted_marginal(kind):
    process, logits, z = case(kind, "linear")
    t = torch.tensor([0.6], dtype=torch.float64)
    p = process.log_clean(logits).exp().numpy()
    marginal = p @ make_noise(kind, "linear").matrix(0.6)
    expected = marginal / np.take_along_axis(marginal, z.numpy()[:, None], -1)
    np.testing.assert_allclose(scores(process, logits, z, t), expected, atol=1e-12)


@each_kind
def test_an_euler_step_differs_by_the_square_of_its_length(kind):
    process, logits, z = case(kind, "cosine")
    t = torch.tensor([0.6], dtype=torch.float64)
    gaps = []
    for length in (0.02, 0.01):
        exact = normalised(process.reverse_weights(logits, z, t, t - length))
        euler = euler_weights(process, logits, z, t, t - length)
        assert (euler >= 0).all()
        torch.testing.assert_close(euler.sum(-1), torch.ones(len(z), dtype=torch.float64))
        gaps.append(float((euler - exact).abs().max()))
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.2)
    assert gaps[0] > 1e-5


def chain_law(process, times, weights) -> np.ndarray:
    """The law of a walk over states of two tokens, from its weights [S]."""
    model = Table(process, 2, seed=3)
    law = product_law(np.tile(process.prior(torch.zeros((), dtype=torch.float64)).numpy(), (2, 1)), Z.numpy())
    for t, s in itertools.pairwise(times):
        now, then = (torch.tensor([value], dtype=torch.float64) for value in (min(t, 1 - 1e-5), s))
        logits = model.predict(Z, now.expand(len(Z))).reshape(-1, 4)
        move = normalised(weights(process, logits, Z.reshape(-1), now, then)).reshape(len(Z), 2, 4).nan_to_num()
        still = torch.nn.functional.one_hot(Z, 4).double()
        move = torch.where(process.active(Z)[..., None], move, still)
        law = law @ product_law(move.numpy(), Z.numpy())
    return law


@each_kind
def test_tau_leaping_converges_to_ancestral_sampling(kind):
    process = make_process(kind, "cosine")

    def euler(process, logits, z, t, s):
        return (analytic_weights if float(s) == 0 else euler_weights)(process, logits, z, t, s)

    gaps = []
    for steps in (10, 40):
        grid = smooth_time_grid(steps)
        gaps.append(total_variation(chain_law(process, grid, euler), chain_law(process, grid, analytic_weights)))
    assert gaps[0] > 1.5 * gaps[1]
    assert gaps[1] < 0.02


@each_kind
@pytest.mark.parametrize("walk", [analytic, tau_leaping])
def test_a_fine_grid_draws_from_the_data(kind, walk):
    process, noise = make_process(kind, "linear"), make_noise(kind, "linear")
    joint = random_joint(noise, 2, seed=7)
    drawn = walk(
        Posterior(process, noise, joint),
        smooth_time_grid(60),
        prompt=blank_prompt(1500, 2),
        generator=keyed_generator(1),
    ).numpy()
    assert chi_squared(drawn, joint.texts, joint.p) > 1e-4
    assert chi_squared(drawn, joint.texts, random_joint(noise, 2, seed=8).p) < 1e-4


@each_kind
def test_long_euler_steps_are_rejected(kind):
    """The test above has teeth."""
    process, noise = make_process(kind, "linear"), make_noise(kind, "linear")
    joint = random_joint(noise, 2, seed=7)
    drawn = tau_leaping(
        Posterior(process, noise, joint), [1.0, 0.3, 0.0], prompt=blank_prompt(3000, 2), generator=keyed_generator(1)
    ).numpy()
    assert chi_squared(drawn, joint.texts, joint.p) < 1e-4
