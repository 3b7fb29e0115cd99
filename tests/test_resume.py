"""A run that is killed and resumed is the run that was never killed."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from remask.runs import Registry, RunFolder

STEPS = 40
SMALL = [
    "tokenizer.kind=byte",
    "network.width=32",
    "network.layers=1",
    "network.heads=2",
    "training.batch_size=8",
    "training.evaluate_rows=16",
]
SMALL += ["training.checkpoint_every=10", "training.evaluate_every=20", "sampling.steps=8"]
REMASK = [sys.executable, "-m", "remask", "train"]
COMMAND = [*REMASK, "quickstart", f"training.steps={STEPS}", "seed=1", *SMALL]
PATIENCE = 300.0  # seconds until a hung process is given up; no statement about speed


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> list[str]:
    """The training, on a text so short that reading it takes no time."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    draw = random.Random(0)
    words = ["the", "list", "returns", "a", "value", "of", "class"]
    path.write_text("\n\n".join(" ".join(draw.choices(words, k=60)) + "." for _ in range(200)))
    return [*COMMAND, f"data.source={path}"]


def environment(home: Path, cache: Path) -> dict[str, str]:
    # one thread and one hash seed do not matter to the result; they keep the test light beside others
    return {**os.environ, "REMASK_HOME": str(home), "REMASK_CACHE": str(cache), "OMP_NUM_THREADS": "1"}


def train_to_the_end(home: Path, cache: Path, *arguments: str) -> None:
    done = subprocess.run(arguments, env=environment(home, cache), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def only_folder(home: Path) -> RunFolder:
    (record,) = Registry(home).list()
    return Registry(home).folder_of(record)


def weights_hash(folder: RunFolder) -> str:
    return hashlib.sha256((folder.model_path / "model.safetensors").read_bytes()).hexdigest()


def kill_between_checkpoints(home: Path, cache: Path, command: list[str]) -> int:
    """Starts the command and kills it after a checkpoint, before the end; returns the step it had logged."""
    process = subprocess.Popen(command, env=environment(home, cache), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline and process.poll() is None:
            if any(home.glob("*/checkpoints/step-*/state.json")):
                break
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    return max(line["step"] for line in only_folder(home).metrics())


def test_a_run_killed_between_checkpoints_resumes_to_identical_weights_and_metrics(tmp_path, cache, command):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train_to_the_end(whole, cache, *command)
    assert kill_between_checkpoints(killed, cache, command) < STEPS
    (record,) = Registry(killed).list()
    assert record.status == "killed"
    assert not (only_folder(killed).model_path).exists()

    train_to_the_end(killed, cache, *REMASK, "--resume", "last")

    assert weights_hash(only_folder(killed)) == weights_hash(only_folder(whole))
    (record,) = Registry(killed).list()
    assert record.status == "finished"
    assert record.lineage, "the checkpoint it went on from is recorded"
    assert losses(only_folder(killed)) == losses(only_folder(whole))
    assert texts(only_folder(killed)) == texts(only_folder(whole))


def losses(folder: RunFolder) -> list[tuple[int, float]]:
    kinds = {"train": "loss", "validation": "bits_per_byte"}
    return [(line["step"], line[kinds[line["kind"]]]) for line in folder.metrics() if line["kind"] in kinds]


def texts(folder: RunFolder) -> list[str]:
    return [line["text"] for line in folder.samples()]
