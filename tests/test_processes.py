"""Masking, uniform and hybrid noise against the definitions in exact.py."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles import ALL_NOISES, KINDS, Posterior, make_noise, make_process
from exact import (
    all_sequences,
    chi_squared,
    product_law,
    random_joint,
    reverse_by_enumeration,
    steer,
    total_variation,
)
from remask.randomness import keyed_generator

pytestmark = pytest.mark.usefixtures("global_generator_untouched")
TIMES = [0.001, 0.1, 0.37, 0.5, 0.8, 0.999]
each_noise = pytest.mark.parametrize(("kind", "schedule"), ALL_NOISES)
each_kind = pytest.mark.parametrize("kind", KINDS)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def chain(process, s: float, t: float) -> np.ndarray:
    """The transition that the process's own mixing implies, equation (2) of processes.py."""
    (alpha_s, mix_s), (alpha_t, mix_t) = (process.mixing(double(time)) for time in (s, t))
    stay = alpha_t / alpha_s
    enter = mix_t - stay[:, None] * mix_s
    return (stay * torch.eye(process.vocab_size) + enter).numpy()


@each_noise
@pytest.mark.parametrize("mask_id", [0, 1, 3])
def test_mixing_is_the_papers_noise_and_sums_to_one(kind, schedule, mask_id):
    process = make_process(kind, schedule, mask_id=mask_id)
    times = double(0.0, *TIMES, 1.0)
    alpha, mix = process.mixing(times)
    keep, rest = make_noise(kind, schedule, mask_id=mask_id).keep_and_mix(times.numpy())
    # the square root of hybrid noise turns the reference's rounding of 1e-16 at the ends into 1e-8
    np.testing.assert_allclose(alpha, keep, atol=2e-8)
    np.testing.assert_allclose(mix, rest, atol=2e-8)
    np.testing.assert_allclose(mix[1:-1], rest[1:-1], atol=1e-15)
    np.testing.assert_allclose(alpha + mix.sum(-1), 1, atol=1e-15)
    assert (mix >= 0).all()


@each_noise
def test_transitions_are_probabilities_and_compose(kind, schedule):
    """Chapman-Kolmogorov: q_t = q_s · M_ts and M_ur = M_us · M_sr, for every pair of times."""
    process, noise = make_process(kind, schedule), make_noise(kind, schedule)
    for s, t in itertools.combinations(TIMES, 2):
        move = chain(process, s, t)
        assert move.min() > -1e-15
        np.testing.assert_allclose(move.sum(-1), 1, atol=1e-14)
        np.testing.assert_allclose(noise.matrix(s) @ move, noise.matrix(t), atol=1e-14)
        np.testing.assert_allclose(move, noise.transition(s, t), atol=1e-13)
    for r, s, u in itertools.combinations(TIMES, 3):
        np.testing.assert_allclose(chain(process, r, s) @ chain(process, s, u), chain(process, r, u), atol=1e-14)


@each_noise
def test_the_step_forward_is_the_chains_transition(kind, schedule):
    process, noise = make_process(kind, schedule), make_noise(kind, schedule)
    for s, t in [(0.0, 0.3), (0.3, 0.8), (0.5, 0.5), (0.6, 1.0)]:
        stay, enter = process.transition(double(s), double(t))
        assert (enter >= 0).all()
        move = (stay * torch.eye(4, dtype=torch.float64) + enter).numpy()
        np.testing.assert_allclose(move, noise.transition(s, t), atol=1e-7)


@each_noise
def test_rates_are_the_speed_of_transitions(kind, schedule):
    process, noise = make_process(kind, schedule), make_noise(kind, schedule)
    for t in TIMES[1:-1]:
        rates = process.rates(double(t))[0].numpy()
        h = 1e-6
        differences = (noise.transition(t, t + h) - np.eye(4)) / h
        for y, z in itertools.permutations(range(4), 2):
            assert rates[z] == pytest.approx(differences[y, z], rel=1e-4, abs=1e-6)
            assert rates[z] == pytest.approx(noise.rates(t)[y, z], rel=1e-9, abs=1e-12)
        assert rates.min() >= -1e-15


@each_kind
def test_the_chain_of_small_steps_at_the_rates_reaches_q_t(kind):
    process, noise = make_process(kind, "cosine"), make_noise(kind, "cosine")
    grid = np.linspace(0.05, 0.9, 4001)
    law = noise.matrix(grid[0])
    rates = process.rates(torch.from_numpy((grid[1:] + grid[:-1]) / 2)).numpy()
    for h, rate in zip(np.diff(grid), rates, strict=True):
        flow = np.tile(rate, (4, 1))
        np.fill_diagonal(flow, 0)
        np.fill_diagonal(flow, -flow.sum(1))
        law = law + h * law @ flow + h * h / 2 * law @ flow @ flow
    np.testing.assert_allclose(law, noise.matrix(0.9), atol=1e-6)


