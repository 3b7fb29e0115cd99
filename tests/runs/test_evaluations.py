"""Evaluations: what is kept of them as they go on, how they end, and what is left when their process dies."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from remask.errors import RunError, UserError
from remask.evaluation.measurement import Examples, Measurement
from remask.runs import EvaluationRecord, Registry, RunFolder, RunRecord


def add(registry: Registry, run_id: str, **values) -> RunRecord:
    RunFolder.create(registry.home, run_id)
    defaults = {"recipe": "r", "family": "token", "seed": 1, "created": "2026-02-23T20:00:00.000+00:00"}
    return registry.create(RunRecord(id=run_id, status="finished", **(defaults | values)))


def figure(value: float, *, name: str = "bits_per_byte", examples: Examples | None = None, **protocol) -> Measurement:
    return Measurement(
        name=name,
        value=value,
        unit="bits/byte",
        n=2,
        stderr=None,
        trivial={"uniform": 8.0},
        protocol=protocol,
        examples=examples,
    )


def on_disk(registry: Registry, record: EvaluationRecord) -> EvaluationRecord:
    path = registry.home / record.run_id / "evaluations" / record.id / "evaluation.json"
    return EvaluationRecord.from_json(json.loads(path.read_text()))


@pytest.fixture
def registry(tmp_path):
    registry = Registry(tmp_path / "home")
    add(registry, "a", step=60, data_hash="d", tokenizer_hash="t")
    return registry


def test_an_evaluation_is_running_within_its_block_and_finished_after_it(registry):
    with registry.evaluating("a", task="likelihood", device="cpu") as judged:
        (within,) = registry.evaluation_records("a")
        judged.keep([figure(3.0), figure(2.0, name="nats_per_token")])
        judged.note(peak_memory_bytes=7)
    (record,) = registry.evaluation_records()
    assert (within.status, record.status, record.error) == ("running", "finished", None)
    assert record == registry.find_evaluation("a:last") == on_disk(registry, record)
    assert record.id.startswith("likelihood_2")
    assert (record.checkpoint, record.step, record.data_hash, record.tokenizer_hash) == ("a/model", 60, "d", "t")
    assert (record.device, record.peak_memory_bytes) == ("cpu", 7)
    assert record.seconds is not None
    assert record.machine
    assert record.finished >= record.created
    rows = registry.measurements("a")
    assert [(row["run_id"], row["evaluation"], row["name"]) for row in rows] == [
        ("a", record.id, "bits_per_byte"),
        ("a", record.id, "nats_per_token"),
    ]
    assert RunFolder(registry.home / "a").evaluations() == registry.evaluations("a")


def test_every_field_of_an_evaluation_comes_back(registry):
    kept = {"links": {"page": "https://example.org"}, "tags": ["x"], "model_hash": "m", "git_dirty": True, "step": 3}
    with registry.evaluating("a", task="t", checkpoint="a/checkpoints/step-3", **kept) as judged:
        assert judged.record.data_hash is None  # of another checkpoint nothing is assumed
    found = registry.find_evaluation("a:t").to_json()
    assert set(found) == {field.name for field in fields(EvaluationRecord)}
    assert {name: found[name] for name in kept} == kept


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RunError("no memory\nat all"), "failed", "no memory"),
        (ZeroDivisionError(), "failed", "ZeroDivisionError"),
        (KeyboardInterrupt(), "interrupted", "stopped by the user"),
    ],
)
def test_an_evaluation_that_breaks_says_so_keeps_its_figures_and_passes_the_error_on(registry, error, status, line):
    def evaluate() -> None:
        with registry.evaluating("a", task="quality") as judged:
            judged.keep([figure(3.0)])
            raise error

    with pytest.raises(type(error)):
        evaluate()
    record = registry.find_evaluation("a:quality")
    assert (record.status, record.error) == (status, line)
    assert record == on_disk(registry, record)
    assert [row["evaluation"] for row in registry.measurements()] == [record.id]


def test_evaluations_of_one_second_have_ids_and_figures_of_their_own(registry):
    for value in (1.0, 2.0, 3.0):
        with registry.evaluating("a", task="quality") as judged:
            judged.keep([figure(value)])
    records = registry.evaluation_records("a")
    assert len({record.id for record in records}) == 3
    assert len({row["evaluation"] for row in registry.measurements("a")}) == 3


def test_a_run_that_is_unknown_or_whose_folder_is_gone_cannot_be_evaluated(registry):
    with pytest.raises(UserError, match="no run 'b'"), registry.evaluating("b", task="quality"):
        pass
    shutil.rmtree(registry.home / "a")
    with pytest.raises(UserError, match="is gone"), registry.evaluating("a", task="quality"):
        pass
    assert not (registry.home / "a").exists()
    assert registry.evaluation_records() == []


# -- examples -------------------------------------------------------------------------------------


def test_examples_are_found_by_the_name_of_their_figure(registry):
    examples = Examples(identity="i", values=[1.0, 2.0], weights=[3.0, 4.0])
    with registry.evaluating("a", task="likelihood") as judged:
        judged.keep([figure(3.0, examples=examples), figure(2.0, name="other")])
        judged.keep([figure(1.0, name="third", examples=Examples(identity="j", values=[5.0]))])
    found = registry.examples("a", judged.record.id)
    assert found == {
        "bits_per_byte": {"identity": "i", "values": [1.0, 2.0], "weights": [3.0, 4.0]},
        "third": {"identity": "j", "values": [5.0], "weights": None},
    }
    assert "examples" not in registry.measurements("a")[0]
    assert registry.examples("a", "none") == {}


def test_a_name_that_stands_for_several_figures_has_no_examples(registry):
    examples = Examples(identity="i", values=[1.0, 2.0])
    with registry.evaluating("a", task="steps") as judged:
        for steps in (20, 50):
            judged.keep([figure(3.0, examples=examples, steps=steps)])
    assert registry.examples("a", judged.record.id) == {}
    assert [row["protocol"]["steps"] for row in registry.measurements("a")] == [20, 50]


# -- references and changes -----------------------------------------------------------------------


def test_an_evaluation_is_found_by_its_id_last_or_a_unique_prefix(registry):
    with registry.evaluating("a", task="likelihood") as first:
        pass
    with registry.evaluating("a", task="quality") as second:
        pass
    folder = str(registry.home / "a")
    for reference in (f"a:{first.record.id}", "a:like", "last:like", f"{folder}:like"):
        assert registry.find_evaluation(reference).id == first.record.id
    assert registry.find_evaluation("a:last").id == second.record.id


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("a", "names no evaluation: write RUN:EVALUATION"),
        ("a:qualty", "no evaluation 'qualty' of a: Valid: last, quality_"),
        ("a:quality", "begins the ids of 2 evaluations of a"),
        ("c:quality", "no run 'c'"),
        ("bare:quality", "bare has none yet"),
    ],
)
def test_a_reference_that_fits_nothing_or_too_much_is_refused_in_one_line(registry, reference, said):
    add(registry, "bare")
    for _ in range(2):
        with registry.evaluating("a", task="quality"):
            pass
    with pytest.raises(UserError, match=said) as caught:
        registry.find_evaluation(reference)
    assert "\n" not in str(caught.value)


def test_what_is_concluded_of_an_evaluation_stands_in_the_registry_and_in_its_folder(registry):
    with registry.evaluating("a", task="quality"):
        pass
    changed = registry.update_evaluation("a:quality", conclusion="dull", tags=["t"])
    assert changed == registry.find_evaluation("a:quality") == on_disk(registry, changed)
    assert (changed.conclusion, changed.tags) == ("dull", ["t"])
    with pytest.raises(TypeError):
        registry.update_evaluation("a:quality", colour="red")


# -- kills and damage -----------------------------------------------------------------------------

EVALUATE = """
import sys, time
from remask.evaluation.measurement import Measurement
from remask.runs import Registry
with Registry(sys.argv[1]).evaluating("a", task="quality") as judged:
    judged.keep([Measurement(name="entropy", value=1.5, unit="nats", n=4, stderr=None)])
    print("evaluating", flush=True)
    time.sleep(60)
