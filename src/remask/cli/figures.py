"""The figures of an evaluation as a user sees them: a table or JSON lines, and what to be careful about."""

import json
from typing import TYPE_CHECKING

import typer

from remask.cli import reasoning
from remask.cli.sentences import sentence_cautions, told_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from remask.evaluation.measurement import Measurement


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
        told = told_from(reasoning.in_ways(measurements))
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