@each_noise
@settings(max_examples=6)
@given(t=st.floats(1e-3, 1.0), seed=st.integers(0, 99))
def test_corrupt_is_the_quantile_function(kind, schedule, t, seed):
    """x below α_t; from there on the inverse of the cumulative sum of mix_t, ids in order."""
    process, noise = make_process(kind, schedule), make_noise(kind, schedule)
    u = torch.rand(1, 60, generator=keyed_generator(seed), dtype=torch.float64)
    x = torch.tensor([0, 2, 3] * 20)[None]
    z = process.corrupt(x, double(t), noise=u)
    alpha, mix = noise.keep_and_mix(t)
    edges = alpha + np.cumsum(mix)
    for text, number, noisy in zip(x[0].tolist(), u[0].tolist(), z[0].tolist(), strict=True):
        expected = text if number < alpha else int(np.searchsorted(edges, number, side="right"))
        assert noisy == min(expected, 3)


@each_noise
def test_corrupt_sends_the_middle_of_each_interval_to_its_token(kind, schedule):
    process, noise = make_process(kind, schedule), make_noise(kind, schedule)
    for t in TIMES:
        matrix = noise.matrix(t)
        pairs = np.array([(x, z) for x in noise.clean for z in range(4) if matrix[x, z] > 1e-12])
        times = np.full(len(pairs), t)
        numbers = steer(noise, pairs[:, :1], pairs[:, 1:], times)
        z = process.corrupt(torch.from_numpy(pairs[:, :1]), torch.from_numpy(times), noise=torch.from_numpy(numbers))
        assert z[:, 0].tolist() == pairs[:, 1].tolist()


@each_noise
def test_the_largest_draw_gives_a_token_that_noise_can_give(kind, schedule):
    process = make_process(kind, schedule, mask_id=3)
    top = torch.full((1, 3), 1 - 2**-53, dtype=torch.float64)
    z = process.corrupt(torch.tensor([[0, 1, 2]]), double(0.5), noise=top)
    assert set(z.flatten().tolist()) <= ({3} if kind == "masking" else {2} if kind == "uniform" else {3})


@each_kind
def test_corrupt_frequencies_are_q_t(kind, generator):
    process, noise = make_process(kind, "cosine"), make_noise(kind, "cosine")
    t, count = 0.4, 20_000
    for x in noise.clean:
        u = torch.rand(1, count, generator=generator, dtype=torch.float64)
        z = process.corrupt(torch.full((1, count), x), double(t), noise=u).numpy().T
        assert chi_squared(z, np.arange(4)[:, None], noise.matrix(t)[x]) > 1e-4
        assert chi_squared(z, np.arange(4)[:, None], noise.matrix(t + 0.05)[x]) < 1e-4


@pytest.mark.parametrize("t", [0.1, 0.5, 0.93])
def test_the_masked_share_is_one_minus_alpha(t, generator):
    process = make_process("masking", "cosine")
    u = torch.rand(50, 400, generator=generator, dtype=torch.float64)
    z = process.corrupt(torch.zeros(50, 400, dtype=torch.int64), torch.full((50,), t, dtype=torch.float64), noise=u)
    hidden = 1 - float(process.schedule.alpha(double(t)))
    spread = (hidden * (1 - hidden) / 20_000) ** 0.5
    assert float((z == 1).double().mean()) == pytest.approx(hidden, abs=4.5 * spread)


def test_the_hybrid_share_of_uniform_noise_is_the_asked_one_half_way():
    _, mix = make_process("hybrid", "linear").mixing(double(0.5))
    assert float(mix[0].sum() - mix[0, 1]) == pytest.approx(0.3)


def test_clean_text_is_never_masked_by_uniform_noise(generator):
    process = make_process("uniform", "linear")
    z = process.corrupt(
        torch.zeros(1, 5000, dtype=torch.int64),
        double(1.0),
        noise=torch.rand(1, 5000, dtype=torch.float64, generator=generator),
    )
    assert set(z.flatten().tolist()) == {0, 2, 3}


