"""Sources mixed by weight: their shares are exact, and a function of the example's number alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remask.data.mixing import FINEST, Mixture

WEIGHTS = st.lists(st.integers(1, 60) | st.sampled_from([0.5, 0.25, 1.5]), min_size=1, max_size=6).map(tuple)


@given(weights=WEIGHTS)
def test_after_any_example_each_source_was_taken_within_one_of_its_share(weights):
    mixture = Mixture(weights)
    n = 2 * len(mixture.pattern) + 3
    source, number = mixture.assign(np.arange(n))
    taken = (source[:, None] == np.arange(len(weights))).cumsum(axis=0)
    ideal = np.arange(1, n + 1)[:, None] * np.array(weights) / sum(weights)
    assert np.abs(taken - ideal).max() < 1
    assert number.tolist() == [taken[g, i] - 1 for g, i in enumerate(source)]


def test_ratios_count_and_are_taken_as_they_are_written():
    assert Mixture((2, 1)).shares == Mixture((0.2, 0.1)).shares == (2, 1)
    assert Mixture((0.1, 0.7)).shares == (1, 7)
    assert Mixture((3.0,)).shares == (1,)


def test_weights_too_fine_for_a_short_round_are_rounded_and_none_is_forgotten():
    mixture = Mixture((1 / 3, 2 / 3, 1e-9))
    assert sum(mixture.shares) in (FINEST, FINEST + 1)
    assert mixture.shares[2] == 1
    assert mixture.shares[0] / sum(mixture.shares) == pytest.approx(1 / 3, abs=1 / FINEST)


@given(step=st.integers(0, 10**6), batch_size=st.integers(1, 50))
def test_a_step_holds_its_own_examples_at_shuffled_places(step, batch_size):
    mixture = Mixture((3, 1, 2))
    placed = mixture.step(step, batch_size=batch_size, seed=7)
    plain = mixture.assign(step * batch_size + np.arange(batch_size))
    assert sorted(zip(*placed, strict=True)) == sorted(zip(*plain, strict=True))


@pytest.mark.parametrize(("weights", "batch_size"), [((1, 1), 8), ((3, 1), 4), ((1, 1), 9), ((1, 6), 8)])
def test_every_place_meets_every_source_about_as_often_as_its_weight(weights, batch_size):
    mixture = Mixture(weights)
    seen = np.stack([mixture.step(step, batch_size=batch_size, seed=1)[0] for step in range(1000)])
    share = (seen == 0).mean(axis=0)
    assert np.abs(share - weights[0] / sum(weights)).max() < 0.06


def test_one_source_keeps_its_order():
    source, number = Mixture((1.0,)).step(3, batch_size=5, seed=1)
    assert (source.tolist(), number.tolist()) == ([0] * 5, [15, 16, 17, 18, 19])


@pytest.mark.parametrize("weights", [(), (1.0, 0.0), (-1.0,)])
def test_weights_must_be_above_nothing(weights):
    with pytest.raises(ValueError, match="weights above 0"):
        Mixture(weights)
