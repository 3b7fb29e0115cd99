"""A mixture of experts beside dense networks of equal cost: the same data, steps and seeds for all.

With D the width, E experts of m hidden features each, of which a token uses k, a gated MLP of F hidden features costs a
token as many operations, and has as many weights, as the mixture with its router of D E weights does, where

    3 D F = 3 D k m + D E     (equal operations)          3 D F = 3 D E m + D E     (equal parameters)          (1)

so F = k m + E/3, or E m + E/3, to the nearest whole number.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from remask.config.schema import Recipe
from remask.config.schema.networks import SizesSpec
from remask.errors import UserError
from remask.laboratory.ablations import LIKELIHOOD, arm_name, repeated
from remask.laboratory.study import Metric, Study, new_facts

KIND = "experts"
DENSE = ("experts", "experts_per_token", "expert_width", "balance_rate")
"""Keys that a dense network leaves out."""


def dense_widths(network: SizesSpec) -> tuple[int, int]:
    """F of (1): at equal operations, and at equal parameters.

    Raises:
        ValueError: the network has no experts.
    """
    if network.experts is None:
        raise ValueError("network.experts: null was given; a mixture has 2 or more")
    used = network.active_experts
    width = network.expert_width or network.hidden_width // used
    router = network.experts / 3
    return round(used * width + router), round(network.experts * width + router)


def expert_arms(recipe: Recipe) -> dict[str, list[str]]:
    """What each arm is called → the keys it changes in a recipe of a mixture.

    Raises:
        UserError: the recipe has no experts.
    """
    network = recipe.network
    if not isinstance(network, SizesSpec) or network.experts is None:
        given = "null" if isinstance(network, SizesSpec) else "which this network cannot have"
        raise UserError(
            f"network.experts: {given} in {recipe.name}, and there is no mixture to compare. Give network.experts=8 "
            "behind the recipe's name, or a recipe that has experts, such as mdlm-moe"
        )
    without = [f"network.{key}=null" for key in DENSE]
    operations, parameters = dense_widths(network)
    return {
        f"{network.experts} experts, {network.active_experts} a token": [],
        "dense, equal operations": [*without, f"network.mlp_width={operations}"],
        "dense, equal parameters": [*without, f"network.mlp_width={parameters}"],
    }


def new_experts(
    home: Path,
    name: str,
    *,
    recipe: Recipe,
    source: str,
    overrides: Sequence[str],
    seeds: Sequence[int],
    metric: Metric = LIKELIHOOD,
    **more: Any,
) -> Study:
    """Makes the folder of a mixture beside dense networks.

    Args:
        home: of runs.
        name: of the study.
        recipe: of the mixture.
        source: its YAML text.
        overrides: KEY=VALUE in all arms.
        seeds: each arm is trained with each of them.
        metric: what the arms are compared by.
        **more: further facts.

    Raises:
        UserError: the name is taken, or the recipe has no experts.
    """
    title = f"experts of {recipe.name} against dense networks"
    facts = new_facts(kind=KIND, title=title, recipe=recipe.name, metric=metric, **more)
    changes = expert_arms(recipe)
    short = {arm: arm_name(f"{recipe.name} {arm}", []) for arm in changes}
    arms = {arm: [*overrides, *changed, f"name={short[arm]}"] for arm, changed in changes.items()}
    trials = repeated(arms, values={arm: {"network": arm} for arm in arms}, seeds=seeds)
    return Study.create(home, name, recipes={"recipe.yaml": source}, trials=trials, **facts)
