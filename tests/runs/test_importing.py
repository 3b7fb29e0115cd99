"""Import: a run folder of another machine comes whole or not at all, and never leads out of the home."""

import json
import os
import shutil
from pathlib import Path

import pytest
from old_registries import write_folder

from remask.errors import RunError, UserError
from remask.evaluation.measurement import Measurement
from remask.runs import Registry, RunFolder, RunRecord, importing

CREATED = "2025-02-23T20:00:00.000+00:00"


@pytest.fixture
def source(tmp_path) -> Path:
    """A run folder as another machine made it, copied here under another name."""
    there = Registry(tmp_path / "there")
    folder = RunFolder.create(there.home, "a_W8_1")
    with folder.lock():
        there.create(
            RunRecord(
                id="a_W8_1", recipe="r", family="token", seed=1, created=CREATED, machine="far away", status="finished"
            )
        )
        folder.append_metrics({"kind": "train", "step": 1, "loss": 5.0})
    (folder.checkpoints_path / "step-1").mkdir(parents=True)
    (folder.checkpoints_path / "step-1" / "weights.safetensors").write_bytes(b"weights")
    with there.evaluating("a_W8_1", task="likelihood") as judged:
        judged.keep([Measurement(name="bits_per_byte", value=3.0, unit="bits/byte", n=2, stderr=None)])
    return Path(shutil.copytree(folder.path, tmp_path / "copied"))


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "home")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_imported_run_is_listed_as_it_was_recorded_with_its_evaluations(registry, source):
    taken = registry.take_in(source)
    (record,) = registry.list()
    assert taken.record == record
    assert not taken.was_there
    assert (record.id, record.machine, record.created, record.folder) == ("a_W8_1", "far away", CREATED, "a_W8_1")
    (evaluation,) = registry.evaluation_records()
    assert evaluation.status == "finished"
    assert [row["evaluation"] for row in registry.measurements()] == [evaluation.id]
    expected = {
        name: content for name, content in files(source).items() if Path(name).name not in ("lock", "lock.json")
    }
    assert files(registry.home / "a_W8_1") == expected
    assert registry.disagreements(record) == []
    registry.rebuild()
    assert registry.list() == [record]


def test_locks_and_what_killed_processes_left_are_not_copied(registry, source):
    for name in (".run.json.0123.tmp", "checkpoints/.step-2.partial/weights", "lock.json"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("x")
    registry.take_in(source)
    names = {Path(name).name for name in files(registry.home / "a_W8_1")}
    assert not names & {"lock", "lock.json", ".run.json.0123.tmp", "weights"}
    assert sorted(path.name for path in registry.home.iterdir() if path.is_dir()) == ["a_W8_1"]


def test_what_says_that_it_is_running_is_killed(registry, source):
    for path in (source / "run.json", next(source.glob("evaluations/*/evaluation.json"))):
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "status": "running"}))
    assert registry.take_in(source).record.status == "killed"
    paths = [registry.home / "a_W8_1" / "run.json", *registry.home.glob("a_W8_1/evaluations/*/evaluation.json")]
    assert [json.loads(path.read_text())["status"] for path in paths] == ["killed", "killed"]
    assert [registry.list()[0].status, registry.evaluation_records()[0].status] == ["killed", "killed"]
    assert registry.take_in(source).was_there


def test_a_run_of_an_older_remask_is_imported_too(registry, tmp_path):
    registry.take_in(write_folder(tmp_path / "older"))
    (record,) = registry.list()
    assert [entry["how"] for entry in record.lineage] == ["initialised", "resumed"]
    assert len(registry.evaluation_records()) == 3
    assert registry.disagreements(record) == []


@pytest.mark.parametrize(
    "damage",
    [
        *({"trivial": [1, 2]}, {"trivial": 5}, {"protocol": "x"}, {"name": ["a"]}, {"name": None}, {"unit": 5}),
        *({"created": 7}, {"n": "many"}, {"n": 1e400}, {"n": 1 << 64}, {"value": "12"}, {"value": 10**400}),
        *({"stderr": {}}, {"evaluation": ["a"]}, {"task": None}),
    ],
    ids=str,
)
def test_a_line_that_is_no_figure_is_passed_over_and_all_else_is_read(registry, source, damage):
    lines = source / "evaluations.jsonl"
    (good,) = map(json.loads, lines.read_text().splitlines())
    lines.write_text(f"{json.dumps(good | damage)}\n{json.dumps(good)}\n")
    registry.take_in(source)
    assert [row["value"] for row in registry.measurements()] == [3.0]
    registry.rebuild()
    assert [row["value"] for row in registry.measurements()] == [3.0]


@pytest.mark.parametrize(
    "damage",
    [
        *({"tags": None}, {"tags": "abc"}, {"tags": [{"a": 1}]}, {"links": {"page": 5}}, {"headline": {"loss": "low"}}),
        *({"seed": "one"}, {"step": 1 << 64}, {"step": None}, {"parameters": {"a": 1}}, {"git_dirty": "no"}),
        *({"created": None}, {"created": 5}, {"conclusion": ["x"]}, {"trivial": None}, {"extra_losses": None}),
    ],
    ids=str,
)
def test_a_record_that_holds_what_no_record_does_is_refused_and_keeps_no_other_from_being_read(
    registry, source, damage
):
    registry.create(RunRecord(id="b_W8_1", recipe="r", family="token", seed=1, created=CREATED, status="finished"))
    values = json.loads((source / "run.json").read_text())
    (source / "run.json").write_text(json.dumps(values | damage))
    with pytest.raises(UserError, match=r"no readable run\.json"):
        registry.take_in(source)
    shutil.copytree(source, registry.home / "a_W8_1")
    assert registry.rebuild().skipped == (registry.home / "a_W8_1",)
    assert [record.id for record in registry.list()] == ["b_W8_1"]


