"""The figures of one run: its loss beside trivial lines, what it minimised, and how a sample came to stand."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from remask.report.canvas import WIDE, Label, Layout, columns, hex_of, inline_svg, label_right, new_axes
from remask.report.colours import reveal_bin
from remask.report.curves import Curves, frame_of, short
from remask.report.reading import Trajectory


def loss_figure(curves: Curves, layout: Layout) -> str:
    """The loss over training, beside what trivial predictors get.

    Args:
        curves: what to draw; `curves.empty` must be false.
        layout: the size.

    Returns:
        An `<svg>` element to stand inside an HTML page.
    """
    axes = new_axes(layout, height=layout.height, top=0.4, right=layout.label_space)
    low, high = frame_of(curves)
    axes.set_ylim(low, high)
    steps = [point[0] for point in (*curves.train, *curves.validation)]
    axes.set_xlim(0, max(*steps, 1.0))
    _trivial_lines(axes, curves, layout)
    dot = "." if len(curves.smooth) < 3 else ""  # a line of one point is invisible
    if curves.train:
        axes.plot(*columns(curves.train), color=hex_of("train-faint"), linewidth=1.0)
        axes.plot(
            *columns(curves.smooth), color=hex_of("train"), linewidth=1.9, marker=dot, label="training (smoothed)"
        )
    if curves.validation:
        x, y, error = zip(*curves.validation, strict=True)
        style = {"marker": "o", "markersize": 4.5, "linewidth": 1.6, "elinewidth": 1.2, "capsize": 2.0}
        # Above the axes' edge a last point at the right border would be cut in half.
        axes.errorbar(
            x, y, yerr=error, color=hex_of("validation"), label="validation", clip_on=False, zorder=5, **style
        )
    axes.set_xlabel("step")
    axes.set_ylabel(curves.unit)
    axes.xaxis.set_major_locator(MaxNLocator(6 if layout is WIDE else 4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    # Above the axes, where no trivial line crosses it.
    place = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.01), "borderaxespad": 0.0, "ncols": 2}
    axes.legend(frameon=False, fontsize=layout.font, handlelength=1.3, labelcolor=hex_of("ink"), **place)
    described = f"Loss curve in {curves.unit} over {max(steps):.0f} steps, with lines for the trivial predictors"
    return inline_svg(axes, name=f"loss-{layout.name}", described=described)


def minimised_figure(points: Sequence[tuple[float, float]], layout: Layout) -> str:
    """A training loss that estimates no likelihood, over training: it has no trivial line to stand beside.

    Args:
        points: (step, loss), at least one.
        layout: the size.

    Returns:
        An `<svg>` element to stand inside an HTML page.
    """
    axes = new_axes(layout, height=0.6 * layout.height, top=0.12, right=0.2)
    axes.plot(*columns(points), color=hex_of("train"), linewidth=1.5, marker="." if len(points) < 3 else "")
    axes.set_xlim(0, max(step for step, _ in points))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss")
    axes.xaxis.set_major_locator(MaxNLocator(6 if layout is WIDE else 4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    return inline_svg(axes, name=f"minimised-{layout.name}", described="The training loss over steps")


def reveal_figure(trajectory: Trajectory, layout: Layout) -> str:
    """At which step each position of a sample took its final token.

    Args:
        trajectory: how the sample came to be.
        layout: the size.

    Returns:
        An `<svg>` element to stand inside an HTML page.
    """
    axes = new_axes(layout, height=0.68 * layout.height, top=0.12, right=0.2)
    count, steps = len(trajectory.tokens), trajectory.steps
    edges = [k - 0.5 for k in range(count + 1)]
    axes.stairs(trajectory.revealed, edges, fill=True, color=hex_of("mask"), linewidth=0)
    size = max(min(layout.width * 72 / count * 0.7, 6.0), 2.2) ** 2
    groups: dict[int, list[int]] = {}
    for place, step in enumerate(trajectory.revealed):
        if step > 0:
            groups.setdefault(reveal_bin(step, steps=steps), []).append(place)
    for group, places in sorted(groups.items()):
        heights = [trajectory.revealed[place] for place in places]
        axes.scatter(places, heights, s=size, color=hex_of(f"dot-{group}"), linewidths=0, clip_on=False, zorder=3)
    axes.set_xlim(-0.5, count - 0.5)
    # Time runs down the page, as in the strip of frames below the figure.
    axes.set_ylim(steps * 1.02, 0)
    axes.set_xlabel("position in the text")
    axes.set_ylabel("step")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(8 if layout is WIDE else 5, integer=True))
    described = f"The step, of {steps}, at which each of {count} positions took its final token"
    return inline_svg(axes, name=f"reveal-{layout.name}", described=described)


def _trivial_lines(axes: Axes, curves: Curves, layout: Layout) -> None:
    """A dashed line for each trivial predictor inside the frame, named to its right."""
    low, high = axes.get_ylim()
    named = {name: value for name, value in sorted(curves.trivial.items()) if low <= value <= high}
    for value in named.values():
        axes.axhline(value, color=hex_of("trivial"), linewidth=1.0, dashes=(4, 3), zorder=1)
    labels = [Label(text=f"{layout.label(name)} {short(value)}", height=value) for name, value in named.items()]
    label_right(axes, labels, layout)
