"""How much of a sentence's concepts another one holds, and the head that reads it."""

import pytest
import torch
from toy_sentences import GRADED, WORDING, ThreeBands, ToyConcepts, TwoBands, same_letter, subject, toy_data

from remask.randomness import keyed_generator
from remask.sentences.encoders import Encoded, read_concepts
from remask.sentences.finetuning import Tuning, fine_tuned
from remask.sentences.head_names import make_head, tokens_for
from remask.sentences.metrics import accuracy, spearman
from remask.sentences.overlap import CLUES, SUMS, WHOLE, both_ways, in_bands, trimmed, whole
from remask.sentences.overlap_heads import Dropped
from remask.sentences.splits import parted

FOUND, BEST, EVEN, SQUARED, TWO, TWO_EVEN, THREE, THREE_EVEN, MOVED, BACK = range(10)
MISSED = 12


def sentence(*words, size=1.0, slots=6):
    """Orthogonal words by number, each of its size, in the first of some slots; the others hold rubbish."""
    vectors = torch.full((1, slots, 8), 3.0)
    for place, word in enumerate(words):
        number, much = word if isinstance(word, tuple) else (word, size)
        vectors[0, place] = much * torch.eye(8)[number]
    return Encoded(vectors=vectors, real=torch.arange(slots)[None] < len(words))


def ways(one, other):
    return both_ways(one, other, sharpness=torch.tensor(20.0))


