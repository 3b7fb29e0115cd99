"""Numbers as a reader wants them: tables of measurements, the headline, cost and provenance."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from remask.health.evidence import OWN_FIGURES
from remask.report.curves import BITS, figure_of, predictor_name, short
from remask.report.reading import Record, mapping, named_numbers, number, text_or_none, whole


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement.

    Attributes:
        name: what was measured, in words.
        setting: the part of its protocol in which the rows of its table differ, or empty.
        value: value ± standard error.
        unit: its unit.
        n: the number of examples behind it, or empty.
        trivial: the cells under the table's trivial predictors, empty where one has no such figure.
    """

    name: str
    setting: str
    value: str
    unit: str
    n: str
    trivial: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Table:
    """The measurements of one task.

    Attributes:
        corner: what stands at the head of its rows: `figure`, or the one figure that all of them are.
        trivial: the names of the trivial predictors, one a column.
        rows: the latest measurement of each name and protocol.
        protocol: the (key, value) pairs that all rows share.
    """

    corner: str
    trivial: tuple[str, ...]
    rows: tuple[Row, ...]
    protocol: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A line of the headline's chart.

    Attributes:
        name: who gets this figure.
        value: the figure, as text.
        percent: its length, 0..100.
        own: whether it is the run's.
    """

    name: str
    value: str
    percent: float
    own: bool


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The figure that a run is judged by, beside what trivial predictors get.

    Attributes:
        value: value ± standard error, as text.
        unit: in words.
        note: what must be said of the figure; empty for bits per byte.
        where: which text and how much of it, in words.
        bars: the run and the trivial predictors, worst first.
    """

    value: str
    unit: str
    note: str
    where: str
    bars: tuple[Bar, ...]


def table_of(evaluations: Iterable[Record], *, task: str) -> Table | None:
    """Arranges the measurements of a task, or None where there are none."""
    latest: dict[tuple[str, str], Record] = {}
    for record in evaluations:
        if record.get("task") == task:
            key = (str(record["name"]), json.dumps(record.get("protocol"), sort_keys=True, default=str))
            latest.pop(key, None)
            latest[key] = record
    if not latest:
        return None
    order = list(dict.fromkeys(name for name, _ in latest))
    records = sorted(latest.values(), key=lambda record: order.index(str(record["name"])))
    protocols = [flatten(mapping(record.get("protocol"))) for record in records]
    shared = {key: value for key, value in protocols[0].items() if all(p.get(key) == value for p in protocols)}
    trivial = tuple(dict.fromkeys(name for record in records for name in named_numbers(record.get("trivial"))))
    rows = [
        _row(record, trivial=trivial, setting={k: v for k, v in protocol.items() if k not in shared})
        for record, protocol in zip(records, protocols, strict=True)
    ]
    alike = len(order) == 1 and len(rows) > 1
    if alike:
        rows = [replace(row, name=row.setting, setting="") for row in rows]
    return Table(
        corner=order[0].replace("_", " ") if alike else "figure",
        trivial=tuple(map(predictor_name, trivial)),
        rows=tuple(rows),
        protocol=tuple((key.replace("_", " "), value) for key, value in shared.items()),
    )


def headline_of(
    evaluations: Sequence[Record], metrics: Sequence[Record], *, trivial: Mapping[str, float]
) -> Headline | None:
    """The best-founded figure of the run: of its last evaluation, else of its last validation.

    It is bits per byte, or what a run is judged by that gives text no likelihood.

    Args:
        evaluations: the lines of `evaluations.jsonl`.
        metrics: the lines of `metrics.jsonl`.
        trivial: of the trivial predictors, for figures that do not carry their own.
    """
    name = figure_of(metrics)
    task = "reconstruction" if name in OWN_FIGURES else "likelihood"
    for record in reversed(evaluations):
        value = number(record.get("value"))
        if record.get("name") == name and record.get("task") == task and value is not None:
            beside = named_numbers(record.get("trivial")) or dict(trivial)
            return _headline(value, record, name=name, where=_evaluated_on(record), trivial=beside)
    for record in reversed(metrics):
        value = number(record.get(name))
        if record.get("kind") == "validation" and value is not None:
            where = f"at step {record.get('step')}, on {_rows(record.get('rows'))} of validation text"
            return _headline(value, record, name=name, where=f"{where}, while training", trivial=trivial)
    return None


