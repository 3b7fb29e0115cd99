import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from remask.cli.report import report
from remask.errors import UserError

RUN_ID = "quickstart_W8D1_20260223_203349"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one finished run; the working folder lies beside it."""
    home = tmp_path / "home"
    folder = home / RUN_ID
    folder.mkdir(parents=True)
    record = {"id": RUN_ID, "recipe": "quickstart", "family": "token", "seed": 1, "status": "finished"}
    record |= {"created": "2026-02-23T20:33:49.120+00:00", "folder": RUN_ID, "verdict": "learns: a little"}
    (folder / "run.json").write_text(json.dumps(record))
    monkeypatch.setenv("REMASK_HOME", str(home))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return home


def invoke(*arguments: str):
    app = typer.Typer()
    app.command()(report)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("reference", [RUN_ID, "last", "quickstart_W8"])
def test_a_run_is_reported_into_its_own_folder_by_any_reference(home, reference):
    result = invoke(reference)
    assert result.exit_code == 0, result.output
    page = home / RUN_ID / "report.html"
    assert result.stdout.strip() == str(page)
    assert "a little" in page.read_text()


def test_a_file_can_be_named_and_is_relative_to_the_working_folder(home):
    result = invoke(str(home / RUN_ID), "--html", "page.html")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == "page.html"
    assert "learns" in Path("page.html").read_text()
    assert not (home / RUN_ID / "report.html").exists()


def test_a_folder_whose_record_was_torn_is_still_reported(home):
    (home / RUN_ID / "run.json").write_text('{"id": "quick')
    result = invoke(str(home / RUN_ID))
    assert result.exit_code == 0, result.output
    assert "run.json is torn" in (home / RUN_ID / "report.html").read_text()


def test_an_unknown_run_is_a_users_mistake(home):
    result = invoke("quickstart_X")
    assert isinstance(result.exception, UserError)


def test_the_command_is_loaded_without_anything_heavy():
    code = (
        "import sys, remask.cli.report\n"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'jinja2', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- several runs ----------------------------------------------------------------------------------

OTHER_ID = "mdlm_W8D1_20260224_203349"


@pytest.fixture
def two_runs(home) -> Path:
    """The home with a second run, both evaluated on the same rows."""
    (home / OTHER_ID).mkdir()
    record = json.loads((home / RUN_ID / "run.json").read_text())
    (home / OTHER_ID / "run.json").write_text(
        json.dumps(record | {"id": OTHER_ID, "folder": OTHER_ID, "recipe": "mdlm"})
    )
    for name, value in ((RUN_ID, 2.5), (OTHER_ID, 2.9)):
        row = {
            "name": "bits_per_byte",
            "value": value,
            "unit": "bits/byte",
            "n": 64,
            "stderr": 0.01,
            "task": "likelihood",
        }
        row |= {"trivial": {"byte 3-gram": 2.97}, "protocol": {"split": "validation", "data": "x", "tokenizer": "y"}}
        row |= {"created": "2026-03-01T10:00:00+00:00"}
        (home / name / "evaluations.jsonl").write_text(json.dumps(row) + "\n")
    return home


def test_several_runs_become_one_comparison_in_the_home(two_runs):
    result = invoke(RUN_ID, "mdlm")
    assert result.exit_code == 0, result.output
    page = two_runs / "comparison.html"
    assert result.stdout.strip() == str(page)
    assert "quickstart is better than mdlm by 0.4" in page.read_text()
    assert not (two_runs / RUN_ID / "report.html").exists()


def test_runs_that_cannot_be_compared_are_shown_with_the_reason(two_runs):
    (two_runs / OTHER_ID / "evaluations.jsonl").unlink()
    result = invoke(RUN_ID, OTHER_ID, "--html", "page.html")
    assert result.exit_code == 0, result.output
    page = Path("page.html").read_text()
    assert f"run {OTHER_ID} has no evaluations to compare" in page
    assert "learns: a little" in page


def test_a_run_beside_itself_is_no_comparison(two_runs):
    result = invoke(RUN_ID, "quickstart")
    assert isinstance(result.exception, UserError)
    assert "given twice" in str(result.exception)
    assert not (two_runs / "comparison.html").exists()
