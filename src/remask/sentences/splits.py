"""What a sentence task is trained and reported on: splits, without pairs that stand in both.

Shape letters: n examples.
"""

import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from remask.data.readers import extension
from remask.errors import UserError
from remask.evaluation.measurement import identity_of
from remask.randomness import derive_seed
from remask.sentences.tables import EXTENSIONS, Row, file_rows, has_labels
from remask.sentences.tasks import DEV, SPLIT_FILES, TEST, TRAIN, SentenceTask

Labels = npt.NDArray[np.int64] | npt.NDArray[np.float64]
SELECTION_SHARE = 0.1
SELECTION_MOST = 1000
"""The part of the training examples on which settings are chosen, and how many it has at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Labelled:
    """Labelled sentences or pairs.

    Attributes:
        texts: the first sentences, then, for pairs, the second ones; n each.
        labels: classes as indices, or degrees [n].
    """

    texts: tuple[tuple[str, ...], ...]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: npt.NDArray[np.int64]) -> "Labelled":
        """The examples of these numbers, in their order."""
        texts = tuple(tuple(column[k] for k in chosen.tolist()) for column in self.texts)
        return Labelled(texts=texts, labels=self.labels[chosen])


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskData:
    """One task's examples.

    Attributes:
        task: the task.
        train: what is trained on, settings included.
        reported: what is reported on, once.
        sentences: all training sentences, whose labels are not read: frequencies of words are counted in them.
        classes: the labels that the indices stand for; empty for degrees.
        trained_on: name of the split or file of `train`.
        split: name of the split or file of `reported`.
        overlapping: training examples that were left out because their sentences are in `reported`.
        identity: a hash of the reported examples.
        training_identity: a hash of the training examples.
    """

    task: SentenceTask
    train: Labelled
    reported: Labelled
    sentences: tuple[str, ...]
    classes: tuple[str, ...]
    trained_on: str
    split: str
    overlapping: int
    identity: str
    training_identity: str

    @property
    def positive(self) -> int | None:
        """The index of the class that F1 counts."""
        return None if self.task.positive is None else self.classes.index(self.task.positive)


Opener = Callable[[SentenceTask], Mapping[str, tuple[str, Sequence[Row]]]]
"""Task → split → (name of its file or split, rows); a split without labels is absent."""


def task_data(
    task: SentenceTask,
    splits: Mapping[str, tuple[str, Sequence[Row]]],
    *,
    wanted: str | None,
    limit: int | None,
    seed: int,
) -> TaskData:
    """The examples of a task, drawn out of the splits that there are.

    Where no train split is there, dev is trained on and test is reported.

    Args:
        task: the task.
        splits: split → (its name, its rows); at least two of train, dev and test.
        wanted: the split to report, dev or test; None: test where it is there and labelled, else dev.
        limit: training examples at most, drawn at random; None for all.
        seed: of that draw.

    Raises:
        UserError: there is no such split, or nothing is left to train on.
    """
    reported = wanted or (TEST if TEST in splits else DEV)
    trained = TRAIN if TRAIN in splits else DEV
    if reported not in splits or trained not in splits or reported == trained:
        there = ", ".join(f"{split} ({name})" for split, (name, _) in splits.items()) or "none"
        raise UserError(
            f"{task.name}: reporting on {reported} needs labelled splits {reported} and train (or dev in place of "
            f"train, for test); there are: {there}"
        )
    (trained_on, rows), (split, held) = splits[trained], splits[reported]
    seen = {wording_of(sentences) for sentences, _ in held}
    kept = [row for row in rows if wording_of(row[0]) not in seen]
    overlapping, identity = len(rows) - len(kept), identity_of("sentences", task.name, held)
    training_identity = identity_of("sentences", task.name, kept)
    sentences = tuple(sentence for row in kept for sentence in row[0])
    if limit is not None and limit < len(kept):
        chosen = np.sort(
            np.random.default_rng(derive_seed(seed, "sentences", task.name)).permutation(len(kept))[:limit]
        )
        kept = [kept[k] for k in chosen.tolist()]
    classes = () if task.graded else tuple(sorted({label for _, label in kept}))
    drawn = trained_on if limit is None else f"{trained_on} (of which {len(kept)} examples were drawn)"
    train = _labelled(kept, classes, where=f"{task.name}, {trained_on}")
    return TaskData(
        task=task,
        classes=_checked(classes, task, where=drawn),
        train=train,
        reported=_varied(_labelled(held, classes, where=f"{task.name}, {split}"), where=f"{task.name}, {split}"),
        sentences=sentences,
        trained_on=trained_on,
        split=split,
        overlapping=overlapping,
        identity=identity,
        training_identity=training_identity,
    )


def parted(examples: Labelled, *, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Numbers of the examples to fit on and of those that settings are chosen on: a tenth, at most 1000.

    No sentence stands in both parts, so that no setting is chosen for knowing sentences by heart. Groups of `linked`
    examples stay together: in random order, each goes to the choosing part if there is room for it and no class is left
    without an example to fit on. A group that is larger than the room is fitted on; where all are, the smallest one
    chooses.

    Args:
        examples: all training examples.
        seed: of the order.

    Raises:
        UserError: there are fewer than 10 examples, shared sentences link them all, or every group has the last of a
            class.
    """
    count = len(examples)
    if count < 10:
        raise UserError(f"{count} training examples are too few to choose settings on a part of them; give 10 or more")
    group = linked(examples)
    sizes = np.bincount(group)
    if len(sizes) == 1:
        raise UserError(
            f"shared sentences link all {count} training examples, so that none is left to choose settings on; "
            "give some that share none"
        )
    room = min(max(1, round(SELECTION_SHARE * count)), SELECTION_MOST)
    held = _classes_of(examples, group)
    left = held.sum(0)
    chosen = np.zeros(len(sizes), dtype=bool)
    for each in np.random.default_rng(derive_seed(seed, "selection")).permutation(len(sizes)).tolist():
        if sizes[each] <= room and (left > held[each]).all():
            chosen[each] = True
            room, left = room - sizes[each], left - held[each]
    if not chosen.any():
        spare = np.flatnonzero((left > held).all(1))
        if not len(spare):
            raise UserError(
                f"of {count} training examples none can be spared to choose settings on: each group that shares "
                "sentences has the last of a label. Give more of each label"
            )
        chosen[spare[sizes[spare].argmin()]] = True
    return np.flatnonzero(~chosen[group]), np.flatnonzero(chosen[group])


