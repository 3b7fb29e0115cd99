"""The registry: records that several processes write, that outlive kills, and that can be made anew."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import fields
from pathlib import Path

import pytest

from remask.errors import RunError, UserError
from remask.evaluation.measurement import Measurement
from remask.runs import Registry, RunFolder, RunRecord
from remask.runs.database import MIGRATIONS


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process still had to say; unlike communicate, with the lines that readline read ahead."""
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        return process.stdout.read(), process.stderr.read()


def record(run_id: str, *, minute: int = 0, status: str = "finished", **values) -> RunRecord:
    created = f"2026-02-23T20:{minute:02d}:00.000+00:00"
    return RunRecord(id=run_id, recipe="r", family="token", seed=1, created=created, status=status, **values)


def add(registry: Registry, run_id: str, **values) -> RunRecord:
    RunFolder.create(registry.home, run_id)
    return registry.create(record(run_id, **values))


def measurement(value: float) -> Measurement:
    return Measurement(
        name="bits_per_byte",
        value=value,
        unit="bits/byte",
        n=512,
        stderr=0.01,
        trivial={"byte 2-gram": 3.81},
        protocol={"split": "validation", "draws": 8},
    )


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "home")


# -- records in and out ---------------------------------------------------------------------------


def test_reading_an_empty_home_gives_an_empty_list_and_creates_nothing(registry):
    assert registry.list() == []
    assert registry.evaluations("any") == []
    with pytest.raises(UserError, match="no runs yet"):
        registry.find("last")
    assert not registry.home.exists()


def test_a_record_comes_back_with_every_field(registry):
    full = record(
        "a",
        folder="a",
        git_commit="c" * 40,
        git_dirty=True,
        parameters=1_300_000,
        tokens_seen=2**40,
        step=10,
        steps=20,
        steps_per_second=1.5,
        lineage=[{"how": "initialised", "from": "b/checkpoints/step-5"}],
        architecture="transformer D8 L1 H1",
        extra_losses=["remask task ×0.5"],
        flops=1e18,
        links={"page": "https://example.org"},
        tags=["first", "é"],
        headline={"bits_per_byte": 2.95},
        trivial={"byte 2-gram": 3.81},
    )
    registry.create(full)
    assert registry.get("a") == full
    assert registry.list() == [full]


def test_the_table_has_a_column_for_every_field_of_the_record(registry):
    add(registry, "a")
    with sqlite3.connect(registry.path) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)")]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.close()
    assert set(columns) == {field.name for field in fields(RunRecord)}
    assert version == len(MIGRATIONS)
    assert journal == "wal"


def test_run_json_holds_the_same_record_and_follows_updates(registry):
    add(registry, "a")
    updated = registry.update("a", step=7, verdict="learns")
    on_disk = json.loads((registry.home / "a" / "run.json").read_text())
    assert RunRecord.from_json(on_disk) == updated == registry.get("a")
    assert updated.step == 7


def test_non_finite_figures_become_unknown(registry):
    add(registry, "a", headline={"bits_per_byte": float("nan")}, steps_per_second=float("inf"))
    found = registry.get("a")
    assert found.headline == {"bits_per_byte": None}
    assert found.steps_per_second is None
    json.loads((registry.home / "a" / "run.json").read_text(), parse_constant=pytest.fail)


def test_runs_are_listed_newest_first_whatever_was_updated_last(registry):
    for minute, name in enumerate(["b", "c", "a"]):
        add(registry, name, minute=minute)
    registry.update("b", step=1)
    assert [run.id for run in registry.list()] == ["a", "c", "b"]


def test_one_id_is_given_once(registry):
    add(registry, "a", minute=1)
    with pytest.raises(UserError, match="already"):
        registry.create(record("a", minute=2))
    assert registry.get("a").created == record("a", minute=1).created


def test_an_unknown_field_or_status_is_refused_and_changes_nothing(registry):
    add(registry, "a")
    with pytest.raises(TypeError):
        registry.update("a", colour="red")
    with pytest.raises((ValueError, TypeError), match="done"):  # whichever check comes first
        registry.update("a", status="done")
    assert registry.get("a") == record("a", folder="a")


