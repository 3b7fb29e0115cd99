"""Dots and intervals below each other: what arms get, and by how much they differ."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from remask.report.canvas import PANEL, Layout, hex_of, inline_svg, new_axes, shortened
from remask.report.panels import LOOKS, Look, compact, tick
from remask.report.reading import printable

_ROW, _BOTTOM, _LINE = 0.36, 0.4, 0.22  # inches
_LETTER_WIDTH = 0.6
_MOST_LETTERS = 18
_SQUEEZE = 1.5  # a level may stretch what the dots need by so many times their own span


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One row.

    Attributes:
        name: at its left.
        value: where its dot stands.
        low: the lower end of its interval, or None where it has none.
        high: the upper end.
        said: at its right.
        look: the colour and sign of its dot.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    said: str = ""
    look: Look = LOOKS[0]


def forest_figure(
    estimates: Sequence[Estimate], *, title: str, levels: Sequence[tuple[str, float]], name: str, layout: Layout = PANEL
) -> str:
    """Draws rows of dots with their intervals.

    Args:
        estimates: at least one, drawn from the top.
        title: what the x axis shows, with its unit.
        levels: (name, x) of values that the dots stand beside; those too far away are left out.
        name: no other figure of the page has it.
        layout: the width and the size of letters.

    Returns:
        An `<svg>` element to stand inside an HTML page.
    """
    inside = levels_inside(estimates, levels)
    letter = layout.font / 72 * _LETTER_WIDTH
    names = [shortened(printable(estimate.name), letters=_MOST_LETTERS) for estimate in estimates]
    left = 0.15 + max(map(len, names)) * letter
    right = 0.1 + max(len(estimate.said) for estimate in estimates) * letter
    lines = textwrap.wrap(printable(title), max(int(layout.width / letter), _MOST_LETTERS))
    top = 0.32 + _LINE * (len(lines) - 1) + (0.22 if inside else 0)
    height = top + _BOTTOM + _ROW * len(estimates)
    axes = new_axes(layout, height=height, top=top, right=right, left=left, bottom=_BOTTOM)
    for _, value in inside:
        axes.axvline(value, color=hex_of("trivial"), linewidth=1.0, dashes=(4, 3), zorder=1)
    for row, estimate in enumerate(estimates):
        _draw_row(axes, row, estimate, layout)
    axes.set_ylim(len(estimates) - 0.5, -0.5)
    axes.set_yticks(range(len(estimates)), names, parse_math=False)
    axes.tick_params(axis="y", length=0, labelcolor=hex_of("ink"))
    axes.spines["left"].set_visible(False)
    _set_x(axes, estimates, inside)
    _name_levels(axes, inside, layout)
    _title(axes, "\n".join(lines), height=height, layout=layout)
    told = ", ".join(f"{estimate.name} {estimate.said or compact(estimate.value)}" for estimate in estimates)
    return inline_svg(axes, name=f"{name}-{layout.name}", described=f"{title}: {told}")


def _title(axes: Axes, title: str, *, height: float, layout: Layout) -> None:
    """Writes the title at the left edge of the figure, `height` inches high, above the names of the levels."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    place = (0.0, 1 - 0.04 / height)
    ink = hex_of("ink")
    figure.text(*place, title, fontsize=layout.font, color=ink, parse_math=False, verticalalignment="top")


def levels_inside(estimates: Sequence[Estimate], levels: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The levels that can be drawn without squeezing the dots together."""
    low, high = _reach(estimates)
    room = _SQUEEZE * (high - low) or 0.5 * abs(high) or 1.0
    return [(name, value) for name, value in levels if low - room <= value <= high + room]


def _draw_row(axes: Axes, row: int, estimate: Estimate, layout: Layout) -> None:
    colour = hex_of(estimate.look.role)
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [row, row], color=colour, linewidth=2.0, solid_capstyle="butt")
    axes.plot([estimate.value], [row], color=colour, marker=estimate.look.marker or "o", markersize=7.0, clip_on=False)
    axes.annotate(
        printable(estimate.said),
        xy=(1, row),
        xycoords=("axes fraction", "data"),
        xytext=(8, 0),
        textcoords="offset points",
        color=hex_of("quiet"),
        fontsize=layout.font,
        verticalalignment="center",
        annotation_clip=False,
        parse_math=False,
    )


def _set_x(axes: Axes, estimates: Sequence[Estimate], inside: Sequence[tuple[str, float]]) -> None:
    low, high = _reach(estimates)
    low, high = min([low, *(x for _, x in inside)]), max([high, *(x for _, x in inside)])
    margin = 0.06 * (high - low) or 0.1 * abs(high) or 0.5
    axes.set_xlim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def _name_levels(axes: Axes, inside: Sequence[tuple[str, float]], layout: Layout) -> None:
    """The name of each level above its line, as far as there is room for it."""
    left, right = axes.get_xlim()
    width = axes.get_position().width * layout.width * 72
    free = float("-inf")
    for name, value in sorted(inside, key=lambda level: level[1]):
        words = layout.label(name)
        half = len(words) * layout.font * _LETTER_WIDTH * 0.85 / 2 / width * (right - left)
        centre = min(max(value, left + half), right - half)
        if centre - half < free:
            continue
        free = centre + half
        axes.annotate(
            printable(words),
            xy=(centre, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            color=hex_of("quiet"),
            fontsize=layout.font * 0.85,
            horizontalalignment="center",
            annotation_clip=False,
            parse_math=False,
        )


def _reach(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """The lowest and highest x of dots and intervals."""
    ends = [x for e in estimates for x in (e.value, e.low, e.high) if x is not None]
    return min(ends), max(ends)
