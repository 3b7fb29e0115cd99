"""What the lines of metrics.jsonl show while a run goes on: figures at their trivial value, collapse, the logit gap."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from remask.health.alarms import (
    Alarm,
    at_trivial_value,
    collapsed_sample,
    inversion_lost,
    mask_logit_gap,
    worse_than_uniform,
)
from remask.health.evidence import EARLY_STEPS, OWN_FIGURES, SPOKEN, Figure, Record, number, own_figure
from remask.health.judging import is_worse_than_uniform

UNITS = {"bits_per_byte": "bits/byte", "nats_per_token": "nats/token", "loss": "of loss", **OWN_FIGURES}

LINES = 10
"""Training lines that are averaged before they are held against a trivial value: single ones are noisy."""

FEWEST_LINES = 3
"""Training lines before their average is held against anything."""

LARGEST_BIAS = 3.0
"""Logits; beyond it the network gives [MASK] a twentieth of what it should. Sound runs were seen at 0.6, one that
drifts at 3.5 after 300 steps, still rising."""

LARGEST_MISS = 0.02
"""Probability by which the mean of [MASK] may miss its target, twice in a row."""

SHORTEST_SAMPLE = 24
"""Characters below which a text says nothing of repetition."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a run's figures are held against.

    Attributes:
        steps: optimiser steps of the run.
        trivial: figure of a line → predictor → its value in that figure's unit, as the `trivial` line has them; under
            `loss`, values in the objective's own unit, such as 1 for noise predicted as 0.
        targets: figure of a training line → the value it is steered to.
        settled: the step from which targets hold; not before the first `EARLY_STEPS` are over in any case.
        held_out: some held-out text, for what is usual in it; empty for none.
        inversion_tolerance: by what share of their size activations may be missed when reversible blocks are undone.
    """

    steps: int
    trivial: Mapping[str, Mapping[str, float]]
    targets: Mapping[str, float] = field(default_factory=dict)
    settled: int = 0
    held_out: str = ""
    inversion_tolerance: float = math.inf


def judge_line(record: Record, *, recent: Sequence[Record], expected: Expected) -> list[Alarm]:
    """The alarms whose condition holds at a line, whether they were raised before or not.

    Args:
        record: a line of kind `train`, `validation` or `sample`; others say nothing.
        recent: the training lines up to it, oldest first, `LINES` at most; this one is the last of them if it is one.
        expected: what is held against it.
    """
    judges = {"train": _training, "validation": _validation, "sample": _sample}
    judge = judges.get(str(record.get("kind")), _nothing)
    return list(judge(record, recent, expected))


def is_late(step: int, *, steps: int) -> bool:
    """Whether a run that has learned nothing by now should say so: at half of its steps, and 100 at least."""
    return step >= max(EARLY_STEPS, steps / 2)


def _nothing(record: Record, recent: Sequence[Record], expected: Expected) -> Iterator[Alarm]:
    del record, recent, expected
    yield from ()


def _training(record: Record, recent: Sequence[Record], expected: Expected) -> Iterator[Alarm]:
    step = int(record["step"])
    if is_late(step, steps=expected.steps):
        for key in ("loss", "bits_per_byte"):
            values = [number(line.get(key)) for line in recent]
            if len(values) >= FEWEST_LINES and not any(map(math.isnan, values)):
                yield from _trivial(step, key, fmean(values), 0.0, expected, source="train")
    yield from _logit_gap(recent, expected)
    yield from _inversion(record, expected)


def _validation(record: Record, recent: Sequence[Record], expected: Expected) -> Iterator[Alarm]:
    del recent
    step = int(record["step"])
    likelihood = "bits_per_byte" if "bits_per_byte" in expected.trivial else "nats_per_token"
    key = own_figure(expected.trivial) or likelihood
    stderr = 0.0 if key == "nats_per_token" else number(record.get("stderr"))
    value = number(record.get(key))
    if math.isnan(value):
        return
    figure = _figure(key, value, stderr, expected.trivial.get(key, {}), source="validation")
    uniform = "uniform" in figure.trivial
    if uniform and step >= EARLY_STEPS and is_worse_than_uniform(figure):
        yield worse_than_uniform(step=step, figure=f"held-out text at {figure}", reference=figure.named("uniform"))
    elif is_late(step, steps=expected.steps):
        yield from _trivial(step, key, value, stderr, expected, source="validation")


def _trivial(step: int, key: str, value: float, stderr: float, expected: Expected, *, source: str) -> Iterator[Alarm]:
    figure = _figure(key, value, stderr, expected.trivial.get(key, {}), source=source)
    floor = figure.floor() or min(
        (name for name in figure.trivial if "gram" not in name), key=figure.trivial.__getitem__, default=None
    )
    if floor is None or figure.beats(floor):
        return
    if key == "loss":  # in a unit of its own
        said, reference = f"loss {value:.4f}", _unbeaten(figure)
    else:
        said, reference = str(figure), figure.named(floor)
    yield at_trivial_value(step=step, figure=said, reference=reference, floor=floor)


def _unbeaten(figure: Figure) -> str:
    """All trivial values that a loss does not beat, the easiest first: `predicting zero (1.0000) and …`."""
    names = sorted((name for name in figure.trivial if not figure.beats(name)), key=lambda name: -figure.trivial[name])
    return " and ".join(f"{SPOKEN.get(name, f'the {name}')} ({figure.trivial[name]:.4f})" for name in names)


def _figure(key: str, value: float, stderr: float, trivial: Mapping[str, float], *, source: str) -> Figure:
    stderr = 0.0 if math.isnan(stderr) else stderr
    return Figure(value=value, stderr=stderr, unit=UNITS[key], source=source, trivial=trivial)


def _logit_gap(recent: Sequence[Record], expected: Expected) -> Iterator[Alarm]:
    record = recent[-1]
    step = int(record["step"])
    signs = []
    bias = number(record.get("mask_logit_bias"))
    if abs(bias) > LARGEST_BIAS:
        gap = number(record.get("logit_gap"))
        beside = "" if math.isnan(gap) else f" (with it, [MASK] lies {gap:.1f} from the best word)"
        signs.append(f"mask_logit_bias is {bias:.1f}, beyond {LARGEST_BIAS:.0f}{beside}")
    for name, target in expected.targets.items():
        last = [
            number(line.get(name)) for line in recent[-2:] if int(line["step"]) > max(expected.settled, EARLY_STEPS)
        ]
        if len(last) == 2 and all(abs(value - target) > LARGEST_MISS for value in last):
            beside = "" if math.isnan(bias) or signs else f" (mask_logit_bias {bias:.1f})"
            signs.append(f"{name} is {last[-1]:.3f} where {target:.3f} was asked for{beside}")
    if signs:
        yield mask_logit_gap(step=step, signs=signs)


def _inversion(record: Record, expected: Expected) -> Iterator[Alarm]:
    """Of a line that tells of blocks that were undone; one whose error is not finite is beyond any tolerance."""
    error = number(record.get("inversion_error", 0.0))
    if not error <= expected.inversion_tolerance:
        yield inversion_lost(step=int(record["step"]), error=error, tolerance=expected.inversion_tolerance)


def _sample(record: Record, recent: Sequence[Record], expected: Expected) -> Iterator[Alarm]:
    del recent
    step = int(record["step"])
    signs = collapse_signs(str(record.get("text") or ""), held_out=expected.held_out)
    if signs and step >= EARLY_STEPS:
        yield collapsed_sample(step=step, signs=signs)


def collapse_signs(text: str, *, held_out: str) -> list[str]:
    """How a text shows that it says one thing over and over; none where it does not, or is too short to tell.

    Held against as much of `held_out`: a table of numbers repeats itself more than prose. Characters are counted, not
    tokens, since one token decodes to the same characters for ever.

    Args:
        text: a sample.
        held_out: some real text; empty for none.
    """
    if len(text) < SHORTEST_SAMPLE:
        return [] if text.strip() else ["is empty"]
    usual = held_out[: len(text)] if len(held_out) >= SHORTEST_SAMPLE else ""
    signs = []
    share, least = distinct_share(text), min(0.2, 0.5 * distinct_share(usual)) if usual else 0.2
    if share < least:
        beside = f", where held-out text has {distinct_share(usual):.0%}" if usual else ""
        signs.append(f"has only {share:.0%} different runs of 4 characters{beside}")
    entropy, least = character_entropy(text), 0.5 * character_entropy(usual) if usual else 0.5
    if entropy < least:
        beside = f", where held-out text has {character_entropy(usual):.2f}" if usual else ""
        signs.append(f"has an entropy of {entropy:.2f} nats a character{beside}")
    return [*signs, f"begins {text[:24]!r}"] if signs else []


def distinct_share(text: str) -> float:
    """Different runs of 4 characters over all of them, above 0 to 1; 1 for a text of fewer than 4."""
    grams = [text[i : i + 4] for i in range(len(text) - 3)]
    return len(set(grams)) / len(grams) if grams else 1.0


def character_entropy(text: str) -> float:
    """The entropy of a text's character frequencies, in nats."""
    counts = Counter(text).values()
    return math.log(len(text)) - sum(n * math.log(n) for n in counts) / len(text) if text else 0.0


def as_kept(record: Record) -> dict[str, Any]:
    """What is remembered of a training line: its step and the figures that are judged over several lines."""
    names = ("loss", "bits_per_byte", "mask_probability", "mask_logit_bias", "logit_gap")
    return {"step": int(record["step"])} | {
        name: value for name in names if not math.isnan(value := number(record.get(name)))
    }
