"""Held-out likelihood: ratios of sums, their errors and units, and that evaluation is deterministic."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from doubles import Constant, Table, full_batch, make_process
from remask.data.batch import Batch
from remask.evaluation.likelihood import (
    RowSums,
    ends_nats,
    likelihood_measurements,
    ratio,
    row_likelihoods,
    spread_indices,
)
from remask.objectives import LikelihoodBound, NextToken, masking_integrand
from remask.processes import Masking
from remask.randomness import keyed_generator
from remask.schedules import Linear
from tiny import BOUND, NEXT_TOKEN, cut, pattern_rows, tiny_network


@dataclass
class Judged:
    network: torch.nn.Module
    objective: object
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


class Wrapped(torch.nn.Module):
    """A double as a module, since evaluation switches a network between modes."""

    def __init__(self, double) -> None:
        super().__init__()
        self.double = double
        self.modes = []

    def forward(self, z, t, *, segments, positions):
        self.modes.append(self.training)
        return self.double(z, t, segments=segments, positions=positions)


PROCESS = make_process("masking", "linear")
BOUND_4 = LikelihoodBound(process=PROCESS, integrand=masking_integrand, t_min=1e-3)


def sums(nats, tokens, size) -> RowSums:
    return RowSums(
        nats=np.array(nats, dtype=float),
        tokens=np.array(tokens, dtype=float),
        bytes=np.array(size, dtype=float),
        terms={},
    )


def test_a_ratio_of_sums_is_not_a_mean_of_ratios():
    value, _ = ratio(np.array([10.0, 1.0]), np.array([10.0, 2.0]))
    assert value == pytest.approx(11 / 12)


def test_the_standard_error_is_cochrans_by_hand():
    """Rows (3, 2), (5, 4), (4, 3): r = 12/9; residuals 1/3, −1/3, 0; se = √(3/2 · 2/9) / 9."""
    _, error = ratio(np.array([3.0, 5.0, 4.0]), np.array([2.0, 4.0, 3.0]))
    assert error == pytest.approx(math.sqrt(3 / 2 * 2 / 9) / 9)


def test_the_standard_error_is_that_of_repeated_samples():
    draw = np.random.default_rng(1)
    estimates, errors = [], []
    for _ in range(400):
        tokens = draw.integers(5, 20, 60).astype(float)
        value, error = ratio(tokens * draw.normal(2.0, 0.5, 60), tokens)
        estimates.append(value)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.15)


def test_one_row_has_no_standard_error():
    assert ratio(np.array([3.0]), np.array([2.0])) == (1.5, None)
    figures = likelihood_measurements(sums([3], [2], [5]), trivial_nats={}, protocol={})
    assert [m.stderr for m in figures] == [None, None, None]


def test_three_units_say_the_same():
    figures = {
        m.name: m
        for m in likelihood_measurements(
            sums([30, 50], [10, 20], [20, 70]), trivial_nats={"uniform": 120.0}, protocol={"draws": 8}
        )
    }
    nats, bits, perplexity = (figures[name] for name in ("nats_per_token", "bits_per_byte", "perplexity"))
    assert nats.value == pytest.approx(80 / 30)
    assert bits.value == pytest.approx(80 / math.log(2) / 90)
    assert perplexity.value == pytest.approx(math.exp(80 / 30))
    assert perplexity.stderr == pytest.approx(perplexity.value * nats.stderr)
    assert bits.trivial["uniform"] == pytest.approx(120 / math.log(2) / 90)
    assert nats.trivial["uniform"] == pytest.approx(4.0)
    assert perplexity.trivial["uniform"] == pytest.approx(math.exp(4))
    assert [m.unit for m in figures.values()] == ["nats/token", "bits/byte", "per token"]
    assert all(m.n == 2 and m.protocol == {"draws": 8} for m in figures.values())


def test_a_hopeless_model_has_an_infinite_perplexity_and_no_traceback():
    figures = likelihood_measurements(
        sums([1e6, 2e6], [10, 20], [20, 70]), trivial_nats={"unigram": math.inf}, protocol={}
    )
    assert figures[2].value == math.inf
    assert figures[2].to_json()["value"] is None
    assert figures[0].value == pytest.approx(1e5)


def judged_batches() -> list[Batch]:
    return cut(pattern_rows(6, seed=3), 4, padding=2)


@pytest.mark.parametrize("objective", [BOUND, NEXT_TOKEN], ids=["bound", "next_token"])
def test_evaluation_is_deterministic_and_leaves_the_mode_as_it_was(objective):
    network = tiny_network(dropout=0.5, causal=objective is NEXT_TOKEN)
    results = []
    for training in (True, False):
        network.train(training)
        results.append(row_likelihoods(Judged(network, objective), judged_batches(), draws=2, seed=1))
        assert network.training is training
    np.testing.assert_array_equal(results[0].nats, results[1].nats)
    assert results[0].tokens.tolist() == [12] * 6
    assert results[0].bytes.tolist() == [12] * 6
    other = row_likelihoods(Judged(network, objective), judged_batches(), draws=2, seed=2)
    assert (other.nats == results[0].nats).all() == (objective is NEXT_TOKEN)


def test_rows_that_are_seen_a_few_at_a_time_have_the_same_noise_and_nats():
    judged = Judged(tiny_network(), BOUND)
    together = row_likelihoods(judged, judged_batches(), draws=2, seed=1)
    for at_once in (1, 3):
        apart = row_likelihoods(judged, judged_batches(), draws=2, seed=1, at_once=at_once)
        np.testing.assert_allclose(apart.nats, together.nats, rtol=1e-5)
        assert apart.tokens.tolist() == together.tokens.tolist()


def test_terms_add_up_to_the_nats():
    result = row_likelihoods(Judged(tiny_network(), BOUND), judged_batches(), draws=3, seed=1)
    assert set(result.terms) == {"diffusion", "reconstruction", "prior"}
    assert sum(result.terms.values()) == pytest.approx(result.nats.sum())


def test_a_constant_predictor_gets_log_v_on_average():
    """One row's draws vary; the mean over many rows is log 3 within its own standard error."""
    rows = full_batch(torch.tensor([0, 2, 3])[torch.randint(3, (400, 10), generator=keyed_generator(1))])
    result = row_likelihoods(Judged(Wrapped(Constant(PROCESS)), BOUND_4), [rows], draws=8, seed=1)
    value, error = ratio(result.nats, result.tokens)
    assert error is not None
    assert value == pytest.approx(math.log(3), abs=4.5 * error)
    assert error < 0.05
    exact = row_likelihoods(Judged(Wrapped(Constant(PROCESS)), NextToken(mask_id=1)), [rows], draws=1, seed=1)
    np.testing.assert_allclose(exact.nats / exact.tokens, math.log(3))


