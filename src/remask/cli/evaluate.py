"""`remask evaluate` and `remask health`: what a run is worth, in numbers and in words."""

import json
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option
from remask.cli import reasoning
from remask.cli.sentences import OPTIONS, Plan, measure_sentences, plan_sentences, sentence_cautions
from remask.reasoning_tasks.names import REASONING_TASKS
from remask.sentences.tasks import SENTENCE_TASKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import torch

    from remask.config.schema import Recipe
    from remask.evaluation.measurement import Measurement
    from remask.health import Verdict
    from remask.judgement.concepts import Comparator
    from remask.judgement.readers import Reader
    from remask.judgement.tasks import Task
    from remask.runs import OpenEvaluation, Registry, RunFolder, RunRecord

TASKS = (
    "likelihood",
    "exact-likelihood",
    "levels",
    "concepts",
    "thought",
    "quality",
    "answers",
    "judged",
    "mauve",
    "reconstruction",
)
_NAMES = (*TASKS, *REASONING_TASKS, *SENTENCE_TASKS)
COUNTS = {
    "likelihood": None,
    "exact-likelihood": None,
    "levels": None,
    "concepts": None,
    "thought": 32,
    "quality": 32,
    "answers": 256,
    "judged": 256,
    "mauve": 256,
    "reconstruction": None,
}
"""Texts that a task draws where --count is not given."""
LEVELS = 10
_COUNTED = frozenset({"thought", "quality", "answers", "judged", "mauve"})
_DRAWING = _COUNTED | frozenset(REASONING_TASKS)
_EXACT = "exact-likelihood"
_OWN = "reconstruction"
"""The task of models without a likelihood, each judged by a figure of its own."""
_OF_EXACT = ("sampling.steps", "sampling.block_length")
"""Keys of sampling that say whose probability the exact likelihood is, beside its order."""
_READ_BY = {
    "evaluation.rows": frozenset({"likelihood", _EXACT, "levels", "concepts", "thought", _OWN}),
    "evaluation.draws": frozenset({"likelihood", "levels", "concepts", "thought", _OWN}),
    "none": frozenset({"concepts"}),
    "full": frozenset({"concepts"}),
    "levels": frozenset({"levels", "thought"}),
    "count": _COUNTED,
    "sampling.reveal": _DRAWING | {_EXACT},
    **{key: _DRAWING | {_EXACT} for key in _OF_EXACT},
    **dict.fromkeys(OPTIONS, frozenset(SENTENCE_TASKS)),
    **dict.fromkeys(reasoning.OPTIONS, frozenset(REASONING_TASKS)),
}
"""The tasks that read an option; others of sampling are read by all that draw, and others still by all."""


Judge = Annotated[
    str | None,
    typer.Option(
        metavar="RUN|FOLDER",
        help="What judges samples (--task judged): an autoregressive run, or a folder with a causal language model "
        "of Hugging Face.",
    ),
]
Features = Annotated[
    str | None,
    typer.Option(
        metavar="RUN|FOLDER", help="Whose hidden states stand for texts (--task mauve): any run, or such a folder."
    ),
]
NoContext = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="A run that is shown no context, for R(C) of --task concepts; with --full."),
]
FullContext = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="A run that attends to all context, for R(C) of --task concepts; with --none."),
]


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
    judge: Judge = None,
    features: Features = None,
    none: NoContext = None,
    full: FullContext = None,
    split: Annotated[str | None, typer.Option(help="validation or test.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows of held-out text to judge.")] = None,
    draws: Annotated[int | None, typer.Option(help="Noise draws a row, for a likelihood bound.")] = None,
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
    sampling: "Mapping[str, Any]",
    sentence_options: "Mapping[str, Any]",
    reasoning_options: "Mapping[str, Any]",
) -> None:
    """Judge a finished run on held-out text, every figure beside what trivial predictors get."""
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    record = registry.find(run)
    folder = registry.folder_of(record)
    options = {
        "evaluation.split": split,
        "evaluation.rows": rows,
        "evaluation.draws": draws,
        **sampling,
        "seed": seed,
    }
    wanted = wanted_tasks(task, judge=judge, features=features, folder=folder)
    given = {"levels": levels, "count": count, "none": none, "full": full, **sentence_options, **reasoning_options}
    refuse_unread(wanted, {**options, **given})
    recipes = {name: task_recipe(name, wanted, folder, options, count=count) for name in wanted if name in TASKS}
    own = option.changed_recipe(folder, {"evaluation.split": split, "seed": seed})
    on_sentences = [name for name in wanted if name in SENTENCE_TASKS]
    plan = plan_sentences(on_sentences, sentence_options, split=split, seed=own.seed)
    exams = reasoning.plan_reasoning(
        [name for name in wanted if name in REASONING_TASKS],
        reasoning_options,
        split=split,
        seed=own.seed,
        registry=registry,
        record=record,
    )
    models = {"--judge": judge, "--features": features, "--none": none, "--full": full}
    found = _found(
        registry,
        record,
        recipes,
        plan=plan,
        exams=exams,
        own=own,
        models=models,
        levels=levels or LEVELS,
        device=device,
        sampling=sampling,
    )
    for table in in_tables(wanted):
        measurements = [each for _ in table for each in next(found)]
        if (split, rows, draws, seed) == (None, None, None, None):  # another protocol is no headline among other runs'
            keep_headline(registry, record.id, measurements)
        report(measurements, as_json=as_json)
    settle_verdict(registry, record.id)


