"""`remask evaluate`: what a run is worth, in numbers."""

import json
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option
from remask.cli import reasoning
from remask.cli.evaluation_tasks import TASKS, in_tables, refuse_unread, task_recipe, wanted_tasks
from remask.cli.figures import report
from remask.cli.sentences import OPTIONS, Plan, measure_sentences, plan_sentences
from remask.cli.verdicts import keep_headline, settle_verdict
from remask.reasoning_tasks.names import REASONING_TASKS
from remask.sentences.tasks import SENTENCE_TASKS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import torch

    from remask.config.schema import Recipe
    from remask.evaluation.measurement import Measurement
    from remask.judgement.concepts import Comparator
    from remask.judgement.readers import Reader
    from remask.judgement.tasks import Task
    from remask.runs import OpenEvaluation, Registry, RunRecord

LEVELS = 10
_BATCH = "evaluation.batch_size"
MODELS: dict[str, Any] = {
    "judge": Annotated[
        str | None,
        typer.Option(
            metavar="RUN|FOLDER",
            help="What judges samples (--task judged): an autoregressive run, or a folder with a causal language model "
            "of Hugging Face.",
        ),
    ],
    "features": Annotated[
        str | None,
        typer.Option(
            metavar="RUN|FOLDER", help="Whose hidden states stand for texts (--task mauve): any run, or such a folder."
        ),
    ],
    "none": Annotated[
        str | None,
        typer.Option(metavar="RUN", help="A run that is shown no context, for R(C) of --task concepts; with --full."),
    ],
    "full": Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="A run that attends to all context, for R(C) of --task concepts; with --none."
        ),
    ],
}
"""Options that name models beside the one that is judged."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be measured of one run, all of it checked as far as that costs nothing.

    Attributes:
        recipes: of each task on the run's own text.
        plan: the sentence tasks, if any.
        exams: the reasoning tasks, if any.
        own: the run's recipe at the asked split and seed.
        models: others that are needed, by the option that names them; None where none is named.
        levels: of noise.
        drawing: dotted keys of the options that say how texts are drawn.
    """

    recipes: "Mapping[str, Recipe]"
    plan: Plan | None
    exams: "reasoning.Plan | None"
    own: "Recipe"
    models: "Mapping[str, str | None]"
    levels: int
    drawing: "Mapping[str, Any]"


@option.with_options("models", MODELS)
@option.with_options("sentence_options", OPTIONS)
@option.with_options("reasoning_options", reasoning.OPTIONS)
@option.with_sampling_options
def evaluate(
    run: option.RunReference = "last",
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="likelihood, exact-likelihood, levels, concepts, thought, quality, answers, judged, mauve or "
            "reconstruction; may be given again [default: likelihood and quality, for pairs likelihood and answers, "
            "for models without a likelihood reconstruction]. Reasoning tasks: "
            f"{', '.join(REASONING_TASKS)}. Sentence tasks: {', '.join(SENTENCE_TASKS)}."
        ),
    ] = None,
    split: Annotated[str | None, typer.Option(help="validation or test.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows of held-out text to judge.")] = None,
    draws: Annotated[int | None, typer.Option(help="Noise draws a row, for a likelihood bound.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows judged, or texts drawn, at once, 2 to 32: fewer where memory is short.")
    ] = None,
    levels: Annotated[
        int | None, typer.Option(help="Levels of noise (--task levels, thought) [default: 10].", min=1)
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            help="Texts to draw [default: 32 for thought and quality, 256 for answers, judged and mauve].", min=2
        ),
    ] = None,
    seed: option.Seed = None,
    device: option.Device = "auto",
    as_json: option.AsJson = False,
    *,
    models: "Mapping[str, str | None]",
    sampling: "Mapping[str, Any]",
    sentence_options: "Mapping[str, Any]",
    reasoning_options: "Mapping[str, Any]",
) -> None:
    """Judge a finished run on held-out text, every figure beside what trivial predictors get."""
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    record = registry.find(run)
    wanted = wanted_tasks(task, judge=models["judge"], features=models["features"], folder=registry.folder_of(record))
    judging = {"split": split, "rows": rows, "draws": draws, "batch_size": batch_size}
    own = {**{f"evaluation.{name}": value for name, value in judging.items()}, **sampling, "seed": seed}
    others = {"levels": levels, "count": count, "none": models["none"], "full": models["full"]}
    refuse_unread(wanted, {**own, **others, **sentence_options, **reasoning_options})
    apart = {"sentences": sentence_options, "reasoning": reasoning_options}
    asked = _asked(registry, record, wanted, own, apart, models=models, levels=levels or LEVELS, count=count)
    found = _found(registry, record, asked, device=device)
    for table in in_tables(wanted):
        measurements = [each for _ in table for each in next(found)]
        if (split, rows, draws, batch_size, seed) == (None,) * 5:  # another protocol is no headline among other runs'
            keep_headline(registry, record.id, measurements)
        report(measurements, as_json=as_json)
    settle_verdict(registry, record.id)


