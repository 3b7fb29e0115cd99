import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_run import trajectory

from remask.report import read_run, render_report
from remask.report.colours import PALETTE, REVEAL_BINS, SERIES, contrast, reveal_bin
from remask.report.curves import Curves, curves_of, frame_of, minimised_of, predictor_name, spread
from remask.report.picture import final_spans, frame_views, legend, strip_note, summary
from remask.report.reading import Frame, Trajectory
from remask.report.tables import duration, size, table_of


def built(**changes) -> Trajectory:
    stored = trajectory() | changes
    frames = tuple(Frame(step=f["step"], time=f["time"], tokens=tuple(f["tokens"])) for f in stored["frames"])
    tokens, revealed = tuple(stored["tokens"]), tuple(stored["revealed"])
    return Trajectory(
        sampler="ancestral", steps=stored["steps"], seed=1, tokens=tokens, revealed=revealed, frames=frames
    )


# -- colours -----------------------------------------------------------------------------------------


def test_contrast_of_black_on_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_reads_on_every_tint_and_the_page_in_both_themes(theme):
    ink = getattr(PALETTE["ink"], theme)
    for role in ("page", "panel", *(f"reveal-{k}" for k in range(REVEAL_BINS))):
        assert contrast(getattr(PALETTE[role], theme), ink) >= 4.5
    for role in ("quiet", "bad"):
        assert contrast(getattr(PALETTE[role], theme), getattr(PALETTE["panel"], theme)) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_colours_of_lines_read_as_text_on_page_and_panel(theme):
    for role in (f"series-{k}" for k in range(SERIES)):
        for ground in ("page", "panel"):
            assert contrast(getattr(PALETTE[role], theme), getattr(PALETTE[ground], theme)) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_two_steps_colours_are_the_same(theme):
    tints = [getattr(PALETTE[f"reveal-{k}"], theme) for k in range(REVEAL_BINS)]
    assert len(set(tints)) == REVEAL_BINS


def test_figures_can_tell_the_roles_apart_by_their_light_colours():
    lights = [pair.light for pair in PALETTE.values()]
    assert len(set(lights)) == len(lights)


@given(st.integers(1, 300))
def test_the_legend_covers_every_step_once_and_agrees_with_the_tokens_colours(steps):
    spans = legend(built(steps=steps, revealed=[1], tokens=["a"], frames=[]))
    covered = []
    for span in spans:
        first, _, last = span.text.partition("–")
        covered += range(int(first), int(last or first) + 1)
        assert {f"r{reveal_bin(step, steps=steps)}" for step in (int(first), int(last or first))} == {span.look}
    assert covered == list(range(1, steps + 1))


# -- curves ----------------------------------------------------------------------------------------------


def test_predictors_are_named_in_words():
    names = ["uniform", "unigram", "byte 1-gram", "byte 2-gram", "byte 3-gram", "byte 4-gram"]
    named = ["uniform", "token unigram", "byte unigram", "byte bigram", "byte trigram", "byte 4-gram"]
    assert [predictor_name(name) for name in names] == named


def test_a_long_run_is_thinned_without_moving_its_mean():
    lines = [{"kind": "train", "step": k, "bits_per_byte": float(k % 7)} for k in range(6000)]
    curves = curves_of(lines, trivial={})
    assert len(curves.train) == 1200
    assert sum(value for _, value in curves.train) / 1200 == pytest.approx(sum(k % 7 for k in range(6000)) / 6000)


def test_smoothing_keeps_a_constant_and_a_short_curve_as_they_are():
    flat = [{"kind": "train", "step": k, "bits_per_byte": 3.0} for k in range(500)]
    assert {value for _, value in curves_of(flat, trivial={}).smooth} == {3.0}
    short = [{"kind": "train", "step": k, "bits_per_byte": float(k * k)} for k in range(9)]
    assert curves_of(short, trivial={}).smooth == curves_of(short, trivial={}).train


def test_the_frame_holds_all_ngram_lines_and_validation_but_not_the_start():
    start = [(0.0, 40.0)]
    curves = Curves(
        train=start,
        smooth=[*start, (1.0, 3.0)],
        validation=[(1.0, 5.2, 0.1)],
        trivial={"uniform": 8.0, "b": 2.0},
    )
    low, high = frame_of(curves)
    assert low < 2.0
    assert 5.2 < high < 8.0


@given(st.lists(st.floats(0, 10), max_size=12), st.floats(0.01, 3))
def test_spread_labels_keep_order_distance_and_bounds(wanted, gap):
    places = spread(wanted, gap=gap, low=0.0, high=10.0)
    room = min(gap, 10.0 / max(len(wanted) - 1, 1))
    ordered = [place for _, place in sorted(zip(wanted, places, strict=True))]
    assert all(b - a >= room - 1e-9 for a, b in pairwise(ordered))
    assert all(-1e-9 <= place <= 10 + 1e-9 for place in places)


def test_labels_that_are_far_apart_stay_where_they_are():
    assert spread([7.0, 1.0, 4.0], gap=0.5, low=0.0, high=10.0) == [7.0, 1.0, 4.0]


# -- the picture ---------------------------------------------------------------------------------------


def test_each_token_wears_the_colour_of_its_step_and_says_it():
    found = built()
    for span, step in zip(final_spans(found), found.revealed, strict=True):
        assert span.look == (f"r{reveal_bin(step, steps=64)}" if step else "given")
        assert span.title == (f"step {step}" if step else "given by the prompt")


