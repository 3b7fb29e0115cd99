"""What a draw costs: calls of the network, and times by a clock that the test holds."""

import inspect
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from remask.laboratory import steps
from remask.laboratory.steps import counted_calls, timed_draws
from remask.samplers.base import blank_prompt


class Reading(nn.Module):
    """A network that reads on by calling itself, as one with a cache may."""

    def forward(self, x: int) -> int:
        return x

    def resume(self, x: int) -> int:
        return self(x) + self(x)


def test_a_call_made_of_others_counts_once_and_nothing_is_counted_afterwards():
    network = Reading()
    with counted_calls(network) as calls:
        assert (network(2), network.resume(3)) == (2, 6)
    assert calls.count == 2
    assert network.resume(3) == 6
    assert calls.count == 2
    assert not {"forward", "resume"} & set(network.__dict__)


def test_a_draw_is_timed_from_its_start_to_its_end_and_the_first_does_not_count(monkeypatch):
    drawn = []

    def generate(model, sampler, prompt, *, seed, at_once):
        assert at_once == 3
        drawn.append(len(prompt.ids))
        for _ in range(3):
            model.network(1)
        return prompt.ids

    monkeypatch.setattr(steps, "generate", generate)
    monkeypatch.setattr(steps, "build_sampler", lambda spec, model, *, seed: None)
    ticks = (float(k * k) for k in count())  # draw k lasts from (2k)² to (2k + 1)²: 4k + 1 seconds
    model = SimpleNamespace(network=Reading(), device=torch.device("cpu"))
    recipe = SimpleNamespace(sampling=None, seed=0, evaluation=SimpleNamespace(batch_size=3))
    unchecked = inspect.unwrap(timed_draws)  # model and recipe stand for others here
    found = unchecked(model, recipe, blank_prompt(4, 2), repeats=2, clock=lambda: next(ticks))
    assert drawn == [1, 1, 1, 4, 4]
    assert (found.alone, found.together) == ((5.0, 9.0), (13.0, 17.0))
    assert found.calls == 3
    assert found.ids.shape == (4, 2)


def test_a_cost_is_the_median_with_the_error_of_its_draws():
    cost = steps._cost("seconds_per_sample", [1.0, 4.0, 2.0], {})
    assert cost.value == 2.0
    assert cost.stderr == pytest.approx((7 / 3) ** 0.5 / 3**0.5)
    assert steps._cost("seconds_per_sample", [1.0], {}).stderr is None