def test_evaluations_are_kept_in_the_registry_and_in_the_folder(registry):
    add(registry, "a")
    registry.add_evaluations("a", [measurement(3.0), measurement(float("nan"))], task="likelihood")
    rows = registry.evaluations("a")
    assert [row["value"] for row in rows] == [3.0, None]
    assert rows[0]["trivial"] == {"byte 2-gram": 3.81}
    assert rows[0]["protocol"]["draws"] == 8
    assert rows[0]["task"] == "likelihood"
    assert RunFolder(registry.home / "a").evaluations() == rows


def test_evaluations_of_an_unknown_run_are_refused(registry):
    add(registry, "quickstart_1")
    with pytest.raises(UserError, match="did you mean 'quickstart_1'"):
        registry.add_evaluations("quickstart_2", [measurement(3.0)], task="likelihood")


# -- references -----------------------------------------------------------------------------------


def test_a_run_is_found_by_id_prefix_last_and_folder(registry, monkeypatch):
    add(registry, "ar_W8_1", minute=1)
    add(registry, "mdlm_W8_1", minute=2)
    assert registry.find("ar_W8_1").id == "ar_W8_1"
    assert registry.find("ar").id == "ar_W8_1"
    assert registry.find("last").id == "mdlm_W8_1"
    assert registry.find(str(registry.home / "ar_W8_1")).id == "ar_W8_1"
    monkeypatch.chdir(registry.home)
    assert registry.find("./ar_W8_1/").id == "ar_W8_1"


def test_an_exact_id_wins_over_longer_ids_that_it_begins(registry):
    add(registry, "a", minute=1)
    add(registry, "a-2", minute=2)
    assert registry.find("a").id == "a"


def test_an_ambiguous_prefix_lists_its_candidates(registry):
    for minute in range(9):
        add(registry, f"mdlm_{minute}", minute=minute)
    with pytest.raises(UserError, match=r"'mdlm' begins .*mdlm_8.*mdlm_3 and 3 more") as caught:
        registry.find("mdlm")
    assert "mdlm_2" not in str(caught.value)


def test_a_misspelled_reference_names_the_nearest_runs_but_not_all(registry):
    for minute in range(30):
        add(registry, f"quickstart_{minute:02d}", minute=minute)
    with pytest.raises(UserError, match="did you mean 'quickstart_07'") as caught:
        registry.find("quikstart_07")
    assert len(str(caught.value)) < 400


def test_a_folder_outside_the_home_is_read_from_its_own_record(registry, tmp_path):
    add(registry, "a", verdict="learns")
    shutil.move(registry.home / "a", tmp_path / "copied")
    other = Registry(tmp_path / "other")
    found = other.find(str(tmp_path / "copied"))
    assert found.verdict == "learns"
    assert other.folder_of(found).path == tmp_path / "copied"
    assert not other.home.exists()


def test_what_is_stored_about_a_run_outside_the_home_goes_to_its_folder_and_lists_it(registry, tmp_path):
    add(registry, "a")
    shutil.move(registry.home / "a", tmp_path / "moved")
    other = Registry(tmp_path / "other")
    found = other.find(str(tmp_path / "moved"))
    other.add_evaluations(found.id, [measurement(3.0)], task="likelihood")
    other.update(found.id, verdict="learns")
    assert other.get("a").verdict == "learns"
    assert json.loads((tmp_path / "moved" / "run.json").read_text())["verdict"] == "learns"
    again = Registry(tmp_path / "other")
    assert again.find("a").folder == str(tmp_path / "moved")
    assert again.evaluations("a") == RunFolder(tmp_path / "moved").evaluations() != []


def test_a_copy_outside_the_home_is_never_mistaken_for_the_run_in_it(registry, tmp_path):
    add(registry, "a", verdict="original")
    shutil.copytree(registry.home / "a", tmp_path / "copy")
    (tmp_path / "copy" / "evaluations.jsonl").write_text('{"name": "x"}\n')
    found = registry.find(str(tmp_path / "copy"))
    assert registry.folder_of(found).path == tmp_path / "copy"
    assert registry.evaluations("a") == [{"name": "x"}]
    with pytest.raises(UserError, match="copy of a run"):
        registry.update(found.id, verdict="changed")
    assert Registry(registry.home).get("a").verdict == "original"


