"""Draws: keyed, independent of how a batch is split, and true to small probabilities."""

import numpy as np
import pytest
import torch
from scipy import stats

from doubles import full_batch, make_process
from exact import chi_squared
from remask import randomness
from remask.randomness import batch_uniform, derive_seed, draw_alike, draw_categorical, keyed_generator
from remask.schedules import batch_times

pytestmark = pytest.mark.usefixtures("global_generator_untouched")


def test_seeds_depend_on_every_part_of_the_key_and_its_type():
    keys = [
        (1,),
        (2,),
        ("1",),
        (1, 1),
        (11,),
        (1, "1"),
        ("noise", 1),
        ("noise", 2),
        ("nois", "e", 1),
        (1, "noise"),
    ]
    seeds = [derive_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert seeds == [derive_seed(*key) for key in keys]
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_seed_never_changes_between_versions():
    assert derive_seed(1, "noise", 7) == 7846100444773851059


def test_neighbouring_keys_give_unrelated_streams():
    draws = torch.stack([torch.rand(500, generator=keyed_generator(1, "noise", step)) for step in range(40)])
    correlation = np.corrcoef(draws.numpy())
    off = correlation[~np.eye(40, dtype=bool)]
    assert np.abs(off).max() < 5 / 500**0.5


@pytest.mark.parametrize("parts", [[8], [4, 4], [1] * 8, [3, 5], [2, 1, 5]])
def test_draws_do_not_depend_on_how_the_global_batch_is_split(parts):
    ids = torch.zeros(8, 3, dtype=torch.int64)
    whole = full_batch(ids)
    split, start = [], 0
    for size in parts:
        rows = list(range(start, start + size))
        split.append(full_batch(ids[rows], rows=rows, global_size=8))
        start += size
    process = make_process("hybrid", "linear")

    def noise(batch):
        generator = keyed_generator(1, "noise", 5)
        t = batch_times(generator, batch, t_min=0.001)
        u = batch_uniform(generator, batch, 3)
        return t, u, process.corrupt(batch.ids, t, noise=u)

    for expected, *pieces in zip(noise(whole), *[noise(part) for part in split], strict=True):
        assert torch.equal(expected, torch.cat(pieces))


def test_ranks_that_take_every_other_row_see_the_same_noise_and_distinct_rows():
    ids = torch.zeros(6, 4, dtype=torch.int64)
    whole = batch_uniform(keyed_generator(3), full_batch(ids), 4)
    ranks = [
        batch_uniform(keyed_generator(3), full_batch(ids[r::2], rows=range(r, 6, 2), global_size=6), 4) for r in (0, 1)
    ]
    assert torch.equal(ranks[0], whole[0::2])
    assert torch.equal(ranks[1], whole[1::2])
    assert len(whole.unique()) == 24


def test_batch_draws_are_float64():
    assert batch_uniform(keyed_generator(1), full_batch(torch.zeros(2, 3, dtype=torch.int64)), 3).dtype == torch.float64


def test_categorical_draws_have_the_asked_frequencies(generator):
    weights = torch.tensor([3.0, 0.0, 1.0, 0.5, 0.0])
    drawn = draw_categorical(weights.expand(20_000, -1), generator=generator).numpy()[:, None]
    p = (weights / weights.sum()).double().numpy()
    assert chi_squared(drawn, np.arange(5)[:, None], p) > 1e-4
    assert chi_squared(drawn, np.arange(5)[:, None], np.array([0.6, 0, 0.27, 0.13, 0])) < 1e-4


def test_rare_tails_keep_their_mass(generator):
    """A hundred tokens of p = 0.005 / 100 each, in float32: float32 Gumbel noise loses a third of such a tail."""
    weights = torch.full((101,), 0.005 / 100)
    weights[0] = 0.995
    drawn = draw_categorical(weights.expand(100_000, -1), generator=generator)
    interval = stats.binom(100_000, 0.005).ppf([5e-5, 1 - 5e-5])
    assert interval[0] <= int((drawn > 0).sum()) <= interval[1]


@pytest.mark.parametrize(
    "weights",
    [
        [0.5, 1e-7, 0.5 - 1e-7],
        [1e-7, 1 - 1e-7],
        [1 - 1e-7, 1e-7],
        [0.0, 0.25, 0.0, 1e-7, 0.75, 0.0],
        [2e5, 4e-2, 1e5],
    ],
)
@pytest.mark.parametrize("draw", ["rows", "alike"])
def test_each_index_owns_a_share_of_the_unit_interval_equal_to_its_probability(weights, draw, monkeypatch):
    """The map from the uniform number to the index, by bisection: a mass of 1e-7 is right to 1e-5 of itself."""
    table = torch.tensor(weights, dtype=torch.float64)

    def index_at(u: float) -> int:
        def rand(*args, dtype, **kwargs):
            assert dtype == torch.float64, "a float32 draw cannot hit small probabilities"
            return torch.tensor(u, dtype=dtype)

        monkeypatch.setattr(randomness.torch, "rand", lambda shape, **k: rand(**k).expand(shape))
        generator = torch.Generator()
        if draw == "alike":
            return int(draw_alike(table, 1, generator=generator))
        return int(draw_categorical(table[None], generator=generator))

    def boundary(low: float, high: float, index: int) -> float:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if index_at(middle) > index else (low, middle)
        return high

    # indices fall as u rises (the draw uses 1 − u)
    edges = [boundary(0.0, 1.0, index) for index in range(len(weights))]
    starts = np.array([1.0, *edges[:-1]])
    measured = starts - np.array(edges)
    np.testing.assert_allclose(measured, table / table.sum(), rtol=1e-5, atol=1e-15)


def test_an_index_of_weight_zero_is_never_drawn(monkeypatch):
    weights = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 3.0, 0.0, 0.0]])
    for u in (0.0, 0.25, 0.5, 1 - 2**-53):
        monkeypatch.setattr(randomness.torch, "rand", lambda shape, u=u, **k: torch.full(shape, u, dtype=torch.float64))
        first, second = draw_categorical(weights, generator=torch.Generator()).tolist()
        assert first in (1, 3)
        assert second == 2


def test_drawing_alike_draws_what_drawing_from_copies_would():
    weights = torch.tensor([0.2, 0.0, 0.5, 0.3])
    one = draw_alike(weights, 6, 7, generator=keyed_generator(4))
    copies = draw_categorical(weights.expand(6, 7, -1), generator=keyed_generator(4))
    assert torch.equal(one, copies)


def test_a_draw_in_parts_is_the_draw_in_one(monkeypatch):
    weights = torch.rand(50, 7, generator=keyed_generator("weights"))
    whole = draw_categorical(weights, generator=keyed_generator("draw"))
    monkeypatch.setattr(randomness, "NUMBERS_AT_ONCE", 20)
    assert torch.equal(draw_categorical(weights, generator=keyed_generator("draw")), whole)
    assert draw_categorical(weights.view(5, 10, 7), generator=keyed_generator("draw")).equal(whole.view(5, 10))
