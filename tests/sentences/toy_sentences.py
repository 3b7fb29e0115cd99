"""A concept network, sentences and tasks at toy size."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from remask.sentences.encoders import Wording, read_concepts
from remask.sentences.finetuning import Subject
from remask.sentences.splits import Labelled, TaskData
from remask.sentences.tasks import SENTENCE_TASKS, HubPlace, SentenceTask
from remask.tokenizers.plain import CharacterTokenizer

TOKENIZER = CharacterTokenizer("abcdef ")
WORDING = Wording(tokenizer=TOKENIZER, length=12)
PAIRED = SentenceTask(
    name="toy", folders=("toy",), sentences=2, metrics=("accuracy", "f1"), hub=HubPlace(dataset="toy"), positive="1"
)
SINGLE = SentenceTask(name="toy", folders=("toy",), sentences=1, metrics=("accuracy",), hub=HubPlace(dataset="toy"))
GRADED = SENTENCE_TASKS["stsb"]


@dataclass(frozen=True)
class Told:
    vectors: torch.Tensor
    real: torch.Tensor


class ToyConcepts(nn.Module):
    """Two concepts: what two learned queries attend to. The decoder adds their mean to what it is asked at."""

    def __init__(self, seed=0, width=16):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.concepts = 2
        self.embedding = nn.Embedding(TOKENIZER.vocab_size, width)
        self.queries = nn.Parameter(torch.empty(2, width))
        self.head = nn.Linear(width, TOKENIZER.vocab_size)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5, generator=draw)
        self.asked = []

    def encode(self, source, *, real):
        x = self.embedding(source)
        scores = (self.queries @ x.mT).masked_fill(~real[:, None], -torch.inf)
        there = real.any(-1, keepdim=True).expand(-1, 2)
        return Told(scores.softmax(-1) @ x, there)

    def decode(self, z, t, concepts, *, segments, positions):
        self.asked.append((z, t, segments))
        states = self.embedding(z) + concepts.vectors.mean(1, keepdim=True)
        return self.head(states[positions])


class Dropping(ToyConcepts):
    """Of which dropout leaves out a third while it is trained."""

    def encode(self, source, *, real):
        told = super().encode(source, real=real)
        return replace(told, vectors=nn.functional.dropout(told.vectors, 0.3, training=self.training))


class TwoBands(ToyConcepts):
    bands = 2


class ThreeBands(ToyConcepts):
    bands, counted_band = 3, 1


def subject(seed=0):
    return Subject(network=ToyConcepts(seed), read=read_concepts, wording=WORDING)


def words(count, *, seed):
    draw = np.random.default_rng(seed)
    return tuple("".join(draw.choice(list("bcdef"), 5)) for _ in range(count))


def same_letter(count, *, seed=0):
    """Pairs that are labelled 1 where both sentences hold an a."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, count)
    first = tuple(
        f"aa{word}" if label else word for word, label in zip(words(count, seed=seed + 1), labels, strict=True)
    )
    second = tuple(
        f"a{word}a" if label else word for word, label in zip(words(count, seed=seed + 2), labels, strict=True)
    )
    return Labelled(texts=(first, second), labels=labels)


def apart(count):
    """Examples of one sentence each, no two the same."""
    return Labelled(texts=(tuple(f"sentence {k}" for k in range(count)),), labels=np.arange(count) % 2)


def toy_data(task=PAIRED, *, train=64, reported=40, classes=("0", "1")):
    def examples(count, seed):
        found = same_letter(count, seed=seed)
        if task.sentences == 1:
            found = Labelled(texts=found.texts[:1], labels=found.labels)
        return Labelled(texts=found.texts, labels=found.labels + 0.5) if task.graded else found

    held, seen = examples(reported, 7), examples(train, 3)
    return TaskData(
        task=task,
        train=seen,
        reported=held,
        sentences=tuple(text for column in seen.texts for text in column),
        classes=() if task.graded else classes,
        trained_on="train",
        split="test",
        overlapping=0,
        identity="held",
        training_identity="seen",
    )
