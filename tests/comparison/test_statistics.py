"""Differences and their errors, against closed forms, scipy.stats, bootstrap and simulation."""

import math
import random

import numpy as np
import pytest
import scipy.stats

from remask.comparison.statistics import (
    holm,
    mean_sample,
    one_against_seeds,
    over_seeds,
    paired_by_seed,
    paired_over_examples,
    sample_of,
    unpaired_over_examples,
)


def sample(values, weights=None, *, identity="same", value=None):
    values = np.asarray(values, dtype=float)
    made = values.mean() if weights is None else values.sum() / np.sum(weights)
    examples = {
        "identity": identity,
        "values": values.tolist(),
        "weights": None if weights is None else np.asarray(weights, dtype=float).tolist(),
    }
    found = sample_of(made if value is None else value, examples)
    assert found is not None
    return found


# ── over seeds ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([2.55, 2.57, 2.61], [2.66, 2.64, 2.69]),
        ([1.0, 1.2], [5.0, 9.0, 4.0, 7.0]),
        ([1e-9, 2e-9, 4e-9], [3e-9, 3.1e-9]),
    ],
)
def test_welch_over_seeds_is_that_of_scipy(first, second):
    ours = over_seeds(first, second)
    theirs = scipy.stats.ttest_ind(first, second, equal_var=False)
    assert ours.df == pytest.approx(theirs.df, rel=1e-12)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    expected = theirs.confidence_interval(0.9)
    assert ours.interval(0.9) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert ours.difference == pytest.approx(np.mean(first) - np.mean(second), rel=1e-12)


def test_three_seeds_against_three_by_hand():
    ours = over_seeds([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])  # variances 1 and 4, each over 3
    assert ours.difference == -2.0
    assert ours.stderr == pytest.approx(math.sqrt(5 / 3))
    assert ours.df == pytest.approx((5 / 3) ** 2 / ((1 / 3) ** 2 / 2 + (4 / 3) ** 2 / 2))
    assert ours.method == "over seeds (Welch t)"
    assert ours.covers == "over 3 seeds each"


def test_one_run_varies_as_the_others_do_and_their_mean_less():
    ours = one_against_seeds([2.0], [1.0, 2.0, 3.0, 6.0])
    assert (ours.difference, ours.df) == (-1.0, 3)
    assert ours.stderr == pytest.approx(math.sqrt(14 / 3 * 1.25))
    assert one_against_seeds([1.0, 2.0, 3.0, 6.0], [2.0]).difference == 1.0
    with pytest.raises(ValueError, match="one run of one arm"):
        one_against_seeds([1.0, 2.0], [1.0, 2.0])


def test_the_interval_of_one_run_against_several_covers_what_it_says():
    draw = random.Random(11)
    inside = 0
    for _ in range(1000):
        low, high = one_against_seeds([draw.gauss(0, 1)], [draw.gauss(0, 1) for _ in range(3)]).interval(0.95)
        inside += low <= 0 <= high
    assert 930 <= inside <= 970


def test_one_seed_gives_no_interval_over_seeds():
    with pytest.raises(ValueError, match="two runs of each arm"):
        over_seeds([1.0], [1.0, 2.0])
    assert paired_by_seed({1: 1.0}, {1: 2.0}) is None
    assert paired_by_seed({1: 1.0, 2: 1.5}, {1: 2.0, 3: 2.0}) is None


def test_runs_of_equal_seeds_are_paired_as_scipy_pairs_them():
    first, second = {1: 2.5, 2: 2.7, 3: 2.9, 9: 0.0}, {3: 3.1, 1: 2.6, 2: 2.8}
    ours = paired_by_seed(first, second)
    theirs = scipy.stats.ttest_rel([2.5, 2.7, 2.9], [2.6, 2.8, 3.1])
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.covers == "over 3 pairs of equal seeds"


def test_seeds_that_all_give_one_value_leave_doubt_and_no_nan():
    apart, equal = over_seeds([1.0, 1.0], [2.0, 2.0]), over_seeds([1.0, 1.0], [1.0, 1.0])
    assert (apart.p, apart.interval(0.95)) == (0.5, None)
    assert (equal.p, equal.interval(0.95)) == (1.0, (0.0, 0.0))


