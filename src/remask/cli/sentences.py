"""The sentence tasks of `remask evaluate`: their options, and what they measure."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.errors import UserError, did_you_mean
from remask.sentences.tasks import (
    COMPARING,
    HEADS,
    LESSONS,
    SENTENCE_TASKS,
    TEST,
    TUNED,
    USUAL_HEADS,
    ZERO_SHOT,
    heads_for,
)

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

    from remask.config.schema import Recipe
    from remask.evaluation.measurement import Measurement
    from remask.runs import OpenEvaluation
    from remask.sentences.splits import TaskData
    from remask.sentences.tables import Row
    from remask.sentences.teaching import Lesson

HUB = "hf"
_ALL = "all"
RATES = "1e-4,3e-4,1e-3"
SHARES = "1"
SEEDS, EPOCHS = 3, 3

OPTIONS: dict[str, Any] = {
    "sentences": Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|hf",
            help="Where sentence tasks lie: a folder with mrpc/train.tsv and so on (TSV, JSON lines or Parquet), or "
            "hf for Hugging Face datasets.",
        ),
    ],
    "head": Annotated[
        list[str] | None,
        typer.Option(
            help=f"Sentence tasks: {', '.join(HEADS)}, or all; may be given again [default: {', '.join(USUAL_HEADS)}]."
        ),
    ],
    "learning_rates": Annotated[
        str | None, typer.Option(help=f"Rates that fine-tuned heads try [default: {RATES}].", metavar="A,B,…")
    ],
    "network_shares": Annotated[
        str | None,
        typer.Option(
            help="Shares of each rate at which the model itself learns under its head, tried each [default: 1]; what "
            "stands beside it may learn at all of it too, and lessons of --taught are learned so.",
            metavar="A,B,…",
        ),
    ],
    "seeds": Annotated[
        int | None,
        typer.Option(
            help=f"Trainings of a fine-tuned head, and draws of the random encoder beside [default: {SEEDS}].", min=1
        ),
    ],
    "epochs": Annotated[int | None, typer.Option(help=f"Epochs of a fine-tuned head [default: {EPOCHS}].", min=1)],
    "taught": Annotated[
        list[str] | None,
        typer.Option(
            help=f"Teach the model the training labels of these tasks together before a head of pairs is fine-tuned: "
            f"{', '.join(LESSONS)}; may be given again. So many epochs as of the task, at the largest of its rates. "
            "What stands beside it learns its task alone.",
        ),
    ],
    "sentences_limit": Annotated[
        int | None, typer.Option(help="Training examples of a sentence task at most, drawn at random.", min=20)
    ],
}
"""Options that sentence tasks alone read."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was asked of sentence tasks, and is there.

    Attributes:
        data: the examples of each task.
        heads: of each task, those that fit it.
        optional: heads that are left out where the model has nothing for them.
        rates: learning rates.
        shares: of each rate, for the model under its head.
        seeds: trainings.
        epochs: of a training, and of what is taught before it.
        lessons: what is taught first, before fine-tuning.
    """

    data: "Mapping[str, TaskData]"
    heads: Mapping[str, tuple[str, ...]]
    optional: tuple[str, ...]
    rates: tuple[float, ...]
    shares: tuple[float, ...]
    seeds: int
    epochs: int
    lessons: "Sequence[Lesson]" = ()


def plan_sentences(names: Sequence[str], options: Mapping[str, Any], *, split: str | None, seed: int) -> Plan | None:
    """Reads the examples of the tasks, and finds everything that is wrong with the options; None without a task.

    Args:
        names: of sentence tasks.
        options: values of `OPTIONS`.
        split: `validation` or `test`; None for each task's own.
        seed: of a draw of training examples.

    Raises:
        UserError: a file is missing or broken, or an option is wrong.
    """
    if not names:
        return None
    place = options["sentences"]
    if place is None:
        raise UserError(
            f"--task {names[0]} needs --sentences FOLDER, with a folder {names[0]}/ of its files, or --sentences hf"
        )
    wanted = _heads(options["head"])
    heads = {name: heads_for(SENTENCE_TASKS[name], wanted) for name in names}
    _refuse_unfit(heads, wanted, given=options["head"] or ())
    rates = _rates(options["learning_rates"] or RATES)
    shares = _shares(options["network_shares"] or SHARES)
    _refuse_unread(options, heads)
    first = _taught(options, heads)
    from remask.sentences.hub import hub_splits
    from remask.sentences.splits import folder_splits, parted, refuse_linked, task_data

    there = {}
    for name in dict.fromkeys((*names, *first)):
        task = SENTENCE_TASKS.get(name) or LESSONS[name]
        there[name] = hub_splits(task) if place == HUB else folder_splits(Path(place).expanduser(), task)
    own, limit = {None: None, "validation": "dev", "test": "test"}[split], options["sentences_limit"]
    data = {name: task_data(SENTENCE_TASKS[name], there[name], wanted=own, limit=limit, seed=seed) for name in names}
    for name, each in data.items():
        if own is None and TEST not in there[name]:
            typer.echo(f"{name}: there is no test split with labels, so {each.split} is reported", err=True)
        refuse_linked(each)
        if any(HEADS[head] != ZERO_SHOT for head in heads[name]):
            parted(each.train, seed=seed)  # refuses what no setting could be chosen on
    return Plan(
        data=data,
        heads=heads,
        optional=tuple(HEADS) if _ALL in (options["head"] or ()) else (),
        rates=rates,
        shares=shares,
        seeds=options["seeds"] or SEEDS,
        epochs=options["epochs"] or EPOCHS,
        lessons=_lessons({name: there[name] for name in first}, data, seed=seed),
    )


def _refuse_unfit(heads: Mapping[str, tuple[str, ...]], wanted: Sequence[str], *, given: Sequence[str]) -> None:
    """Refuses a task that none of the heads fits, and a head that was named and fits none of the tasks."""

    def valid(name: str) -> str:
        return ", ".join(heads_for(SENTENCE_TASKS[name], tuple(HEADS)))

    for name, fitting in heads.items():
        if not fitting:
            raise UserError(f"--head {' --head '.join(wanted)}: none fits --task {name}. Valid: {valid(name)}")
    read = {head for fitting in heads.values() for head in fitting}
    for head in given:
        if _ALL not in given and head not in read:
            said = "; ".join(f"of --task {name} {valid(name)}" for name in heads)
            raise UserError(f"--head {head} fits no task that is asked for. Valid: {said}")


def _taught(options: Mapping[str, Any], heads: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The tasks that are taught first.

    Raises:
        UserError: one is unknown, nothing would read what was taught, or a part of a task is to be trained on.
    """
    first = tuple(dict.fromkeys(options["taught"] or ()))
    for name in first:
        if name not in LESSONS:
            raise UserError(f"--taught {name} is unknown; {did_you_mean(name, LESSONS)}")
    read = {head for each in heads.values() for head in each if head in COMPARING and HEADS[head] == TUNED}
    if first and not read:
        fit = ", ".join(head for head, kind in HEADS.items() if head in COMPARING and kind == TUNED)
        raise UserError(f"--taught {first[0]}: no head that is fine-tuned on pairs is asked for. Give --head: {fit}")
    if first and options["sentences_limit"] is not None:
        raise UserError("--taught together with --sentences-limit: all training pairs are taught. Leave out one")
    return first


