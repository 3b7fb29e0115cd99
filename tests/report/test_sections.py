"""What a run's evaluations put on its page: a section a task, settings beside each other, and who judged."""

import json
from pathlib import Path

import pytest
from page_text import Page, asks_for, dangling_ids, own_colours
from synthetic_run import make_run, write_lines

from remask.report import read_run, render_report
from remask.report.concepts import concept_panels, concept_sentences
from remask.report.costs import cost_of, judgings_of, lineage_of
from remask.report.levels import level_panel, level_pivot, no_better_levels
from remask.report.sections import sections_of
from remask.report.settings import latest_of, newest_of, pivot_of, step_panels

RUN = "quickstart_W8D1_20260223_203349"


def row(task: str, name: str, value: float, **rest) -> dict:
    line = {
        "unit": "share",
        "n": 8,
        "stderr": 0.01,
        "trivial": {},
        "protocol": {},
        "created": "2026-03-01T10:00:00+00:00",
    }
    return {"task": task, "name": name, "value": value, **line} | rest


def levels(*values: float, created: str = "2026-03-01T10:00:00+00:00") -> list[dict]:
    size = 1 / len(values)
    return [
        row(
            "levels",
            "nats_at_level",
            value,
            created=created,
            unit="nats/token",
            trivial={"uniform": 8.0, "unigram": 6.0},
            protocol={"t": (k + 0.5) * size, "t_low": k * size, "t_high": (k + 1) * size, "split": "validation"},
        )
        for k, value in enumerate(values)
    ]


