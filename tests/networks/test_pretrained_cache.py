"""Pretrained models draw the same tokens with a key-value cache as without, and compute each finished place once."""

from functools import partial

import pytest
import torch

from cached import END, MASK, MASKING, TOKENIZER, Uncached, V
from pretrained_models import tiny_model
from remask.model import CachedNetwork, Model
from remask.networks.pretrained import PretrainedDenoiser
from remask.networks.reading import read_both_ways, read_causally, read_in_blocks
from remask.objectives import NextToken
from remask.randomness import keyed_generator
from remask.samplers import Prompt, ancestral, blank_prompt, blockwise, confidence, left_to_right
from remask.schedules import time_grid

LENGTH = 12
KINDS = ["llama", "qwen3", "gpt2", "qwen2-moe", "qwen2-window"]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_width = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def make_model(reading, process=None, *, kind="llama", attention="sdpa", dtype=torch.float64):
    """A tiny backbone with the ids of `cached.TOKENIZER`, few enough for texts to end often."""
    backbone = tiny_model(kind)
    with torch.random.fork_rng():
        backbone.resize_token_embeddings(V, mean_resizing=False)
    backbone.set_attn_implementation(attention)
    if hasattr(backbone.config, "num_experts_per_tok"):
        backbone.set_experts_implementation("eager")  # the grouped product of experts knows no float64
    network = PretrainedDenoiser(backbone, reading=reading, mask_id=MASK, start_id=END)
    return Model(
        network=network.to(dtype).eval(),
        process=process,
        objective=NextToken(mask_id=MASK),
        tokenizer=TOKENIZER,
        length=LENGTH,
    )


def prefixes(*lengths):
    """Prompts of different lengths in one batch, ends of text among their tokens."""
    ids = torch.randint(MASK, (len(lengths), LENGTH), generator=keyed_generator(5))
    ids[0, :2] = END
    return Prompt(ids=ids, fixed=torch.arange(LENGTH) < torch.tensor(lengths)[:, None])


def shorter(prompt, length):
    return Prompt(ids=prompt.ids[:, :length], fixed=prompt.fixed[:, :length])


def gaps():
    fixed = torch.rand(4, LENGTH, generator=keyed_generator(6)) < 0.5
    fixed[:, 4:8] = True
    return Prompt(ids=torch.randint(MASK, (4, LENGTH), generator=keyed_generator(7)), fixed=fixed)


PROMPTS = {"none": blank_prompt(4, LENGTH), "prefixes": prefixes(4, 0, 11, 6), "gaps": gaps()}
each_prompt = pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)


class Computed:
    """Counts the backbone's calls and the places of a row that they compute, from now on."""

    def __init__(self, model):
        self.calls, self.places = 0, 0
        model.network.backbone.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, given, named):
        self.calls += 1
        self.places += named["inputs_embeds"].shape[1]


# ── the same tokens ────────────────────────────────────────────────────────────────────────────────────────────


def draw_both(model, draw):
    """The tokens drawn with the cache and without."""
    return [draw(m, generator=keyed_generator(1)) for m in (model, Uncached(model))]


@each_width
@each_kind
def test_left_to_right_draws_the_same_tokens_with_and_without(kind, dtype):
    model = make_model(read_causally, kind=kind, dtype=dtype)
    with_cache, without = draw_both(model, partial(left_to_right, prompt=PROMPTS["prefixes"]))
    assert torch.equal(with_cache, without)
    assert bool((without[:, 2:-1] == END).any()), "no document ended, so the test shows less than it means to"


@each_prompt
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("stop", [None, END])
def test_left_to_right_draws_the_same_whatever_is_given_and_whenever_rows_end(prompt, attention, stop):
    model = make_model(read_causally, kind="gpt2", attention=attention)
    with_cache, without = draw_both(model, partial(left_to_right, prompt=prompt, stop=stop))
    assert torch.equal(with_cache, without)


@each_width
@each_kind
def test_blocks_are_drawn_the_same_with_and_without(kind, dtype):
    model = make_model(read_in_blocks(4), MASKING, kind=kind, dtype=dtype)
    draw = partial(blockwise, times=time_grid(3), block_length=4, walk=ancestral, prompt=PROMPTS["prefixes"])
    assert torch.equal(*draw_both(model, draw))


@each_prompt
@pytest.mark.parametrize("stop", [None, END])
@pytest.mark.parametrize(
    ("walk", "block_length", "attention"), [(confidence, 4, "sdpa"), (ancestral, 5, "eager"), (ancestral, 1, "sdpa")]
)
def test_blocks_are_drawn_the_same_whatever_is_given_and_whenever_rows_end(prompt, stop, walk, block_length, attention):
    model = make_model(read_in_blocks(block_length), MASKING, attention=attention)
    given = prompt if block_length > 1 else shorter(prompt, 6)
    draw = partial(blockwise, times=time_grid(2), block_length=block_length, walk=walk, prompt=given, stop=stop)
    assert torch.equal(*draw_both(model, draw))


# ── the same logits ────────────────────────────────────────────────────────────────────────────────────────────


READINGS = {"causally": read_causally, **{f"in blocks of {n}": read_in_blocks(n) for n in (1, 3, 5)}}


