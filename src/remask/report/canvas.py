"""What every figure of a page stands on: a size, axes, colours as CSS variables, and labels that keep apart."""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from remask.report.colours import PALETTE
from remask.report.curves import predictor_name, spread
from remask.report.reading import printable


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A figure's size for one width of page.

    Attributes:
        name: stands in the ids of the figure, and is its CSS class.
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
PANEL = Layout(
    name="panel",
    width=5.6,
    height=3.3,
    font=12.0,
    label=lambda name: predictor_name(name).removeprefix("byte "),
    label_space=1.5,
)
"""One of several small figures in a grid: two abreast on a wide page, one below another on a phone."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """A word to the right of the axes, tied to a height in them.

    Attributes:
        text: what it says.
        height: where it points to, in the unit of the y axis.
        place: where it points to, in the unit of the x axis; None for the right edge.
        role: its colour.
    """

    text: str
    height: float
    place: float | None = None
    role: str = "quiet"


def new_axes(
    layout: Layout, *, height: float, top: float, right: float, left: float | None = None, bottom: float | None = None
) -> Axes:
    """Transparent axes with room for their own labels, and `top` and `right` inches beside them.

    Args:
        layout: the width and the size of letters.
        height: of the figure, inches.
        top: above the axes, inches.
        right: inches.
        left: inches; None for as much as numbers and a title of the y axis need.
        bottom: inches; None for as much as numbers and a title of the x axis need.
    """
    width = layout.width
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    figure.patch.set_visible(False)
    left = 0.75 * layout.font / 13 if left is None else left
    bottom = 0.72 * layout.font / 13 if bottom is None else bottom
    axes = figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    )
    axes.patch.set_visible(False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(hex_of("line"))
    axes.tick_params(which="both", color=hex_of("line"), labelcolor=hex_of("quiet"), labelsize=layout.font, length=3)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(hex_of("quiet"))
        axis.label.set_fontsize(layout.font)
        axis.label.set_parse_math(False)
    return axes


def label_right(axes: Axes, labels: Sequence[Label], layout: Layout) -> None:
    """Writes labels beside the axes, apart from each other, each tied to its height by a thin line."""
    span = axes.get_position()
    inches = axes.get_figure(root=True).get_figheight() * span.height  # pyright: ignore[reportOptionalMemberAccess]
    gap = layout.font * 1.35 / 72 / inches
    share = axes.transData + axes.transAxes.inverted()
    edge = axes.get_xlim()[1]
    ends = [share.transform((edge if label.place is None else label.place, label.height)) for label in labels]
    places = spread([float(y) for _, y in ends], gap=gap, low=min(gap / 2, 0.5), high=max(1 - gap / 2, 0.5))
    for label, (x, y), place in zip(labels, ends, places, strict=True):
        axes.annotate(
            printable(label.text),
            xy=(min(float(x), 1.0), float(y)),
            xytext=(1 + 0.15 / (layout.width * span.width), place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=hex_of(label.role),
            fontsize=layout.font,
            verticalalignment="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={
                "arrowstyle": "-",
                "color": hex_of("trivial"),
                "linewidth": 0.8,
                "relpos": (0.0, 0.5),  # from the left of the word, so that no tie crosses its neighbours
                "shrinkA": 1,
                "shrinkB": 0 if label.place is None else 4,
            },
        )


def columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """The first and the second numbers of pairs."""
    return [x for x, _ in points], [y for _, y in points]


def hex_of(role: str) -> str:
    """A role's light colour, which `inline_svg` turns into the role's CSS variable."""
    return PALETTE[role].light


def shortened(text: str, *, letters: int) -> str:
    """A text of at most so many letters, the middle left out where it is longer."""
    if len(text) <= letters:
        return text
    head = (letters - 1 + 1) // 2
    return f"{text[:head]}…{text[len(text) - (letters - 1 - head) :]}"


def inline_svg(axes: Axes, *, name: str, described: str) -> str:
    """The figure as an `<svg>` element: own ids, no fixed colours, no addresses, always the same bytes.

    Args:
        axes: of the figure.
        name: no other figure of the page has it; its last part after a hyphen is the CSS class.
        described: what a reader hears who does not see it.
    """
    drawn = io.StringIO()
    figure = axes.get_figure(root=True)
    assert figure is not None
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": ["DejaVu Sans"]}),
        warnings.catch_warnings(),
    ):
        # A sign that matplotlib's font lacks is drawn by the reader's browser, which has others.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
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
    opening = f'<svg role="img" aria-label="{escape(printable(described))}" class="{name.split("-")[-1]}"'
    return svg.replace("<svg", opening, 1)