def test_a_folder_that_is_no_runs_folder_is_named(registry, tmp_path):
    add(registry, "a")
    with pytest.raises(UserError, match=r"not a run's folder"):
        registry.find(str(tmp_path))


# -- dead processes -------------------------------------------------------------------------------

TRAIN = """
import sys, time
from pathlib import Path
from remask.runs import Registry, RunFolder, RunRecord, timestamp
home = Path(sys.argv[1])
folder = RunFolder.create(home, "run")
with folder.lock():
    Registry(home).create(
        RunRecord(id=folder.run_id, recipe="r", family="token", seed=1, created=timestamp())
    )
    print("training", flush=True)
    time.sleep(60)
"""


def test_a_run_is_running_while_its_process_lives_and_killed_after_sigkill(registry):
    process = run_python(TRAIN, registry.home)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "training\n", process.stderr and process.stderr.read()
        assert [run.status for run in registry.list()] == ["running"]
        assert registry.find("last").status == "running"
    finally:
        process.kill()
        process.communicate()
    assert registry.find("last").status == "killed"
    with sqlite3.connect(registry.path) as connection:  # written back, not only shown
        assert connection.execute("SELECT status FROM runs").fetchall() == [("killed",)]
    connection.close()
    assert json.loads((registry.home / "run" / "run.json").read_text())["status"] == "killed"


def test_a_killed_run_that_is_resumed_is_running_again(registry):
    add(registry, "a", status="running")
    assert registry.get("a").status == "killed"
    with registry.folder_of(registry.get("a")).lock():
        registry.update("a", status="running")
        assert registry.get("a").status == "running"
        registry.update("a", status="finished")
    assert registry.get("a").status == "finished"


def test_a_running_record_whose_folder_is_gone_is_killed_and_its_folder_not_made_again(registry):
    add(registry, "a", status="running")
    shutil.rmtree(registry.home / "a")
    assert registry.get("a").status == "killed"
    assert not (registry.home / "a").exists()


# -- several processes ----------------------------------------------------------------------------

WRITER = """
import itertools, sys, time
from pathlib import Path
from remask.runs import Registry, RunFolder, RunRecord, timestamp
home, name = Path(sys.argv[1]), sys.argv[2]
registry = Registry(home)
folder = RunFolder.create(home, name)
with folder.lock():
    registry.create(RunRecord(id=name, recipe="r", family="token", seed=1, created=timestamp()))
    for step in itertools.count(1):
        registry.update(name, step=step)
        print(step, flush=True)
        time.sleep(0.01)  # without a pause one writer can keep the others out for seconds
"""


