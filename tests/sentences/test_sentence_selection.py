"""What settings of sentence tasks are chosen on, what is fitted on, and what each seed draws anew."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from toy_sentences import GRADED, PAIRED, same_letter, subject, toy_data

from remask.sentences import finetuning, measuring
from remask.sentences.encoders import SentenceEncoder, read_embeddings
from remask.sentences.features import Whitening
from remask.sentences.finetuning import Descent, Pace, Together, Tuned, Tuning, fine_tuned
from remask.sentences.measuring import Bench, TaskJudge
from remask.sentences.metrics import accuracy, spearman
from remask.sentences.probes import PENALTIES, probe
from remask.sentences.splits import task_data
from remask.sentences.teaching import Lesson, School

FIT, CHOOSE = np.arange(48), np.arange(48, 64)
ONE = Tuning(rates=(1e-2,), seeds=1, epochs=1, seed=0)


def tuned(data, tuning, *, metric=lambda *_: 0.0):
    return fine_tuned([subject()], "pair", data, parts=(FIT, CHOOSE), metric=metric, tuning=tuning)


def mirrored(data, rows):
    """The data with the labels of these training examples the other way round: the least for the largest."""
    labels = data.train.labels.copy()
    labels[rows] = labels.min() + labels.max() - labels[rows]
    return replace(data, train=replace(data.train, labels=labels))


def said(found):
    return [each.tolist() for each in found.predictions]


def test_a_rate_is_chosen_on_examples_that_are_not_fitted_on():
    """Where degrees of the choosing part are the other way round, a training that learns nothing is the best."""
    data, tuning = toy_data(GRADED), replace(ONE, rates=(0.0, 3e-2), epochs=2)
    assert tuned(data, tuning, metric=spearman).pace.rate == 3e-2
    assert tuned(mirrored(data, CHOOSE), tuning, metric=spearman).pace.rate == 0.0


def scripted(scores, said_then):
    """A metric that gives these scores one after the other, whatever is predicted, and keeps what was."""
    left = iter(scores)

    def metric(predicted, labels):
        said_then.append((predicted.tolist(), labels.tolist()))
        return next(left)

    return metric


@pytest.mark.parametrize("scores", [(0.9, 0.1, 0.3), (0.1, 0.9, 0.3), (0.1, 0.3, 0.9)])
def test_the_epoch_that_is_best_on_the_choosing_part_is_kept(scores):
    """What is reported are the choosing examples again, so that they show of which epoch the predictions are."""
    data, then = toy_data(GRADED), []
    own = data.train.take(CHOOSE)
    found = tuned(replace(data, reported=own), replace(ONE, epochs=3), metric=scripted(scores, then))
    assert [labels for _, labels in then] == [own.labels.tolist()] * 3
    epochs = [predicted for predicted, _ in then]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert said(found)[0] == epochs[scores.index(max(scores))]
    assert list(found.selection.values()) == [max(scores)]


def test_labels_of_the_choosing_part_are_not_learned():
    data = toy_data(GRADED)
    usual = said(tuned(data, ONE))
    assert said(tuned(mirrored(data, CHOOSE), ONE)) == usual
    assert said(tuned(mirrored(data, FIT), ONE)) != usual


def test_each_seed_draws_a_head_of_its_own():
    """At a rate of 0, predictions are those of the head as it was drawn."""
    still = replace(ONE, rates=(0.0,), seeds=3)
    first, second, third = said(tuned(toy_data(GRADED), still))
    assert first != second != third != first
    assert said(tuned(toy_data(GRADED), replace(still, seed=1, seeds=1))) == [second]


def test_each_epoch_of_each_seed_has_batches_in_an_order_of_its_own(monkeypatch):
    orders, real = [], finetuning.batches

    def noted(rows, *, seed):
        orders.append([tuple(batch) for batch in real(rows, seed=seed)])
        return real(rows, seed=seed)

    monkeypatch.setattr(finetuning, "batches", noted)
    tuning = replace(ONE, seeds=2, epochs=2)
    tuned(toy_data(), tuning)
    assert len({tuple(order) for order in orders}) == len(orders) == 4
    assert all(sorted(k for batch in order for k in batch) == FIT.tolist() for order in orders)
    before = orders.copy()
    tuned(toy_data(), tuning)
    assert orders[4:] == before


def small():
    return Together(nn.Linear(3, 3), nn.Linear(3, 1))


def loss_of(together, *, times=1.0):
    return times * together.head(together.network(torch.ones(2, 3))).square().sum()


def test_a_rate_rises_in_the_first_tenth_of_the_steps_and_then_falls_to_nothing():
    together, rates = small(), []
    descent = Descent(together, pace=Pace(rate=1e-2), steps=100)
    for _ in range(100):
        rates.append(descent.schedule.get_last_lr()[0])
        descent.step(loss_of(together))
    assert rates[:10] == pytest.approx([1e-2 * (k + 1) / 10 for k in range(10)])
    assert rates[10:] == pytest.approx([1e-2 * k / 90 for k in range(90, 0, -1)])
    assert descent.schedule.get_last_lr()[0] == 0.0


def test_the_rate_of_a_training_reaches_its_whole_and_has_fallen_to_nothing_at_its_end(monkeypatch):
    rates, real = [], Descent.step

    def noted(self, loss):
        rates.append(self.schedule.get_last_lr()[0])
        real(self, loss)
        rates.append(self.schedule.get_last_lr()[0])

    monkeypatch.setattr(Descent, "step", noted)
    tuned(toy_data(), replace(ONE, epochs=5))
    assert len(rates) == 2 * 5 * 2  # of 5 epochs of 2 batches, before and after each step
    assert max(rates) == pytest.approx(1e-2)
    assert rates[-2] > rates[-1] == 0.0


def size_of(gradients):
    return math.sqrt(sum(float(each.square().sum()) for each in gradients))


def test_a_large_gradient_is_cut_to_a_length_of_one_over_network_and_head_and_a_small_one_is_left():
    together = small()
    descent = Descent(together, pace=Pace(rate=1e-3), steps=10)
    for times, least in ((1e4, 10.0), (1e-4, 0.0)):
        own = list(together.parameters())
        before = size_of(torch.autograd.grad(loss_of(together, times=times), own))
        assert before > least
        descent.step(loss_of(together, times=times))
        assert size_of(each.grad for each in own) == pytest.approx(min(1.0, before), rel=1e-3)


def nearness(predicted, labels):
    return -float(np.square(predicted - labels).mean())


@pytest.mark.parametrize(("sign", "chosen"), [(1, min(PENALTIES)), (-1, max(PENALTIES))])
def test_the_strength_of_a_probe_is_chosen_on_examples_that_it_is_not_fitted_on(sign, chosen):
    """A penalty never brings a line nearer to what it is fitted on, but it does to degrees the other way round.

    Of these there are more, so that a line through all would go their way.
    """
    draw = np.random.default_rng(0)
    seen = draw.normal(size=(64, 3))
    degrees = seen @ np.array([2.0, -1.0, 0.5])
    few, many = CHOOSE, FIT
    degrees[many] *= sign
    found = probe(seen, degrees, seen, parts=(few, many), metric=nearness, graded=True)
    assert found.strength == chosen


@pytest.mark.parametrize("graded", [False, True])
def test_a_probe_of_the_chosen_strength_is_fitted_on_the_choosing_part_too(graded):
    """Of the second feature the examples that are fitted on at first know nothing, of the first one the others."""
    seen, labels = np.zeros((64, 2)), np.arange(64) % 2
    seen[FIT, 0] = labels[FIT] - 0.5
    seen[CHOOSE, 1] = labels[CHOOSE] - 0.5
    asked = np.array([[0.0, -0.5], [0.0, 0.5], [-0.5, 0.0], [0.5, 0.0]])
    metric = nearness if graded else accuracy
    degrees = labels.astype(np.float64) if graded else labels
    found = probe(seen, degrees, asked, parts=(FIT, CHOOSE), metric=metric, graded=graded).predictions
    assert found[0] < found[1]
    assert found[2] < found[3]


def judge(data, *, school=None):
    own = subject()
    bag = replace(own, network=own.network.embedding, read=read_embeddings)
    bench = Bench(own=own, bag=bag, random=[subject(seed=1), subject(seed=2)], facts={})
    return TaskJudge(bench=bench, data=data, tuning=ONE, seed=0, school=school)


@pytest.mark.parametrize(("head", "task"), [("whitened", GRADED), ("probe", PAIRED), ("slot_probe", PAIRED)])
def test_whitening_is_fitted_on_training_sentences_alone_for_each_that_is_judged(monkeypatch, head, task):
    found, seen, real = judge(toy_data(task)), [], Whitening.fitted

    def noted(vectors):
        seen.append(vectors)
        return real(vectors)

    monkeypatch.setattr(Whitening, "fitted", staticmethod(noted))
    found.measure(head)
    subjects = [found.bench.own, found.bench.bag, *found.bench.random]
    assert len(seen) == len(subjects)
    sentences = [sentence for column in found.data.train.texts for sentence in column]
    for vectors, each in zip(seen, subjects, strict=True):
        encoder = SentenceEncoder(network=each.network, read=each.read, wording=each.wording)
        assert len(vectors) == len(sentences)
        assert np.allclose(vectors, encoder.encode(sentences).mean(1, keepdims=True), atol=1e-5)


def recorded(monkeypatch):
    """Keeps the draws and the parts of what would be fine-tuned; nothing is."""
    asked = []

    def noted(draws, head, data, *, parts, metric, tuning):
        asked.append((draws, parts))
        pace = tuning.paces[0]
        return Tuned(predictions=[data.reported.labels], pace=pace, selection={pace: 1.0})

    monkeypatch.setattr(measuring, "fine_tuned", noted)
    return asked


def small_school():
    lesson = Lesson(name="toy", classes=2, examples=same_letter(32))
    return School(lessons=[lesson], rate=1e-2, epochs=1, seed=0)


def test_a_school_teaches_the_model_and_neither_the_bag_nor_random_encoders(monkeypatch):
    asked = recorded(monkeypatch)
    school = small_school()
    found = judge(toy_data(), school=school)
    figure = found.measure("pair")[0]
    own, bag, random = ([draw.network for draw in draws] for draws, _ in asked)
    (taught,) = own
    after, before = (each.state_dict()["embedding.weight"] for each in (taught, found.bench.own.network))
    assert not torch.equal(after, before)
    assert taught is school.taught(found.bench.own, "pair").network
    assert bag == [found.bench.bag.network]
    assert random == [each.network for each in found.bench.random]
    assert figure.protocol["taught_first"] == {"toy": 32}


def test_a_head_that_compares_nothing_is_not_taught(monkeypatch):
    asked = recorded(monkeypatch)
    found = judge(toy_data(), school=small_school())
    figure = found.measure("pooled")[0]
    assert asked[0][0] == [found.bench.own]
    assert "taught_first" not in figure.protocol


def test_all_that_are_judged_choose_on_the_same_examples_and_are_fitted_on_the_others(monkeypatch):
    asked, real = recorded(monkeypatch), measuring.probe

    def noted(*features, parts, **rest):
        asked.append((None, parts))
        return real(*features, parts=parts, **rest)

    monkeypatch.setattr(measuring, "probe", noted)
    found = judge(toy_data())
    for head in ("pair", "probe"):
        found.measure(head)
    assert len(asked) == 3 + 4  # the model, the bag and random encoders: of these each draw is probed by itself
    assert len({(*fit.tolist(), -1, *choose.tolist()) for _, (fit, choose) in asked}) == 1
    fit, choose = asked[0][1]
    assert sorted([*fit.tolist(), *choose.tolist()]) == list(range(len(found.data.train)))


def test_a_limit_draws_training_examples_at_random_from_all_and_others_for_another_seed():
    pairs = [((f"first {k}", f"second {k}"), str(k % 2)) for k in range(60)]
    splits = {"train": ("train", pairs), "test": ("test", [(("a", "b"), "1"), (("c", "d"), "0")])}
    drawn = [task_data(PAIRED, splits, wanted=None, limit=20, seed=seed).train.texts[0] for seed in range(8)]
    assert all(len(set(each)) == 20 for each in drawn)
    assert len({frozenset(each) for each in drawn}) == 8
    assert len({text for each in drawn for text in each}) > 40
