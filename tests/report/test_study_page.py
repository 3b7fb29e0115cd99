"""The page of a study: its sentences first, a figure a varied key, curves, costs, and every trial in a table."""

import pytest
from page_text import Page, asks_for, dangling_ids, own_colours

from remask.report import render_study, write_study
from remask.report.panels import BEST, DOTS, LEFT
from remask.report.trials import cost_panels, curve_panel, key_panels, trials_of


def trial(number: int, value: float | None, **changes) -> dict:
    told = {"number": number, "arm": f"network.width={64 * (number + 1)}", "seed": None, "state": "finished"}
    told |= {"values": {"network.width": str(64 * (number + 1)), "training.learning_rate": 10.0 ** (number - 4)}}
    told |= {"run": f"mdlm_D8_{number}", "error": None, "value": value, "stderr": 0.01, "n": 64}
    told |= {"trivial": {"byte 3-gram": 2.97}, "curve": [[20, 3.5], [40, 3.0 + 0.1 * number]], "calibration": False}
    told |= {"parameters": 1e6 * (number + 1), "active_parameters": 1e6 * (number + 1), "tokens_seen": 4e5, "steps": 40}
    return told | {"flops": 1e12 * (number + 1), "flops_per_token": 2.5e6, "seconds": 10.0 * (number + 1)} | changes


def study(**changes) -> dict:
    over = [
        {"key": "network.width", "values": ["64", "128"]},
        {"key": "training.learning_rate", "low": 1e-4, "high": 1e-1, "log": True, "whole": False},
    ]
    pruned = trial(3, None, state="pruned", stderr=None, curve=[[20, 9.0]])
    failed = trial(4, None, state="failed", error="the loss is not finite", curve=[])
    told = {
        "format": 1,
        "name": "sweep-mdlm_1",
        "kind": "sweep",
        "title": "sweep of mdlm",
        "command": "remask sweep mdlm",
    }
    told |= {"created": "2026-11-21T12:00:00+00:00", "finished": None, "status": "interrupted", "recipe": "mdlm"}
    told |= {"metric": {"name": "bits_per_byte", "task": None, "unit": "bits/byte", "better": "lower"}, "over": over}
    told |= {"sampler": "tpe", "prune": "median", "seed": 0, "jobs": 2, "comparison": None, "matched": None}
    told |= {"trials": [trial(0, 2.8), trial(1, 2.5), trial(2, 2.9), pruned, failed]}
    told |= {"best": {"trial": 1, "run": "mdlm_D8_1", "sentence": "x"}, "importances": {"network.width": 0.8}}
    return told | {"says": ["trial 1 is best: 2.500 bits/byte", "train it again with other seeds"]} | changes


@pytest.fixture(scope="module")
def html() -> str:
    return render_study(study())


def test_the_first_sentence_comes_first_and_trials_are_sorted_by_their_figure(html):
    page = Page(html)
    assert page.headings == ["Verdict", "Varied keys", "Learning curves", "Trials", "Provenance"]
    assert (
        page.words.index("trial 1 is best") < page.words.index("train it again") < page.words.index("What was varied")
    )
    heads = "trial width learning_rate bits per byte state parameters tokens steps FLOPs time run"
    assert heads in page.words
    rows = page.words[page.words.index(heads) :]
    places = [rows.index(f"mdlm_D8_{number}") for number in (1, 0, 2, 3, 4)]
    assert places == sorted(places)
    assert "★ 1 128 0.001 2.500 ± 0.010 finished 2,000,000 400,000 40 2.00 × 10¹² 20 s mdlm_D8_1" in rows


def test_a_study_that_did_not_end_and_trials_that_failed_are_told(html):
    words = Page(html).words
    assert "The study was interrupted: 5 of 5 trials so far have ended. 1 of 5 trials failed" in words
    assert "failed: the loss is not finite" in words
    assert "training.learning_rate: 0.0001 to 0.1 (log)" in words


def test_the_page_needs_nothing_outside_itself(html):
    assert asks_for(html) == []
    assert dangling_ids(html) == []
    assert own_colours(html) == []
    assert render_study(study()) == html


# -- figures ---------------------------------------------------------------------------------------


def test_each_varied_key_has_a_figure_with_a_dot_a_trial_and_the_best_apart():
    told = study()
    width, rate = key_panels(trials_of(told), told)
    assert (width.x_label, width.x_scale, rate.x_scale) == ("network.width", "linear", "log")
    dots = {line.look: list(line.points) for line in width.lines}
    assert dots[DOTS] == [(64.0, 2.8), (192.0, 2.9)]
    assert dots[BEST] == [(128.0, 2.5)]
    assert width.levels == [("byte 3-gram", 2.97)]
    low, high = width.y_range()
    assert dots[LEFT] == [(256.0, high)], "given up at 9.0, far outside the frame"
    assert low < 2.5 < 2.97 < high < 9.0


def test_values_that_are_no_numbers_are_places():
    trials = [trial(k, 2.5 + k, values={"network.bias": word}) for k, word in enumerate(["true", "false", "true"])]
    told = study(trials=trials, over=[{"key": "network.bias", "values": ["true", "false"]}], best=None)
    (panel,) = key_panels(trials_of(told), told)
    assert panel.names == ["true", "false"]
    assert [x for x, _ in panel.lines[0].points] == [0.0, 0.0, 1.0]