def test_a_sentence_covers_itself_where_it_stands():
    for found in ways(sentence(1, 2, 3, 4), sentence(1, 2, 3, 4)):
        sums = found.sums[0]
        torch.testing.assert_close(sums[[FOUND, BEST, EVEN, SQUARED]], torch.ones(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(sums[[MOVED, BACK, MISSED]], torch.zeros(3), atol=1e-4, rtol=0)
        assert sums[TWO] > 0.85  # but for the last, which has no neighbour


def test_the_same_words_in_another_order_are_covered_alone_and_not_among_their_neighbours():
    (found, _), (same, _) = ways(sentence(1, 2, 3, 4), sentence(4, 3, 2, 1)), ways(*[sentence(1, 2, 3, 4)] * 2)
    moved, there = found.sums[0], same.sums[0]
    torch.testing.assert_close(moved[BEST], there[BEST])
    for clue in (TWO, TWO_EVEN, THREE, THREE_EVEN):
        assert moved[clue] < there[clue] - 0.2
    assert moved[MOVED] > 0.3
    assert moved[BACK] > 0.15


def test_a_part_is_covered_by_the_whole_and_does_not_cover_it():
    part, rest = ways(sentence(1, 2), sentence(1, 2, 3, 4))
    torch.testing.assert_close(part.sums[0, BEST], torch.tensor(1.0))
    torch.testing.assert_close(rest.sums[0, BEST], torch.tensor(0.5))


def test_a_large_concept_that_is_missing_counts_more_than_a_small_one():
    large, _ = ways(sentence(1, (2, 3.0)), sentence(1))
    small, _ = ways(sentence(1, (2, 0.2)), sentence(1))
    torch.testing.assert_close(large.sums[0, BEST], torch.tensor(0.25))
    torch.testing.assert_close(small.sums[0, BEST], torch.tensor(1 / 1.2))
    torch.testing.assert_close(large.sums[0, EVEN], small.sums[0, EVEN])
    assert large.sums[0, MISSED] > small.sums[0, MISSED]


def test_slots_that_are_not_real_change_nothing():
    one, other = (1, 2, 5), (2, 1)
    wide = [sentence(*one, slots=6), sentence(*other, slots=6)]
    tight = [sentence(*one, slots=3), sentence(*other, slots=2)]
    for more, fewer in zip(ways(*wide), ways(*tight), strict=True):
        torch.testing.assert_close(more.sums, fewer.sums)
        real = more.here[0]
        torch.testing.assert_close(more.clues[0, real], fewer.clues[0])
    torch.testing.assert_close(whole(*wide), whole(*tight))
    assert trimmed(wide[0]).vectors.shape[1] == 3
    nothing = Encoded(vectors=torch.zeros(1, 4, 8), real=torch.zeros(1, 4, dtype=torch.bool))
    assert trimmed(nothing).vectors.shape[1] == 1
    assert all(found.sums.isfinite().all() for found in ways(nothing, wide[0]))


def test_as_many_numbers_come_out_as_are_named():
    found, _ = ways(sentence(1, 2), sentence(2))
    assert found.clues.shape == (1, 6, CLUES)
    assert found.sums.shape == (1, SUMS)
    assert whole(sentence(1, 2), sentence(2)).shape == (1, WHOLE)


def test_dropout_takes_the_same_features_from_all_vectors_of_a_text_and_none_in_evaluation():
    drop, x = Dropped(0.5, keyed_generator(1)), torch.ones(3, 4, 200)
    dropped = drop(x)
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert 0.4 < (dropped == 0).float().mean() < 0.6
    assert not torch.equal(dropped[0], dropped[1])
    assert torch.equal(drop.eval()(x), x)


def test_the_head_starts_with_no_say_for_plain_overlaps_and_learns_one():
    network = ToyConcepts()
    head = make_head("overlap", network, read_concepts, wording=WORDING, outputs=2, generator=keyed_generator(0))
    assert not head.direct.weight.any()
    head(network, tokens_for("overlap", same_letter(6), WORDING)).square().sum().backward()
    for part in (head.direct.weight, head.sharpness, head.clues.weight, network.embedding.weight):
        assert part.grad.abs().max() > 0


def test_bands_are_compared_each_by_its_own_features():
    one, other = sentence(1, 2), sentence((1, 1.0), (6, 1.0))
    first, second = in_bands(one, 2), in_bands(other, 2)
    assert [part.vectors.shape[-1] for part in first] == [4, 4]
    assert torch.equal(torch.cat([part.vectors for part in first], -1), one.vectors)
    low, _ = ways(first[0], second[0])
    torch.testing.assert_close(low.sums[0, BEST], torch.tensor(0.5))
    high, _ = ways(first[1], second[1])
    assert high.sums[0, BEST].abs() < 1e-6


def test_a_head_reads_each_band_of_a_network_that_has_several():
    network = TwoBands()
    head = make_head("overlap", network, read_concepts, wording=WORDING, outputs=2, generator=keyed_generator(0))
    plain = make_head("overlap", ToyConcepts(), read_concepts, wording=WORDING, outputs=2, generator=keyed_generator(0))
    assert head.direct.in_features == 2 * plain.direct.in_features == 2 * (2 * SUMS + WHOLE)
    assert head.clues.in_features == 2 * plain.clues.in_features
    batch = tokens_for("overlap", same_letter(6), WORDING)
    head(network, batch).square().sum().backward()
    assert (head.sharpness.grad != 0).all()
    assert (head.direct.weight.grad.abs().amax(0) > 0).sum() > 2 * SUMS + WHOLE


@pytest.mark.parametrize("name", ["overlap", "named"])
def test_heads_that_compare_bands_read_nothing_of_the_one_that_was_counted(name):
    network, plain = ThreeBands(width=18), TwoBands(width=12)
    stirred = {"band": None}

    def read(network, ids, real):
        concepts = read_concepts(network, ids, real)
        if stirred["band"] is not None:
            concepts.vectors[..., 6 * stirred["band"] :][..., :6] += 1.0
        return concepts

    make = {"wording": WORDING, "outputs": 2, "generator": keyed_generator(0)}
    head = make_head(name, network, read, **make).eval()
    shapes = {key: part.shape for key, part in head.state_dict().items()}
    assert shapes == {key: part.shape for key, part in make_head(name, plain, read, **make).state_dict().items()}
    head.direct.weight.data.fill_(0.1)
    if name == "named":
        head.names.apart.data.copy_(torch.randn(head.names.apart.shape, generator=keyed_generator(1)))
    batch = tokens_for(name, same_letter(6), WORDING)
    with torch.no_grad():
        expected = head(network, batch)
        for band, same in ((0, False), (1, True), (2, False)):
            stirred["band"] = band
            assert torch.equal(head(network, batch), expected) == same


@pytest.mark.parametrize("graded", [False, True])
def test_fine_tuning_through_overlap_learns_and_is_the_same_again(graded):
    data = toy_data(GRADED, train=400) if graded else toy_data(train=400)
    metric = spearman if graded else accuracy
    tuning = Tuning(rates=(1e-2,), seeds=1, epochs=4, seed=0)
    found, again = (
        fine_tuned([subject()], "overlap", data, parts=parted(data.train, seed=0), metric=metric, tuning=tuning)
        for _ in range(2)
    )
    assert metric(found.predictions[0], data.reported.labels) > (0.6 if graded else 0.8)
    assert found.predictions[0].tolist() == again.predictions[0].tolist()
