"""Ablations of thoughts as they are typed: ranked by right answers, and steps held against them."""

import json
import shlex
from pathlib import Path

import pytest
from command import QUESTIONS, refused, succeeds

from pretended_runs import PretendedRunner, read
from remask.cli import studies
from remask.evaluation.measurement import Measurement
from remask.laboratory import conducting, jobs, matching
from remask.report import study_page
from remask.report.settings import step_panels
from remask.runs import Registry

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "thought.md"


def typed_lines() -> list[list[str]]:
    """The commands below the heading Ablations of docs/thought.md, without `remask`."""
    section = DOCUMENT.read_text(encoding="utf-8").split("## Ablations\n")[1].split("\n## ")[0]
    block = section.split("```sh\n")[1].split("```")[0].replace("\\\n", " ")
    return [words[1:] for line in block.splitlines() if (words := shlex.split(line, comments=True))]


LINES = [line for line in typed_lines() if line[:2] != ["ablate", "steps"]]
SWEEPS = [line for line in LINES if line[0] == "sweep"]
CONDUCTED = [line for line in LINES if line not in SWEEPS[1:]]


def share_of(recipe) -> float:
    """What a pretended thought answers right: the more, the wider its vectors and the higher its seed."""
    return 0.5 + (recipe.network.latent_width + recipe.seed) / 1000


class Answering(PretendedRunner):
    """Trainings that are not made, whose thoughts answer as `share_of` says, and write answers better still."""

    def _evaluate(self, job):
        run, task = job.command[2], job.command[4]
        assert job.command[3:7] == ("--task", task, "--split", "validation"), "chosen by other questions than the last"
        registry = Registry(self.home)
        share = share_of(read(str(registry.folder_of(registry.get(run)).recipe_path)))
        protocol = {"split": "validation", "questions_trained_on": 0}
        found = [
            Measurement(
                name="accuracy_strict",
                value=value,
                unit="share",
                n=1000,
                stderr=0.015,
                trivial={"random number": 0.01},
                protocol=protocol | {"answer": way},
            )
            for way, value in (("trace", share), ("decoded", 0.99))
        ]
        registry.add_evaluations(run, found, task=task)
        self.evaluated.append(run)


def costs(recipe):
    steps = recipe.training.steps
    return {"flops_per_token": 1e6, "tokens_seen": 10 * steps, "flops": 1e7 * steps, "seconds": 2.0, "parameters": 9}


@pytest.fixture
def pretended(home, monkeypatch):
    runner = Answering(home, curve=lambda recipe: [5.0, 4.0], costs=costs)
    monkeypatch.setattr(jobs, "Processes", lambda **asked: runner)
    monkeypatch.setattr(conducting, "POLL", 0.0)
    monkeypatch.setattr(matching, "_analytic", lambda registry, run: 100.0)
    monkeypatch.setattr(study_page, "write_study", lambda study, file: None)
    return runner


@pytest.mark.parametrize("words", CONDUCTED, ids=" ".join)
def test_a_line_of_the_document_ranks_its_trainings_by_the_answers_read_off_thoughts(words, pretended, home):
    done = succeeds(*words, "--name", "s")
    study = json.loads((home / "studies" / "s" / "study.json").read_text())
    trials = [trial for trial in study["trials"] if not trial["calibration"]]
    assert {trial["state"] for trial in trials} == {"finished"}
    found = {"sweep": {0.505, 0.517, 0.565}, "ablate": {0.517, 0.518}}[words[0]]  # of 4, 16 and 64; of two seeds
    assert {round(trial["value"], 9) for trial in trials} == found, "of the trace"
    assert {trial["stderr"] for trial in trials} == {0.015}
    assert study["metric"] == {"name": "accuracy_strict", "task": "arithmetic", "better": "higher", "unit": "share"}
    if words[0] == "sweep":
        (best,) = (trial for trial in trials if trial["values"] == {"network.latent_width": "64"})
        assert f"trial {best['number']}, accuracy_strict" in done.out
    assert "--evaluate arithmetic" in study["command"]


