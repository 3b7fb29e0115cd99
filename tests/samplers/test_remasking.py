"""ReMDM: its posterior against the paper's, its marginals, its strategies, and its limits."""

import itertools
import math

import numpy as np
import pytest
import torch

from doubles import Posterior, Table, make_noise, make_process
from exact import all_sequences, chi_squared, product_law, random_joint, total_variation
from remask.randomness import keyed_generator
from remask.samplers import ancestral, blank_prompt, by_sureness, cap, remdm, rescale, while_held
from remask.samplers.remasking import largest_sigma, reveal_probability
from remask.schedules import held_time_grid, time_grid

NOISE = make_noise("masking", "linear")
JOINT = random_joint(NOISE, 2, seed=7)
STATES = all_sequences(range(4), 2)
MASK = 1


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize(("alpha_t", "alpha_s"), [(0.0, 0.4), (0.2, 0.7), (0.6, 0.6), (0.5, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_the_masked_share_follows_the_schedule_whatever_sigma(alpha_t, alpha_s, part):
    """(1 − α_t)(1 − reveal) + α_t σ = 1 − α_s: remasked tokens make up for revealed ones."""
    most = largest_sigma(number(alpha_t), number(alpha_s))
    assert 0 <= most <= 1
    sigma = part * most
    reveal = reveal_probability(number(alpha_t), number(alpha_s), sigma)
    assert -1e-12 <= reveal <= 1 + 1e-12
    hidden = (1 - alpha_t) * (1 - reveal) + alpha_t * sigma
    assert float(hidden) == pytest.approx(1 - alpha_s, abs=1e-12)


def paper_step(z: np.ndarray, t: float, s: float, sigma: float, *, made_up: float = 1.0) -> np.ndarray:
    """The paper's posterior averaged over p(x_i | z) of the joint, each position on its own [L V].

    With `made_up` 0 the masks do not make up for remasked tokens: the wrong law of a hasty reading.
    """
    result = np.zeros((2, 4))
    weight = JOINT.p * NOISE.matrix(t)[JOINT.texts, z[None]].prod(-1)
    weight = weight / weight.sum()
    a_t, a_s = 1 - t, 1 - s
    for i in range(2):
        if z[i] != MASK:
            result[i, z[i]], result[i, MASK] = 1 - sigma, sigma
        else:
            reveal = (a_s - (1 - made_up * sigma) * a_t) / (1 - a_t)
            np.add.at(result[i], JOINT.texts[:, i], weight * reveal)
            result[i, MASK] = 1 - reveal
    return result


def paper_law(times, sigma_of, **wrong) -> np.ndarray:
    """The law of the walk over noisy texts, enumerated [S]."""
    law = (STATES == MASK).all(1).astype(float)
    for t, s in itertools.pairwise(times):
        likely = law > 1e-15
        move = np.array([paper_step(z, t, s, sigma_of(1 - t, 1 - s), **wrong) for z in STATES[likely]])
        law = law[likely] @ product_law(move, STATES)
    return law


def draws(times, strategy, *, count: int = 8000) -> np.ndarray:
    model = Posterior(make_process("masking", "linear"), NOISE, JOINT)
    prompt = blank_prompt(count, 2)
    return remdm(model, times, strategy=strategy, prompt=prompt, generator=keyed_generator(1)).numpy()


def sigma_max(alpha_t: float, alpha_s: float) -> float:
    return min(1.0, (1 - alpha_s) / alpha_t) if alpha_t else 1.0


CASES = {
    "cap": (cap(0.3), lambda a_t, a_s: min(0.3, sigma_max(a_t, a_s))),
    "rescale": (rescale(0.6), lambda a_t, a_s: 0.6 * sigma_max(a_t, a_s)),
    "held": (while_held(cap(0.5)), lambda a_t, a_s: min(0.5, sigma_max(a_t, a_s)) if a_t == a_s else 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_a_coarse_walk_has_the_papers_law(name):
    strategy, sigma_of = CASES[name]
    times = [1.0, 0.7, 0.5, 0.5, 0.3]
    drawn, law = draws(times, strategy), paper_law(times, sigma_of)
    assert law.sum() == pytest.approx(1, abs=1e-10)
    assert chi_squared(drawn, STATES, law) > 1e-4
    assert chi_squared(drawn, STATES, paper_law(times, sigma_of, made_up=0.0)) < 1e-4


def test_without_remasking_it_has_the_law_of_ancestral_sampling():
    times = [1.0, 0.6, 0.25, 0.0]
    law = paper_law(times, lambda a_t, a_s: 0.0)
    assert chi_squared(draws(times, cap(0.0)), STATES, law) > 1e-4
    model = Posterior(make_process("masking", "linear"), NOISE, JOINT)
    plain = ancestral(model, times, prompt=blank_prompt(8000, 2), generator=keyed_generator(2)).numpy()
    assert chi_squared(plain, STATES, law) > 1e-4


@pytest.mark.parametrize("name", CASES)
def test_one_step_from_the_noisy_data_keeps_the_marginal_of_each_position(name):
    """Σ over z_t ~ q_t of the paper's step is q_s, position by position; the joint law needs small steps."""
    t, s = 0.6, 0.35
    sigma = CASES[name][1](1 - t, 1 - s)
    q_t, q_s = (JOINT.p @ product_law(NOISE.matrix(u)[JOINT.texts], STATES) for u in (t, s))
    move = np.array([paper_step(z, t, s, sigma) for z in STATES[q_t > 0]])
    per_position = (q_t[q_t > 0][:, None, None] * move).sum(0)
    for i in range(2):
        expected = np.array([q_s[STATES[:, i] == v].sum() for v in range(4)])
        np.testing.assert_allclose(per_position[i], expected, atol=1e-12)


def test_many_small_remaskings_draw_from_the_data():
    """Each token is remasked about three times while few change a step."""
    times = held_time_grid(200, at=0.3, share=0.6)
    assert chi_squared(draws(times, while_held(cap(0.025)), count=2000), JOINT.texts, JOINT.p) > 1e-4
    law = paper_law(times, lambda a_t, a_s: 0.025 if a_t == a_s else 0.0)
    assert total_variation(law[[tuple(z) in set(map(tuple, JOINT.texts)) for z in STATES]], JOINT.p) < 0.01


def test_remasking_repairs_a_coarse_walk():
    """Two steps draw the tokens nearly independently; steps that stand still and remask bring the law nearer."""
    coarse = paper_law([1.0, 0.2, 0.0], lambda a_t, a_s: 0.0)
    repaired = paper_law([1.0, *[0.2] * 12, 0.0], lambda a_t, a_s: 0.2 if a_t == a_s else 0.0)
    data = np.zeros(len(STATES))
    data[[int(np.flatnonzero((text == STATES).all(1))[0]) for text in JOINT.texts]] = JOINT.p
    assert total_variation(repaired, data) < 0.7 * total_variation(coarse, data)


def test_the_unsurest_tokens_are_remasked_most():
    sureness = torch.tensor([[0.9, 0.1, torch.inf, 0.5], [torch.inf] * 4], dtype=torch.float64)
    sigma = by_sureness(rescale(0.5))(number(0.4), number(0.6), sureness)
    weights = [math.exp(-0.9), math.exp(-0.1), 0.0, math.exp(-0.5)]
    assert sigma[0].tolist() == pytest.approx([0.5 * w / sum(weights) for w in weights])
    assert sigma[1].tolist() == [0.0] * 4


def test_tokens_do_come_back():
    frames = []
    model = Table(make_process("masking", "linear"), 6, seed=1)
    remdm(
        model,
        time_grid(8),
        strategy=rescale(0.5),
        prompt=blank_prompt(50, 6),
        generator=keyed_generator(1),
        on_step=frames.append,
    )
    assert any(((before.z != MASK) & (after.z == MASK)).any() for before, after in itertools.pairwise(frames))


@pytest.mark.parametrize("strategy", [cap, rescale])
@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_a_share_out_of_range_is_refused(strategy, eta):
    with pytest.raises(ValueError, match=rf"^eta: {eta} was given; it must lie in \[0, 1\]"):
        strategy(eta)