def test_masks_are_blocks_that_give_no_text_away_and_keep_its_width():
    found = built()
    frame = frame_views(found)[0]
    masks = [span for span in frame.spans if span.look == "mask"]
    assert len(masks) == found.frames[0].tokens.count(None)
    assert {sign for span in masks for sign in span.text} <= {"x", " ", "\n"}
    final = "".join(span.text for span in final_spans(found))
    assert all(len("".join(s.text for s in view.spans)) == len(final) for view in frame_views(found))


def test_the_last_frame_reads_as_the_final_text_without_masks():
    found = built()
    last = frame_views(found)[-1]
    assert "".join(span.text for span in last.spans) == "".join(span.text for span in final_spans(found))
    assert "masked" not in last.caption


def test_a_token_that_noise_will_still_replace_is_marked_as_open():
    frames = [{"step": 1, "time": 0.5, "tokens": ["a", "q"]}, {"step": 2, "time": 0.0, "tokens": ["a", "b"]}]
    views = frame_views(built(steps=2, tokens=["a", "b"], revealed=[1, 2], frames=frames))
    assert [(span.text, span.look) for span in views[0].spans] == [("a", "r0"), ("q", "open")]
    assert views[0].caption == "step 1 of 2 · t = 0.50 · 1 still to change"
    assert [(span.text, span.look) for span in views[1].spans] == [("a", ""), ("b", "r4")]


def test_the_strip_explains_only_the_looks_that_occur():
    masked = strip_note(frame_views(built()))
    assert "A block is a masked token" in masked
    assert "italics" not in masked
    frames = [{"step": 1, "time": 0.5, "tokens": ["a", "q"]}]
    replaced = strip_note(frame_views(built(steps=2, tokens=["a", "b"], revealed=[1, 2], frames=frames)))
    assert "block" not in replaced
    assert "In grey italics" in replaced


def test_the_summary_counts_prompt_and_drawn_tokens_apart():
    text = summary(built(steps=4, tokens=list("abcde"), revealed=[0, 1, 2, 3, 4], frames=[]))
    counted = "The ancestral sampler drew 4 tokens in 4 steps, beside 1 given by the prompt"
    assert text == f"{counted}; half of them stood by step 2."
    assert summary(built(tokens=["a"], revealed=[0], frames=[])).startswith("Every one of the 1 tokens")


# -- tables ------------------------------------------------------------------------------------------------


def test_the_latest_measurement_of_one_protocol_stands_and_another_protocol_gets_its_own_row():
    def line(value: float, draws: int) -> dict:
        rest = {"unit": "bits/byte", "n": 4, "stderr": 0.01, "protocol": {"split": "test", "draws": draws}}
        return {"task": "likelihood", "name": "bits_per_byte", "value": value, **rest}

    table = table_of([line(3.0, 8), line(2.5, 32), line(2.9, 8)], task="likelihood")
    assert table is not None
    assert table.corner == "bits per byte"
    assert [(row.name, row.value) for row in table.rows] == [
        ("draws 32", "2.500 ± 0.010"),
        ("draws 8", "2.900 ± 0.010"),
    ]
    assert table.protocol == (("split", "test"),)


def test_a_task_without_measurements_has_no_table():
    assert table_of([], task="quality") is None


@pytest.mark.parametrize(
    ("value", "stderr", "shown"),
    [
        (2.85343, 0.01241, "2.853 ± 0.012"),
        (130.45, 2.75, "130.4 ± 2.8"),
        (31234.5, 1500.0, "31,234 ± 1,500"),
        (0.0061, None, "0.0061"),
        (9.0, None, "9"),
        (-0.5, None, "-0.5000"),
        (0.0, 0.0, "0"),
        (1.5, 1e-12, "1.500000 ± 0.000000"),
    ],
)
def test_a_value_shows_the_digits_that_its_error_allows(value, stderr, shown):
    record = {"task": "quality", "name": "x", "value": value, "stderr": stderr}
    table = table_of([record], task="quality")
    assert table is not None
    assert table.rows[0].value == shown


def test_durations_and_sizes_read_in_words():
    assert [duration(s) for s in (1.94, 48.2, 151.3, 3599.9, 11_000)] == [
        *("1.9 s", "48 s", "2 min 31 s", "1 h 00 min", "3 h 03 min"),
    ]
    assert [size(b) for b in (0, 1023, 912_680_550, 7.2 * 2**30)] == [
        "0 B",
        "1.02e+03 B",
        "870 MiB",
        "7.2 GiB",
    ]


# -- a training loss that is no likelihood -------------------------------------------------------------


def test_only_a_loss_without_bits_per_byte_is_drawn_apart():
    plain = [{"kind": "train", "step": k, "loss": 2.0, "bits_per_byte": 3.0} for k in range(1, 4)]
    partial = [{"kind": "train", "step": k, "loss": 2.0} for k in range(4, 6)]
    assert minimised_of(plain) == []
    assert minimised_of([*plain, *partial]) == [(4, 2.0), (5, 2.0)]


def test_the_page_explains_a_training_loss_that_is_no_likelihood(run_folder):
    path = run_folder / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert "What training minimised" not in render_report(read_run(run_folder))
    for record in records:
        if record["kind"] == "train":
            record.pop("bits_per_byte")
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    page = render_report(read_run(run_folder))
    assert "What training minimised" in page
    assert "training (smoothed)" not in page
