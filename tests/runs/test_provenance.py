"""Provenance: the commit, the machine and the versions, without importing what is measured."""

import shutil
import subprocess
import sys

import pytest

from remask.runs import RunRecord, collect_provenance

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "-c", "core.hooksPath=/dev/null", "commit", "-q", "-m", "first")
    return tmp_path


@needs_git
def test_a_clean_tree_gives_its_commit(repository):
    found = collect_provenance(repository)
    assert found.git_commit == git(repository, "rev-parse", "HEAD")
    assert found.git_dirty is False


@needs_git
def test_a_changed_tracked_file_makes_the_tree_dirty_and_an_untracked_one_does_not(repository):
    (repository / "notes.txt").write_text("x")
    assert collect_provenance(repository).git_dirty is False
    (repository / "code.py").write_text("a = 2\n")
    assert collect_provenance(repository).git_dirty is True


@needs_git
@pytest.mark.parametrize("kind", [["v1"], ["-a", "v1", "-m", "first release"]], ids=["light", "annotated"])
def test_a_tag_is_named_where_it_names_exactly_this_commit(repository, kind):
    assert collect_provenance(repository).git_tag is None
    git(repository, "tag", *kind)
    assert collect_provenance(repository).git_tag == "v1"
    git(repository, "-c", "core.hooksPath=/dev/null", "commit", "-q", "--allow-empty", "-m", "second")
    assert collect_provenance(repository).git_tag is None


def test_outside_a_repository_the_commit_is_unknown(tmp_path):
    found = collect_provenance(tmp_path)
    assert found.git_commit is None
    assert found.git_dirty is None
    assert found.git_tag is None


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert collect_provenance(tmp_path).git_commit is None


def test_machine_and_versions_are_named():
    from importlib.metadata import version

    found = collect_provenance()
    assert found.torch_version == version("torch")
    assert found.python_version.count(".") == 2
    assert found.cores >= 1
    assert found.host in found.machine


def test_provenance_fills_fields_of_the_record(tmp_path):
    values = collect_provenance(tmp_path).record_fields()
    record = RunRecord(id="a", recipe="r", family="token", seed=1, created="2026-01-01", **values)
    assert record.machine == collect_provenance(tmp_path).machine


def test_the_runs_package_imports_no_model_side():
    code = """
import sys
import remask.runs, remask.cli.runs, remask.cli.show, remask.cli.remove, remask.cli.imports
from remask.runs import collect_provenance
collect_provenance()
heavy = {"torch", "numpy", "pydantic", "transformers", "rich.table"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
