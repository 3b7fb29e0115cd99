"""Tasks: made alike everywhere, answers checked exactly, nothing asked that was seen in training."""

import json
import random
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from remask.data.corpora import open_corpus
from remask.data.tables import GATHERED, open_pairs
from remask.data.tasks import (
    ARITHMETIC,
    ARITHMETIC3,
    COUNTDOWN,
    MULTIPLICATION,
    MULTIPLICATION4X4,
    SUDOKU4,
    TASKS,
    arithmetic,
    countdown,
    long_multiplication,
    multiplication,
    sudoku,
    task_readers,
)
from remask.data.tasks.written import is_equal, is_equal_behind_mark
from remask.errors import UserError

FEW = {"train": 100, "validation": 12, "test": 12}
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def made():
    return {name: task.pairs(random.Random(3), FEW) for name, task in TASKS.items()}


@pytest.mark.parametrize("name", TASKS)
def test_every_response_is_right_and_no_prompt_stands_in_two_splits(name, made):
    task, pairs = TASKS[name], made[name]
    assert {split: len(found) for split, found in pairs.items()} == FEW
    assert all(task.right(pair.prompt, pair.response, "") for found in pairs.values() for pair in found)
    prompts = [pair.prompt for found in pairs.values() for pair in found]
    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("name", TASKS)
def test_fewer_pairs_are_the_first_of_more(name, made):
    fewer = TASKS[name].pairs(random.Random(3), {"train": 40, "validation": 12, "test": 5})
    assert fewer == {split: made[name][split][: len(pairs)] for split, pairs in fewer.items()}
    assert [len(pairs) for pairs in fewer.values()] == [40, 12, 5]


@pytest.mark.parametrize("name", TASKS)
def test_the_same_draws_make_the_same_pairs(name, made):
    assert TASKS[name].pairs(random.Random(3), FEW) == made[name]
    assert TASKS[name].pairs(random.Random(4), FEW) != made[name]


@pytest.mark.parametrize("name", TASKS)
def test_a_guess_has_the_form_of_an_answer_and_is_seldom_right(name, made):
    draw = random.Random(1)
    answers = [TASKS[name].right(p.prompt, TASKS[name].guess(p.prompt, draw), "") for p in made[name]["train"]]
    assert sum(answers) < 0.2 * len(answers)
    assert TASKS[name].guess("no prompt at all", draw) is not None


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("response", ["", " ", "0", "1+1=2", ",", "x" * 16, "1" * 16, "٣", "9" * 5000])
def test_nonsense_is_wrong_and_never_an_error(name, response, made):
    assert not TASKS[name].right(made[name]["test"][0].prompt, response, "")
    assert not TASKS[name].right(response, response, "")


def test_there_are_288_grids_and_none_of_the_test_is_trained_on(made):
    assert len(set(sudoku.full_grids())) == 288
    grids = {split: {pair.response for pair in pairs} for split, pairs in made["sudoku4"].items()}
    assert not grids["train"] & grids["test"]
    assert not grids["train"] & grids["validation"]
    assert not grids["validation"] & grids["test"]


def test_a_sudoku_has_one_solution_and_the_checker_wants_the_clues_kept(made):
    pair = made["sudoku4"]["test"][0]
    fitting = [g for g in sudoku.full_grids() if all(c in ("0", d) for c, d in zip(pair.prompt, g, strict=True))]
    assert fitting == [pair.response]
    other = next(g for g in sudoku.full_grids() if g != pair.response)
    assert not sudoku.is_right(pair.prompt, other, "")
    assert sudoku.is_right("0" * 16, other, ""), "any grid will do where there are no clues"


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("90+95=185,11*185=2035,2035/37=55", True),
        ("95+90=185,185*11=2035,2035/37=55", True),
        ("90+95=185,11*185=2035,2035/37=56", False),  # wrong sum
        ("90+95=185,11*185=2035", False),  # ends elsewhere
        ("55+0=55", False),  # a number that was not given
        ("90+90=180,180-95=85,85-11=74,74-37=37", False),  # one used twice
        ("11*5=55", False),
        ("90-95=-5", False),
        ("90+95=185,11*185=2035,2035/37=55,", False),
    ],
)
def test_any_chain_that_uses_each_number_once_reaches_the_target(response, right):
    for prompt in ("90,11,37,95,55:", "90,11,37,95,55"):
        assert countdown.is_right(prompt, response, "") is right


