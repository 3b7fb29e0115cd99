"""`remask evaluate` and `remask health`: what a run is worth, in numbers and in words."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remask.cli import options as option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch

    from remask.config.schema import Recipe
    from remask.evaluation.measurement import Measurement
    from remask.health import Verdict
    from remask.judgement import JudgedText
    from remask.model import Model
    from remask.runs import Registry

TASKS = ("likelihood", "quality", "answers", "judged")
COUNTS = {"likelihood": None, "quality": 32, "answers": 256, "judged": 256}
"""Texts that a task draws where --count is not given."""


@option.with_sampling_options
def evaluate(
    run: option.RunReference = "last",
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="likelihood, quality, answers or judged; may be given again [default: the first two, for pairs "
            "likelihood and answers]."
        ),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="RUN", help="The autoregressive run that judges samples (--task judged).")
    ] = None,
    split: Annotated[str | None, typer.Option(help="validation or test.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows of held-out text to judge.")] = None,
    draws: Annotated[int | None, typer.Option(help="Noise draws a row, for a likelihood bound.")] = None,
    count: Annotated[
        int | None, typer.Option(help="Texts to draw [default: 32 for quality, 256 for answers and judged].", min=2)
    ] = None,
    seed: option.Seed = None,
    device: option.Device = "auto",
    as_json: option.AsJson = False,
    *,
    sampling: "Mapping[str, Any]",
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
    recipe = option.changed_recipe(folder, options)
    tasks = wanted_tasks(task, recipe, judge=judge)
    from remask.config.build import resolve_device
    from remask.config.saved import load_model
    from remask.data.cache import cache_home
    from remask.judgement import open_judged_text

    on = resolve_device(device)
    model, _ = load_model(folder.model_path, device=on)
    option.refuse_steps(model, sampling["sampling.steps"])
    text = open_judged_text(model, recipe, cache=cache_home(), data_hash=record.data_hash)
    judges = _judges(registry, judge, device=on)
    for name in tasks:
        own = option.changed_recipe(folder, options | {"sampling.count": COUNTS[name] if count is None else count})
        measurements = judges[name](model, own, text)
        registry.add_evaluations(record.id, measurements, task=name)
        if (split, rows, draws, seed) == (None, None, None, None):  # another protocol is no headline among other runs'
            keep_headline(registry, record.id, measurements)
        report(measurements, as_json=as_json)
    settle_verdict(registry, record.id)


def wanted_tasks(given: "Sequence[str] | None", recipe: "Recipe", *, judge: str | None) -> list[str]:
    """The tasks to run, in the order in which they were named, each once.

    Raises:
        UserError: when a task is unknown, or a judge is missing or not needed.
    """
    from remask.drawing import answers_prompts
    from remask.errors import UserError, did_you_mean

    usual = ("likelihood", "answers" if answers_prompts(recipe) else "quality")
    tasks = list(dict.fromkeys(given or usual))
    for name in tasks:
        if name not in TASKS:
            raise UserError(f"--task {name} is unknown; {did_you_mean(name, TASKS)}")
    if "judged" in tasks and judge is None:
        raise UserError("--task judged needs a model that judges: give an autoregressive run with --judge RUN")
    if judge is not None and "judged" not in tasks:
        raise UserError(f"--judge {judge} is given, and no task needs a judge: add --task judged")
    return tasks


def _judges(
    registry: "Registry", judge: str | None, *, device: "torch.device"
) -> "dict[str, Callable[[Model, Recipe, JudgedText], list[Measurement]]]":
    """What carries each task out; the judge of samples is loaded first where there is one."""
    from functools import partial

    from remask.config.saved import load_model
    from remask.judgement import judge_answers, judge_likelihood, judge_quality, judge_samples

    ways = {"likelihood": judge_likelihood, "quality": judge_quality, "answers": judge_answers}
    if judge is None:
        return ways
    record = registry.find(judge)
    model, _ = load_model(registry.folder_of(record).model_path, device=device)
    return ways | {"judged": partial(judge_samples, judge=model, judge_id=record.id)}


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
    """Puts a likelihood and its trivial values at the head of the run's record."""
    figures = {m.name: m for m in measurements if m.name in ("bits_per_byte", "nats_per_token")}
    if "bits_per_byte" in figures:
        headline = {name: figure.value for name, figure in figures.items()}
        registry.update(run_id, headline=headline, trivial=dict(figures["bits_per_byte"].trivial))


def settle_verdict(registry: "Registry", run_id: str) -> "Verdict":
    """Judges a run anew from all that is recorded of it, and keeps the sentence."""
    from remask.health import verdict

    metrics = registry.folder_of(registry.get(run_id)).metrics()
    judged = verdict(metrics, evaluations=registry.evaluations(run_id))
    registry.update(run_id, verdict=judged.sentence)
    return judged


def report(measurements: "Iterable[Measurement]", *, as_json: bool) -> None:
    """Prints measurements as JSON lines, or as a table with one column a trivial predictor."""
    from remask.cli.tables import measurement_table

    if as_json:
        for measurement in measurements:
            typer.echo(json.dumps(measurement.to_json()))
    else:
        typer.echo(measurement_table(list(measurements)))