"""


def kill_an_evaluation(registry: Registry) -> list[EvaluationRecord]:
    """Starts one, kills it when it has kept a figure, and returns what was listed while it went on."""
    command = [sys.executable, "-c", EVALUATE, str(registry.home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "evaluating\n", process.stderr and process.stderr.read()
        return registry.evaluation_records()
    finally:
        process.kill()
        process.communicate()


def test_a_killed_evaluation_is_noticed_and_its_figures_stay_its_own(registry):
    (alive,) = kill_an_evaluation(registry)
    (dead,) = registry.evaluation_records("a")
    assert (alive.status, dead.status) == ("running", "killed")
    assert on_disk(registry, dead).status == "killed"  # written back, not only shown
    (row,) = registry.measurements("a")
    assert (row["evaluation"], row["value"]) == (dead.id, 1.5)
    with registry.evaluating("a", task="quality") as again:
        pass
    assert again.record.id != dead.id
    assert registry.disagreements(registry.get("a")) == []


def test_without_a_registry_file_evaluations_are_read_from_the_folders_and_taken_in_again(registry):
    with registry.evaluating("a", task="likelihood") as judged:
        judged.keep([figure(3.0)])
    kill_an_evaluation(registry)
    registry.evaluation_records()
    before = (registry.evaluation_records(), registry.measurements())
    for path in registry.home.glob("registry.sqlite*"):
        path.unlink()
    assert (registry.evaluation_records(), registry.measurements()) == before
    assert not registry.path.exists()
    registry.rebuild()
    registry.path.write_bytes(registry.path.read_bytes()[:5000])
    registry.rebuild()
    assert (registry.evaluation_records(), registry.measurements()) == before
    assert registry.find_evaluation("a:likelihood") == judged.record


def test_an_evaluation_record_that_cannot_be_read_leaves_its_figures_listed(registry):
    with registry.evaluating("a", task="likelihood") as judged:
        judged.keep([figure(3.0)])
    (registry.home / "a" / "evaluations" / judged.record.id / "evaluation.json").write_text('{"id": "li')
    registry.rebuild()
    (record,) = registry.evaluation_records()
    assert (record.id, record.task, record.status) == (judged.record.id, "likelihood", "finished")
    assert [row["evaluation"] for row in registry.measurements()] == [record.id]


def test_a_registry_and_an_evaluations_folder_that_differ_are_told_of(registry):
    with registry.evaluating("a", task="likelihood") as judged:
        pass
    path = registry.home / "a" / "evaluations" / judged.record.id / "evaluation.json"
    path.write_text(path.read_text().replace('"finished"', '"failed"', 1))
    (said,) = registry.disagreements(registry.get("a"))
    assert said.endswith(f"{path} differ in status")


@pytest.mark.parametrize("content", ['{"x"', "7", '{"bits_per_byte": {"identity": "i"}}', '{"bits_per_byte": 1}'])
def test_examples_and_records_that_cannot_be_read_are_told_of_and_none_are_given(registry, content):
    with registry.evaluating("a", task="likelihood") as judged:
        judged.keep([figure(3.0, examples=Examples(identity="i", values=[1.0, 2.0]))])
    folder = registry.home / "a" / "evaluations" / judged.record.id
    for name in ("examples.json", "evaluation.json"):
        (folder / name).write_text(content)
    record, examples = registry.disagreements(registry.get("a"))
    assert record == f"{folder / 'evaluation.json'} is missing or cannot be read"
    assert examples.startswith(f"{folder / 'examples.json'} cannot be read")
    assert registry.examples("a", judged.record.id) == {}
    for path in registry.home.glob("registry.sqlite*"):
        path.unlink()
    assert registry.disagreements(registry.get("a")) == [record, examples]


def test_an_evaluation_that_names_a_place_elsewhere_is_not_looked_for_there(registry, tmp_path):
    (tmp_path / "examples.json").write_text('{"x": {"identity": "secret"}}')
    row = figure(3.0).to_json() | {"task": "t", "created": "2026-02-23T21:00:00.000+00:00"}
    evaluations = registry.home / "a" / "evaluations"
    evaluations.mkdir()
    elsewhere = os.path.relpath(tmp_path, evaluations)
    line = json.dumps(row | {"evaluation": elsewhere})
    (registry.home / "a" / "evaluations.jsonl").write_text(line + "\n")
    registry.rebuild()
    (found,) = registry.measurements()
    assert found["evaluation"] == "t_20260223_210000"
    assert registry.examples("a", elsewhere) == {}


def test_all_figures_of_a_run_found_outside_the_home_are_listed_from_when_something_is_stored(registry, tmp_path):
    with registry.evaluating("a", task="likelihood") as judged:
        judged.keep([figure(3.0)])
    moved = shutil.move(registry.home / "a", tmp_path / "moved")
    other = Registry(tmp_path / "other")
    assert other.find_evaluation(f"{moved}:like").status == "finished"
    assert not other.home.exists()
    other.update(other.find(str(moved)).id, verdict="learns")
    again = Registry(tmp_path / "other")
    assert [record.id for record in again.evaluation_records()] == [judged.record.id]
    assert len(again.measurements()) == 1
    with again.evaluating("a", task="quality"):
        pass
    assert len(list(Path(moved).glob("evaluations/*/evaluation.json"))) == 2
