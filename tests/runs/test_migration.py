"""Homes of an older remask: their registry is upgraded in place, and their folders are read as they are."""

import hashlib
import sqlite3

import pytest
from old_registries import FIGURES, RECORD, write_folder, write_home

from remask.runs import Registry
from remask.runs.database import MIGRATIONS

IDS = ["quality_20260223_220000", "likelihood_20260223_210000-2", "likelihood_20260223_210000"]
LINEAGE = [
    {"how": "initialised", "from": "begun/checkpoints/step-9"},
    {"how": "resumed", "from": "old_W8_1/checkpoints/step-20"},
]
FIRST_SCHEMA = "5d1e4fd3fe0cf8e69b690bc7054c979f4b07e221de65ff1bd5a9833c4eb51241"
"""Digest of the statements: files of that version exist, so they are never changed, only followed by others."""


def test_the_first_schema_is_the_one_that_was_released():
    text = "\n".join(MIGRATIONS[0])
    assert hashlib.sha256(text.encode()).hexdigest() == FIRST_SCHEMA


@pytest.mark.parametrize("make", [write_home, write_folder], ids=["registry", "folders"])
def test_an_older_home_is_read_with_its_run_lineage_and_figures(tmp_path, make):
    make(tmp_path / "home")
    registry = Registry(tmp_path / "home")
    (record,) = registry.list()
    kept = record.to_json()
    assert {name: kept[name] for name in RECORD if name != "lineage"} == {
        name: value for name, value in RECORD.items() if name != "lineage"
    }
    assert record.lineage == LINEAGE
    assert (record.git_tag, record.extra_losses, record.epochs) == (None, [], None)
    assert registry.evaluations("old_W8_1") == FIGURES


@pytest.mark.parametrize("make", [write_home, write_folder], ids=["registry", "folders"])
def test_figures_without_an_evaluation_are_evaluations_by_task_and_moment(tmp_path, make):
    make(tmp_path / "home")
    registry = Registry(tmp_path / "home")
    records = registry.evaluation_records()
    assert [record.id for record in records] == IDS
    assert {(record.run_id, record.status) for record in records} == {("old_W8_1", "finished")}
    assert records[0].created == FIGURES[3]["created"]
    named = [row["evaluation"] for row in registry.measurements()]
    assert named == [IDS[2], IDS[1], IDS[1], IDS[0]]


def test_the_upgraded_file_has_the_present_version_and_holds_on_to_it(tmp_path):
    path = write_home(tmp_path / "home")
    registry = Registry(tmp_path / "home")
    registry.list()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert registry.disagreements(registry.get("old_W8_1")) == []


def test_what_is_concluded_of_an_older_evaluation_stays_with_it_through_a_rebuild(tmp_path):
    path = write_home(tmp_path / "home")
    registry = Registry(tmp_path / "home")
    registry.update_evaluation("old:quality", conclusion="repeats itself")
    for _ in range(2):
        records = registry.evaluation_records("old_W8_1")
        assert [record.id for record in records] == IDS
        assert [record.conclusion for record in records] == ["repeats itself", None, None]
        assert len(registry.measurements()) == len(FIGURES)
        path.write_bytes(b"junk" * 100)
        registry.rebuild()


def test_a_run_of_an_older_home_takes_new_evaluations(tmp_path):
    write_home(tmp_path / "home")
    registry = Registry(tmp_path / "home")
    with registry.evaluating("old_W8_1", task="likelihood") as judged:
        pass
    assert registry.evaluation_records()[0] == registry.find_evaluation(judged.record.reference)
    assert registry.evaluation_records()[0].data_hash == "d"
    assert len(registry.evaluation_records()) == 4


def test_an_older_home_that_may_only_be_read_is_read_and_left_as_it_is(tmp_path, monkeypatch):
    path = write_home(tmp_path / "home")
    before = path.read_bytes()
    monkeypatch.setattr("os.access", lambda *_: False)  # the administrator may write anywhere
    registry = Registry(tmp_path / "home")
    assert [(record.id, record.lineage) for record in registry.list()] == [("old_W8_1", LINEAGE)]
    assert [record.id for record in registry.evaluation_records()] == IDS
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(path.name)] == [path.name]
