"""A prior over vectors that is no better than a linear filter at some noise is called so, however good its mean is."""

import pytest

from remask.health import verdict

TRIVIAL = {
    "kind": "trivial",
    "step": 0,
    "nats_per_token": {"uniform": 6.9, "unigram": 5.9},
    "bits_per_byte": {"uniform": 8.0, "unigram": 4.7, "byte 1-gram": 4.7, "byte 2-gram": 3.8},
    "loss": {"linear filter": 1.0},
}


def lines(skills, *, count=40):
    """Training and validation lines of a run that beats its trivial values, with skills by range of noise."""
    by_range = {f"skill_t{k}": value for k, value in enumerate(skills)}
    train = [
        {"kind": "train", "step": 10 * i, "loss": 0.7, "gradient_norm": 0.3, "learning_rate": 1e-3 / i, **by_range}
        | {"worst_skill": min(skills)}
        for i in range(1, count + 1)
    ]
    judged = {"kind": "validation", "step": 10 * count, "bits_per_byte": 3.0, "nats_per_token": 3.7, "stderr": 0.01}
    return [TRIVIAL, *train, judged]


def names(metrics):
    found = verdict(metrics)
    return found.level, [finding.partition(":")[0] for finding in found.findings]


def test_skill_at_every_noise_is_no_matter():
    assert names(lines([0.3, 0.2, 0.1, 0.05, 0.01])) == ("learns", [])


@pytest.mark.parametrize("bad", [0, 4])
def test_one_range_below_the_filter_is_named(bad):
    skills = [0.5] * 5
    skills[bad] = -3.9
    level, found = names(lines(skills))
    assert level == "weak"
    assert found == ["no skill over a linear filter"]
    (finding,) = verdict(lines(skills)).findings
    assert f"skill -3.900 at noise t{bad}" in finding


def test_no_skill_anywhere_is_not_having_learned():
    assert names(lines([-0.01] * 5))[0] == "trivial"


def test_a_run_that_has_hardly_begun_is_not_blamed():
    assert "no skill over a linear filter" not in names(lines([-1.0] * 5, count=5))[1]


def test_a_number_that_is_missing_is_no_skill():
    metrics = lines([0.5] * 5)
    for line in metrics[1:-1]:
        line["skill_t2"] = None
    assert names(metrics)[1] == ["no skill over a linear filter"]