@dataclass(frozen=True)
class ReadsEnds:
    """The best denoiser of uniform tokens 0, 2, 3 in documents that end (4) with probability p: it reads segments."""

    p: float

    def __call__(self, z, t, *, segments, positions):
        logits = torch.full((*z.shape, 5), -1e4)
        inside = torch.tensor([0.0, -1e4, 0.0, 0.0, -1e4])
        logits[:, :-1] = torch.where((segments[:, 1:] != segments[:, :-1])[..., None], torch.eye(5)[4] * 1e4, inside)
        share = math.log((1 - self.p) / 3)
        logits[:, -1] = torch.tensor([share, -1e4, share, share, math.log(self.p)])
        return logits[positions]


def test_a_bound_pays_for_the_document_ends_that_a_denoiser_is_shown():
    p, size = 0.2, (600, 16)
    g = keyed_generator(1, "documents")
    ends = torch.rand(size, generator=g) < p
    ids = torch.where(ends, 4, torch.tensor([0, 2, 3])[torch.randint(3, size, generator=g)])
    segments = 1 + torch.nn.functional.pad(ends[:, :-1], (1, 0)).long().cumsum(1)
    rows = replace(full_batch(ids), segments=segments)
    process = Masking(schedule=Linear(), vocab_size=5, mask_id=1)
    objective = LikelihoodBound(process=process, integrand=masking_integrand, t_min=1e-3)
    entropy = -p * math.log(p) - (1 - p) * math.log((1 - p) / 3)
    judged = Judged(Wrapped(ReadsEnds(p)), objective)
    shown, paid = (row_likelihoods(judged, [rows], draws=8, seed=1, end_share=share) for share in (None, p))
    below, _ = ratio(shown.nats, shown.tokens)
    value, error = ratio(paid.nats, paid.tokens)
    assert error is not None
    assert below < entropy - 10 * error, "the network is shown less than this test is about"
    assert value == pytest.approx(entropy, abs=4 * error)
    assert paid.terms["ends"] == pytest.approx(float(ends_nats(rows, end_share=p).sum()))