def _found(
    registry: "Registry",
    record: "RunRecord",
    recipes: "Mapping[str, Recipe]",
    *,
    plan: "Plan | None",
    exams: "reasoning.Plan | None",
    own: "Recipe",
    models: "Mapping[str, str | None]",
    levels: int,
    device: str,
    sampling: "Mapping[str, Any]",
) -> "Iterator[list[Measurement]]":
    """The figures of all tasks in order; `models` holds other models by the option that names them."""
    from remask.config.build import resolve_device
    from remask.judgement.tasks import tasks

    on = resolve_device(device)
    readers = _readers(registry, models["--judge"], models["--features"], device=on)
    known = tasks(
        levels=levels,
        reveal=sampling["sampling.reveal"],
        judge=readers["judge"],
        features=readers["features"],
        none=_comparator(registry, "--none", models["--none"], device=on),
        full=_comparator(registry, "--full", models["--full"], device=on),
    )
    found = _measured(registry, record, recipes, known=known, device=on, steps=sampling["sampling.steps"])
    if exams is not None:
        drawing = {**sampling, "seed": own.seed}
        recorded = partial(_recorded, registry, device=on)
        asked = reasoning.measure_reasoning(exams, registry, record, options=drawing, device=on, recorded=recorded)
        found = chain(found, asked)
    if plan is not None:
        recorded = partial(_recorded, registry, record.id, device=on)
        weights = registry.folder_of(record).model_path
        found = chain(found, measure_sentences(plan, weights, own, device=on, recorded=recorded))
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


def task_recipe(
    task: str, wanted: "Sequence[str]", folder: "RunFolder", options: "Mapping[str, Any]", *, count: int | None
) -> "Recipe":
    """The run's recipe with the options that one of the wanted tasks reads.

    An exact likelihood is of a sampler of its own, with the recipe's steps and blocks. Beside it, tasks that draw read
    an order of revealing only where their sampler does.

    Args:
        task: one of `TASKS`.
        wanted: all that will run.
        folder: the run's.
        options: dotted keys with their values; None where an option was not given.
        count: texts to draw; None for the task's usual number.
    """
    counted = {**options, "sampling.count": COUNTS[task] if count is None else count}
    if task == _EXACT:
        read = {key: value for key, value in counted.items() if not key.startswith("sampling.") or key in _OF_EXACT}
        return option.changed_recipe(folder, read)
    if _EXACT in wanted:
        plain = option.changed_recipe(folder, {**counted, "sampling.reveal": None})
        if plain.sampling.sampler != "bijective":
            return plain
    return option.changed_recipe(folder, counted)


def in_tables(wanted: "Sequence[str]") -> list[list[str]]:
    """The tasks in groups that share a table: the bound and the exact likelihood, where one follows the other."""
    groups: list[list[str]] = []
    for name in wanted:
        if groups and {*groups[-1], name} == {"likelihood", _EXACT}:
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def wanted_tasks(
    given: "Sequence[str] | None", *, judge: str | None, features: str | None, folder: "RunFolder"
) -> list[str]:
    """The tasks to run, in the order in which they were named, each once; reasoning and sentence tasks last.

    Raises:
        UserError: when a task is unknown, or a model that a task needs is missing, or none needs one that is given.
    """
    from remask.config.words import draws_text, own_figure_of
    from remask.drawing import answers_prompts
    from remask.errors import UserError, did_you_mean

    recipe = option.changed_recipe(folder, {})
    usual = ("likelihood", "answers" if answers_prompts(recipe) and not recipe.data.prefix else "quality")
    if own_figure_of(recipe) is not None:
        usual = (_OWN, "answers") if draws_text(recipe) and answers_prompts(recipe) else (_OWN,)
    chosen = list(dict.fromkeys(given or usual))
    for name in chosen:
        if name not in _NAMES:
            raise UserError(f"--task {name} is unknown; {did_you_mean(name, _NAMES)}")
    needs = {
        "judged": ("--judge", judge, "a model that judges: give an autoregressive run with --judge RUN, or a folder"),
        "mauve": ("--features", features, "a model whose hidden states stand for texts: give --features RUN or FOLDER"),
    }
    for name, (flag, reference, wish) in needs.items():
        if name in chosen and reference is None:
            raise UserError(f"--task {name} needs {wish} with a causal language model")
        if name not in chosen and reference is not None:
            raise UserError(f"{flag} {reference} is given, and no task needs it: add --task {name}")
    return sorted(chosen, key=lambda name: (name in SENTENCE_TASKS, name in REASONING_TASKS))


