"""A run's folder: logs that survive kills and full disks, and the lock."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from remask.errors import RunError, UserError
from remask.runs import RunFolder, json_line, make_run_id, runs_home, write_atomic


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rest(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process still had to say; unlike communicate, with the lines that readline read ahead."""
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        return process.stdout.read(), process.stderr.read()


HOLD = """
import sys, time
from remask.runs import RunFolder
with RunFolder(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path, "quickstart_W8D1_20260223_203349")


# -- the home and names ---------------------------------------------------------------------------


def test_home_is_runs_unless_the_environment_names_another(monkeypatch, tmp_path):
    monkeypatch.delenv("REMASK_HOME", raising=False)
    assert runs_home() == Path("runs")
    monkeypatch.setenv("REMASK_HOME", str(tmp_path / "elsewhere"))
    assert runs_home() == tmp_path / "elsewhere"
    assert not runs_home().exists()


def test_a_home_that_is_a_file_is_a_users_mistake(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("REMASK_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="not a folder"):
        runs_home()


def test_run_ids_read_recipe_shape_and_moment_and_fit_a_folder():
    from datetime import datetime

    moment = datetime(2026, 2, 23, 20, 33, 49)
    assert make_run_id("mdlm", shape="W256D4", moment=moment) == "mdlm_W256D4_20260223_203349"
    assert make_run_id("../my recipe", shape="a/b", moment=moment) == "my-recipe_a-b_20260223_203349"
    assert len(make_run_id("x" * 500, shape="y" * 500, moment=moment)) < 255


def test_two_runs_of_one_second_get_folders_of_their_own(tmp_path):
    names = [RunFolder.create(tmp_path / "home", "a").path.name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]


# -- logs -------------------------------------------------------------------------------------------


def test_metrics_come_back_as_they_were_written(folder):
    records = [{"kind": "train", "step": step, "loss": 0.1 + step} for step in range(3)]
    for record in records:
        folder.append_metrics(record)
    assert RunFolder(folder.path).metrics() == records


def test_an_appended_line_is_visible_to_others_at_once(folder):
    folder.append_metrics({"kind": "train", "step": 1})
    assert folder.metrics_path.read_bytes().endswith(b'"step": 1}\n')


def test_a_folder_without_logs_has_none(folder):
    assert folder.metrics() == folder.samples() == folder.evaluations() == []


def test_non_finite_numbers_become_null(folder):
    folder.append_metrics({"kind": "train", "step": 1, "loss": float("nan"), "deep": {"x": [float("inf"), 1.0]}})
    text = folder.metrics_path.read_text()
    assert json.loads(text, parse_constant=pytest.fail)["deep"] == {"x": [None, 1.0]}
    assert folder.metrics()[0]["loss"] is None


def test_array_scalars_are_written_as_numbers():
    numpy = pytest.importorskip("numpy")
    record = {
        "a": numpy.float32(0.5),
        "b": numpy.int64(3),
        "c": numpy.array([1, 2]),
        "d": numpy.float32("nan"),
    }
    assert json.loads(json_line(record)) == {"a": 0.5, "b": 3, "c": [1, 2], "d": None}


def test_a_value_without_a_json_form_is_refused():
    with pytest.raises(TypeError, match="no JSON form for a set"):
        json_line({"a": {1}})


def test_text_of_any_kind_survives_a_log(folder):
    texts = ["é\n\r\x85\u2028\x00\x1b[31m", "lone \udc80 surrogate", "🤖"]
    for text in texts:
        folder.append_sample({"step": 1, "text": text})
    assert [sample["text"] for sample in folder.samples()] == texts


def test_a_torn_last_line_is_skipped_and_the_next_line_starts_fresh(folder):
    folder.append_metrics({"step": 1})
    folder.append_metrics({"step": 2, "loss": 1.25})
    folder.close()
    whole = folder.metrics_path.read_bytes()
    for cut in range(len(b'{"step": 1}\n') + 1, len(whole) - 1):
        folder.metrics_path.write_bytes(whole[:cut])
        assert folder.metrics() == [{"step": 1}]
        folder.append_metrics({"step": 3})
        folder.close()
        assert folder.metrics() == [{"step": 1}, {"step": 3}]


def test_trimming_drops_later_steps_and_torn_lines_and_nothing_else(folder):
    for step in (0, 10, 20, 30):
        folder.append_metrics({"kind": "train", "step": step})
        folder.append_sample({"step": step, "text": "é"})
    folder.append_metrics({"kind": "note"})
    with folder.metrics_path.open("a") as file:
        file.write('{"kind": "tr')
    folder.trim_metrics(20)
    folder.trim_samples(after_step=10)
    assert [line.get("step") for line in folder.metrics()] == [0, 10, 20, None]
    assert folder.metrics_path.read_text().count("\n") == 4
    assert [line["step"] for line in folder.samples()] == [0, 10]
    folder.append_metrics({"kind": "train", "step": 25})
    assert folder.metrics()[-1]["step"] == 25


def test_trimming_an_absent_log_creates_nothing(folder):
    folder.trim_metrics(5)
    assert list(folder.path.iterdir()) == []


def test_metrics_written_before_sigkill_are_kept(folder):
    code = """
