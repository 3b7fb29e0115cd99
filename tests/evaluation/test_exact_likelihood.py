"""The exact likelihood of held-out rows: the sampler's own figure, its ends, padding, documents, and its columns."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from doubles import Constant, Table, full_batch, make_process
from exact import all_sequences
from remask import orders
from remask.data.batch import Batch
from remask.evaluation.exact import exact_measurements, row_exact_likelihoods, sampler_in_words
from remask.evaluation.likelihood import RowSums, ends_nats
from remask.objectives.bijective import Revealed, all_steps
from remask.orders import FixedOrder, Order, SureFirst
from remask.samplers import Bijection, subset_nats
from tiny import LENGTH, MASK, PROCESS, cut, pattern_rows, tiny_network

TOYS = make_process("masking", "linear")
SPREAD, SUREST = FixedOrder(orders.spread), SureFirst(orders.top_gap)
FORWARDS = FixedOrder(orders.left_to_right)
SHUFFLED = FixedOrder(orders.random_permutation(2))


@dataclass
class Judged:
    network: torch.nn.Module
    objective: object = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Wrapped(torch.nn.Module):
    """A double as a module, since evaluation switches a network between modes."""

    def __init__(self, double) -> None:
        super().__init__()
        self.double = double

    def forward(self, z, t, *, segments, positions):
        return self.double(z, t, segments=segments, positions=positions)


def revealed(order: Order, *, steps: int) -> Callable:
    return lambda rows, ids, free: Bijection(model=rows, order=order, steps=steps).nats(ids, free).sum(-1)


def nats_of(network: torch.nn.Module, batches: list[Batch], order: Order = SPREAD, *, steps: int = 3, **others):
    process = PROCESS if not isinstance(network, Wrapped) else TOYS
    sums, _ = row_exact_likelihoods(
        Judged(network), batches, process=process, nats=revealed(order, steps=steps), **others
    )
    return sums.nats


def stirred(**network) -> torch.nn.Module:
    """A network whose answers depend on what it reads."""
    built = tiny_network(**network)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return built


def test_probabilities_of_all_rows_sum_to_one_and_calls_are_counted():
    rows = full_batch(all_sequences([0, 2, 3], 3))
    for order, steps in ((SPREAD, 2), (SUREST, 3)):
        model = Judged(Wrapped(Table(TOYS, 3, seed=1)))
        sums, calls = row_exact_likelihoods(model, [rows], process=TOYS, nats=revealed(order, steps=steps))
        assert np.exp(-sums.nats).sum() == pytest.approx(1, abs=1e-10)
        assert calls == steps
    sums, calls = row_exact_likelihoods(model, [rows], process=TOYS, nats=subset_nats)
    assert np.exp(-sums.nats).sum() == pytest.approx(1, abs=1e-10)
    assert calls == 2**3 - 1


def test_a_constant_predictor_gets_log_v_exactly():
    rows = full_batch(torch.tensor([0, 2, 3])[torch.randint(3, (8, 10), generator=torch.Generator().manual_seed(1))])
    nats = nats_of(Wrapped(Constant(TOYS)), [rows])
    np.testing.assert_allclose(nats, 10 * math.log(3), rtol=1e-15)


def test_evaluation_runs_without_dropout_and_leaves_the_mode_as_it_was():
    network, batches = stirred(dropout=0.5), cut(pattern_rows(4, seed=3), 4)
    found = []
    for training in (True, False):
        network.train(training)
        found.append(nats_of(network, batches))
        assert network.training is training
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("order", [SPREAD, SHUFFLED, FORWARDS, SUREST])
def test_padding_and_the_rows_beside_it_do_not_change_a_row(order):
    network, rows = stirred().double(), pattern_rows(4, seed=3)
    alone = nats_of(network, cut(rows, 4), order)
    np.testing.assert_allclose(nats_of(network, cut(rows, 4, padding=9), order), alone, atol=1e-10)
    np.testing.assert_allclose(nats_of(network, cut(rows, 1), order), alone, atol=1e-10)


def packed(first: torch.Tensor, second: torch.Tensor) -> Batch:
    """Two documents in each row."""
    batch = full_batch(torch.cat([first, second], 1))
    segments = torch.ones_like(batch.ids)
    segments[:, first.shape[1] :] = 2
    return replace(batch, segments=segments)


def test_documents_of_a_packed_row_cost_what_they_cost_alone_one_token_a_round():
    network = stirred().double()
    first, second = pattern_rows(3, seed=4)[:, :5], pattern_rows(3, seed=5)[:, :7]
    together = nats_of(network, [packed(first, second)], FORWARDS, steps=LENGTH)
    apart = sum(nats_of(network, [full_batch(part)], FORWARDS, steps=LENGTH) for part in (first, second))
    np.testing.assert_allclose(together, apart, atol=1e-10)


@pytest.mark.parametrize("order", [SPREAD, SHUFFLED, FORWARDS])
def test_another_document_in_the_row_changes_nothing_under_a_fixed_order(order):
    network = stirred().double()
    first, second = pattern_rows(3, seed=4)[:, :6], pattern_rows(3, seed=5)[:, :6]

    def nats(rows, ids, free):
        return Bijection(model=rows, order=order, steps=3).nats(ids, free)[:, :6].sum(-1)

    found = [
        row_exact_likelihoods(Judged(network), [packed(first, other)], process=PROCESS, nats=nats)[0].nats
        for other in (second, 5 - second)
    ]
    np.testing.assert_allclose(*found, atol=1e-10)


def test_rows_that_are_seen_one_at_a_time_have_the_same_probability():
    seen = []

    def nats(rows, ids, free):
        seen.append(len(ids))
        return revealed(SPREAD, steps=2)(rows, ids, free)

    model, batches = Judged(Wrapped(Table(TOYS, 3, seed=1))), [full_batch(all_sequences([0, 2, 3], 3))]
    together, apart = (
        row_exact_likelihoods(model, batches, process=TOYS, nats=nats, at_once=most)[0].nats for most in (32, 1)
    )
    assert seen == [27] + [1] * 27
    np.testing.assert_allclose(apart, together, atol=1e-12)


def test_what_is_no_target_is_given_and_free_of_charge():
    batch = full_batch(pattern_rows(4, seed=3))
    half = replace(batch, targets=(torch.arange(LENGTH) >= 6).expand(4, LENGTH))
    sums, _ = row_exact_likelihoods(
        Judged(Wrapped(Constant(PROCESS))), [half], process=PROCESS, nats=revealed(SPREAD, steps=2)
    )
    np.testing.assert_allclose(sums.nats, 6 * math.log(6), rtol=1e-15)
    assert sums.tokens.tolist() == sums.bytes.tolist() == [6] * 4


def test_the_ends_that_segments_show_are_paid_for_as_in_the_bound():
    batch = packed(pattern_rows(3, seed=4)[:, :5], pattern_rows(3, seed=5)[:, :7])
    network = stirred()
    model = Judged(network)
    without, _ = row_exact_likelihoods(model, [batch], process=PROCESS, nats=revealed(SPREAD, steps=3))
    sums, _ = row_exact_likelihoods(model, [batch], process=PROCESS, nats=revealed(SPREAD, steps=3), end_share=0.1)
    ends = ends_nats(batch, end_share=0.1).sum(-1).double().numpy()
    np.testing.assert_allclose(sums.nats - without.nats, ends, rtol=1e-6)
    assert sums.terms == pytest.approx({"sampler": without.nats.sum(), "ends": ends.sum()})


def test_float32_networks_are_within_rounding_of_float64():
    network, batches = stirred(), cut(pattern_rows(6, seed=3), 6)
    wide = nats_of(stirred().double(), batches)
    np.testing.assert_allclose(nats_of(network, batches), wide, rtol=1e-5)


def test_figures_have_names_of_their_own_and_a_sentence_that_names_the_sampler():
    sums = RowSums(nats=np.array([30.0, 50.0]), tokens=np.array([10.0, 20.0]), bytes=np.array([20.0, 70.0]), terms={})
    how = {"sampler": "bijective", "reveal": "spread", "steps": 8, "network_calls": 16, "block_length": 4}
    figures = exact_measurements(sums, trivial_nats={"uniform": 120.0}, protocol=how, identity="rows")
    assert [figure.name for figure in figures] == ["exact_nats_per_token", "exact_bits_per_byte", "exact_perplexity"]
    assert figures[0].value == pytest.approx(80 / 30)
    assert figures[0].trivial == {"uniform": 4.0}
    assert figures[0].examples is not None
    (sentence,) = sampler_in_words(figures)
    assert "reveal spread, 8 steps in blocks of 4 (16 network calls)" in sentence
    assert sampler_in_words([replace(figures[0], name="nats_per_token")]) == []


@pytest.mark.parametrize("order", [SPREAD, SUREST])
@pytest.mark.parametrize("steps", [3, LENGTH])
def test_what_training_may_minimise_is_what_is_measured(order, steps):
    """The objective's sum over all rounds is this figure."""
    network, (batch,) = stirred(), cut(pattern_rows(6, seed=3), 6, padding=2)
    sampler = Revealed(process=PROCESS, order=order, steps=steps)
    trained = all_steps(sampler, network, batch, generator=torch.Generator())
    np.testing.assert_allclose(
        trained.sum(-1).detach().double().numpy(), nats_of(network, [batch], order, steps=steps), rtol=1e-5
    )


def test_the_mask_never_has_probability():
    network = stirred()
    rows = full_batch(torch.full((1, 4), MASK))
    assert nats_of(network, [rows])[0] == math.inf
