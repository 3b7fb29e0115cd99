"""Small figures: what is drawn, what is left out, and how lines are told apart."""

import math
import re

import pytest
from page_text import own_colours

from remask.report.canvas import shortened
from remask.report.forest import Estimate, forest_figure, levels_inside
from remask.report.panels import (
    DOTS,
    LOOKS,
    PLAIN,
    Line,
    Panel,
    compact,
    finite_on,
    look,
    panel_figure,
    panels_layout,
    tick,
)


def panel(**changes) -> Panel:
    lines = [Line(name="ours", points=[(10.0, 3.0), (20.0, 2.0)])]
    return Panel(**{"title": "loss", "x_label": "step", "lines": lines} | changes)


def texts(svg: str) -> list[str]:
    """The words in a figure, in the order in which they were drawn."""
    return re.findall(r"<text[^>]*>([^<]*)", svg)


def test_equals_differ_in_colour_and_in_dash_or_sign():
    assert len({each.role for each in LOOKS}) == len(LOOKS)
    assert len({(each.dashes, each.marker) for each in LOOKS}) == len(LOOKS)
    assert look(len(LOOKS)) == look(0)


def test_every_line_is_named_at_its_end_and_every_level_with_its_value():
    lines = [
        Line(name=name, points=[(1.0, y), (2.0, y)], look=look(k)) for k, (name, y) in enumerate([("a", 1), ("b", 2)])
    ]
    svg = panel_figure(panel(lines=lines, levels=[("byte 2-gram", 1.5)]), name="x")
    assert {"a", "b", "bigram 1.5", "loss", "step"} <= set(texts(svg))
    assert own_colours(svg) == []


def test_a_level_that_would_squeeze_the_lines_is_left_out_and_told():
    found = panel(levels=[("near", 3.5), ("far", 9.0)])
    assert found.inside == [("near", 3.5)]
    assert found.outside == [("far", 9.0)]
    assert "far 9" not in texts(panel_figure(found, name="x"))


def test_names_from_files_become_neither_markup_nor_mathematics():
    odd = 'a"><script>$x^2$'
    lines = [Line(name=odd, points=[(1.0, 1.0), (2.0, 2.0)])]
    svg = panel_figure(panel(title=odd, x_label=odd, lines=lines, levels=[(odd, 1.5)]), name="x")
    assert "<script" not in svg
    assert svg.count('role="img"') == 1
    assert "$x^2$" in svg


def test_a_logarithmic_axis_leaves_out_what_it_cannot_show():
    line = Line(name="a", points=[(0.0, 1.0), (1.0, 0.0), (2.0, 4.0)], errors=[0.1, 0.2, 0.3], notes=["p", "q", "r"])
    found = finite_on(panel(lines=[line], levels=[("zero", 0.0), ("one", 1.0)], x_scale="log", y_scale="log"))
    assert list(found.lines[0].points) == [(2.0, 4.0)]
    assert (list(found.lines[0].errors), list(found.lines[0].notes)) == ([0.3], ["r"])
    assert found.levels == [("one", 1.0)]
    assert finite_on(panel(lines=[line])).lines == [line]


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_the_frame_holds_lines_and_error_bars(scale):
    line = Line(name="", points=[(1.0, 2.0), (2.0, 8.0)], errors=[0.5, 4.0])
    low, high = panel(lines=[line], y_scale=scale).y_range()
    assert low < 1.5
    assert high > 12.0


def test_few_numbers_of_steps_are_their_own_ticks():
    line = Line(name="", points=[(float(n), 1.0 / n) for n in (20, 50, 100)])
    assert texts(panel_figure(panel(lines=[line], x_scale="log"), name="x"))[:3] == ["20", "50", "100"]


def test_places_without_numbers_are_named():
    line = Line(name="", points=[(0.0, 1.0), (1.0, 2.0)], look=DOTS)
    assert {"true", "false"} <= set(texts(panel_figure(panel(lines=[line], names=["true", "false"]), name="x")))


def test_points_without_a_line_are_all_drawn():
    line = Line(name="", points=[(float(k), float(k)) for k in range(40)], look=DOTS)
    assert panel_figure(panel(lines=[line]), name="x").count("<use") >= 40


def test_panels_side_by_side_leave_the_same_room_for_labels():
    short, long = panel(), panel(lines=[Line(name="a long sampler", points=[(1.0, 1.0)], look=PLAIN)])
    assert panels_layout([short, long]).label_space == panels_layout([long]).label_space
    assert panels_layout([short]).label_space < panels_layout([long]).label_space


def test_a_long_name_loses_its_middle():
    assert shortened("abcdefghij", letters=7) == "abc…hij"
    assert len(shortened("x" * 99, letters=19)) == 19
    assert shortened("abc", letters=3) == "abc"


def test_numbers_in_figures_are_short():
    assert [compact(v) for v in (0.0, 2.8534, 1310.0, 4.1e6)] == ["0", "2.85", "1,310", "4.1e+06"]
    assert [tick(v) for v in (0.0, -0.25, 12_500.0, 3e12, 0.0001)] == ["0", "−0.25", "12.5k", "3T", "0.0001"]


def test_a_forest_draws_rows_from_the_top_with_their_words():
    rows = [Estimate(name="A", value=2.0, low=1.9, high=2.1, said="2.0 ± 0.1"), Estimate(name="B", value=2.4)]
    svg = forest_figure(rows, title="bits per byte", levels=[("byte 3-gram", 2.2), ("uniform", 8.0)], name="f")
    words = texts(svg)
    assert {"A", "B", "2.0 ± 0.1", "trigram", "bits per byte"} <= set(words)
    assert "uniform" not in words
    assert own_colours(svg) == []
    height = {word: float(re.search(rf'y="([\d.]+)"[^>]*>{word}<', svg)[1]) for word in ("A", "B")}  # pyright: ignore[reportOptionalSubscript]
    assert height["A"] < height["B"]


def test_a_long_title_of_a_forest_goes_over_to_another_line():
    rows = [Estimate(name="A", value=2.0, low=1.9, high=2.1)]
    words = "difference in judged nats per token (steps 64, sampler ancestral), nats/token of the judge"
    long, short = (forest_figure(rows, title=title, levels=[], name="f") for title in (words, "x"))
    lines = [line for line in texts(long) if line in words and " " in line]
    assert " ".join(lines) == words
    assert len(lines) > 1
    assert all(len(line) < 60 for line in lines)
    height = [float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg)[1]) for svg in (long, short)]  # pyright: ignore[reportOptionalSubscript]
    assert height[0] > height[1]


def test_dots_without_any_spread_still_have_a_frame():
    rows = [Estimate(name="A", value=0.0), Estimate(name="B", value=0.0)]
    assert "<svg" in forest_figure(rows, title="x", levels=[], name="f")
    assert levels_inside(rows, [("no difference", 0.0), ("far", math.pi)]) == [("no difference", 0.0)]