def test_four_writers_killed_at_work_lose_no_update_that_was_acknowledged(registry):
    for round_ in range(2):
        names = [f"writer-{round_}-{number}" for number in range(4)]
        processes = [run_python(WRITER, registry.home, name) for name in names]
        acknowledged = []
        for process in processes:
            assert process.stdout is not None
            for _ in range(3):  # all four are at work before the first is killed
                assert process.stdout.readline().strip(), process.stderr and process.stderr.read()
        for process in processes:
            process.kill()
        for process in processes:
            output, errors = rest(process)
            assert not errors
            acknowledged.append(max([3, *map(int, output.split())]))
        for name, step in zip(names, acknowledged, strict=True):
            found = registry.get(name)
            assert found.status == "killed"
            assert found.step in (step, step + 1)  # the last one may have been stored but not yet printed
            assert json.loads((registry.home / name / "run.json").read_text())["step"] >= step
    with sqlite3.connect(registry.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert len(registry.list()) == 8


def test_updates_of_different_fields_of_one_run_by_two_processes_are_both_kept(registry):
    code = """
import sys
from remask.runs import Registry
registry = Registry(sys.argv[1])
for number in range(20):
    registry.update("a", **{sys.argv[2]: number})
"""
    add(registry, "a")
    processes = [run_python(code, registry.home, name) for name in ("step", "tokens_seen")]
    for process in processes:
        assert not process.communicate()[1]
    found = registry.get("a")
    assert (found.step, found.tokens_seen) == (19, 19)
    assert RunRecord.from_json(json.loads((registry.home / "a" / "run.json").read_text())) == found


# -- damage ---------------------------------------------------------------------------------------


def filled(registry: Registry) -> list[RunRecord]:
    for minute, name in enumerate(["a", "b", "c"]):
        add(registry, name, minute=minute, tags=[name])
    registry.add_evaluations("b", [measurement(3.0)], task="likelihood")
    return registry.list()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"not a database" * 1000),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + os.urandom(path.stat().st_size - 4096)),
    ],
    ids=["replaced", "truncated", "scrambled"],
)
def test_a_corrupt_registry_says_how_to_rebuild_it_and_rebuilding_loses_nothing(registry, damage):
    before = filled(registry)
    damage(registry.path)
    for action in (registry.list, lambda: registry.update("a", step=1)):
        with pytest.raises(UserError, match="remask runs --rebuild") as caught:
            action()
        assert "\n" not in str(caught.value)
    rebuilt = registry.rebuild()
    assert rebuilt.runs == 3
    assert rebuilt.kept is not None
    assert rebuilt.kept.exists()
    assert registry.list() == before
    assert [row["value"] for row in registry.evaluations("b")] == [3.0]
    assert not list(registry.home.glob(".*.tmp*"))


def test_a_registry_of_a_newer_schema_is_refused_in_one_line(registry):
    filled(registry)
    with sqlite3.connect(registry.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UserError, match="schema 99"):
        registry.list()


def test_a_deleted_registry_is_read_from_the_folders_and_filled_by_the_next_write(registry):
    before = filled(registry)
    for path in registry.home.glob("registry.sqlite*"):
        path.unlink()
    assert registry.list() == before
    assert not registry.path.exists()
    assert registry.evaluations("b")[0]["value"] == 3.0
    registry.update("b", step=5)
    assert [run.id for run in registry.list()] == ["c", "b", "a"]
    assert registry.get("b").step == 5
    assert len(registry.evaluations("b")) == 1


def test_an_emptied_registry_file_is_filled_from_the_folders(registry):
    before = filled(registry)
    registry.path.write_bytes(b"")
    assert registry.list() == before


def test_rebuilding_a_sound_registry_keeps_runs_without_folders_and_doubles_nothing(registry):
    before = filled(registry)
    shutil.rmtree(registry.home / "a")
    rebuilt = registry.rebuild()
    assert (rebuilt.runs, rebuilt.kept) == (2, None)
    assert registry.list() == before
    assert len(registry.evaluations("b")) == 1


def test_rebuilding_passes_over_folders_it_cannot_read_and_names_them(registry):
    filled(registry)
    (registry.home / "a" / "run.json").write_text('{"id": "a"')
    shutil.copytree(registry.home / "b", registry.home / "copy-of-b")
    registry.path.write_bytes(b"junk" * 100)
    rebuilt = registry.rebuild()
    assert [folder.name for folder in rebuilt.skipped] == ["a", "copy-of-b"]
    assert [run.id for run in registry.list()] == ["c", "b"]


def test_rebuilding_an_absent_home_creates_nothing(registry):
    assert registry.rebuild().runs == 0
    assert not registry.home.exists()


def test_a_run_json_that_cannot_be_written_leaves_the_registry_unchanged(registry):
    add(registry, "a")
    (registry.home / "a" / "run.json").unlink()
    (registry.home / "a" / "run.json").mkdir()
    with pytest.raises(RunError, match=r"cannot write .*run\.json"):
        registry.update("a", step=5)
    assert registry.get("a").step == 0