def refuse_unread(tasks: "Sequence[str]", options: "Mapping[str, Any]") -> None:
    """Refuses an option that none of the tasks reads, rather than passing over it.

    Args:
        tasks: those that will run.
        options: dotted keys with their values; None where an option was not given.

    Raises:
        UserError: naming the option and the tasks that read it.
    """
    from remask.errors import UserError

    mixed = options.get("sampling.reveal") == "any_order"  # one token a round, whatever is asked
    for key, value in options.items():
        readers = _READ_BY.get(key, _DRAWING if key.startswith("sampling.") else None)
        if mixed and key in _OF_EXACT:
            readers = _DRAWING
        if value is not None and readers is not None and not readers & set(tasks):
            flag = "--" + key.rpartition(".")[2].replace("_", "-")
            shown = [name for name in (*TASKS, *SENTENCE_TASKS) if name in readers]
            named = ", ".join([*shown, *(["reasoning tasks"] if readers & set(REASONING_TASKS) else [])])
            raise UserError(
                f"{flag} is given, and of the tasks {', '.join(tasks)} none reads it. Tasks that do: {named}"
            )


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


def health(run: option.RunReference = "last", as_json: option.AsJson = False) -> None:
    """Say in words whether a run has learned, and what looks wrong with it."""
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    record = registry.find(run)
    option.complain(registry, record)
    judged = settle_verdict(registry, record.id)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "run": record.id,
                    "level": judged.level,
                    "sentence": judged.sentence,
                    "findings": list(judged.findings),
                }
            )
        )
        return
    typer.echo(f"{record.id}: {judged.sentence}")
    for finding in judged.findings:
        typer.echo(f"- {finding}")


def keep_headline(registry: "Registry", run_id: str, measurements: "Iterable[Measurement]") -> None:
    """Puts a likelihood, or the figure of a model that has none, with its trivial values at the head of the record."""
    from remask.health.evidence import OWN_FIGURES

    named = {m.name: m for m in measurements}
    beside = {key: value for key, value in registry.get(run_id).headline.items() if key == "effective_rank"}
    figures = {name: named[name] for name in ("bits_per_byte", "nats_per_token") if name in named}
    if "bits_per_byte" in figures:
        headline = {name: figure.value for name, figure in figures.items()}
        registry.update(run_id, headline=headline | beside, trivial=dict(figures["bits_per_byte"].trivial))
    for name in OWN_FIGURES.keys() & named.keys():
        registry.update(run_id, headline={name: named[name].value} | beside, trivial=dict(named[name].trivial))


def settle_verdict(registry: "Registry", run_id: str) -> "Verdict":
    """Judges a run anew from all that is recorded of it, and keeps the sentence."""
    from remask.health import verdict

    record = registry.get(run_id)
    metrics = registry.folder_of(record).metrics()
    judged = verdict(metrics, evaluations=_without_other_protocols(registry.evaluations(run_id), record.headline))
    registry.update(run_id, verdict=judged.sentence)
    return judged


def _without_other_protocols(
    evaluations: "Iterable[Mapping[str, Any]]", headline: "Mapping[str, float | None]"
) -> "list[Mapping[str, Any]]":
    """The figures of a run without those likelihoods that are not its headline: a verdict stands beside that one."""
    likelihoods = {name: value for name, value in headline.items() if value is not None}
    return [row for row in evaluations if row.get("value") == likelihoods.get(str(row.get("name")), row.get("value"))]


def report(measurements: "Sequence[Measurement]", *, as_json: bool) -> None:
    """Prints measurements as JSON lines, or as a table with one column a trivial predictor.

    What to be careful about stands below the table; beside JSON lines, on standard error.
    """
    from remask.cli.tables import concept_table, level_table, measurement_table, thought_table
    from remask.evaluation.concepts import is_of_concepts
    from remask.evaluation.levels import NAME

    if as_json:
        for measurement in measurements:
            typer.echo(json.dumps(measurement.to_json()))
    else:
        table = level_table if all(measurement.name == NAME for measurement in measurements) else measurement_table
        told = reasoning.in_ways(measurements)
        if any(measurement.name == "rounding_gain" for measurement in measurements):
            table = thought_table
        typer.echo((concept_table if any(map(is_of_concepts, measurements)) else table)(told))
    for caution in cautions(measurements):
        typer.echo(caution, err=as_json)


def cautions(measurements: "Sequence[Measurement]") -> list[str]:
    """Sentences about figures that are easily misread."""
    from remask.evaluation.concept_gaps import gap_sentences
    from remask.evaluation.concepts import geometry_warnings
    from remask.evaluation.exact import sampler_in_words
    from remask.evaluation.levels import NAME, level_warnings
    from remask.evaluation.mauve import mauve_caution
    from remask.evaluation.thoughts import thought_sentences

    said = level_warnings([measurement for measurement in measurements if measurement.name == NAME])
    said += geometry_warnings(measurements) + gap_sentences(measurements)
    said += thought_sentences(measurements)
    said += sampler_in_words(measurements) + sentence_cautions(measurements)
    said += reasoning.reasoning_cautions(measurements)
    return said + [words for m in measurements if m.name == "mauve" and (words := mauve_caution(m)) is not None]
