"""Alarms from plain numbers: what they say, when a line of the record raises one, what a verdict makes of them."""

import json
import math

import pytest

from remask.health import verdict
from remask.health.alarms import Alarm, exploding_gradient, listed, non_finite_loss, still_parameters
from remask.health.watching import Expected, character_entropy, collapse_signs, distinct_share, judge_line

PROSE = "the module defines a class of objects that are opened for reading, and returns none if closed. "
TRIVIAL = {
    "nats_per_token": {"uniform": 5.55, "unigram": 3.26, "byte 1-gram": 3.27},
    "bits_per_byte": {"uniform": 8.01, "unigram": 4.71, "byte 1-gram": 4.72, "byte 2-gram": 3.81},
}
TARGETS = {"mask_probability": 0.05}
EXPECTED = Expected(steps=1000, trivial=TRIVIAL, targets=TARGETS, settled=200)
ALARM = Alarm(
    kind="explosion", name="exploding gradient", step=7, evidence="norm 80", cause="a high rate", remedy="half of it"
)


def train(step, **figures):
    return {"kind": "train", "step": step, "loss": 2.0, **figures}


def validation(step, bits, stderr=0.01):
    return {"kind": "validation", "step": step, "bits_per_byte": bits, "nats_per_token": bits * 0.69, "stderr": stderr}


def names(*records, expected=EXPECTED):
    """What the last of some lines raises."""
    lines = [r for r in records if r["kind"] == "train"]
    return [alarm.name for alarm in judge_line(records[-1], recent=lines, expected=expected)]


def test_an_alarm_is_one_line_and_one_record():
    assert str(ALARM) == "step 7: exploding gradient: norm 80. Usual cause: a high rate. Try: half of it"
    assert ALARM.to_json() == {
        "kind": "alarm",
        "alarm": "explosion",
        "step": 7,
        "name": "exploding gradient",
        "evidence": "norm 80",
        "cause": "a high rate",
        "remedy": "half of it",
    }


def test_a_loss_that_is_not_finite_is_told_with_its_terms_and_the_place():
    terms = {"unmask": 1.0, "remask": math.nan, "masked": math.inf}
    said = str(non_finite_loss(step=3, loss=math.nan, terms=terms, where="first layer: blocks.2", half=False))
    assert said.startswith(
        "step 3: non-finite loss: the loss is not finite (term: remask = nan, masked = inf); first layer: blocks.2."
    )
    whole = str(non_finite_loss(step=3, loss=math.inf, terms={}, where="", half=True))
    assert "(term: loss = inf)" in whole
    assert "weights in float16" in whole


def test_an_explosion_names_the_parameters_that_hold_most_of_it_and_adaln_only_where_it_is_one():
    common = {"step": 50, "norm": 812.0, "usual": 2.0, "shares": {"blocks.0.modulation.weight": 0.71, "head": 0.2}}
    plain, modulated = (str(exploding_gradient(**common, modulated=m)) for m in (False, True))
    for said in (plain, modulated):
        assert "gradient norm 812, 406 times what is usual (2); most of it in blocks.0.modulation.weight 71%" in said
    assert "adaln_bounded" in modulated
    assert "adaln_bounded" not in plain


def test_long_lists_of_names_are_cut():
    assert listed(["a", "b"]) == "a, b"
    assert listed("abcde") == "a, b, c and 2 more"
    said = str(still_parameters(step=10, names=["a", "b"], since=1, all_of_them=True))
    assert "all parameters hold the very numbers of step 1 at step 10" in said


@pytest.mark.parametrize(
    ("step", "bits", "found"),
    [
        (500, 4.70, ["loss at its trivial value"]),
        (500, 4.60, []),
        (400, 4.70, []),
        (500, 8.30, ["worse than uniform"]),
        (100, 8.30, ["worse than uniform"]),
        (90, 8.30, []),
        (900, math.nan, []),
    ],
)
def test_a_validation_is_held_against_the_unigram_late_and_against_uniform_from_the_hundredth_step(step, bits, found):
    assert names(validation(step, bits)) == found


def test_a_validation_within_its_error_of_the_trivial_value_has_not_beaten_it():
    assert names(validation(600, 4.5, stderr=0.01)) == []
    assert names(validation(600, 4.5, stderr=0.3)) == ["loss at its trivial value"]


def test_a_run_of_fewer_than_a_hundred_steps_is_too_short_for_either():
    expected = Expected(steps=40, trivial=TRIVIAL)
    assert names(validation(40, 9.0), expected=expected) == []


def test_a_training_likelihood_is_judged_by_the_mean_of_its_lines():
    low, high = (
        [train(500 + 10 * k, bits_per_byte=bits) for k, bits in enumerate(values)]
        for values in ((4.9, 4.0, 4.2), (4.9, 4.5, 4.8))
    )
    assert names(*low) == []
    assert names(*high) == ["loss at its trivial value"]
    assert names(*high[:2]) == [], "two lines are too few"
    assert names(*(line | {"step": line["step"] - 100} for line in high)) == [], "too early"


def test_a_loss_in_its_own_unit_is_held_against_a_trivial_value_in_that_unit():
    expected = Expected(steps=200, trivial={"loss": {"guess of no noise": 1.0}})
    pinned, falling = ([train(80 + 10 * k, loss=loss) for k in range(3)] for loss in (1.0, 0.9))
    assert names(*falling, expected=expected) == []
    assert names(*pinned, expected=expected) == ["loss at its trivial value"]
    (alarm,) = judge_line(pinned[-1], recent=pinned, expected=expected)
    assert alarm.evidence == "loss 1.0000 is no better than the guess of no noise (1.0000)"
    assert alarm.kind == "trivial"