def refuse_linked(data: TaskData) -> None:
    """Refuses reported examples whose errors cannot be told.

    Raises:
        UserError: shared sentences link them all.
    """
    if linked(data.reported).max() == 0:
        raise UserError(
            f"{data.task.name}, {data.split}: shared sentences link all {len(data.reported)} examples, so that no "
            "error can be told. Give some that share none"
        )


def _classes_of(examples: Labelled, group: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many examples of each class that there is each group has [groups classes]; no class of degrees."""
    classes = np.unique(examples.labels) if examples.labels.dtype == np.int64 else np.empty(0, dtype=np.int64)
    found = np.zeros((group.max() + 1, len(classes)), dtype=np.int64)
    if len(classes):
        np.add.at(found, (group, np.searchsorted(classes, examples.labels)), 1)
    return found


def linked(examples: Labelled) -> npt.NDArray[np.int64]:
    """The number of each example's group [n]: examples that share the words of a sentence are in one.

    So are examples that share one with a third: groups are the connected components of that graph. Sentences that say
    nothing link none.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    count, number = len(examples), dict[str, int]()
    said = [(k, _said(sentence)) for column in examples.texts for k, sentence in enumerate(column)]
    found = [number.setdefault(words, len(number)) for _, words in said if words]
    rows = [k for k, words in said if words]
    nodes = count + len(number)
    graph = coo_matrix((np.ones(len(found)), (rows, count + np.array(found, dtype=np.int64))), shape=(nodes, nodes))
    _, group = connected_components(graph, directed=False)
    return np.unique(group[:count], return_inverse=True)[1].astype(np.int64)


def folder_splits(folder: Path, task: SentenceTask) -> dict[str, tuple[str, list[Row]]]:
    """The splits of a task that a folder holds, labelled ones alone: a test file may lack the column of labels.

    Args:
        folder: with a folder of the task's name in it.
        task: the task.

    Raises:
        UserError: the folder or the task's folder is missing, or a file cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"--sentences {folder}: there is no such folder. Give one that holds {task.folders[0]}/, or hf")
    place = next((folder / name for name in task.folders if (folder / name).is_dir()), None)
    if place is None:
        named = " or ".join(f"{name}/" for name in task.folders)
        raise UserError(
            f"--sentences {folder}: it has no {named} for --task {task.name}, with train, dev and test files"
        )
    found = {}
    for split, names in SPLIT_FILES.items():
        path = next(_files(place, names), None)
        if path is None or (split == TEST and not has_labels(path, task)):
            continue
        rows = list(file_rows(path, task))
        if rows:
            found[split] = (path.name.removesuffix(extension(path)), rows)
    return found


def _files(place: Path, names: Sequence[str]) -> Iterator[Path]:
    return (path for name in names for end in EXTENSIONS if (path := place / f"{name}{end}").is_file())


def wording_of(sentences: Sequence[str]) -> tuple[str, ...]:
    """What two rows share that say the same: their words, whatever their order, case, punctuation and spaces."""
    return tuple(sorted(map(_said, sentences)))


def _said(sentence: str) -> str:
    """The letters, marks and digits of a sentence, word by word; of one without any all but spaces."""
    folded = unicodedata.normalize("NFKC", sentence).casefold()
    words = "".join(sign if unicodedata.category(sign)[0] in "LMN" else " " for sign in folded)
    return " ".join(words.split() or sentence.split())


def labelled_rows(rows: Sequence[Row], task: SentenceTask, *, where: str) -> tuple[Labelled, tuple[str, ...]]:
    """Rows as labelled examples, and their classes; none for degrees.

    Raises:
        UserError: there is no row, or a degree is not a number.
    """
    classes = () if task.graded else tuple(sorted({label for _, label in rows}))
    return _labelled(rows, classes, where=where), classes


def _labelled(rows: Sequence[Row], classes: tuple[str, ...], *, where: str) -> Labelled:
    if not rows:
        raise UserError(f"{where}: no labelled example is left")
    texts = tuple(zip(*(sentences for sentences, _ in rows), strict=True))
    labels = [label for _, label in rows]
    if classes:
        unknown = sorted(set(labels) - set(classes))
        if unknown:
            raise UserError(
                f"{where}: label {unknown[0]!r} is not among those trained on: {', '.join(classes)}. Train on all "
                "labels, or on more examples where they are drawn"
            )
        return Labelled(texts=texts, labels=np.array([classes.index(label) for label in labels], dtype=np.int64))
    return Labelled(texts=texts, labels=np.array([degree_of(label, where=where) for label in labels]))


def degree_of(label: str, *, where: str) -> float:
    """A label as a degree.

    Raises:
        UserError: it is no number; the message says `where`.
    """
    try:
        degree = float(label)
    except ValueError:
        degree = math.nan
    if not math.isfinite(degree):
        raise UserError(
            f"{where}: {label!r} is no degree. Give numbers, and leave the label of an unlabelled row empty"
        )
    return degree


def _varied(examples: Labelled, *, where: str) -> Labelled:
    """The examples.

    Raises:
        UserError: all have the same degree, with which nothing correlates.
    """
    if examples.labels.dtype != np.int64 and len(examples) > 1 and np.ptp(examples.labels) == 0:
        raise UserError(
            f"{where}: all {len(examples)} degrees are {examples.labels[0]:g}, so that no correlation can be told. "
            "Give degrees that vary; of unlabelled rows leave the label empty"
        )
    return examples


def _checked(classes: tuple[str, ...], task: SentenceTask, *, where: str) -> tuple[str, ...]:
    if len(classes) == 1 or (task.positive is not None and task.positive not in classes):
        need = "two classes" if task.positive is None else f"two classes, {task.positive} among them"
        raise UserError(f"{task.name}, {where}: its labels must be of {need}; there is {', '.join(classes)}")
    return classes