def test_curves_name_the_best_trials_and_fade_the_others():
    many = [trial(k, 2.5 + 0.1 * k) for k in range(8)]
    told = study(trials=[*many, trial(9, None, state="pruned"), trial(10, 1.0, calibration=True)])
    panel = curve_panel(trials_of(told), told)
    assert panel is not None
    assert [line.name for line in panel.lines if line.name] == [f"trial {k}" for k in (4, 3, 2, 0, 1)]
    assert sum(not line.name for line in panel.lines) == 4
    assert curve_panel([], told) is None


def test_the_best_is_the_highest_where_higher_is_better():
    told = study(metric={"name": "answers_right", "better": "higher", "unit": "share", "task": "answers"}, best=None)
    panel = curve_panel(trials_of(told), told)
    assert panel is not None
    assert panel.lines[-1].name == "trial 2"


def test_studies_of_size_are_drawn_over_their_cost_with_errors_over_seeds():
    arms = [
        ("network.width=64", 2.8),
        ("network.width=64", 3.0),
        ("network.width=128", 2.5),
        ("network.width=128", 2.5),
    ]
    trials = [
        trial(k, value, arm=arm, seed=k % 2, parameters=(k // 2 + 1) * 1e6, active_parameters=(k // 2 + 1) * 1e6)
        for k, (arm, value) in enumerate(arms)
    ]
    told = study(kind="size", trials=trials)
    panels = cost_panels(trials_of(told), told)
    labels = ["parameters used for a token", "FLOPs of training, measured", "seconds of training"]
    assert [panel.x_label for panel in panels] == labels
    (line,) = panels[0].lines
    assert list(line.points) == [(1e6, pytest.approx(2.9)), (2e6, 2.5)]
    assert list(line.errors) == [pytest.approx(0.1), 0.0]
    assert list(line.notes) == ["64", "128"]
    assert cost_panels(trials_of(study()), study()) == []


def test_a_matched_pair_tells_its_costs_and_the_ratios_it_reached():
    rows = [
        {"arm": "mdlm", "parameters": 1e6, "tokens_seen": 4e5, "flops_per_token_measured": 6e6, "seconds": 31.0},
        {
            "arm": "mdlm-moe",
            "parameters": 2.9e6,
            "tokens_seen": 2.6e5,
            "flops_per_token_analytic": 9e6,
            "seconds": 38.0,
        },
    ]
    matched = {"by": "flops", "arms": ["mdlm", "mdlm-moe"], "steps": [9, 6], "ratios": {"flops": 1.0034}, "rows": rows}
    trials = [trial(0, 2.5, arm="mdlm"), trial(1, 2.4, arm="mdlm-moe")]
    words = Page(render_study(study(kind="matched", matched=matched, trials=trials))).words
    assert "What was held equal: FLOPs" in words
    assert "mdlm-moe 2,900,000 260,000 9.00 × 10⁶ 38 s" in words
    assert "Reached: mdlm-moe over mdlm FLOPs 1.003" in words


def test_the_comparison_of_a_study_stands_on_its_page():
    arms = [{"name": "as it is", "runs": [], "seeds": [1]}, {"name": "bias=true", "runs": [], "seeds": [1]}]
    comparison = {"verdict": "as it is is better", "arms": arms, "figures": [], "flags": ["as it is 1, bias=true 2"]}
    page = Page(render_study(study(kind="component", comparison=comparison)))
    assert "Comparison" in page.headings
    assert "A as it is seed 1 B bias=true seed 1" in page.words


# -- odd input -------------------------------------------------------------------------------------


def test_text_from_a_study_cannot_become_markup():
    attack = "</p><script>alert(1)</script><img src=x onerror=alert(2)>$x$\"'"
    trials = [trial(k, 2.5 + k, arm=attack, error=attack, run=attack, values={attack: attack}) for k in range(2)]
    told = study(trials=trials, title=attack, name=attack, command=attack, says=[attack, attack], status=attack)
    told |= {"over": [{"key": attack, "values": [attack]}], "importances": {attack: 0.5}, "recipe": attack}
    told |= {"metric": {"name": attack, "unit": attack, "task": attack, "better": attack}}
    told |= {"matched": {"by": attack, "arms": [attack, attack], "rows": [{"arm": attack}], "ratios": {attack: 1.0}}}
    html = render_study(told)
    assert asks_for(html) == []
    assert not {"script", "img"} & {tag for tag, _ in Page(html).elements}


@pytest.mark.parametrize(
    "odd",
    [
        {},
        dict.fromkeys(study(), None),
        {key: [] for key in study()},
        dict.fromkeys(study(), "x"),
        study(trials=[{}, None, trial(0, float("nan"), curve=[[1], None, [1, None], ["a", 2]], values=None)]),
        study(trials=[trial(0, 0.0, stderr=0.0, curve=[[0, 0.0]])], metric={}, best={"trial": 0}),
        study(over=[{}, {"key": "network.width", "values": None}, {"key": "seed", "low": 0, "high": 1, "log": True}]),
    ],
)
def test_an_odd_study_never_costs_the_page(odd):
    assert Page(render_study(odd)).headings[0] == "Verdict"


def test_a_study_is_written_in_one_step(tmp_path):
    write_study({}, file=tmp_path / "study.html")
    assert [path.name for path in tmp_path.iterdir()] == ["study.html"]