def documents():
    """Rows with a padded end, with documents that begin within blocks and at their edges, and with one document."""
    segments = torch.ones(4, LENGTH, dtype=torch.long)
    segments[0, 9:] = 0
    for row, column in ((1, 4), (1, 6), (1, 7), (2, 3), (2, 10)):
        segments[row, column:] += 1
    return segments


@each_kind
@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_reading_on_gives_the_logits_of_the_whole_row_in_whatever_pieces(kind, reading, chunk):
    """Documents begin at other places in each row, so rows of a batch hold different numbers of start tokens."""
    network = make_model(reading, kind=kind).network
    z, segments = torch.randint(MASK, (4, LENGTH), generator=keyed_generator(4)), documents()
    cache = network.open_cache(LENGTH)
    for end in range(chunk, LENGTH + 1, chunk):
        known = max(0, end - 2)
        positions = torch.zeros(4, end, dtype=torch.bool)
        positions[:, cache.past.tokens :] = True
        given = {"segments": segments[:, :end], "positions": positions}
        before = cache.past.tokens
        logits = network.resume(z[:, :end], torch.zeros(4), cache=cache, known=known, **given)
        with torch.no_grad():
            whole = network(z[:, :end], torch.zeros(4), **given)
        text = (segments[:, :end] > 0)[positions]
        torch.testing.assert_close(logits[text], whole[text], rtol=0, atol=1e-10)
        settled = known + 1 if reading is read_causally else known // reading.block_length * reading.block_length
        assert cache.past.tokens == max(settled, before)
        assert cache.states.get_seq_length() == cache.past.length


def test_what_is_not_final_is_never_kept():
    """A draft of a block leaves no trace: later logits see the tokens that were read in its place."""
    model = make_model(read_in_blocks(3), MASKING)
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


@pytest.mark.parametrize("reading", READINGS.values(), ids=READINGS)
def test_a_backbone_that_fills_no_cache_is_read_anew_each_time(reading):
    """As in training with gradient checkpointing, which leaves the cache alone."""
    model = make_model(reading, MASKING if reading is not read_causally else None)
    base = model.network.backbone.base_model
    forward = base.forward
    base.forward = lambda past_key_values=None, **rest: forward(**{**rest, "use_cache": False})
    draw = partial(left_to_right, prompt=PROMPTS["prefixes"])
    if reading is not read_causally:
        draw = partial(
            blockwise, times=time_grid(2), block_length=reading.block_length, walk=ancestral, prompt=PROMPTS["prefixes"]
        )
    assert torch.equal(*draw_both(model, draw))


# ── which networks have a cache ────────────────────────────────────────────────────────────────────────────────


def test_only_readings_that_do_not_look_ahead_have_a_reader():
    assert make_model(read_both_ways, MASKING).reader is None
    assert make_model(read_causally).reader.block_length == 1
    assert make_model(read_in_blocks(4), MASKING).reader.block_length == 4
    assert isinstance(make_model(read_causally).network, CachedNetwork)


def test_reading_on_is_refused_by_a_network_that_sees_both_sides():
    network = make_model(read_both_ways, MASKING).network
    z = torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="sees both sides"):
        network.resume(z, torch.zeros(1), segments=z + 1, positions=z == 0, cache=network.open_cache(2), known=0)


# ── what is computed ───────────────────────────────────────────────────────────────────────────────────────────


@each_kind
def test_left_to_right_computes_each_place_once(kind):
    """L places with a cache; L (L + 1) / 2 without."""
    model = make_model(read_causally, kind=kind)
    computed = Computed(model)
    left_to_right(model, prompt=blank_prompt(2, LENGTH), generator=keyed_generator(1))
    assert (computed.calls, computed.places) == (LENGTH, LENGTH)
    left_to_right(Uncached(model), prompt=blank_prompt(2, LENGTH), generator=keyed_generator(1))
    assert computed.places - LENGTH == LENGTH * (LENGTH + 1) // 2


def test_a_step_that_asks_for_nothing_computes_nothing():
    model = make_model(read_in_blocks(3), MASKING)
    reading = model.reader.begin(1, 9, device=model.device)
    z, t = torch.tensor([[0, 1, 2]]), torch.zeros(1)
    reading.extend(z)
    reading.logits(z, t, positions=z >= 0)
    computed = Computed(model)
    assert reading.logits(z, t, positions=z < 0).shape == (0, V)
    assert computed.calls == 0


def test_a_common_prefix_is_read_in_one_call():
    model = make_model(read_causally)
    computed = Computed(model)
    left_to_right(model, prompt=prefixes(10, 8), generator=keyed_generator(1))
    assert (computed.calls, computed.places) == (4, LENGTH)


@each_kind
@pytest.mark.parametrize("blocks", [2, 3])
def test_blocks_compute_a_place_once_a_step_and_once_to_be_remembered(kind, blocks):
    """And a lead a step, and a start token: for each step of the first block, then once more to be remembered."""
    model = make_model(read_in_blocks(4), MASKING, kind=kind)
    computed = Computed(model)
    prompt = blank_prompt(2, 4 * blocks)
    draw = partial(blockwise, times=time_grid(3), block_length=4, walk=ancestral, prompt=prompt)
    draw(model, generator=keyed_generator(1))
    assert (computed.calls, computed.places) == (3 * blocks, 3 * blocks * (4 + 1) + 4 * (blocks - 1) + 3 + 1)
    draw(Uncached(model), generator=keyed_generator(1))
    assert computed.calls == 6 * blocks
