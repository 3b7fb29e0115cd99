"""The real command line in processes of its own, which can be struck down at any moment.

Each process is forked from one that has imported everything and computed nothing, so that a start costs a tenth of a
second instead of five. It is a process like any other: SIGKILL ends it, and its files and locks are its own.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

WORDS = (
    *("the", "a", "of", "list", "returns", "value", "string", "object", "method", "call", "error", "if", "not"),
    *("set", "to", "in", "is", "function", "class"),
)
GRACE = 20.0
"""Seconds within which worker processes have to notice that the process they worked for is gone."""

PATIENCE = 240.0
"""Seconds after which a process counts as hung."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; -N for signal N.
        out: its standard output.
        err: its standard error.
        seconds: how long it took.
        orphans: whether processes that it started outlived it by more than `GRACE` seconds.
        hung: whether it had to be stopped.
    """

    code: int
    out: str
    err: str
    seconds: float
    orphans: bool = False
    hung: bool = False

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL

    @property
    def trouble(self) -> str | None:
        """What no command may ever do: print a traceback, die of a signal, leave processes, hang."""
        if self.hung:
            return "hung"
        if "Traceback (most recent call last)" in self.err:
            return f"traceback: {self.err.strip().splitlines()[-1]}"
        if self.orphans:
            return "processes outlived it"
        if self.code < 0 and not self.killed:
            return f"died of {signal.Signals(-self.code).name}"
        return None

    @property
    def said(self) -> list[str]:
        """The lines of remask's own on standard error."""
        return [line for line in self.err.splitlines() if line.startswith("remask: ")]


def nothing() -> None:
    """Prepares nothing."""


def preload() -> None:
    """Imports all that a training imports, and computes nothing, so that forks are cheap and safe."""
    import torch
    import torch.utils.data

    for name in ("cli.evaluate", "cli.progress", "experiment", "hub", "judgement", "report.page"):
        import_module(f"remask.{name}")
    assert torch.get_num_threads() == 1, "set OMP_NUM_THREADS=1: threads do not survive a fork"


def remask(
    arguments: Sequence[object],
    *,
    environment: Mapping[str, str],
    folder: Path,
    prepare: Callable[[], None] = nothing,
    strike_after: float | None = None,
    patience: float = PATIENCE,
) -> Ended:
    """Runs `remask ARGUMENTS` in a forked process.

    Args:
        arguments: of the command line.
        environment: variables that it sees beside this process's.
        folder: its working folder.
        prepare: called in the process before anything else.
        strike_after: seconds after which it is killed with SIGKILL; None: not at all.
        patience: seconds after which it is given up: SIGINT first, and SIGKILL when that does not end it either.
    """

    def work() -> None:
        os.environ.update(environment)
        os.chdir(folder)
        prepare()
        from remask.cli import main

        main([str(argument) for argument in arguments])

    return forked(work, strike_after=strike_after, patience=patience)


def forked(work: Callable[[], None], *, strike_after: float | None = None, patience: float = PATIENCE) -> Ended:
    """Runs `work` in a forked process, and says how that ended; arguments as in `remask`."""
    outputs = [os.memfd_create(name) for name in ("out", "err")]  # in memory: a disk may be full
    sys.stdout.flush()
    sys.stderr.flush()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        become(work, outputs)
    with suppress(OSError):
        os.setpgid(pid, pid)  # the child does too; whoever comes first
    code, hung = _wait(pid, began, strike_after, patience)
    orphans = not _group_ended(pid)
    out, err = map(_written, outputs)
    return Ended(code=code, out=out, err=err, seconds=time.monotonic() - began, orphans=orphans, hung=hung)


def _written(descriptor: int) -> str:
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read().decode("utf-8", "replace")


def become(work: Callable[[], None], outputs: Sequence[int]) -> None:
    """The forked process's life, its standard output and error going to `outputs`; does not return."""
    code = 1
    try:
        os.setpgid(0, 0)
        for number, descriptor in zip((1, 2), outputs, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            for child in multiprocessing.active_children():
                child.terminate()  # as an interpreter does when it ends
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, began: float, strike_after: float | None, patience: float) -> tuple[int, bool]:
    """Waits for a process, strikes it when its time has come, and gives it up when it hangs."""
    asked = False
    pause = 0.001
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), False
        passed = time.monotonic() - began
        if strike_after is not None and passed >= strike_after:
            os.kill(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), False
        if passed > patience and not asked:
            os.kill(pid, signal.SIGINT)
            asked = True
        if passed > 2 * patience:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -signal.SIGKILL, True
        time.sleep(pause)
        pause = min(2 * pause, 0.02)


def _group_ended(leader: int) -> bool:
    """Whether every process of a group has gone within `GRACE` seconds; those left are killed."""
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        if not _alive(leader):
            return True
        time.sleep(0.02)
    with suppress(OSError):
        os.killpg(leader, signal.SIGKILL)
    return False


def _alive(group: int) -> bool:
    """Whether a process of the group lives; one that has ended and waits to be counted does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            fields = stat.read_text().rpartition(")")[2].split()  # state, parent, group, …
            if int(fields[2]) == group and fields[0] not in "ZX":
                return True
    return False


def in_parallel(work: Callable[[int], Iterator[dict[str, Any]]], *, jobs: int, scratch: Path) -> list[dict[str, Any]]:
    """Calls `work(job)` in as many processes, and gathers what they yield, which must be JSON.

    Raises:
        RuntimeError: a job ended with an error of its own.
    """
    if jobs == 1:
        return list(work(0))
    pids = []
    paths = [scratch / f"job-{job}.jsonl" for job in range(jobs)]
    sys.stdout.flush()
    for job, path in enumerate(paths):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with path.open("w", encoding="utf-8") as file:
                    for found in work(job):
                        file.write(json.dumps(found) + "\n")
                        file.flush()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    if any(codes):
        raise RuntimeError(f"jobs ended with {codes}")
    return [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]


@contextmanager
def scratch_folder(keep: Path | None) -> Iterator[Path]:
    """A new temporary folder that is removed afterwards, or `keep`, which is not."""
    import shutil
    import tempfile

    folder = keep or Path(tempfile.mkdtemp(prefix="remask-reliability-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, *, paragraphs: int = 60, seed: int = 0) -> Path:
    """A text of random words; the same words for the same seed."""
    draw = random.Random(seed)
    text = "\n\n".join(" ".join(draw.choices(WORDS, k=40)) + "." for _ in range(paragraphs))
    path.write_text(text, encoding="utf-8")
    return path


def places(folder: Path) -> dict[str, str]:
    """The environment of a command whose runs and cache lie in `folder`."""
    return {"REMASK_HOME": str(folder / "runs"), "REMASK_CACHE": str(folder / "cache")}
