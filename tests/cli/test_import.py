"""`remask import` through the command line."""

import json
import shutil

import pytest
from command import refused, run_folders, succeeds
from records import add_evaluation, add_run

from remask.runs import Registry


@pytest.fixture
def elsewhere(home, tmp_path):
    """A run folder of another home, to which its registry is lost."""
    add_run(tmp_path / "far", "far_W8_1", machine="far away", minutes=5000)
    add_evaluation(tmp_path / "far", "far_W8_1", value=2.5)
    return shutil.move(tmp_path / "far" / "far_W8_1", tmp_path / "brought")


def test_an_imported_run_is_listed_and_shown_with_its_evaluations(home, elsewhere):
    add_run(home, "near_W8_1")
    out = succeeds("import", elsewhere).out
    assert out == f"far_W8_1 (finished, step 0, 1 evaluation) → {home / 'far_W8_1'}\n"
    assert [run["id"] for run in succeeds("runs", "--json").objects] == ["far_W8_1", "near_W8_1"]
    (page,) = succeeds("show", "far", "--json").objects
    assert page["run"]["machine"] == "far away"
    assert [row["value"] for row in page["evaluations"]] == [2.5]


def test_a_second_import_says_that_it_is_there_and_a_different_one_is_refused(home, elsewhere):
    succeeds("import", elsewhere)
    assert "there already, with the same content" in succeeds("import", elsewhere).out
    values = json.loads((elsewhere / "run.json").read_text())
    (elsewhere / "run.json").write_text(json.dumps({**values, "seed": 2}))
    assert "remask remove far_W8_1" in refused("import", elsewhere)
    assert Registry(home).get("far_W8_1").seed == 1


def test_what_is_no_run_is_a_users_mistake_in_one_line(home, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no readable run.json" in refused("import", tmp_path / "empty")
    assert run_folders(home) == []