@pytest.mark.parametrize("n", [2, 5, 6, 40])
def test_examples_that_all_differ_alike_are_told_apart_as_by_the_sign_test(n):
    right, wrong = (sample_of(value, {"identity": "x", "values": [value] * n, "weights": None}) for value in (1.0, 0.0))
    contrast = paired_over_examples(right, wrong)
    assert (contrast.difference, contrast.stderr, contrast.interval(0.95)) == (1.0, 0.0, None)
    assert contrast.p == pytest.approx(scipy.stats.binomtest(n, n).pvalue, rel=1e-9)


def test_intervals_over_seeds_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    inside = 0
    experiments = 1000
    for _ in range(experiments):
        first, second = rng.normal(2.5, 0.03, 4), rng.normal(2.6, 0.05, 4)
        low, high = over_seeds(first.tolist(), second.tolist()).interval(0.95)
        inside += low <= -0.1 <= high
    assert 0.93 < inside / experiments < 0.97


# ── over examples ──────────────────────────────────────────────────────────────────────────────────────────────────


def correlated(rng, n, *, apart=0.05):
    """Nats and tokens of rows that are hard for both models alike."""
    tokens = rng.integers(20, 60, n).astype(float)
    hard = rng.normal(5.0, 1.0, n)
    first = (hard + rng.normal(0, 0.1, n)) * tokens
    second = (hard + apart + rng.normal(0, 0.1, n)) * tokens
    return first, second, tokens


def test_pairs_of_means_are_those_of_scipy():
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, 40)
    second = first + rng.normal(0.1, 0.2, 40)
    ours = paired_over_examples(sample(first), sample(second))
    theirs = scipy.stats.ttest_rel(first, second)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    expected = theirs.confidence_interval(0.95)
    assert ours.interval(0.95) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_one_ratio_against_zero_has_the_standard_error_of_a_ratio_of_sums():
    first, _, tokens = correlated(np.random.default_rng(1), 50)
    ours = paired_over_examples(sample(first, tokens), sample(np.zeros(50), tokens))
    r = first.sum() / tokens.sum()
    cochran = math.sqrt(50 / 49 * ((first - r * tokens) ** 2).sum()) / tokens.sum()
    assert ours.stderr == pytest.approx(cochran, rel=1e-12)


@pytest.mark.parametrize("same_weights", [True, False])
def test_the_paired_error_is_that_of_a_bootstrap_over_examples(same_weights):
    rng = np.random.default_rng(2)
    first, second, tokens = correlated(rng, 300)
    others = tokens if same_weights else tokens + rng.integers(0, 15, 300)
    second = second * others / tokens
    ours = paired_over_examples(sample(first, tokens), sample(second, others))
    drawn = rng.integers(0, 300, (4000, 300))
    ratios = first[drawn].sum(1) / tokens[drawn].sum(1) - second[drawn].sum(1) / others[drawn].sum(1)
    assert ours.stderr == pytest.approx(ratios.std(), rel=0.06)
    assert ours.difference == pytest.approx(first.sum() / tokens.sum() - second.sum() / others.sum(), rel=1e-12)


def test_without_pairing_the_error_of_correlated_examples_is_far_too_large():
    first, second, tokens = correlated(np.random.default_rng(4), 200)
    a, b = sample(first, tokens), sample(second, tokens)
    paired = paired_over_examples(a, b)
    alone = [paired_over_examples(x, sample(np.zeros(200), tokens)).stderr for x in (a, b)]
    unpaired = unpaired_over_examples((a.value, alone[0], 200), (b.value, alone[1], 200))
    assert unpaired.difference == pytest.approx(paired.difference)
    assert unpaired.stderr > 5 * paired.stderr
    assert paired.p < 1e-4 < 0.3 < unpaired.p


