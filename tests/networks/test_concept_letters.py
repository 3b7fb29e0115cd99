"""Tokens by their letters and by how rare they are."""

from pathlib import Path

import pytest
import torch
from concept_networks import LENGTH, all_real
from torch.nn import functional

from remask.checkpoints import network_tensors, put_weights
from remask.config.build.concepts import build_concept_network, build_letters
from remask.config.schema import ConceptSpec, LettersSpec
from remask.networks.concepts.letters import LOUD, Letters, Rarity, UnitTogether
from remask.randomness import keyed_generator
from remask.tokenizers import ByteTokenizer
from remask.tokenizers.letters import hashed_grams, letter_grams

WORDS = ("walk", "walked", "stones", " Walk", "", "  ")


def grams(texts, *, buckets=512):
    return torch.from_numpy(hashed_grams(texts, buckets=buckets, least=2, most=4))


def letters(*, width=64, buckets=512):
    built = Letters(grams(WORDS, buckets=buckets), width=width, buckets=buckets)
    torch.nn.init.normal_(built.table.weight, generator=keyed_generator(1))
    return built


def network(**section):
    small = {"width": 16, "heads": 4, "layers": 1, "concepts": 3, "local_width": 1, "decoder": "none"}
    return build_concept_network(ConceptSpec(**(small | section)), ByteTokenizer(), length=LENGTH, seed=1).eval()


# ── letters ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_n_grams_of_a_word_are_those_of_its_letters_between_boundaries():
    assert list(letter_grams("Cat", least=2, most=3)) == [" c", "ca", "at", "t ", " ca", "cat", "at "]
    assert list(letter_grams(" cat", least=5, most=6)) == [" cat ", " cat "]
    assert list(letter_grams(" \n", least=2, most=3)) == []


def test_a_token_is_the_sum_of_the_vectors_of_its_n_grams_and_one_without_letters_nothing():
    built = letters()
    sums = built(torch.arange(len(WORDS)))
    for token, word in enumerate(WORDS):
        (row,) = grams([word])
        by_hand = built.table.weight[row[row < 512]].sum(0)
        torch.testing.assert_close(sums[token], by_hand, atol=1e-5, rtol=1e-5)
    assert not sums[4:].any()
    torch.testing.assert_close(sums[0], sums[3])


def test_words_that_share_letters_are_close_and_others_are_not():
    near = functional.cosine_similarity(*(letters(width=512)(torch.tensor(ids)) for ids in ([0, 0], [1, 2])), dim=-1)
    assert near[0] > 0.4
    assert near[1].abs() < 0.25


def test_gradients_reach_the_n_grams_that_were_read_and_no_others():
    built = letters()
    built(torch.tensor([[0, 0], [0, 4]])).sum().backward()
    (row,) = grams(["walk"])
    touched = built.table.weight.grad.abs().sum(-1).nonzero().flatten().tolist()
    assert touched == sorted(set(row[row < 512].tolist()))


def test_hashes_are_the_same_on_every_machine():
    assert hashed_grams(["cat"], buckets=1000, least=3, most=3).tolist() == [[8, 832, 479]]


def test_letters_are_those_of_the_tokens_of_any_tokenizer():
    built = build_letters(LettersSpec(buckets=64), ByteTokenizer(), width=4)
    lower, upper, blank = (built.grams[ord(c)] for c in "aA ")
    assert torch.equal(lower, upper)
    assert (blank == 64).all()


# ── rarity ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_counts_the_more_the_rarer_it_is():
    rarity = Rarity(3, smoothing=0.1, mask_id=3)
    before = rarity(torch.arange(3))
    torch.testing.assert_close(before, torch.full((3, 1), LOUD))
    rarity.hear(torch.tensor([0, 10, 30]))
    weights = rarity(torch.arange(3)).flatten()
    torch.testing.assert_close(weights / weights[0], torch.tensor([1.0, 0.1 / 0.35, 0.1 / 0.85]))
    usual = 0.25 * weights[1] ** 2 + 0.75 * weights[2] ** 2
    torch.testing.assert_close(usual.sqrt(), torch.tensor(LOUD))


def test_a_mask_counts_as_tokens_do_on_average_and_not_as_the_rarest():
    rarity = Rarity(4, smoothing=0.1, mask_id=3)
    rarity.hear(torch.tensor([0, 10, 30, 0]))
    unseen, *_, mask = rarity(torch.arange(4)).flatten()
    torch.testing.assert_close(mask, torch.tensor(LOUD))
    assert unseen > 2 * mask
    with torch.no_grad():
        rarity.gain[3] = 0.1
    torch.testing.assert_close(rarity(torch.tensor([3])), torch.tensor([[LOUD * torch.e]]))
    assert network(rarity=0.1).rarity.mask_id == ByteTokenizer().mask_id


