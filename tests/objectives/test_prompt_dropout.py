"""Prompt dropout: whole prompts of the drawn share of rows, in training alone."""

from dataclasses import replace

import pytest
import torch

from doubles import Table, full_batch, make_process
from remask.objectives import LikelihoodBound, masking_integrand, rising_range
from remask.objectives.base import Loss
from remask.objectives.prompt_dropout import PromptDropout, unwrapped, without_prompts
from remask.randomness import keyed_generator

MASK = 1
PROCESS = make_process("masking", "linear", mask_id=MASK)
NETWORK = Table(PROCESS, 5, seed=1)
BOUND = LikelihoodBound(process=PROCESS, integrand=masking_integrand, t_min=1e-3)


def pairs(count, *, rows=None, global_size=None):
    """Rows of a prompt of two tokens, a response of two, and padding."""
    batch = full_batch(torch.tensor([[0, 2, 3, 0, 2]]).repeat(count, 1), rows=rows, global_size=global_size)
    targets = torch.tensor([False, False, True, True, False]).repeat(count, 1)
    segments = torch.tensor([1, 1, 1, 1, 0]).repeat(count, 1)
    return replace(batch, targets=targets, segments=segments)


class Watching:
    """Notes the rows that it is asked about."""

    exact = True

    def __init__(self):
        self.seen = []

    def likelihood_terms(self, network, batch, *, generator, draws):
        raise NotImplementedError

    def at(self, step):
        return self

    def __call__(self, network, batch, *, generator):
        self.seen.append(batch.ids)
        return Loss(torch.zeros(batch.ids.shape), batch.targets.float())


def dropped_rows(batch, *, share=0.3, seed=1):
    watching = Watching()
    PromptDropout(objective=watching, share=share, mask_id=MASK)(NETWORK, batch, generator=keyed_generator(seed))
    return (watching.seen[0][:, 0] == MASK).tolist()


def test_a_dropped_prompt_is_masked_whole_and_nothing_else_is():
    batch = without_prompts(pairs(2), torch.tensor([True, False]), mask_id=MASK)
    assert batch.ids.tolist() == [[MASK, MASK, 3, 0, 2], [0, 2, 3, 0, 2]]


def test_the_share_of_rows_is_the_one_asked_for():
    count = 4000
    found = sum(dropped_rows(pairs(count)))
    assert abs(found - 0.3 * count) < 4 * (count * 0.3 * 0.7) ** 0.5


def test_the_same_rows_are_dropped_whatever_the_micro_batches():
    whole = dropped_rows(pairs(8))
    parts = [dropped_rows(pairs(4, rows=range(start, start + 4), global_size=8)) for start in (0, 4)]
    assert whole == [*parts[0], *parts[1]]
    assert 0 < sum(whole) < 8


def test_a_likelihood_always_sees_the_prompt():
    network, batch = NETWORK, pairs(3)
    dropout = PromptDropout(objective=BOUND, share=0.9, mask_id=MASK)
    plain = BOUND.likelihood_terms(network, batch, generator=keyed_generator(1), draws=2)
    terms = dropout.likelihood_terms(network, batch, generator=keyed_generator(1), draws=2)
    assert all(torch.equal(plain[name], terms[name]) for name in plain)
    assert dropout.exact is BOUND.exact


def test_a_curriculum_goes_through_and_the_objective_can_be_taken_out():
    rising = replace(BOUND, curriculum=rising_range(start=0.5, steps=10))
    dropout = PromptDropout(objective=rising, share=0.1, mask_id=MASK)
    assert unwrapped(dropout.at(1)).t_max == 0.5
    assert unwrapped(dropout) is rising
    assert unwrapped(BOUND) is BOUND


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_that_drops_none_or_all_is_refused(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        PromptDropout(objective=BOUND, share=share, mask_id=MASK)
