"""Reasoning tasks as lm-evaluation-harness reads them: questions out of local files, answers judged as remask does.

The harness hands over `--metadata` and a task's `dataset_kwargs` as keywords.
"""

from typing import Any

import datasets

from remask.data.cache import cache_home
from remask.data.documents import Pair
from remask.reasoning_tasks.exams import open_splits
from remask.reasoning_tasks.tasks import reasoning_task


def questions(
    *, asks: str, reasoning: str | None = None, before: str = "", behind: str = "", **rest: Any
) -> datasets.DatasetDict:
    """The splits of a reasoning task; without a training split there are no examples to show.

    Args:
        asks: the task, one of `REASONING_TASKS`.
        reasoning: the folder of its files, or `hf`; None for a task that is made.
        before: text before each question; a task has its own, which `--metadata` changes.
        behind: text behind each question, e.g. the `data.separator` of training.
        rest: what else the harness knows of.

    Raises:
        UserError: the files are missing or cannot be read.
    """
    del rest
    task = reasoning_task(asks)
    splits = open_splits(task, place=None if reasoning is None else str(reasoning), cache=cache_home())
    found = {
        split: [_row(asks, pair, before=before, behind=behind) for pair in pairs]
        for split, (_, pairs) in splits.items()
    }
    found.setdefault("test", found.get("validation", []))
    empty: dict[str, list[str]] = {"asks": [], "question": [], "shown": [], "answer": []}
    rows = {split: datasets.Dataset.from_list(found[split]) for split in found}
    return datasets.DatasetDict({"train": datasets.Dataset.from_dict(empty), **rows})


def judged(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether a response is right, read strictly and flexibly, as in `remask evaluate`."""
    task, (response,) = reasoning_task(doc["asks"]), results
    asked = (doc["question"], response, doc["answer"])
    return {"accuracy_strict": float(task.strict(*asked)), "accuracy_flexible": float(task.flexible(*asked))}


def _row(asks: str, pair: Pair, *, before: str, behind: str) -> dict[str, str]:
    return {"asks": asks, "question": pair.prompt, "shown": f"{before}{pair.prompt}{behind}", "answer": pair.response}