def test_a_mean_of_tokens_is_weighed_by_their_rarity():
    built = network(encoder="mean", rarity=0.1)
    ids = torch.tensor([[65, 66]])
    built.hear_counts(torch.bincount(torch.tensor([65] * 9 + [66]), minlength=258))
    rows = functional.normalize(built.embedding.weight[[65, 66]], dim=-1)
    by_hand = (0.1 / 1.0) * rows[0] + (0.1 / 0.2) * rows[1]
    vector = built.encode(ids, real=all_real(ids)).vectors[0, 0]
    torch.testing.assert_close(vector, by_hand / by_hand.square().mean().sqrt(), atol=1e-4, rtol=1e-3)


def test_a_concept_that_heard_of_rare_tokens_is_larger_than_one_that_did_not():
    built = network(rarity=1e-3, concepts=2, width=64, heads=8)
    built.hear_counts(torch.bincount(torch.tensor([65] * 99 + [66]), minlength=258))
    ids = torch.tensor([[65] * 8 + [66] * 8])
    last, first = built.encode(ids, real=all_real(ids)).vectors[0].norm(dim=-1)
    assert last > 2 * first
    torch.testing.assert_close(
        UnitTogether()(torch.ones(1, 2, 4), real=all_real(torch.ones(1, 2))), torch.ones(1, 2, 4)
    )


@pytest.mark.parametrize("length", [1, 3, 8])
def test_concepts_of_a_short_text_are_as_large_as_those_of_a_long_one(length):
    built = network(encoder="stretches", rarity=0.1, concepts=8)
    ids = torch.arange(65, 65 + length)[None]
    concepts = built.encode(ids, real=all_real(ids))
    assert concepts.real.sum() == length
    assert float(concepts.vectors[concepts.real].square().mean()) == pytest.approx(1.0, rel=1e-3)
    assert not concepts.vectors[~concepts.real].any()
    nothing = built.encode(ids, real=torch.zeros_like(ids, dtype=torch.bool)).vectors
    assert torch.isfinite(nothing).all()


@pytest.mark.parametrize("encoder", ["perceiver", "recursive", "stretches", "stretch_states", "mean"])
def test_tokens_that_are_not_there_change_nothing_with_letters_and_rarity(encoder):
    built = network(encoder=encoder, rarity=0.01, letters=LettersSpec(buckets=64))
    ids = torch.tensor([[70, 71, 72, 70]])
    real = torch.tensor([[True, True, True, False]])
    vectors = built.encode(ids, real=real).vectors
    torch.testing.assert_close(vectors, built.encode(ids[:, :3], real=real[:, :3]).vectors, atol=1e-5, rtol=1e-5)


def test_a_frozen_encoder_leaves_letters_and_rarity_as_they_were_drawn():
    built = network(freeze_encoder=True, rarity=0.01, letters=LettersSpec(buckets=64), decoder="denoising")
    assert not any(p.requires_grad for name, p in built.named_parameters() if name.startswith(built.READERS))


def test_letters_that_are_not_learned_stay_as_they_were_drawn_and_tokens_are_learned_beside_them():
    built = network(letters=LettersSpec(buckets=64, learned=False))
    assert not built.letters.table.weight.requires_grad
    assert built.embedding.weight.requires_grad
    assert network(letters=LettersSpec(buckets=64)).letters.table.weight.requires_grad


def test_a_saved_network_keeps_what_it_heard_of_the_text_and_finds_its_letters_again():
    one, other = (network(rarity=0.01, letters=LettersSpec(buckets=64)) for _ in range(2))
    one.hear_counts(torch.arange(258))
    assert not any("grams" in name for name in network_tensors(one))
    put_weights(other, network_tensors(one), source=Path("model"))
    ids = torch.tensor([[70, 71, 72]])
    assert torch.equal(*(each.encode(ids, real=all_real(ids)).vectors for each in (one, other)))


def test_another_network_takes_what_was_heard_of_the_text_and_nothing_that_was_learned():
    one, other = network(rarity=0.01), network(rarity=0.01)
    one.hear_counts(torch.arange(258))
    with torch.no_grad():
        one.rarity.gain += 1.0
    other.take_counts(one)
    assert torch.equal(other.rarity.shares, one.rarity.shares)
    assert not other.rarity.gain.any()
