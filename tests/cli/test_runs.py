"""`remask runs` and `remask show` through the command line."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
import typer
from records import add_evaluation
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


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--status", "failed"], ["c"]),
        (["--status", "failed", "--status", "finished"], ["c", "b", "a"]),
        (["--recipe", "ar", "--family", "baseline"], ["b"]),
        (["--family", "token"], ["c", "a"]),
        (["--tag", "x"], ["b", "a"]),
        (["--tag", "x", "--tag", "y"], ["a"]),
        (["--recipe", "ar", "--status", "failed"], []),
    ],
)
def test_filters_leave_the_runs_that_fit_all_of_them(registry, filters, expected):
    add(registry, "a", tags=["x", "y"])
    add(registry, "b", tags=["x"], recipe="ar", family="baseline")
    add(registry, "c", status="failed")
    result = invoke("runs", "--json", *filters)
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == expected
    assert result.stderr == ""


def test_an_unknown_status_names_those_that_there_are(registry):
    add(registry, "a")
    with pytest.raises(UserError, match=r"--status finish is unknown; did you mean 'finished'\? Valid: failed, "):
        invoke("runs", "--status", "finish")


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


def test_show_says_what_was_trained_on_what_from_where_and_at_what_cost(registry):
    add(
        registry,
        "mixture",
        **{"architecture": "transformer D8 L1 H1, 8 experts", "data": "python-docs", "tokenizer": "bpe 4096"},
        **{"objective": "masked bound", "extra_losses": ["remask task ×0.5"], "git_commit": "c0ffee", "git_tag": "v1"},
        **{"train_tokens": 2000, "tokens_seen": 5000, "seconds": 7265.0, "flops_per_token": 3e6, "flops": 1.5e10},
        **{"parameters": 8000, "active_parameters": 3000},
        lineage=[
            {"how": "initialised", "from": "other/model"},
            {"how": "resumed", "from": "mixture/checkpoints/step-20"},
        ],
    )
    output = " ".join(invoke("show", "last").stdout.split())
    for said in (
        "architecture transformer D8 L1 H1, 8 experts",
        "text python-docs tokenizer bpe 4096 objective masked bound extra losses remask task ×0.5",
        "lineage initialised from other/model, resumed from mixture/checkpoints/step-20",
        "tokens 5,000 (2.5 epochs of 2,000)",
        "training 2 h 1 min",
        "parameters 8,000 (3,000 used for one token)",
        "FLOPs 1.5e+10 (3e+06 a token)",
        "commit c0ffee, tag v1",
    ):
        assert said in output, said
    assert json.loads(invoke("show", "last", "--json").stdout)["run"]["epochs"] == 2.5


def test_a_dense_network_does_not_say_twice_how_large_it_is(registry):
    add(registry, "dense", parameters=8000, active_parameters=8000)
    assert "used for one token" not in invoke("show", "dense").stdout


def evaluated(registry):
    add(registry, "run_W8_1")
    return add_evaluation(registry.home, "run_W8_1")


def test_show_lists_evaluations_with_their_status(registry):
    record = evaluated(registry)
    with pytest.raises(ZeroDivisionError), registry.evaluating("run_W8_1", task="quality"):
        raise ZeroDivisionError("no samples")
    output = invoke("show", "last").stdout
    (failed,) = [line for line in output.splitlines() if line.startswith("quality_")]
    assert failed.split()[1] == "failed"
    assert failed.endswith("no samples")
    assert any(line.split()[:3] == [record.id, "finished", "run_W8_1/model"] for line in output.splitlines())
    page = json.loads(invoke("show", "last", "--json").stdout)
    assert [found["status"] for found in page["evaluation_records"]] == ["failed", "finished"]


def test_show_of_an_evaluation_has_its_record_figures_and_examples(registry):
    record = evaluated(registry)
    output = invoke("show", "run:like").stdout
    for said in (record.reference, "cpu", "3.0000 ± 0.2500", "byte 2-gram 3.8100", "3 of bits_per_byte"):
        assert said in output, said
    page = json.loads(invoke("show", f"last:{record.id}", "--json").stdout)
    assert page["evaluation"] == record.to_json()
    assert [row["value"] for row in page["measurements"]] == [3.0]
    assert page["examples"] == {"bits_per_byte": 3}
    with pytest.raises(UserError, match="no evaluation 'quality'"):
        invoke("show", "run:quality")


def test_the_protocol_that_all_figures_of_a_task_share_is_said_once_and_the_rest_beside_each(registry):
    add(registry, "run_W8_1")
    with registry.evaluating("run_W8_1", task="steps") as judged:
        judged.keep(
            Measurement(
                name="entropy", value=1.0, unit="nats", n=2, stderr=None, protocol={"split": "test", "steps": n}
            )
            for n in (20, 50)
        )
    lines = invoke("show", "run:steps").stdout.splitlines()
    start = lines.index("steps: split=test")
    assert lines[start + 1].split() == ["name", "value", "unit", "n", "protocol", "trivial"]
    assert [line.split()[4] for line in lines[start + 2 : start + 4]] == ["steps=20", "steps=50"]
    assert "".join(lines).count("split=test") == 1


def test_a_run_folder_whose_path_has_a_colon_is_a_run(registry, tmp_path):
    evaluated(registry)
    shutil.copytree(registry.home / "run_W8_1", tmp_path / "a:b")
    assert "run_W8_1" in invoke("show", str(tmp_path / "a:b")).stdout


@pytest.mark.parametrize("reference", ["run", "run:like"])
def test_conclusion_tags_and_links_are_noted_and_taken_back(registry, reference):
    evaluated(registry)

    def noted():
        page = json.loads(invoke("show", reference, "--json").stdout)
        record = page.get("evaluation") or page["run"]
        return record["conclusion"], record["tags"], record["links"]

    invoke("show", reference, "--conclude", " dull ", "--tag", "a", "--tag", "b c", "--link", "page=https://x.org/?a=b")
    assert noted() == ("dull", ["a", "b c"], {"page": "https://x.org/?a=b"})
    invoke("show", reference, "--tag", "a", "--untag", "b c", "--link", "other=http://y.org", "--link", "page=")
    assert noted() == ("dull", ["a"], {"other": "http://y.org"})
    invoke("show", reference, "--conclude", "")
    assert noted() == (None, ["a"], {"other": "http://y.org"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--link", "page=javascript:alert(1)"], "begins with http"),
        (["--link", "page=https://"], "begins with http"),
        (["--link", "page"], "write NAME=URL"),
        (["--link", "=https://x.org"], "write NAME=URL"),
        (["--link", "gone="], "no such link"),
        (["--untag", "c"], "no such tag"),
        (["--tag", " "], "a label is"),
        (["--tag", "a,b"], "a label is"),
    ],
)
def test_a_label_or_link_that_cannot_be_noted_changes_nothing(registry, arguments, said):
    evaluated(registry)
    with pytest.raises(UserError, match=said):
        invoke("show", "run", "--conclude", "x", *arguments)
    record = registry.get("run_W8_1")
    assert (record.conclusion, record.tags, record.links) == (None, [], {})


def test_no_text_of_another_machines_run_steers_the_terminal(registry):
    odd = "a\x1b[31m\nb"
    record = add(registry, "odd_W8_1", error=odd, headline={odd: 1.0})
    folder = registry.folder_of(record)
    folder.append_metrics({"kind": odd, "step": 1, odd: odd})
    figure = Measurement(name=odd, value=1.0, unit=odd, n=1, stderr=None, trivial={odd: 1.0}, protocol={odd: odd})
    with registry.evaluating(record.id, task=odd, checkpoint=odd) as judged:
        judged.keep([figure])
    for arguments in (("runs",), ("show", "last"), ("show", judged.record.reference)):
        shown = invoke(*arguments).stdout
        assert "\x1b" not in shown
        assert "a\N{REPLACEMENT CHARACTER}[31m" in shown


def test_a_conclusion_with_bytes_that_are_no_text_is_stored_without_them(registry):
    record = add(registry, "quickstart_W8_1")
    assert "conclusion   bad ?\n" in invoke("show", "last", "--conclude", "bad \udcff").stdout.replace("\ufffd", "?")
    assert Registry(registry.home).get(record.id).conclusion == "bad ?"
    assert registry.disagreements(registry.get(record.id)) == []
