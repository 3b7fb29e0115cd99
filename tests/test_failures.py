"""Real failures, made again on a small scale (benchmarks/failures): each is called by its name and goes when mended."""

import math
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks" / "failures"))
from cases import CASES

SMALLER = ("network.width=32", "network.layers=1", "training.batch_size=8", "training.optimizer=adamw")
SHORTER = {
    "float16": ("training.steps=8", *SMALLER),
    "float16_thought": ("training.steps=8", *SMALLER),
    "pinned": ("training.steps=104",),
    "silent": ("training.steps=12",),
    "one_token": ("training.steps=100", "training.learning_rate=1e-2", *SMALLER),
    "unbounded_scale": ("training.steps=25", "training.warmup_ratio=0.48"),
    "mask_gap": ("training.steps=120", "training.learning_rate=3e-2", "objective.replacements=uniform", *SMALLER),
}
SAID = {
    "float16_thought": [r"step [2-5]: non-finite (loss|gradient): .*weights in float16, where AdamW's eps"],
    "float16": [r"step [2-5]: non-finite (loss|gradient): .*weights in float16, where AdamW's eps"],
    "pinned": [
        r"step 5: no gradient: .*exactly 0 at 5 steps.*two zero-initialised layers in series",
        r"step 100: loss at its trivial value: loss (1\.00|0\.99)\d\d is no better than the guess of no noise",
    ],
    "silent": [
        r"step 5: loss at zero: the loss was exactly 0.*an error that is caught and passed over",
        r"step 10: parameters that never move: all parameters",
    ],
    "one_token": [
        r"step 100: collapsed samples: the sample has only 3% different runs of 4 characters, where held-out"
    ],
    "unbounded_scale": [
        r"step \d+: exploding gradient: gradient norm \d{3}, .*(modulation|time\.mlp).*adaln_bounded",
    ],
    "mask_gap": [r"step 1[23]0: mask-logit gap: mask_probability is 0\.0[01]\d where 0\.050 was asked for"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("failures")


@pytest.mark.parametrize("name", CASES)
def test_a_real_failure_is_called_by_its_name_and_is_gone_when_mended(name, folder):
    case = CASES[name](folder, *SHORTER[name])
    messages = [str(alarm) for alarm in case.failed.alarms]
    for pattern in SAID[name]:
        assert any(re.match(pattern, message) for message in messages), messages
    assert [str(alarm) for alarm in case.mended.alarms if alarm.kind in case.kinds] == []
    mended = case.mended.to_json()
    assert mended["last_loss"] < 0.9 * mended["first_loss"], "the mended one trains"
    assert all(map(math.isfinite, case.mended.losses))
    if name == "silent":
        failed, after = case.failed.figures, case.mended.figures
        assert failed["perplexity"] > failed["perplexity_of_uniform"] > after["perplexity"]
