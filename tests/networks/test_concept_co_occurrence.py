"""Tokens by the company that they keep, as a band of concepts."""

import numpy as np
import pytest
import torch
from concept_networks import LENGTH, all_real, make, others, tokens
from scipy import sparse

from remask.networks.concepts.co_occurrence import SHIFT, SMOOTH, CoOccurrence, factored, information
from remask.networks.concepts.stretches import StretchMeans
from remask.networks.normalisation import unit_rms
from remask.randomness import keyed_generator

BANDS = {"encoder": "stretch_states", "co_occurrence": {"window": 2}, "width": 24}


def company(size=8, *, seed=0):
    """Counts of tokens 0 … size − 1: 2k and 2k + 1 keep company, all others little; the last one is never met."""
    draw = np.random.default_rng(seed)
    counts = draw.gamma(0.3, size=(size, size)) * (draw.random((size, size)) < 0.5)
    for word in range(0, size - 1, 2):
        counts[word, word + 1] += draw.gamma(20.0)
    counts = counts + counts.T
    counts[-1] = counts[:, -1] = 0
    return sparse.csr_matrix(counts)


def cosines(vectors):
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit @ unit.T


def told(network, counts=None):
    network.hear_company(company() if counts is None else counts)
    return network


# ── what is factored ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("width", [3, 8])
def test_vectors_are_those_of_a_dense_decomposition_of_positive_pointwise_mutual_information(width):
    counts = company().toarray()
    often = counts.sum(1)
    contexts = often**SMOOTH / (often**SMOOTH).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = np.log(counts / often[:, None] / contexts) - SHIFT
    u, values, _ = np.linalg.svd(np.maximum(np.nan_to_num(nats, nan=0.0, neginf=0.0), 0))
    expected = (u * np.sqrt(values))[:, :width]
    found = factored(information(company()), width=width)
    some = np.linalg.norm(expected, axis=1) > 1e-6
    assert some.sum() >= min(width, 7)
    np.testing.assert_allclose(cosines(found[some]), cosines(expected[some]), atol=1e-4)
    np.testing.assert_allclose(np.square(found).mean(1), some, atol=1e-4)
    assert not some[-1], "a token that keeps no company has no direction"


def test_words_of_the_same_company_are_near_each_other_and_those_of_another_are_not():
    counts = np.zeros((6, 6))
    for word in (0, 1):  # beside 2 alone
        counts[word, 2] = counts[2, word] = 10.0
    for word in (3, 4):  # beside 5 alone
        counts[word, 5] = counts[5, word] = 10.0
    near = cosines(factored(information(sparse.csr_matrix(counts)), width=4))
    assert near[0, 1] > 0.999
    assert near[3, 4] > 0.999
    assert abs(near[0, 3]) < 1e-3


def test_vectors_are_the_same_each_time_and_as_wide_as_asked_where_the_vocabulary_is_smaller():
    one, again = (factored(information(company()), width=20) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert one.shape == (8, 20)
    assert not one[:, 8:].any()


def test_a_text_without_a_pair_leaves_the_vectors_as_they_were_drawn():
    part = CoOccurrence(8, width=4)
    part.begin(keyed_generator(1))
    drawn = part.table.clone()
    for nothing in (np.zeros((8, 8)), np.ones((8, 8))):  # no pair; everybody beside everybody
        part.hear(sparse.csr_matrix(nothing))
        assert torch.equal(part.table, drawn)
    part.hear(company())
    assert not torch.equal(part.table, drawn)


# ── a band of concepts ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_second_third_of_a_concept_is_the_mean_company_of_its_tokens_and_knows_no_context():
    network = told(make(stirred=True, **BANDS))
    source = tokens(2, LENGTH)
    expected, _ = StretchMeans(3)(network.co_occurrence(source), real=all_real(source))
    band = network.encode(source, real=all_real(source)).vectors[..., 8:16]
    torch.testing.assert_close(unit_rms(band), unit_rms(expected), atol=1e-4, rtol=1e-4)
    changed = source.clone()
    changed[:, -1] = others(source)[:, -1]
    other = network.encode(changed, real=all_real(changed)).vectors[..., 8:16]
    torch.testing.assert_close(unit_rms(other[:, :2]), unit_rms(band[:, :2]), atol=1e-5, rtol=1e-5)


def test_states_read_what_tokens_keep_company_with_and_words_do_not():
    network, source = make(stirred=True, **BANDS), tokens(2, LENGTH)
    before = network.encode(source, real=all_real(source)).vectors
    after = told(network).encode(source, real=all_real(source)).vectors
    first, last = (unit_rms(after - before)[..., part] for part in (slice(0, 8), slice(16, 24)))
    words = (unit_rms(each[..., :8]) for each in (after, before))
    torch.testing.assert_close(*words, atol=1e-5, rtol=1e-5)
    assert last.abs().amax(-1).min() > 1e-3
    assert first.isfinite().all()


def test_rarity_weighs_company_too():
    network = told(make(**BANDS, rarity=1e-2, concepts=4))
    network.hear_counts(torch.tensor([1000, 1, 1, 1, 1, 1, 1, 1]))
    source = torch.tensor([[0, 1, 0, 2]])
    sizes = network.encode(source, real=all_real(source)).vectors[0, :, 8:16].norm(dim=-1)
    assert sizes[[1, 3]].min() > 5 * sizes[[0, 2]].max()


def test_company_is_counted_and_not_trained_and_stays_with_the_weights():
    network = told(make(**BANDS))
    source = tokens(1, LENGTH)
    network.encode(source, real=all_real(source)).vectors.sum().backward()
    assert network.co_occurrence.table.grad is None
    other = make(**BANDS, seed=2)
    assert not torch.equal(other.co_occurrence.table, network.co_occurrence.table)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.co_occurrence.table, network.co_occurrence.table)


def test_a_network_that_heard_of_counts_alone_keeps_the_company_it_was_drawn_with():
    network, untrained = told(make(**BANDS, rarity=1e-2)), make(**BANDS, rarity=1e-2, seed=2)
    drawn = untrained.co_occurrence.table.clone()
    untrained.take_counts(network)
    assert torch.equal(untrained.co_occurrence.table, drawn)
    near = unit_rms(drawn) @ unit_rms(drawn).T / drawn.shape[1]
    assert torch.allclose(near.diagonal(), torch.ones(len(drawn)), atol=1e-4)


def test_concepts_have_a_band_more_with_company():
    assert make(**BANDS).bands == 3
    assert make(encoder="stretch_states").bands == 2
