"""`remask sweep`: mistakes found before anything starts, what it prints, and one real sweep that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import BYTES, refused, remask, run_folders, succeeds

from pretended_runs import PretendedRunner
from remask.laboratory import conducting, jobs
from remask.laboratory.results import read_metric
from remask.report import study_page
from remask.runs import Registry

PATIENCE = 120.0  # seconds until a hung proof is given up; no statement about speed
SWEEP = ["sweep", "mdlm-file", *BYTES]
RATES = ["--over", "training.learning_rate=1e-3,1e-2"]


@pytest.fixture
def pretended(home: Path, monkeypatch: pytest.MonkeyPatch) -> PretendedRunner:
    """Trainings that are worse the higher their rate."""
    runner = PretendedRunner(home, curve=lambda recipe: [5.0, 3.0 + 100 * recipe.training.learning_rate])
    monkeypatch.setattr(jobs, "Processes", lambda **asked: runner)
    monkeypatch.setattr(conducting, "POLL", 0.0)
    return runner


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files of pages that are asked for; tests/report draws them."""
    files: list[Path] = []
    monkeypatch.setattr(study_page, "write_study", lambda study, file: files.append(file))
    return files


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "a sweep varies something"),
        (["--over", "training.learning_rates=1,2"], "did you mean 'learning_rate'"),
        (["--over", "training.learning_rate=1e-3,50"], "with training.learning_rate=50: "),
        (["--over", "training.learning_rate=1e-4..1e-2"], "--sampler tpe"),
        ([*RATES, "--sampler", "gird"], "did you mean 'grid'"),
        ([*RATES, "--prune", "medain"], "did you mean 'median'"),
        ([*RATES, "--metric", "bits_per_bite"], "did you mean 'bits_per_byte'"),
        ([*RATES, "--evaluate", "quality"], "no trials can be ranked by that"),
        ([*RATES, "--evaluate", "answers", "--metric", "answer_right"], "did you mean 'answers_right'"),
        ([*RATES, "--evaluate", "likelyhood"], "did you mean 'likelihood'"),
        ([*RATES, "--name", "a/b"], "--name a/b"),
        ([*RATES, "--cluster", "slrum"], "did you mean 'slurm'"),
        ([*RATES, "--jobs", 0], "--jobs"),
        ([*RATES, "data.source=gone.txt"], "there is no text 'gone.txt'"),
        (["--resume", "s"], "leave RECIPE and KEY=VALUE out"),
        (["--over", "training.learning_rate=1e-3,0.001"], "are one experiment"),
        (["--over", "name=a,b"], "are one experiment"),
        ([*RATES, "--html", "gone/page.html"], "there is no folder gone"),
        ([*RATES, "--retry"], "give --resume NAME with it"),
    ],
)
def test_a_mistake_is_said_in_one_line_and_nothing_is_made(arguments, said, home, text):
    assert said in refused(*SWEEP, f"data.source={text}", *arguments)
    assert not home.exists()


def test_a_study_that_is_not_there_is_named_and_one_that_is_there_is_not_made_again(home, text, pretended, undrawn):
    assert "there is no study s" in refused("sweep", "--resume", "s")
    (home / "studies" / "s").mkdir(parents=True)  # an empty folder is no study
    succeeds(*SWEEP, f"data.source={text}", *RATES, "--name", "s")
    assert "there is a study s already" in refused(*SWEEP, f"data.source={text}", *RATES, "--name", "s")
    assert "Valid: s." in refused("sweep", "--resume", "t")
    assert [path.name for path in (home / "studies").iterdir()] == ["s"]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"format": 7}, "another version of remask wrote it"),
        ({"kind": "sweeep"}, "of kind sweeep, which this version"),
        ({"metric": {}}, "cannot be read"),
        ({"jobs": "many"}, "cannot be read"),
        ({"status": None}, "it says nothing of status"),
        ({"trials": 3}, "cannot be read"),
    ],
)
def test_a_damaged_study_is_refused_in_one_line(facts, said, home):
    whole = {"format": 1, "name": "s", "kind": "sweep", "status": "running", "jobs": 1, "cluster": None, "evaluate": []}
    whole |= {"metric": vars(read_metric(None, task=None)), "trials": []} | facts
    (home / "studies" / "s").mkdir(parents=True)
    written = {name: value for name, value in whole.items() if value is not None or name == "cluster"}
    (home / "studies" / "s" / "study.json").write_text(json.dumps(written))
    assert said in refused("sweep", "--resume", "s")


