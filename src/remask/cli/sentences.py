"""The sentence tasks of `remask evaluate`: their options, and what they measure."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.errors import UserError, did_you_mean
from remask.sentences.tasks import HEADS, SENTENCE_TASKS, USUAL_HEADS, heads_for

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import torch

    from remask.config.schema import Recipe
    from remask.evaluation.measurement import Measurement
    from remask.runs import OpenEvaluation
    from remask.sentences.splits import TaskData

HUB = "hf"
_ALL = "all"
RATES = "1e-4,3e-4,1e-3"
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
    "seeds": Annotated[int | None, typer.Option(help=f"Trainings of a fine-tuned head [default: {SEEDS}].", min=1)],
    "epochs": Annotated[int | None, typer.Option(help=f"Epochs of a fine-tuned head [default: {EPOCHS}].", min=1)],
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
        seeds: trainings.
        epochs: of a training.
    """

    data: "Mapping[str, TaskData]"
    heads: Mapping[str, tuple[str, ...]]
    optional: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: int
    epochs: int


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
    for name, fitting in heads.items():
        if not fitting:
            valid = ", ".join(heads_for(SENTENCE_TASKS[name], tuple(HEADS)))
            raise UserError(f"--head {' --head '.join(wanted)}: none fits --task {name}. Valid: {valid}")
    rates = _rates(options["learning_rates"] or RATES)
    from remask.sentences.hub import hub_splits
    from remask.sentences.splits import folder_splits, task_data

    data = {}
    for name in names:
        task = SENTENCE_TASKS[name]
        there = hub_splits(task) if place == HUB else folder_splits(Path(place).expanduser(), task)
        own = {None: None, "validation": "dev", "test": "test"}[split]
        data[name] = task_data(task, there, wanted=own, limit=options["sentences_limit"], seed=seed)
    return Plan(
        data=data,
        heads=heads,
        optional=tuple(HEADS) if _ALL in (options["head"] or ()) else (),
        rates=rates,
        seeds=options["seeds"] or SEEDS,
        epochs=options["epochs"] or EPOCHS,
    )


def measure_sentences(
    plan: Plan,
    folder: Path,
    recipe: "Recipe",
    *,
    device: "torch.device",
    recorded: "Callable[..., AbstractContextManager[OpenEvaluation]]",
) -> "Iterator[list[Measurement]]":
    """The figures of each task, recorded as an evaluation of its own; each head is said on standard error when done.

    What is refused is refused in this call, before anything is measured.

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

    model, trained = load_model(folder, device=device)
    bench = bench_of(model, trained)
    heads = {name: bench.fitting(each, optional=plan.optional) for name, each in plan.heads.items()}
    tuning = Tuning(rates=plan.rates, seeds=plan.seeds, epochs=plan.epochs, seed=recipe.seed)

    def measured() -> "Iterator[list[Measurement]]":
        for name, data in plan.data.items():
            judge, measurements = TaskJudge(bench=bench, data=data, tuning=tuning, seed=recipe.seed), []
            with recorded(task=name) as judged:
                for head in heads[name]:
                    begun = time.monotonic()
                    measurements += judge.measure(head)
                    typer.echo(f"{name} {head}: {time.monotonic() - begun:.0f} s", err=True)
                judged.keep(measurements)
            yield measurements

    return measured()


def sentence_cautions(measurements: "Sequence[Measurement]") -> list[str]:
    """A sentence for each figure of a sentence task that does not beat the best of what stands beside it."""
    from remask.comparison.directions import beats

    said = []
    for m in measurements:
        if m.name.partition("_")[0] not in SENTENCE_TASKS or not m.trivial:
            continue
        best = max(m.trivial, key=lambda name: m.trivial[name])
        if not beats(m.value, m.stderr, m.trivial[best], way="higher"):
            said.append(f"{m.name}: {m.value:.3f} does not beat {best} ({m.trivial[best]:.3f})")
    return said


def _heads(given: Sequence[str] | None) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(given or USUAL_HEADS))
    if _ALL in chosen:
        return tuple(HEADS)
    for name in chosen:
        if name not in HEADS:
            raise UserError(f"--head {name} is unknown; {did_you_mean(name, (*HEADS, _ALL))}")
    return chosen


def _rates(given: str) -> tuple[float, ...]:
    try:
        rates = tuple(dict.fromkeys(float(each) for each in given.split(",")))
    except ValueError:
        rates = ()
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise UserError(f"--learning-rates {given}: give numbers above 0 and below 1 with commas between, e.g. {RATES}")
    return rates