import itertools, sys
from remask.runs import RunFolder
folder = RunFolder(sys.argv[1])
for step in itertools.count():
    folder.append_metrics({"step": step, "pad": "x" * 2000})
    print(step, flush=True)
"""
    process = run_python(code, folder.path)
    assert process.stdout is not None
    for _ in range(50):
        acknowledged = int(process.stdout.readline())
    process.kill()
    acknowledged = max([acknowledged, *map(int, rest(process)[0].split())])
    steps = [record["step"] for record in folder.metrics()]
    assert steps == list(range(len(steps)))
    assert acknowledged + 1 <= len(steps) <= acknowledged + 2  # one may have been written, not yet printed


# -- atomic files and disks that refuse ----------------------------------------------------------------


def test_write_atomic_replaces_text_and_bytes_and_leaves_no_temporary_file(tmp_path):
    write_atomic(tmp_path / "a", "first")
    write_atomic(tmp_path / "a", b"\x00second")
    assert (tmp_path / "a").read_bytes() == b"\x00second"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_written_file_obeys_the_umask(tmp_path):
    write_atomic(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_write_cut_off_by_a_full_disk_keeps_the_old_file_and_says_so_in_one_line(tmp_path):
    code = """
import resource, sys
from remask.errors import RunError
from remask.runs import write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_atomic(sys.argv[1], b"x" * 100_000)
except RunError as error:
    print(error)
"""
    (tmp_path / "a").write_text("old")
    output, errors = run_python(code, tmp_path / "a").communicate()
    assert not errors
    assert output.count("\n") == 1
    assert str(tmp_path / "a") in output
    assert "File too large" in output
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_on_a_full_disk_is_an_error_of_one_line(folder):
    folder.metrics_path.symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"cannot write .*metrics\.jsonl: No space left on device") as caught:
        folder.append_metrics({"step": 1})
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_an_error_of_one_line(tmp_path):
    with pytest.raises(RunError, match="No such file or directory"):
        write_atomic(tmp_path / "gone" / "a", "x")
    with pytest.raises(RunError, match="No such file or directory"):
        RunFolder(tmp_path / "gone").append_metrics({"step": 1})


def test_a_home_that_cannot_be_made_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot write"):
        RunFolder.create(tmp_path / "file" / "home", "a")


# -- the lock -----------------------------------------------------------------------------------------


def test_a_folder_is_locked_within_the_block_only(folder):
    assert not folder.is_locked()
    with folder.lock():
        assert folder.is_locked()
        assert RunFolder(folder.path).is_locked()
        assert folder.holder()["pid"] == os.getpid()
    assert not folder.is_locked()
    assert folder.holder() is None


def test_asking_for_the_lock_of_a_fresh_folder_creates_nothing(folder):
    assert not folder.is_locked()
    assert list(folder.path.iterdir()) == []


def test_an_error_in_the_block_frees_the_lock(folder):
    with pytest.raises(KeyError), folder.lock():
        raise KeyError
    with folder.lock():
        pass


def test_a_second_training_is_told_who_holds_the_folder_and_what_to_do(folder):
    process = run_python(HOLD, folder.path)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert folder.is_locked()
        with pytest.raises(UserError) as caught, folder.lock():
            pytest.fail("two trainings held one folder")
        message = str(caught.value)
        assert folder.run_id in message
        assert f"process {process.pid}" in message
        assert "start a new run" in message
        assert "\n" not in message
        assert folder.holder()["pid"] == process.pid
    finally:
        process.kill()
        process.communicate()


def test_sigkill_frees_the_lock(folder):
    process = run_python(HOLD, folder.path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not folder.is_locked()
    with folder.lock():
        assert folder.holder()["pid"] == os.getpid()


def test_onlookers_do_not_keep_a_training_from_starting(folder):
    code = """
import sys
from remask.runs import RunFolder
folder = RunFolder(sys.argv[1])
print("looking", flush=True)
while True:
    folder.is_locked()
"""
    with folder.lock():
        pass
    process = run_python(code, folder.path)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(20):
            with folder.lock():
                pass
    finally:
        process.kill()
        process.communicate()


def test_taking_the_lock_removes_what_killed_writers_left(folder):
    old, young = folder.path / ".run.json.aa.tmp", folder.path / ".run.json.bb.tmp"
    old.write_text("half")
    young.write_text("half")
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    with folder.lock():
        assert not old.exists()
        assert young.exists()


def test_lines_that_cannot_be_read_and_metrics_that_are_gone_are_told_of(tmp_path):
    folder = RunFolder.create(tmp_path, "a")
    assert folder.complaints(steps=0) == []
    assert "missing" in folder.complaints(steps=3)[0]
    folder.append_metrics({"kind": "train", "step": 1})
    assert folder.complaints(steps=3) == []
    folder.close()
    with folder.metrics_path.open("ab") as file:
        file.write(b'{"kind": "tra' + b"[" * 100_000 + b"\n\x00\xff\n")
    (complaint,) = folder.complaints(steps=3)
    assert "2 lines" in complaint
    assert len(folder.metrics()) == 1
