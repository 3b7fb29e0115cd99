"""A disk that fills up at every kind of moment: one line, nothing lost, and the run goes on when there is space."""

import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kills import EVALUATE, Original, difference, finished_state, sound, train_command, train_or_resume, undisturbed
from moments import At, Watch
from stage import Ended, nothing, places, remask, write_text

SIZE = 24 << 20
"""Bytes of the small disk."""

BALLAST = "ballast"
READERS = (("runs", "--json"), ("show", "last", "--json"))
WRITERS = (
    EVALUATE,
    ("health", "last"),
    ("sample", "last", "--json"),
    ("report", "last"),
    ("show", "last", "--conclude", "full"),
)


class NoSmallDisk(Exception):
    """This machine lets nobody mount a small file system here."""


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of `SIZE` bytes in memory at `folder`.

    Raises:
        NoSmallDisk: it cannot be mounted (which needs root).
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        raise NoSmallDisk(made.stderr.strip() or "mount failed")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def fill(folder: Path, *, leave: int = 0) -> None:
    """Fills the disk that `folder` is on, but for `leave` bytes."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with suppress(OSError), (folder / BALLAST).open("wb", buffering=0) as file:
        left = max(0, free - leave)
        while left > 0:
            left -= file.write(bytes(min(left, 1 << 20))) or 0
        while not leave:
            file.write(b"\0" * 4096)


def run(*, count: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Fills the disk `count` times during a training, and once under every other command.

    Args:
        count: runs whose disk fills up.
        seed: decides when.
        scratch: an empty folder.
    """
    try:
        with small_disk(scratch / "disk") as disk:
            return _run(disk, count=count, draw=random.Random(seed), scratch=scratch)
    except NoSmallDisk as error:
        return {"skipped": f"no small disk: {error}", "lost": []}


def _run(disk: Path, *, count: int, draw: random.Random, scratch: Path) -> dict[str, Any]:
    text = write_text(scratch / "text.txt")
    original = undisturbed("mdlm", disk / "whole", text=text)
    shutil.rmtree(disk / "whole")
    names = sorted(name for name in original.moments["train"] if "forward" not in name and "backward" not in name)
    draw.shuffle(names)
    answers: list[str] = []
    lost: list[str] = []
    for number in range(count):
        folder = disk / "run"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        where, ended = _first_life(original, names, number, folder, text, draw)
        answers.append(f"{ended.code}: {_general(ended, disk)}")
        lost += [f"{where}: {problem}" for problem in _after(ended, original, folder, text)]
    lost += _commands(disk / "run")
    return {"full_disks": count, "answers": dict(Counter(answers)), "lost": lost}


def _first_life(
    original: Original, names: list[str], number: int, folder: Path, text: Path, draw: random.Random
) -> tuple[str, Ended]:
    """Trains until the disk is full: from a chosen moment on, or because there was too little space from the start."""
    if number % 4 == 3:
        leave = draw.randrange(1 << 12, 1 << 20)
        fill(folder, leave=leave)
        prepare, where = nothing, f"{leave} bytes free"
    else:
        name = names[number % len(names)]
        count = draw.randint(1, max(1, original.moments["train"][name] // 2))
        prepare = Watch([folder], At(name, count, lambda: fill(folder))).install
        where = f"{name} ({count})"
    ended = remask(train_command("mdlm", text), environment=places(folder), folder=folder, prepare=prepare)
    return where, ended


def _after(ended: Ended, original: Original, folder: Path, text: Path) -> Iterator[str]:
    """What is wrong with the answer to a full disk, with what was kept, or with the run that goes on."""
    if ended.trouble or (ended.code != 0 and (ended.code != 1 or len(ended.said) != 1)):
        yield f"exit code {ended.code}, {ended.trouble or ended.err[-600:]}"
    (folder / BALLAST).unlink(missing_ok=True)
    yield from sound(folder)
    arguments = train_or_resume("mdlm", folder, text)
    if arguments is not None:
        again = remask(arguments, environment=places(folder), folder=folder)
        if again.code:
            yield f"{' '.join(arguments[:3])} with space again: {again.err[-600:]}"
            return
    evaluated = remask(EVALUATE, environment=places(folder), folder=folder)
    if evaluated.code:
        yield f"evaluate: {evaluated.err[-300:]}"
        return
    yield from difference(finished_state(folder), original.end)


def _commands(folder: Path) -> Iterator[str]:
    """Every other command on a full disk: those that only read succeed, those that write say so in a line."""
    fill(folder)
    before = _files(folder)
    for command in (*READERS, *WRITERS):
        ended = remask(command, environment=places(folder), folder=folder)
        allowed = (0,) if command in READERS else (0, 1)
        if ended.trouble or ended.code not in allowed or (ended.code and len(ended.said) != 1):
            yield f"{' '.join(command)}: exit code {ended.code}, {ended.trouble or ended.err[-400:]}"
    after = _files(folder)
    changed = [path for path, content in before.items() if not after.get(path, b"").startswith(content)]
    if changed:
        yield f"commands on a full disk changed {changed}"


def _files(folder: Path) -> dict[str, bytes]:
    """Logs, which may only grow, and records, which may not change."""
    return {str(path): path.read_bytes() for path in [*folder.rglob("*.jsonl"), *folder.rglob("run.json")]}


def _general(ended: Ended, disk: Path) -> str:
    """The last line with its places in short."""
    line = (ended.said or ended.err.splitlines() or [""])[-1]
    words = [word for word in line.replace(str(disk), "DISK").split() if not word.startswith("DISK")]
    return " ".join(words)[:90]