def steps(sampler: str = "ancestral", **protocol) -> list[dict]:
    rows = []
    for count in (20, 50, 100):
        told = {"steps": count, "sampler": sampler, "length": 64} | protocol
        rows.append(row("steps", "seconds_per_sample", 0.01 * count, unit="s", protocol=told))
        rows.append(row("steps", "entropy", 4.0, unit="nats", protocol=told, trivial={"held-out text": 3.6}))
        judged = {
            "protocol": told | {"judge": "ar_1"},
            "trivial": {"held-out text": 90.0, "byte 3-gram samples": 800.0},
        }
        rows.append(row("steps", "judged_perplexity", 100.0 + 1000 / count, unit="per token", **judged))
    return rows


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run that was evaluated for everything, once in vain."""
    folder = make_run(tmp_path_factory.mktemp("home") / RUN)
    odd = row("<b>depth</b>", "<i>probe</i>", 0.5, unit="<u>", protocol={"<s>": "<p>"})
    answers = row("answers", "answers_right", 0.25, trivial={"random guess": 0.0625}, evaluation="answers_1")
    write_lines(folder / "evaluations.jsonl", [odd, answers, *levels(3.0, 6.5), *steps(), *steps("confidence")])
    record = {"task": "answers", "status": "failed", "created": "2026-03-01T11:00:00+00:00", "error": "<out of memory>"}
    record |= {
        "git_commit": "3f2a9c41d7b0e865",
        "git_dirty": True,
        "machine": "<a laptop>",
        "seconds": 61.0,
        "step": 40,
    }
    for name, changes in (
        ("answers_1", {}),
        ("answers_2", {"error": None, "conclusion": "fine", "status": "finished"}),
    ):
        (folder / "evaluations" / name).mkdir(parents=True)
        (folder / "evaluations" / name / "evaluation.json").write_text(json.dumps(record | changes))
    return render_report(read_run(folder))


def test_every_task_has_a_section_and_an_unknown_one_comes_last(html):
    names = Page(html).headings
    first = names.index("Likelihood")
    told = ["Likelihood", "Loss by noise level", "Answers", "Steps, quality and latency", "<b>depth</b>"]
    assert names[first : first + 5] == told


def test_the_page_with_all_figures_needs_nothing_outside_itself(html):
    assert asks_for(html) == []
    assert dangling_ids(html) == []
    assert own_colours(html) == []
    assert not {"b", "i", "s", "u"} & {tag for tag, _ in Page(html).elements}


def test_an_evaluation_is_told_with_its_own_provenance_and_what_went_wrong(html):
    words = Page(html).words
    assert "answers 2026-03-01 11:00 failed 3f2a9c41d7b0 and changes <a laptop> 1 40 1 min 01 s" in words
    assert "answers, 2026-03-01 11:00: <out of memory>" in words
    assert "answers, 2026-03-01 11:00: fine" in words


def test_samples_that_answer_prompts_are_not_missed_as_text():
    assert "Sample quality" in [section.heading for section in sections_of([])]
    assert "Sample quality" not in [section.heading for section in sections_of([row("answers", "answers_right", 0.5)])]


# -- levels of noise -------------------------------------------------------------------------------


def test_levels_are_drawn_beside_what_predictors_without_context_get_there():
    panel = level_panel(levels(3.0, 5.0))
    assert panel is not None
    lines = {line.name: list(line.points) for line in panel.lines}
    assert lines == {
        "uniform": [(0.25, 8.0), (0.75, 8.0)],
        "token unigram": [(0.25, 6.0), (0.75, 6.0)],
        "this run": [(0.25, 3.0), (0.75, 5.0)],
    }


def test_only_the_last_evaluation_of_levels_counts():
    both = [*levels(9.0, 9.0, 9.0), *levels(3.0, 5.0, created="2026-03-02T10:00:00+00:00")]
    pivot = level_pivot(both)
    assert pivot is not None
    assert [(setting, cells) for setting, _, cells in pivot.rows] == [
        ("0.00–0.50", ("3.000 ± 0.010", "8.000", "6.000", "0.500")),
        ("0.50–1.00", ("5.000 ± 0.010", "8.000", "6.000", "0.167")),
    ]
    assert ("split", "validation") in pivot.protocol


def test_a_level_no_better_than_the_unigram_is_named(html):
    assert no_better_levels(levels(3.0, 6.0, 6.5)) == ["0.33–0.67", "0.67–1.00"]
    assert no_better_levels(levels(3.0, 5.9)) == []
    assert "No better than the unigram at t = 0.50–1.00" in Page(html).words


def test_levels_that_cannot_be_read_make_no_figure():
    broken = [
        row("levels", "nats_at_level", 3.0, protocol={"t": "x"}),
        row("levels", "other", 3.0, protocol={"t": 0.5}),
    ]
    assert level_panel(broken) is None
    assert level_pivot(broken) is None
    assert sections_of(broken)[1].table is not None


# -- steps -----------------------------------------------------------------------------------------


def test_quality_and_latency_are_drawn_over_steps_and_quality_over_latency():
    panels = step_panels([*steps(), *steps("confidence")])
    assert [(panel.title, panel.x_label) for panel in panels] == [
        ("judged perplexity, per token", "denoising steps"),
        ("entropy, nats", "denoising steps"),
        ("seconds per sample, s", "denoising steps"),
        ("judged perplexity, per token", "seconds a sample (figures: steps)"),
    ]
    assert [line.name for line in panels[0].lines] == ["ancestral", "confidence"]
    assert list(panels[0].lines[0].points) == [(20, 150.0), (50, 120.0), (100, 110.0)]
    assert panels[0].levels == [("held-out text", 90.0)]
    assert list(panels[3].lines[0].points) == [(0.2, 150.0), (0.5, 120.0), (1.0, 110.0)]
    assert list(panels[3].lines[0].notes) == ["20", "50", "100"]


def test_settings_of_one_sampler_are_told_apart_by_what_differs():
    panels = step_panels([*steps(temperature=1.0), *steps(temperature=0.5)])
    assert [line.name for line in panels[0].lines] == ["temperature 1", "temperature 0.5"]
    assert [line.name for line in step_panels(steps())[0].lines] == ["ancestral"]


def test_steps_without_a_judge_show_what_there_is():
    rows = [each for each in steps() if each["name"] == "entropy"]
    assert [panel.title for panel in step_panels(rows)] == ["entropy, nats"]
    assert step_panels([row("steps", "entropy", 4.0)]) == []


def test_figures_of_one_setting_share_a_row_though_one_of_them_names_its_judge():
    pivot = pivot_of([*steps(), *steps("confidence")], by="steps")
    assert pivot is not None
    assert [(setting, rest) for setting, rest, _ in pivot.rows][:4] == [
        *(("20", "sampler ancestral"), ("50", "sampler ancestral"), ("100", "sampler ancestral")),
        ("20", "sampler confidence"),
    ]
    assert pivot.columns == (("seconds per sample", "s"), ("entropy", "nats"), ("judged perplexity", "per token"))
    assert pivot.rows[0][2] == ("0.200 ± 0.010", "4.000 ± 0.010", "150.000 ± 0.010")
    assert ("judge (judged perplexity)", "ar_1") in pivot.protocol
    assert pivot.beside[0] == ("held-out text", ("", "3.600", "90"))


def test_a_reference_that_differs_between_settings_is_no_single_row():
    rows = [row("steps", "entropy", 4.0, trivial={"held-out text": k}, protocol={"steps": k}) for k in (1, 2)]
    pivot = pivot_of(rows, by="steps")
    assert pivot is not None
    assert pivot.beside == ()
    assert step_panels(rows)[0].levels == []


def test_the_newest_of_equal_measurements_counts():
    rows = [row("steps", "entropy", value, protocol={"steps": 20}) for value in (1.0, 2.0)]
    assert [each["value"] for each in latest_of(rows, task="steps")] == [2.0]
    old, new = row("mauve", "mauve", 0.1, evaluation="a"), row("mauve", "mauve", 0.2, evaluation="b")
    assert newest_of([old, new], task="mauve") == [new]


# -- cost and lineage ------------------------------------------------------------------------------


def facts_of(folder: Path, **record):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"id": "a_1", "status": "finished"} | record))
    return read_run(folder)


def test_cost_tells_operations_epochs_and_what_a_token_uses(tmp_path):
    facts = facts_of(
        tmp_path / "a_1",
        tokens_seen=1_500_000,
        train_tokens=1_000_000,
        parameters=3_000_000,
        active_parameters=1_000_000,
        flops=4.156e12,
        flops_per_token=2.77e6,
        seconds=75.0,
    )
    cost = dict(cost_of(facts))
    assert cost["epochs"] == "1.5"
    assert cost["FLOPs of training, measured"] == "4.16 × 10¹²"
    assert cost["FLOPs a token, measured"] == "2.77 × 10⁶"
    assert cost["parameters used for a token"] == "1,000,000"
    assert cost["training time"] == "1 min 15 s"


def test_parameters_that_are_all_used_are_told_once(tmp_path):
    assert "parameters used for a token" not in dict(
        cost_of(facts_of(tmp_path / "a", parameters=9, active_parameters=9))
    )


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"how": "resumed", "from": "a_1/checkpoints/step-200"}, "resumed at step 200"),
        ({"how": "initialised", "from": "b_2/checkpoints/step-50"}, "initialised from step 50 of b_2"),
        ({"how": "converted", "from": "Qwen3-0.6B"}, "converted from Qwen3-0.6B"),
        ("a_1/checkpoints/step-7", "resumed at step 7"),
        ("/home/runs/a_1/checkpoints/step-7", "resumed at step 7"),
        ("b_2/checkpoints/step-7", "initialised from step 7 of b_2"),
        (7, "initialised from an unknown place"),
    ],
)
def test_lineage_is_told_in_words_whichever_version_wrote_it(entry, words):
    assert lineage_of({"id": "a_1", "lineage": [entry]}) == [words]


def test_measurements_without_a_record_make_evaluations_of_their_own(run_folder):
    judgings = judgings_of(read_run(run_folder))
    assert judgings is not None
    assert [(cells[0], cells[6]) for cells in judgings.rows] == [("likelihood", "3"), ("quality", "5")]


# --- concepts ---------------------------------------------------------------------------------------------


def concepts(*, gap: float = 0.2, kept: tuple[int, ...] = (1, 2, 4)) -> list[dict]:
    told = {"unit": "nats/token", "stderr": 0.05}
    found = [row("concepts", "effective_rank", 7.5, unit="dimensions", stderr=None, trivial={"constant slots": 0.0})]
    found += [
        row("concepts", name, gap, trivial={"unread concepts": 0.0}, **told) for name in ("shuffle_gap", "none_gap")
    ]
    for k in kept:
        found.append(row("concepts", "nats_at_kept", 5 - k / 8, protocol={"kept": k}, trivial={"unigram": 5.5}, **told))
    for slot in range(3):
        found.append(row("concepts", "slot_gap", 0.01 * slot, protocol={"slot": slot}, **told))
    return [*found, row("concepts", "recovered_share", 0.625, stderr=0.02)]


def test_concepts_are_drawn_by_how_many_are_kept_and_by_what_each_slot_adds():
    kept, slots = concept_panels(concepts())
    assert kept.lines[0].points == [(1, 4.875), (2, 4.75), (4, 4.5)]
    assert dict(kept.levels) == {"token unigram": 5.5, "no concept": pytest.approx(4.7)}
    assert slots.lines[0].points == [(0, 0.0), (1, 0.01), (2, 0.02)]
    assert slots.lines[0].errors == [0.05] * 3
    assert dict(slots.levels) == {"unread slot": 0.0}


def test_a_single_number_of_concepts_is_no_curve_and_geometry_alone_no_figure():
    assert [panel.x_label for panel in concept_panels(concepts(kept=(4,)))] == ["slot"]
    assert concept_panels(concepts()[:1]) == []


@pytest.mark.parametrize(("gap", "verdict"), [(0.2, "they carry the text"), (0.05, "no use of them is shown")])
def test_the_shuffle_gap_is_told_with_its_interval_and_what_follows(gap, verdict):
    said = concept_sentences(concepts(gap=gap))
    assert f"{gap:.4f} nats a token more (95 % interval {gap - 0.098:.4f} to {gap + 0.098:.4f}): {verdict}." in said[0]
    assert said[1] == "R(C), of what full attention gains over no context: 0.625 ± 0.020."


def test_the_page_has_a_section_of_concepts():
    section = next(each for each in sections_of(concepts()) if each.heading == "Concepts")
    assert len(section.svgs) == 2
    assert section.note.endswith("Bars: one standard error.")
    assert "R(C)" in section.note
    assert section.table is not None
