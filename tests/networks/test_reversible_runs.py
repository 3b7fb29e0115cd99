"""Inverted activations on two processes and through a compiler: the same training, the same gradients."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("reversible_runs.py")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """What the script found; see there for why it is another process."""
    path = os.pathsep.join([str(SCRIPT.parent), str(SCRIPT.parent.parent)])
    command = [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("runs"))]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("network", ["hybrid", "told the time", "sharded"])
def test_two_processes_train_what_one_does(measured, network):
    """Copies that exchange gradients in the last of two micro-batches, and weights shared out; in float64."""
    found = measured["trained"][network]
    assert found["moved"] > 0.1
    assert found["processes"] == 0.0
    assert found["one"] < 1e-12


def test_compiled_branches_give_the_same_loss_and_gradients_within_rounding(measured):
    """With dropout, bounded AdaLN, affine couplings and a standard block beside the reversible ones."""
    assert measured["compiled"]["plain"] < 2e-5
    assert measured["compiled"]["stored"] < 2e-5
    assert measured["compiled"]["error"] < 1e-11


def test_a_branch_is_compiled_once_for_both_passes_and_whole(measured):
    """Attention, MLP and standard block, of which none is compiled again in the backward pass."""
    assert measured["compiled"]["breaks"] == 0
    assert measured["compiled"]["graphs"] == 3
