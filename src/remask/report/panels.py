"""Small figures in a grid: some lines, the values they stand beside, and marks; told apart without colour too."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, Locator, LogLocator, MaxNLocator, NullFormatter, NullLocator

from remask.report.canvas import PANEL, Label, Layout, columns, hex_of, inline_svg, label_right, new_axes, shortened
from remask.report.reading import printable

Scale = Literal["linear", "log"]
Points = Sequence[tuple[float, float]]

_LABEL_LETTERS = 21
_LETTER_WIDTH = 0.57  # of a letter of matplotlib's font, in its size
_MOST_MARKERS = 9
_MOST_TICKS = 8
_NAME_LETTERS = 14
_OUTSIDE = 2.0  # a level may stretch what the lines need by so many times their own span, and no further


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a line is drawn.

    Attributes:
        role: its colour.
        dashes: points on and off; empty for an unbroken line.
        marker: matplotlib's name of the sign on it, or empty.
        width: points.
    """

    role: str
    dashes: tuple[float, ...] = ()
    marker: str = ""
    width: float = 1.7


LOOKS = tuple(
    Look(role=f"series-{k}", dashes=dashes, marker=marker)
    for k, (dashes, marker) in enumerate(
        [
            ((), "o"),
            ((6, 2), "s"),
            ((2, 2), "^"),
            ((7, 2, 2, 2), "D"),
            ((), "v"),
            ((6, 2), "P"),
            ((2, 2), "X"),
            ((7, 2, 2, 2), "h"),
        ]
    )
)
"""Lines that stand for equals: each with a colour, a dash and a sign of its own."""
PLAIN = Look(role="train")
FAINT = Look(role="train-faint", width=1.0)
FADED = Look(role="mask", width=1.1)
DOTS = Look(role="train", marker="o", width=0.0)
"""Points that no line joins."""
LEFT = Look(role="trivial", marker="x", width=0.0)
"""The same of trials that were given up."""
BEST = Look(role="validation", marker="*", width=0.0)
BESIDE = Look(role="trivial", dashes=(4, 3), width=1.1)
"""What a trivial predictor gets, where that is no single value."""


def look(number: int) -> Look:
    """The look of the line of a number from 0; after eight they come again."""
    return LOOKS[number % len(LOOKS)]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve.

    Attributes:
        name: stands at its end; empty for none.
        points: (x, y) in the order of x.
        errors: a standard error for each point, or empty.
        notes: a word at each point, or empty.
        look: how it is drawn.
    """

    name: str
    points: Points
    errors: Sequence[float] = ()
    notes: Sequence[str] = ()
    look: Look = PLAIN


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One small figure.

    Attributes:
        title: what the y axis shows, with its unit.
        x_label: what the x axis shows.
        lines: drawn in this order, the last on top.
        levels: (name, y) of values that the lines stand beside, dashed.
        marks: x of what happened there, such as alarms.
        x_scale: of the x axis.
        y_scale: of the y axis; `log` only for positive values.
        frame: the lowest and highest y; None for what the lines need.
        names: words of the places 0, 1, … of the x axis, where these are no numbers.
    """

    title: str
    x_label: str
    lines: Sequence[Line]
    levels: Sequence[tuple[str, float]] = ()
    marks: Sequence[float] = ()
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    frame: tuple[float, float] | None = None
    names: Sequence[str] = ()

    @property
    def inside(self) -> list[tuple[str, float]]:
        """The levels that are drawn."""
        low, high = self.y_range()
        return [(name, value) for name, value in self.levels if low <= value <= high]

    @property
    def outside(self) -> list[tuple[str, float]]:
        """The levels too far away to be drawn."""
        return [level for level in self.levels if level not in self.inside]

    def y_range(self) -> tuple[float, float]:
        """The lowest and highest y that are shown: of the lines, and of levels that do not squeeze them flat."""
        if self.frame is not None:
            return self.frame
        forth, back = _scale_of(self.y_scale)
        values = [forth(y) for line in self.lines for y in _reach(line, scale=self.y_scale)]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        room = _OUTSIDE * (high - low) or max(abs(high), 1.0)
        near = [forth(y) for _, y in self.levels if y > 0 or self.y_scale == "linear"]
        near = [y for y in near if low - room <= y <= high + room]
        low, high = min([low, *near]), max([high, *near])
        margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.5
        return back(low - margin), back(high + margin)


def panels_layout(panels: Iterable[Panel], layout: Layout = PANEL) -> Layout:
    """A layout whose labels have the room that the longest of some panels needs, so that their axes are alike."""
    letters = max((len(label.text) for panel in panels for label in _labels(panel, layout)), default=0)
    return replace(layout, label_space=0.3 + letters * layout.font / 72 * _LETTER_WIDTH if letters else 0.15)


