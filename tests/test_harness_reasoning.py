"""Reasoning tasks in lm-evaluation-harness, out of local files, without a network."""

import json
from pathlib import Path

import lm_eval
import pytest
import torch
from lm_eval.tasks import TaskManager

from remask.config.build import build_model
from remask.config.saved import save_model
from remask.config.schema import Recipe
from remask.errors import UserError
from remask.harness.__main__ import TASKS, with_reasoning
from remask.reasoning_tasks.names import REASONING_TASKS
from remask.tokenizers import ByteTokenizer

ASKED = ("gsm8k", "countdown4", "multiplication4x4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two questions of each task, with examples for one."""
    home = tmp_path_factory.mktemp("reasoning")
    rows = {
        "gsm8k/train.jsonl": [
            {"question": "1 and 1?", "answer": "#### 2"},
            {"question": "1 and 3?", "answer": "#### 4"},
        ],
        "gsm8k/test.jsonl": [
            {"question": "1 and 2?", "answer": "#### 3"},
            {"question": "4 and 1?", "answer": "#### 5"},
        ],
        "countdown4/eval.jsonl": [{"input": "1,2,3,4,10", "output": "1+2=3,3+3=6,6+4=10"}] * 2,
        "multiplication/4x4_test.txt": ["7 6 9 2 * 1 6 3 6||#### 7 8 0 3 7 8 8 1"] * 2,
    }
    for name, lines in rows.items():
        (home / name).parent.mkdir(exist_ok=True)
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (home / name).write_text("\n".join(text))
    return home


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory):
    """Of a random model that is asked all of them."""
    network = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2}
    data = {"source": "python-docs", "length": 128}
    recipe = Recipe.model_validate({"name": "tiny", "data": data, "network": network})
    place = tmp_path_factory.mktemp("harness") / "model"
    save_model(build_model(recipe, ByteTokenizer(), device=torch.device("cpu")), recipe, place)
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata={"reasoning": str(folder)})
    return lm_eval.simple_evaluate(
        model="remask",
        model_args=f"run={place},steps=1,device=cpu",
        tasks=[f"remask_{name}" for name in ASKED],
        task_manager=manager,
        gen_kwargs="max_gen_toks=4",
        bootstrap_iters=0,
        log_samples=True,
        num_fewshot=None,
    )


def test_tasks_run_offline_with_both_accuracies(results):
    for name in ASKED:
        for metric in ("accuracy_strict", "accuracy_flexible"):
            assert 0 <= results["results"][f"remask_{name}"][f"{metric},none"] <= 1


def test_questions_are_asked_as_the_files_have_them(results):
    asked = {name: results["samples"][f"remask_{name}"][0]["arguments"][0][0] for name in ASKED}
    assert asked == {
        "gsm8k": "Question: 1 and 2?\nAnswer:",
        "countdown4": "1,2,3,4,10:",
        "multiplication4x4": "7 6 9 2 * 1 6 3 6",
    }


@pytest.mark.parametrize("name", ASKED)
def test_right_responses_are_right_and_others_are_not(name, results):
    from remask.harness.tasks.reading import judged

    for sample in results["samples"][f"remask_{name}"]:
        doc = sample["doc"]
        assert judged(doc, [doc["answer"]]) == {"accuracy_strict": 1.0, "accuracy_flexible": 1.0}
        assert judged(doc, ["#### 9"]) == {"accuracy_strict": 0.0, "accuracy_flexible": 0.0}


def test_every_reasoning_task_has_a_file_of_its_own():
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    assert set(manager.all_tasks) == {f"remask_{name}" for name in REASONING_TASKS}


def test_the_command_takes_a_folder_of_reasoning_tasks():
    words = with_reasoning(["run", "--model", "remask", "--reasoning", "data", "--tasks", "remask_gsm8k"])
    own = ["--include_path", str(TASKS), "--metadata", "reasoning=data"]
    assert words == ["run", "--model", "remask", "--tasks", "remask_gsm8k", *own]
    assert Path(words[-3]).is_dir()
    assert with_reasoning(["ls", "tasks"]) == ["ls", "tasks"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reasoning"], "needs the folder"),
        (["--reasoning", "--tasks", "x"], "needs the folder"),
        (["--reasoning", "data", "--include_path=x"], "--include_path is given beside --reasoning"),
        (["--reasoning", "data", "--metadata", "a=b"], "--metadata is given beside --reasoning"),
    ],
)
def test_a_mistake_with_the_folder_is_said_in_a_line(words, message):
    with pytest.raises(UserError, match=message):
        with_reasoning(words)