@pytest.mark.parametrize(
    "damage", [{"tags": None}, {"step": "x"}, {"seconds": [1]}, {"created": 5}, {"links": []}], ids=str
)
def test_an_evaluation_that_holds_what_no_evaluation_does_is_known_by_its_figures_alone(registry, source, damage):
    path = next(source.glob("evaluations/*/evaluation.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    record = registry.take_in(source).record
    (evaluation,) = registry.evaluation_records()
    assert (evaluation.id, evaluation.status, evaluation.machine) == (path.parent.name, "finished", None)
    assert "missing or cannot be read" in registry.disagreements(record)[0]


def test_the_same_folder_again_is_there_already_and_another_of_its_id_is_refused(registry, source):
    registry.take_in(source)
    before = files(registry.home / "a_W8_1")
    assert registry.take_in(source).was_there
    (source / "checkpoints" / "step-1" / "weights.safetensors").write_bytes(b"weightz")
    (source / "more.txt").write_text("x")
    with pytest.raises(UserError, match=r"differs from it in checkpoints/step-1/weights.safetensors, more.txt\."):
        registry.take_in(source)
    assert files(registry.home / "a_W8_1") == before


def test_a_folder_that_lies_in_the_home_unlisted_is_listed_when_the_same_is_imported(registry, source):
    registry.rebuild()
    registry.take_in(source)
    registry.forget("a_W8_1")
    shutil.copytree(source, registry.home / "a_W8_1", ignore=shutil.ignore_patterns("lock*"))
    assert registry.list() == []
    assert registry.take_in(source).was_there
    assert len(registry.list()) == len(registry.measurements()) == 1


def test_a_run_that_is_listed_and_lies_elsewhere_is_refused(registry, source):
    registry.update(registry.find(str(source)).id, conclusion="read where it lies")
    with pytest.raises(UserError, match=r"there is a run a_W8_1 in .*copied"):
        registry.take_in(source)
    assert not (registry.home / "a_W8_1").exists()


@pytest.mark.parametrize("link", ["absolute", "relative", "folder", "nowhere"])
def test_a_link_that_leads_out_of_the_folder_is_refused_and_nothing_is_copied(registry, source, tmp_path, link):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("x")
    target = {"absolute": secret / "key", "relative": "../secret/key", "folder": secret, "nowhere": "gone"}[link]
    (source / "model").symlink_to(target)
    with pytest.raises(UserError, match="symbolic link"):
        registry.take_in(source)
    assert not registry.home.exists()


def test_a_link_within_the_folder_leads_to_the_copy(registry, source):
    (source / "newest").symlink_to(source / "checkpoints" / "step-1")
    (source / "checkpoints" / "last").symlink_to("step-1/weights.safetensors")
    registry.take_in(source)
    home = (registry.home / "a_W8_1").resolve()
    assert (home / "newest").resolve() == home / "checkpoints" / "step-1"
    assert (home / "checkpoints" / "last").resolve() == home / "checkpoints" / "step-1" / "weights.safetensors"
    assert registry.take_in(source).was_there


def test_a_pipe_is_refused(registry, source):
    os.mkfifo(source / "pipe")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        registry.take_in(source)


@pytest.mark.parametrize("name", ["../outside", "/etc/x", ".hidden", "", "a/b", "x" * 300])
def test_an_id_that_is_no_folders_name_is_refused(registry, source, name):
    values = json.loads((source / "run.json").read_text())
    (source / "run.json").write_text(json.dumps({**values, "id": name}))
    with pytest.raises(UserError, match="cannot be a folder's name"):
        registry.take_in(source)
    assert not registry.home.exists()


def test_what_is_no_runs_folder_or_lies_in_the_home_is_refused(registry, source, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, said in ((tmp_path / "empty", "no readable run.json"), (tmp_path / "gone", "is not a folder")):
        with pytest.raises(UserError, match=said):
            registry.take_in(folder)
    registry.take_in(source)
    with pytest.raises(UserError, match="--rebuild"):
        registry.take_in(registry.home / "a_W8_1")


def test_a_run_that_is_trained_where_it_lies_is_refused(registry, source):
    values = json.loads((source / "run.json").read_text())
    (source / "run.json").write_text(json.dumps({**values, "status": "running"}))
    with RunFolder(source).lock(), pytest.raises(UserError, match="is being trained"):
        registry.take_in(source)


@pytest.mark.parametrize("at", ["copy", "list"])
def test_a_failure_in_between_leaves_nothing(registry, source, monkeypatch, at):
    registry.rebuild()
    if at == "copy":
        copied = []

        def copy(one, two):
            copied.append(shutil.copyfile(one, two))
            if len(copied) == 3:
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(importing.shutil, "copy2", copy)
    else:

        def break_off(self, connection, record):
            raise RunError("the disk is full")

        monkeypatch.setattr("remask.runs.store.Store.adopt_run", break_off)
    with pytest.raises(RunError):
        registry.take_in(source)
    monkeypatch.undo()
    assert registry.list() == []
    assert not registry.home.exists() or [path.name for path in registry.home.iterdir() if path.is_dir()] == []
    assert not registry.take_in(source).was_there
