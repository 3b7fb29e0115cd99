"""Concepts that are called by the token they are nearest to, and what those names say of a pair."""

import numpy as np
import pytest
import torch
from toy_sentences import TOKENIZER, WORDING, ToyConcepts, TwoBands, same_letter, subject, toy_data

from remask.randomness import keyed_generator
from remask.sentences.encoders import Encoded, read_concepts
from remask.sentences.finetuning import Tuning, fine_tuned
from remask.sentences.head_names import make_head, tokens_for
from remask.sentences.metrics import accuracy
from remask.sentences.names import BOTH, EAGER, Names, own_concepts
from remask.sentences.splits import parted


def sentence(*words, slots=4):
    """Orthogonal words by number and size in the first of some slots; the others hold rubbish."""
    vectors = torch.full((1, slots, 5), 9.0)
    for place, (number, size) in enumerate(words):
        vectors[0, place] = size * torch.eye(5)[number]
    return Encoded(vectors=vectors, real=torch.arange(slots)[None] < len(words))


def names(*, outputs=1):
    return Names(torch.eye(5), outputs=outputs)


def test_a_concept_is_called_by_the_nearest_token_whatever_its_length(monkeypatch):
    vectors = torch.tensor([[0.1, 3.0, 1.0, 0, 0], [0, 0, 0, 0.02, 0.01]])
    assert names().named(vectors).tolist() == [1, 3]
    monkeypatch.setattr("remask.sentences.names.NAMED_AT_ONCE", 1)
    assert names().named(vectors.repeat(3, 1)).tolist() == [1, 3] * 3


def test_amounts_are_sizes_by_name_over_the_length_of_the_sentence():
    amounts = names().amounts(sentence((1, 3.0), (2, 4.0)))
    torch.testing.assert_close(amounts, torch.tensor([[0.0, 0.6, 0.8, 0.0, 0.0]]))
    twice = names().amounts(sentence((1, 1.0), (1, 1.0), (3, 1.0)))
    torch.testing.assert_close(twice, torch.tensor([[0.0, 2.0, 0.0, 1.0, 0.0]]) / 3**0.5)
    assert not names().amounts(sentence()).any()


def test_what_one_sentence_holds_and_what_both_hold_count_apart():
    told = names()
    with torch.no_grad():
        told.apart[:, 0] = torch.tensor([0.0, 1.0, 10.0, 0.0, 0.0])
        told.shared[:, 0] = torch.tensor([0.0, 100.0, 0.0, 0.0, 0.0])
    u, v = sentence((1, 3.0), (2, 4.0)), sentence((1, 1.0))
    by_hand = EAGER * ((1.0 - 0.6) * 1 + 0.8 * 10 + BOTH * 0.6 * 100)
    for pair in ((u, v), (v, u)):
        torch.testing.assert_close(told(*pair), torch.tensor([[by_hand]]))


def test_names_say_nothing_at_the_start_and_let_no_gradient_through_to_concepts():
    told, u = names(outputs=2), sentence((1, 3.0), (2, 4.0))
    u.vectors.requires_grad_()
    said = told(u, sentence((1, 1.0)))
    assert not said.any()
    said.sum().backward()
    assert u.vectors.grad is None
    assert told.apart.grad[[1, 2]].all()
    assert not told.apart.grad[[0, 3, 4]].any()


@pytest.mark.parametrize("training", [True, False])
def test_tokens_read_alone_are_called_by_themselves_and_the_network_is_left_as_it_was(training):
    network = ToyConcepts().train(training)
    own = own_concepts(network, read_concepts, tokens=TOKENIZER.vocab_size, bands=1)
    assert network.training is training
    assert not own.requires_grad
    torch.testing.assert_close(own.norm(dim=-1), torch.ones(TOKENIZER.vocab_size))
    ids = torch.arange(TOKENIZER.vocab_size)[:, None]
    read = read_concepts(network, ids, torch.ones_like(ids, dtype=torch.bool))
    named = Names(own, outputs=1).named(read.vectors[:, 0])
    assert torch.equal(named, ids[:, 0])
    half = own_concepts(network, read_concepts, tokens=3, bands=2)
    torch.testing.assert_close(half, torch.nn.functional.normalize(own[:3, :8], dim=-1))


def test_the_head_is_overlap_until_names_have_learned_anything():
    network, batch = ToyConcepts(), tokens_for("named", same_letter(6), WORDING)
    common = {"wording": WORDING, "outputs": 2}
    made = {
        name: make_head(name, network, read_concepts, generator=keyed_generator(0), **common).eval()
        for name in ("named", "overlap")
    }
    torch.testing.assert_close(made["named"](network, batch), made["overlap"](network, batch))
    head = made["named"]
    for weight in (head.names.shared, head.names.apart):
        with torch.no_grad():
            weight.fill_(1.0)
        said = head(network, batch) - made["overlap"](network, batch)
        u, v = head.sides(network, batch)
        torch.testing.assert_close(said, head.names(u, v), atol=1e-4, rtol=1e-4)
        assert said.abs().max() > 1e-2
        with torch.no_grad():
            weight.zero_()
    assert not any(name.endswith("own") for name in head.state_dict())


def test_names_are_read_off_the_first_band_alone():
    network, batch = TwoBands(), tokens_for("named", same_letter(4), WORDING)
    head = make_head("named", network, read_concepts, wording=WORDING, outputs=1, generator=keyed_generator(0)).eval()
    assert head.names.own.shape[1] == 8
    with torch.no_grad():
        head.names.apart.fill_(1.0)
        head.names.shared.fill_(1.0)
        told = []
        head.names.register_forward_pre_hook(lambda _, inputs: told.append(inputs))
        head(network, batch)
    u, v = head.sides(network, batch)
    for seen, side in zip(told[0], (u, v), strict=True):
        torch.testing.assert_close(seen.vectors, side.vectors[..., :8])


def test_names_learn_which_word_makes_a_difference():
    """Sentences differ in one word of two; the label is which it is, and no cosine of orthogonal words says that."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 400)
    told = Names(torch.eye(6), outputs=2)
    descent = torch.optim.Adam(told.parameters(), lr=1e-2)

    def pairs(some):
        u = torch.stack([torch.eye(6)[[0, 4 if label else 5]] for label in some])
        v = torch.stack([torch.eye(6)[[0, 1]] for _ in some])
        return [Encoded(vectors=each, real=torch.ones(len(some), 2, dtype=torch.bool)) for each in (u, v)]

    for start in range(0, 320, 32):
        some = labels[start : start + 32]
        descent.zero_grad()
        torch.nn.functional.cross_entropy(told(*pairs(some)), torch.tensor(some)).backward()
        descent.step()
    assert (told(*pairs(labels[320:])).argmax(-1).numpy() == labels[320:]).all()


def test_fine_tuning_with_names_learns_and_is_the_same_again():
    data = toy_data(train=400)
    tuning = Tuning(rates=(1e-2,), seeds=1, epochs=4, seed=0)
    found, again = (
        fine_tuned([subject()], "named", data, parts=parted(data.train, seed=0), metric=accuracy, tuning=tuning)
        for _ in range(2)
    )
    assert accuracy(found.predictions[0], data.reported.labels) > 0.8
    assert found.predictions[0].tolist() == again.predictions[0].tolist()