def test_a_bias_far_from_zero_is_a_logit_gap():
    (alarm,) = judge_line(
        train(50, mask_logit_bias=6.0, logit_gap=-9.0),
        recent=[train(50, mask_logit_bias=6.0, logit_gap=-9.0)],
        expected=EXPECTED,
    )
    assert (alarm.kind, alarm.name) == ("logit_gap", "mask-logit gap")
    assert "mask_logit_bias is 6.0, beyond 3 (with it, [MASK] lies -9.0 from the best word)" in alarm.evidence
    assert names(train(50, mask_logit_bias=-2.9)) == []


def test_a_probability_off_its_target_twice_in_a_row_after_the_warm_up_is_a_logit_gap():
    off, on = {"mask_probability": 0.08}, {"mask_probability": 0.06}
    assert names(train(300, **off), train(310, **off)) == ["mask-logit gap"]
    assert names(train(300, **on), train(310, **off)) == []
    assert names(train(190, **off), train(200, **off)) == []


@pytest.mark.parametrize("text", ["e" * 128, "the " * 32, "he said that it was so, and " * 8, "\n" * 64, ""])
def test_a_sample_that_says_one_thing_over_and_over_has_collapsed(text):
    record = {"kind": "sample", "step": 300, "text": text}
    assert names(record) == ["collapsed samples"]
    assert names(record | {"step": 99}) == []


@pytest.mark.parametrize("text", [PROSE, "42", "1 4 3 2\n4 1 2 3\n", "aaaa"])
def test_prose_and_short_answers_have_not(text):
    assert names({"kind": "sample", "step": 300, "text": text}) == []


def test_a_sample_is_held_against_what_is_usual_in_its_text():
    table = "| 0.1 | 0.1 | " * 40
    assert collapse_signs(table[:200], held_out="") != []
    assert collapse_signs(table[:200], held_out=table) == []
    assert collapse_signs("e" * 90, held_out=PROSE) == [
        "has only 1% different runs of 4 characters, where held-out text has 100%",
        "has an entropy of 0.00 nats a character, where held-out text has 2.73",
        "begins 'eeeeeeeeeeeeeeeeeeeeeeee'",
    ]


def test_entropy_and_distinctness_of_known_texts():
    assert character_entropy("abab") == pytest.approx(math.log(2))
    assert character_entropy("aaaa") == pytest.approx(0)
    assert distinct_share("aaaaaaa") == 1 / 4
    assert (distinct_share("abcdefg"), distinct_share("ab")) == (1.0, 1.0)


def run_with(*alarms):
    """A run that learned, with alarms on the way."""
    trivial = {"kind": "trivial", "step": 0, **TRIVIAL}
    losses = [
        {
            "kind": "train",
            "step": 10 * (k + 1),
            "loss": 2 + 3 * math.exp(-k / 9),
            "bits_per_byte": 2.9,
            "gradient_norm": 0.5,
            "learning_rate": 1e-3 * (1 - k / 200),
        }
        for k in range(100)
    ]
    return [trivial, *losses, *alarms, validation(600, 3.0), validation(1000, 2.9)]


def raised(kind, name, action, **changes):
    return {**ALARM.to_json(), "alarm": kind, "name": name, "action": action, **changes}


def test_an_alarm_that_ended_the_run_breaks_it_in_the_verdict_too():
    judged = verdict(run_with(raised("non_finite", "non-finite loss", "stop", step=640, evidence="term x = nan")))
    assert judged.level == "broken"
    assert judged.sentence.startswith("broken: non-finite loss, at step 640: term x = nan (2.90 bits/byte)")
    assert judged.findings[0].endswith("Usual cause: a high rate. Try: half of it.")


def test_an_alarm_that_was_mended_is_told_and_not_held_against_the_run():
    skipped = [raised("explosion", "exploding gradient", "skip", step=step) for step in (70, 90)]
    judged = verdict(run_with(*skipped))
    assert judged.level == "learns"
    assert judged.findings[0].startswith("exploding gradient: at step 90 (the last of 2 alarms): norm 80.")
    assert verdict(run_with()).findings == ()
    back = raised("non_finite", "non-finite loss", "roll_back", step=50, failed_step=77)
    assert "at step 77: norm 80" in verdict(run_with(back)).findings[0]


def test_parameters_that_stand_still_and_a_logit_gap_make_a_run_weak():
    for kind, name in (("dead", "parameters that never move"), ("logit_gap", "mask-logit gap")):
        judged = verdict(run_with(raised(kind, name, "report")))
        assert (judged.level, judged.findings[0].partition(":")[0]) == ("weak", name)


def test_what_figures_show_anyway_is_not_said_twice_and_what_they_refute_is_not_said():
    early = [raised("trivial", "worse than uniform", "report"), raised("collapse", "collapsed samples", "report")]
    assert verdict(run_with(*early)).findings == ()
    sample = {"kind": "sample", "step": 1000, "text": "e" * 128}
    found = [finding.partition(":")[0] for finding in verdict([*run_with(*early), sample]).findings]
    assert found == ["collapsed samples"]


def test_alarms_read_back_from_json_give_the_same_verdict():
    lines = run_with(raised("dead", "no gradient", "stop"))
    assert verdict([json.loads(json.dumps(line)) for line in lines]) == verdict(lines)
