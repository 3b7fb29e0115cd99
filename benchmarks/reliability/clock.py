"""A wall clock that jumps by hours and years, between commands and within steps: what may depend on it?

Python's clock is what jumps: `time.time`, `time.time_ns` and `datetime.now` in every module, by another
offset at every look at it. Durations must come from the monotonic clock, and order from what is stored.
"""

import datetime
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kills import EVALUATE, Original, difference, finished_state, in_a_process, sound, train_command, undisturbed
from moments import At, Watch, kill_self
from stage import places, remask, write_text

HOUR, YEAR = 3600.0, 365.25 * 86400.0
JUMPS = (-30 * YEAR, -YEAR, -HOUR, -1.5, 0.0, 1.5, HOUR, YEAR, 40 * YEAR)


def jumping(draw: random.Random) -> Callable[[], None]:
    """What makes a process's clock jump at every look at it."""

    def install() -> None:
        real, real_ns = time.time, time.time_ns

        class Jumping(datetime.datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime.datetime:
                return datetime.datetime.fromtimestamp(time.time(), tz)

        time.time = lambda: real() + draw.choice(JUMPS)
        time.time_ns = lambda: real_ns() + int(draw.choice(JUMPS)) * 10**9
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] in ("remask", "filelock"):
                for key, value in list(vars(module).items()):
                    if value is datetime.datetime:
                        setattr(module, key, Jumping)

    return install


def run(*, count: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Trains, kills, resumes and evaluates `count` times with a clock that jumps, all in one home.

    Args:
        count: runs.
        seed: decides the jumps.
        scratch: an empty folder.
    """
    text = write_text(scratch / "text.txt")
    original = undisturbed("mdlm", scratch / "whole", text=text)
    draw = random.Random(seed)
    lost: list[str] = []
    for number in range(count):
        lost += [f"run {number}: {problem}" for problem in _one(scratch / f"run-{number}", original, text, draw)]
    lost += _order(scratch / "order", text, draw)
    return {"runs": count, "jumps_of_seconds": sorted(JUMPS), "lost": lost}


def _one(folder: Path, original: Original, text: Path, draw: random.Random) -> list[str]:
    folder.mkdir(parents=True)
    watch = Watch([folder], At("before optimizer step", draw.randint(3, 30), kill_self))
    jump = jumping(random.Random(draw.random()))

    def prepare() -> None:
        jump()
        watch.install()

    environment = places(folder)
    ended = remask(train_command("mdlm", text), environment=environment, folder=folder, prepare=prepare)
    lost = [] if ended.killed else [f"train: {ended.trouble or ended.err[-300:]}"]
    lost += sound(folder)
    for arguments in (["train", "--resume", "last"], EVALUATE, ["runs"], ["show", "last"], ["report", "last"]):
        ended = remask(arguments, environment=environment, folder=folder, prepare=jump)
        if ended.code or ended.trouble:
            lost.append(f"{' '.join(arguments)}: {ended.trouble or ended.err[-300:]}")
    if not lost:
        lost += difference(finished_state(folder), original.end) + in_a_process(folder, _durations)
    return lost


def _durations(folder: Path) -> list[str]:
    """Times of a run that are no times: durations that jump."""
    from remask.runs import Registry

    registry = Registry(folder / "runs")
    (record,) = registry.list()
    lines = registry.folder_of(record).metrics()
    seconds = [line["seconds"] for line in lines if line["kind"] in ("train", "validation")]
    wrong = [] if seconds == sorted(seconds) and 0 <= seconds[-1] < HOUR else [f"seconds of the lines: {seconds}"]
    if not 0.01 < (record.steps_per_second or 0) < 10_000:
        wrong.append(f"{record.steps_per_second} steps a second")
    return wrong


def _order(folder: Path, text: Path, draw: random.Random) -> list[str]:
    """Runs that begin while the clock goes back are still listed newest first, and `last` is the last."""
    folder.mkdir()
    begun = []
    short = [*train_command("mdlm", text), "training.steps=1", "sampling.count=1"]
    for number in range(4):
        jump = jumping(random.Random(draw.random()))
        ended = remask([*short, f"seed={number}"], environment=places(folder), folder=folder, prepare=jump)
        if ended.code:
            return [f"train: {ended.err[-300:]}"]
        begun.append(number)
    listed = in_a_process(folder, _seeds)
    return [] if listed == begun[::-1] else [f"runs that began as {begun} are listed as {listed}"]


def _seeds(folder: Path) -> list[int]:
    from remask.runs import Registry

    return [record.seed for record in Registry(folder / "runs").list()]
