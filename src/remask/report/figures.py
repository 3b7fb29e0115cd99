"""The report's figures: matplotlib SVG whose text stays text and whose colours are CSS variables."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from remask.report.colours import PALETTE, reveal_bin
from remask.report.curves import Curves, frame_of, predictor_name, short, spread
from remask.report.reading import Trajectory


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A figure's size for one width of page.

    Attributes:
        name: stands in the ids of the figure.
        width: inches; one inch is 72 CSS pixels in the page.
        height: inches.
        font: points; one point is one CSS pixel in the page.
        label: shortens the name of a trivial predictor.
        label_space: inches to the right of the axes for those names.
    """

    name: str
    width: float
    height: float
    font: float
    label: Callable[[str], str]
    label_space: float


WIDE = Layout(name="wide", width=11.6, height=5.2, font=13.0, label=predictor_name, label_space=2.3)
NARROW = Layout(
    name="narrow",
    width=4.9,
    height=4.6,
    font=11.5,
    label=lambda name: predictor_name(name).removeprefix("byte "),
    label_space=1.62,
)


def loss_figure(curves: Curves, layout: Layout) -> str:
    """The loss over training, beside what trivial predictors get.

    Args:
        curves: what to draw; `curves.empty` must be false.
        layout: the size.

    Returns:
        An `<svg>` element to stand inside an HTML page.
    """
    figure, axes = _axes(layout, height=layout.height, top=0.4, right=layout.label_space)
    low, high = frame_of(curves)
    axes.set_ylim(low, high)
    steps = [point[0] for point in (*curves.train, *curves.validation)]
    axes.set_xlim(0, max(*steps, 1.0))
    _trivial_lines(axes, curves, layout)
    dot = "." if len(curves.smooth) < 3 else ""  # a line of one point is invisible
    if curves.train:
        axes.plot(*_columns(curves.train), color=_hex("train-faint"), linewidth=1.0)
        axes.plot(*_columns(curves.smooth), color=_hex("train"), linewidth=1.9, marker=dot, label="training (smoothed)")
    if curves.validation:
        x, y, error = zip(*curves.validation, strict=True)
        style = {"marker": "o", "markersize": 4.5, "linewidth": 1.6, "elinewidth": 1.2, "capsize": 2.0}
        # Above the axes' edge a last point at the right border would be cut in half.
        axes.errorbar(x, y, yerr=error, color=_hex("validation"), label="validation", clip_on=False, zorder=5, **style)
    axes.set_xlabel("step")
    axes.set_ylabel("bits per byte")
    axes.xaxis.set_major_locator(MaxNLocator(6 if layout is WIDE else 4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    # Above the axes, where no trivial line crosses it.
    place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.01), "borderaxespad": 0.0, "ncols": 2}
    axes.legend(frameon=False, fontsize=layout.font, handlelength=1.3, labelcolor=_hex("ink"), **place)
    described = f"Loss curve in bits per byte over {max(steps):.0f} steps, with lines for the trivial predictors"
    return _inline_svg(figure, name=f"loss-{layout.name}", described=described)


