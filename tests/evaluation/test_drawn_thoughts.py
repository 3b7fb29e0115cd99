"""How drawn thoughts look: alike to every question, one token over and over, or as varied as the text itself."""

import numpy as np
import pytest

from remask.evaluation.drawn_thoughts import drawn_measurements
from remask.judgement.thoughts import questions_of_one_length
from thoughts import TOKENIZER, question_rows

HELD_OUT = [np.array([5, 6, 7, 8, 9]), np.array([5, 6, 7, 9, 9])]


def figures(drawn):
    return {m.name: m for m in drawn_measurements(drawn, HELD_OUT, protocol={"seed": 1})}


def test_the_same_to_every_question_is_one_text_of_two():
    texts = [np.array([1, 2, 3, 4]), np.array([4, 3, 2, 1])]
    found = figures([texts, texts])
    assert found["distinct_over_questions"].value == 0.5
    assert found["distinct_over_questions"].trivial == {"held-out text": 1.0}
    assert found["distinct_over_noise"].value == 1.0


def test_one_right_text_for_each_question_is_unlike_over_questions_and_alike_over_noise():
    found = figures([[HELD_OUT[0]] * 4, [HELD_OUT[1]] * 4])
    assert found["distinct_over_questions"].value == 1.0
    assert found["distinct_over_noise"].value == 0.25
    assert found["distinct_over_noise"].trivial == {}


def test_one_token_over_and_over_is_repetition_of_id_0():
    nothing = np.zeros(24, dtype=np.int64)
    found = figures([[nothing], [nothing]])
    assert found["id_0_share"].value == 1.0
    assert found["id_0_share"].trivial == {"held-out text": 0.0}
    assert found["repetition"].value == pytest.approx(20 / 21)


def test_texts_that_are_empty_are_alike_and_repeat_nothing():
    found = figures([[np.array([], dtype=np.int64)]] * 2)
    assert set(found) == {"distinct_over_questions", "distinct_over_noise"}


def test_questions_are_the_first_unlike_ones_of_the_commonest_length():
    rows = question_rows(("11=?2", "1=?2", "3=?4", "3=?5", "5=?6"))
    prompt, held_out = questions_of_one_length([rows], most=2)
    asked = [TOKENIZER.decode(ids[fixed]) for ids, fixed in zip(prompt.ids, prompt.fixed, strict=True)]
    assert asked == ["1=?", "3=?"]
    assert TOKENIZER.decode(held_out[1]).startswith("3=?4")
