"""Answers out of responses: where the harness finds them, compared as numbers."""

import random

import pytest

from remask.reasoning_tasks.extraction import (
    flexible_answer,
    flexible_digits,
    plain_number,
    strict_answer,
    strict_digits,
)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("9 * 2 = <<9*2=18>>18\n#### 18", "18"),
        ("#### 1,000", "1000"),
        ("#### 18.", "18"),
        ("#### 18.00 dollars", "18"),
        ("#### -3", "-3"),
        ("#### 18 #### 19", "18"),  # the first mark counts, as in the harness
        ("#### $18", None),  # no dollar stands there in any reference
        ("####18", None),  # nor is the blank left out
        ("The answer is 18", None),
        ("#### ", None),
        ("", None),
    ],
)
def test_the_strict_answer_stands_right_behind_the_first_mark(response, answer):
    assert strict_answer(response) == answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("#### 18", "18"),
        ("She makes $18 a day.", "18"),
        ("It costs 1,250.50 in all, or so...", "1250.5"),
        ("16-3=13 and 9*2=18", "18"),
        ("#### 18\n\nQuestion: 7", "7"),
        ("minus -4.", "-4"),
        ("none at all.", None),
        ("...", None),
        ("", None),
    ],
)
def test_the_flexible_answer_is_the_last_number(response, answer):
    assert flexible_answer(response) == answer


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        *(
            ("1,000", "1000"),
            ("18.0", "18"),
            ("$18", "18"),
            ("18.", "18"),
            ("018", "18"),
            ("0.50", "0.5"),
            (".5", "0.5"),
        ),
        *(("-0", "0"), ("-0.0", "0"), ("-2.50", "-2.5"), ("1.2.3", "1.2.3"), ("", ""), ("0", "0"), ("00", "0")),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_numbers_are_compared_in_plain_digits(text, plain):
    assert plain_number(text) == plain


@pytest.mark.parametrize(
    ("response", "strict", "flexible"),
    [
        ("7 6 ( 1 ) #### 7 8 0", "780", "780"),
        ("#### 780", "780", "780"),
        ("#### 7 8 0 .", None, "780"),
        ("7 8 0", None, "780"),
        ("#### 1 #### 7 8", "78", "78"),
        ("7  8", None, "8"),
        ("####", None, None),
    ],
)
def test_digits_with_blanks_between_are_one_number(response, strict, flexible):
    assert (strict_digits(response), flexible_digits(response)) == (strict, flexible)


def test_both_ways_find_what_the_filters_of_the_harness_find():
    extraction = pytest.importorskip("lm_eval.filters.extraction")
    strict = extraction.RegexFilter(regex_pattern=r"#### (\-?[0-9\.\,]+)")
    flexible = extraction.RegexFilter(regex_pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    draw = random.Random(0)
    words = ["#### ", "####", "18", "-7", "1,000", "$3.50", " ", "\n", "a", ".", "x 4", "<<9*2=18>>"]
    texts = ["".join(draw.choices(words, k=8)) for _ in range(300)]
    theirs = [filter_.apply([[text] for text in texts], [{}] * len(texts)) for filter_ in (strict, flexible)]
    for text, (first,), (last,) in zip(texts, *map(list, theirs), strict=True):
        assert strict_answer(text) == (None if first == "[invalid]" else plain_number(first))
        if any(map(str.isdigit, last)):  # the harness takes bare punctuation for a number
            assert flexible_answer(text) == plain_number(last)