def minimised_figure(points: Sequence[tuple[float, float]], layout: Layout) -> str:
    """A training loss that estimates no likelihood, over training: it has no trivial line to stand beside.

    Args:
        points: (step, loss), at least one.
        layout: the size.

    Returns:
        An `<svg>` element to stand inside an HTML page.
    """
    figure, axes = _axes(layout, height=0.6 * layout.height, top=0.12, right=0.2)
    axes.plot(*_columns(points), color=_hex("train"), linewidth=1.5, marker="." if len(points) < 3 else "")
    axes.set_xlim(0, max(step for step, _ in points))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.xaxis.set_major_locator(MaxNLocator(6 if layout is WIDE else 4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    return _inline_svg(figure, name=f"minimised-{layout.name}", described="The training loss over steps")


def reveal_figure(trajectory: Trajectory, layout: Layout) -> str:
    """At which step each position of a sample took its final token.

    Args:
        trajectory: how the sample came to be.
        layout: the size.

    Returns:
        An `<svg>` element to stand inside an HTML page.
    """
    figure, axes = _axes(layout, height=0.68 * layout.height, top=0.12, right=0.2)
    count, steps = len(trajectory.tokens), trajectory.steps
    edges = [k - 0.5 for k in range(count + 1)]
    axes.stairs(trajectory.revealed, edges, fill=True, color=_hex("mask"), linewidth=0)
    size = max(min(layout.width * 72 / count * 0.7, 6.0), 2.2) ** 2
    groups: dict[int, list[int]] = {}
    for place, step in enumerate(trajectory.revealed):
        if step > 0:
            groups.setdefault(reveal_bin(step, steps=steps), []).append(place)
    for group, places in sorted(groups.items()):
        heights = [trajectory.revealed[place] for place in places]
        axes.scatter(places, heights, s=size, color=_hex(f"dot-{group}"), linewidths=0, clip_on=False, zorder=3)
    axes.set_xlim(-0.5, count - 0.5)
    # Time runs down the page, as in the strip of frames below the figure.
    axes.set_ylim(steps * 1.02, 0)
    axes.set_xlabel("position in the text")
    axes.set_ylabel("step")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(8 if layout is WIDE else 5, integer=True))
    described = f"The step, of {steps}, at which each of {count} positions took its final token"
    return _inline_svg(figure, name=f"reveal-{layout.name}", described=described)


def _axes(layout: Layout, *, height: float, top: float, right: float) -> tuple[Figure, Axes]:
    """Transparent axes with room for their own labels, and `top` and `right` inches beside them."""
    width = layout.width
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    figure.patch.set_visible(False)
    left, bottom = 0.75 * layout.font / 13, 0.72 * layout.font / 13
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    )
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_hex("line"))
    axes.tick_params(color=_hex("line"), labelcolor=_hex("quiet"), labelsize=layout.font, length=3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(_hex("quiet"))
        axis.label.set_fontsize(layout.font)
    return figure, axes


def _trivial_lines(axes: Axes, curves: Curves, layout: Layout) -> None:
    """A dashed line for each trivial predictor inside the frame, named to its right."""
    low, high = axes.get_ylim()
    named = {name: value for name, value in sorted(curves.trivial.items()) if low <= value <= high}
    gap = (high - low) * layout.font * 1.35 / 72 / (layout.height * axes.get_position().height)
    places = spread(list(named.values()), gap=gap, low=low + gap / 2, high=high - gap / 2)
    for (name, value), place in zip(named.items(), places, strict=True):
        axes.axhline(value, color=_hex("trivial"), linewidth=1.0, dashes=(4, 3), zorder=1)
        axes.annotate(
            f"{layout.label(name)} {short(value)}",
            xy=(1, value),
            xytext=(1.035, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            color=_hex("quiet"),
            fontsize=layout.font,
            verticalalignment="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={
                "arrowstyle": "-",
                "color": _hex("trivial"),
                "linewidth": 0.8,
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _hex(role: str) -> str:
    """A role's light colour, which `_inline_svg` turns into the role's CSS variable."""
    return PALETTE[role].light


def _inline_svg(figure: Figure, *, name: str, described: str) -> str:
    """The figure as an `<svg>` element: own ids, no fixed colours, no addresses, always the same bytes."""
    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": ["DejaVu Sans"]}):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (xmlns(:\w+)?|version)="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px 'DejaVu Sans'", r"font-size: \1px", svg)
    svg = re.sub(r'(<svg) width="[^"]*" height="[^"]*"', r"\1", svg)
    for role, colours in PALETTE.items():
        svg = svg.replace(colours.light, f"var(--{role})")
    opening = f'<svg role="img" aria-label="{described}" class="{name.split("-")[-1]}"'
    return svg.replace("<svg", opening, 1)
