"""Processes that write one registry while they are killed and started again: is any row lost that was acknowledged?"""

import json
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from stage import become, forked


def run(*, writers: int, seconds: float, seed: int, scratch: Path) -> dict[str, Any]:
    """Lets `writers` processes write for so many seconds, killing one after the other, and counts what is there.

    Args:
        writers: processes that write at the same time.
        seconds: how long.
        seed: decides who is killed when.
        scratch: an empty folder.
    """
    import_module("remask.runs")  # before the forks, so that a short life is spent on writing
    import_module("remask.evaluation.measurement")
    draw = random.Random(seed)
    home = scratch / "runs"
    lives = [0] * writers
    pids = [_start(home, scratch, writer, 0) for writer in range(writers)]
    kills = 0
    failures: list[str] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or (time.monotonic() < deadline + 60.0 and not _acknowledged(scratch)):
        time.sleep(draw.uniform(0.0, 0.15))
        writer = draw.randrange(writers)
        with suppress(ProcessLookupError):
            os.kill(pids[writer], signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pids[writer], 0)[1])
        if code == -signal.SIGKILL:
            kills += 1
        else:
            failures.append(_said(scratch, writer, lives[writer]))
        lives[writer] += 1
        pids[writer] = _start(home, scratch, writer, lives[writer])
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    told = [line for path in sorted(scratch.glob("told-*")) for line in _lines(path)]
    counted = forked(lambda: print(json.dumps(compare(home, told))))
    if counted.code:
        failures.append(counted.err.strip())
        return {"writers": writers, "kills": kills, "lost": failures}
    return {"writers": writers, "kills": kills + writers} | json.loads(counted.out) | _and(counted.out, failures)


def _and(out: str, failures: Sequence[str]) -> dict[str, Any]:
    return {"lost": json.loads(out)["lost"] + list(failures)}


def _start(home: Path, scratch: Path, writer: int, life: int) -> int:
    pid = os.fork()
    if pid == 0:
        said = os.open(scratch / f"err-{writer}-{life}", os.O_WRONLY | os.O_CREAT, 0o600)
        become(
            lambda: write(home, scratch / f"told-{writer}-{life}", random.Random(f"{writer}/{life}")),
            [os.dup(said), said],
        )
    return pid


def _acknowledged(scratch: Path) -> bool:
    """Whether anything was acknowledged yet; on a busy machine it takes its time."""
    return any(b"created" in path.read_bytes() for path in scratch.glob("told-*"))


def _said(scratch: Path, writer: int, life: int) -> str:
    text = (scratch / f"err-{writer}-{life}").read_text(encoding="utf-8", errors="replace").strip()
    return f"a writer ended by itself: {text.splitlines()[-1] if text else 'without a word'}"


def write(home: Path, told: Path, draw: random.Random) -> None:
    """One writer's life: makes runs, changes them, adds evaluations and notes what was acknowledged, until killed."""
    from remask.runs import Registry, RunFolder, RunRecord, timestamp

    registry = Registry(home)
    descriptor = os.open(told, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(**line: Any) -> None:
        os.write(descriptor, (json.dumps(line) + "\n").encode())

    while True:
        folder = RunFolder.create(home, f"run_W1_{draw.randrange(100)}")
        with folder.lock():
            note(run=folder.run_id, kind="begun")
            registry.create(
                RunRecord(id=folder.run_id, recipe="run", family="token", seed=1, created=timestamp(), steps=40)
            )
            note(run=folder.run_id, kind="created")
            for step in range(1, draw.randint(2, 40)):
                note(run=folder.run_id, kind="asked", step=step)
                registry.update(folder.run_id, step=step)
                note(run=folder.run_id, kind="step", step=step)
                if step % 5 == 0:
                    registry.add_evaluations(folder.run_id, [_measurement(f"bits_{step}", step)], task="likelihood")
                    note(run=folder.run_id, kind="evaluated", name=f"bits_{step}")
                if step % 7 == 0:
                    with registry.evaluating(folder.run_id, task="quality") as judged:
                        judged.keep([_measurement(f"judged_{step}", step)])
                        note(run=folder.run_id, kind="evaluated", name=f"judged_{step}")
                    note(run=folder.run_id, kind="judged", name=judged.record.id)
            registry.update(folder.run_id, status="finished")
            note(run=folder.run_id, kind="finished")


def _measurement(name: str, step: int) -> Any:
    from remask.evaluation.measurement import Measurement

    return Measurement(
        name=name,
        value=float(step),
        unit="bits/byte",
        n=1,
        stderr=None,
        trivial={"uniform": 8.0},
        protocol={},
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().split(b"\n"):
        with suppress(ValueError):
            yield json.loads(line)


def compare(home: Path, told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was acknowledged against what the registry and the folders hold."""
    import sqlite3

    from remask.runs import Registry, RunRecord

    registry = Registry(home)
    listed = {record.id: record for record in registry.list()}
    lost: list[str] = []
    for line in told:
        record = listed.get(line["run"])
        if line["kind"] in ("created", "step", "finished", "evaluated") and record is None:
            lost.append(f"{line['run']} is not listed")
        elif record is None:
            continue
        elif line["kind"] == "step" and record.step < line["step"]:
            lost.append(f"{line['run']} is at step {record.step}, acknowledged {line['step']}")
        elif line["kind"] == "finished" and record.status != "finished":
            lost.append(f"{line['run']} is {record.status}, acknowledged finished")
    rows = {run: [row["name"] for row in registry.evaluations(run)] for run in listed}
    files = {run: [row["name"] for row in registry.folder_of(listed[run]).evaluations()] for run in listed}
    for line in told:
        if line["kind"] == "evaluated":
            for where, held in (("the registry", rows), ("evaluations.jsonl", files)):
                if held.get(line["run"], []).count(line["name"]) != 1:
                    lost.append(f"{line['run']}: {line['name']} is in {where} {held.get(line['run'])}")
    lost += [f"{run} is said to be running" for run, record in listed.items() if record.status == "running"]
    judged = {record.reference: record for record in registry.evaluation_records()}
    ended = {f"{line['run']}:{line['name']}" for line in told if line["kind"] == "judged"}
    lost += [f"{name} is not finished" for name in ended if name not in judged or judged[name].status != "finished"]
    lost += [f"{name} is said to be running" for name, record in judged.items() if record.status == "running"]
    filled = {f"{row['run_id']}:{row['evaluation']}" for row in registry.measurements()}
    lost += [f"{name} has lost its figures" for name in ended if name not in filled]
    ahead = 0
    for run, record in listed.items():
        kept = RunRecord.from_json(json.loads((home / run / "run.json").read_bytes()))
        ahead += kept != record
        if kept.step not in (record.step, record.step + 1):
            lost.append(f"{run}: run.json is at step {kept.step}, the registry at {record.step}")
    with sqlite3.connect(registry.path) as connection:
        finding = connection.execute("PRAGMA integrity_check").fetchone()[0]
        if finding != "ok":
            lost.append(f"registry: {finding}")
    return {
        "runs_listed": len(listed),
        "acknowledged": sum(line["kind"] not in ("begun", "asked") for line in told),
        "figures": sum(map(len, rows.values())),
        "evaluations": len(judged),
        "killed_evaluations": sum(record.status == "killed" for record in judged.values()),
        "unlisted_folders": sum(path.is_dir() and path.name not in listed for path in home.iterdir()),
        "records_one_update_ahead_in_their_folder": ahead,
        "lost": lost,
    }
