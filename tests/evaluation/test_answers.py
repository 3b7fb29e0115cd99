"""Shares of right answers: exact on a handful, beside what trivial answers get."""

import math

import pytest

from remask.evaluation.answers import Answer, answer_measurements, most_common_response, share_error


def answer(prompt, response, reference, *, ended=True):
    return Answer(prompt=prompt, response=response, reference=reference, ended=ended)


ANSWERS = [
    answer("1", "a", "a"),
    answer("2", " b", "b", ended=False),
    answer("3", "x", "c"),
    answer("4", None, "d", ended=False),
]


def stripped(prompt, response, reference):
    return response.strip() == reference


def measured(answers=ANSWERS, **options):
    trivial = {"most common response": lambda answer: ["c"], "guess": lambda answer: ["a", "b", "c", "d"]}
    figures = answer_measurements(answers, right=stripped, trivial=trivial, protocol={"steps": 4}, **options)
    return {figure.name: figure for figure in figures}


def test_shares_and_errors_are_those_of_the_answers():
    figures = measured()
    assert figures["answers_right"].value == 0.5
    assert figures["answers_right"].stderr == pytest.approx(math.sqrt(0.5 * 0.5 / (4 + 4)))
    assert figures["answers_equal"].value == 0.25
    assert figures["answers_ended"].value == 0.5
    assert all(figure.n == 4 and figure.protocol == {"steps": 4} for figure in figures.values())


def test_trivial_answers_are_judged_by_the_same_checker():
    assert measured()["answers_right"].trivial == {"most common response": 0.25, "guess": 0.25}


def test_one_answer_says_little_and_none_is_refused():
    assert measured(ANSWERS[:1])["answers_right"].stderr == pytest.approx(share_error(1, 1))


def test_none_right_of_a_few_is_not_said_to_be_none_for_certain():
    assert share_error(0, 10) == pytest.approx(math.sqrt(2 / 14 * 12 / 14 / 14))
    assert share_error(10, 10) == pytest.approx(share_error(0, 10))
    assert 0 < share_error(0, 1000) < share_error(0, 10)
    with pytest.raises(ValueError, match="no answer"):
        measured([])


def test_the_most_common_response_is_the_first_of_equals():
    assert most_common_response(["b", "a", "a", "b", "c"]) == "b"


def test_the_same_prompts_have_the_same_identity_whatever_was_answered():
    others = [answer("1", "z", "a"), answer("2", None, "b"), answer("3", "c", "c"), answer("4", "d", "d")]
    first, second = (measured(answers)["answers_right"].examples for answers in (ANSWERS, others))
    assert first.identity == second.identity != measured(ANSWERS[::-1])["answers_right"].examples.identity
    assert (first.values, first.weights) == ([1.0, 1.0, 0.0, 0.0], None)
    assert second.values == [0.0, 0.0, 1.0, 1.0]
