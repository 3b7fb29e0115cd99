"""The curves of a training's health."""

from remask.report.health import MEDIAN_OVER, figures_of, health_panels, running_median


def lines(**figures) -> list[dict]:
    """Ten training lines; a figure is a function of the step, or a value."""
    return [
        {"kind": "train", "step": k} | {name: value(k) if callable(value) else value for name, value in figures.items()}
        for k in range(1, 11)
    ]


def titles(metrics, recipe=None) -> list[str]:
    return [panel.title for panel in health_panels(metrics, recipe or {})]


def test_the_median_looks_back_only():
    points = [(k, float(v)) for k, v in enumerate([5, 1, 9, 1, 1])]
    assert running_median(points, over=3) == [(0, 5.0), (1, 3.0), (2, 5.0), (3, 1.0), (4, 1.0)]
    assert [v for _, v in running_median([(0, 2.0), (1, 4.0)])] == [2.0, 3.0]
    assert MEDIAN_OVER % 2 == 1


def test_gradients_stand_beside_their_median_and_alarms_are_marked_where_they_were_raised():
    alarms = [{"kind": "alarm", "step": 7, "name": "x"}, {"kind": "alarm", "step": 9, "failed_step": 8, "name": "y"}]
    panel = health_panels([*lines(gradient_norm=lambda k: 1.0 + k), *alarms], {})[0]
    assert (panel.title, panel.y_scale, panel.marks) == ("gradient norm", "linear", [7.0, 8.0])
    raw, usual = panel.lines
    assert list(raw.points)[-1] == (10, 11.0)
    assert list(usual.points)[-1] == (10, 6.5)


def test_a_gradient_of_several_sizes_has_a_logarithmic_axis_without_its_zeros():
    panel = health_panels(lines(gradient_norm=lambda k: 0.0 if k == 1 else 10.0**k), {})[0]
    assert panel.y_scale == "log"
    assert min(y for line in panel.lines for _, y in line.points) > 0


def test_a_gradient_that_was_always_zero_does_not_cost_the_page():
    assert health_panels(lines(gradient_norm=0.0), {})[0].y_scale == "linear"


def test_a_figure_stands_beside_the_target_that_the_recipe_sets():
    metrics = lines(mask_probability=lambda k: 0.01 * k)
    panel = next(p for p in health_panels(metrics, {"objective": {"target_mask_prob": 0.05}}) if "P([MASK])" in p.title)
    assert panel.levels == [("target", 0.05)]
    assert next(p for p in health_panels(metrics, {}) if "P([MASK])" in p.title).levels == []


def test_accuracy_is_drawn_over_its_chance():
    metrics = lines(unmask_accuracy=lambda k: 0.1 * k, unmask_chance=0.02, remask_auc=lambda k: 0.5 + 0.01 * k)
    accuracy, ranked = health_panels(metrics, {})
    assert [(line.name, line.points[-1][1]) for line in accuracy.lines] == [("model", 1.0), ("chance", 0.02)]
    assert ranked.levels == [("chance", 0.5)]


def test_a_figure_that_nobody_has_heard_of_gets_a_panel_with_its_company():
    panels = {panel.title: panel for panel in health_panels(lines(novelty=lambda k: k, novelty_trivial=0.125), {})}
    assert list(panels) == ["novelty"]
    assert [(line.name, line.points[-1][1]) for line in panels["novelty"].lines] == [
        ("model", 10.0),
        ("trivial", 0.125),
    ]


def test_the_busiest_expert_stands_beside_an_even_load():
    (panel,) = health_panels(lines(expert_load=lambda k: 0.5 - 0.01 * k, expert_load_even=0.125), {})
    assert [line.name for line in panel.lines] == ["busiest", "if evenly used"]


def test_what_stands_elsewhere_or_never_changes_gets_no_panel():
    metrics = lines(loss=lambda k: k, bits_per_byte=lambda k: k, seconds=lambda k: k, tokens=lambda k: k, constant=3.0)
    assert titles(metrics) == []


def test_values_that_are_no_numbers_are_passed_over():
    odd = [
        {"kind": "train", "step": k, "x": v} for k, v in enumerate([1.0, float("nan"), None, "3", True, 10**400, 2.0])
    ]
    assert figures_of([*odd, {"kind": "train", "step": None, "x": 1.0}])["x"] == [(0, 1.0), (6, 2.0)]
