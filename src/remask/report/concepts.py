"""What a run's concepts are worth, as figures: the likelihood against how many are kept, and what each slot adds."""

from collections.abc import Sequence

from remask.evaluation.measurement import NEGLIGIBLE
from remask.report.curves import predictor_name
from remask.report.panels import PLAIN, Line, Look, Panel
from remask.report.reading import Record, mapping, named_numbers, number, printable, text_or_none
from remask.report.settings import newest_of

_SLOTS = Look(role="train", marker="o", width=0.0)


def concept_panels(evaluations: Sequence[Record]) -> list[Panel]:
    """The last concepts evaluation as figures; none where it measured geometry alone."""
    rows = newest_of(evaluations, task="concepts")
    return [panel for panel in (_kept(rows), _slots(rows)) if panel is not None]


def concept_sentences(evaluations: Sequence[Record]) -> list[str]:
    """What the last concepts evaluation says in words: the shuffle gap with its interval, and R(C)."""
    said = []
    for record in newest_of(evaluations, task="concepts"):
        value, stderr = number(record.get("value")), number(record.get("stderr"))
        if value is None:
            continue
        if record.get("name") == "shuffle_gap" and stderr is not None:
            low, high = value - 1.96 * stderr, value + 1.96 * stderr
            verdict = "they carry the text" if low > NEGLIGIBLE else "no use of them is shown"
            said.append(
                f"Concepts of another row cost {value:.4f} nats a token more (95 % interval {low:.4f} to {high:.4f}): "
                f"{verdict}."
            )
        if record.get("name") == "recovered_share":
            error = "" if stderr is None else f" ± {stderr:.3f}"
            said.append(f"R(C), of what full attention gains over no context: {value:.3f}{error}.")
    return said


def _kept(rows: Sequence[Record]) -> Panel | None:
    """The bound against the number of first concepts that a row keeps; nothing for a single number."""
    found = _at(rows, name="nats_at_kept", key="kept")
    if len(found) < 2:
        return None
    none = [gap for record in rows if record.get("name") == "none_gap" and (gap := number(record.get("value")))]
    own = found[-1][1]
    beside = named_numbers(found[-1][3].get("trivial")).items()
    levels = [(predictor_name(name), value) for name, value in beside] + [("no concept", own + gap) for gap in none]
    unit = printable(text_or_none(found[-1][3].get("unit")) or "nats/token")
    return Panel(
        title=f"bound with the first concepts kept, {unit}",
        x_label="concepts kept",
        x_scale="log",
        lines=[_line(found, look=PLAIN)],
        levels=levels,
    )


def _slots(rows: Sequence[Record]) -> Panel | None:
    """What leaving out each slot costs."""
    found = _at(rows, name="slot_gap", key="slot")
    if not found:
        return None
    unit = printable(text_or_none(found[-1][3].get("unit")) or "nats/token")
    return Panel(
        title=f"cost of leaving out one slot, {unit}",
        x_label="slot",
        lines=[_line(found, look=_SLOTS)],
        levels=[("unread slot", 0.0)],
    )


def _at(rows: Sequence[Record], *, name: str, key: str) -> list[tuple[float, float, float, Record]]:
    """(the protocol's key, value, standard error, record) of the figures of a name, by the key."""
    found = []
    for record in rows:
        at, value = number(mapping(record.get("protocol")).get(key)), number(record.get("value"))
        if record.get("name") == name and at is not None and value is not None:
            found.append((at, value, number(record.get("stderr")) or 0.0, record))
    return sorted(found, key=lambda each: each[0])


def _line(found: Sequence[tuple[float, float, float, Record]], *, look: Look) -> Line:
    return Line(name="this run", points=[each[:2] for each in found], errors=[each[2] for each in found], look=look)
