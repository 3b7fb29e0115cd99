"""Sample quality: exact values on small samples, copies against a slow search, references treated alike."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.evaluation import copying, quality
from remask.evaluation.copying import shared_with
from remask.evaluation.quality import (
    corpus_words,
    distinct_ngrams,
    distinct_samples,
    longest_copy,
    quality_measurements,
    repetition,
    sample_figures,
    token_entropy,
    word_share,
)
from remask.evaluation.self_bleu import self_bleu

TOKENS = st.lists(st.integers(0, 3), max_size=40)


def slow_longest_copy(sample, train):
    """Every run of the sample, longest first, searched as text."""
    text, runs = "".join(map(chr, train)), "".join(map(chr, sample))
    lengths = (j - i for i in range(len(runs)) for j in range(i + 1, len(runs) + 1) if runs[i:j] in text)
    return max(lengths, default=0)


@settings(max_examples=100, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=4), st.lists(st.integers(0, 2), max_size=80), st.integers(1, 30))
def test_longest_copies_equal_those_of_a_slow_search_whatever_the_chunk(samples, train, chunk):
    expected = [slow_longest_copy(sample, train) for sample in samples]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "_CHUNK", chunk)
        found = longest_copy([np.array(s, dtype=np.int64) for s in samples], np.array(train, dtype=np.uint16))
    assert found.tolist() == expected


def slow_shares(sample, train, size):
    """The share of the sample's n-grams that are found as text."""
    text, runs = "".join(map(chr, train)), "".join(map(chr, sample))
    grams = [runs[i : i + size] for i in range(len(runs) - size + 1)]
    return sum(gram in text for gram in grams) / len(grams) if grams else math.nan


