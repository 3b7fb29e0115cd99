"""The reasoning tasks by name: where their questions lie, what makes a response right, what answers without a network.

GSM8K (arXiv:2110.14168), its equations alone (arXiv:2311.01460), countdown (arXiv:2404.03683), sudoku, multiplication
with partial products (arXiv:2405.14838), and arithmetic in steps.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random

from remask.data.documents import Pair
from remask.data.splits import Split
from remask.data.tables import GATHERED
from remask.data.tasks import TASKS, Checker, countdown, sudoku
from remask.data.tasks.written import MARK
from remask.errors import UserError
from remask.reasoning_tasks.extraction import flexible_answer, flexible_digits, strict_answer, strict_digits
from remask.reasoning_tasks.names import REASONING_TASKS
from remask.sentences.tasks import HubPlace

Guess = Callable[[str, Random], str]
"""(question, draw) → a response that no network made."""

_STEP = re.compile(r"[0-9]+[-+*/][0-9]+=[0-9]+(?:,[0-9]+[-+*/][0-9]+=[0-9]+)*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the files of a task lie.

    Attributes:
        folder: in the folder that the user names.
        files: split → names without their ends; the first that is there counts.
        prompt: the column of the question.
        response: that of the answer.
        problem: makes question and answer of the two cells.
    """

    folder: str
    files: Mapping[Split, tuple[str, ...]]
    prompt: str
    response: str
    problem: Callable[[Pair], Pair] = field(default=lambda pair: pair)


@dataclass(frozen=True, kw_only=True)
class ReasoningTask:
    """Questions with answers that can be checked.

    Attributes:
        name: of `remask evaluate --task`.
        place: its files; None for a task that is made alone.
        made: the source in `data.tasks` that makes its questions where no folder is given; None where none does.
        hub: its place among Hugging Face datasets; None where it has none.
        strict: whether a response has the right answer where it must stand.
        flexible: whether it has it anywhere an answer may be looked for.
        shortest: a right response cut down to the answer that `strict` reads, so that equal answers are equal texts.
        rivals: name → responses without a network, which stand beside the accuracy.
    """

    name: str
    strict: Checker
    flexible: Checker
    place: Place | None = None
    made: str | None = None
    hub: HubPlace | None = None
    shortest: Callable[[str], str] = field(default=str.strip)
    rivals: Mapping[str, Guess] = field(default_factory=dict)


def reasoning_task(name: str) -> ReasoningTask:
    """The task of a name in `REASONING_TASKS`."""
    return {task.name: task for task in _all_tasks()}[name]


# ── what makes a response right ────────────────────────────────────────────────────────────────────────────────────


def _same(prompt: str, response: str, reference: str, *, read: Callable[[str], str | None]) -> bool:
    """Whether what is read out of a response is the answer that stands behind the mark of the reference."""
    del prompt
    answer = read(response)
    return answer is not None and answer == strict_answer(reference)


def _same_digits(prompt: str, response: str, reference: str, *, read: Callable[[str], str | None]) -> bool:
    """The same of digits that are written lowest first, where zeros at the end say nothing."""
    del prompt
    answer, right = read(response), strict_digits(reference)
    return answer is not None and right is not None and answer.rstrip("0") == right.rstrip("0")


def _any_steps(prompt: str, response: str, reference: str) -> bool:
    """Whether the last steps in a response, blanks aside, solve a countdown."""
    found = _STEP.findall(re.sub(r"\s", "", response))
    return bool(found) and countdown.is_right(prompt, found[-1], reference)


def _any_grid(prompt: str, response: str, reference: str) -> bool:
    """Whether the last digits of a response, all else left out, are a grid that solves a sudoku."""
    digits = re.sub(r"[^0-9]", "", response)
    return sudoku.is_right(prompt, digits[-len(prompt.strip()) :], reference)


def _any_product(prompt: str, response: str, reference: str) -> bool:
    """Whether the last number of a response is the product."""
    return TASKS["multiplication"].right(prompt, flexible_answer(response) or "", reference)


# ── responses without a network ────────────────────────────────────────────────────────────────────────────────────


def _last_number(question: str, draw: Random) -> str:
    del draw
    return f"{MARK} {flexible_answer(question) or 0}"


def _guess_of(name: str) -> Mapping[str, Guess]:
    return {"random guess": TASKS[name].guess}


