"""Compiled layers: equal results within rounding, one compilation for all layers that are alike."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compiled_layers.py")


@pytest.fixture(scope="module")
def measured():
    """What the script found; see there for why it is another process."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SCRIPT.parent), str(SCRIPT.parent.parent)])}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_compiled_layers_give_the_same_loss_and_gradients_within_rounding(measured):
    """Also with dropout, a clean context, bounded AdaLN, experts, and layers compiled and computed again."""
    assert len(measured["differences"]) == 3
    assert {name: found for name, found in measured["differences"].items() if not found < 2e-5} == {}


def test_layers_that_are_alike_are_compiled_once_and_whole(measured):
    assert measured["many"] == {"graphs": 1, "breaks": 0, "in_evaluation": 0}


def test_a_compiled_rotation_is_the_same_within_rounding_and_without_complex_numbers(measured):
    assert measured["rotation"]["difference"] < 1e-6
    assert measured["rotation"]["nodes"] > 0
    assert measured["rotation"]["complex"] == 0
