"""What a recipe's health section asks for is done: report, stop, skip the batch, or roll back at a lower rate."""

import json

import pytest
import torch
from command import BYTES, newest, refused, succeeds, weights, write_text

from remask.health.alarms import Alarm
from remask.monitor import Monitor

RECIPE = [*BYTES, "training.steps=12", "training.log_every=1", "training.checkpoint_every=5", "training.decay=constant"]


def alarm(step: int, kind: str = "explosion") -> Alarm:
    return Alarm(kind=kind, name="a bad step", step=step, evidence="seen", cause="a test", remedy="nothing")


@pytest.fixture
def alarmed(monkeypatch):
    """Raises one alarm at each of these steps, the first time that it is reached."""
    waiting: list[int] = []
    seen: list[tuple[int, torch.Tensor]] = []
    plain = Monitor.before_update

    def before_update(self, step):
        found = plain(self, step)
        seen.append((step.step, next(iter(self.network.parameters())).detach().clone()))
        if step.step in waiting:
            waiting.remove(step.step)
            found = [*found, alarm(step.step)]
        return found

    monkeypatch.setattr(Monitor, "before_update", before_update)
    return waiting, seen


@pytest.fixture
def train(home, tmp_path):
    text = write_text(tmp_path / "text.txt")
    return lambda *keys: ("train", "mdlm", f"data.source={text}", *RECIPE, *keys)


def lines(home, kind: str) -> list[dict]:
    _, folder = newest(home)
    return [line for line in folder.metrics() if line["kind"] == kind]


def test_a_reported_alarm_is_printed_recorded_and_judged_and_training_goes_on(home, train, alarmed):
    alarmed[0].append(7)
    done = succeeds(*train("health.explosion=report"))
    assert "a bad step" in done.err
    (line,) = lines(home, "alarm")
    assert (line["step"], line["alarm"], line["action"], line["evidence"]) == (7, "explosion", "report", "seen")
    assert [line["step"] for line in lines(home, "train")] == list(range(1, 13))
    assert "a bad step" in newest(home)[0].verdict
    assert "step 7: a bad step: seen (policy: report" in succeeds("show", "last").out
    page = home / "page.html"
    succeeds("report", "last", "--html", page)
    assert "Alarm: a bad step, step 7.</strong> seen. Usual cause: a test. Try: nothing." in page.read_text()


def test_a_run_that_is_stopped_says_why_and_keeps_its_checkpoint(home, train, alarmed):
    alarmed[0].append(7)
    line = refused(*train("health.explosion=stop"), code=1)
    assert line.startswith("remask: step 7: a bad step: seen. Usual cause: a test. Try: nothing. The last checkpoint")
    record, folder = newest(home)
    assert (record.status, record.step) == ("failed", 6)
    assert "a bad step" in record.error
    assert [path.name for path in folder.checkpoints_path.iterdir()] == ["step-5"]
    assert lines(home, "alarm")[0]["action"] == "stop"


def test_a_skipped_batch_leaves_the_weights_as_they_were(home, train, alarmed):
    waiting, seen = alarmed
    waiting.append(7)
    done = succeeds(*train("health.explosion=skip"))
    at = dict(seen)
    assert torch.equal(at[7], at[8])
    assert not torch.equal(at[6], at[7])
    (skipped,) = [line for line in lines(home, "train") if line["step"] == 7]
    assert skipped["skipped_steps"] == 1
    assert skipped["loss"] is None
    assert "step      7  no step was made: each of the last 1 was skipped" in done.err
    assert "non-finite" not in newest(home)[0].verdict, "what was skipped is not what broke"


def test_rolling_back_repeats_the_steps_since_the_checkpoint_at_a_lower_rate(home, train, alarmed):
    waiting, seen = alarmed
    waiting.append(8)
    done = succeeds(*train("health.explosion=roll_back", "health.rate_factor=0.25"))
    assert "back to step 5, at 0.25 of the learning rate" in done.err
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6, 7, 8, 6, 7, 8, 9, 10, 11, 12]
    first = dict(seen[:8])
    assert torch.equal(first[6], seen[8][1]), "the weights of the checkpoint"
    rates = {line["step"]: line["learning_rate"] for line in lines(home, "train")}
    assert list(rates) == list(range(1, 13)), "every step is recorded once"
    assert rates[6] == pytest.approx(0.25 * rates[5])
    (line,) = lines(home, "alarm")
    assert (line["step"], line["failed_step"], line["action"], line["rate"]) == (5, 8, "roll_back", 0.25)


def test_before_the_first_checkpoint_a_run_rolls_back_to_its_beginning(train, alarmed):
    waiting, seen = alarmed
    waiting.append(3)
    succeeds(*train("health.explosion=roll_back"))
    assert [step for step, _ in seen][:5] == [1, 2, 3, 1, 2]
    assert torch.equal(seen[0][1], seen[3][1])


def test_a_run_that_rolls_back_too_often_stops(home, train, alarmed):
    alarmed[0].extend([7, 8, 9])
    line = refused(*train("health.explosion=roll_back", "health.retries=2"), code=1)
    assert "step 9: a bad step" in line
    assert "nothing. The run went back" in line
    assert lines(home, "alarm")[-1]["action"] == "stop"
    assert "went back 2 times (health.retries), the last time to 0.25 of its learning rate" in line
    assert newest(home)[0].status == "failed"


def test_a_run_resumed_after_a_roll_back_goes_on_at_the_lower_rate_as_if_it_had_not_stopped(
    home, train, alarmed, monkeypatch, tmp_path
):
    keys = ("health.explosion=roll_back",)
    alarmed[0].append(8)
    succeeds(*train(*keys))
    whole = weights(newest(home)[1])

    monkeypatch.setenv("REMASK_HOME", str(tmp_path / "broken"))
    alarmed[0].extend([8, 9])
    broken = Monitor.after_update

    def breaks(self, step):
        if step == 9:
            raise OSError("the machine has gone")
        return broken(self, step)

    monkeypatch.setattr(Monitor, "after_update", breaks)
    alarmed[0].remove(9)
    refused(*train(*keys), code=1)
    monkeypatch.setattr(Monitor, "after_update", broken)
    succeeds("train", "--resume", "last")
    _, folder = newest(tmp_path / "broken")
    assert weights(folder) == whole
    state = json.loads((folder.checkpoints_path / "step-12" / "state.json").read_text())["record"]["extra"]
    assert (state["rate"], state["retries"]) == (0.5, 1)


@pytest.mark.parametrize("action", ["stop", "roll_back"])
def test_weights_that_broke_in_the_last_update_make_no_checkpoint(home, train, monkeypatch, action):
    plain, broken = Monitor.after_update, []

    def breaks(self, step):
        if step == 10 and not broken:
            broken.append(step)
            next(iter(self.network.parameters())).data[0, 0] = float("nan")
        return plain(self, step)

    monkeypatch.setattr(Monitor, "after_update", breaks)
    command = train(f"health.non_finite={action}")
    if action == "stop":
        line = refused(*command, code=1)
        assert "step 10: non-finite weights" in line
        assert "parameter: embedding.weight" in line
        assert [path.name for path in newest(home)[1].checkpoints_path.iterdir()] == ["step-5"]
    else:
        succeeds(*command)
        assert newest(home)[0].status == "finished"
        assert lines(home, "alarm")[0]["failed_step"] == 10
