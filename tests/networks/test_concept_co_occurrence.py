"""Tokens by the company that they keep, as a band of concepts."""

import pytest
import torch
from concept_networks import LENGTH, all_real, make, others, tokens

from remask.networks.concepts.stretches import StretchMeans
from remask.networks.normalisation import unit_rms
from remask.randomness import keyed_generator

BANDS = {"encoder": "stretch_states", "co_occurrence": {"window": 2}, "width": 24}


def vectors(size=8, width=8, *, seed=0):
    """Of root mean square 1, but for the last token's, which keeps no company."""
    drawn = unit_rms(torch.randn(size, width, generator=keyed_generator(seed)))
    drawn[-1] = 0.0
    return drawn


def told(network):
    network.hear_company(vectors())
    return network


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


def test_every_band_of_a_token_has_root_mean_square_one_and_company_stands_in_the_second():
    network, source = told(make(**BANDS)), tokens(1, LENGTH)
    bands = network.read(source).unflatten(-1, (3, 8))
    torch.testing.assert_close(bands.square().mean(-1), torch.ones(1, LENGTH, 3), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bands[..., 1, :], vectors()[source])


def test_a_concept_holds_company_as_large_as_its_mean_is_and_states_as_large_as_its_words():
    network = told(make(stirred=True, **BANDS))
    source = tokens(2, LENGTH)
    means, _ = StretchMeans(3)(network.read(source), real=all_real(source))
    vectors_, _ = network.encoder(network.read(source), real=all_real(source))
    torch.testing.assert_close(vectors_[..., :16], means[..., :16])
    torch.testing.assert_close(vectors_[..., 16:].norm(dim=-1), means[..., :8].norm(dim=-1), atol=1e-4, rtol=1e-4)


def test_a_token_without_company_stays_like_itself_alone():
    network = make(**BANDS)
    drawn = network.co_occurrence.table[-1].clone()
    assert torch.equal(told(network).co_occurrence.table[-1], drawn)
    assert drawn.square().mean() == pytest.approx(1.0, abs=1e-4)


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


@pytest.mark.parametrize("band", [slice(0, 8), slice(16, 24)], ids=["words", "states"])
def test_words_and_states_beside_company_learn_from_their_own_bands(band):
    network, source = told(make(**BANDS)), tokens(1, LENGTH)
    draw = torch.randn(3, 8, generator=keyed_generator(1))
    (network.encode(source, real=all_real(source)).vectors[0, :, band] * draw).sum().backward()
    gradient = network.embedding.weight.grad
    assert gradient[source.unique(), band].abs().amax(-1).min() > 1e-3


def test_states_beside_company_teach_the_transformer_below_them():
    network, source = told(make(**BANDS)), tokens(1, LENGTH)
    draw = torch.randn(3, 8, generator=keyed_generator(1))
    (network.encode(source, real=all_real(source)).vectors[0, :, 16:] * draw).sum().backward()
    matrices = [weight for weight in network.encoder.blocks.parameters() if weight.ndim > 1]
    assert min(float(weight.grad.abs().max()) for weight in matrices) > 1e-4


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
    assert (make(**BANDS).bands, make(**BANDS).counted_band) == (3, 1)
    assert (make(encoder="stretch_states").bands, make(encoder="stretch_states").counted_band) == (2, None)
    assert make(**BANDS, latent_width=6).counted_band is None
