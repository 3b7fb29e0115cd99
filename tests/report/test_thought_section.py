"""The section on thoughts: skill, error and accuracy over t beside what needs no network, and the same in words."""

import pytest
from page_text import Page
from synthetic_run import make_run, write_lines

from remask.report import read_run, render_report
from remask.report.sections import sections_of
from remask.report.thoughts import thought_panels, thought_sentences


def row(name, value, **rest):
    shared = {"task": "thought", "evaluation": "e1", "unit": "share", "n": 8, "stderr": 0.01, "protocol": {}}
    return {**shared, "created": "2026-03-01T10:00:00+00:00", "trivial": {}, "name": name, "value": value, **rest}


def thought(*skills, gap=0.2, **rest):
    size = 1 / len(skills)
    rows = []
    for k, value in enumerate(skills):
        times = {"t": (k + 0.5) * size, "t_low": k * size, "t_high": (k + 1) * size}
        zero = {"predict zero": -1.0, "linear filter": 0.0}
        rows.append(row("skill", value, trivial=zero, protocol=times, **rest))
        floors = {"predict zero": 1.0, "linear filter": 0.5}
        rows.append(row("clean_error", 0.5 * (1 - value), trivial=floors, protocol=times, **rest))
        rows.append(row("token_accuracy", 0.9, trivial={"nearest vector": 0.6}, protocol=times, **rest))
        rows.append(row("rounding_gain", 0.3, trivial={"nearest vector": 0.0}, protocol=times, **rest))
    return [*rows, row("question_gap", gap, **rest), row("decode_oracle", 1.0, **rest)]


def test_skill_and_accuracy_are_drawn_over_time_beside_what_needs_no_network():
    skill, error, accuracy = thought_panels(thought(0.8, 0.4))
    assert [line.points for line in skill.lines] == [[(0.25, 0.8), (0.75, 0.4)]]
    assert skill.levels == [("linear filter", 0.0)]
    assert skill.outside == []
    assert {line.name: line.points[0][1] for line in error.lines} == pytest.approx(
        {"predict zero": 1.0, "linear filter": 0.5, "this run": 0.1}
    )
    assert error.y_scale == "log"
    assert {line.name: line.points[1][1] for line in accuracy.lines} == {"nearest vector": 0.6, "this run": 0.9}


def test_a_skill_far_below_the_filters_does_not_flatten_the_others():
    skill = thought_panels(thought(0.8, -3000.0))[0]
    assert [line.points for line in skill.lines] == [[(0.25, 0.8), (0.75, -1.0)]]
    assert list(skill.lines[0].errors) == [0.01, 0.0]
    assert "below -1 drawn there" in skill.title


def test_times_without_skill_are_named_and_a_good_run_has_none():
    said = thought_sentences(thought(0.5, -0.1, 0.0, gap=0.01))
    assert said[0] == "No skill over a linear filter at t = 0.33–0.67, 0.67–1.00: a mean over all t hides that."
    assert said[1].endswith("(95 % interval -0.0096 to 0.0296): no use of the question is shown.")
    assert thought_sentences(thought(-0.5, -0.1))[0] == "No skill over a linear filter at any t."
    good = thought_sentences(thought(0.5, 0.1))
    assert good == [
        "Another row’s question costs 0.2000 nats a token more (95 % interval 0.1804 to 0.2196): the question is read.",
        "Of vectors with next to no noise 100.0% are read as their tokens.",
    ]


def test_only_the_last_evaluation_of_thoughts_counts():
    both = [*thought(-1.0, -1.0, evaluation="e0"), *thought(0.8, 0.4)]
    assert len(thought_panels(both)[0].lines[0].points) == 2
    assert not any("No skill" in said for said in thought_sentences(both))
    (section,) = (each for each in sections_of(both) if each.heading == "Thought")
    assert section.rest is not None
    assert [row.name for row in section.rest.rows] == ["question gap", "decode oracle"]
    assert section.pivot is not None
    assert [at for at, *_ in section.pivot.rows] == ["0.00–0.50", "0.50–1.00"]
    assert [name for name, _ in section.pivot.columns] == ["skill", "clean error", "token accuracy", "rounding gain"]
    assert len(section.svgs) == 3


def test_figures_that_cannot_be_read_make_no_panel():
    assert thought_panels([row("skill", None, protocol={"t": 0.5}), row("skill", 0.5, protocol={"t": "x"})]) == []
    assert thought_panels([]) == []


def test_the_page_has_the_section(tmp_path):
    folder = make_run(tmp_path / "run")
    write_lines(folder / "evaluations.jsonl", thought(0.5, -0.1))
    words = Page(render_report(read_run(folder))).words
    assert "Thought" in words
    assert "No skill over a linear filter at t = 0.50–1.00" in words
    assert "the question is read" in words
