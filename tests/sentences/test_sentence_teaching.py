"""What a network is taught of several tasks before it is fine-tuned on one."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_sentences import GRADED, PAIRED, Dropping, same_letter, subject, toy_data

from remask.errors import RunError
from remask.sentences.encoders import SentenceEncoder
from remask.sentences.splits import Labelled, parted
from remask.sentences.teaching import Lesson, School, _loss, lessons_of, taught


def rows(*pairs, label="1"):
    return [(pair, label) for pair in pairs]


def many(word, count=20):
    return rows(*((f"{word} {k}", f"{word} two {k}") for k in range(count)))


def lesson(count=64, *, graded=False, seed=0):
    found = same_letter(count, seed=seed)
    labels = found.labels - found.labels.mean() if graded else found.labels
    return Lesson(name="toy", classes=0 if graded else 2, examples=Labelled(texts=found.texts, labels=labels))


def test_what_a_figure_or_a_setting_is_read_from_is_not_taught_in_whatever_task_it_stands():
    qqp = {
        "dev": ("dev", [*many("train"), *rows(("Held,  out", "side"), ("mine", "yours")), (("no", "yes"), "0")]),
        "test": ("test", [*rows(("a", "b")), (("c", "d"), "0")]),
    }
    snli = {"dev": ("dev", rows(("side", "held out!"), ("B", "a"), ("yours", "mine"), ("new", "one"), ("New", "one")))}
    judged = replace(
        toy_data(PAIRED), reported=Labelled(texts=(("x", "held out"), ("y", "side")), labels=np.array([0, 1]))
    )
    first, second = lessons_of({"qqp": qqp, "snli": snli}, judged={"toy": judged}, seed=1)
    assert (first.name, first.classes, len(first.examples)) == ("qqp", 2, 22)
    assert second.examples.texts == (("new",), ("one",))
    _, choose = parted(judged.train, seed=1)
    own = judged.train.take(choose)
    beside = [((text, "beside it"), "0") for column in own.texts for text in column]
    again = {"dev": ("dev", [(pair, "0") for pair in zip(*own.texts, strict=True)] + beside + rows(("new", "one")))}
    (third,) = lessons_of({"snli": again}, judged={"toy": judged}, seed=1)
    assert third.examples.texts == (("new",), ("one",))


def test_a_task_that_is_judged_is_taught_without_the_part_that_settings_are_chosen_on():
    judged = toy_data(GRADED, train=100)
    splits = {"train": ("train", []), "test": ("test", [])}
    (found,) = lessons_of({"stsb": splits}, judged={"stsb": judged}, seed=3)
    fit, _ = parted(judged.train, seed=3)
    taught_pairs = set(zip(*found.examples.texts, strict=True))
    assert taught_pairs <= set(zip(*judged.train.take(fit).texts, strict=True))
    assert found.examples.labels.mean() == pytest.approx(0, abs=1e-9)
    assert found.examples.labels.std() == pytest.approx(1)


def test_each_task_has_a_loss_of_its_own_outputs():
    answers = torch.tensor([[2.0, 9.0, 9.0], [9.0, 1.0, 0.0]])
    lessons = [lesson(graded=True), lesson()]
    loss = _loss(answers, torch.tensor([0.5, 1.0]), torch.tensor([0, 1]), lessons)
    by_hand = ((2.0 - 0.5) ** 2 + math.log(1 + math.e)) / 2
    torch.testing.assert_close(loss, torch.tensor(by_hand))


def test_the_taught_network_is_another_one_the_same_each_time_and_knows_what_it_was_taught():
    own, lessons = subject(), [lesson(200), lesson(100, graded=True, seed=5)]
    before = {name: value.clone() for name, value in own.network.state_dict().items()}
    found, again = (taught(own, "pair", lessons, rate=1e-2, epochs=3, seed=1).network for _ in range(2))
    weights = found.state_dict()
    assert all(torch.equal(before[name], value) for name, value in own.network.state_dict().items())
    assert all(torch.equal(weights[name], value) for name, value in again.state_dict().items())
    assert not torch.equal(weights["embedding.weight"], before["embedding.weight"])

    def apart(network):
        """How far the mean vectors of pairs with and without the letter lie from each other, in their spread."""
        examples = same_letter(200, seed=9)
        encoded = SentenceEncoder(network=network, read=own.read, wording=own.wording).encode(examples.texts[0])
        with_a, without = (encoded.mean(1)[examples.labels == label] for label in (1, 0))
        return np.linalg.norm(with_a.mean(0) - without.mean(0)) / without.std()

    assert apart(found) > 1.2 * apart(own.network)


def test_a_school_teaches_once_a_head_and_says_what():
    school = School(lessons=[lesson(20)], rate=1e-3, epochs=1, seed=0)
    own = subject()
    assert school.taught(own, "pair") is school.taught(own, "pair")
    assert school.facts["taught_first"] == {"toy": 20}


def test_a_loss_that_is_not_finite_is_said():
    broken = subject()
    with torch.no_grad():
        broken.network.embedding.weight.fill_(torch.nan)
    with pytest.raises(RunError, match=r"over 1 tasks was not finite at a rate of 0\.01"):
        taught(broken, "pair", [lesson(20)], rate=1e-2, epochs=1, seed=0)


def test_dropout_in_lessons_is_that_of_the_seed_whatever_was_drawn_before():
    own = replace(subject(), network=Dropping())

    def learned(global_seed, seed=0):
        torch.manual_seed(global_seed)
        found = taught(own, "pair", [lesson(64)], rate=1e-2, epochs=1, seed=seed)
        return found.network.embedding.weight.detach().tolist()

    assert learned(1) == learned(2) != learned(2, seed=1)