def _asked(
    registry: "Registry",
    record: "RunRecord",
    wanted: "Sequence[str]",
    options: "Mapping[str, Any]",
    apart: "Mapping[str, Mapping[str, Any]]",
    *,
    models: "Mapping[str, str | None]",
    levels: int,
    count: int | None,
) -> Asked:
    """The tasks of a run with the options that they read: `options` all, those `apart` sentence and reasoning tasks."""
    folder, split = registry.folder_of(record), options["evaluation.split"]
    own = option.changed_recipe(folder, {key: options[key] for key in ("evaluation.split", _BATCH, "seed")})
    among = {"split": split, "seed": own.seed}
    on_sentences, exams = ([n for n in wanted if n in names] for names in (SENTENCE_TASKS, REASONING_TASKS))
    return Asked(
        recipes={name: task_recipe(name, wanted, folder, options, count=count) for name in wanted if name in TASKS},
        plan=plan_sentences(on_sentences, apart["sentences"], **among),
        exams=reasoning.plan_reasoning(exams, apart["reasoning"], registry=registry, record=record, **among),
        own=own,
        models=models,
        levels=levels,
        drawing={key: value for key, value in options.items() if key.startswith("sampling.") or key == _BATCH},
    )


def _found(registry: "Registry", record: "RunRecord", asked: Asked, *, device: str) -> "Iterator[list[Measurement]]":
    """The figures of all tasks, in order."""
    from remask.config.build import resolve_device
    from remask.judgement.tasks import tasks

    on, models, drawing = resolve_device(device), asked.models, asked.drawing
    readers = _readers(registry, models["judge"], models["features"], device=on)
    known = tasks(
        levels=asked.levels,
        reveal=drawing["sampling.reveal"],
        judge=readers["judge"],
        features=readers["features"],
        none=_comparator(registry, "--none", models["none"], device=on),
        full=_comparator(registry, "--full", models["full"], device=on),
    )
    found = _measured(registry, record, asked.recipes, known=known, device=on, steps=drawing["sampling.steps"])
    recorded = partial(_recorded, registry, device=on)
    if asked.exams is not None:
        how = {"options": {**drawing, "seed": asked.own.seed}, "device": on, "recorded": recorded}
        found = chain(found, reasoning.measure_reasoning(asked.exams, registry, record, **how))
    if asked.plan is not None:
        weights, mine = registry.folder_of(record).model_path, partial(recorded, record.id)
        found = chain(found, measure_sentences(asked.plan, weights, asked.own, device=on, recorded=mine))
    return found


def _measured(
    registry: "Registry",
    record: "RunRecord",
    recipes: "Mapping[str, Recipe]",
    *,
    known: "Mapping[str, Task]",
    device: "torch.device",
    steps: int | None,
) -> "Iterator[list[Measurement]]":
    """The figures of each task, recorded as an evaluation of its own; what any of them refuses is found before."""
    from remask.config.saved import load_model
    from remask.data.cache import cache_home
    from remask.judgement import open_judged_text

    if not recipes:
        return
    model, _ = load_model(registry.folder_of(record).model_path, device=device)
    option.refuse_steps(model, steps)
    recipe = next(iter(recipes.values()))  # they differ in how texts are drawn, and how many
    text = open_judged_text(model, recipe, cache=cache_home(), data_hash=record.data_hash)
    for name, own in recipes.items():
        known[name].check(model, own, text)
    for name, own in recipes.items():
        with _recorded(registry, record.id, task=name, device=device) as judged:
            measurements = known[name].measure(model, own, text)
            judged.keep(measurements)
        yield measurements


def _readers(
    registry: "Registry", judge: str | None, features: str | None, *, device: "torch.device"
) -> "dict[str, Reader | None]":
    """The models beside the one that is judged; one that has both roles is loaded once for each."""
    from remask.judgement import load_features, load_judge

    return {
        "judge": None if judge is None else load_judge(judge, registry=registry, device=device),
        "features": None if features is None else load_features(features, registry=registry, device=device),
    }


def _comparator(
    registry: "Registry", flag: str, reference: str | None, *, device: "torch.device"
) -> "Comparator | None":
    """A run that R(C) is measured from or to."""
    from remask.judgement.concepts import load_comparator

    return None if reference is None else load_comparator(flag, reference, registry=registry, device=device)


@contextmanager
def _recorded(registry: "Registry", run_id: str, *, task: str, device: "torch.device") -> "Iterator[OpenEvaluation]":
    """An evaluation of a run's model, whose record says which weights, where, and how much memory they took."""
    from remask.experiment import describe_device
    from remask.machine import peak_memory_bytes

    saved = registry.folder_of(registry.get(run_id)).model_path / "config.json"
    weights = json.loads(saved.read_text(encoding="utf-8")).get("weights")
    with registry.evaluating(run_id, task=task, model_hash=weights, device=describe_device(device)) as judged:
        yield judged
        judged.note(peak_memory_bytes=peak_memory_bytes(device))