# ── how cells become questions and answers ─────────────────────────────────────────────────────────────────────────


def _marked(pair: Pair) -> Pair:
    if strict_answer(pair.response) is None:
        raise UserError(f"an answer has no {MARK} with a number behind it: {pair.response[-60:]!r}")
    return pair


def _with_target(pair: Pair) -> Pair:
    """A countdown that has its numbers in one cell and its target in the other; there is no solution beside it."""
    return Pair(prompt=f"{pair.prompt},{pair.response}:", response=pair.response)


def _with_colon(pair: Pair) -> Pair:
    return Pair(prompt=f"{pair.prompt}:", response=pair.response)


# ── the tasks ──────────────────────────────────────────────────────────────────────────────────────────────────────

_OFFICIAL: Mapping[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("valid", "validation", "dev"),
    "test": ("test", "eval"),
}


def _all_tasks() -> tuple[ReasoningTask, ...]:
    tasks = (
        _grade_school("gsm8k", "question", "answer", hub=HubPlace(dataset="openai/gsm8k", config="main")),
        _grade_school("gsm8k_eq", GATHERED.prompt, GATHERED.response, hub=None),
        *map(_arithmetic, ("arithmetic", "arithmetic3", "arithmetic4")),
        _countdown("countdown", None),
        _countdown("countdown3", _with_target),
        _countdown("countdown4", _with_colon),
        ReasoningTask(
            name="multiplication",
            made="multiplication",
            strict=TASKS["multiplication"].right,
            flexible=_any_product,
            rivals=_guess_of("multiplication"),
        ),
        *map(_long_multiplication, ("3x3", "4x4", "5x5")),
        _sudoku("sudoku4", made="sudoku4"),
        _sudoku("sudoku9", made=None),
    )
    assert tuple(task.name for task in tasks) == REASONING_TASKS
    return tasks


def _numbers(
    name: str,
    *,
    rivals: Mapping[str, Guess],
    place: Place | None = None,
    made: str | None = None,
    hub: HubPlace | None = None,
) -> ReasoningTask:
    return ReasoningTask(
        name=name,
        place=place,
        made=made,
        hub=hub,
        strict=partial(_same, read=strict_answer),
        flexible=partial(_same, read=flexible_answer),
        shortest=lambda response: f"{MARK} {strict_answer(response)}",
        rivals={"last number of the question": _last_number, **rivals},
    )


def _grade_school(name: str, prompt: str, response: str, *, hub: HubPlace | None) -> ReasoningTask:
    place = Place(folder=name, files=_OFFICIAL, prompt=prompt, response=response, problem=_marked)
    return _numbers(name, rivals={}, place=place, hub=hub)


def _arithmetic(name: str) -> ReasoningTask:
    return _numbers(name, rivals=_guess_of(name), made=name)


def _countdown(name: str, problem: Callable[[Pair], Pair] | None) -> ReasoningTask:
    place = None
    if problem is not None:
        place = Place(folder=name, files=_OFFICIAL, prompt="input", response="output", problem=problem)
    return ReasoningTask(
        name=name,
        place=place,
        made="countdown" if place is None else None,
        strict=countdown.is_right,
        flexible=_any_steps,
        rivals=_guess_of("countdown"),
    )


def _long_multiplication(size: str) -> ReasoningTask:
    name = f"multiplication{size}"
    files: Mapping[Split, tuple[str, ...]] = {
        split: tuple(f"{size}_{each}" for each in names) for split, names in _OFFICIAL.items()
    }
    place = Place(folder="multiplication", files=files, prompt=GATHERED.prompt, response=GATHERED.response)
    return ReasoningTask(
        name=name,
        place=place,
        made=name,
        strict=partial(_same_digits, read=strict_digits),
        flexible=partial(_same_digits, read=flexible_digits),
        shortest=lambda response: f"{MARK} {strict_digits(response)}",
        rivals=_guess_of(name),
    )


def _sudoku(name: str, *, made: str | None) -> ReasoningTask:
    return ReasoningTask(
        name=name,
        place=Place(folder=name, files=_OFFICIAL, prompt="puzzle", response="solution"),
        made=made,
        strict=sudoku.is_right,
        flexible=_any_grid,
        rivals=_guess_of("sudoku4"),
    )
