"""Exact likelihoods of named samplers beside each other: one column an order, other rounds flagged."""

import pytest
from recorded import LIKELIHOOD, SAMPLED, Home

from remask.comparison import compare_runs
from remask.comparison.comparing import Comparison
from remask.comparison.directions import better
from remask.comparison.text import comparison_lines
from remask.errors import UserError

HOW = LIKELIHOOD | {
    "likelihood": "exact: sampler + ends",
    "sampler": "bijective",
    "reveal": "spread",
    "steps": 16,
    "network_calls": 16,
}


@pytest.fixture
def home() -> Home:
    home = Home()
    home.run("mdlm_1")
    home.run("other_1")
    return home


def judge(home: Home, run: str, value: float, **how: object) -> None:
    home.judge(run, value, name="exact_bits_per_byte", task="exact-likelihood", protocol=HOW | how)


def compared(home: Home) -> Comparison:
    return compare_runs(home.registry, [home.registry.get(run) for run in ("mdlm_1", "other_1")])


def columns(home: Home) -> tuple[list[str], list[str]]:
    """Figures that compare, then lines that say what is not equal."""
    found = compared(home)
    lines = comparison_lines(found)
    return [line.split("  ")[1] for line in lines if line.startswith("  exact_bits")], lines


def test_another_order_of_revealing_is_another_quantity(home):
    judge(home, "mdlm_1", 2.5)
    judge(home, "other_1", 2.7, reveal="margin")
    with pytest.raises(UserError, match="they differ in the order of revealing: mdlm spread, other margin"):
        compared(home)


def test_several_orders_stand_in_columns_named_by_them_alone(home):
    for run, value in (("mdlm_1", 2.5), ("other_1", 2.7)):
        for reveal in ("spread", "left_to_right"):
            judge(home, run, value, reveal=reveal)
    figures, _ = columns(home)
    assert set(figures) >= {"exact_bits_per_byte (reveal=spread)", "exact_bits_per_byte (reveal=left_to_right)"}


def test_an_autoregressive_model_stands_in_the_column_from_left_to_right(home):
    judge(home, "mdlm_1", 2.5, reveal="left_to_right")
    judge(home, "other_1", 2.4, reveal="left_to_right", sampler="left_to_right", network_calls=1)
    found = compared(home)
    assert [each.column.comparable for each in found.compared] == [True]
    assert found.verdict.startswith("other is better than mdlm by 0.100 bits/byte")


def test_other_numbers_of_rounds_are_compared_and_flagged(home):
    judge(home, "mdlm_1", 2.5)
    judge(home, "other_1", 2.7, steps=4, network_calls=4)
    flags = "\n".join(columns(home)[1])
    assert "sampling steps: mdlm 16, other 4" in flags
    assert "calls of the network: mdlm 16, other 4" in flags


def test_of_samples_the_order_of_revealing_is_a_way_like_any_other(home):
    for run, reveal in (("mdlm_1", "spread"), ("other_1", "margin")):
        how = SAMPLED | {"sampler": "bijective", "reveal": reveal}
        home.judge(run, 3.0, name="mauve", task="mauve", unit="", protocol=how)
    found = compared(home)
    assert [each.column.comparable for each in found.compared] == [True]
    assert "the order of revealing: mdlm spread, other margin" in "\n".join(comparison_lines(found))


@pytest.mark.parametrize("name", ["exact_bits_per_byte", "exact_nats_per_token", "exact_perplexity"])
def test_lower_is_better(name):
    assert better(name) == "lower"