def test_two_equal_numbers_may_both_be_used_and_division_must_come_out_even():
    assert countdown.is_right("5,5,10:", "5+5=10", "")
    assert not countdown.is_right("5,7,10:", "5+5=10", "")
    assert not countdown.is_right("7,2,3:", "7/2=3", "")


def test_the_order_of_numbers_or_factors_never_decides_the_split():
    assert multiplication._split("12*34") == multiplication._split("34*12")
    keys = [f"{a}*{b}" for a in range(1, 60) for b in range(1, 60)]
    assert {multiplication._split(key) for key in keys} == {"train", "validation", "test"}


CLUES = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def test_a_sudoku_of_nine_is_checked_by_its_rules_and_its_clues():
    assert sudoku.is_right(CLUES, SOLVED, "")
    assert not sudoku.is_right(CLUES, SOLVED[9:] + SOLVED[:9], "")
    assert not sudoku.is_right("0" * 81, SOLVED[:-1] + "1", "")
    shifted = sudoku.guess(CLUES, random.Random(1))
    assert sudoku.is_right("0" * 81, shifted, "")
    assert not sudoku.is_right(CLUES, shifted, "")


def test_long_multiplication_has_the_form_of_the_published_files():
    pair = long_multiplication.worked_out(2967, 6361)
    assert pair.prompt == "7 6 9 2 * 1 6 3 6"
    assert pair.response == (
        "7 6 9 2 0 + 0 2 0 8 7 1 ( 7 8 9 0 8 1 ) + 0 0 1 0 9 8 0 ( 7 8 0 1 7 0 1 ) + 0 0 0 2 0 8 7 1 "
        "#### 7 8 0 3 7 8 8 1"
    )


@pytest.mark.parametrize(
    ("response", "right"),
    [
        ("#### 7 8 0 3 7 8 8 1", True),
        ("#### 78037881", True),
        ("#### 1 8 8 7 3 0 8 7", False),  # highest first
        ("7 8 0 3 7 8 8 1", False),
        ("#### 7 8 0 3 7 8 8 1 .", False),
        ("#### 7 8 0 3 7 8 8", False),
    ],
)
def test_digits_behind_the_mark_answer_a_long_multiplication(response, right):
    assert MULTIPLICATION4X4.right("7 6 9 2 * 1 6 3 6", response, "") is right


@pytest.mark.parametrize(
    ("prompt", "value"),
    [
        ("23+45-17?", 51),
        ("(23+15)*2?", 76),
        ("12*5-4?", 56),
        ("((1*4+2)*4+31)*2?", 110),
        ("1+2*3?", None),
        ("7?", None),
    ],
)
def test_an_arithmetic_prompt_is_worked_out_as_it_is_written_or_not_at_all(prompt, value):
    assert arithmetic.value_of(prompt) == value


@pytest.mark.parametrize(
    ("response", "right", "in_full"),
    [
        ("23+15=38 38*2=76 #### 76", True, True),
        ("23+15=39 38*2=77 #### 76", True, False),  # wrong steps, right answer
        ("#### 76 ", True, False),
        ("23+15=38 38*2=76 #### 77", False, False),
        ("23+15=38 38*2=76", False, False),  # nothing behind the mark
        ("#### 76 #### 7", False, False),  # the last mark counts
        ("#### 76.", False, False),
    ],
)
def test_the_number_behind_the_mark_answers_arithmetic_and_steps_are_judged_apart(response, right, in_full):
    assert ARITHMETIC.right("(23+15)*2?", response, "") is right
    assert arithmetic.steps_are_right("(23+15)*2?", response) is in_full