@each_noise
def test_the_prior_is_q_1_of_a_uniformly_drawn_token(kind, schedule):
    process, noise = make_process(kind, schedule), make_noise(kind, schedule)
    expected = noise.matrix(1.0)[noise.clean].mean(0)
    np.testing.assert_allclose(process.prior(double(0.0)), expected, atol=1e-15)
    drawn = process.draw_prior(50, 100, generator=keyed_generator(2)).reshape(-1, 1).numpy()
    assert chi_squared(drawn, np.arange(4)[:, None], expected) > 1e-4


@each_noise
def test_the_prior_divergence_is_the_kl_of_q_1(kind, schedule):
    process, noise = make_process(kind, schedule), make_noise(kind, schedule)
    q_1 = noise.matrix(1.0)
    prior = q_1[noise.clean].mean(0)
    for x in noise.clean:
        inside = q_1[x] > 1e-300
        expected = (q_1[x][inside] * np.log(q_1[x][inside] / prior[inside])).sum()
        assert float(process.prior_divergence(torch.tensor([x]), like=double(0.0))[0]) == pytest.approx(
            expected, abs=1e-14
        )
    if schedule == "log_linear":
        assert expected > 1e-3
    else:
        assert expected == pytest.approx(0, abs=1e-14)


@each_noise
@settings(max_examples=6)
@given(seed=st.integers(0, 10**6), t=st.floats(0.01, 0.99))
def test_the_posterior_is_bayes_rule(kind, schedule, seed, t):
    """SUBS of MDLM: visible tokens stay, masked ones follow the logits; one rule for every noise."""
    process, noise = make_process(kind, schedule), make_noise(kind, schedule)
    logits = 3 * torch.randn(6, 4, generator=keyed_generator(seed), dtype=torch.float64)
    z = torch.tensor([0, 2, 3, 0, 2, 3] if kind == "uniform" else [0, 1, 2, 3, 1, 1])
    p = np.exp(logits.numpy())
    p[:, 1] = 0
    weights = p * noise.matrix(t)[:, z].T
    expected = weights / weights.sum(-1, keepdims=True)
    measured = process.posterior(logits, z, double(t).expand(6)).exp()
    np.testing.assert_allclose(measured, expected, atol=1e-12)
    if kind == "masking":
        visible = z != 1
        assert (measured[visible].argmax(-1) == z[visible]).all()
        np.testing.assert_allclose(measured[~visible], (p / p.sum(-1, keepdims=True))[~visible], atol=1e-12)


@each_kind
def test_bayes_rule_turns_the_leave_one_out_posterior_into_the_posterior_given_all(kind):
    process, noise = make_process(kind, "linear"), make_noise(kind, "linear")
    joint = random_joint(noise, 3, seed=1)
    z = all_sequences(range(4) if kind != "uniform" else noise.clean, 3)
    t = torch.full((len(z),), 0.6, dtype=torch.float64)
    everywhere = torch.ones(z.shape, dtype=torch.bool)
    leave_one_out = Posterior(process, noise, joint).logits(torch.from_numpy(z), t, positions=everywhere)
    given_all = Posterior(process, noise, joint, leave_out=False).logits(torch.from_numpy(z), t, positions=everywhere)
    measured = process.posterior(leave_one_out, torch.from_numpy(z).flatten(), t[:1].expand(z.size))
    np.testing.assert_allclose(measured.exp(), given_all.exp(), atol=1e-12)


@each_noise
@pytest.mark.parametrize(("t", "s"), [(1.0, 0.75), (0.75, 0.3), (0.3, 0.0), (0.51, 0.5)])
def test_the_reverse_step_of_the_true_posterior_is_exact(kind, schedule, t, s):
    process, noise = make_process(kind, schedule), make_noise(kind, schedule)
    if noise.keep_and_mix(t)[0] < 1e-9:
        t = 0.9999  # the reference divides by α_t
    joint = random_joint(noise, 2, seed=3)
    model = Posterior(process, noise, joint)
    matrix = noise.matrix(t)
    for z in all_sequences(range(4), 2):
        if (joint.p * matrix[joint.texts, z[None]].prod(-1)).sum() < 1e-12:
            continue
        tokens = torch.from_numpy(z)[None]
        logits = model.logits(tokens, double(t), positions=torch.ones(1, 2, dtype=torch.bool))
        weights = process.reverse_weights(logits, tokens[0], double(t), double(s))
        assert (weights >= 0).all()
        expected = reverse_by_enumeration(joint, noise, z, t, s)
        np.testing.assert_allclose(weights / weights.sum(-1, keepdim=True), expected, atol=1e-8)


