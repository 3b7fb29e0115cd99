"""The reasoning tasks of `remask evaluate`: their options, and what they measure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option
from remask.cli.meter import Meter
from remask.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

    from remask.data.splits import Split
    from remask.evaluation.measurement import Measurement
    from remask.reasoning_tasks.exams import Exam
    from remask.reasoning_tasks.measuring import Examinee
    from remask.runs import OpenEvaluation, Registry, RunFolder, RunRecord

OPTIONS: dict[str, Any] = {
    "reasoning": Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|hf",
            help="Where reasoning tasks lie: a folder with gsm8k/test.jsonl and so on, or hf for Hugging Face; "
            "arithmetic, countdown, multiplication and sudoku4 are made where none is given.",
        ),
    ],
    "shots": Annotated[
        int | None, typer.Option(help="Reasoning tasks: worked examples before each question [default: 0].", min=0)
    ],
    "reasoning_limit": Annotated[
        int | None, typer.Option(help="Questions of a reasoning task at most, spread evenly [default: all].", min=2)
    ],
    "against": Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Reasoning tasks: a run of the same data that answers the same questions, for the paired difference.",
        ),
    ],
}
"""Options that reasoning tasks alone read."""

_HELD_OUT: "Mapping[str, Split]" = {"validation": "validation", "test": "test"}

Recorded = Callable[..., "AbstractContextManager[OpenEvaluation]"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was asked of reasoning tasks, and is there.

    Attributes:
        exams: what is asked.
        rival: the run of --against; None for none.
        unlike: how the language models under the two runs differ, in words; None where they do not.
    """

    exams: "tuple[Exam, ...]"
    rival: "RunRecord | None"
    unlike: str | None


def plan_reasoning(
    names: Sequence[str],
    options: Mapping[str, Any],
    *,
    split: str | None,
    seed: int,
    registry: "Registry",
    record: "RunRecord",
) -> Plan | None:
    """Reads the questions of the tasks, and finds everything that is wrong with the options; None without a task.

    Where the other run stands on another language model, or on the same one otherwise, that is said on standard error.

    Args:
        names: of reasoning tasks.
        options: values of `OPTIONS`.
        split: `validation` or `test`; None for test where it is there.
        seed: of the draw of examples.
        registry: where the run of --against is looked up.
        record: the run that is judged.

    Raises:
        UserError: a file is missing or broken, an option is wrong, or the other run is of other data.
    """
    if not names:
        return None
    rival = None if options["against"] is None else _rival(registry, record, options["against"])
    from remask.data.cache import cache_home
    from remask.reasoning_tasks.exams import exam_of, open_splits
    from remask.reasoning_tasks.tasks import reasoning_task

    wanted = None if split is None else _held_out(split)
    exams = []
    for name in names:
        task = reasoning_task(name)
        splits = open_splits(task, place=options["reasoning"], cache=cache_home())
        limit, shots = options["reasoning_limit"], options["shots"] or 0
        exams.append(exam_of(task, splits, wanted=wanted, limit=limit, shots=shots, seed=seed))
    return Plan(exams=tuple(exams), rival=rival, unlike=None if rival is None else _unlike(registry, record, rival))


def _held_out(split: str) -> "Split":
    """The held-out split of a name.

    Raises:
        UserError: it is none.
    """
    if split not in _HELD_OUT:
        raise UserError(f"--split {split} is no held-out text; {did_you_mean(split, _HELD_OUT)}")
    return _HELD_OUT[split]


def measure_reasoning(
    plan: Plan,
    registry: "Registry",
    record: "RunRecord",
    *,
    options: Mapping[str, Any],
    device: "torch.device",
    recorded: Recorded,
) -> "Iterator[list[Measurement]]":
    """The figures of each task, recorded as evaluations of their own.

    What is refused of the run itself is refused in this call, before anything is measured.

    Args:
        plan: made by `plan_reasoning`.
        registry: of the runs.
        record: the run that is judged.
        options: dotted keys of how its text is drawn, and its seed; None where an option was not given.
        device: where it computes.
        recorded: opens the record of an evaluation of a run (its id) and a `task`.

    Raises:
        UserError: the model cannot be drawn from as asked, or a question with its examples does not fit its rows.
    """
    examinee = _examinee(registry.folder_of(record), options, device=device)
    for exam in plan.exams:
        examinee.prompts(exam)
    return _measured(plan, registry, record, examinee, seed=options["seed"], device=device, recorded=recorded)


