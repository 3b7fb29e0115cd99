"""Reasoning tasks out of files: which questions, which examples, what is right, what stands beside it."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from remask.data.tasks import ARITHMETIC, TASKS
from remask.errors import UserError
from remask.reasoning_tasks.exams import exam_of, open_splits
from remask.reasoning_tasks.names import REASONING_TASKS
from remask.reasoning_tasks.tasks import reasoning_task

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
EVERY = {"wanted": None, "limit": None, "shots": 0, "seed": 1}
LONG = "7 6 9 2 * 1 6 3 6"
PRODUCT = "#### 7 8 0 3 7 8 8 1"
GRID = "1234341221434321"


def lines(path: Path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")


@pytest.fixture
def folder(tmp_path):
    """Tiny files in the forms of the published ones."""
    train = [{"question": f"{k} and 1?", "answer": f"<<{k}+1={k + 1}>>\n#### {min(k + 1, 4)}"} for k in range(8)]
    lines(tmp_path / "gsm8k" / "train.jsonl", train)
    lines(tmp_path / "gsm8k" / "test.jsonl", [{"question": f"{k} and 2?", "answer": f"#### {k + 2}"} for k in range(9)])
    lines(tmp_path / "gsm8k_eq" / "valid.txt", ["5 twice?||<<5*2=10>> #### 10", "None?|| #### 1,000"])
    lines(tmp_path / "countdown4" / "eval.jsonl", [{"input": "1,2,3,4,10", "output": "1+2=3,3+3=6,6+4=10"}])
    lines(tmp_path / "countdown3" / "test.jsonl", [{"input": "5,5,1", "output": "11"}])
    lines(tmp_path / "sudoku4" / "test.csv", ["puzzle,solution", f"1200341221434321,{GRID}"])
    lines(tmp_path / "multiplication" / "4x4_test.txt", [f"{LONG}||{PRODUCT}"])
    return tmp_path


def opened(name, place, tmp_path, **changes):
    task = reasoning_task(name)
    splits = open_splits(task, place=None if place is None else str(place), cache=tmp_path / "cache")
    return exam_of(task, splits, **{**EVERY, **changes})


def test_files_are_read_as_published_and_test_is_asked_where_it_is_there(folder, tmp_path):
    exam = opened("gsm8k", folder, tmp_path)
    assert (exam.split, len(exam.questions), exam.examples) == ("test", 9, ())
    assert exam.questions[0].prompt == "0 and 2?"
    assert exam.common == "#### 4", "the answer that is most common in training"
    equations = opened("gsm8k_eq", folder, tmp_path)
    assert (equations.split, equations.questions[1].response) == ("valid", " #### 1,000")
    assert equations.common is None
    assert opened("countdown4", folder, tmp_path).questions[0].prompt == "1,2,3,4,10:"
    assert opened("countdown3", folder, tmp_path).questions[0].prompt == "5,5,1,11:"
    assert opened("multiplication4x4", folder, tmp_path).questions[0].prompt == LONG
    assert opened("sudoku4", folder, tmp_path).questions[0].response == GRID


def test_questions_are_spread_over_the_split_and_their_identity_is_theirs_alone(folder, tmp_path):
    few = opened("gsm8k", folder, tmp_path, limit=3)
    assert [pair.prompt for pair in few.questions] == ["0 and 2?", "3 and 2?", "6 and 2?"]
    assert few.identity == opened("gsm8k", folder, tmp_path, limit=3, shots=2, seed=9).identity
    assert few.identity != opened("gsm8k", folder, tmp_path).identity


def test_examples_are_drawn_from_training_by_the_seed(folder, tmp_path):
    two = opened("gsm8k", folder, tmp_path, shots=2).examples
    assert two == opened("gsm8k", folder, tmp_path, shots=2).examples
    assert all("and 1?" in pair.prompt for pair in two)
    drawn = {opened("gsm8k", folder, tmp_path, shots=2, seed=seed).examples for seed in range(6)}
    assert len(drawn) > 1


@pytest.mark.parametrize(
    ("name", "place", "changes", "message"),
    [
        ("gsm8k", "{}", {"shots": 9}, "--shots 9: gsm8k has 8 training questions"),
        ("gsm8k", "{}", {"wanted": "validation"}, "no validation split; there are: train .*, test "),
        ("countdown3", "{}", {"shots": 1}, "countdown3 has 0 training questions"),
        ("sudoku9", "{}", {}, "no folder sudoku9/ in it"),
        ("multiplication5x5", "{}", {}, "no file of multiplication5x5: none is called 5x5_train"),
        ("gsm8k", None, {}, "--reasoning FOLDER, with gsm8k/ in it, or --reasoning hf"),
        ("sudoku9", None, {}, "--task sudoku9 needs --reasoning FOLDER"),
    ],
)
def test_what_is_missing_is_said_in_a_line(name, place, changes, message, folder, tmp_path):
    with pytest.raises(UserError, match=message):
        opened(name, place and folder, tmp_path, **changes)


def test_an_answer_without_a_mark_is_refused_with_its_file(folder, tmp_path):
    lines(folder / "gsm8k" / "test.jsonl", [{"question": "1?", "answer": "one"}])
    with pytest.raises(UserError, match=r"test\.jsonl: an answer has no #### with a number behind it: 'one'"):
        opened("gsm8k", folder, tmp_path)


def test_without_a_folder_a_task_is_made_where_it_can_be(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "arithmetic", replace(ARITHMETIC, sizes={"train": 50, "validation": 20, "test": 40}))
    exam = opened("arithmetic", None, tmp_path, limit=20, shots=3)
    assert (exam.split, len(exam.questions), len(exam.examples)) == ("test", 20, 3)
    assert all(exam.task.strict(pair.prompt, pair.response, pair.response) for pair in exam.questions)
    assert exam.common is not None
    assert exam.common.startswith("#### ")


RIGHT = {
    "gsm8k": ("2 and 2?", "<<2+2=4>>\n#### 4", "so it is 4.0", "#### 5"),
    "gsm8k_eq": ("2 and 2?", "<<2+2=4>> #### 4", "#### 4 or $4", "#### 5 or 6"),
    "arithmetic": ("2+2+1?", "2+2=4 4+1=5 #### 5", "it is 5", "2+2=4"),
    "arithmetic3": ("2+2+1-1?", "#### 4", "4", "5"),
    "arithmetic4": ("2+2+1-1+3?", "#### 7", "7", "6"),
    "countdown": ("5,5,10:", "5+5=10", "5 + 5 = 10 done", "10"),
    "countdown3": ("5,5,1,11:", "5+5=10,10+1=11", "steps: 5+5=10, 10+1=11", "5+5=10"),
    "countdown4": ("1,2,3,4,10:", "1+2=3,3+3=6,6+4=10", " 1+2=3, 3+3=6,6+4=10.", "1+2=3,3+3=6"),
    "multiplication": ("12*34=", "408", "it is 408.", "407"),
    "multiplication3x3": ("0 0 1 * 0 0 1", "#### 0 0 0 0 1", "0 0 0 0 1", "#### 1 0"),
    "multiplication4x4": (LONG, PRODUCT, "7 8 0 3 7 8 8 1 .", "#### 7 8"),
    "multiplication5x5": ("1 0 0 0 1 * 1 0 0 0 1", "#### 1 0 0 0 2 0 0 0 1", "1 0 0 0 2 0 0 0 1", "#### 2"),
    "sudoku4": ("1200341221434321", GRID, "1234 3412 2143 4321", "1234" * 4),
    "sudoku9": (
        "0" * 80 + "9",
        "534678912672195348198342567859761423426853791713924856961537284287419635345286179",
        "x 534678912 672195348 198342567 859761423 426853791 713924856 961537284 287419635 345286179",
        "1" * 81,
    ),
}


@pytest.mark.parametrize("name", REASONING_TASKS)
def test_each_task_takes_its_own_answers_strictly_others_flexibly_and_wrong_ones_never(name):
    task, (prompt, answer, loose, wrong) = reasoning_task(name), RIGHT[name]
    assert task.strict(prompt, answer, answer)
    assert task.flexible(prompt, answer, answer)
    assert task.flexible(prompt, loose, answer)
    for response in (wrong, "", "nonsense", "9" * 5000):
        assert not task.strict(prompt, response, answer)
        assert not task.flexible(prompt, response, answer)
    assert task.strict(prompt, task.shortest(answer), answer)


@pytest.mark.parametrize("name", REASONING_TASKS)
def test_what_stands_beside_an_accuracy_can_be_asked_about_any_question(name):
    task = reasoning_task(name)
    for say in task.rivals.values():
        assert isinstance(say(RIGHT[name][0], Random(1)), str)


def test_the_last_number_of_a_question_is_an_answer_without_thought():
    say = reasoning_task("gsm8k").rivals["last number of the question"]
    assert say("He has 3 apples and buys 1,200 more.", Random(1)) == "#### 1200"
    assert say("None?", Random(1)) == "#### 0"


PUBLISHED = {
    **{"gsm8k": 1319, "gsm8k_eq": 1319, "countdown3": 256, "countdown4": 500, "sudoku4": 500, "sudoku9": 500},
    **{"multiplication4x4": 1000, "multiplication5x5": 1000},
}


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not there")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_answers_are_right_by_both_ways_of_reading(name, tmp_path):
    exam = opened(name, SHARED, tmp_path)
    assert len(exam.questions) == PUBLISHED[name]
    if name != "countdown3":  # which has targets alone
        for check in (exam.task.strict, exam.task.flexible):
            assert all(check(pair.prompt, pair.response, pair.response) for pair in exam.questions)
