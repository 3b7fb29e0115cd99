"""Removal: a run and all that is known of it goes, or nothing does, whatever happens in between."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from remask.errors import RunError, UserError
from remask.evaluation.measurement import Measurement
from remask.runs import Registry, RunFolder, RunRecord
from remask.runs.lineage import names_run


def add(registry: Registry, run_id: str, **values) -> RunRecord:
    folder = RunFolder.create(registry.home, run_id)
    (folder.model_path).mkdir()
    (folder.model_path / "model.safetensors").write_bytes(b"weights")
    defaults = {"recipe": "r", "family": "token", "seed": 1, "created": "2026-02-23T20:00:00.000+00:00"}
    return registry.create(RunRecord(id=run_id, status="finished", **(defaults | values)))


def figure(value: float) -> Measurement:
    return Measurement(name="bits_per_byte", value=value, unit="bits/byte", n=2, stderr=None)


def evaluate(registry: Registry, run_id: str, task: str, value: float) -> str:
    with registry.evaluating(run_id, task=task) as judged:
        judged.keep([figure(value)])
    return judged.record.reference


@pytest.fixture
def registry(tmp_path):
    registry = Registry(tmp_path / "home")
    add(registry, "a")
    add(registry, "b")
    for run in ("a", "b"):
        evaluate(registry, run, "likelihood", 3.0)
    return registry


def entries(registry: Registry) -> list[str]:
    return sorted(path.name for path in registry.home.iterdir() if path.is_dir())


def test_a_removed_run_is_gone_from_the_list_the_figures_and_the_disk(registry):
    registry.forget("a")
    for _ in range(2):
        assert [run.id for run in registry.list()] == ["b"]
        assert {record.run_id for record in registry.evaluation_records()} == {"b"}
        assert {row["run_id"] for row in registry.measurements()} == {"b"}
        assert entries(registry) == ["b"]
        registry.rebuild()
    with pytest.raises(UserError, match="no run 'a'"):
        registry.forget("a")


def test_an_id_that_was_removed_can_be_given_again_and_starts_empty(registry):
    registry.forget("a")
    add(registry, "a")
    assert registry.evaluation_records("a") == []
    assert registry.evaluations("a") == []


def test_a_run_whose_folder_is_gone_leaves_the_list(registry):
    shutil.rmtree(registry.home / "a")
    registry.forget("a")
    assert [run.id for run in registry.list()] == ["b"]


def test_a_run_is_removed_without_a_registry_file_too(registry):
    for path in registry.home.glob("registry.sqlite*"):
        path.unlink()
    registry.forget("a")
    assert [run.id for run in registry.list()] == ["b"]
    assert entries(registry) == ["b"]


def test_a_run_that_is_trained_or_evaluated_is_refused_and_stays_whole(registry):
    before = (registry.list(), registry.measurements())
    with RunFolder(registry.home / "a").lock(), pytest.raises(UserError, match="in use"):
        registry.forget("a")
    with registry.evaluating("a", task="quality") as judged:
        with pytest.raises(UserError, match="is going on"):
            registry.forget("a")
        with pytest.raises(UserError, match="is going on"):
            registry.forget_evaluation(judged.record.reference)
    assert (registry.list(), registry.measurements()) == before
    assert (registry.home / "a" / "model" / "model.safetensors").read_bytes() == b"weights"


def test_a_folder_outside_the_home_stays_and_only_its_entry_goes(registry, tmp_path):
    shutil.move(registry.home / "a", tmp_path / "archive")
    other = Registry(tmp_path / "other")
    found = other.find(str(tmp_path / "archive"))
    with pytest.raises(UserError, match="delete the folder itself"):
        other.forget(found.id)
    other.update(found.id, conclusion="kept")
    again = Registry(tmp_path / "other")
    again.forget("a")
    assert again.list() == []
    assert (tmp_path / "archive" / "model" / "model.safetensors").exists()


def test_a_copy_in_the_home_is_never_removed_as_the_run_that_it_copies(registry):
    shutil.copytree(registry.home / "a", registry.home / "copy")
    found = registry.find(str(registry.home / "copy"))
    with pytest.raises(UserError, match="copy of a run"):
        registry.forget(found.id)
    assert [run.id for run in Registry(registry.home).list()] == ["b", "a"]
    assert entries(registry) == ["a", "b", "copy"]


KILLED = """
import os, signal, sys
from remask.runs import Registry, removal
at = getattr(removal, sys.argv[2])
def die(*arguments):
    if sys.argv[3] == "after":
        at(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(removal, sys.argv[2], die)
Registry(sys.argv[1]).forget("a")
"""


@pytest.mark.parametrize(("at", "when"), [("_put_away", "before"), ("_put_away", "after"), ("_delete", "before")])
def test_a_removal_that_is_killed_leaves_a_whole_run_or_none_listed(registry, at, when):
    command = [sys.executable, "-c", KILLED, str(registry.home), at, when]
    assert subprocess.run(command, check=False, capture_output=True).returncode < 0
    assert [run.id for run in registry.list()] == ["b"]
    registry.rebuild()
    listed = {run.id for run in registry.list()}
    whole = {path.parent.name for path in registry.home.glob("[!.]*/run.json")}
    assert listed == whole
    if "a" in listed:
        assert (registry.home / "a" / "model" / "model.safetensors").read_bytes() == b"weights"
        assert registry.measurements("a")
        registry.forget("a")
    assert registry.measurements("a") == []


def test_what_a_killed_removal_left_is_deleted_by_a_later_one(registry):
    old, young = (registry.home / f".{name}.0123456789ab.removed" for name in ("old", "young"))
    for folder in (old, young):
        shutil.copytree(registry.home / "b", folder)
    os.utime(old, (0, 0))
    registry.rebuild()
    assert [run.id for run in registry.list()] == ["b", "a"]
    registry.forget("a")
    assert not old.exists()
    assert young.exists()


def test_a_folder_that_cannot_be_renamed_keeps_its_run_listed(registry, monkeypatch):
    before = (registry.list(), registry.measurements())

    rename = os.replace

    def refuse(one, two):
        if ".removed" in str(two):
            raise PermissionError(13, "Permission denied")
        rename(one, two)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(RunError, match="Permission denied"):
        registry.forget("a")
    assert sorted(run.id for run in registry.list()) == ["a", "b"]
    assert sorted(registry.measurements(), key=str) == sorted(before[1], key=str)


# -- evaluations ----------------------------------------------------------------------------------


def test_a_removed_evaluation_takes_its_figures_and_folder_and_leaves_the_others(registry):
    reference = evaluate(registry, "a", "quality", 1.0)
    evaluate(registry, "a", "quality", 2.0)
    registry.forget_evaluation(reference)
    for _ in range(2):
        assert [row["value"] for row in registry.measurements("a")] == [3.0, 2.0]
        assert len(registry.evaluation_records("a")) == 2
        assert registry.evaluations("a") == RunFolder(registry.home / "a").evaluations()
        assert len(list((registry.home / "a" / "evaluations").iterdir())) == 2
        registry.rebuild()
    assert registry.disagreements(registry.get("a")) == []


def test_of_two_unrecorded_evaluations_of_one_second_each_can_be_removed_and_the_other_keeps_its_note(registry):
    for value in (1.0, 2.0):
        registry.add_evaluations("b", [figure(value)], task="old")
    path = registry.home / "b" / "evaluations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, millisecond in zip([row for row in rows if row["task"] == "old"], ("100", "200"), strict=True):
        row["created"] = f"2026-02-23T21:00:00.{millisecond}+00:00"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    registry.rebuild()
    registry.update_evaluation("b:old_20260223_210000-2", conclusion="second")
    registry.forget_evaluation("b:old_20260223_210000")
    for _ in range(2):
        record = registry.find_evaluation("b:old")
        assert (record.id, record.conclusion) == ("old_20260223_210000-2", "second")
        assert [row["value"] for row in registry.measurements("b") if row["evaluation"] == record.id] == [2.0]
        registry.rebuild()


@pytest.mark.parametrize(
    ("origin", "named"),
    [
        ("a/checkpoints/step-200", True),
        ("/elsewhere/runs/a/model", True),
        ("a", True),
        ("ab/checkpoints/step-200", False),
        ("gpt2", False),
    ],
)
def test_a_lineage_names_a_run_by_whole_parts_of_a_path_only(origin, named):
    assert names_run([{"how": "initialised", "from": origin}], "a") is named
