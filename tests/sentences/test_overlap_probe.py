"""A linear probe on what two sentences' frozen concepts find in each other, and on the names that they hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_sentences import GRADED, TOKENIZER, WORDING, ToyConcepts, TwoBands, same_letter, subject, toy_data

from remask.sentences import overlap_probe
from remask.sentences.encoders import padded, read_concepts, read_embeddings
from remask.sentences.finetuning import Subject, Tuning
from remask.sentences.measuring import Bench, TaskJudge
from remask.sentences.names import BOTH, Naming, own_concepts
from remask.sentences.overlap import SUMS, WHOLE, both_ways, whole
from remask.sentences.overlap_probe import NAMES_SAY, SHARPNESS, SUMS_SAY, Clues, clues, features

ONE = Tuning(rates=(1e-2,), seeds=1, epochs=1, seed=0)
EACH = 2 * SUMS + WHOLE


def judge(data, *, random=1):
    own = subject()
    bag = replace(own, network=own.network.embedding, read=read_embeddings)
    return TaskJudge(
        bench=Bench(own=own, bag=bag, random=[subject(seed=random)], facts={}), data=data, tuning=ONE, seed=0
    )


def alone(texts):
    ids, real = padded(WORDING.alone(texts), fill=TOKENIZER.eos_id, device=torch.device("cpu"))
    return ids, real


def test_clues_are_the_sums_of_both_directions_and_the_names_of_each_pair():
    pairs, reader = same_letter(5).texts, subject()
    found = clues(reader, pairs)
    own = own_concepts(reader.network, read_concepts, tokens=TOKENIZER.vocab_size, bands=1)
    for k in range(5):
        with torch.no_grad():
            u, v = (read_concepts(reader.network, *alone([texts[k]])) for texts in pairs)
            there, back = (each.sums[0] for each in both_ways(u, v, sharpness=torch.tensor(SHARPNESS)))
            x, y = (Naming(own).amounts(side)[0] for side in (u, v))
            sums = torch.cat([there + back, (there - back).abs(), whole(u, v)[0]])
        np.testing.assert_allclose(found.sums[k], sums, atol=1e-5)
        np.testing.assert_allclose(found.names[k].toarray()[0], torch.cat([(x - y).abs(), BOTH * x * y]), atol=1e-5)


def test_the_order_in_which_pairs_are_read_at_once_changes_nothing(monkeypatch):
    pairs = same_letter(30).texts
    lengthened = (pairs[0], tuple(text[: 2 + k % 6] for k, text in enumerate(pairs[1])))
    whole_batch = clues(subject(), lengthened)
    monkeypatch.setattr(overlap_probe, "AT_ONCE", 4)
    found = clues(subject(), lengthened)
    np.testing.assert_allclose(found.sums, whole_batch.sums, atol=1e-5)
    np.testing.assert_allclose(found.names.toarray(), whole_batch.names.toarray(), atol=1e-5)


def test_which_sentence_is_the_first_changes_nothing_but_the_sign_of_a_length():
    first, second = same_letter(6).texts
    second = tuple(text[:4] for text in second)
    one, other = clues(subject(), (first, second)), clues(subject(), (second, first))
    np.testing.assert_allclose(one.names.toarray(), other.names.toarray(), atol=1e-6)
    changed = ~np.isclose(one.sums, other.sums, atol=1e-5).all(0)
    assert set(np.flatnonzero(changed)) <= {2 * SUMS + 2}, "log of the ratio of lengths"


def test_every_band_has_sums_of_its_own_and_names_read_the_first():
    reader = Subject(network=TwoBands(), read=read_concepts, wording=WORDING)
    with torch.no_grad():
        reader.network.queries[:] = 0.0  # concepts are plain means, in which no feature meets another
    before = clues(reader, same_letter(4).texts)
    with torch.no_grad():
        draw = torch.Generator().manual_seed(5)
        reader.network.embedding.weight[:, 8:] = torch.randn(TOKENIZER.vocab_size, 8, generator=draw)
    after = clues(reader, same_letter(4).texts)
    assert before.sums.shape == (4, 2 * EACH)
    np.testing.assert_allclose(after.sums[:, :EACH], before.sums[:, :EACH], atol=1e-5)
    assert not np.allclose(after.sums[:, EACH:], before.sums[:, EACH:], atol=1e-2)
    shares = (each.names.toarray() > 0 for each in (before, after))
    np.testing.assert_array_equal(*shares)


def test_sums_are_standardised_by_training_pairs_alone_and_names_only_scaled():
    draw = np.random.default_rng(0)
    from scipy import sparse

    def made(count, *, shift):
        names = sparse.csr_matrix(draw.random((count, 6)))
        sums = draw.normal(shift, 3.0, (count, 4))
        sums[:, 3] = 7.0
        return Clues(sums=sums, names=names)

    train, reported = made(50, shift=2.0), made(20, shift=-1.0)
    fitted, told = (each.toarray() for each in features(train, reported))
    np.testing.assert_allclose(fitted[:, :3].mean(0), 0.0, atol=1e-9)
    np.testing.assert_allclose(fitted[:, :3].std(0), SUMS_SAY)
    assert not fitted[:, 3].any()
    assert not told[:, 3].any()
    by_hand = SUMS_SAY * (reported.sums[:, 0] - train.sums[:, 0].mean()) / train.sums[:, 0].std()
    np.testing.assert_allclose(told[:, 0], by_hand)
    np.testing.assert_allclose(told[:, 4:], NAMES_SAY * reported.names.toarray())


def test_the_network_is_left_as_it_was_but_for_being_in_evaluation():
    reader = subject()
    reader.network.train()
    before = [weight.clone() for weight in reader.network.parameters()]
    clues(reader, same_letter(3).texts)
    assert all(torch.equal(one, other) for one, other in zip(before, reader.network.parameters(), strict=True))
    assert not reader.network.training


def test_pairs_that_share_a_letter_are_told_apart_and_shuffled_labels_are_not():
    data = toy_data(train=200, reported=200)
    score = judge(data).measure("overlap_probe")[0]
    assert score.name == "toy_overlap_probe_accuracy"
    assert score.value > score.trivial["majority"] + 5 * score.stderr
    labels = np.random.default_rng(1).permutation(data.train.labels)
    shuffled = replace(data, train=replace(data.train, labels=labels))
    assert judge(shuffled).measure("overlap_probe")[0].value < 0.6


def test_degrees_are_read_by_ridge_beside_tf_idf_a_bag_and_a_random_encoder():
    score, difference = judge(toy_data(GRADED, train=120, reported=80)).measure("overlap_probe")[:2]
    assert set(score.trivial) == {"majority", "TF-IDF", "bag of embeddings", "random encoder"}
    assert score.protocol["strength"] in {0.1, 0.3, 1.0, 3.0}
    assert score.protocol["training"] == "frozen"
    best = max(score.trivial, key=lambda name: score.trivial[name])
    assert difference.value == pytest.approx(score.value - score.trivial[best])


def test_a_bag_is_read_by_its_mean_whatever_the_probe():
    found = judge(toy_data(train=80, reported=40))
    scores = [found.measure(head)[0].trivial["bag of embeddings"] for head in ("probe", "overlap_probe")]
    assert scores[0] == scores[1]


def test_a_concept_of_no_token_still_has_a_name():
    class Shifted(ToyConcepts):
        def encode(self, source, *, real):
            told = super().encode(source, real=real)
            return replace(told, vectors=told.vectors + 0.3)

    found = clues(Subject(network=Shifted(), read=read_concepts, wording=WORDING), same_letter(4).texts)
    assert (found.names.toarray() > 0).any(1).all()


def test_what_stands_beside_is_read_by_the_same_probe():
    data = toy_data(train=80, reported=40)
    score = judge(data, random=0).measure("overlap_probe")[0]
    assert score.trivial["random encoder"] == score.value
    assert judge(data, random=1).measure("overlap_probe")[0].trivial["random encoder"] != score.value


def test_the_nearest_concept_counts_most_in_what_is_found():
    pairs = same_letter(6).texts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap_probe, "SHARPNESS", 1e4)
        nearest = clues(subject(), pairs).sums
        patch.setattr(overlap_probe, "SHARPNESS", 0.0)
        alike = clues(subject(), pairs).sums
    found = clues(subject(), pairs).sums
    apart = [np.abs(found[:, 0] - other[:, 0]).mean() for other in (nearest, alike)]
    assert apart[0] < apart[1]
