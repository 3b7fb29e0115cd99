"""MAUVE: 1 for a set against itself, near 0 for one that shares no bucket, the same number every time."""

from dataclasses import replace

import numpy as np
import pytest

from remask.evaluation.mauve import buckets_for, mauve_caution, mauve_measurement, mauve_score


def states(seed, *, shift=0.0, n=120):
    return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32) + np.float32(shift)


def test_a_set_against_itself_gets_one_and_another_text_nearly_nothing():
    text = states(0)
    assert mauve_score(text, text, buckets=12) == pytest.approx(1.0, abs=1e-6)
    assert mauve_score(states(1, shift=20.0), text, buckets=12) < 0.02
    assert 0.3 < mauve_score(states(1), text, buckets=12) < 1.0


def test_the_score_is_the_same_number_every_time_and_nothing_is_written(capfd):
    first = mauve_score(states(1), states(0), buckets=12)
    assert mauve_score(states(1), states(0), buckets=12) == first
    assert capfd.readouterr() == ("", "")


def test_samples_stand_beside_other_sets_and_the_protocol_says_what_decides():
    text = states(0)
    others = {"other held-out text": states(2), "garbage": states(3, shift=20.0)}
    figure = mauve_measurement(states(1, shift=0.3), text, others=others, buckets=12, protocol={"features": "x"})
    assert figure.trivial["garbage"] < figure.value < figure.trivial["other held-out text"]
    assert figure.protocol == {"features": "x", "samples": 120, "buckets": 12, "scaling": 5, "kmeans_starts": 5}
    assert (figure.n, figure.stderr) == (120, None)
    caution = mauve_caution(figure)
    assert caution is not None
    assert "MAUVE of 120 texts in 12 buckets: the paper has 5000" in caution
    assert "noise" not in caution


def test_few_texts_a_bucket_are_called_noise_and_the_paper_s_number_nothing():
    text = states(0, n=8)
    few = mauve_measurement(text, text, others={}, buckets=2, protocol={})
    assert "noise" in (mauve_caution(few) or "")
    assert mauve_caution(replace(few, n=5000, protocol={"buckets": 500})) is None
    assert [buckets_for(n) for n in (4, 20, 5000)] == [2, 2, 500]
