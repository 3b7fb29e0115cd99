"""The watch over reversible blocks: an undoing that misses its activations is told, and makes a verdict of its own."""

import json
import math

import pytest
from reversible_networks import affine, network
from test_recompute import loss_of

from remask.health import verdict
from remask.health.watching import Expected, judge_line
from remask.monitor import Monitor
from remask.networks.reversible import inversion_error
from remask.training import Step
from remask.window import Window

TOLERANCE = 1e-2


def step(index: int = 1, *, updated: bool = True) -> Step:
    return Step(index=index, loss=1.0, terms={}, gradient_norm=1.0, learning_rate=1.0, tokens=8, updated=updated)


def line(window: Window, gather=lambda value: [value]) -> dict:
    return {"kind": "train", "step": 1, "loss": 1.0, **window.inversion_figures(gather)}


def alarms(record: dict) -> list:
    return judge_line(record, recent=[record], expected=Expected(steps=9, trivial={}, inversion_tolerance=TOLERANCE))


def test_a_badly_conditioned_affine_stack_raises_the_alarm_and_a_sound_one_does_not():
    errors = {}
    for limit in (0.5, 8.0):
        built = network("r" * 24, coupling=affine(limit=limit), stir=0.5)
        monitor = Monitor(built, trivial={}, explosion_factor=30.0, steps=9, inversion_tolerance=TOLERANCE)
        loss_of(built, doubled=False).backward()
        window = Window()
        window.add(step(), inversion_error=inversion_error(built))
        found = monitor.at_record(line(window))
        errors[limit] = window.inversion_error
        assert [alarm.kind for alarm in found] == (["inversion"] if limit == 8.0 else [])
        assert monitor.at_record(line(window)) == [], "it was said"
    assert errors[0.5] < 1e-4 < TOLERANCE < errors[8.0]


@pytest.mark.parametrize(
    ("error", "said"), [(0.03, "by 0.03 of their size"), (math.inf, "altogether"), (None, "not finite")]
)
def test_the_alarm_says_how_far_it_missed_and_what_to_do(error, said):
    (alarm,) = alarms({"kind": "train", "step": 7, "inversion_error": error})
    assert (alarm.kind, alarm.name, alarm.step) == ("inversion", "inversion error", 7)
    assert said in alarm.evidence
    assert "the gradient is not that of the loss" in alarm.evidence
    for remedy in ("network.activations=stored", "network.coupling=additive", "network.block_types"):
        assert remedy in alarm.remedy


def test_a_line_within_the_tolerance_or_of_a_network_that_undoes_nothing_raises_none():
    assert alarms({"kind": "train", "step": 7, "inversion_error": TOLERANCE}) == []
    assert alarms({"kind": "train", "step": 7, "loss": 2.0}) == []


def test_a_line_has_the_largest_error_of_all_its_steps_and_processes():
    window = Window()
    for index, error in enumerate((1e-7, 3e-5, 2e-6)):
        window.add(step(index, updated=index != 1), inversion_error=error)
    assert line(window)["inversion_error"] == 3e-5, "of a step that was left out too"
    assert line(window, gather=lambda value: [value, 4e-5])["inversion_error"] == 4e-5
    window.add(step(3), inversion_error=math.nan)
    window.add(step(4), inversion_error=1e-7)
    assert line(window)["inversion_error"] == math.inf


def test_a_network_that_undoes_nothing_has_no_such_figure_and_asks_no_other_process():
    window = Window()
    window.add(step())
    assert "inversion_error" not in line(window, gather=lambda value: pytest.fail("asked"))


def test_a_checkpoint_keeps_the_largest_error_since_the_line():
    window = Window()
    window.add(step(), inversion_error=1e-3)
    assert Window(**json.loads(json.dumps(window.to_json()))).inversion_error == 1e-3
    older = {name: value for name, value in window.to_json().items() if name != "inversion_error"}
    assert Window(**older).inversion_error is None


@pytest.mark.parametrize(("action", "level"), [("stop", "broken"), ("report", "weak")])
def test_the_verdict_of_a_run_with_such_an_alarm_says_so(action, level):
    (alarm,) = alarms({"kind": "train", "step": 7, "inversion_error": 0.5})
    records = [
        {"kind": "trivial", "step": 0, "bits_per_byte": {"byte 1-gram": 4.7}, "nats_per_token": {"uniform": 5.5}},
        *({"kind": "train", "step": 10 * k, "loss": 2 + 3 / k, "bits_per_byte": 2.9} for k in range(1, 40)),
        {**alarm.to_json(), "action": action},
        {"kind": "validation", "step": 400, "bits_per_byte": 2.9, "nats_per_token": 2.0, "stderr": 0.01},
    ]
    judged = verdict(records)
    assert judged.level == level
    assert any(finding.startswith("inversion error: at step 7") for finding in judged.findings)
