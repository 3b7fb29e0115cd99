"""Entropy-bounded unmasking: which positions a budget buys, when, and with what law."""

import math

import pytest
import torch

from doubles import Double, Posterior, Table, make_noise, make_process
from exact import chi_squared, random_joint
from remask.randomness import keyed_generator
from remask.samplers import Prompt, blank_prompt, entropy_bounded
from remask.samplers.entropy_bounded import within_budget

LN2 = math.log(2)


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (0.0, [False, True, False, False]),
        (0.09, [False, True, False, False]),
        (0.11, [False, True, False, True]),
        (0.31, [True, True, False, True]),
        (0.79, [True, True, False, True]),
        (0.81, [True] * 4),
    ],
)
def test_the_sum_of_all_but_the_largest_entropy_stays_within_the_budget(budget, chosen):
    """Ascending: 0.1, 0.2, 0.5, 0.9 at places 1, 3, 0, 2; sums before each: 0, 0.1, 0.3, 0.8."""
    assert within_budget(torch.tensor([[0.5, 0.1, 0.9, 0.2]], dtype=torch.float64), budget)[0].tolist() == chosen


def test_places_that_are_not_masked_cost_nothing():
    entropy = torch.tensor([[torch.inf, 0.3, torch.inf, 0.2]], dtype=torch.float64)
    assert within_budget(entropy, 0.25)[0, [1, 3]].tolist() == [True, True]
    assert within_budget(entropy, 0.15)[0, [1, 3]].tolist() == [False, True]


class Coins(Double):
    """Each position is a fair coin between tokens 0 and 3: ln 2 nats."""

    def __init__(self, process):
        super().__init__(process)
        self.times = []

    def predict(self, z, t):
        self.times.append(t.tolist())
        p = torch.tensor([0.5, 0.0, 0.0, 0.5], dtype=torch.float64)
        return p.log().expand(*z.shape, 4)


@pytest.mark.parametrize(("budget", "calls"), [(0.0, 6), (LN2 * 1.01, 3), (LN2 * 2.01, 2), (100.0, 1)])
def test_a_larger_budget_needs_fewer_calls(budget, calls):
    model = Coins(make_process("masking", "linear"))
    frames = []
    entropy_bounded(
        model, budget=budget, prompt=blank_prompt(3, 6), generator=keyed_generator(1), on_step=frames.append
    )
    assert model.calls == calls
    left = [(frame.z == 1).sum(-1).tolist() for frame in frames]
    assert left == [[6 - 6 * k // calls] * 3 for k in range(calls + 1)]
    assert [frame.t for frame in frames] == pytest.approx([1 - k / calls for k in range(calls + 1)])


@pytest.mark.parametrize(("schedule", "time"), [("linear", 0.5), ("cosine", 2 / math.pi * math.asin(0.5))])
def test_each_rows_time_is_the_one_at_which_the_schedule_masks_its_share(schedule, time):
    model = Coins(make_process("masking", schedule))
    fixed = torch.tensor([[False] * 4, [True, True, False, False]])
    prompt = Prompt(ids=torch.full((2, 4), 3), fixed=fixed)
    entropy_bounded(model, budget=0.0, prompt=prompt, generator=keyed_generator(1))
    assert model.times[0] == pytest.approx([1, 1])
    assert model.times[1][1] == pytest.approx(time)
    assert model.times[2] == pytest.approx([time, 0])


JOINT_NOISE = make_noise("masking", "linear")
JOINT = random_joint(JOINT_NOISE, 3, seed=7)


def p_value(budget: float) -> float:
    model = Posterior(make_process("masking", "linear"), JOINT_NOISE, JOINT)
    drawn = entropy_bounded(model, budget=budget, prompt=blank_prompt(4000, 3), generator=keyed_generator(1)).numpy()
    return chi_squared(drawn, JOINT.texts, JOINT.p)


def test_budget_zero_draws_exactly_from_a_true_posterior():
    assert p_value(0.0) > 1e-4


def test_a_budget_for_everything_draws_positions_independently():
    assert p_value(100.0) < 1e-4


def test_certain_tokens_are_free():
    """Text whose tokens follow from the first is drawn in two calls, and exactly."""

    class Copy(Double):
        def predict(self, z, t):
            seen = torch.where(z == 1, -1, z).amax(-1)
            p = torch.full((len(z), 4), 1 / 3, dtype=torch.float64)
            p[seen >= 0] = torch.nn.functional.one_hot(seen[seen >= 0], 4).double()
            return p.log()[:, None].expand(*z.shape, 4)

    model = Copy(make_process("masking", "linear"))
    z = entropy_bounded(model, budget=0.0, prompt=blank_prompt(30, 6), generator=keyed_generator(1))
    assert model.calls == 2
    assert (z == z[:, :1]).all()
    assert set(z.unique().tolist()) == {0, 2, 3}


@pytest.mark.parametrize("budget", [-0.1, math.nan, math.inf])
def test_a_budget_out_of_range_is_refused(budget):
    with pytest.raises(ValueError, match=f"^budget: {budget} was given; it must be .* at least 0"):
        entropy_bounded(
            Table(make_process("masking", "linear"), 2, seed=1),
            budget=budget,
            prompt=blank_prompt(1, 2),
            generator=keyed_generator(1),
        )
