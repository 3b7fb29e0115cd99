"""How well thoughts are denoised at each time, as figures and in words, beside what needs no network."""

from collections.abc import Sequence

from remask.evaluation.measurement import NEGLIGIBLE
from remask.report.curves import predictor_name
from remask.report.levels import level_of
from remask.report.panels import BESIDE, PLAIN, Line, Panel
from remask.report.reading import Record, mapping, named_numbers, number
from remask.report.settings import Pivot, newest_of, pivot_of

_TIME = "t (0: clean vectors, 1: pure noise)"
_LOWEST = -1.0
"""Of the skill that is drawn: one far below the filter's would flatten all others."""
_NORMAL = 1.96
_ENDS = ("t_low", "t_high")


def thought_panels(evaluations: Sequence[Record]) -> list[Panel]:
    """Skill, error and accuracy over t of the last thought evaluation; none where nobody measured."""
    rows = newest_of(evaluations, task="thought")
    return [panel for panel in (_skill(rows), _errors(rows), _accuracy(rows)) if panel is not None]


def thought_sentences(evaluations: Sequence[Record]) -> list[str]:
    """What the last thought evaluation says in words: times without skill, the question's worth, and how texts look."""
    rows = newest_of(evaluations, task="thought")
    said = []
    flat = [level_of(mapping(record.get("protocol"))) for record in rows if _is_without_skill(record)]
    if flat and len(flat) == sum(record.get("name") == "skill" for record in rows):
        said.append("No skill over a linear filter at any t.")
    elif flat:
        said.append(f"No skill over a linear filter at t = {', '.join(flat)}: a mean over all t hides that.")
    for record in rows:
        value, stderr = number(record.get("value")), number(record.get("stderr"))
        if value is not None and record.get("name") == "question_gap" and stderr is not None:
            low, high = value - _NORMAL * stderr, value + _NORMAL * stderr
            told = "the question is read" if low > NEGLIGIBLE else "no use of the question is shown"
            said.append(
                f"Another row’s question costs {value:.4f} nats a token more (95 % interval {low:.4f} to {high:.4f}): "
                f"{told}."
            )
        if value is not None and record.get("name") == "decode_oracle":
            said.append(f"Of vectors with next to no noise {value:.1%} are read as their tokens.")
    return said


def thought_pivot(evaluations: Sequence[Record]) -> Pivot | None:
    """The figures of the last thought evaluation that have a range of t: a row a range."""
    rows = [record for record in newest_of(evaluations, task="thought") if _has_range(record)]
    protocols = [mapping(record.get("protocol")) for record in rows]
    told = [
        {**record, "protocol": {k: v for k, v in {**protocol, "t": level_of(protocol)}.items() if k not in _ENDS}}
        for record, protocol in zip(rows, protocols, strict=True)
    ]
    return pivot_of(told, by="t")


def other_figures(evaluations: Sequence[Record]) -> list[Record]:
    """Those that have none."""
    return [record for record in newest_of(evaluations, task="thought") if not _has_range(record)]


def _has_range(record: Record) -> bool:
    return "t" in mapping(record.get("protocol"))


def _is_without_skill(record: Record) -> bool:
    value = number(record.get("value"))
    return record.get("name") == "skill" and (value is None or value <= 0)


def _skill(rows: Sequence[Record]) -> Panel | None:
    found = _over_time(rows, name="skill")
    if not found:
        return None
    points = [(t, max(value, _LOWEST)) for t, value, _, _ in found]
    # a value that is cut has no bar: it would tell of another place
    errors = [error if value >= _LOWEST else 0.0 for _, value, error, _ in found]
    cut = "" if all(value >= _LOWEST for _, value, _, _ in found) else f" (below {_LOWEST:g} drawn there)"
    return Panel(
        title=f"skill, 1 − error / linear filter's{cut}",
        x_label=_TIME,
        lines=[Line(name="", points=points, errors=errors, look=PLAIN)],
        levels=[("linear filter", 0.0)],
        frame=(min(0.0, *(value for _, value in points)) - 0.05, 1.05),  # the filter's is never outside
    )


def _errors(rows: Sequence[Record]) -> Panel | None:
    """The squared error itself, on a logarithmic axis: it spans some powers of ten."""
    found = [each for each in _over_time(rows, name="clean_error") if each[1] > 0]
    return _beside(found, title="mean squared error of clean vectors", y_scale="log") if found else None


def _accuracy(rows: Sequence[Record]) -> Panel | None:
    found = _over_time(rows, name="token_accuracy")
    return _beside(found, title="share of tokens named right", y_scale="linear") if found else None


def _beside(found: Sequence[tuple[float, float, float, Record]], *, title: str, y_scale: str) -> Panel:
    """A figure over t and what each trivial predictor gets there."""
    names = dict.fromkeys(name for *_, record in found for name in named_numbers(record.get("trivial")))
    lines = [
        Line(
            name=predictor_name(name),
            points=[(t, b[name]) for t, *_, r in found if name in (b := named_numbers(r.get("trivial")))],
            look=BESIDE,
        )
        for name in names
    ]
    own = Line(
        name="this run",
        points=[(t, value) for t, value, _, _ in found],
        errors=[error for _, _, error, _ in found],
        look=PLAIN,
    )
    return Panel(title=title, x_label=_TIME, lines=[*lines, own], y_scale="log" if y_scale == "log" else "linear")


def _over_time(rows: Sequence[Record], *, name: str) -> list[tuple[float, float, float, Record]]:
    """(t, value, standard error, record) of the figures of a name, by t."""
    found = []
    for record in rows:
        t, value = number(mapping(record.get("protocol")).get("t")), number(record.get("value"))
        if record.get("name") == name and t is not None and value is not None:
            found.append((t, value, number(record.get("stderr")) or 0.0, record))
    return sorted(found, key=lambda each: each[0])