def test_intervals_over_examples_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(1000):
        first, second, tokens = correlated(rng, 40)
        low, high = paired_over_examples(sample(first, tokens), sample(second, tokens)).interval(0.95)
        inside += low <= -0.05 <= high
    assert 0.93 < inside / 1000 < 0.97


def test_unpaired_errors_add_as_squares_with_welchs_freedom():
    rng = np.random.default_rng(6)
    first, second = rng.normal(0, 1, 12), rng.normal(0, 3, 30)
    summary = [(x.mean(), x.std(ddof=1) / math.sqrt(len(x)), len(x)) for x in (first, second)]
    ours = unpaired_over_examples(*summary)
    theirs = scipy.stats.ttest_ind(first, second, equal_var=False)
    assert ours.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert ours.covers == "over 12 and 30 examples, not in pairs"


def test_a_figure_without_an_error_has_no_interval():
    ours = unpaired_over_examples((1.0, None, 30), (2.0, 0.1, 30))
    assert (ours.difference, ours.stderr, ours.interval(0.95), ours.p) == (-1.0, None, None, None)


def test_a_perplexity_is_paired_by_the_delta_method():
    first, second, tokens = correlated(np.random.default_rng(7), 400)
    r, s = first.sum() / tokens.sum(), second.sum() / tokens.sum()
    ours = paired_over_examples(sample(first, tokens, value=math.exp(r)), sample(second, tokens, value=math.exp(s)))
    rng = np.random.default_rng(8)
    drawn = rng.integers(0, 400, (4000, 400))
    weights = tokens[drawn].sum(1)
    spread = (np.exp(first[drawn].sum(1) / weights) - np.exp(second[drawn].sum(1) / weights)).std()
    assert ours.difference == pytest.approx(math.exp(r) - math.exp(s), rel=1e-12)
    assert ours.stderr == pytest.approx(spread, rel=0.08)


# ── what must not be paired ────────────────────────────────────────────────────────────────────────────────────────


def test_other_examples_are_not_paired():
    with pytest.raises(ValueError, match="same examples"):
        paired_over_examples(sample([1.0, 2.0, 4.0]), sample([1.0, 2.0, 3.0], identity="other"))
    with pytest.raises(ValueError, match="same examples"):
        paired_over_examples(sample([1.0, 2.0, 4.0]), sample([1.0, 2.0]))
    with pytest.raises(ValueError, match="same examples"):
        mean_sample([sample([1.0, 2.0]), sample([1.0, 3.0], identity="other")])


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        *(([1.0, 2.0], None), ([1.0, None, 3.0], None), ([2.0], None), ([4.0, 8.0], [1.0]), ([], None)),
        *(([0.0, 0.0], [0.0, 0.0]), (["2", 2.0], None), ([4.0, 4.0], [2.0, None])),
    ],
)
def test_examples_that_do_not_make_the_figure_are_not_used(values, weights):
    assert sample_of(2.0, {"identity": "x", "values": values, "weights": weights}) is None


def test_the_mean_of_runs_on_the_same_examples_is_a_figure_of_those_examples():
    first, second, tokens = correlated(np.random.default_rng(9), 60)
    a, b = sample(first, tokens), sample(second, tokens)
    both = mean_sample([a, b])
    assert both.value == pytest.approx((a.value + b.value) / 2)
    against_itself = paired_over_examples(both, sample((first + second) / 2, tokens))
    assert against_itself.difference == pytest.approx(0, abs=1e-12)
    assert against_itself.stderr == pytest.approx(0, abs=1e-12)


# ── several at once ────────────────────────────────────────────────────────────────────────────────────────────────


def test_holms_correction_is_the_published_one():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    assert holm([0.2]) == [0.2]


def test_with_holms_correction_equal_arms_are_rarely_told_apart():
    rng = np.random.default_rng(10)
    plain = corrected = 0
    for _ in range(400):
        arms = rng.normal(0, 1, (4, 5)).tolist()
        p = [over_seeds(arms[i], arms[j]).p for i in range(4) for j in range(i)]
        plain += min(p) <= 0.05
        corrected += min(holm(p)) <= 0.05
    assert corrected / 400 < 0.07 < plain / 400
