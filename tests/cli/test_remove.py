"""`remask remove` through the command line: it says what would be lost, asks, and takes no answer from nobody."""

import io
import sys

import pytest
from command import refused, remask, run_folders, succeeds
from records import add_evaluation, add_run

from remask.runs import Registry, RunFolder


class Terminal(io.StringIO):
    """Somebody who answers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def filled(home):
    """A home of two runs of which the second went on from the first."""
    add_run(home, "first_W8_1", conclusion="wider is better")
    (home / "first_W8_1" / "weights").write_bytes(b"x" * 3000)
    add_evaluation(home, "first_W8_1")
    add_run(home, "second_W8_1", lineage=[{"how": "initialised", "from": "first_W8_1/checkpoints/step-2"}])
    return home


def ids(home) -> list[str]:
    return [record.id for record in Registry(home).list()]


def answer(text: str, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "stdin", Terminal(f"{text}\n"))
    return remask("remove", *arguments)


def test_what_would_be_lost_is_said_before_anything_is_asked(filled, monkeypatch):
    sizes = [path.stat().st_size for path in (filled / "first_W8_1").rglob("*") if path.is_file()]
    done = answer("n", monkeypatch, "first")
    said, _, rest = done.err.partition("Remove this for good?")
    assert "run first_W8_1 (finished, step 0 of 1000)" in said
    assert f"its folder {filled / 'first_W8_1'}: {len(sizes)} files, {sum(sizes) / 1024:.1f} KiB\n" in said
    assert "1 evaluation\n" in said
    assert "wider is better" in said
    assert "second_W8_1 went on from it" in said
    assert "nothing was removed" in rest
    assert (done.code, ids(filled)) == (0, ["second_W8_1", "first_W8_1"])


@pytest.mark.parametrize("text", ["", "no", "maybe"])
def test_only_a_yes_is_a_yes(filled, monkeypatch, text):
    answer(text, monkeypatch, "first")
    assert run_folders(filled) == ["first_W8_1", "second_W8_1"]


def test_a_yes_removes_and_so_does_the_option(filled, monkeypatch):
    assert "removed first_W8_1" in answer("y", monkeypatch, "first").out
    assert (ids(filled), run_folders(filled)) == (["second_W8_1"], ["second_W8_1"])
    assert succeeds("remove", "last", "--yes").out == "removed second_W8_1\n"
    assert (ids(filled), run_folders(filled)) == ([], [])


def test_without_a_terminal_nobody_is_asked_and_nothing_removed(filled, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert "give --yes" in refused("remove", "first")
    assert len(ids(filled)) == 2


def test_of_several_references_of_which_one_is_wrong_none_is_removed(filled):
    assert "no run 'thrid'" in refused("remove", "first", "thrid", "--yes")
    assert len(ids(filled)) == 2
    succeeds("remove", "first", "first_W8_1", "second", "--yes")
    assert ids(filled) == []


def test_runs_that_go_together_do_not_name_each_other_as_heirs(filled):
    assert "went on from it" not in succeeds("remove", "first", "second", "--yes").err


def test_a_running_run_is_refused(filled):
    with RunFolder(filled / "first_W8_1").lock():
        Registry(filled).update("first_W8_1", status="running")
        assert "first_W8_1 is running" in refused("remove", "first", "--yes")
    assert len(ids(filled)) == 2


def test_one_evaluation_is_removed_and_its_run_stays(filled):
    kept = add_evaluation(filled, "first_W8_1", task="quality")
    done = succeeds("remove", "first:likelihood", "--yes")
    assert "with 1 figure" in done.err
    assert [record.id for record in Registry(filled).evaluation_records()] == [kept.id]
    assert len(ids(filled)) == 2
    assert "no evaluation 'likelihood'" in refused("remove", "first:likelihood", "--yes")
