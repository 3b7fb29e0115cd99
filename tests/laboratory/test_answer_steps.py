"""Numbers of steps against right answers, where some questions leave no place for an answer."""

import pytest
import torch

from remask.config.build import build_model
from remask.config.schema import Recipe
from remask.data.documents import Pair
from remask.evaluation.measurement import identity_of
from remask.laboratory.answering import answer_steps
from remask.reasoning_tasks.exams import Exam
from remask.reasoning_tasks.measuring import Examinee
from remask.reasoning_tasks.responses import Response
from remask.reasoning_tasks.tasks import reasoning_task
from remask.tokenizers import ByteTokenizer

LENGTH = 16
LONG = Pair(prompt="1" * LENGTH, response="#### 2")
SHORT = tuple(Pair(prompt=f"{k}+1?", response=f"#### {k + 1}") for k in range(3))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    network = {"kind": "transformer", "width": 16, "layers": 1, "heads": 2}
    source = {"source": "arithmetic", "length": LENGTH}
    return Recipe.model_validate({"name": "tiny", "data": source, "network": network, "sampling": {"steps": 2}})


def figures(recipe, *questions):
    """What is measured of a model that takes a second a question, by the name of the figure."""
    model, now = build_model(recipe, ByteTokenizer(), device=torch.device("cpu")), [0.0]

    def way(prompt, seed):
        now[0] += len(prompt.ids)
        return [Response(text="#### 2", ended=True)] * len(prompt.ids)

    exam = Exam(
        task=reasoning_task("gsm8k"),
        split="test",
        questions=questions,
        examples=(),
        common=None,
        identity=identity_of(*[pair.prompt for pair in questions]),
    )
    examinee = Examinee(model=model, recipe=recipe, ways={"text": way})
    found = answer_steps(
        examinee, exam, device="cpu", repeats=2, watch=lambda way: lambda *done: None, clock=lambda: now[0]
    )
    return {figure.name: figure for figure in found}


@pytest.mark.parametrize("questions", [(*SHORT, LONG), (LONG, *SHORT)], ids=["last", "first"])
def test_a_question_that_does_not_fit_costs_no_time_and_is_answered_wrong(recipe, questions):
    found = figures(recipe, *questions)
    each = found["seconds_per_sample"]
    assert (each.value, each.n, each.protocol["samples_at_once"]) == (1.0, 3, 3)
    assert (found["seconds_alone"].value, found["seconds_alone"].n) == (1.0, 2)
    assert (found["accuracy_strict"].value, found["accuracy_strict"].n) == (0.25, 4)
    assert found["accuracy_strict"].protocol["prompts_too_long"] == 1