def figure(value: float, *, stderr: float | None, decimals: int) -> str:
    """A number, and its standard error where it has one."""
    error = f" ± {stderr:,.{decimals}f}" if stderr else ""
    return f"{value:,.{decimals}f}{error}"


def decimals_for(values: Sequence[float], *, stderr: float | None) -> int:
    """The decimals that mean something in a row of like numbers.

    Args:
        values: the measured value first, then what it is compared with.
        stderr: the value's standard error, of which two digits are shown.
    """
    if stderr:
        return min(max(1 - _power(stderr), 0), 6)
    if all(value == int(value) for value in values):
        return 0
    return min(max(3 - _power(values[0]), 0), 4)


def duration(seconds: float) -> str:
    """Seconds in words: `48 s`, `2 min 31 s`, `3 h 04 min`."""
    total = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if total < 60:
        return f"{total} s"
    if total < 3600:
        return f"{total // 60} min {total % 60:02d} s"
    return f"{total // 3600} h {total % 3600 // 60:02d} min"


def size(count: float) -> str:
    """Bytes in binary units: `812 MiB`."""
    power = min(max(int(math.log2(count)) // 10, 0), 4) if count >= 1 else 0
    return f"{count / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def flatten(record: Mapping[str, Any], *, prefix: str = "") -> dict[str, str]:
    """A nested record as `a.b` → text, without what is empty."""
    flat: dict[str, str] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, prefix=f"{name}.")
        elif value is not None and value != "" and value != []:
            flat[name] = _plain(value)
    return flat


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


def _row(record: Record, *, trivial: Sequence[str], setting: Mapping[str, str]) -> Row:
    value, stderr = number(record.get("value")), number(record.get("stderr"))
    beside = named_numbers(record.get("trivial"))
    count = whole(record.get("n"))
    decimals = decimals_for([0.5 if value is None else value, *beside.values()], stderr=stderr)
    return Row(
        name=str(record["name"]).replace("_", " "),
        setting=", ".join(f"{key.replace('_', ' ')} {text}" for key, text in setting.items()),
        value="not finite" if value is None else figure(value, stderr=stderr, decimals=decimals),
        unit=text_or_none(record.get("unit")) or "",
        n="" if count is None else f"{count:,}",
        trivial=tuple(
            figure(beside[name], stderr=None, decimals=decimals) if name in beside else "" for name in trivial
        ),
    )


def _headline(value: float, record: Record, *, name: str, where: str, trivial: Mapping[str, float]) -> Headline:
    everyone = [(predictor_name(name), found, False) for name, found in trivial.items()]
    everyone.append(("this run", value, True))
    everyone.sort(key=lambda entry: -entry[1])
    longest = max(found for _, found, _ in everyone)
    stderr = number(record.get("stderr"))
    return Headline(
        value=figure(value, stderr=stderr, decimals=decimals_for([value], stderr=stderr)),
        unit=OWN_FIGURES.get(name, BITS),
        note=" It is no likelihood: the network is told of the text." if name in OWN_FIGURES else "",
        where=where,
        bars=tuple(
            Bar(name=name, value=short(found), percent=round(100 * max(found, 0) / (longest or 1), 2), own=own)
            for name, found, own in everyone
        ),
    )


def _evaluated_on(record: Record) -> str:
    protocol = mapping(record.get("protocol"))
    split = text_or_none(protocol.get("split")) or "held-out"
    return f"on {_rows(record.get('n'))} of {split} text"


def _rows(count: object) -> str:
    found = whole(count)
    return "rows" if found is None else f"{found:,} row{'' if found == 1 else 's'}"


def _power(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0
