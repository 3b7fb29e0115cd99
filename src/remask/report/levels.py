"""The loss at each level of noise, as a figure and as a table, beside predictors that see no context."""

from collections.abc import Sequence

from remask.report.curves import predictor_name
from remask.report.panels import BESIDE, PLAIN, Line, Panel
from remask.report.reading import Record, mapping, named_numbers, number, printable, text_or_none
from remask.report.settings import Pivot, cell_of, newest_of, shared_protocol
from remask.report.tables import decimals_for, figure


def level_panel(evaluations: Sequence[Record]) -> Panel | None:
    """The loss at each noise level beside what predictors without context get there, or None where nobody measured."""
    rows = [record for record in newest_of(evaluations, task="levels") if record.get("name") == "nats_at_level"]
    at = [(t, record) for record in rows if (t := number(mapping(record.get("protocol")).get("t"))) is not None]
    at.sort(key=lambda pair: pair[0])
    own = [(t, value, number(r.get("stderr")) or 0.0) for t, r in at if (value := number(r.get("value"))) is not None]
    if not own:
        return None
    names = dict.fromkeys(name for _, record in at for name in named_numbers(record.get("trivial")))
    beside = {name: [(t, b[name]) for t, r in at if name in (b := named_numbers(r.get("trivial")))] for name in names}
    lines = [Line(name=predictor_name(name), points=points, look=BESIDE) for name, points in beside.items()]
    model = Line(name="this run", points=[p[:2] for p in own], errors=[p[2] for p in own], look=PLAIN)
    unit = printable(text_or_none(rows[-1].get("unit")) or "nats/token")
    return Panel(
        title=f"loss at noise level t, {unit}", x_label="t (0: clean text, 1: pure noise)", lines=[*lines, model]
    )


def level_pivot(evaluations: Sequence[Record]) -> Pivot | None:
    """The last levels evaluation as a table: a row a level, the predictors without context and the skill beside it."""
    rows = [record for record in newest_of(evaluations, task="levels") if record.get("name") == "nats_at_level"]
    rows = [record for record in rows if number(mapping(record.get("protocol")).get("t")) is not None]
    if not rows:
        return None
    rows.sort(key=lambda record: number(mapping(record.get("protocol")).get("t")) or 0.0)
    trivial = list(dict.fromkeys(name for record in rows for name in named_numbers(record.get("trivial"))))
    heads = [("this run", text_or_none(rows[-1].get("unit")) or "")]
    heads += [*((predictor_name(name), "") for name in trivial), ("skill", "1 − value / unigram")]
    cells = []
    for record in rows:
        beside = named_numbers(record.get("trivial"))
        decimals = decimals_for([number(record.get("value")) or 0.5], stderr=number(record.get("stderr")))
        told = [figure(beside[name], stderr=None, decimals=decimals) if name in beside else "" for name in trivial]
        skill = skill_of(record)
        cells.append(
            (
                level_of(mapping(record.get("protocol"))),
                "",
                (cell_of(record), *told, "" if skill is None else f"{skill:.3f}"),
            )
        )
    return Pivot(
        corner="noise level t",
        columns=tuple(heads),
        rows=tuple(cells),
        beside=(),
        protocol=shared_protocol(rows, {"t", "t_low", "t_high"}),
    )


def skill_of(record: Record) -> float | None:
    """1 − value / unigram of a noise level: 0 for the unigram, below 0 for what is worse than it."""
    value, unigram = number(record.get("value")), named_numbers(record.get("trivial")).get("unigram")
    return None if value is None or not unigram else 1.0 - value / unigram


def no_better_levels(evaluations: Sequence[Record]) -> list[str]:
    """The noise levels at which the last levels evaluation is no better than the unigram, in words."""
    rows = [record for record in newest_of(evaluations, task="levels") if record.get("name") == "nats_at_level"]
    return [
        level_of(mapping(record.get("protocol")))
        for record in rows
        if (skill := skill_of(record)) is not None and skill <= 0
    ]


def level_of(protocol: Record) -> str:
    """`0.10–0.20`, or the middle of the level where its ends are not told."""
    low, high, middle = (number(protocol.get(key)) for key in ("t_low", "t_high", "t"))
    return f"{middle:.3g}" if low is None or high is None else f"{low:.2f}–{high:.2f}"
