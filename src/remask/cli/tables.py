"""Figures as plain text tables."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remask.evaluation.measurement import Measurement


def measurement_table(measurements: "Sequence[Measurement]") -> str:
    """One line a figure: its value and standard error, its unit, n, then what each trivial predictor gets."""
    predictors = list(dict.fromkeys(name for m in measurements for name in m.trivial))
    header = ["", "value", "± s.e.", "unit", "n", *map(predictor_label, predictors)]
    rows = [
        [
            m.name,
            number(m.value),
            "" if m.stderr is None else number(m.stderr),
            m.unit,
            str(m.n),
            *(number(m.trivial[name]) if name in m.trivial else "" for name in predictors),
        ]
        for m in measurements
    ]
    return "\n".join(aligned([header, *rows], left=(0, 3)))


def concept_table(measurements: "Sequence[Measurement]") -> str:
    """A table for each kind of figure of concepts, so that each stands beside its own trivial values."""
    from dataclasses import replace
    from itertools import groupby

    told = [replace(m, name=f"{m.name} {m.protocol[key]}") if (key := _told(m)) else m for m in measurements]
    return "\n\n".join(measurement_table(list(part)) for _, part in groupby(told, key=lambda m: tuple(m.trivial)))


def _told(measurement: "Measurement") -> str | None:
    """The key of a figure's protocol that tells it from others of its name."""
    return next((key for key in ("kept", "slot") if key in measurement.protocol), None)


def level_table(measurements: "Sequence[Measurement]") -> str:
    """One line a level of noise: the loss there, those of trivial predictors, and the skill, 1 − value/unigram."""
    from remask.evaluation.levels import skill

    header = ["t", "nats/token", "± s.e.", "token uniform", "token unigram", "skill", ""]
    rows = [
        [
            f"{m.protocol['t_low']:.3f}–{m.protocol['t_high']:.3f}",
            number(m.value),
            "" if m.stderr is None else number(m.stderr),
            number(m.trivial["uniform"]),
            number(m.trivial["unigram"]),
            number(skill(m)),
            "" if skill(m) > 0 else "← no better than the unigram",
        ]
        for m in measurements
    ]
    return "\n".join(aligned([header, *rows], left=(0, 6)))


def thought_table(measurements: "Sequence[Measurement]") -> str:
    """One line a range of t, the errors and accuracies there beside trivial ones; then all other figures."""
    from remask.evaluation.thoughts import BY_LEVEL, FILTER, NEAREST, ZERO

    levels: dict[str, dict[str, Measurement]] = {}
    for m in measurements:
        if m.name in BY_LEVEL:
            levels.setdefault(f"{m.protocol['t_low']:.3f}–{m.protocol['t_high']:.3f}", {})[m.name] = m
    header = ["t", "clean error", ZERO, FILTER, "skill", "± s.e.", "tokens right", "± s.e.", NEAREST, "gain", ""]
    rows = [
        [
            times,
            number(found["clean_error"].value),
            *(number(found["clean_error"].trivial[name]) for name in (ZERO, FILTER)),
            *_with_error(found["skill"]),
            *_with_error(found["token_accuracy"]),
            number(found["token_accuracy"].trivial[NEAREST]),
            number(found["rounding_gain"].value),
            "" if found["skill"].value > 0 else "← no skill",
        ]
        for times, found in levels.items()
    ]
    rest = [m for m in measurements if m.name not in BY_LEVEL]
    return "\n".join(aligned([header, *rows], left=(0, 10))) + "\n\n" + concept_table(rest)


def _with_error(measurement: "Measurement") -> list[str]:
    return [number(measurement.value), "" if measurement.stderr is None else number(measurement.stderr)]


def predictor_label(name: str) -> str:
    """A trivial predictor's name, with the uniform and the unigram of tokens told from those of bytes."""
    return {"uniform": "token uniform", "unigram": "token unigram"}.get(name, name)


def number(value: float) -> str:
    """Three decimals, or none where the number is large."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def aligned(rows: Sequence[Sequence[str]], *, left: Sequence[int]) -> list[str]:
    """Rows as lines with columns under each other; columns in `left` are flush left, the rest flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
