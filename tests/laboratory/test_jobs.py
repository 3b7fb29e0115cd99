"""Jobs as processes: they outlive a controller that is killed, and another one knows them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from remask import slurm
from remask.laboratory.jobs import ClusterJobs, Job, Processes, last_words, visible_gpus

PATIENCE = 60.0  # seconds until a hung test is given up; no statement about speed


def job(folder: Path, code: str) -> Job:
    """Any module's command will do: here Python's own timeit, which runs a line of code."""
    return Job(name="train", folder=folder, command=("timeit", "-n1", "-r1", code))


def ended(runner: Processes, what: Job) -> bool:
    last = time.monotonic() + PATIENCE
    while runner.runs(what) and time.monotonic() < last:
        time.sleep(0.02)
    return not runner.runs(what)


def test_a_job_of_a_killed_controller_runs_on_is_known_and_can_be_stopped(tmp_path):
    waits = job(tmp_path, "import time; time.sleep(120)")
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from remask.laboratory.jobs import Job, Processes\n"
        f"job = Job(name='train', folder=Path({str(tmp_path)!r}), command={waits.command!r})\n"
        f"Processes(home=Path({str(tmp_path)!r}), at_once=1).start(job)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False, timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL
    another = Processes(home=tmp_path, at_once=1)
    assert another.runs(waits)
    with pytest.raises(BlockingIOError):  # it cannot be started a second time
        another.start(waits)
    another.stop(waits)
    assert ended(another, waits)
    assert not Processes(home=tmp_path, at_once=1).runs(waits)


def test_a_job_says_its_last_words_and_cores_are_divided_unless_threads_are_given(tmp_path, monkeypatch):
    def threads(at_once: int) -> str:
        runner = Processes(home=tmp_path, at_once=at_once)
        what = job(
            tmp_path, "import os; print('remask: threads', os.environ['OMP_NUM_THREADS'], os.environ['REMASK_HOME'])"
        )
        runner.start(what)
        assert ended(runner, what)
        return last_words(what)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert threads(1) == f"threads {cores} {tmp_path}"
    assert threads(2 * cores) == f"threads 1 {tmp_path}"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert threads(1) == f"threads 7 {tmp_path}"


def test_jobs_are_shared_out_over_gpus_and_the_next_one_takes_the_gpu_that_is_free(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-7")
    runner = Processes(home=tmp_path, at_once=2, gpus=visible_gpus())
    show = "import os; print('remask:', os.environ['CUDA_VISIBLE_DEVICES'], flush=True)"
    jobs = [job(tmp_path / str(k), f"{show}; import time; time.sleep({seconds})") for k, seconds in enumerate((120, 0))]
    jobs.append(job(tmp_path / "2", show))
    for what in jobs:
        what.folder.mkdir()
    runner.start(jobs[0])
    for what in jobs[1:]:
        runner.start(what)
        assert ended(runner, what)
    runner.stop(jobs[0])
    assert ended(runner, jobs[0])
    seen = [what.log_path.read_text().split("remask: ")[1].split()[0] for what in jobs]
    assert seen == ["3", "GPU-7", "GPU-7"]


def test_where_no_gpu_is_named_torch_says_which_there_are(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_a_job_hears_ctrl_c_of_a_controller_that_does_not(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        runner, waits = Processes(home=tmp_path, at_once=1), job(tmp_path, "import time; time.sleep(120)")
        runner.start(waits)
        assert runner.leave([waits]) == [waits]
        assert ended(runner, waits)
    finally:
        signal.signal(signal.SIGINT, before)


def test_jobs_at_slurm_are_found_again_cancelled_and_left_alone_when_the_controller_stops(tmp_path, monkeypatch):
    asked, cancelled, over = [], [], set()

    def submit(command: tuple[str, ...], what: slurm.Job, *, folder: Path, cluster: str) -> str:
        asked.append((command, what.name, folder, cluster))
        return "4711"

    monkeypatch.setattr(slurm, "submit", submit)
    monkeypatch.setattr(slurm, "cancel", cancelled.append)
    monkeypatch.setattr(slurm, "is_over", lambda number, folder: number in over)
    monkeypatch.setenv("REMASK_HOME", "elsewhere")
    wanted = slurm.Job(name="sweep", nodes=1, processes=1, minutes=60)
    what = Job(name="train", folder=tmp_path / "3", command=("remask", "train"))
    what.folder.mkdir()
    first = ClusterJobs(home=tmp_path, asked=wanted)
    assert not first.runs(what)
    first.start(what)
    assert asked == [(("remask", "train"), "sweep-3-train", what.folder, "slurm")]
    assert os.environ["REMASK_HOME"] == str(tmp_path)
    again = ClusterJobs(home=tmp_path, asked=wanted)
    assert again.runs(what)
    assert again.leave([what]) == ()
    again.stop(what)
    assert cancelled == ["4711"]
    over.add("4711")
    assert not again.runs(what)


def test_a_job_is_over_when_slurm_says_so_and_not_while_it_queues_again(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    programs = tmp_path / "bin"
    programs.mkdir()
    for number, state in enumerate(("RUNNING", "REQUEUED", "FAILED", "CANCELLED by 7", "TIMEOUT"), start=100):
        for name, body in {
            "sacct": f"echo 'JobID|State|NodeList'; echo '{number}|{state}|n1'",
            "scancel": f'echo "$1" >> {tmp_path}/cancelled',
        }.items():
            (programs / name).write_text(f"#!/bin/sh\n{body}\n")
            (programs / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        assert slurm.is_over(str(number), folder=tmp_path) == (number >= 102)
    slurm.cancel("102")
    assert (tmp_path / "cancelled").read_text() == "102\n"
