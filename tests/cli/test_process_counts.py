"""One recipe in several processes: the same noise exactly, the same losses to rounding, by the command a user types."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import TINY, write_text

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "processes.py"
PATIENCE = 300.0  # seconds until a hung process is given up; no statement about speed


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> list[dict]:
    place = tmp_path_factory.mktemp("processes")
    text = write_text(place / "text.txt")
    recipe = ["mdlm", f"data.source={text}", "tokenizer.kind=byte", *TINY, "training.steps=6", "training.batch_size=8"]
    # two micro-batches of 4 for one process, one of them for each of two
    command = [
        sys.executable,
        BENCHMARK,
        "--processes",
        "1",
        "2",
        "--json",
        "--",
        *recipe,
        "training.micro_batch_size=4",
    ]
    environment = {**os.environ, "REMASK_CACHE": str(place / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rows"]


def test_the_losses_of_one_and_two_processes_differ_by_rounding_only(rows):
    one, two = rows
    assert (one["processes"], two["processes"], one["steps"], two["steps"]) == ("1", "2", 6, 6)
    assert one["last_loss"] != one["first_loss"]
    assert two["largest_difference"] < 1e-4


def test_every_example_is_given_the_same_noise_whatever_the_number_of_processes(rows):
    assert [row["masks_equal"] for row in rows] == [True, True]
