"""Texts to concepts: what is read, from where, and that nothing else is."""

import pytest
import torch
from concept_networks import ENCODERS, all_real, make, others, tokens
from torch.nn import functional

from remask.networks.concepts import Concepts
from remask.networks.concepts.competition import competing, competing_weights, reading_weights
from remask.networks.concepts.encoders import RecursiveEncoder
from remask.networks.concepts.layers import Reading, TwoWay
from remask.networks.concepts.places import reading_turns, texts
from remask.randomness import keyed_generator

each_encoder = pytest.mark.parametrize("encoder", ENCODERS)
TRAINED = [name for name in ENCODERS if name not in ("stretches", "mean", "none")]
SLOTTED = [name for name in TRAINED if name != "tokens"]


def random(*shape, seed=5):
    return torch.randn(shape, generator=keyed_generator(seed))


# ── contract ────────────────────────────────────────────────────────────────────────────────────────────────────────


@each_encoder
def test_a_text_has_a_vector_a_slot_and_a_text_without_a_token_no_real_one(encoder):
    network = make(stirred=True, **ENCODERS[encoder])
    source = tokens(3, 7)
    real = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [0] * 7], dtype=torch.bool)
    concepts = network.encode(source, real=real)
    slots = {"tokens": 7, "mean": 1, "none": 0}.get(encoder, 3)
    assert network.concepts == (None if encoder in ("tokens", "stretches", "stretch_states") else slots)
    assert concepts.vectors.shape == (3, slots, 6 if encoder == "narrow" else 16)
    assert concepts.vectors.isfinite().all()
    counts = [7, 4, 0] if encoder == "tokens" else [slots, slots, 0]
    assert concepts.real.sum(1).tolist() == counts


@each_encoder
def test_tokens_that_are_not_there_change_nothing(encoder):
    """Behind the text or within it: replaced, and behind it also left away."""
    network = make(stirred=True, **ENCODERS[encoder])
    source = tokens(2, 9)
    real = torch.tensor([[1, 1, 0, 1, 1, 1, 0, 0, 0], [1] * 6 + [0] * 3], dtype=torch.bool)
    base = network.encode(source, real=real)
    replaced = network.encode(torch.where(real, source, others(source)), real=real)
    shorter = network.encode(source[:, :6], real=real[:, :6])
    for other in (replaced, shorter):
        there = base.real[:, : other.real.shape[1]]
        assert torch.equal(other.real, there)
        vectors = base.vectors[:, : other.vectors.shape[1]]
        torch.testing.assert_close(other.vectors[there], vectors[there], atol=1e-6, rtol=1e-5)
    if encoder != "none":
        there = network.encode(torch.where(real, others(source), source), real=real)
        assert not torch.allclose(there.vectors[base.real], base.vectors[base.real], atol=1e-3)


@pytest.mark.parametrize("encoder", TRAINED)
def test_the_order_of_tokens_matters_and_to_the_mean_it_does_not(encoder):
    source = tokens(1, 8)
    source[0, :2] = torch.tensor([1, 4])
    swapped = source[:, [1, 0, *range(2, 8)]]
    for name, matters in ((encoder, True), ("mean", False)):
        network = make(stirred=True, **ENCODERS[name])
        one, other = (network.encode(ids, real=all_real(ids)).vectors for ids in (source, swapped))
        assert torch.allclose(one, other, atol=1e-5) is not matters


def test_the_mean_is_the_mean_of_the_tokens_there():
    network = make(encoder="mean")
    source, real = torch.tensor([[1, 2, 3, 0]]), torch.tensor([[True, True, False, False]])
    vector = network.encode(source, real=real).vectors[0, 0]
    rows = functional.normalize(network.embedding.weight[[1, 2]], dim=-1).mean(0)
    torch.testing.assert_close(vector, rows / rows.square().mean().sqrt(), atol=1e-4, rtol=1e-4)


def test_stretches_are_means_of_neighbours_in_order_and_a_short_text_has_a_concept_a_token():
    network = make(encoder="stretches", concepts=3)
    source = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 0, 0, 0]])
    real = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    concepts = network.encode(source, real=real)
    rows = functional.normalize(network.embedding.weight, dim=-1)
    long = torch.stack([rows[[1, 2]].mean(0), rows[[3, 4]].mean(0), rows[5]])
    for k, by_hand in enumerate((long, rows[[1, 2]])):
        vectors = concepts.vectors[k, : len(by_hand)]
        by_hand = by_hand / by_hand.square().mean(-1, keepdim=True).sqrt()
        torch.testing.assert_close(vectors, by_hand, atol=1e-4, rtol=1e-4)
    assert concepts.real.tolist() == [[True] * 3, [True, True, False]]


