"""What the recipes of the bijective family turn into."""

import pytest
import torch

from remask.config.build import build_model
from remask.config.load import load_recipe
from remask.objectives import BijectiveLikelihood, all_steps, one_step
from remask.orders import FixedOrder, SureFirst, largest_probability, left_to_right, negative_entropy, spread, top_gap
from remask.tokenizers import ByteTokenizer

ORDERS = {
    "left_to_right": FixedOrder(left_to_right),
    "spread": FixedOrder(spread),
    "confidence": SureFirst(largest_probability),
    "margin": SureFirst(top_gap),
    "entropy": SureFirst(negative_entropy),
}


def built(name: str, *changes: str) -> BijectiveLikelihood:
    small = ["network.width=16", "network.heads=2"]
    recipe = load_recipe(name, ["tokenizer.kind=byte", *small, *changes])
    model = build_model(recipe, ByteTokenizer(), device=torch.device("cpu"))
    assert isinstance(model.objective, BijectiveLikelihood)
    return model.objective


def test_the_recipes_differ_in_the_weight_alone():
    with_it, without = built("bijective"), built("bijective-lambda0")
    assert (with_it.weight, without.weight) == (0.1, 0.0)
    assert with_it.steps == without.steps == 32
    assert with_it.order == without.order == FixedOrder(spread)
    assert with_it.bound == without.bound
    assert with_it.estimate is one_step


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_is_built_from_its_name(name):
    assert built("bijective", f"objective.likelihood_reveal={name}").order == ORDERS[name]


def test_the_random_order_is_a_function_of_the_recipes_seed():
    here = torch.device("cpu")
    ranks = [built("bijective", "objective.likelihood_reveal=random", f"seed={seed}").order for seed in (1, 1, 2)]
    first, again, other = (order.rank(32, here).tolist() for order in ranks)
    assert first == again != other
    assert sorted(first) == list(range(32))


def test_the_warm_up_is_a_share_of_the_steps_and_the_weight_is_whole_where_nobody_says_which_step_it_is():
    objective = built("bijective", "training.steps=200", "objective.likelihood_warmup_ratio=0.25")
    assert objective.weight == 0.1
    assert [objective.at(step).weight for step in (1, 26, 51, 200)] == pytest.approx([0.0, 0.05, 0.1, 0.1])


def test_every_round_can_be_asked_for():
    objective = built("bijective", "objective.likelihood_estimate=all_steps", "objective.likelihood_steps=4")
    assert objective.estimate is all_steps
    assert objective.steps == 4
