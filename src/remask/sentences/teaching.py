"""A network that learns the labels of several tasks on pairs at once, before it is fine-tuned on one of them.

One head answers for all tasks, each by outputs of its own; batches hold pairs of all tasks. What is kept is the
network alone: heads of tasks begin anew (multi-task learning before fine-tuning: arXiv:1901.11504, arXiv:1811.01088).

Shape letters: n examples, K outputs of all tasks together.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from remask.errors import RunError, UserError
from remask.randomness import derive_seed, keyed_dropout, keyed_generator
from remask.sentences.finetuning import BATCH, Descent, Pace, Subject, Together, batches
from remask.sentences.head_names import make_head, tokens_for
from remask.sentences.splits import Labelled, TaskData, labelled_rows, parted, task_data, wording_of
from remask.sentences.tables import Row
from remask.sentences.tasks import DEV, LESSONS, TRAIN

Splits = Mapping[str, tuple[str, Sequence[Row]]]
"""Split → (its name, its rows)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """What is taught of one task.

    Attributes:
        name: of the task.
        classes: how many there are; 0 for degrees.
        examples: pairs; classes as indices, or degrees of mean 0 and variance 1.
    """

    name: str
    classes: int
    examples: Labelled

    @property
    def outputs(self) -> int:
        """How many numbers a head gives for it."""
        return max(1, self.classes)


def lessons_of(opened: Mapping[str, Splits], *, judged: Mapping[str, TaskData], seed: int) -> list[Lesson]:
    """The training pairs of some tasks, without any that a figure or a setting will be read from.

    Left out are pairs of the same words as one of a split which is not trained on, pairs with a sentence of the part of
    a judged task's training examples that settings are chosen on, in whatever task they stand; and pairs that were
    there already.

    Args:
        opened: task of `LESSONS` → its splits.
        judged: the tasks that will be reported.
        seed: of the parts that settings are chosen on.

    Raises:
        UserError: a task has nothing to teach.
    """
    trained = {name: _trained(name, splits, judged=judged, seed=seed) for name, splits in opened.items()}
    held = {wording_of(pair) for splits in opened.values() for pair in _other_rows(splits)}
    choosing: set[str] = set()
    for data in judged.values():
        _, choose = parted(data.train, seed=seed)
        held.update(wording_of(pair) for pair in zip(*data.reported.texts, strict=True))
        choosing.update(sentence for column in data.train.take(choose).texts for sentence in wording_of(column))
    lessons = []
    for name, (examples, classes) in trained.items():
        kept = []
        for k, pair in enumerate(zip(*examples.texts, strict=True)):
            if (words := wording_of(pair)) not in held and choosing.isdisjoint(words):
                held.add(words)
                kept.append(k)
        lessons.append(_lesson(name, examples.take(np.array(kept, dtype=np.int64)), classes))
    return lessons


def _trained(
    name: str, splits: Splits, *, judged: Mapping[str, TaskData], seed: int
) -> tuple[Labelled, tuple[str, ...]]:
    """The training examples of a task, and its classes; a single split is all training.

    Raises:
        UserError: there is none.
    """
    if name in judged:
        return judged[name].train, judged[name].classes
    if not splits:
        raise UserError(f"--taught {name}: it has no labelled pair. Give its training file, or leave it out")
    if len(splits) > 1:
        data = task_data(LESSONS[name], splits, wanted=None, limit=None, seed=seed)
        return data.train, data.classes
    ((where, rows),) = splits.values()
    return labelled_rows(rows, LESSONS[name], where=f"{name}, {where}")


def _other_rows(splits: Splits) -> list[tuple[str, ...]]:
    """The sentences of the splits that are not trained on."""
    trained = TRAIN if TRAIN in splits else DEV if DEV in splits else next(iter(splits))
    return [sentences for split, (_, rows) in splits.items() if split != trained for sentences, _ in rows]