@pytest.mark.parametrize("words", SWEEPS, ids=" ".join)
def test_a_sweep_of_the_document_is_planned_as_it_is_typed(words, home, monkeypatch):
    planned = []
    monkeypatch.setattr(studies, "conduct", lambda study, **how: planned.append(study.facts))
    succeeds(*words, "--name", "s")
    (facts,) = planned
    key, _, values = words[words.index("--over") + 1].partition("=")
    assert facts["over"] == [{"key": key, "values": values.split(",")}]
    assert facts["trials_planned"] == 3
    assert facts["metric"]["name"] == "accuracy_strict"
    assert facts["evaluate"][:2] == ["--task", "arithmetic"]


def test_steps_are_held_against_right_answers_and_seconds(home):
    folder = Path("gsm8k")
    folder.mkdir()
    rows = [json.dumps({"question": f"{k}+1=?", "answer": f"#### {k + 1}"}) for k in range(48)]
    for split, own in (("train", rows[:40]), ("test", rows[40:])):
        (folder / f"{split}.jsonl").write_text("\n".join(own))
    source = ["data.source=gsm8k/train.jsonl", "data.prompt_key=question", "data.response_key=answer"]
    succeeds("train", "thought-cpu", *QUESTIONS, *source, "tokenizer.kind=byte", "data.length=16")
    task = ["--task", "gsm8k", "--reasoning", ".", "--reasoning-limit", 4]
    asked = ["ablate", "steps", "last", *task]
    done = succeeds(*asked, "--steps", "2,1", "--samplers", "ddim,heun", "--repeats", 1)
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0] == ["sampler", "steps", "s/sample", "s", "alone", "calls", "strict", "flexible", "ended"]
    assert [line[:2] for line in lines[1:5]] == [["ddim", "1"], ["ddim", "2"], ["heun", "1"], ["heun", "2"]]
    assert done.out.splitlines()[5].startswith("majority answer")
    (record,) = Registry(home).evaluation_records()
    assert (record.task, record.status) == ("steps", "finished")
    rows = [row for row in Registry(home).measurements() if row["evaluation"] == record.id]
    calls = {(r["protocol"]["sampler"], r["protocol"]["steps"]): r["value"] for r in rows if r["unit"] == "calls"}
    assert calls == {("ddim", 1): 1, ("ddim", 2): 2, ("heun", 1): 1, ("heun", 2): 3}
    strict = [row for row in rows if row["name"] == "accuracy_strict"]
    assert [(row["n"], row["protocol"]["answer"]) for row in strict] == [(4, "trace")] * 4
    assert all(row["value"] > 0 for row in rows if row["unit"] == "s")
    panels = step_panels(rows)
    assert [panel.title for panel in panels[:2]] == ["accuracy strict, share", "accuracy flexible, share"]
    assert "majority answer" in dict(panels[0].levels)
    judged = {line["name"]: line for line in succeeds("evaluate", "last", *task, "--steps", 2, "--json").objects}
    assert judged["accuracy_flexible"]["value"] == [r["value"] for r in rows if r["name"] == "accuracy_flexible"][1]
    assert "did you mean 'gsm8k'" in refused("ablate", "steps", "last", "--task", "gsm8")
    assert "--split foo is no held-out text; Valid: test, validation" in refused(*asked, "--split", "foo")
    assert "--split is read with --task alone" in refused("ablate", "steps", "last", "--split", "test")
    assert "--count is of quality" in refused(*asked, "--count", 8)


def test_what_cannot_rank_is_said_before_anything_is_trained(home):
    over = ["--over", "network.latent_width=4,8"]
    assert "give --evaluate reconstruction" in refused("sweep", "thought-cpu", *over, "--evaluate", "likelihood")
    assert "gives text no likelihood" in refused("ablate", "component", "thought-cpu", "network.attention=causal")
    masked, said = "objective.kind=concept_masked", "objective concept_masked gives text no likelihood"
    assert said in refused("ablate", "component", "concept-diffusion", masked)
    both = ["concept-diffusion", "--over", "objective.kind=concept_bound,concept_masked"]
    assert said in refused("ablate", "size", *both)
    assert said in refused("sweep", *both)
    said = refused("sweep", "thought-cpu", *over, "--evaluate", "answers", "--reasoning-limit", 5)
    assert "--reasoning-limit is read by reasoning tasks alone" in said
    assert "there is no folder gsm8k/" in refused(
        "sweep", "thought-cpu", *over, "--evaluate", "gsm8k", "--reasoning", "."
    )
    assert not home.exists()