def test_arithmetic_is_short_and_every_answer_is_asked_for_as_often():
    made = ARITHMETIC.pairs(random.Random(3), {"train": 4000, "validation": 20, "test": 20})
    answers = Counter(arithmetic.value_of(pair.prompt) for pair in made["train"])
    assert set(answers) == set(range(100))
    assert max(answers.values()) < 1.5 * 40
    assert max(len(pair.prompt + pair.response) for pair in made["train"]) <= 40
    assert all(arithmetic.steps_are_right(pair.prompt, pair.response) for pair in made["train"])
    longer = ARITHMETIC3.pairs(random.Random(3), FEW)["train"]
    assert {pair.response.count("=") for pair in longer} == {3}


def test_the_same_numbers_and_answer_are_one_problem_whatever_their_order():
    made = ARITHMETIC.pairs(random.Random(3), {"train": 4000, "validation": 20, "test": 20})
    pairs = [pair for found in made.values() for pair in found]
    keys = [(*sorted(re.findall("[0-9]+", pair.prompt)), arithmetic.value_of(pair.prompt)) for pair in pairs]
    assert len(set(keys)) == len(keys)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setitem(TASKS, "sudoku4", replace(SUDOKU4, sizes=FEW))


@pytest.mark.usefixtures("few")
def test_a_source_may_be_a_task_with_splits_of_its_own(tmp_path):
    corpus = open_corpus("sudoku4", max_documents=5, cache=tmp_path)
    assert corpus.paired
    assert [len(list(corpus.pairs(split))) for split in ("train", "validation", "test")] == [5, 5, 5]
    again = open_corpus("sudoku4", max_documents=5, cache=tmp_path)
    assert again.fingerprint == corpus.fingerprint
    assert list(again.walk()) == list(corpus.walk())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": "\n"}, "data.separator is given"),
        ({"validation": "a.txt"}, "data.validation is given"),
        ({"prompt_key": "a", "response_key": "b"}, "has no columns"),
    ],
)
def test_a_task_makes_its_own_prompts_and_splits(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_corpus("countdown", **options, cache=tmp_path)


def test_a_misspelt_task_is_named(tmp_path):
    with pytest.raises(UserError, match="did you mean 'countdown'"):
        open_corpus("cuontdown", cache=tmp_path)


def test_readers_take_what_was_made_the_first_time(tmp_path):
    task = replace(SUDOKU4, sizes=FEW)
    first = task_readers(task, cache=tmp_path)["test"]
    stamp = first.files[0].stat().st_mtime_ns
    assert task_readers(task, cache=tmp_path)["test"].files[0].stat().st_mtime_ns == stamp


def test_answers_behind_the_mark_are_compared_without_commas():
    assert is_equal_behind_mark("", "2*500=1000\n#### 1,000", "so it is\n#### 1000 ")
    assert not is_equal_behind_mark("", "1000", "#### 1000")
    assert not is_equal_behind_mark("", "#### 100", "#### 1000")
    assert is_equal("", " a b\n", "a b")
    assert not is_equal("", "a  b", "a b")


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not there")
def test_the_checkers_agree_with_published_solutions():
    lines = (SHARED / "countdown4" / "eval.jsonl").read_text().splitlines()
    assert all(COUNTDOWN.right(row["input"], row["output"], "") for row in map(json.loads, lines))
    rows = [line.split(",") for line in (SHARED / "sudoku4" / "test.csv").read_text().splitlines()[1:]]
    assert all(SUDOKU4.right(puzzle, solution, "") for puzzle, solution in rows)
    assert sum(SUDOKU4.right(puzzle, other, "") for (puzzle, _), (_, other) in pairwise(rows)) < 10
    assert MULTIPLICATION.right("5632*7434=", str(5632 * 7434), "")
    rows = [line.split(",") for line in (SHARED / "sudoku9" / "test.csv").read_text().splitlines()[1:]]
    assert all(SUDOKU4.right(puzzle, solution, "") for puzzle, solution in rows)


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not there")
@pytest.mark.parametrize("name", ["4x4_valid", "4x4_test", "5x5_valid", "5x5_test"])
def test_published_long_multiplications_are_what_the_generator_writes(name):
    pairs = list(open_pairs(SHARED / "multiplication" / f"{name}.txt", columns=GATHERED))
    factors = [map(long_multiplication.number_of, pair.prompt.split(" * ")) for pair in pairs]
    assert [long_multiplication.worked_out(*both) for both in factors] == pairs