def _lesson(name: str, examples: Labelled, classes: tuple[str, ...]) -> Lesson:
    if not len(examples):
        raise UserError(
            f"--taught {name}: no pair is left to teach, since all stand in a split that is reported or chosen on, or "
            "in a lesson before. Leave it out"
        )
    if classes:
        return Lesson(name=name, classes=len(classes), examples=examples)
    spread = float(examples.labels.std()) or 1.0
    standard = (examples.labels - examples.labels.mean()) / spread
    return Lesson(name=name, classes=0, examples=replace(examples, labels=standard))


def taught(subject: Subject, head: str, lessons: Sequence[Lesson], *, rate: float, epochs: int, seed: int) -> Subject:
    """The subject with a network that learned all lessons together.

    Args:
        subject: it stays as it was.
        head: through which it learns; one for pairs.
        lessons: what it learns.
        rate: the largest learning rate.
        epochs: over all lessons.
        seed: of the head and of the order.

    Raises:
        RunError: the loss was not finite.
    """
    network = copy.deepcopy(subject.network)
    outputs = [lesson.outputs for lesson in lessons]
    generator = keyed_generator(seed, "taught", head)
    made = make_head(head, network, subject.read, wording=subject.wording, outputs=sum(outputs), generator=generator)
    together = Together(network, made)
    rows = [row for lesson in lessons for row in tokens_for(head, lesson.examples, subject.wording)]
    task = np.repeat(np.arange(len(lessons)), [len(lesson.examples) for lesson in lessons])
    labels = torch.from_numpy(np.concatenate([lesson.examples.labels for lesson in lessons]).astype(np.float64))
    descent = Descent(together, pace=Pace(rate=rate), steps=epochs * math.ceil(len(rows) / BATCH))
    together.train()
    with keyed_dropout(seed, "lessons", device=next(network.parameters()).device):
        for epoch in range(epochs):
            for chosen in batches(rows, seed=derive_seed(seed, "lessons", epoch)):
                answers = together([rows[k] for k in chosen]).float()
                loss = _loss(answers, labels[chosen], torch.from_numpy(task[chosen]), lessons)
                if not torch.isfinite(loss):
                    raise RunError(f"the loss of {head} over {len(lessons)} tasks was not finite at a rate of {rate:g}")
                descent.step(loss)
    return replace(subject, network=network.eval())


@dataclass(frozen=True, kw_only=True, eq=False)
class School:
    """What a network is taught before it is fine-tuned on a task, once for each head.

    Attributes:
        lessons: what it learns.
        rate: the largest learning rate.
        epochs: over all lessons.
        seed: of the heads and of the order.
    """

    lessons: Sequence[Lesson]
    rate: float
    epochs: int
    seed: int
    _taught: dict[str, Subject] = field(default_factory=dict)

    def taught(self, subject: Subject, head: str) -> Subject:
        """The subject, taught through a head; it must be the same one at each call."""
        if head not in self._taught:
            self._taught[head] = taught(subject, head, self.lessons, rate=self.rate, epochs=self.epochs, seed=self.seed)
        return self._taught[head]

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the protocol says of it."""
        return {
            "taught_first": {lesson.name: len(lesson.examples) for lesson in self.lessons},
            "taught_rate": self.rate,
            "taught_epochs": self.epochs,
            "taught_beside": "nothing",
        }


def _loss(answers: Float[Tensor, "n K"], labels: Tensor, task: Tensor, lessons: Sequence[Lesson]) -> Tensor:
    """The mean over pairs of the squared error of a degree or the cross-entropy of a class, by each task's outputs."""
    total, start = answers.new_zeros(()), 0
    for number, lesson in enumerate(lessons):
        own = task == number
        said, true = answers[own.to(answers.device), start : start + lesson.outputs], labels[own].to(answers.device)
        start += lesson.outputs
        if lesson.classes:
            total = total + functional.cross_entropy(said, true.long(), reduction="sum")
        else:
            total = total + functional.mse_loss(said[:, 0], true.to(said.dtype), reduction="sum")
    return total / len(labels)