def _measured(
    plan: Plan,
    registry: "Registry",
    record: "RunRecord",
    examinee: "Examinee",
    *,
    seed: int | None,
    device: "torch.device",
    recorded: Recorded,
) -> "Iterator[list[Measurement]]":
    """The figures one task after the other; those of the other run by its own recipe's sampling, as many at once."""
    from remask.reasoning_tasks.measuring import differences

    rival = None
    if plan.rival is not None:
        same = {"seed": seed, "evaluation.batch_size": examinee.recipe.evaluation.batch_size}
        rival = _examinee(registry.folder_of(plan.rival), same, device=device)
        for exam in plan.exams:
            rival.prompts(exam)
    for exam in plan.exams:
        theirs: list[Measurement] = []
        if rival is not None and plan.rival is not None:
            with recorded(plan.rival.id, task=exam.task.name) as judged:
                usual, *others = _answered(rival, exam, name=plan.rival.id)
                judged.keep([*usual, *(figure for way in others for figure in way)])
                theirs = usual
        with recorded(record.id, task=exam.task.name) as judged:
            own = [figure for way in _answered(examinee, exam, name=exam.task.name) for figure in way]
            if plan.rival is not None:
                own += differences(own, theirs, against=plan.rival.id, unlike=plan.unlike)
            judged.keep(own)
        yield own


def _answered(examinee: "Examinee", exam: "Exam", *, name: str) -> "list[list[Measurement]]":
    """The figures of each way of giving a response, the usual one first."""
    from remask.data.cache import cache_home
    from remask.reasoning_tasks.measuring import measure, questions_trained_on

    known = questions_trained_on(exam, examinee.recipe, cache=cache_home())
    found = measure(examinee, exam, trained_on=known, watch=lambda way: Meter(f"{name}, {way}").tell)
    return list(found.values())


def _examinee(folder: "RunFolder", options: Mapping[str, Any], *, device: "torch.device") -> "Examinee":
    from remask.config.saved import load_model
    from remask.reasoning_tasks.measuring import Examinee
    from remask.reasoning_tasks.responses import ways_of

    recipe = option.changed_recipe(folder, options)
    model, _ = load_model(folder.model_path, device=device)
    option.refuse_steps(model, options.get("sampling.steps"))
    return Examinee(model=model, recipe=recipe, ways=ways_of(model, recipe))


def _rival(registry: "Registry", record: "RunRecord", reference: str) -> "RunRecord":
    """The run of --against.

    Raises:
        UserError: it is the run itself, or was trained on other text.
    """
    found = registry.find(reference)
    if found.id == record.id:
        raise UserError(f"--against {reference} is the run that is judged itself; give another one")
    if None in (found.data_hash, record.data_hash) or found.data_hash != record.data_hash:
        raise UserError(
            f"--against {reference}: {found.id} was trained on other text than {record.id}, so that their difference "
            "would say nothing of the models; give a run of the same data"
        )
    return found


def _unlike(registry: "Registry", record: "RunRecord", rival: "RunRecord") -> str | None:
    """How the language models under two runs differ; said before anything is measured."""
    from remask.reasoning_tasks.measuring import unlike

    found = unlike(*(option.changed_recipe(registry.folder_of(run), {}) for run in (record, rival)))
    if found is not None:
        typer.echo(f"caution: {record.id} and {rival.id} differ in more than how they answer ({found})", err=True)
    return found


def in_ways(measurements: "Sequence[Measurement]") -> "list[Measurement]":
    """Figures for a table, told apart by where the answer was read, where a model gave it in several ways."""
    if len({figure.protocol.get("answer") for figure in measurements}) < 2:
        return list(measurements)
    return [replace(figure, name=f"{figure.name} ({figure.protocol['answer']})") for figure in measurements]


def is_of_reasoning(measurement: "Measurement") -> bool:
    """Whether a figure is of a reasoning task."""
    return "questions_trained_on" in measurement.protocol


def reasoning_cautions(measurements: "Sequence[Measurement]") -> list[str]:
    """A sentence for each accuracy that does not beat what stands beside it, and one on questions that were seen."""
    from remask.comparison.directions import beats
    from remask.evaluation.measurement import DIFFERENCE

    said = []
    for m in in_ways(list(filter(is_of_reasoning, measurements))):
        if m.name.startswith("accuracy_") and m.trivial and DIFFERENCE not in m.name:
            best = max(m.trivial, key=lambda name: m.trivial[name])
            if not beats(m.value, m.stderr, m.trivial[best], way="higher"):
                said.append(f"{m.name}: {m.value:.3f} does not beat {best} ({m.trivial[best]:.3f})")
        if m.name.startswith("accuracy_strict") and m.protocol["questions_trained_on"]:
            said.append(f"{m.protocol['questions_trained_on']} of {m.n} questions are in the run's training text")
        if m.name.startswith("accuracy_strict") and m.protocol["prompts_too_long"]:
            said.append(f"{m.protocol['prompts_too_long']} of {m.n} questions leave no place for an answer: wrong")
    return list(dict.fromkeys(said))
