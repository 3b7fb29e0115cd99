"""Trainings and evaluations as processes of this machine, or as jobs of a cluster, that outlive who started them.

A local job holds a lock file for as long as it lives: the controller takes the lock and hands the open file to the
job, which keeps it. So a controller that takes the place of a killed one knows, whatever the moment of the kill,
which jobs still run.
"""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from remask import slurm
from remask.runs import write_atomic


@dataclass(frozen=True, kw_only=True)
class Job:
    """A remask command in a folder of its own.

    Attributes:
        name: `train` or `evaluate`; names its files in the folder.
        folder: of its log, its lock and its number.
        command: after `python -m`.
    """

    name: str
    folder: Path
    command: tuple[str, ...]

    @property
    def log_path(self) -> Path:
        """Everything it says."""
        return self.folder / f"{self.name}.log"

    @property
    def lock_path(self) -> Path:
        """Locked while it runs on this machine."""
        return self.folder / f"{self.name}.lock"

    @property
    def number_path(self) -> Path:
        """Its process, or its number at the cluster."""
        return self.folder / f"{self.name}.job"


@runtime_checkable
class Runner(Protocol):
    """Carries jobs out. All but `start` also know jobs that an earlier controller started."""

    def start(self, job: Job) -> None:
        """Starts a job that does not run."""
        ...

    def runs(self, job: Job) -> bool:
        """Whether the job runs, or waits in a queue."""
        ...

    def stop(self, job: Job) -> None:
        """Asks a job to end; a training ends after its step, with a checkpoint where it runs on this machine."""
        ...

    def leave(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """What is done with running jobs when the controller is interrupted: those returned are to be awaited."""
        ...


class Processes:
    """Jobs as processes of this machine, each in a session of its own, so that Ctrl-C reaches the controller alone.

    Args:
        home: of runs, for REMASK_HOME.
        at_once: jobs that share the cores.
        gpus: as CUDA_VISIBLE_DEVICES names them; each job sees the one that the fewest others use. None: all see all.
    """

    def __init__(self, *, home: Path, at_once: int, gpus: Sequence[str] = ()) -> None:
        self._gpus, self._used = gpus, dict[Path, str]()
        threads = str(max(1, _cores() // at_once))
        self._environment = {"OMP_NUM_THREADS": threads, **os.environ, "REMASK_HOME": str(home.resolve())}
        self._children: dict[Path, subprocess.Popen[bytes]] = {}

    def start(self, job: Job) -> None:
        """Starts a job that does not run."""
        lock = os.open(job.lock_path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with open(job.log_path, "ab") as log:
                child = subprocess.Popen(
                    [sys.executable, "-m", *job.command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment | self._share_of_gpus(job),
                    start_new_session=True,
                    pass_fds=(lock,),
                    # a controller in the background may ignore Ctrl-C, and its jobs would have that from it
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                )
        finally:
            os.close(lock)  # the job has it still
        self._children[job.lock_path] = child
        write_atomic(job.number_path, f"{child.pid}\n")

    def _share_of_gpus(self, job: Job) -> dict[str, str]:
        """What tells a job which GPU it may use."""
        if not self._gpus:
            return {}
        busy = [gpu for lock, gpu in self._used.items() if self._children[lock].poll() is None]
        chosen = min(self._gpus, key=busy.count)
        self._used[job.lock_path] = chosen
        return {"CUDA_VISIBLE_DEVICES": chosen}

    def runs(self, job: Job) -> bool:
        """Whether the job runs."""
        child = self._children.get(job.lock_path)
        if child is not None:
            return child.poll() is None
        return _locked(job.lock_path)

    def stop(self, job: Job) -> None:
        """Asks a job to end, by SIGINT."""
        child = self._children.get(job.lock_path)
        number = _read_number(job) if child is None else child.pid
        # while the lock is held the number is that of who holds it, and of no later process
        if number is not None and self.runs(job):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGINT)

    def leave(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Stops them all."""
        for job in jobs:
            self.stop(job)
        return jobs


class ClusterJobs:
    """Jobs at SLURM. They go on when the controller is interrupted; whoever resumes the study finds them again.

    Args:
        home: of runs, which all nodes see.
        asked: what each job asks for.
    """

    def __init__(self, *, home: Path, asked: slurm.Job) -> None:
        self._home, self._asked = home, asked

    def start(self, job: Job) -> None:
        """Hands a job to SLURM."""
        folder = job.folder.resolve()
        os.environ["REMASK_HOME"] = str(self._home.resolve())  # sbatch passes the environment on
        asked = replace(self._asked, name=f"{self._asked.name}-{job.folder.name}-{job.name}")
        number = slurm.submit(job.command, asked, folder=folder, cluster="slurm")
        write_atomic(job.number_path, f"{number}\n")
        write_atomic(job.log_path, f"SLURM job {number}; its words: {folder}/{number}_0_log.err\n")

    def runs(self, job: Job) -> bool:
        """Whether SLURM still has it."""
        number = _read_number(job)
        return number is not None and not slurm.is_over(str(number), folder=job.folder.resolve())

    def stop(self, job: Job) -> None:
        """Cancels it."""
        number = _read_number(job)
        if number is not None:
            slurm.cancel(str(number))

    def leave(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Lets them go on."""
        del jobs
        return ()


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES has for them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch  # only where several jobs share a machine

    return [str(number) for number in range(torch.cuda.device_count())]


def last_words(job: Job) -> str:
    """The last line of a job's log that remask itself said, or its very last; '' for an empty log."""
    number = _read_number(job)
    others = [job.folder / f"{number}_0_log.err"] if number is not None else []
    lines = [line for path in (job.log_path, *others) if path.is_file() for line in _tail(path)]
    own = [line.removeprefix("remask: ") for line in lines if line.startswith("remask: ")]
    return (own or lines or [""])[-1]


def _tail(path: Path, size: int = 4000) -> list[str]:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - size))
        text = file.read().decode("utf-8", "replace")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _locked(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _read_number(job: Job) -> int | None:
    try:
        return int(job.number_path.read_text())
    except (OSError, ValueError):
        return None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