@settings(max_examples=60, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=4), st.lists(st.integers(0, 2), max_size=80), st.integers(1, 30))
def test_shares_of_common_ngrams_equal_those_of_a_slow_search_whatever_the_chunk(samples, train, chunk):
    sizes = (1, 3, 4, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copying, "_CHUNK", chunk)
        found = shared_with([np.array(s, dtype=np.int64) for s in samples], np.array(train, np.uint16), sizes=sizes)
    for size in sizes:
        expected = [slow_shares(sample, train, size) for sample in samples]
        np.testing.assert_array_equal(found.ngrams[size], expected)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_planted_copies_are_found_at_their_length(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    train = rng.integers(0, 1000, 3000)
    start, length = data.draw(st.integers(0, 2900)), data.draw(st.integers(10, 100))
    sample = rng.integers(0, 1000, 128)
    sample[14 : 14 + length] = train[start : start + length]
    found = longest_copy([sample], train)[0]
    assert found == slow_longest_copy(sample, train) >= length


def test_copies_do_not_join_neighbouring_samples():
    train = np.arange(10)
    assert longest_copy([np.array([2, 3]), np.array([4, 5, 6]), np.array([99])], train).tolist() == [2, 3, 0]


def test_a_text_of_one_repeated_token_is_searched_in_full():
    samples = [np.zeros(300, int), np.append(np.zeros(99, int), 1)]
    assert longest_copy(samples, np.zeros(50_000, np.uint16)).tolist() == [300, 99]


def test_copies_in_nothing_or_of_nothing_have_no_length():
    assert longest_copy([np.array([1, 2])], np.empty(0, np.uint16)).tolist() == [0]
    assert longest_copy([np.empty(0, int), np.array([1])], np.array([1])).tolist() == [0, 1]
    assert longest_copy([], np.array([1])).tolist() == []


def test_copies_in_a_memory_map_are_found(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(5000, dtype=np.uint16))
    train = np.load(tmp_path / "ids.npy", mmap_mode="r")
    assert longest_copy([np.arange(4000, 4050)], train).tolist() == [50]


def test_entropy_distinct_and_repetition_have_their_exact_values():
    assert token_entropy(np.arange(8)) == pytest.approx(math.log(8))
    assert token_entropy(np.zeros(8, int)) == 0
    assert token_entropy(np.array([5, 5, 5, 9])) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    abab = np.array([1, 2, 1, 2, 1, 2])
    assert [distinct_ngrams(abab, n) for n in (1, 2, 3)] == [2 / 6, 2 / 5, 2 / 4]
    assert repetition(abab) == pytest.approx(1 / 3)
    assert repetition(np.arange(20)) == 0
    assert repetition(np.zeros(104, int)) == pytest.approx(1 - 1 / 101)


def test_figures_of_samples_too_short_for_them_are_undefined():
    assert math.isnan(token_entropy(np.empty(0, int)))
    assert math.isnan(distinct_ngrams(np.array([1, 2]), 3))
    assert math.isnan(repetition(np.array([1, 2, 3])))
    assert math.isnan(word_share("a 1 ?", {"a"}))


def test_words_are_runs_of_two_letters_or_more_in_their_own_case():
    vocabulary = corpus_words(iter(["The cat, a cat;", "x = don't"]))
    assert vocabulary == {"The", "cat", "don"}
    assert word_share("The cat the a dog7", vocabulary) == 2 / 4


def test_identical_samples_are_counted_once():
    assert distinct_samples([np.array([1, 2]), np.array([1, 2]), np.array([2, 1]), np.array([1])]) == 3 / 4
    assert distinct_samples(np.zeros((5, 3), int)) == 1 / 5


def measured(samples, texts, **changes):
    sets = {
        "samples": (samples, texts),
        **changes.get("references", {"held-out text": (np.array([[0, 1, 2, 3, 9, 9]]), ["the cat xx"])}),
    }
    figures = sample_figures(sets, train_ids=np.arange(6), vocabulary={"the", "cat"})
    own = figures.pop("samples")
    found = quality_measurements(own, references=figures, protocol=changes.get("protocol", {"steps": 4}))
    return {m.name: m for m in found}


def test_measurements_are_means_over_samples_with_their_standard_errors():
    found = measured(np.array([[1, 2, 3, 1, 2, 3], [4, 5, 4, 5, 4, 5]]), ["the cat", "cat dog"])
    assert list(found) == list(quality._UNITS)
    assert (found["word_share"].value, found["word_share"].stderr, found["word_share"].n) == (0.75, 0.25, 2)
    assert found["longest_copy"].value == 2.5
    assert found["longest_copy"].stderr == pytest.approx(0.5)
    assert found["longest_copy"].trivial == {"held-out text": 4.0}
    assert found["distinct_1"].value == pytest.approx((3 / 6 + 2 / 6) / 2)
    assert found["word_share"].trivial == {"held-out text": pytest.approx(2 / 3)}
    assert found["entropy"].unit == "nats/token"
    assert found["entropy"].protocol == {"steps": 4}


def test_samples_held_against_each_other_have_no_standard_error():
    found = measured(np.array([[1, 2, 3, 4, 5], [1, 2, 3, 4, 9]]), ["the cat sat on it", "the cat sat on me"])
    assert found["overlap_4"].value == pytest.approx((2 / 2 + 1 / 2) / 2)
    assert math.isnan(found["overlap_8"].value)
    assert found["self_bleu"].value == pytest.approx(self_bleu(["the cat sat on it", "the cat sat on me"]).mean())
    for name in ("self_bleu", "distinct_samples"):
        assert found[name].stderr is None
        assert found[name].protocol == {"steps": 4, "samples": 2}


def test_references_get_the_figures_they_would_get_as_samples():
    rng = np.random.default_rng(0)
    ids, texts = rng.integers(0, 9, (3, 40)), ["the cat", "dog", "cat"]
    as_samples = measured(ids, texts)
    as_reference = measured(ids[:1], texts[:1], references={"same": (ids, texts)})
    for name, figure in as_samples.items():
        assert as_reference[name].trivial["same"] == figure.value


def test_samples_without_words_are_left_out_of_the_share_of_words():
    found = measured(np.zeros((3, 6), int), ["the cat", "...", ""])
    assert (found["word_share"].value, found["word_share"].n, found["word_share"].stderr) == (1, 1, None)
    nothing = measured(np.zeros((1, 6), int), ["..."])["word_share"]
    assert (nothing.n, nothing.to_json()["value"]) == (0, None)
    json.dumps(nothing.to_json(), allow_nan=False)


def test_samples_of_unequal_length_are_measured():
    found = measured([np.array([1]), np.array([1, 2, 3, 4, 5])], ["the", "cat"])
    assert (found["repetition"].n, found["distinct_2"].n, found["entropy"].n) == (1, 1, 2)
    assert found["longest_copy"].value == 3


def test_empty_or_uneven_sets_are_refused_by_name():
    with pytest.raises(ValueError, match="samples: 0 rows"):
        measured([], [])
    with pytest.raises(ValueError, match="held-out text: 1 rows of ids and 0 texts"):
        measured(np.zeros((1, 4), int), [""], references={"held-out text": (np.zeros((1, 4), int), [])})


def test_measuring_changes_no_input():
    ids = np.array([[3, 1, 2, 2]])
    before, protocol = ids.copy(), {"seed": 1}
    found = measured(ids, ["cat"], protocol=protocol)
    protocol["seed"] = 2
    np.testing.assert_array_equal(ids, before)
    assert found["entropy"].protocol == {"seed": 1}


@pytest.mark.data
def test_text_is_told_from_shuffled_text():
    path = Path(__file__).resolve().parents[2] / "../shared/data/tinyshakespeare/input.txt"
    if not path.exists():
        pytest.skip("the shared data folder is absent")
    text = path.read_text()
    train, held_out = text[:500_000], text[1_000_000:1_004_800]
    shuffled = "".join(np.random.default_rng(0).permutation(list(held_out)))
    rows = {
        name: (
            np.frombuffer(t.encode(), np.uint8).reshape(-1, 160),
            [t[i : i + 160] for i in range(0, 4800, 160)],
        )
        for name, t in {"held-out text": held_out, "shuffled": shuffled}.items()
    }
    train_ids = np.frombuffer(train.encode(), np.uint8)
    figures = sample_figures(rows, train_ids=train_ids, vocabulary=corpus_words([train]))
    found = quality_measurements(figures["held-out text"], references=figures, protocol={})
    by_name = {m.name: m for m in found}
    assert by_name["word_share"].value > 0.8 > 0.2 > by_name["word_share"].trivial["shuffled"]
    assert by_name["longest_copy"].value > 10 > by_name["longest_copy"].trivial["shuffled"]
    assert by_name["entropy"].value == by_name["entropy"].trivial["held-out text"]
    assert by_name["overlap_8"].value > 0.3 > 0.05 > by_name["overlap_8"].trivial["shuffled"]
    assert by_name["overlap_4"].value > by_name["overlap_8"].value > by_name["overlap_16"].value
    assert by_name["self_bleu"].value > by_name["self_bleu"].trivial["shuffled"] > 0