@each_encoder
def test_vectors_leave_an_encoder_with_a_root_mean_square_of_one(encoder):
    network = make(stirred=True, **ENCODERS[encoder])
    vectors = network.encode(tokens(4, 9), real=torch.ones(4, 9, dtype=torch.bool)).vectors
    torch.testing.assert_close(vectors.square().mean(-1), torch.ones(vectors.shape[:2]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("encoder", TRAINED)
def test_every_weight_of_an_encoder_gets_a_gradient_and_a_frozen_one_none(encoder):
    source = tokens(4, 9)
    network = make(stirred=True, **ENCODERS[encoder])
    (network.encode(source, real=all_real(source)).vectors * random(1, 1, network.latent_width or 16)).sum().backward()
    parts = [*network.encoder.named_parameters(), *network.narrow.named_parameters()]
    assert [name for name, p in parts if p.grad is None or not p.grad.abs().max() > 0] == []
    frozen = make(freeze_encoder=True, **ENCODERS[encoder])
    before = frozen.encode(source, real=all_real(source)).vectors
    with torch.no_grad():
        for parameter in frozen.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    after = frozen.encode(source, real=all_real(source)).vectors
    assert torch.equal(before, after)
    assert not after.requires_grad
    matrices = {id(p) for p in frozen.hidden_matrices()}
    assert matrices.isdisjoint(id(p) for p in frozen.encoder.parameters())


# ── where slots begin to look ───────────────────────────────────────────────────────────────────────────────────────


def looks(network, source, real):
    """The attention of the first layer's first head, slots by tokens, at the start of training."""
    seen = []

    def note(query, key, value, *, attn_mask):
        similarity = (query @ key.mT) * query.shape[-1] ** -0.5
        seen.append(reading_weights(similarity, attn_mask).mean(1))
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask)

    reading = next(module for module in network.encoder.modules() if isinstance(module, Reading))
    reading.mixing = note
    network.encode(source, real=real)
    return seen[0]


@pytest.mark.parametrize("length", [24, 40])
def test_slots_begin_by_looking_at_their_own_stretch_counted_from_the_end(length):
    network = make(width=64, concepts=4, local_width=1, vocab_size=40)
    source = tokens(2, length, vocab_size=40)
    real = all_real(source)
    real[1, length // 2 :] = False
    attention = looks(network, source, real)
    for row, count in ((0, length), (1, length // 2)):
        centre = (attention[row] * torch.arange(length)).sum(-1) / (count - 1)
        assert centre.tolist() == sorted(centre.tolist(), reverse=True)
        assert centre[0] > 0.7
        assert centre[-1] < 0.3
        assert attention[row, :, count:].sum() == 0


def test_one_slot_alone_begins_as_the_mean_of_its_text():
    """It looks at all places about alike, and takes in what stands there as it is."""
    network = make(width=64, concepts=1, local_width=1, vocab_size=40)
    source = tokens(1, 20, vocab_size=40)
    attention = looks(network, source, all_real(source))[0, 0]
    assert attention.max() < 3 * attention.min()
    mean = make(width=64, encoder="mean", vocab_size=40)
    mean.embedding = network.embedding
    one, other = (n.encode(source, real=all_real(source)).vectors[0, 0] for n in (network, mean))
    assert functional.cosine_similarity(one, other, dim=0) > 0.7


def test_a_token_stands_in_the_stretch_that_its_share_of_the_text_says():
    """Whatever the text's length: the rotation in stretches of the first token is that of the last slot."""
    for length in (5, 9):
        segments = torch.tensor([[0, 0] + [1] * length + [2] * 3])
        read = texts(segments, count=2)
        assert read.offset[0, 2 : 2 + length].tolist() == list(range(length))
        assert read.extent.tolist() == [[length - 1, 2]]
        latents, there = reading_turns(read, segments, latents=3, pairs=4)
        assert latents.shape == (1, 6, 4, 2)
        torch.testing.assert_close(latents[0, 2], there[0, 2])
        torch.testing.assert_close(latents[0, 0], there[0, 1 + length])
        torch.testing.assert_close(latents[0, 3], there[0, -1])
        middle = there[0, 2 + length // 2]
        torch.testing.assert_close(latents[0, 1], middle)


# ── competition ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_competing_slots_share_each_token_out_and_readers_do_not():
    """Slot Attention's equations by hand: over slots each token's share is 1, over tokens each slot's weights are."""
    similarity = 3 * random(2, 1, 3, 5)
    mask = torch.ones(2, 1, 3, 5, dtype=torch.bool)
    mask[1, :, :, 3:] = False
    weights = competing_weights(similarity, mask)
    shares = similarity.exp() / similarity.exp().sum(2, keepdim=True)
    torch.testing.assert_close(shares.sum(2), torch.ones(2, 1, 5))
    there = shares * mask
    torch.testing.assert_close(weights, there / there.sum(-1, keepdim=True))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, 3))
    assert weights[1, ..., 3:].abs().max() == 0
    assert not torch.allclose(reading_weights(similarity, mask), weights, atol=1e-2)


def test_a_slot_that_wins_no_token_reads_nothing():
    query = torch.tensor([[[[40.0, 0.0], [-40.0, 0.0]]]])
    key = torch.tensor([[[[40.0, 0.0], [40.0, 0.0]]]])
    value = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    read = competing(query, key, value, attn_mask=torch.ones(1, 1, 2, 2, dtype=torch.bool))
    torch.testing.assert_close(read[0, 0], torch.tensor([[2.0, 3.0], [0.0, 0.0]]))


# ── layers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_similarity_serves_both_ways():
    """BiXT's equations by hand, one head, without places."""
    width, latents, read = 4, random(1, 2, 4), random(1, 3, 4, seed=6)
    layer = TwoWay(width, 1, weights=reading_weights)
    still = torch.tensor([1.0, 0.0]).expand(1, 3, 2, 2)
    mask = torch.ones(1, 1, 2, 3, dtype=torch.bool)
    with torch.no_grad():
        learned, told = layer(latents, read, mask=mask, turn=still[:, :2], token_turn=still)
        q, latent_value = (latents[0] @ layer.latent.weight.T).split(width, -1)
        k, token_value = (read[0] @ layer.token.weight.T).split(width, -1)
        unit = [x / x.square().mean(-1, keepdim=True).sqrt() for x in (q, k)]
        similarity = unit[0] @ unit[1].T / width**0.5
        there = similarity.softmax(1) @ token_value @ layer.latent_out.weight.T
        back = similarity.T.softmax(1) @ latent_value @ layer.token_out.weight.T
    torch.testing.assert_close(learned[0], there, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(told[0], back, atol=1e-4, rtol=1e-4)


def test_two_way_layers_tell_tokens_what_others_say_and_plain_readers_leave_them():
    source = tokens(1, 6)
    real = all_real(source)
    for encoder, changed in (("two_way", True), ("perceiver", False)):
        network = make(stirred=True, **ENCODERS[encoder])
        before = network.embedding(source)
        still, token_still = reading_turns(texts(real.long(), count=1), real.long(), latents=3, pairs=4)
        layer = network.encoder.layers[0]
        _, after = layer(
            network.encoder.latents[None], before, mask=real[:, None, None], turn=still, token_turn=token_still
        )
        assert torch.equal(before, after) is not changed


def test_a_recursive_encoder_has_one_layer_and_any_depth():
    """Its weights are those of one layer; more passes give other concepts, and as many as were trained the same."""
    network = make(stirred=True, **ENCODERS["recursive"])
    assert isinstance(network.encoder, RecursiveEncoder)
    assert len(list(network.encoder.layers)) == 1
    source = tokens(1, 6)
    found = {}
    for depth in (3, 1, 5, 3):
        network.encoder.depth = depth
        vectors = network.encode(source, real=all_real(source)).vectors
        assert depth not in found or torch.equal(found[depth], vectors)
        found[depth] = vectors
    assert not torch.allclose(found[1], found[3], atol=1e-3)
    assert not torch.allclose(found[5], found[3], atol=1e-3)


def test_the_depth_of_a_training_step_is_a_function_of_the_step_and_evaluation_uses_all():
    network = make(encoder="recursive", layers=4, min_depth=2)
    encoder = network.encoder
    assert isinstance(encoder, RecursiveEncoder)
    drawn = []
    for step in [*range(1, 41), *range(1, 41)]:
        network.begin_step(step)
        drawn.append(len(list(encoder.train().passes())))
        assert len(list(encoder.eval().passes())) == 4
    assert drawn[:40] == drawn[40:]
    assert set(drawn) == {2, 3, 4}
    fixed = make(encoder="recursive", layers=4)
    fixed.begin_step(3)
    assert len(list(fixed.encoder.train().passes())) == 4


# ── concepts ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nested_concepts_are_the_first_ones_and_contain_each_other():
    real = torch.tensor([[True, True, True, False], [True] * 4])
    concepts = Concepts(vectors=random(2, 4, 3), real=real)
    for fewer, more in ((0, 1), (1, 3), (3, 4), (4, 9)):
        some, others_too = (concepts.keep(torch.full((2,), kept)).real for kept in (fewer, more))
        assert (some <= others_too).all()
        assert some.sum(1).tolist() == [min(fewer, 3), min(fewer, 4)]
    assert concepts.keep(torch.tensor([1, 2])).real.tolist() == [
        [True, False, False, False],
        [True, True, False, False],
    ]
    assert concepts.keep(torch.tensor([1, 2])).vectors is concepts.vectors


def test_concepts_of_other_rows_and_without_a_slot():
    real = torch.tensor([[True, False], [True, True]])
    concepts = Concepts(vectors=random(2, 2, 3), real=real)
    swapped = concepts.shuffled(torch.tensor([1, 0, 0]))
    assert len(swapped) == 3
    assert torch.equal(swapped.vectors, concepts.vectors[[1, 0, 0]])
    assert torch.equal(swapped.real, real[[1, 0, 0]])
    assert concepts.without(0).real.tolist() == [[False, False], [False, True]]
