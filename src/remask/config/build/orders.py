"""Orders in which tokens are revealed, from their names."""

from remask import orders
from remask.config import schema


def build_order(reveal: schema.Reveal, *, seed: int) -> orders.Order:
    """The order that a recipe names.

    Args:
        reveal: its name.
        seed: of the recipe; `random` is one permutation of the places, a function of it.
    """
    match reveal:
        case "left_to_right":
            return orders.FixedOrder(orders.left_to_right)
        case "random":
            return orders.FixedOrder(orders.random_permutation(seed))
        case "spread":
            return orders.FixedOrder(orders.spread)
        case "confidence":
            return orders.SureFirst(orders.largest_probability)
        case "margin":
            return orders.SureFirst(orders.top_gap)
        case "entropy":
            return orders.SureFirst(orders.negative_entropy)
