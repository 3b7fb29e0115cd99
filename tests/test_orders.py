"""Orders of revealing: which places a round takes, ties, and that a row's order does not depend on its padding."""

import itertools
import math

import pytest
import torch

from remask import orders
from remask.orders import FixedOrder, Order, SureFirst, block_counts, rounds

CPU = torch.device("cpu")
RANKS = {"left_to_right": orders.left_to_right, "spread": orders.spread, "random": orders.random_permutation(3)}
FIXED = pytest.mark.parametrize("rank", RANKS.values(), ids=RANKS)


def mask(*rows: str) -> torch.Tensor:
    """`#.#` is hidden, revealed, hidden."""
    return torch.tensor([[place == "#" for place in row] for row in rows])


def shown(places: torch.Tensor) -> list[str]:
    return ["".join(".#"[int(place)] for place in row) for row in places]


def revealed_in_turn(order: Order, length: int, steps: int) -> list[list[int]]:
    """The places of each round of a row, for an order that asks no model."""
    hidden = torch.ones(1, length, dtype=torch.bool)
    found = []
    for eligible, count in rounds(hidden, steps):
        block = order.wanted(hidden & eligible, count)
        found.append(block[0].nonzero().flatten().tolist())
        hidden = hidden & ~block
    return found


# ── rounds ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_counts_of_k_rounds_are_differences_of_floors():
    assert block_counts(torch.tensor([7, 8, 3, 0]), 4).tolist() == [[1, 2, 2, 2], [2, 2, 2, 2], [0, 1, 1, 1], [0] * 4]


@pytest.mark.parametrize("steps", [1, 3, 7, 64])
def test_the_rounds_of_a_row_reveal_all_of_it_and_differ_by_one_at_most(steps):
    free = torch.arange(40)
    counts = block_counts(free, steps)
    assert torch.equal(counts.sum(-1), free)
    assert int((counts.amax(-1) - counts.amin(-1)).max()) <= 1


def test_blocks_are_revealed_from_left_to_right_each_in_k_rounds():
    found = rounds(mask("#####", ".#.##"), 2, block_length=2)
    assert [shown(eligible) for eligible, _ in found[::2]] == [
        ["##...", ".#..."],
        ["..##.", "...#."],
        ["....#", "....#"],
    ]
    assert [count.tolist() for _, count in found] == [[1, 0], [1, 1], [1, 0], [1, 1], [0, 0], [1, 1]]


@pytest.mark.parametrize(("given", "said"), [({"steps": 0}, "steps: 0 was given"), ({"block_length": 0}, "block_l")])
def test_no_rounds_and_no_blocks_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        rounds(mask("##"), **({"steps": 1} | given))


# ── fixed orders ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_order_of_ranks_by_hand():
    assert orders.left_to_right(4, CPU).tolist() == [0, 1, 2, 3]
    assert revealed_in_turn(FixedOrder(orders.spread), 8, 8) == [[0], [4], [2], [6], [1], [5], [3], [7]]
    assert revealed_in_turn(FixedOrder(orders.left_to_right), 5, 2) == [[0, 1], [2, 3, 4]]


