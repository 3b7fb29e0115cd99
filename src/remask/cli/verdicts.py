"""`remask health`: whether a run has learned, in words; and what of its figures stands at the head of its record."""

import json
from typing import TYPE_CHECKING

import typer

from remask.cli import options as option

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from remask.evaluation.measurement import Measurement
    from remask.health import Verdict
    from remask.runs import Registry


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