def test_a_full_disk_is_an_error_of_one_line_and_the_registry_stays_readable(registry):
    before = filled(registry)
    code = """
import resource, sys
from remask.errors import RunError
from remask.runs import Registry
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
try:
    Registry(sys.argv[1]).update("a", conclusion="x" * 100_000)
except RunError as error:
    print(error)
"""
    output, errors = run_python(code, registry.home).communicate()
    assert not errors
    assert output.count("\n") == 1
    assert "registry.sqlite" in output
    assert registry.list() == before


READ_ONLY = """
import os, sys
from remask.errors import RunError
from remask.runs import Registry
if os.getuid() == 0:  # the administrator may write anywhere
    os.setgid(65534)
    os.setuid(65534)
registry = Registry(sys.argv[1])
print([(run.id, run.status) for run in registry.list()])
try:
    registry.update("a", step=1)
except RunError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs Unix permissions")
def test_a_read_only_home_is_listed_and_refuses_writes_in_one_line():
    with tempfile.TemporaryDirectory() as place:  # not tmp_path, which other users may not enter
        Path(place).chmod(0o755)
        registry = Registry(Path(place) / "home")
        add(registry, "a")
        add(registry, "b", minute=1, status="running")
        for folder in (registry.home / "a", registry.home / "b", registry.home):
            folder.chmod(0o555)
        registry.path.chmod(0o444)
        output, errors = run_python(READ_ONLY, registry.home).communicate()
        for folder in (registry.home, registry.home / "a", registry.home / "b"):
            folder.chmod(0o755)
    assert not errors
    listed, refused = output.splitlines()
    assert listed == "[('b', 'killed'), ('a', 'finished')]"
    assert "registry.sqlite" in refused


def test_a_locked_registry_is_waited_for(registry):
    add(registry, "a")
    connection = sqlite3.connect(registry.path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    code = "import sys; from remask.runs import Registry; Registry(sys.argv[1]).update('a', step=9)"
    process = run_python(code, registry.home)
    time.sleep(0.5)
    assert [run.step for run in registry.list()] == [0]  # readers do not wait for a writer
    connection.execute("ROLLBACK")
    connection.close()
    assert not process.communicate()[1]
    assert registry.get("a").step == 9


def test_a_run_that_began_after_the_clock_was_set_back_is_the_last(registry):
    add(registry, "first", minute=30)
    add(registry, "second", minute=10)
    assert registry.find("last").id == "second"
    assert [run.id for run in registry.list()] == ["second", "first"]


def test_a_registry_cut_short_within_its_last_page_is_not_read_as_if_zeros_stood_there(registry):
    add(registry, "a")
    os.truncate(registry.path, registry.path.stat().st_size - 100)
    with pytest.raises(UserError, match=r"cut short.*--rebuild"):
        registry.list()


@pytest.mark.parametrize("change", ["trivial = '{\"a'", "status = 'finishee'"])
def test_a_value_in_the_registry_that_nobody_wrote_is_one_line(registry, change):
    add(registry, "a")
    with sqlite3.connect(registry.path) as connection:
        connection.execute(f"UPDATE runs SET {change}")
    connection.close()
    with pytest.raises(UserError, match="--rebuild"):
        registry.list()


def test_a_registry_and_a_folder_that_tell_different_things_are_told_of(registry):
    run = add(registry, "a", step=3)
    registry.add_evaluations("a", [measurement(2.5)], task="likelihood")
    assert registry.disagreements(registry.get("a")) == []
    folder = registry.folder_of(run)
    folder.record_path.write_text(folder.record_path.read_text().replace('"step": 3', '"step": 7'))
    folder.evaluations_path.write_text(folder.evaluations_path.read_text().replace("2.5", "2.7"))
    in_record, in_figures = registry.disagreements(registry.get("a"))
    assert "differ in step" in in_record
    assert "1 measurement" in in_figures


def test_a_home_given_relative_to_the_working_folder_agrees_with_its_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry = Registry(Path("home"))
    kept = add(registry, "run_D1_20260101_000000")
    assert registry.disagreements(kept) == []
    registry.rebuild()
    assert [found.folder for found in registry.list()] == [kept.folder] == ["run_D1_20260101_000000"]
