"""What models make of sentences, and heads that are trained with them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toy_sentences import (
    GRADED,
    PAIRED,
    SINGLE,
    TOKENIZER,
    WORDING,
    Dropping,
    ToyConcepts,
    same_letter,
    subject,
    toy_data,
)

from remask.cli.sentences import sentence_cautions, told_from
from remask.errors import RunError, UserError
from remask.networks.blocks import Timeless
from remask.networks.concepts.stretches import StretchDecoder
from remask.networks.stacks import straight
from remask.networks.transformer import BIDIRECTIONAL, Transformer
from remask.randomness import derive_seed
from remask.sentences import finetuning, measuring
from remask.sentences.encoders import (
    SentenceEncoder,
    Wording,
    in_bfloat16,
    read_concepts,
    read_embeddings,
    read_states,
    reader_of,
)
from remask.sentences.finetuning import Descent, Pace, Together, Tuning, batches, fine_tuned
from remask.sentences.head_names import make_head, tokens_for
from remask.sentences.heads import DECODED_PLACES
from remask.sentences.measuring import Bench, Judged, TaskJudge
from remask.sentences.metrics import accuracy, spearman, standard_error
from remask.sentences.splits import Labelled, linked, parted
from remask.sentences.tasks import HEADS

TEXTS = ["abc", "fed cab", "", "aaaaaaaaaaaaaaaaaaaaaaaa", "b"]


def encoder(network, read):
    return SentenceEncoder(network=network, read=read, wording=WORDING)


def transformer():
    from functools import partial

    from remask.networks.blocks import Residual

    network = Transformer(
        vocab_size=TOKENIZER.vocab_size,
        mask_id=TOKENIZER.mask_id,
        width=16,
        layers=1,
        heads=2,
        mlp_width=16,
        direction=BIDIRECTIONAL,
        time=Timeless(),
        stack=partial(straight, residual=partial(Residual, dropout=0.0)),
    )
    network.initialise(torch.Generator().manual_seed(0))
    return network


@pytest.mark.parametrize("kind", ["concepts", "states", "embeddings"])
def test_a_sentence_has_the_same_vectors_alone_and_among_longer_ones_in_the_order_given(kind):
    network, read = {
        "concepts": (ToyConcepts(), read_concepts),
        "states": (transformer(), read_states),
        "embeddings": (ToyConcepts(), read_embeddings),
    }[kind]
    together = encoder(network, read).encode(TEXTS)
    assert together.shape == (5, 2 if kind == "concepts" else 1, 16)
    for k, text in enumerate(TEXTS):
        assert np.allclose(encoder(network, read).encode([text])[0], together[k], atol=1e-5), text
    assert not np.allclose(together[0], together[1], atol=1e-2)


def test_a_network_that_is_read_in_bfloat16_gives_float32_vectors_that_are_nearly_the_same():
    network = transformer()
    ids = torch.randint(6, (4, 9), generator=torch.Generator().manual_seed(1))
    real = torch.ones_like(ids, dtype=torch.bool)
    whole, half = (read(network, ids, real).vectors for read in (read_states, in_bfloat16(read_states)))
    assert half.dtype == torch.float32
    assert 1e-5 < (half - whole).abs().max() < 0.1


def test_what_was_trained_in_bfloat16_is_fine_tuned_so_but_through_its_decoder():
    own = subject()
    bench = Bench(own=own, bag=own, random=(), facts={}, precision="bf16")
    tuned, precision = bench.tuned(own, "pair")
    assert (tuned.network, precision) == (own.network, "bf16")
    assert tuned.read is not own.read
    assert bench.tuned(own, "via_decoder") == (own, "float32")
    assert replace(bench, precision="float32").tuned(own, "pair") == (own, "float32")


def test_hidden_states_are_what_the_vocabulary_projection_reads():
    network = transformer()
    ids = torch.tensor([[0, 3, 2]])
    real = torch.ones_like(ids, dtype=torch.bool)
    states = read_states(network, ids, real).vectors
    logits = network(ids, torch.zeros(1), segments=torch.ones_like(ids), positions=real)
    assert torch.allclose(network.head(states[0]), logits, atol=1e-5)
    assert reader_of(network) is read_states
    assert reader_of(ToyConcepts()) is read_concepts


def test_a_bag_knows_letters_and_not_their_order():
    bag = encoder(ToyConcepts(), read_embeddings).encode(["abc", "cab", "abb"])
    assert np.allclose(bag[0], bag[1], atol=1e-6)
    assert not np.allclose(bag[0], bag[2], atol=1e-2)


def test_a_network_that_gives_no_vector_is_refused():
    network = ToyConcepts()
    network.encode = lambda source, *, real: SimpleNamespace(
        vectors=torch.zeros(len(source), 2, 16), real=torch.zeros(len(source), 2, dtype=torch.bool)
    )
    with pytest.raises(UserError, match="encodes a sentence into no vector"):
        encoder(network, read_concepts).encode(["abc"])


def text_of(row):
    return TOKENIZER.decode(row)


def test_a_joined_pair_has_an_end_between_and_the_longer_sentence_gives_way():
    wording = Wording(tokenizer=TOKENIZER, length=7)
    rows = wording.joined(["ab", "abcdef", "aaaaaa", "ab"], ["cd", "cd", "bbbbbb", "cdefcd"])
    assert [text_of(row) for row in rows] == ["abcd", "abcdcd", "aaabbb", "abcdef"]
    ends = [row.tolist().index(TOKENIZER.eos_id) for row in rows]
    assert ends == [2, 4, 3, 2]
    assert all((row == TOKENIZER.eos_id).sum() == 1 for row in rows)
    assert [text_of(row) for row in wording.alone(["abcdefab", "a~b"])] == ["abcdefa", "ab"]
    assert wording.too_long(["abcdefab", "ab"]) == 1


TRAINED = [name for name, kind in HEADS.items() if kind == "fine-tuned"]


def made_head(name, network, outputs=2, seed=0, wording=WORDING):
    draw = torch.Generator().manual_seed(seed)
    return make_head(name, network, read_concepts, wording=wording, outputs=outputs, generator=draw)


@pytest.mark.parametrize("name", TRAINED)
def test_a_head_trains_the_encoder_and_answers_each_example_by_itself(name):
    network = ToyConcepts()
    head = made_head(name, network).eval()  # drops nothing
    rows = tokens_for(name, same_letter(6), WORDING)
    outputs = head(network, rows)
    assert outputs.shape == (6, 2)
    assert torch.allclose(outputs[2:3], head(network, rows[2:3]), atol=1e-5)
    outputs.square().sum().backward()
    for part in (network.embedding.weight, network.queries, head.inner.weight):
        assert part.grad is not None
        assert part.grad.abs().max() > 0


@pytest.mark.parametrize(("length", "places"), [(12, 12), (40, DECODED_PLACES)])
def test_the_decoder_of_via_decoder_sees_masks_and_concepts_and_nothing_of_the_text(length, places):
    network = ToyConcepts()
    head = made_head("via_decoder", network, wording=replace(WORDING, length=length))
    rows = tokens_for("via_decoder", same_letter(4), WORDING)
    network.asked.clear()
    told = head(network, rows)
    ((z, t, segments),) = network.asked
    assert z.shape == (4, places)
    assert (z == TOKENIZER.mask_id).all()
    assert (t == 1).all()
    assert (segments == 1).all()
    assert not torch.allclose(told[0], told[1], atol=1e-4)
    encode = network.encode
    network.encode = lambda source, *, real: encode(torch.zeros_like(source), real=real)  # every text says the same
    deaf = head(network, rows)
    assert torch.allclose(deaf, deaf[:1].expand_as(deaf), atol=1e-5)


def test_a_query_never_attends_to_what_is_not_real():
    head = made_head("cls", ToyConcepts())
    vectors, real = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(1)), torch.ones(2, 3).bool()
    real[0, 1] = False
    before = head.attended(vectors, real)
    vectors[0, 1] += 100.0
    assert torch.equal(head.attended(vectors, real), before)
    vectors[0, 2] += 1.0
    assert not torch.allclose(head.attended(vectors, real)[0], before[0])


def test_batches_hold_every_example_once_in_an_order_of_the_seed():
    rows = [(np.zeros(k % 7 + 1, dtype=np.int64),) for k in range(70)]
    found = list(batches(rows, seed=0))
    assert sorted(k for batch in found for k in batch) == list(range(70))
    assert found == list(batches(rows, seed=0)) != list(batches(rows, seed=1))


TUNING = Tuning(rates=(1e-4, 1e-2), seeds=2, epochs=3, seed=0)


def tuned(data, head="pooled", tuning=TUNING, metric=accuracy):
    return fine_tuned([subject()], head, data, parts=parted(data.train, seed=0), metric=metric, tuning=tuning)


@pytest.mark.parametrize(("head", "task", "count"), [("pair", PAIRED, 200), ("cls", SINGLE, 480)])
def test_fine_tuning_learns_what_letters_tell(head, task, count):
    data = toy_data(task, train=count)
    found = tuned(data, head, tuning=replace(TUNING, epochs=4))
    assert min(accuracy(each, data.reported.labels) for each in found.predictions) > 0.85
    assert found.pace == max(found.selection, key=lambda pace: found.selection[pace])


def test_a_network_learns_at_its_share_of_the_rate_and_the_head_at_all_of_it():
    together = Together(nn.Linear(3, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in together.state_dict().items()}
    descent = Descent(together, pace=Pace(rate=1e-2, share=0.1), steps=100)
    rates = [group["lr"] / descent.schedule.get_last_lr()[0] for group in descent.optimizer.param_groups]
    assert rates == pytest.approx([1.0, 0.1])
    descent.step(together.head(together.network(torch.ones(2, 3))).square().sum())
    moved = {
        part: max(
            float((value - before[name]).abs().max())
            for name, value in together.state_dict().items()
            if name.startswith(part)
        )
        for part in ("head", "network")
    }
    assert moved["network"] == pytest.approx(0.1 * moved["head"], rel=0.05)


def test_every_share_is_tried_with_every_rate_and_the_best_pace_is_kept():
    data = toy_data()
    tuning = replace(TUNING, shares=(0.1, 1.0), seeds=1, epochs=1)
    found = tuned(data, tuning=tuning)
    assert set(found.selection) == {Pace(rate=rate, share=share) for rate in TUNING.rates for share in (0.1, 1.0)}
    assert found.selection[found.pace] == max(found.selection.values())


def test_degrees_are_learned_in_their_own_order():
    data = toy_data(GRADED, train=160)
    found = tuned(data, "pair", metric=spearman, tuning=replace(TUNING, seeds=1))
    assert spearman(found.predictions[0], data.reported.labels) > 0.6


def test_what_is_reported_is_read_once_by_each_chosen_training_and_the_model_stays_as_it_was(monkeypatch):
    data, reads = toy_data(), []
    real = finetuning.tokens_for

    def counted(head, examples, wording):
        reads.append(examples is data.reported)
        return real(head, examples, wording)

    monkeypatch.setattr(finetuning, "tokens_for", counted)
    own = subject()
    before = {name: value.clone() for name, value in own.network.state_dict().items()}
    parts = parted(data.train, seed=0)
    first = fine_tuned([own], "pooled", data, parts=parts, metric=accuracy, tuning=TUNING)
    assert sum(reads) == TUNING.seeds
    assert all(torch.equal(before[name], value) for name, value in own.network.state_dict().items())
    again = fine_tuned([own], "pooled", data, parts=parts, metric=accuracy, tuning=TUNING)
    assert [each.tolist() for each in again.predictions] == [each.tolist() for each in first.predictions]


def test_other_reported_labels_change_no_prediction_and_no_setting():
    data = toy_data()
    turned = replace(data, reported=Labelled(texts=data.reported.texts, labels=1 - data.reported.labels))
    first, second = tuned(data), tuned(turned)
    assert first.pace == second.pace
    assert [each.tolist() for each in first.predictions] == [each.tolist() for each in second.predictions]


def test_dropout_is_that_of_the_seed_whatever_was_drawn_before():
    data, own = toy_data(GRADED), replace(subject(), network=Dropping())
    rest = {"parts": parted(data.train, seed=0), "metric": spearman}

    def predicted(global_seed, seed=0):
        torch.manual_seed(global_seed)
        one = replace(TUNING, rates=(1e-2,), epochs=1, seeds=1, seed=seed)
        return fine_tuned([own], "pair", data, tuning=one, **rest).predictions[0].tolist()

    assert predicted(1) == predicted(2) != predicted(2, seed=1)


def test_each_seed_trains_a_draw_of_its_own_where_there_are_several():
    data, draws = toy_data(), [subject(seed=1), subject(seed=2)]
    rest = {"parts": parted(data.train, seed=0), "metric": accuracy}
    one_rate = replace(TUNING, rates=(1e-2,), epochs=1)
    both = fine_tuned(draws, "pooled", data, tuning=one_rate, **rest).predictions
    for k, draw in enumerate(draws):
        alone = fine_tuned([draw], "pooled", data, tuning=replace(one_rate, seed=k, seeds=1), **rest).predictions
        assert both[k].tolist() == alone[0].tolist()
    again = fine_tuned(draws, "pooled", data, tuning=replace(one_rate, seeds=3), **rest).predictions
    third = fine_tuned(draws[:1], "pooled", data, tuning=replace(one_rate, seed=2, seeds=1), **rest).predictions
    assert again[2].tolist() == third[0].tolist()


def test_a_loss_that_is_not_finite_at_any_rate_is_said():
    data, broken = toy_data(), subject()
    with torch.no_grad():
        broken.network.embedding.weight.fill_(torch.nan)
    parts = parted(data.train, seed=0)
    with pytest.raises(RunError, match="not finite at any rate"):
        fine_tuned([broken], "pooled", data, parts=parts, metric=accuracy, tuning=replace(TUNING, seeds=1))
    second = replace(TUNING, rates=(1e-3,), seeds=2, seed=4)
    with pytest.raises(RunError, match="from seed 5"):
        fine_tuned([subject(), broken], "pooled", data, parts=parts, metric=accuracy, tuning=second)


def judge(data):
    own = subject()
    bag = replace(own, network=own.network.embedding, read=read_embeddings)
    bench = Bench(own=own, bag=bag, random=[subject(seed=1)], facts={"tokens_at_most": 12})
    return TaskJudge(bench=bench, data=data, tuning=replace(TUNING, rates=(1e-2,), epochs=1), seed=0)


def test_heads_that_a_model_has_nothing_for_are_left_out_where_they_are_optional_and_refused_where_not():
    bench, every = judge(toy_data()).bench, tuple(HEADS)
    assert bench.fitting(every, optional=()) == every
    plain = replace(bench, own=replace(bench.own, network=transformer(), read=read_states))
    fewer = plain.fitting(every, optional=every)
    assert set(every) - set(fewer) == {"slots", "slot_probe", "via_decoder"}
    with pytest.raises(UserError, match="--head via_decoder: a Transformer has no decoder that reads concepts"):
        plain.fitting(["cls", "via_decoder"], optional=())
    network = ToyConcepts()
    network.decoder = StretchDecoder(16, 2, mlp=nn.Identity())
    with pytest.raises(UserError, match="reads concepts of a text of any length"):
        replace(bench, own=replace(bench.own, network=network)).fitting(["via_decoder"], optional=())


def test_what_stands_beside_a_slow_network_may_learn_at_the_whole_rate(monkeypatch):
    found, asked = judge(toy_data()), []
    slow = replace(found, tuning=replace(found.tuning, shares=(0.1,)))
    real = measuring.fine_tuned

    def noted(draws, head, data, **tune):
        asked.append((draws == [found.bench.own], tune["tuning"].shares))
        return real(draws, head, data, **tune)

    monkeypatch.setattr(measuring, "fine_tuned", noted)
    figure = slow.measure("pair")[0]
    assert sorted(asked) == [(False, (0.1, 1.0)), (False, (0.1, 1.0)), (True, (0.1,))]
    assert figure.protocol["network_share"] == 0.1


def test_every_figure_stands_beside_majority_tf_idf_a_bag_and_a_random_encoder():
    found = judge(toy_data())
    figures = {m.name: m for head in ("probe", "slot_probe", "pair") for m in found.measure(head)}
    scores = ("accuracy", "accuracy_difference", "f1", "f1_difference")
    assert list(figures) == [f"toy_{h}_{m}" for h in ("probe", "slot_probe", "pair") for m in scores]
    beside = {"majority", "TF-IDF", "bag of embeddings", "random encoder"}
    assert set(figures["toy_pair_accuracy"].trivial) == beside
    assert set(figures["toy_probe_f1"].trivial) == beside | {"all positive"}
    accurate = figures["toy_probe_accuracy"]
    assert sum(accurate.examples.values) / sum(accurate.examples.weights) == pytest.approx(accurate.value)
    assert sum(accurate.examples.weights) == accurate.n == 40
    chosen = "by accuracy on 6 of the training examples, which share no sentence with the others"
    assert (accurate.n, accurate.protocol["selection"]) == (40, chosen)
    assert figures["toy_pair_f1"].protocol["learning_rate"] == 1e-2


@pytest.mark.parametrize(("task", "head"), [(GRADED, "cosine"), (GRADED, "whitened"), (PAIRED, "probe")])
def test_the_scores_of_several_random_encoders_are_averaged(task, head):
    alone = judge(toy_data(task))
    more = [subject(seed=seed) for seed in (1, 2, 3)]
    several = replace(alone, bench=replace(alone.bench, random=more), _vectors={})
    each = [replace(alone, bench=replace(alone.bench, random=[draw]), _vectors={}) for draw in more]
    name = "random encoder"
    scores = [one.measure(head)[0].trivial[name] for one in each]
    figure = several.measure(head)[0]
    assert len(set(scores)) > 1
    assert figure.trivial[name] == pytest.approx(np.mean(scores))
    assert figure.value == alone.measure(head)[0].value


@pytest.mark.parametrize("head", ["probe", "pair"])
def test_every_trained_head_chooses_among_sentences_that_it_is_not_fitted_on(head):
    data = toy_data()
    first, second = data.train.texts
    shared = Labelled(texts=((first[0],) * len(first), second), labels=data.train.labels)
    with pytest.raises(UserError, match="shared sentences link all 64 training examples"):
        judge(replace(data, train=shared)).measure(head)


def test_degrees_stand_beside_a_correlation_of_nothing_and_both_kinds_of_tf_idf():
    found = judge(toy_data(GRADED))
    cosine, whitened, slots = (found.measure(head)[0] for head in ("cosine", "whitened", "slots"))
    assert cosine.trivial["majority"] == 0.0
    assert {"TF-IDF words", "TF-IDF letters", "bag of embeddings", "random encoder"} < set(cosine.trivial)
    assert len({cosine.value, whitened.value, slots.value}) == 3
    assert cosine.trivial["TF-IDF letters"] == whitened.trivial["TF-IDF letters"]


def test_a_figure_that_beats_nothing_is_called_so():
    score, difference, *_ = judge(toy_data()).measure("probe")
    weak = replace(score, name="mrpc_probe_accuracy", value=0.5, trivial={"majority": 0.4, "TF-IDF": 0.6})
    facts = {"protocol": {"against": "TF-IDF"}, "name": "mrpc_probe_accuracy_difference"}
    lacking = replace(difference, value=-0.1, stderr=0.02, **facts)
    assert sentence_cautions([weak, lacking]) == [
        "mrpc_probe_accuracy: 0.500 does not beat TF-IDF (0.600); on the same examples the difference is -0.100 ± 0.020"
    ]
    strong = replace(weak, value=0.7, stderr=0.2)  # on pairs it is surer than by itself
    assert sentence_cautions([strong, replace(lacking, value=0.1)]) == []
    assert sentence_cautions([strong, replace(lacking, value=0.002, stderr=0.001)]) == []
    assert len(sentence_cautions([strong, replace(lacking, value=0.1, stderr=0.15)])) == 1
    assert [(m.name, m.trivial) for m in told_from([weak, lacking])] == [
        ("mrpc_probe_accuracy", weak.trivial),
        ("mrpc_probe_accuracy_difference from TF-IDF", {}),
    ]


def test_a_score_is_held_against_the_best_beside_it_on_the_same_examples(monkeypatch):
    found = judge(toy_data())
    labels = found.data.reported.labels
    own, weak, best = (np.where(np.arange(len(labels)) % each, labels, 1 - labels) for each in (4, 2, 5))
    monkeypatch.setattr(TaskJudge, "_probed", lambda *_: Judged(own=[own], beside={"weak": [weak], "best": [best]}))
    score, difference = found.measure("probe")[:2]
    assert (difference.name, difference.protocol["against"]) == ("toy_probe_accuracy_difference", "best")
    assert (difference.value, difference.trivial) == (pytest.approx(0.75 - 0.8), {"no difference": 0.0})
    seed, groups = derive_seed(found.seed, "bootstrap"), linked(found.data.reported)
    paired = standard_error(accuracy, [own], labels, groups=groups, seed=seed, against=[best])
    assert (
        difference.stderr == paired != score.stderr == standard_error(accuracy, [own], labels, groups=groups, seed=seed)
    )