def test_an_exact_likelihood_pays_for_no_ends_and_padding_is_none():
    batch = judged_batches()[0]
    network = tiny_network(causal=True)
    one, other = (
        row_likelihoods(Judged(network, NEXT_TOKEN), [batch], draws=1, seed=1, end_share=p) for p in (None, 0.1)
    )
    np.testing.assert_array_equal(one.nats, other.nats)
    nats = ends_nats(batch, end_share=0.1)
    assert nats[0].tolist() == pytest.approx([-math.log(0.9)] * 11 + [-math.log(0.1), 0.0, 0.0])


def test_more_draws_give_less_spread_and_the_same_mean():
    network = Wrapped(Table(PROCESS, 4, seed=1))
    rows = full_batch([[0, 2, 3, 2]] * 500)
    few, many = (row_likelihoods(Judged(network, BOUND_4), [rows], draws=d, seed=1) for d in (1, 16))
    assert many.nats.std() < few.nats.std() / 3
    spread = few.nats.std() / 500**0.5
    assert many.nats.mean() == pytest.approx(few.nats.mean(), abs=5 * spread)
    assert not any(network.modes), "judged with dropout on"


@pytest.mark.parametrize(
    ("total", "limit", "expected"),
    [(5, None, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (10, 5, [0, 2, 4, 6, 8]), (7, 3, [0, 2, 4]), (0, 3, [])],
)
def test_judged_rows_are_spread_over_the_split(total, limit, expected):
    assert spread_indices(total, limit).tolist() == expected


def test_examples_are_the_parts_of_the_ratio_and_stay_out_of_the_record():
    figures = likelihood_measurements(
        sums([30, 50], [10, 20], [20, 70]), trivial_nats={}, protocol={}, identity="these rows"
    )
    for figure in figures[:2]:
        assert figure.examples.identity == "these rows"
        assert sum(figure.examples.values) / sum(figure.examples.weights) == pytest.approx(figure.value)
        assert "examples" not in figure.to_json()
    assert figures[0].examples.to_json() == {"identity": "these rows", "values": [30, 50], "weights": [10, 20]}
    assert figures[2].examples is None, "a perplexity is no ratio of sums"
    assert likelihood_measurements(sums([1], [1], [1]), trivial_nats={}, protocol={})[0].examples is None


def test_the_error_of_rows_that_depend_is_over_their_documents():
    """Copies of a row add nothing to what is known: the error is that of the documents alone."""
    draw = np.random.default_rng(1)
    tokens = draw.integers(5, 20, 12).astype(np.float64)
    nats = tokens * draw.normal(2.0, 0.5, 12)
    alone = ratio(nats, tokens)
    copied = ratio(np.repeat(nats, 4), np.repeat(tokens, 4), documents=np.repeat(np.arange(12), 4))
    assert copied == pytest.approx(alone)
    taken_for_independent = ratio(np.repeat(nats, 4), np.repeat(tokens, 4))
    assert taken_for_independent[1] < 0.6 * alone[1]
    assert ratio(nats, tokens, documents=np.zeros(12, dtype=np.int64)) == alone