def _refuse_unread(options: Mapping[str, Any], heads: Mapping[str, tuple[str, ...]]) -> None:
    """Refuses what fine-tuned heads alone read where none is asked for, and a limit of training examples unread."""
    trained = {head for each in heads.values() for head in each if HEADS[head] != ZERO_SHOT or head == "whitened"}
    if options["sentences_limit"] is not None and not trained:
        raise UserError(
            f"--sentences-limit {options['sentences_limit']}: no head that is asked for reads training examples. Leave "
            "it out, or give --head whitened or one that is trained"
        )
    if any(HEADS[head] == TUNED for each in heads.values() for head in each):
        return
    tuned = tuple(head for head, kind in HEADS.items() if kind == TUNED)
    fit = dict.fromkeys(head for name in heads for head in heads_for(SENTENCE_TASKS[name], tuned))
    for name in ("learning_rates", "network_shares", "epochs"):
        if options[name] is not None:
            given = f"--{name.replace('_', '-')} {options[name]}"
            raise UserError(f"{given}: no head that is fine-tuned is asked for. Give --head: {', '.join(fit)}")


def _lessons(
    opened: "Mapping[str, Mapping[str, tuple[str, Sequence[Row]]]]", data: "Mapping[str, TaskData]", *, seed: int
) -> "Sequence[Lesson]":
    if not opened:
        return ()
    from remask.sentences.teaching import lessons_of

    return lessons_of(opened, judged=data, seed=seed)