@pytest.mark.parametrize(("length", "steps"), [(16, 4), (64, 8), (128, 32)])
def test_the_places_of_a_round_of_spread_lie_as_far_apart_as_can_be(length, steps):
    together = length // steps
    for places in revealed_in_turn(FixedOrder(orders.spread), length, steps):
        assert {b - a for a, b in itertools.pairwise(places)} == {length // together}


def test_a_random_order_is_a_permutation_that_its_seed_decides():
    first = orders.random_permutation(3)(50, CPU)
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(first, orders.random_permutation(3)(50, CPU))
    assert not torch.equal(first, orders.random_permutation(4)(50, CPU))


@FIXED
@pytest.mark.parametrize("length", [1, 5, 16, 17, 100])
def test_padding_does_not_change_the_order_of_what_stands_before_it(rank, length):
    alone = rank(length, CPU).argsort(stable=True)
    for padding in (1, 3, 28, 200):
        assert torch.equal(rank(length + padding, CPU)[:length].argsort(stable=True), alone)


@FIXED
def test_a_fixed_order_takes_the_lowest_ranks_that_are_still_hidden(rank):
    hidden, count = mask("##.#.##", ".....#.", "......."), torch.tensor([2, 3, 1])
    order = FixedOrder(rank)
    wanted = order.wanted(hidden, count)
    places = sorted(hidden[0].nonzero().flatten().tolist(), key=rank(7, CPU).tolist().__getitem__)[:2]
    assert sorted(places) == wanted[0].nonzero().flatten().tolist()
    assert shown(wanted)[1:] == [".....#.", "......."], "all of them where fewer are left"
    chosen = order.choose(torch.randn(int(wanted.sum()), 4), wanted, hidden, count)
    assert torch.equal(chosen, wanted), "whatever the probabilities"


# ── the surest first ───────────────────────────────────────────────────────────────────────────────────────────


def surest(p, hidden: torch.Tensor, count, score=orders.largest_probability) -> list[str]:
    order, count = SureFirst(score), torch.tensor(count)
    wanted = order.wanted(hidden, count)
    return shown(order.choose(torch.tensor(p, dtype=torch.float64).log(), wanted, hidden, count))


def test_the_highest_scores_among_the_hidden_go_first():
    p = [[0.5, 0.5], [0.9, 0.1], [0.3, 0.7], [0.2, 0.8]]
    assert surest(p, mask("##.#.#"), [2]) == [".#...#"]
    assert surest(p, mask("##.#.#"), [9]) == ["##.#.#"]


def test_ties_and_what_differs_by_rounding_alone_go_to_the_earlier_place():
    assert surest([[0.5, 0.5]] * 4, mask("####"), [2]) == ["##.."]
    assert surest([[0.7, 0.3], [0.7 + 1e-9, 0.3 - 1e-9]], mask("##"), [1]) == ["#."]
    assert surest([[0.7, 0.3], [0.7 + 1e-4, 0.3 - 1e-4]], mask("##"), [1]) == [".#"]


def test_a_row_that_reveals_nothing_asks_nothing():
    hidden = mask("##.", ".##")
    assert shown(SureFirst(orders.top_gap).wanted(hidden, torch.tensor([0, 1]))) == ["...", ".##"]
    assert surest([[0.5, 0.5], [0.1, 0.9]], hidden, [0, 1]) == ["...", "..#"]


def test_the_three_scores_by_hand():
    p = torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]], dtype=torch.float64)
    assert orders.largest_probability(p).tolist() == [0.5, 1.0]
    assert orders.top_gap(p).tolist() == pytest.approx([0.2, 1.0])
    entropy = 0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2)
    assert orders.negative_entropy(p).tolist() == pytest.approx([entropy, 0.0], abs=1e-4)


def test_rounding_of_logits_moves_no_entropy():
    """Padding changes the shape of matrix products, and with it the last bits of logits."""
    generator = torch.Generator().manual_seed(2)
    logits = 0.2 * torch.randn(1000, generator=generator)
    shaken = logits + 2e-6 * torch.randn(64, 1000, generator=generator)
    assert len(orders.negative_entropy(shaken.softmax(-1)).unique()) == 1


def test_the_scores_order_places_differently():
    """The first place has the larger top and the smaller entropy, but the smaller gap."""
    p = [[0.52, 0.48, 0.0, 0.0], [0.5, 0.2, 0.15, 0.15]]
    assert surest(p, mask("##"), [1]) == ["#."]
    assert surest(p, mask("##"), [1], orders.top_gap) == [".#"]
    assert surest(p, mask("##"), [1], orders.negative_entropy) == ["#."]


@pytest.mark.parametrize("order", [FixedOrder(orders.spread), SureFirst(orders.top_gap)])
def test_both_kinds_are_orders(order):
    assert isinstance(order, Order)
