"""`remask evaluate` and `remask health`: what a run is worth, in numbers and in words."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from remask.cli.sample import AsJson, Device, RunReference, changed_recipe

if TYPE_CHECKING:
    from collections.abc import Iterable

    from remask.evaluation.measurement import Measurement
    from remask.health import Verdict
    from remask.runs import Registry

TASKS = ("likelihood", "quality")


def evaluate(
    run: RunReference = "last",
    task: Annotated[
        list[str] | None, typer.Option(help="likelihood or quality; may be given again [default: both].")
    ] = None,
    split: Annotated[str | None, typer.Option(help="validation or test.")] = None,
    rows: Annotated[int | None, typer.Option(help="Rows of held-out text to judge.")] = None,
    draws: Annotated[int | None, typer.Option(help="Noise draws a row, for a likelihood bound.")] = None,
    count: Annotated[int, typer.Option(help="Texts to draw for quality.", min=2)] = 32,
    steps: Annotated[int | None, typer.Option(help="Denoising steps of those texts.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all noise and draws.")] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Judge a finished run on held-out text, every figure beside what trivial predictors get."""
    from remask.errors import UserError, did_you_mean
    from remask.runs import Registry, runs_home

    tasks = list(dict.fromkeys(task or TASKS))
    for name in tasks:
        if name not in TASKS:
            raise UserError(f"--task {name} is unknown; {did_you_mean(name, TASKS)}")
    registry = Registry(runs_home())
    record = registry.find(run)
    folder = registry.folder_of(record)
    options = {
        "evaluation.split": split,
        "evaluation.rows": rows,
        "evaluation.draws": draws,
        "sampling.count": count,
        "sampling.steps": steps,
        "seed": seed,
    }
    recipe = changed_recipe(folder, options)
    from remask.cli.sample import refuse_steps
    from remask.config.build import resolve_device
    from remask.config.saved import load_model
    from remask.data.cache import cache_home
    from remask.judgement import judge_likelihood, judge_quality, open_judged_text

    model, _ = load_model(folder.model_path, device=resolve_device(device))
    refuse_steps(model, steps)
    text = open_judged_text(model, recipe, cache=cache_home(), data_hash=record.data_hash)
    judges = {"likelihood": judge_likelihood, "quality": judge_quality}
    for name in tasks:
        measurements = judges[name](model, recipe, text)
        registry.add_evaluations(record.id, measurements, task=name)
        if (split, rows, draws, seed) == (None, None, None, None):  # another protocol is no headline among other runs'
            keep_headline(registry, record.id, measurements)
        report(measurements, as_json=as_json)
    settle_verdict(registry, record.id)


def health(run: RunReference = "last", as_json: AsJson = False) -> None:
    """Say in words whether a run has learned, and what looks wrong with it."""
    from remask.runs import Registry, runs_home

    registry = Registry(runs_home())
    record = registry.find(run)
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
