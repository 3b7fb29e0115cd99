"""Concepts that are stretches of a text: where each begins, what it holds, and what is read off it."""

import pytest
import torch
from concept_networks import LENGTH, MASK, all_real, make, others, run, tokens

from remask.networks.concepts.stretches import StretchDecoder, StretchMeans, stretch_of
from remask.networks.normalisation import unit_rms

BOTH = {"encoder": "stretch_states", "decoder": "stretch"}


def encoded(network, source, real=None):
    return network.encode(source, real=all_real(source) if real is None else real)


# ── which stretch ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_stretches_are_runs_in_order_as_equal_as_can_be_and_a_token_each_in_a_short_text():
    for most in range(1, 9):
        for size in range(1, 30):
            stretch = stretch_of(torch.arange(size), torch.tensor(size), most=most)
            counts = stretch.bincount()
            assert len(counts) == min(most, size)
            assert set(stretch.diff().tolist()) <= {0, 1}
            assert int(counts.max() - counts.min()) <= 1


# ── what a concept holds ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_half_of_a_concept_is_the_mean_of_its_words_and_knows_no_context():
    network = make(stirred=True, **BOTH)
    source = tokens(2, LENGTH)
    words, _ = StretchMeans(3)(network.read(source)[..., :8], real=all_real(source))
    half = encoded(network, source).vectors[..., :8]
    torch.testing.assert_close(unit_rms(half), unit_rms(words), atol=1e-4, rtol=1e-4)
    changed = source.clone()
    changed[:, -1] = others(source)[:, -1]
    other = encoded(network, changed).vectors[..., :8]
    torch.testing.assert_close(other[:, :2], half[:, :2])
    assert not torch.allclose(other[:, 2], half[:, 2], atol=1e-3)


def test_the_second_half_knows_the_whole_text_and_is_as_large_as_the_first():
    network = make(stirred=True, **BOTH)
    source = tokens(2, LENGTH)
    words, states = encoded(network, source).vectors.chunk(2, -1)
    torch.testing.assert_close(states.norm(dim=-1), words.norm(dim=-1), atol=1e-4, rtol=1e-4)
    for place in (0, LENGTH - 1):
        changed = source.clone()
        changed[:, place] = others(source)[:, place]
        other = encoded(network, changed).vectors[..., 8:]
        assert (other - states).abs().amax(-1).min() > 1e-4


def test_rarity_weighs_both_halves():
    network = make(**BOTH, rarity=1e-2, concepts=4)
    network.hear_counts(torch.tensor([1000, 1, 1, 1, 1, 1, 1, 1]))
    sizes = encoded(network, torch.tensor([[0, 1, 0, 2]])).vectors.unflatten(-1, (2, 8)).norm(dim=-1)[0]
    assert sizes[[1, 3]].min() > 5 * sizes[[0, 2]].max()


def test_a_concept_has_two_bands_and_one_that_was_narrowed_or_is_a_plain_mean_has_one():
    assert make(**BOTH).bands == 2
    assert make(encoder="stretch_states", latent_width=6).bands == 1
    assert make(encoder="stretches").bands == 1
    assert make().bands == 1


# ── what a place reads ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("length", [2, 3, 7, LENGTH])
def test_a_place_reads_the_concept_of_its_own_stretch_and_no_other(length):
    network = make(stirred=True, **BOTH)
    z = tokens(1, length)
    concepts = encoded(network, z)
    own = stretch_of(torch.arange(length), torch.tensor(length), most=3)

    def logits(vectors):
        told = type(concepts)(vectors=vectors, real=concepts.real)
        half = torch.full((1,), 0.5)
        return network.decode(z, half, told, segments=torch.ones_like(z), positions=all_real(z))

    base = logits(concepts.vectors)
    for slot in range(min(3, length)):
        vectors = concepts.vectors.clone()
        vectors[:, slot] = -vectors[:, slot]
        moved = (logits(vectors) - base).abs().amax(-1) > 1e-4
        assert moved.tolist() == (own == slot).tolist()


def test_places_of_one_stretch_differ_by_where_they_stand_in_it_alone():
    decoder = StretchDecoder(8, 2, mlp=torch.nn.Identity())
    torch.nn.init.normal_(decoder.place.weight)
    vectors = torch.ones(1, 2, 8)
    z, real = torch.zeros(1, 6, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool)
    told = {"segments": torch.ones_like(z), "positions": all_real(z)}
    found = decoder(torch.zeros(1, 6, 8), torch.zeros(1), vectors, real, **told)
    torch.testing.assert_close(found[:3], found[3:])
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_a_place_without_a_real_concept_answers_the_same_whatever_the_text():
    network = make(stirred=True, **BOTH)
    answers = [
        run(network, z, source=z, source_real=all_real(z), kept=torch.zeros(1, dtype=torch.long))
        for z in (tokens(1, 6), others(tokens(1, 6)))
    ]
    assert torch.equal(*answers)


def test_a_masked_word_is_read_off_its_context_and_never_off_itself():
    network = make(stirred=True, **BOTH, concepts=LENGTH)
    z = tokens(1, LENGTH)
    z[:, 5] = MASK
    here = torch.zeros_like(z, dtype=torch.bool)
    here[:, 5] = True
    base = run(network, z, positions=here, source=z)
    for place in (4, 0, LENGTH - 1):
        changed = z.clone()
        changed[:, place] = others(z)[:, place]
        assert not torch.allclose(run(network, changed, positions=here, source=changed), base, atol=1e-4)


@pytest.mark.parametrize("length", [2, 7, LENGTH])
def test_padding_before_or_behind_a_text_changes_no_logit(length):
    network = make(stirred=True, **BOTH)
    z = tokens(1, length)
    base = run(network, z, source=z)
    for where in ((0, 4), (4, 0), (2, 3)):
        wide, real = (torch.nn.functional.pad(each, where) for each in (z, all_real(z)))
        logits = run(network, wide, segments=real.long(), positions=real, source=wide, source_real=real)
        torch.testing.assert_close(logits, base, atol=1e-5, rtol=1e-4)


def test_every_weight_but_those_of_letters_as_drawn_is_trained_within_three_steps():
    network = make(**BOTH, letters={"buckets": 16, "learned": False}, rarity=1e-2).train()
    z = tokens(8, LENGTH)
    asked = torch.arange(LENGTH).expand_as(z) % 3 == 0
    source = torch.where(asked, MASK, z)
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    assert not any(name.startswith("letters") for name in trained)
    moved = dict.fromkeys(trained, False)
    descent = torch.optim.SGD(trained.values(), lr=0.05)
    for _ in range(3):
        descent.zero_grad()
        loss = torch.nn.functional.cross_entropy(run(network, source, positions=asked, source=source), z[asked])
        loss.backward()
        for name, parameter in trained.items():
            moved[name] |= parameter.grad is not None and float(parameter.grad.abs().max()) > 1e-4
        descent.step()
    assert [name for name, done in moved.items() if not done] == []
