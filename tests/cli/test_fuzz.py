"""A short version of `benchmarks/reliability fuzz`: recipes with every kind of mistake, through the command line."""

import sys
from pathlib import Path

import pytest
from command import remask, run_folders
from hypothesis import HealthCheck, Phase, assume, given, settings

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "reliability"))

from fuzz import SMALL_NUMBERS, Config, configs, judge

TRIED = 18


def outcome_of(config: Config, home: Path) -> tuple[str, str | None]:
    """Gives a configuration to the command line, and judges the answer."""
    (home.parent / "recipe.yaml").write_bytes(config.file)
    before = run_folders(home)
    done = remask("train", "recipe.yaml", *config.overrides)
    return judge(done.code, done.out, done.err, folders=[name for name in run_folders(home) if name not in before])


# beartype, which checks remask's types in tests, draws from `random`
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
def test_wrong_recipes_are_answered_in_readable_lines_and_others_train(home, text, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (home.parent / "text.txt").write_bytes(text.read_bytes())
    outcomes = []

    @settings(max_examples=TRIED, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
    @given(configs(SMALL_NUMBERS))
    def try_one(config: Config) -> None:
        # workers are processes that import torch, and the embedded text takes a minute to learn a vocabulary from
        assume(not any(word in config.file for word in (b"workers", b"python-docs", b"python-code")))
        outcome, problem = outcome_of(config, home)
        outcomes.append(outcome)
        assert problem is None, f"{problem}\n{config}"

    try_one()
    assert len(outcomes) >= TRIED
    assert {"refused", "trained"} <= set(outcomes)


@pytest.mark.parametrize(
    ("code", "out", "err", "folders"),
    [
        (1, "", "Traceback (most recent call last):\nValueError: 3\n", []),
        (2, "", "no line of remask's own\n", []),
        (2, "", "remask: 1 validation error for Recipe\n", []),
        (2, "", "remask: a line\nand one that follows\n", []),
        (2, "", "remask: a bell \a rings\n", []),
        (2, "", "remask: " + "x" * 5000 + "\n", []),
        (2, "", "remask: refused\n", ["run"]),
        (2, "{}", "remask: refused\n", []),
        (-11, "", "", []),
    ],
)
def test_an_answer_that_a_person_cannot_use_is_seen(code, out, err, folders):
    assert judge(code, out, err, folders=folders)[1] is not None


def test_a_refusal_in_a_line_is_an_answer():
    assert judge(2, "", "remask: training.steps: 0 given\n", folders=[]) == ("refused", None)
