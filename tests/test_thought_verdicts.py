"""The verdict on runs that denoise vectors: none that has learned nothing is called good, and no good one is blamed."""

import pytest

from remask.health import verdict
from remask.health.watching import Expected, judge_line

NOISE_LOSS = {"zero": 1.0, "linear filter": 0.4995}


def lines(*, nats, loss, trivial_loss=None, skills=(0.9, 0.7, 0.5, 0.3, 0.1), count=40):
    """The lines of a run of thoughts."""
    unigrams = {"thought_nats_per_token": {"uniform": 5.55, "unigram": 2.75}}
    trivial = {"kind": "trivial", "step": 0, **unigrams, **({"loss": trivial_loss} if trivial_loss else {})}
    by_range = {f"skill_t{k}": value for k, value in enumerate(skills)} | {"worst_skill": min(skills)}
    first = 1.5 * loss
    train = [
        {"kind": "train", "step": 10 * i, "loss": loss + first * 0.7**i, "gradient_norm": 0.3, **by_range}
        for i in range(1, count + 1)
    ]
    judged = {"kind": "validation", "step": 10 * count, "thought_nats_per_token": nats, "stderr": 0.01}
    return [trivial, *train, judged]


def evaluation(*, skills=(0.9, 0.5, 0.1), gains=(0.0, 0.2, 0.1), gap=0.5, distinct=1.0, zeros=0.0, repeated=0.1):
    """What the thought task measures."""
    shared = {"task": "thought", "evaluation": "e1"}
    edges = [k / len(skills) for k in range(len(skills) + 1)]
    levels = [
        {
            **shared,
            "name": name,
            "value": value,
            "stderr": 0.01,
            "protocol": {"t_low": edges[k], "t_high": edges[k + 1]},
        }
        for name, values in (("skill", skills), ("rounding_gain", gains))
        for k, value in enumerate(values)
    ]
    held_out = {"distinct_over_questions": 1.0, "id_0_share": 0.01, "repetition": 0.05}
    drawn = {"distinct_over_questions": distinct, "id_0_share": zeros, "repetition": repeated}
    figures = [
        {**shared, "name": name, "value": value, "stderr": 0.01, "trivial": {"held-out text": held_out[name]}}
        for name, value in drawn.items()
    ]
    return [*levels, {**shared, "name": "question_gap", "value": gap, "stderr": 0.1}, *figures]


GOOD = {"nats": 0.8, "loss": 0.8}


def names(found):
    return [finding.partition(":")[0] for finding in found.findings]


def test_a_good_run_is_not_blamed_for_anything():
    found = verdict(lines(**GOOD), evaluations=evaluation())
    assert (found.level, found.findings) == ("learns", ())
    squared = lines(nats=0.8, loss=0.2, trivial_loss=NOISE_LOSS)
    assert names(verdict(squared, evaluations=evaluation())) == []


def test_who_predicts_zero_is_named_with_both_floors():
    found = verdict(lines(nats=155.0, loss=0.99, trivial_loss=NOISE_LOSS, skills=[-0.5] * 5))
    assert found.level == "broken"
    assert "loss 0.99 is what predicting zero gets (1.00; the linear filter gets 0.50)" in found.sentence
    assert "no skill over a linear filter (-0.5 at noise t0, where it has 0)" in found.sentence
    assert "loss of who predicts zero" in names(found)


def test_a_loss_between_both_floors_has_learned_nothing_either_however_good_its_nats_look():
    found = verdict(lines(nats=1.5, loss=0.57, trivial_loss=NOISE_LOSS, skills=[0.1] * 5))
    assert found.level == "trivial"
    assert "loss 0.57 is no better than that of a linear filter" in found.sentence
    assert "predicting zero 1.00" in found.sentence


@pytest.mark.parametrize("bad", [0, 2])
def test_one_range_of_time_without_skill_is_named_though_the_mean_is_good(bad):
    skills = [0.9, 0.5, 0.3]
    skills[bad] = -3.9
    found = verdict(lines(**GOOD), evaluations=evaluation(skills=skills))
    assert found.level == "weak"
    assert names(found) == ["no skill over a linear filter"]
    low = {0: "0 to 0.33", 2: "0.67 to 1"}[bad]
    assert f"skill -3.9 at t = {low}, where a linear filter has 0; 1 of 3" in found.sentence


def test_no_skill_at_any_time_is_not_having_learned():
    assert verdict(lines(**GOOD), evaluations=evaluation(skills=[-0.1, 0.0, -0.2])).level == "trivial"


def test_a_skill_that_was_not_finite_is_none():
    assert names(verdict(lines(**GOOD), evaluations=evaluation(skills=[0.5, None, 0.5]))) == [
        "no skill over a linear filter"
    ]


def test_held_out_skill_is_judged_rather_than_that_of_training():
    found = verdict(lines(**GOOD, skills=[-1.0] * 5), evaluations=evaluation())
    assert names(found) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"gap": 0.1}, "question not read"),
        ({"gap": 0.199}, "question not read"),  # above 0 for sure, and worth nothing
        ({"gap": 0.202}, None),
        ({"gap": None}, None),
        ({"gains": (0.0, -0.1, 0.02)}, "nothing gained over rounding"),
        ({"gains": (0.0, -0.1, 0.04)}, None),
        ({"distinct": 0.125}, "collapsed samples"),
        ({"zeros": 1.0}, "collapsed samples"),
        ({"repeated": 0.9}, "collapsed samples"),
    ],
)
def test_what_a_thought_evaluation_shows_is_said(change, name):
    found = verdict(lines(**GOOD), evaluations=evaluation(**change))
    assert names(found) == ([name] if name else [])
    assert found.level == ("weak" if name else "learns")


def test_only_the_last_evaluation_counts():
    before = [{**record, "evaluation": "e0"} for record in evaluation(skills=[-1.0, -1.0, -1.0])]
    assert names(verdict(lines(**GOOD), evaluations=[*before, *evaluation()])) == []


def test_the_alarm_names_every_floor_that_a_loss_does_not_beat():
    expected = Expected(steps=200, trivial={"loss": NOISE_LOSS})
    recent = [{"kind": "train", "step": step, "loss": 1.0001} for step in (80, 90, 100)]
    (alarm,) = judge_line(recent[-1], recent=recent, expected=expected)
    assert alarm.evidence == ("loss 1.0001 is no better than predicting zero (1.0000) and the linear filter (0.4995)")
    recent = [{**line, "loss": 0.6} for line in recent]
    (alarm,) = judge_line(recent[-1], recent=recent, expected=expected)
    assert alarm.evidence == "loss 0.6000 is no better than the linear filter (0.4995)"
