"""Samplers on a network that reads given tokens apart: they draw what they draw from one that sees whole rows."""

from functools import partial

import pytest
import torch

from doubles import Table, make_process
from remask.continuation import Continuation, SourceNetwork, check_given
from remask.errors import UserError
from remask.orders import SureFirst, largest_probability
from remask.randomness import keyed_generator
from remask.samplers import (
    Guided,
    Prompt,
    ancestral,
    bijective,
    blockwise,
    confidence,
    entropy_bounded,
    predictor_corrector,
    remdm,
)
from remask.samplers.remasking import cap
from remask.schedules import time_grid

MASK = 1
IDS = torch.tensor([[3, 0, 2, 0, 3], [0, 2, 3, 3, 2], [2, 2, 0, 3, 3]])
FIXED = torch.arange(5) < torch.tensor([[2], [3], [0]])
PROMPT = Prompt(ids=IDS, fixed=FIXED)
Z = torch.where(FIXED, IDS, torch.tensor([[9, 9, 1, 0, 1], [9, 9, 9, 1, 1], [1, 1, 1, 3, 1]]))
T = torch.tensor([0.3, 0.5, 0.9], dtype=torch.float64)


class TwoParts:
    """Reads what is given in one part and denoises the rest in another, to the logits of a network of whole rows."""

    def __init__(self, whole: Table) -> None:
        self.whole = whole
        self.read = 0

    def encode(self, source, *, real):
        self.read += 1
        return source, real

    def decode(self, z, t, concepts, *, segments, positions):
        source, real = concepts
        found = []
        for row in range(len(z)):
            given, free = source[row][real[row]], z[row][segments[row] > 0]
            logits = self.whole.predict(torch.cat([given, free])[None], t[row : row + 1])[0, len(given) :]
            found.append(logits[positions[row][: len(free)]])
        return torch.cat(found)


def whole(kind: str = "masking") -> Table:
    return Table(make_process(kind, "linear"), 5, seed=1)


def in_parts(kind: str = "masking") -> Continuation:
    table = whole(kind)
    return Continuation(process=table.process, network=TwoParts(table), fixed=FIXED)


def test_logits_are_those_of_the_places_that_were_asked_for():
    assert isinstance(TwoParts(whole()), SourceNetwork)
    for positions in (Z == MASK, ~FIXED, torch.zeros_like(FIXED), torch.arange(5) == torch.tensor([[4], [3], [0]])):
        torch.testing.assert_close(
            in_parts().logits(Z, T, positions=positions), whole().logits(Z, T, positions=positions), rtol=0, atol=0
        )


SAMPLERS = {
    "ancestral": partial(ancestral, times=time_grid(4)),
    "confidence": partial(confidence, times=time_grid(2)),
    "entropy_bounded": partial(entropy_bounded, budget=0.5),
    "remdm": partial(remdm, times=time_grid(5), strategy=cap(0.3)),
    "predictor_corrector": partial(predictor_corrector, times=time_grid(3), corrector_steps=1),
    "bijective": partial(bijective, times=time_grid(3), order=SureFirst(largest_probability)),
    "blockwise": partial(blockwise, times=time_grid(2), block_length=2, walk=ancestral),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_of_masks_draws_the_same_tokens(name):
    draw = partial(SAMPLERS[name], prompt=PROMPT)
    drawn = draw(in_parts(), generator=keyed_generator(3))
    assert torch.equal(drawn, draw(whole(), generator=keyed_generator(3)))
    assert torch.equal(drawn[FIXED], IDS[FIXED])


@pytest.mark.parametrize("kind", ["uniform", "hybrid"])
def test_other_noise_is_undone_in_the_same_way(kind):
    draw = partial(ancestral, times=time_grid(4), prompt=PROMPT)
    assert torch.equal(
        draw(in_parts(kind), generator=keyed_generator(3)), draw(whole(kind), generator=keyed_generator(3))
    )


def test_given_tokens_are_read_once_for_all_steps():
    model = in_parts()
    ancestral(model, time_grid(6), prompt=PROMPT, generator=keyed_generator(1))
    assert model.readings == model.network.read == 1
    model.logits(torch.where(FIXED, 0, Z), T, positions=Z == MASK)
    assert model.readings == 2


def test_guidance_reads_the_given_tokens_and_masks_in_their_place():
    guided = {model: Guided(model(), prompt=PROMPT, scale=1.5) for model in (in_parts, whole)}
    found = [each.logits(Z, T, positions=Z == MASK) for each in guided.values()]
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)
    draw = partial(ancestral, times=time_grid(4), prompt=PROMPT)
    drawn = [draw(each, generator=keyed_generator(2)) for each in guided.values()]
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], draw(in_parts(), generator=keyed_generator(2)))


def test_a_prompt_with_free_places_before_given_ones_is_refused():
    check_given(FIXED)
    with pytest.raises(UserError, match=r"free places before given ones.*without \[MASK\]"):
        check_given(torch.tensor([[True, False, True]]))
