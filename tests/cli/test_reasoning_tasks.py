"""`remask evaluate --task gsm8k …` through the command that a user types."""

import json
import shutil

import pytest
from command import BYTES, newest, refused, succeeds

from remask.cli.meter import Meter
from remask.cli.reasoning import reasoning_cautions
from remask.evaluation.measurement import Measurement
from remask.runs import Registry


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """GSM8K of few made-up questions, and a sudoku of as many cells as a row of the models has tokens."""
    home = tmp_path_factory.mktemp("reasoning")
    (home / "sudoku4").mkdir()
    (home / "sudoku4" / "test.csv").write_text("puzzle,solution\n1200341221434321,1234341221434321\n")
    (home / "gsm8k").mkdir()
    for split, count in (("train", 40), ("test", 6)):
        rows = [{"question": f"{split[1]}{k}?", "answer": f"#### {k}"} for k in range(count)]
        (home / "gsm8k" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return home


@pytest.fixture(scope="module")
def asked(questions, cache, tmp_path_factory):
    """A home with a masked diffusion run and an autoregressive one of the same pairs."""
    home = tmp_path_factory.mktemp("asked") / "runs"
    pairs = [f"data.source={questions}/gsm8k/train.jsonl", "data.prompt_key=question", "data.response_key=answer"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REMASK_HOME", str(home))
        patch.setenv("REMASK_CACHE", str(cache))
        for recipe in ("ar-file", "mdlm-file"):
            succeeds("train", recipe, *BYTES, *pairs)
    return home


@pytest.fixture
def pair(home, asked):
    """A copy of that home of this test's own."""
    shutil.copytree(asked, home)
    return home


def test_a_task_is_asked_of_two_runs_recorded_on_both_and_told_with_their_difference(pair, questions):
    before = newest(pair)[0].headline
    options = ["--reasoning", questions, "--reasoning-limit", "4", "--against", "ar-file", "--steps", "2"]
    done = succeeds("evaluate", "last", "--task", "gsm8k", *options, "--json")
    figures = {figure["name"]: figure for figure in done.objects}
    accuracies = ["accuracy_strict", "accuracy_flexible"]
    assert list(figures) == [
        *accuracies,
        *("answers_equal", "answers_ended"),
        *(f"{name}_difference" for name in accuracies),
    ]
    for name in accuracies:
        assert set(figures[name]["trivial"]) == {"majority answer", "last number of the question"}
        assert (figures[name]["n"], figures[name]["protocol"]["split"]) == (4, "test")
        assert figures[name]["stderr"] > 0
    registry = Registry(pair)
    first, second = (registry.find(name) for name in ("mdlm-file", "ar-file"))
    kept = {run.id: {row["name"]: row["value"] for row in registry.evaluations(run.id)} for run in (first, second)}
    gap = figures["accuracy_strict_difference"]
    assert gap["protocol"]["against"] == second.id
    assert gap["value"] == kept[first.id]["accuracy_strict"] - kept[second.id]["accuracy_strict"]
    assert newest(pair)[0].headline == before
    told = succeeds("compare", "mdlm-file", "ar-file").out
    assert "accuracy_strict" in told
    assert "over 4 examples in pairs" in told


def test_examples_and_what_is_not_beaten_are_said_below_the_table(pair, questions):
    options = ["--reasoning", questions, "--reasoning-limit", "2", "--length", "16", "--steps", "1"]
    done = succeeds("evaluate", "last", "--task", "gsm8k", *options)
    assert "accuracy_flexible" in done.out
    assert "accuracy_strict: 0.000 does not beat" in done.out
    assert "training text" not in done.out
    assert (
        "are in the run's training text"
        in succeeds("evaluate", "last", "--task", "gsm8k", "--reasoning", _with_known(questions), "--steps", "1").out
    )


def _with_known(questions):
    """The folder with a test split that is in training."""
    known = questions.parent / "known"
    (known / "gsm8k").mkdir(parents=True, exist_ok=True)
    shutil.copy(questions / "gsm8k" / "train.jsonl", known / "gsm8k" / "test.jsonl")
    return known


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--task", "gsm8k"], "--task gsm8k needs --reasoning FOLDER, with gsm8k/ in it, or --reasoning hf"),
        (["--task", "sudoku9", "--reasoning", "{}"], "there is no folder sudoku9/ in it"),
        (["--task", "gsm8k", "--reasoning", "{}", "--shots", "3"], "--shots 3: with so many examples"),
        (["--task", "gsm8k", "--reasoning", "{}", "--shots", "99"], "--shots 99: gsm8k has 40 training questions"),
        (["--task", "gsm8k", "--reasoning", "{}", "--against", "last"], "is the run that is judged itself"),
        (["--task", "gsm8k", "--reasoning", "{}", "--split", "validation"], "gsm8k has no validation split"),
        (["--task", "likelihood", "--shots", "1"], "--shots is given, and of the tasks likelihood none reads it"),
        (["--task", "gsm8k", "--reasoning", "{}", "--count", "4"], "--count is given, and of the tasks gsm8k none"),
        (["--task", "sudoku4", "--reasoning", "{}"], "no question of sudoku4 leaves a place for an answer in a sample"),
        (["--task", "gsm8"], "did you mean 'gsm8k'"),
    ],
)
def test_a_mistake_with_reasoning_is_one_line_and_judges_nothing(pair, questions, options, said):
    message = refused("evaluate", "last", *(str(questions) if word == "{}" else word for word in options))
    assert said in message
    assert newest(pair)[1].evaluations() == []


