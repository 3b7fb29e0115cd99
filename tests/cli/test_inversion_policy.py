"""A run whose reversible blocks cannot be undone says so in its lines, and stops or goes on as its recipe says."""

import pytest
from command import BYTES, newest, refused, succeeds

from remask.networks.couplings import Additive

RECIPE = [*BYTES, "network.layers=2", "training.steps=4", "training.log_every=2"]
NETWORK = ["network.kind=reversible", *RECIPE]


def lines(home, kind: str) -> list[dict]:
    _, folder = newest(home)
    return [line for line in folder.metrics() if line["kind"] == kind]


@pytest.fixture
def skewed(monkeypatch):
    """An inverse of additive couplings that takes too much away."""
    plain = Additive.inverse
    monkeypatch.setattr(Additive, "inverse", lambda self, y, update: plain(self, y, 2.0 * update))


def test_each_training_line_has_the_error_and_a_sound_run_has_next_to_none(home, text):
    succeeds("train", "mdlm", *NETWORK, f"data.source={text}")
    errors = [line["inversion_error"] for line in lines(home, "train")]
    assert len(errors) == 2
    assert max(errors) < 1e-4
    assert lines(home, "alarm") == []
    page = home / "page.html"
    succeeds("report", "last", "--html", page)
    assert "error of undone activations" in page.read_text()


def test_blocks_that_cannot_be_undone_end_the_run_at_its_next_line(home, text, skewed):
    said = refused("train", "mdlm", *NETWORK, f"data.source={text}", code=1)
    assert said.startswith("remask: step 2: inversion error: undoing the reversible blocks missed the activations by")
    assert "network.activations=stored" in said
    record, _ = newest(home)
    assert record.status == "failed"
    assert [(line["alarm"], line["action"]) for line in lines(home, "alarm")] == [("inversion", "stop")]


def test_a_run_that_shall_only_report_it_goes_on_and_its_health_tells(home, text, skewed):
    succeeds("train", "mdlm", *NETWORK, f"data.source={text}", "health.inversion=report")
    assert newest(home)[0].status == "finished"
    assert len(lines(home, "alarm")) == 1, "it is said once"
    assert "inversion error" in succeeds("show", "last").out


@pytest.mark.parametrize("keys", [["network.activations=stored"], ["health.inversion_tolerance=1000"]])
def test_stored_activations_and_a_wide_tolerance_raise_no_alarm(home, text, skewed, keys):
    succeeds("train", "mdlm", *NETWORK, f"data.source={text}", *keys)
    assert lines(home, "alarm") == []
    assert ("inversion_error" in lines(home, "train")[0]) == (keys != ["network.activations=stored"])


def test_a_network_without_reversible_blocks_has_no_such_figure(home, text):
    succeeds("train", "mdlm", *RECIPE, f"data.source={text}")
    assert all("inversion_error" not in line for line in lines(home, "train"))
