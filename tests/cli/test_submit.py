"""Jobs: what is asked of the cluster, mistakes found before, and a job that really runs."""

import os
import stat
import sys
import time
from pathlib import Path

import pytest
from command import BYTES, newest, refused, remask, succeeds

from remask.cli.progress import PlainWatcher
from remask.config.load import load_recipe
from remask.slurm import torchrun

JOB = ["submit", "mdlm-file", *BYTES]


def options_of(script: str) -> dict[str, str]:
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return dict(line.split("=", 1) for line in lines)


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SLURM's programs, which keep what they are given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder, "srun", "exit 1")
    program(folder, "sbatch", f'cp "$1" {folder}/submitted.sh; echo "Submitted batch job 4711"')
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_a_dry_run_prints_the_script_and_what_each_node_runs_and_leaves_nothing(home, text):
    asked = ["--nodes", 2, "--processes-per-node", 2, "--minutes", 90, "--partition", "gpu", "--cpus-per-process", 3]
    more = ["--sbatch", "account=us", "--sbatch", "mem=8G", "--dry-run", "device=cuda", f"data.source={text}"]
    script = succeeds(*JOB, *asked, *more).out
    options = options_of(script)
    expected = {
        **{"nodes": "2", "ntasks-per-node": "1", "cpus-per-task": "6", "gpus-per-node": "2", "time": "90"},
        **{"partition": "gpu", "account": "us", "mem": "8G", "job-name": "mdlm-file"},
    }
    assert expected.items() <= options.items()
    assert options["signal"].startswith("USR2@"), "the job is told before its time is up"
    assert "torch.distributed.run --nnodes 2 --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint" in script
    assert "-m remask train" in script
    assert not home.exists()


def test_no_gpus_are_asked_for_unless_the_recipe_or_the_option_says_so(home, text):
    source = f"data.source={text}"
    assert "gpus-per-node" not in options_of(succeeds(*JOB, source, "--dry-run").out)
    asked = succeeds(*JOB, source, "--dry-run", "--gpus-per-node", 1).out
    assert options_of(asked)["gpus-per-node"] == "1"


def test_sbatch_gets_the_script_and_the_recipe_is_kept_as_it_was_asked_for(home, text, slurm):
    done = succeeds(*JOB, f"data.source={text}", "training.steps=7", "--nodes", 2)
    assert done.out.startswith("submitted 4711: 2 x 1 processes, 60 minutes\n")
    (folder,) = (home / "submissions").iterdir()
    options = options_of((slurm / "submitted.sh").read_text())
    assert options["nodes"] == "2"
    assert options["output"] == f"{folder}/%j_0_log.out"
    assert load_recipe(str(folder / "recipe.yaml"), []).training.steps == 7
    assert succeeds("runs").code == 0
    assert refused("show", "last").startswith("remask: no run 'last'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["training.stepps=3"], "training.stepps: unknown key; did you mean 'steps'?"),
        (["training.batch_size=4", "--processes-per-node", 3], "Valid near it: 3 or 6"),
        (["--cluster", "slrum"], "did you mean 'slurm'"),
        (["--cluster", "local", "--nodes", 2], "one node"),
        (["--sbatch", "account"], "OPTION=VALUE"),
        (["device=cuda:1", "--processes-per-node", 2], "one device for 2 processes"),
        (["--nodes", 0], "--nodes"),
        (["tracking.project=a/b"], "tracking.project"),
    ],
)
def test_a_mistake_is_found_before_anything_is_submitted(arguments, said, home, text, slurm):
    assert said in refused(*JOB, f"data.source={text}", *arguments)
    assert not (slurm / "submitted.sh").exists()
    assert not home.exists()


def test_a_job_that_slurm_refuses_is_said_in_one_line(home, text, slurm):
    program(slurm, "sbatch", "echo 'sbatch: error: invalid account' >&2; exit 1")
    line = refused(*JOB, f"data.source={text}", code=1)
    assert "SLURM refused the job" in line
    assert "invalid account" in line


def test_without_slurm_the_local_stand_in_is_named(home, text, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "--cluster local" in refused(*JOB, f"data.source={text}")


def test_a_text_that_is_not_there_is_found_before_a_job_waits_for_it(home, text):
    asked = [*JOB, f"data.source={text}", "--cluster", "local"]
    assert "there is no text 'gone.txt'" in refused(*asked, "data.source=gone.txt")
    assert "there is no text 'gone.txt'" in refused(*asked, "data.mixture=[{source: gone.txt}]")
    assert not home.exists()


def test_without_submitit_the_extra_is_named(home, text, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "pip install 'remask[slurm]'" in refused(*JOB, f"data.source={text}", "--dry-run")


def test_nodes_meet_at_the_first_one_and_a_single_one_needs_no_meeting():
    several = torchrun(nodes=3, processes=2, endpoint="n1:20007", job="7")
    assert several[several.index("--rdzv-endpoint") + 1] == "n1:20007"
    assert several[several.index("--rdzv-id") + 1] == "7"
    single = torchrun(nodes=1, processes=2, endpoint="n1:20007", job="7")
    assert "--standalone" in single
    assert "--rdzv-endpoint" not in single


def test_a_local_job_really_trains(home, text):
    done = succeeds(*JOB, f"data.source={text}", "device=cpu", "--cluster", "local", "--minutes", 3)
    job = done.out.split()[1].removesuffix(":")
    (folder,) = (home / "submissions").iterdir()
    last = time.monotonic() + 150
    while not (folder / f"{job}_0_result.pkl").exists() and time.monotonic() < last:
        time.sleep(0.2)
    record, _ = newest(home)
    log = (folder / f"{job}_0_log.err").read_text()
    assert (record.status, record.step) == ("finished", 3), log
    assert (folder / "run").read_text().strip() == record.id


def test_a_run_file_begins_a_run_goes_on_with_it_and_ends_with_it(home, text, monkeypatch):
    train = ["train", "mdlm-file", *BYTES, f"data.source={text}", "training.log_every=1", "training.checkpoint_every=1"]

    def stop(self: PlainWatcher, record: dict) -> None:
        if record["kind"] == "train" and record["step"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PlainWatcher, "logged", stop)
        assert remask(*train, "--run-file", "job").code == 130
    first, _ = newest(home)
    assert Path("job").read_text().strip() == first.id
    assert first.status == "interrupted"
    succeeds(*train, "--run-file", "job")
    second, _ = newest(home)
    assert (second.id, second.status) == (first.id, "finished")
    assert "has finished" in succeeds(*train, "--run-file", "job").err
    assert newest(home)[0].id == first.id
    assert "--run-file" in refused("train", "--resume", "last", "--run-file", "job")
