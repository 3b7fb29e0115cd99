"""Drawing with a key-value cache gives the tokens that drawing without one gives, and computes far less."""

from functools import partial

import pytest
import torch

from cached import END, MASK, MASKING, Computed, Uncached, V, make_model
from remask.networks import BIDIRECTIONAL, CAUSAL, block_causal
from remask.processes import Hybrid, Uniform
from remask.randomness import keyed_generator
from remask.samplers import Prompt, ancestral, blank_prompt, blockwise, confidence, left_to_right
from remask.schedules import Linear, time_grid

COMMON = {"schedule": Linear(), "vocab_size": V, "mask_id": MASK}
NOISES = {"masking": MASKING, "uniform": Uniform(**COMMON), "hybrid": Hybrid(**COMMON, uniform_share=0.3)}
LENGTH = 10


def prefixes(*lengths: int) -> Prompt:
    """Prompts of different lengths in one batch, ends of text among their tokens."""
    ids = torch.randint(MASK, (len(lengths), LENGTH), generator=keyed_generator(5))
    ids[0, :2] = END
    return Prompt(ids=ids, fixed=torch.arange(LENGTH) < torch.tensor(lengths)[:, None])


def gaps() -> Prompt:
    fixed = torch.rand(5, LENGTH, generator=keyed_generator(6)) < 0.5
    fixed[:, 4:7] = True
    return Prompt(ids=torch.randint(MASK, (5, LENGTH), generator=keyed_generator(7)), fixed=fixed)


PROMPTS = {"none": blank_prompt(5, LENGTH), "prefixes": prefixes(4, 0, 9, 6), "gaps": gaps()}
each_prompt = pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)


@each_prompt
@pytest.mark.parametrize("stop", [None, END])
def test_left_to_right_draws_the_same_tokens_with_and_without(prompt, stop):
    model = make_model(CAUSAL, None)
    with_cache, without = (
        left_to_right(m, prompt=prompt, generator=keyed_generator(1), stop=stop) for m in (model, Uncached(model))
    )
    assert torch.equal(with_cache, without)
    assert bool((without[:, :-1] == END).any()), "no document ended, so the test shows less than it means to"


@each_prompt
@pytest.mark.parametrize("stop", [None, END])
@pytest.mark.parametrize(("walk", "block_length"), [(ancestral, 4), (confidence, 4), (ancestral, 1)])
def test_blocks_are_drawn_the_same_with_and_without(prompt, stop, walk, block_length):
    model = make_model(block_causal(block_length), MASKING)
    draw = partial(blockwise, times=time_grid(3), block_length=block_length, walk=walk, prompt=prompt, stop=stop)
    with_cache, without = (draw(m, generator=keyed_generator(1)) for m in (model, Uncached(model)))
    assert torch.equal(with_cache, without)


@pytest.mark.parametrize("noise", NOISES)
def test_any_noise_is_drawn_in_blocks_by_a_network_that_reads_in_blocks(noise):
    model = make_model(block_causal(4), NOISES[noise])
    frames = []
    z = blockwise(
        model,
        time_grid(5),
        prompt=PROMPTS["prefixes"],
        generator=keyed_generator(1),
        block_length=4,
        walk=ancestral,
        on_step=frames.append,
    )
    assert not (z == MASK).any()
    assert torch.equal(frames[-1].z, z)


@pytest.mark.parametrize("direction", [CAUSAL, block_causal(1), block_causal(3), block_causal(5), BIDIRECTIONAL])
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_reading_on_gives_the_logits_of_the_whole_row(direction, chunk):
    """In whatever pieces it is read; a network that sees both sides keeps nothing."""
    network = make_model(direction, MASKING).network
    z = torch.randint(MASK, (3, LENGTH), generator=keyed_generator(4))
    segments = torch.ones_like(z)
    segments[1, 6:] += 1
    cache = network.open_cache(LENGTH)
    for end in range(chunk, LENGTH + 1, chunk):
        known = max(0, end - 2)
        positions = torch.zeros(3, end, dtype=torch.bool)
        positions[:, cache.length :] = True
        logits = network.resume(
            z[:, :end], torch.zeros(3), segments=segments[:, :end], positions=positions, cache=cache, known=known
        )
        whole = network(z[:, :end], torch.zeros(3), segments=segments[:, :end], positions=positions)
        torch.testing.assert_close(logits, whole, rtol=0, atol=1e-10)
        assert cache.length == min(direction.settled(known), end)


def test_what_is_not_final_is_never_kept():
    """A draft of a block leaves no trace: later logits see the tokens that were read in its place."""
    model = make_model(block_causal(3), MASKING)
    reading, plain = (model.reader.begin(1, 9, device=model.device) for _ in range(2))
    everywhere, t = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1)
    first, draft, second = torch.tensor([[[0, 1, 2]], [[2, 2, 2]], [[1, 0, 1]]])
    reading.logits(draft, t, positions=everywhere)
    reading.extend(first)
    reading.logits(draft, t, positions=everywhere)
    plain.extend(first)
    for one in (reading, plain):
        one.extend(second)
    after = [one.logits(draft, t, positions=everywhere) for one in (reading, plain)]
    torch.testing.assert_close(*after, rtol=0, atol=1e-12)


def test_only_networks_that_do_not_look_ahead_have_a_reader():
    assert make_model(BIDIRECTIONAL, MASKING).reader is None
    assert make_model(CAUSAL, None).reader.block_length == 1
    assert make_model(block_causal(4), MASKING).reader.block_length == 4


def test_left_to_right_computes_each_place_once():
    """L places with a cache; L (L + 1) / 2 without."""
    model = make_model(CAUSAL, None)
    computed = Computed(model)
    left_to_right(model, prompt=blank_prompt(2, LENGTH), generator=keyed_generator(1))
    assert (computed.calls, computed.places) == (LENGTH, LENGTH)
    left_to_right(Uncached(model), prompt=blank_prompt(2, LENGTH), generator=keyed_generator(1))
    assert computed.places - LENGTH == LENGTH * (LENGTH + 1) // 2


def test_a_common_prefix_is_read_in_one_call():
    model = make_model(CAUSAL, None)
    computed = Computed(model)
    left_to_right(model, prompt=prefixes(8, 6), generator=keyed_generator(1))
    assert (computed.calls, computed.places) == (4, LENGTH)


def test_blocks_compute_a_place_once_a_step_and_once_to_be_remembered():
    model = make_model(block_causal(4), MASKING)
    computed = Computed(model)
    draw = partial(blockwise, times=time_grid(3), block_length=4, walk=ancestral, prompt=blank_prompt(2, 12))
    draw(model, generator=keyed_generator(1))
    assert (computed.calls, computed.places) == (9, 3 * 12 + 8)
    draw(Uncached(model), generator=keyed_generator(1))
    assert (computed.calls, computed.places) == (18, 3 * 12 + 8 + 9 * 12)