def panel_figure(panel: Panel, *, name: str, layout: Layout = PANEL) -> str:
    """Draws a panel.

    Args:
        panel: what to draw; at least one of its lines has a point.
        name: no other figure of the page has it.
        layout: the size; `panels_layout` fits its room for labels.

    Returns:
        An `<svg>` element to stand inside an HTML page.
    """
    axes = new_axes(layout, height=layout.height, top=0.32, right=layout.label_space)
    axes.set_title(printable(panel.title), loc="left", fontsize=layout.font, color=hex_of("ink"), parse_math=False)
    axes.set_xscale(panel.x_scale)
    axes.set_yscale(panel.y_scale)
    axes.set_ylim(*panel.y_range())
    for _, value in panel.inside:
        axes.axhline(value, color=hex_of("trivial"), linewidth=1.0, dashes=(4, 3), zorder=1)
    for number, line in enumerate(panel.lines):
        draw_line(axes, line)
        _write_notes(axes, line, above=number % 2 == 0)
    _draw_marks(axes, panel.marks, layout)
    _set_x(axes, panel, layout)
    _set_ticks(axes, panel)
    label_right(axes, _labels(panel, layout), layout)
    return inline_svg(axes, name=f"{name}-{layout.name}", described=described(panel))


def described(panel: Panel) -> str:
    """A panel in words, for who does not see it."""
    told = [line for line in panel.lines if line.points and line.look not in (FAINT, FADED)]
    names = [line.name or " ".join(line.notes) or "line" for line in told]
    ends = [(compact(line.points[0][1]), compact(line.points[-1][1])) for line in told]
    lines = [f"{name} from {first} to {last}" for name, (first, last) in zip(names, ends, strict=True)]
    beside = [f"{name} {compact(value)}" for name, value in panel.levels]
    marks = [f"{len(panel.marks)} marks"] if panel.marks else []
    return f"{panel.title} over {panel.x_label}: {', '.join([*lines, *beside, *marks]) or 'no line'}"


def compact(value: float) -> str:
    """A figure in few letters: `0.034`, `2.85`, `1,310`, `4.1e+06`."""
    if value == 0:
        return "0"
    if 1000 <= abs(value) < 1e5:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def finite_on(panel: Panel) -> Panel:
    """The panel without points that its scales cannot show: zero and below on a logarithmic axis."""

    def kept(line: Line) -> Line:
        shown = [
            k
            for k, (x, y) in enumerate(line.points)
            if (x > 0 or panel.x_scale == "linear") and (y > 0 or panel.y_scale == "linear")
        ]
        points = [line.points[k] for k in shown]
        errors = [line.errors[k] for k in shown] if line.errors else ()
        notes = [line.notes[k] for k in shown] if line.notes else ()
        return replace(line, points=points, errors=errors, notes=notes)

    levels = [(name, y) for name, y in panel.levels if y > 0 or panel.y_scale == "linear"]
    lines = [line for line in map(kept, panel.lines) if line.points]
    return replace(panel, lines=lines, levels=levels)


