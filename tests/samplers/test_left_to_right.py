"""Left-to-right sampling against the exact likelihood of the same model."""

import numpy as np
import torch

from doubles import LeftToRight, full_batch, make_process
from exact import all_sequences, chi_squared
from remask.objectives import NextToken
from remask.randomness import keyed_generator
from remask.samplers import Prompt, blank_prompt, left_to_right

PROCESS = make_process("masking", "linear")
TEXTS = all_sequences([0, 2, 3], 3)


def likelihood(model) -> np.ndarray:
    nats = NextToken(mask_id=1).likelihood_terms(model, full_batch(TEXTS), generator=keyed_generator(0), draws=1)
    return (-nats["next_token"].sum(-1)).exp().numpy()


def test_it_draws_from_the_distribution_that_the_objective_scores():
    model = LeftToRight(PROCESS, seed=3)
    p = likelihood(model)
    assert abs(p.sum() - 1) < 1e-10
    drawn = left_to_right(model, prompt=blank_prompt(4000, 3), generator=keyed_generator(1)).numpy()
    assert chi_squared(drawn, TEXTS, p) > 1e-4
    assert chi_squared(drawn, TEXTS, likelihood(LeftToRight(PROCESS, seed=4))) < 1e-4


def test_a_prefix_is_a_condition():
    model = LeftToRight(PROCESS, seed=3)
    prompt = Prompt(
        ids=torch.tensor([[2, 0, 0]]).repeat(3000, 1), fixed=torch.tensor([[True, False, False]]).repeat(3000, 1)
    )
    drawn = left_to_right(model, prompt=prompt, generator=keyed_generator(1)).numpy()
    p = likelihood(model) * (TEXTS[:, 0] == 2)
    assert chi_squared(drawn, TEXTS, p / p.sum()) > 1e-4


def test_the_model_is_shown_no_token_to_the_right():
    class Watching(LeftToRight):
        def predict(self, z, t):
            assert (z[:, -1] == 1).all(), "the token to be drawn, or a later one, was shown"
            self.widths.append(z.shape[1])
            return super().predict(z, t)

    model = Watching(PROCESS, seed=3)
    model.widths = []
    left_to_right(model, prompt=blank_prompt(2, 4), generator=keyed_generator(1))
    assert model.widths == [1, 2, 3, 4]


def test_a_fixed_place_costs_no_network_call():
    model = LeftToRight(PROCESS, seed=3)
    prompt = Prompt(ids=torch.tensor([[2, 0, 3, 0]]), fixed=torch.tensor([[True, False, True, False]]))
    z = left_to_right(model, prompt=prompt, generator=keyed_generator(1))
    assert model.calls == 2
    assert z[0, [0, 2]].tolist() == [2, 3]


def ending(rows: int = 60) -> tuple[torch.Tensor, torch.Tensor, LeftToRight]:
    """(drawn with stop, drawn without, the model) from prompts of different lengths that hold the stop themselves."""
    ids = torch.full((rows, 7), 2)
    prompt = Prompt(ids=ids, fixed=torch.arange(7) < (torch.arange(rows) % 4)[:, None])
    model = LeftToRight(PROCESS, seed=3)
    without = left_to_right(model, prompt=prompt, generator=keyed_generator(1))
    return left_to_right(model, prompt=prompt, generator=keyed_generator(1), stop=2), without, model


def test_a_row_ends_at_the_first_stop_behind_its_prompt_and_is_filled_with_it():
    stopped, without, _ = ending()
    for row, (one, other) in enumerate(zip(stopped.tolist(), without.tolist(), strict=True)):
        given = row % 4
        end = next((i for i in range(given, 7) if other[i] == 2), 7)
        assert one == other[:end] + [2] * (7 - end), "tokens before the stop are those drawn without it"
    assert not torch.equal(stopped, without)


def test_once_every_row_has_ended_no_call_is_made():
    class Short(LeftToRight):
        def predict(self, z, t):
            logits = super().predict(z, t)
            logits[..., 2] = 1e3 if z.shape[1] > 2 else -1e3
            return logits

    model, frames = Short(PROCESS, seed=3), []
    z = left_to_right(model, prompt=blank_prompt(3, 7), generator=keyed_generator(1), stop=2, on_step=frames.append)
    assert model.calls == 3
    assert bool((z[:, 2:] == 2).all())
    assert not bool((z[:, :2] == 2).any())
    assert [frame.step for frame in frames] == list(range(8))
    assert torch.equal(frames[-1].z, z)


def test_a_stop_in_a_gap_ends_nothing():
    prompt = Prompt(ids=torch.tensor([[0, 0, 0, 3]]), fixed=torch.tensor([[False, False, False, True]]))
    draws = [
        left_to_right(LeftToRight(PROCESS, seed=3), prompt=prompt, generator=keyed_generator(seed), stop=stop)
        for stop in (None, 2)
        for seed in range(10)
    ]
    assert all(torch.equal(one, other) for one, other in zip(draws[:10], draws[10:], strict=True))