def test_a_text_that_is_gone_stops_the_study_and_fails_no_training(home, text, pretended, undrawn, monkeypatch):
    here = Path("own.txt")
    here.write_text(text.read_text())
    with monkeypatch.context() as patch:
        patch.setattr(pretended, "start", raises_interrupt)
        done = remask(*SWEEP, f"data.source={here}", *RATES, "--name", "s")
    assert done.code == 130
    assert "2 trainings to go. To go on: remask sweep --resume s" in done.err
    here.rename("elsewhere.txt")
    said = refused("sweep", "--resume", "s")
    assert "there is no text 'own.txt'" in said
    assert "the folder that it is resumed in" in said
    Path("elsewhere.txt").rename(here)
    assert "--seed" in refused("sweep", "--resume", "s", "--seed", 3, "--cluster", "slurm")
    found = succeeds("sweep", "--resume", "s", "--json").objects
    assert [each["trial"]["state"] for each in found[:-1]] == ["finished", "finished"]
    assert found[-1]["command"].endswith("--sampler grid --prune none --seed 0")


def raises_interrupt(job: jobs.Job) -> None:
    raise KeyboardInterrupt


def test_without_optuna_the_extra_is_named(home, text, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'remask[sweep]'" in refused(*SWEEP, f"data.source={text}", *RATES)
    assert not home.exists()


def test_a_table_the_best_and_the_way_to_judge_it_are_printed_and_again_when_asked(home, text, pretended, undrawn):
    sweep = [*SWEEP, f"data.source={text}", *RATES, "--over", "training.warmup_ratio=0,0.5", "--name", "s"]
    done = succeeds(*sweep, "--html", "page.html")
    lines = done.out.splitlines()
    assert lines[2].split() == [
        *("trial", "training.learning_rate", "training.warmup_ratio", "bits_per_byte", "(bits/byte)"),
        *("trivial", "state", "run"),
    ]
    assert lines[3].split()[:6] == ["0", "1e-3", "0", "3.100", "±", "0.100"]
    assert "best of 4: trial 0, bits_per_byte 3.100 ± 0.100 bits/byte" in done.out
    assert "--split test" in done.out
    assert "trial 3 finished: 4.000" in done.err
    assert undrawn == [home / "studies" / "s" / "study.html", Path("page.html")]
    again = succeeds("sweep", "--resume", "s")
    assert (again.out, again.err) == (done.out, "")
    assert len(pretended.begun) == 4


def test_json_is_one_object_a_trial_and_one_of_the_study(home, text, pretended, undrawn):
    found = succeeds(*SWEEP, f"data.source={text}", *RATES, "--json").objects
    assert [each["trial"]["value"] for each in found[:2]] == [3.1, 4.0]
    assert found[2]["best"]["trial"] == 0
    assert "trials" not in found[2]
    (folder,) = (home / "studies").iterdir()
    assert folder.name == found[2]["name"]
    kept = json.loads((folder / "study.json").read_text())
    assert kept["trials"] == [each["trial"] for each in found[:2]]


def test_a_sweep_of_which_nothing_came_fails_with_the_first_reason(home, text, monkeypatch, undrawn):
    runner = PretendedRunner(home, curve=lambda recipe: [])
    monkeypatch.setattr(jobs, "Processes", lambda **asked: runner)
    monkeypatch.setattr(conducting, "POLL", 0.0)
    done = remask(*SWEEP, f"data.source={text}", *RATES, "--name", "s")
    assert done.code == 1
    assert done.err.splitlines()[-1] == "remask: no trial of study s gave a figure: trial 0: the disk is full"


def test_a_sweep_whose_controller_is_killed_ends_as_trainings_that_nobody_touched(home, text, undrawn):
    own = [f"data.source={text}", *BYTES, "device=cpu", "training.steps=60", "training.evaluate_every=20"]
    own += ["training.checkpoint_every=20"]
    command = [sys.executable, "-m", "remask", "sweep", "mdlm-file", *own, *RATES, "--name", "s"]
    controller = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    begun = home / "studies" / "s" / "trials" / "0" / "run"
    last = time.monotonic() + PATIENCE
    while not begun.exists() and controller.poll() is None and time.monotonic() < last:
        time.sleep(0.02)
    os.kill(controller.pid, signal.SIGKILL)
    assert controller.wait() == -signal.SIGKILL
    found = succeeds("sweep", "--resume", "s", "--json").objects
    trials = [each["trial"] for each in found[:-1]]
    assert [trial["state"] for trial in trials] == ["finished", "finished"]
    assert len([name for name in run_folders(home) if name != "studies"]) == 2
    for trial in trials:
        log = (home / "studies" / "s" / "trials" / str(trial["number"]) / "train.log").read_text()
        assert log.count(f"run {trial['run']} on cpu") == 1, "no training is begun or gone on with twice"
        assert "resuming" not in log
    for trial, rate in zip(trials, ("1e-3", "1e-2"), strict=True):
        succeeds("train", "mdlm-file", *own, f"training.learning_rate={rate}")
        record = Registry(home).find("last")
        assert trial["value"] == record.headline["bits_per_byte"]
