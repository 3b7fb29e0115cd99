"""`remask runs` and `remask show` through the command line."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import typer
from typer.testing import CliRunner

from remask.cli.runs import runs
from remask.cli.show import show
from remask.errors import UserError
from remask.evaluation.measurement import Measurement
from remask.runs import Registry, RunFolder, RunRecord

APP = typer.Typer()
APP.command()(runs)
APP.command()(show)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.setenv("REMASK_HOME", str(tmp_path / "home"))
    return Registry(tmp_path / "home")


def add(registry, run_id, *, hours=0, **values):
    RunFolder.create(registry.home, run_id)
    created = (datetime.now(UTC) - timedelta(hours=hours, minutes=1)).isoformat()
    defaults = {"recipe": "quickstart", "family": "token", "seed": 1, "status": "finished", "steps": 1000}
    return registry.create(RunRecord(id=run_id, created=created, **(defaults | values)))


def invoke(*arguments):
    result = CliRunner().invoke(APP, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def trained(registry):
    record = add(
        registry,
        "quickstart_W8_1",
        step=1000,
        headline={"bits_per_byte": 2.95},
        trivial={"uniform": 8.0, "byte 2-gram": 3.81},
        verdict="learns: 2.95 bits/byte, 0.86 below the byte bigram (3.81)",
        git_commit="c0ffee",
        git_dirty=True,
    )
    folder = registry.folder_of(record)
    folder.recipe_path.write_text("name: quickstart\n")
    for step in (200, 1000):
        (folder.checkpoints_path / f"step-{step}").mkdir(parents=True)
        folder.append_metrics({"kind": "train", "step": step, "loss": 5.0 - step / 1000})
        folder.append_sample({"step": step, "text": f"sample of {step} [bold]\x1b[31m"})
    folder.append_metrics({"kind": "trivial", "step": 0, "bits_per_byte": {"uniform": 8.0}})
    for value in (3.5, 2.9501):
        figure = Measurement(
            name="bits_per_byte",
            value=value,
            unit="bits/byte",
            n=512,
            stderr=0.0125,
            trivial={"byte 2-gram": 3.81},
            protocol={"split": "validation"},
        )
        registry.add_evaluations(record.id, [figure], task="likelihood")
    return record


def test_runs_lists_newest_first_with_the_figure_beside_its_trivial_value(registry):
    add(registry, "old", hours=50, status="failed", step=3, error="the disk is full")
    add(
        registry,
        "new",
        hours=2,
        step=1000,
        headline={"bits_per_byte": 2.95},
        trivial={"byte 2-gram": 3.81},
        verdict="learns",
    )
    header, new, old = invoke("runs").stdout.splitlines()
    assert header.split() == ["run", "status", "steps", "bits/byte", "bigram", "age", "verdict"]
    assert new.split() == ["new", "finished", "1000/1000", "2.9500", "3.8100", "2", "h", "learns"]
    assert old.split() == ["old", "failed", "3/1000", "–", "–", "2", "d", "the", "disk", "is", "full"]


def test_ids_and_verdicts_are_never_cut_in_a_pipe(registry):
    verdict = "learns: " + "far " * 60 + "below the bigram"
    add(registry, "quickstart_" + "x" * 60, verdict=verdict)
    output = invoke("runs").stdout
    assert "x" * 60 in output
    assert verdict in output


def test_runs_json_prints_one_object_a_line_and_nothing_else(registry):
    add(registry, "a", hours=1, headline={"bits_per_byte": float("nan")})
    add(registry, "b", tags=["é"])
    result = invoke("runs", "--json")
    objects = [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]
    assert [found["id"] for found in objects] == ["b", "a"]
    assert RunRecord.from_json(objects[0]) == registry.get("b")
    assert result.stderr == ""


def test_an_empty_home_lists_nothing_on_stdout_and_says_how_to_begin(registry):
    result = invoke("runs")
    assert result.stdout == ""
    assert "remask train" in result.stderr
    assert invoke("runs", "--json").stdout == ""
    assert not registry.home.exists()


def test_rebuild_repairs_a_corrupt_registry_and_keeps_stdout_clean(registry):
    add(registry, "a")
    registry.path.write_bytes(b"junk" * 1000)
    with pytest.raises(UserError, match="--rebuild"):
        invoke("runs")
    result = invoke("runs", "--rebuild", "--json")
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["a"]
    assert "registry.sqlite.bak" in result.stderr


def test_show_prints_record_verdict_metrics_evaluations_files_and_last_sample(registry):
    record = trained(registry)
    output = invoke("show", "quick").stdout
    assert record.id in output
    assert "0.86 below the byte bigram" in output
    assert "uniform 8.0000, byte 2-gram 3.8100" in output
    assert "c0ffee (with uncommitted changes)" in output
    assert "step 1000: loss 4.0000" in output
    assert "2.9501 ± 0.0125" in output
    assert "3.5000" not in output  # an older evaluation under the same protocol
    assert str(registry.folder_of(record).checkpoints_path / "step-1000") in output
    assert "sample of 1000 [bold]" in output
    assert "sample of 200" not in output


def test_a_sample_cannot_send_control_codes_to_the_terminal(registry):
    trained(registry)
    assert "\x1b" not in invoke("show", "last").stdout


def test_show_json_is_one_object(registry):
    trained(registry)
    (line,) = invoke("show", "last", "--json").stdout.splitlines()
    page = json.loads(line)
    assert page["run"]["id"] == "quickstart_W8_1"
    assert page["metrics"]["train"]["step"] == 1000
    assert [row["value"] for row in page["evaluations"]] == [2.9501]
    assert page["evaluations"][0]["trivial"] == {"byte 2-gram": 3.81}
    assert page["sample"]["step"] == 1000


def test_show_conclude_stores_the_conclusion(registry):
    trained(registry)
    assert "wider is better" in invoke("show", "last", "--conclude", " wider is better ").stdout
    assert registry.get("quickstart_W8_1").conclusion == "wider is better"
    assert "wider is better" in invoke("show", "last").stdout


def test_show_of_a_run_without_anything_yet(registry):
    add(registry, "bare", steps=None)
    output = invoke("show", "bare").stdout
    assert "0/?" in output
    assert "none: the folder is empty or gone" in output


def test_show_of_an_unknown_run_is_a_users_mistake(registry):
    add(registry, "quickstart_1")
    with pytest.raises(UserError, match="did you mean 'quickstart_1'"):
        invoke("show", "quickstrat_1")