def draw_line(axes: Axes, line: Line) -> None:
    """Draws a line, its errors as bars, and its sign on some of its points."""
    every = max(len(line.points) // _MOST_MARKERS, 1)
    style: dict[str, Any] = {"color": hex_of(line.look.role), "linewidth": line.look.width}
    lonely = len(line.points) < 3  # a line of one point is invisible
    every = every if line.look.width else 1  # where no line joins them, each point needs its sign
    style |= {"marker": line.look.marker or ("." if lonely else ""), "markevery": every}
    style |= {"markersize": 11.0 if line.look.marker == "*" else 5.0, "linestyle": "-" if line.look.width else "none"}
    style |= {"dashes": line.look.dashes} if line.look.dashes else {}
    x, y = columns(line.points)
    # Points that no line joins may stand on the border of the axes, which would cut them in half.
    axes.plot(x, y, **style, clip_on=bool(line.look.width))
    if line.errors:
        axes.errorbar(x, y, yerr=list(line.errors), fmt="none", ecolor=hex_of(line.look.role), elinewidth=1.1)


def _write_notes(axes: Axes, line: Line, *, above: bool) -> None:
    """Writes the word of each point above or below it."""
    offset = (6, 5 if above else -13)  # beside the error bar
    place: dict[str, Any] = {"xytext": offset, "textcoords": "offset points", "horizontalalignment": "left"}
    style: dict[str, Any] = {"color": hex_of(_role(line)), "fontsize": PANEL.font * 0.85, "parse_math": False}
    for point, note in zip(line.points, line.notes, strict=False):
        axes.annotate(printable(note), point, **place, **style)


def _labels(panel: Panel, layout: Layout) -> list[Label]:
    """The words beside the axes: at the end of each line that has a name, and at each level."""
    ends = [
        Label(text=_short(line.name), height=line.points[-1][1], place=line.points[-1][0], role=_role(line))
        for line in panel.lines
        if line.name and line.points
    ]
    levels = [Label(text=_short(f"{layout.label(n)} {compact(value)}"), height=value) for n, value in panel.inside]
    return [*ends, *levels]


def _set_x(axes: Axes, panel: Panel, layout: Layout) -> None:
    axes.set_xlabel(printable(panel.x_label))
    axes.xaxis.label.set_fontsize(layout.font)
    xs = [x for line in panel.lines for x, _ in line.points] + list(panel.marks)
    low, high = min(xs), max(xs)
    margin = 0.04 if any(len(line.points) > 1 for line in panel.lines) else 0.2  # for the words beside lone points
    if panel.x_scale == "log":
        room = (high / low) ** margin if high > low else 2.0
        axes.set_xlim(low / room, high * room)
    else:
        room = 0.5 * margin * (high - low) or 0.5
        axes.set_xlim(0 if 0 <= low <= 0.3 * high else low - room, high + room)


def _set_ticks(axes: Axes, panel: Panel) -> None:
    plain = FuncFormatter(lambda value, _: tick(value))
    if panel.names:
        names = [shortened(printable(name), letters=_NAME_LETTERS) for name in panel.names]
        axes.set_xticks(range(len(names)), names, parse_math=False)
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif panel.x_scale == "log":
        xs = sorted({x for line in panel.lines for x, _ in line.points})
        apart = all(b >= 1.4 * a for a, b in pairwise(xs)) and all(x == int(x) for x in xs)
        if len(xs) <= _MOST_TICKS and apart:  # few whole numbers, such as steps, are their own ticks
            axes.xaxis.set_major_locator(FixedLocator(xs))
            axes.xaxis.set_minor_locator(NullLocator())
            plain = FuncFormatter(lambda value, _: compact(value) if value < 1e4 else tick(float(f"{value:.3g}")))
        else:
            axes.xaxis.set_major_locator(_log_ticks(xs[0], xs[-1]))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    if not panel.names:
        axes.xaxis.set_major_formatter(plain)
    if panel.y_scale == "log":
        low, high = panel.y_range()
        axes.yaxis.set_major_locator(_log_ticks(low, high))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(plain)


def _log_ticks(low: float, high: float) -> Locator:
    """Ticks of a logarithmic axis: even ones where it is short, else round ones that leave each other room."""
    if high < 6 * low:
        return MaxNLocator(4)
    subs = (1.0, 2.0, 5.0) if high < 30 * low else (1.0, 3.0) if high < 300 * low else (1.0,)
    return LogLocator(subs=subs, numticks=_MOST_TICKS)


def _draw_marks(axes: Axes, marks: Sequence[float], layout: Layout) -> None:
    for x in marks:
        axes.axvline(x, color=hex_of("bad"), linewidth=1.0, dashes=(1, 2), zorder=1)
        at: dict[str, Any] = {"xy": (x, 1.0), "xycoords": ("data", "axes fraction"), "xytext": (0, 1)}
        axes.annotate(
            "▼",
            **at,
            textcoords="offset points",
            color=hex_of("bad"),
            fontsize=layout.font * 0.8,
            horizontalalignment="center",
            annotation_clip=False,
        )


def tick(value: float) -> str:
    """A number at a tick in few letters: `0.25`, `1e−4`, `12.5k`."""
    size = abs(value)
    if size >= 1e4:
        power = min(int(math.log10(size)) // 3, 6)
        return (
            f"{value / 1000**power:.4g}{('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}" if size < 1e21 else f"{value:.0e}"
        )
    if 0 < size < 1e-3:
        return f"{value:.2g}".replace("e-0", "e-").replace("-", "−")
    return f"{value:.6g}".replace("-", "−")


def _reach(line: Line, *, scale: Scale) -> list[float]:
    """The heights that a line and its error bars reach to."""
    errors = line.errors or [0.0] * len(line.points)
    reached = [y + sign * error for (_, y), error in zip(line.points, errors, strict=True) for sign in (-1, 1)]
    return [y for y in reached if y > 0] if scale == "log" else reached


def _scale_of(scale: Scale) -> tuple[Any, Any]:
    """To and from the numbers in which an axis is even."""
    return (math.log10, lambda y: 10.0**y) if scale == "log" else (float, float)


def _role(line: Line) -> str:
    return line.look.role if line.look.role.startswith("series") else "quiet"


def _short(text: str) -> str:
    return shortened(text, letters=_LABEL_LETTERS)
