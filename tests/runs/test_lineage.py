"""Where a run's weights come from, and on what code and machine it went on."""

from remask.runs.lineage import in_words, resumed
from remask.runs.record import RunRecord

HERE = {"git_commit": "1234567890", "machine": "box (Linux)"}


def record(**values) -> RunRecord:
    return RunRecord(id="r", recipe="mdlm", family="token", seed=1, created="2026-01-01", **{**HERE, **values})


def test_a_resume_on_the_same_machine_names_its_checkpoint_alone():
    same = {"how": "resumed", "from": "r/checkpoints/step-4"}
    assert resumed("r", step=4, recorded=record(), here=HERE) == same
    assert resumed("r", step=4, recorded=record(), here={**HERE, "git_commit": None}) == same


def test_a_resume_elsewhere_names_code_and_machine():
    elsewhere = resumed("r", step=4, recorded=record(machine="other", git_commit="0" * 40), here=HERE)
    assert elsewhere == {"how": "resumed", "from": "r/checkpoints/step-4", **HERE}
    said = in_words([{"how": "initialised", "from": "a/model"}, elsewhere])
    assert said == "initialised from a/model, resumed from r/checkpoints/step-4 (by commit 1234567 on box (Linux))"