def measure_sentences(
    plan: Plan,
    folder: Path,
    recipe: "Recipe",
    *,
    device: "torch.device",
    recorded: "Callable[..., AbstractContextManager[OpenEvaluation]]",
) -> "Iterator[list[Measurement]]":
    """The figures of each task, recorded as an evaluation of its own; each head is said on standard error when done.

    What the model cannot give to the heads is refused in this call, before anything is measured.

    Args:
        plan: made by `plan_sentences`.
        folder: of the run's finished model.
        recipe: the run's, with the seed that was asked for.
        device: where it computes.
        recorded: opens the record of an evaluation of a `task`.

    Raises:
        UserError: the model has no vectors that the heads could read.
    """
    from remask.config.saved import load_model
    from remask.sentences.finetuning import Tuning
    from remask.sentences.measuring import TaskJudge, bench_of
    from remask.sentences.teaching import School

    model, trained = load_model(folder, device=device)
    bench = bench_of(model, trained, draws=plan.seeds)
    heads = {name: bench.fitting(each, optional=plan.optional) for name, each in plan.heads.items()}
    tuning = Tuning(rates=plan.rates, shares=plan.shares, seeds=plan.seeds, epochs=plan.epochs, seed=recipe.seed)
    school = None
    if plan.lessons:
        school = School(lessons=plan.lessons, rate=max(plan.rates), epochs=plan.epochs, seed=recipe.seed)

    def measured() -> "Iterator[list[Measurement]]":
        for name, data in plan.data.items():
            judge = TaskJudge(bench=bench, data=data, tuning=tuning, seed=recipe.seed, school=school)
            measurements = []
            with recorded(task=name) as judged:
                for head in heads[name]:
                    begun = time.monotonic()
                    measurements += judge.measure(head)
                    typer.echo(f"{name} {head}: {time.monotonic() - begun:.0f} s", err=True)
                judged.keep(measurements)
            yield measurements

    return measured()


def sentence_cautions(measurements: "Sequence[Measurement]") -> list[str]:
    """A sentence for each figure of a sentence task that does not beat the best of what stands beside it.

    It does where the difference on the same examples is more than its error, of which a figure's own knows nothing.
    """
    from remask.evaluation.measurement import DIFFERENCE

    named = {m.name: m for m in measurements}
    said = []
    for m in filter(_is_difference, measurements):
        score, best = named[m.name.removesuffix(DIFFERENCE)], m.protocol["against"]
        if m.value <= (m.stderr or 0.0):
            said.append(
                f"{score.name}: {score.value:.3f} does not beat {best} ({score.trivial[best]:.3f}); on the same "
                f"examples the difference is {m.value:+.3f} ± {m.stderr:.3f}"
            )
    return said


def told_from(measurements: "Sequence[Measurement]") -> "list[Measurement]":
    """Figures for a table: differences of sentence tasks say from what, and need no column for a zero."""
    return [
        replace(m, name=f"{m.name} from {m.protocol['against']}", trivial={}) if _is_difference(m) else m
        for m in measurements
    ]


def _is_difference(measurement: "Measurement") -> bool:
    """Whether a figure is the distance of a sentence task's score from what stands beside it."""
    from remask.evaluation.measurement import DIFFERENCE

    return measurement.name.endswith(DIFFERENCE) and measurement.name.partition("_")[0] in SENTENCE_TASKS


def _heads(given: Sequence[str] | None) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(given or USUAL_HEADS))
    for name in chosen:
        if name not in (*HEADS, _ALL):
            raise UserError(f"--head {name} is unknown; {did_you_mean(name, (*HEADS, _ALL))}")
    return tuple(HEADS) if _ALL in chosen else chosen


def _numbers(given: str) -> tuple[float, ...]:
    """The numbers of a list with commas, each once; none where one is no number."""
    try:
        return tuple(dict.fromkeys(float(each) for each in given.split(",")))
    except ValueError:
        return ()


def _shares(given: str) -> tuple[float, ...]:
    shares = _numbers(given)
    if not shares or not all(0 < share <= 1 for share in shares):
        raise UserError(f"--network-shares {given}: give numbers above 0 and up to 1 with commas between, e.g. 0.2,1")
    return shares


def _rates(given: str) -> tuple[float, ...]:
    rates = _numbers(given)
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise UserError(f"--learning-rates {given}: give numbers above 0 and below 1 with commas between, e.g. {RATES}")
    return rates