def grid_error(kind: str, *, length: int, steps: int, leave_out: bool) -> float:
    """Total variation of the sampler's law against the data's, by enumeration of every state at every step."""
    process, noise = make_process(kind, "linear"), make_noise(kind, "linear")
    joint = random_joint(noise, length, seed=5)
    model = Posterior(process, noise, joint, leave_out=leave_out)
    states = all_sequences(range(4), length)
    law = product_law(np.tile(process.prior(double(0.0)).numpy(), (length, 1)), states)
    tokens = torch.from_numpy(states)
    for t, s in itertools.pairwise(np.linspace(1, 0, steps + 1)):
        logits = model.predict(tokens, torch.full((len(states),), t, dtype=torch.float64))
        weights = process.reverse_weights(logits, tokens, double(t), double(s))
        move = (weights / weights.sum(-1, keepdim=True)).nan_to_num(0.0).numpy()  # states that cannot happen
        law = law @ product_law(move, states)
    truth = dict(zip(map(tuple, joint.texts), joint.p, strict=True))
    return total_variation(law, np.array([truth.get(tuple(state), 0.0) for state in states]))


@each_kind
def test_one_token_is_sampled_exactly_on_any_grid(kind):
    assert grid_error(kind, length=1, steps=3, leave_out=True) < 1e-12


@each_kind
def test_the_sampling_error_falls_with_the_number_of_steps(kind):
    errors = [grid_error(kind, length=2, steps=steps, leave_out=True) for steps in (2, 8, 64)]
    assert errors[0] > 2 * errors[1] > 8 * errors[2]
    # hybrid noise moves as √(1 − t) near t = 1, which costs an even grid half an order
    assert errors[2] < (0.03 if kind == "hybrid" else 0.006)


def test_a_plain_posterior_used_as_leave_one_out_ruins_uniform_sampling():
    """DESIGN fact 2: cross-entropy on raw logits learns p(x_i | z), which counts the evidence of z_i twice."""
    right = grid_error("uniform", length=2, steps=32, leave_out=True)
    wrong = grid_error("uniform", length=2, steps=32, leave_out=False)
    assert wrong > 0.05
    assert wrong > 20 * right
    assert grid_error("uniform", length=1, steps=4, leave_out=False) > 0.05


def test_a_plain_posterior_does_no_harm_to_masking():
    right = grid_error("masking", length=2, steps=4, leave_out=True)
    assert grid_error("masking", length=2, steps=4, leave_out=False) == pytest.approx(right, abs=1e-12)


@each_kind
def test_reverse_steps_are_drawn_with_their_weights(kind, generator):
    process = make_process(kind, "linear")
    logits = torch.tensor([[0.5, 9.0, -1.0, 1.0]], dtype=torch.float64).expand(20_000, -1)
    z = torch.full((20_000,), 0 if kind == "uniform" else 1)
    drawn = process.reverse_step(logits, z, double(0.8), double(0.4), generator=generator)
    weights = process.reverse_weights(logits[:1], z[:1], double(0.8), double(0.4))[0]
    p = (weights / weights.sum()).numpy()
    assert chi_squared(drawn.numpy()[:, None], np.arange(4)[:, None], p) > 1e-4
    if kind != "hybrid":  # clean text never holds the mask; masked positions may stay masked
        assert p[1] == pytest.approx(0.5 if kind == "masking" else 0.0)


@each_kind
def test_a_step_to_time_zero_leaves_no_mask(kind):
    process = make_process(kind, "cosine")
    z = torch.tensor([0, 2] if kind == "uniform" else [1, 2])
    weights = process.reverse_weights(torch.zeros(2, 4, dtype=torch.float64), z, double(0.3), double(0.0))
    assert weights[:, 1].tolist() == [0, 0]


@each_kind
def test_only_positions_that_noise_can_have_touched_are_active(kind):
    z = torch.tensor([[0, 1, 2, 3]])
    active = make_process(kind, "linear").active(z)
    assert active.tolist() == [[False, True, False, False]] if kind == "masking" else active.all()


@each_kind
def test_a_network_is_not_shown_the_visible_token_that_masking_asks_it_for(kind):
    process = make_process(kind, "linear")
    z = torch.tensor([[0, 2, 1], [3, 3, 3]])
    where = torch.tensor([[True, False, True], [False, False, True]])
    expected = [[1, 2, 1], [3, 3, 1]] if kind == "masking" else z.tolist()
    assert process.forget(z, where).tolist() == expected


@each_kind
def test_the_prior_of_a_large_vocabulary_needs_no_table_per_token(kind):
    """A [B L V] table would hold 2·10⁹ numbers here."""
    process = make_process(kind, "log_linear", vocab_size=50_000, mask_id=49_999)
    assert process.draw_prior(40, 1000, generator=keyed_generator(1)).shape == (40, 1000)
