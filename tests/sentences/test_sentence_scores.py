"""Scores, features, whitening, probes and TF-IDF, each against its definition."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_sentences import GRADED, SINGLE, apart, same_letter, toy_data

from remask.sentences.baselines import CHARACTERS, WORDS, all_positive, most_frequent, tfidf_cosines, tfidf_probe
from remask.sentences.features import COSINES, Whitening, cosines, features, with_cosines
from remask.sentences.metrics import accuracy, f1_of, matthews, metric_of, pearson, spearman, standard_error
from remask.sentences.probes import probe
from remask.sentences.splits import Labelled, folder_splits, parted, task_data
from remask.sentences.tasks import SENTENCE_TASKS

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SAID, TRUE = np.array([1, 1, 1, 0, 0, 1]), np.array([1, 0, 1, 0, 1, 1])


def test_scores_of_classes_are_those_of_their_definitions():
    tp, fp, fn, tn = 3, 1, 1, 1
    assert accuracy(SAID, TRUE) == pytest.approx(4 / 6)
    assert f1_of(1)(SAID, TRUE) == pytest.approx(2 * tp / (2 * tp + fp + fn))
    bottom = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    assert matthews(SAID, TRUE) == pytest.approx((tp * tn - fp * fn) / bottom)
    assert f1_of(2)(SAID, TRUE) == 0.0


def test_correlations_are_those_of_their_definitions_with_ties_ranked_by_their_mean():
    x, y = np.array([1.0, 2.0, 2.0, 5.0]), np.array([0.1, 3.0, 0.2, 9.0])
    ranks = np.array([1, 2.5, 2.5, 4]), np.array([1, 3, 2, 4])
    assert spearman(x, y) == pytest.approx(float(np.corrcoef(*ranks)[0, 1]))
    assert pearson(x, y) == pytest.approx(float(np.corrcoef(x, y)[0, 1]))
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["matthews", "spearman", "pearson"])
def test_a_constant_prediction_has_no_correlation(name):
    assert metric_of(name, positive=None)(np.ones(6), TRUE) == 0.0


def error_of(predictions, labels, *, groups=None, against=None):
    groups = np.arange(len(labels)) if groups is None else groups
    return standard_error(accuracy, predictions, labels, groups=groups, seed=0, against=against)


def test_the_error_of_a_share_is_the_binomial_one_and_seeds_that_differ_add_to_it():
    draw = np.random.default_rng(0)
    labels, predicted = np.zeros(400, dtype=np.int64), (draw.random(400) < 0.3).astype(np.int64)
    share = predicted.mean()
    alone = error_of([predicted], labels)
    assert alone == pytest.approx(math.sqrt(share * (1 - share) / 400), rel=0.15)
    other = predicted.copy()
    other[:80] = 1
    assert error_of([predicted, other], labels) > 1.5 * alone
    assert error_of([predicted, predicted], labels) == pytest.approx(alone)


def test_the_error_of_a_difference_is_that_of_pairs():
    draw = np.random.default_rng(1)
    labels = np.zeros(400, dtype=np.int64)
    own = (draw.random(400) < 0.4).astype(np.int64)
    other = own.copy()
    other[:40] = 1 - other[:40]  # the two disagree about a tenth
    gains = (own == labels).astype(float) - (other == labels)
    error = error_of([own], labels, against=[other])
    assert error == pytest.approx(gains.std() / math.sqrt(400), rel=0.15)
    assert error < 0.7 * error_of([own], labels)
    assert error_of([own], labels, against=[own]) == 0.0


def test_examples_that_belong_together_are_resampled_together():
    draw = np.random.default_rng(2)
    labels, right = np.zeros(400, dtype=np.int64), draw.random(100) < 0.6
    fours = draw.permutation(np.repeat(np.arange(100), 4))
    alike = 1 - right[fours].astype(np.int64)  # all four of a group are predicted right, or none
    of_groups = math.sqrt(right.mean() * (1 - right.mean()) / 100)
    assert error_of([alike], labels, groups=fours) == pytest.approx(of_groups, rel=0.15)
    assert error_of([alike], labels) == pytest.approx(of_groups / 2, rel=0.15)
    assert error_of([alike], labels, groups=np.zeros(400, dtype=np.int64)) == 0.0  # refused before: `TaskJudge.measure`


def test_the_spread_of_both_sides_seeds_stands_in_the_error_of_a_difference():
    labels, good, bad = np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64), np.ones(4, dtype=np.int64)
    # always right or always wrong, whatever is resampled: all that is left is s²/S of each side, 1/2 / 2
    assert error_of([good], labels, against=[good, bad]) == pytest.approx(0.5)
    assert error_of([good, bad], labels, against=[good]) == pytest.approx(0.5)
    three = error_of([good, good, bad], labels, against=[good, bad])
    assert three == pytest.approx(math.sqrt(1 / 9 + 1 / 4))


def test_trainings_of_the_same_seeds_are_paired():
    labels, good, bad = np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64), np.ones(4, dtype=np.int64)
    assert error_of([good, bad], labels, against=[good, bad]) == 0.0
    assert error_of([good, bad], labels, against=[bad, good]) == pytest.approx(1.0)


def vectors(*values):
    return np.array(values, dtype=np.float32)


def test_features_of_a_pair_are_both_vectors_their_distance_and_their_product_slot_by_slot():
    u, v = vectors([[1.0, 2.0], [3.0, 0.0]]), vectors([[2.0, 2.0], [1.0, 4.0]])
    assert features([u, v]).tolist() == [[2, 1, 1.5, 3, 1.5, 2, 2.5, 2]]
    pooled_first = features([u.mean(1, keepdims=True), v.mean(1, keepdims=True)])
    assert pooled_first.tolist() == [[2, 1, 1.5, 3, 0.5, 2, 3, 3]]  # slots that differ in opposite ways cancel
    assert features([u]).tolist() == [[2, 1]]


def test_a_cosine_is_one_of_a_sentence_with_itself_and_zero_where_nothing_is_said():
    u = vectors([[3.0, 4.0]], [[1.0, 0.0]], [[0.0, 0.0]])
    v = vectors([[3.0, 4.0]], [[0.0, 2.0]], [[1.0, 1.0]])
    assert cosines(u, v).tolist() == pytest.approx([1.0, 0.0, 0.0])


def test_whitened_vectors_are_uncorrelated_with_unit_variance_and_dead_directions_are_gone():
    draw = np.random.default_rng(1)
    flat = draw.normal(size=(300, 3)) @ draw.normal(size=(3, 5))  # 3 of 5 directions vary
    x = (flat + 7.0)[:, None].astype(np.float32)
    white = Whitening.fitted(x)(x)[:, 0]
    assert white.shape == (300, 3)
    assert np.allclose(np.cov(white, rowvar=False, bias=True), np.eye(3), atol=1e-3)


def test_cosines_of_whitened_vectors_do_not_change_with_an_invertible_map():
    draw = np.random.default_rng(2)
    x = draw.normal(size=(200, 1, 4)).astype(np.float32)
    mapped = (x @ draw.normal(size=(4, 4)) + 3.0).astype(np.float32)
    before, after = (Whitening.fitted(each)(each) for each in (x, mapped))
    plain = np.abs(cosines(x[:100], x[100:]) - cosines(mapped[:100], mapped[100:])).max()
    assert np.allclose(cosines(before[:100], before[100:]), cosines(after[:100], after[100:]), atol=1e-3)
    assert plain > 0.5


def test_a_probe_finds_a_line_and_degrees_and_chooses_its_strength_without_the_reported_examples():
    draw = np.random.default_rng(3)
    x, seen = draw.normal(size=(200, 4)), draw.normal(size=(300, 4))
    slope = np.array([2.0, -1.0, 0.0, 0.5])
    parts = parted(apart(300), seed=0)
    above = (x @ slope > 0).astype(np.int64)
    classes = probe(seen, (seen @ slope > 0).astype(np.int64), x, parts=parts, metric=accuracy, graded=False)
    assert accuracy(classes.predictions, above) > 0.95
    degrees = probe(seen, seen @ slope + 4.0, x, parts=parts, metric=spearman, graded=True)
    assert pearson(degrees.predictions, x @ slope) > 0.99
    chance = probe(seen, draw.integers(0, 2, 300), x, parts=parts, metric=accuracy, graded=False)
    assert accuracy(chance.predictions, above) < 0.7


def tfidf_by_definition(texts, one, other):
    """log-scaled counts times ln((1 + n) / (1 + df)) + 1, as unit vectors."""
    documents = [text.split() for text in texts]
    vocabulary = sorted({word for document in documents for word in document})
    weight = {w: math.log((1 + len(documents)) / (1 + sum(w in d for d in documents))) + 1 for w in vocabulary}

    def vector(text):
        found = text.split()
        values = np.array([(1 + math.log(found.count(w))) * weight[w] if w in found else 0.0 for w in vocabulary])
        return values / np.linalg.norm(values)

    return float(vector(one) @ vector(other))


def test_the_cosine_of_tf_idf_is_that_of_its_definition():
    told = ("ab cd ef", "ab ab be", "cd fa")
    held = Labelled(texts=(("ab cd ab",), ("be ab",)), labels=np.array([1]))
    data = replace(toy_data(), sentences=told, reported=held)
    (found,) = tfidf_cosines(data, WORDS)
    assert found == pytest.approx(tfidf_by_definition(told, "ab cd ab", "be ab"))


def test_a_probe_on_tf_idf_learns_what_letters_tell():
    data = toy_data(SINGLE, train=200)
    found = tfidf_probe(data, parts=parted(data.train, seed=0), metric=accuracy)
    assert accuracy(found.predictions, data.reported.labels) > 0.9


def test_a_probe_on_tf_idf_of_pairs_learns_that_sentences_share_their_words():
    draw = np.random.default_rng(4)

    def examples(count):
        labels = draw.integers(0, 2, count)
        first = [draw.choice(8, 3, replace=False) for _ in range(count)]
        other = [u if label else draw.choice(8, 3, replace=False) for u, label in zip(first, labels, strict=True)]
        named = [tuple(" ".join(f"word{k}" for k in row) for row in side) for side in (first, other)]
        return Labelled(texts=(named[0], named[1]), labels=labels)

    seen, held = examples(200), examples(60)
    data = replace(toy_data(), train=seen, reported=held, sentences=(*seen.texts[0], *seen.texts[1]))
    found = tfidf_probe(data, parts=parted(data.train, seed=0), metric=accuracy)
    assert accuracy(found.predictions, held.labels) > 0.9


def test_majority_and_all_positive_are_the_scores_of_constant_answers():
    data = toy_data()
    data.train.labels[:] = 0
    positive = float(same_letter(40, seed=7).labels.mean())
    labels = data.reported.labels
    assert accuracy(most_frequent(data), labels) == pytest.approx(1 - positive)
    assert f1_of(1)(most_frequent(data), labels) == 0.0
    assert f1_of(1)(all_positive(data), labels) == pytest.approx(2 * positive / (1 + positive))


def test_always_the_same_degree_has_no_correlation():
    data = toy_data(GRADED)
    assert spearman(most_frequent(data), data.reported.labels) == 0.0


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not there")
def test_tf_idf_reaches_on_sts_b_what_is_known_of_it():
    task = SENTENCE_TASKS["stsb"]
    data = task_data(task, folder_splits(SHARED, task), wanted=None, limit=None, seed=0)
    assert (len(data.train), len(data.reported), data.overlapping) == (5732, 1379, 17)
    letters, words = (spearman(tfidf_cosines(data, kind), data.reported.labels) for kind in (CHARACTERS, WORDS))
    assert 0.68 < letters < 0.72
    assert 0.62 < words < letters


def test_the_probe_of_a_pair_is_told_cosines_that_a_penalty_leaves_their_say():
    """Among a thousand columns of noise, two sentences that are alike are found by their cosine."""
    draw = np.random.default_rng(3)
    u = draw.normal(size=(400, 1, 250)).astype(np.float32)
    alike = draw.random(400) < 0.5
    v = np.where(alike[:, None, None], u, 0) + 8 * draw.normal(size=u.shape).astype(np.float32)
    whiten = Whitening.fitted(np.concatenate([u, v]))
    columns = with_cosines([u, v], whiten)
    assert columns.shape == (400, 4 * 250 + COSINES)
    assert with_cosines([u], whiten).shape == (400, 250)
    seen, labels = columns[:300], alike.astype(np.int64)
    told = {"parts": parted(apart(300), seed=0), "metric": accuracy, "graded": False}
    scores = [
        accuracy(probe(seen, labels[:300], columns[300:], **told, plain=k).predictions, labels[300:]) for k in (0, 2)
    ]
    assert scores[1] > max(0.8, scores[0] + 0.05)
