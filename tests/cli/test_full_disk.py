"""A file system that is really full: one line, what was there is whole, and the run goes on when there is space."""

import sys
from pathlib import Path

import pytest
from command import BYTES, newest, refused, remask, succeeds, weights

from remask.checkpoints import Checkpoints

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "reliability"))

from disk import BALLAST, NoSmallDisk, fill, small_disk

LONGER = ["training.steps=6", "training.log_every=1", "training.checkpoint_every=2"]


@pytest.fixture
def small(tmp_path, cache, monkeypatch):
    """A home of runs on a small file system of its own."""
    if not sys.platform.startswith("linux"):
        pytest.skip("mounts a file system in memory")
    monkeypatch.setenv("REMASK_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    try:
        with small_disk(tmp_path / "disk") as disk:
            monkeypatch.setenv("REMASK_HOME", str(disk / "runs"))
            yield disk
    except NoSmallDisk as error:
        pytest.skip(f"no small disk: {error}")


def filled_at_call(monkeypatch, owner, name: str, count: int, disk: Path):
    """The disk is full from the `count`-th call of a method on."""
    calls = []
    method = getattr(owner, name)

    def call(*arguments, **options):
        calls.append(name)
        if len(calls) == count:
            fill(disk)
        return method(*arguments, **options)

    monkeypatch.setattr(owner, name, call)


def test_a_disk_that_fills_up_at_a_checkpoint_costs_nothing_but_time(small, text, monkeypatch):
    arguments = ["mdlm-file", *BYTES, *LONGER, f"data.source={text}"]
    succeeds("train", *arguments)
    whole = weights(newest(small / "runs")[1])
    with monkeypatch.context() as patch:
        filled_at_call(patch, Checkpoints, "save", 2, small)
        message = refused("train", *arguments, code=1)
    assert "No space left" in message or "no space" in message.lower()
    _, folder = newest(small / "runs")
    assert (folder.checkpoints_path / "step-2" / "state.json").is_file()
    for command in (["runs", "--json"], ["show", "last", "--json"]):
        succeeds(*command)
    (small / BALLAST).unlink()
    succeeds("train", "--resume", "last")
    assert weights(newest(small / "runs")[1]) == whole


def test_what_writes_on_a_full_disk_says_so_in_a_line_and_what_reads_still_reads(small, text):
    succeeds("train", "mdlm-file", *BYTES, f"data.source={text}")
    _, folder = newest(small / "runs")
    before = folder.record_path.read_bytes()
    fill(small)
    for command in (["runs", "--json"], ["show", "last", "--json"]):
        succeeds(*command)
    for command in (["evaluate", "last", "--task", "likelihood"], ["report", "last"], ["sample", "last", "--json"]):
        done = remask(*command)
        assert done.code == 1, done.err
        assert len([line for line in done.err.splitlines() if line.startswith("remask: ")]) == 1
    assert folder.record_path.read_bytes() == before
    (small / BALLAST).unlink()
    succeeds("evaluate", "last", "--task", "likelihood")