def test_an_autoregressive_run_is_asked_without_steps_and_never_against_other_text(pair, questions):
    place = ["--task", "gsm8k", "--reasoning", questions]
    assert "one token a step" in refused("evaluate", "ar-file", *place, "--steps", "4")
    other = Registry(pair).find("ar-file").id
    Registry(pair).update(other, data_hash="0" * 16)
    assert "was trained on other text" in refused("evaluate", "mdlm-file", *place, "--against", other)


def test_as_many_questions_are_answered_at_once_as_is_said_by_both_runs(pair, questions):
    place = ["--task", "gsm8k", "--reasoning", questions]
    other = Registry(pair).find("ar-file").id
    found = succeeds("evaluate", "mdlm-file", *place, "--batch-size", 2, "--against", other, "--json").objects
    assert {figure["protocol"].get("texts_at_once") for figure in found if figure["name"] == "accuracy_strict"} == {2}
    rows = [row for row in Registry(pair).measurements() if row["run_id"] == other and row["name"] == "accuracy_strict"]
    assert rows[-1]["protocol"]["texts_at_once"] == 2
    assert "at most 32" in refused("evaluate", "mdlm-file", *place, "--batch-size", 64)


def test_a_way_of_answering_that_beats_nothing_is_named_where_there_are_several():
    def figure(way, value):
        protocol = {"answer": way, "questions_trained_on": 0, "prompts_too_long": 0}
        facts = {"unit": "share", "n": 100, "stderr": 0.01, "trivial": {"random guess": 0.1}, "protocol": protocol}
        return Measurement(name="accuracy_strict", value=value, **facts)

    found = [figure("trace", 0.9), figure("decoded behind another thought", 0.05)]
    said = "accuracy_strict (decoded behind another thought): 0.050 does not beat random guess (0.100)"
    assert reasoning_cautions(found) == [said]


def test_a_long_work_says_now_and_then_how_far_it_is(capsys):
    clock = iter([0.0, 5.0, 20.0, 21.0, 40.0])
    meter = Meter("gsm8k, text", clock=lambda: next(clock))
    for done in (32, 64, 96, 128):
        meter.tell(done, 128)
    assert capsys.readouterr().err == "gsm8k, text: 64 of 128 questions, 0:00:20 left\n"
