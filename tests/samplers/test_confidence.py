"""Confidence sampling: how many tokens a step, which ones, and ties."""

import itertools
import math

import pytest
import torch

from doubles import Constant, Double, Table, make_process
from remask.randomness import keyed_generator
from remask.samplers import Prompt, blank_prompt, confidence
from remask.samplers.confidence import most_confident
from remask.schedules import time_grid


class Certain(Double):
    """Position i holds token 3, more surely in the order of `sureness`."""

    def __init__(self, process, sureness) -> None:
        super().__init__(process)
        self.sureness = torch.tensor(sureness, dtype=torch.float64)

    def predict(self, z, t):
        logits = torch.full((*z.shape, 4), -torch.inf, dtype=torch.float64)
        logits[..., 3] = 40 + self.sureness
        logits[..., 0] = 0.0
        return logits


def frames_of(model, times, prompt):
    frames = []
    confidence(model, times, prompt=prompt, generator=keyed_generator(1), on_step=frames.append)
    return frames


@pytest.mark.parametrize("length", [1, 5, 7, 10, 30])
@pytest.mark.parametrize("steps", [1, 3, 7, 10, 49])
def test_each_step_leaves_the_share_of_masks_that_the_schedule_says(length, steps):
    """⌊L · (steps − k) / steps⌋ after step k of a linear schedule, in whole numbers: rounding must not lose one."""
    model = Constant(make_process("masking", "linear"))
    for frame in frames_of(model, time_grid(steps), blank_prompt(3, length)):
        assert (frame.z == 1).sum(-1).tolist() == [length * (steps - frame.step) // steps] * 3


def test_the_cosine_schedule_reveals_few_tokens_first():
    model = Constant(make_process("masking", "cosine"))
    left = [int((f.z == 1).sum()) for f in frames_of(model, time_grid(4), blank_prompt(1, 100))]
    assert left == [math.floor(100 * math.sin(math.pi / 2 * t) + 1e-9) for t in (1, 0.75, 0.5, 0.25, 0)]


def test_only_free_positions_count():
    model = Constant(make_process("masking", "linear"))
    prompt = Prompt(
        ids=torch.full((2, 6), 3),
        fixed=torch.tensor([[True, True, False, False, False, False], [True, True, True, True, False, False]]),
    )
    left = [(f.z == 1).sum(-1).tolist() for f in frames_of(model, time_grid(2), prompt)]
    assert left == [[4, 2], [2, 1], [0, 0]]


def test_the_surest_tokens_are_revealed_first():
    model = Certain(make_process("masking", "linear"), [-39, -36, -38.5, -37, -38])
    # at each step the draw itself is all but certain to be 3 only where it is sure; look at the most likely draws
    frames = frames_of(model, time_grid(5), blank_prompt(400, 5))
    first = (frames[1].z != 1).double().mean(0)
    assert first.argmax() == 1
    last = (frames[4].z == 1).double().mean(0)
    assert last.argmax() in (0, 2)


def test_the_score_is_the_probability_of_the_drawn_token():
    """With certain draws the order is exactly that of the probabilities of each position's one token."""

    class Sharp(Double):
        def predict(self, z, t):
            p = torch.tensor([0.9, 0.5, 0.7], dtype=torch.float64)
            logits = torch.full((*z.shape, 4), -torch.inf, dtype=torch.float64)
            logits[..., 3] = p.log()
            logits[..., 0] = (0.6 * (1 - p)).log()
            logits[..., 2] = (0.4 * (1 - p)).log()
            return logits

    frames = frames_of(Sharp(make_process("masking", "linear")), time_grid(3), blank_prompt(500, 3))
    revealed = frames[1].z
    assert ((revealed != 1).sum(-1) == 1).all()
    # whoever drew token 3 at position 0 (p = 0.9, the highest score possible) is revealed there first
    share = float((revealed[:, 0] == 3).double().mean())
    assert share == pytest.approx(0.9, abs=4.5 * (0.09 / 500) ** 0.5)


def test_revealed_tokens_stay():
    frames = frames_of(Table(make_process("masking", "linear"), 6, seed=3), time_grid(4), blank_prompt(40, 6))
    for before, after in itertools.pairwise(frames):
        visible = before.z != 1
        assert torch.equal(after.z[visible], before.z[visible])


def test_ties_go_to_the_earlier_position():
    """All scores equal: position 0 first, whatever the seed."""

    class Alike(Double):
        def predict(self, z, t):
            logits = torch.full((*z.shape, 4), -torch.inf, dtype=torch.float64)
            logits[..., [0, 3]] = 0.0
            return logits

    frames = frames_of(Alike(make_process("masking", "linear")), time_grid(5), blank_prompt(64, 5))
    for frame in frames:
        hidden = torch.arange(5) >= frame.step
        assert ((frame.z == 1) == hidden).all()


def test_most_confident_takes_the_highest_and_breaks_ties_by_position():
    score = torch.tensor([[0.2, 0.9, 0.9, 0.1], [0.5, 0.5, 0.5, 0.5], [-1.0, 0.3, -1.0, 0.4]])
    chosen = most_confident(score, torch.tensor([2, 3, 0]))
    assert chosen.tolist() == [[False, True, True, False], [True, True, True, False], [False] * 4]
    assert most_confident(score, torch.tensor([1, 1, 1])).int().argmax(-1).tolist() == [1, 0, 3]
