"""What is asked: the questions of a split, the worked examples shown before each, the most common answer."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from remask.data.documents import Pair
from remask.data.hub import cells, own_splits
from remask.data.readers import extension
from remask.data.splits import SPLITS, Split
from remask.data.tables import EXTENSIONS, LINES, Columns, open_pairs
from remask.data.tasks import TASKS, task_readers
from remask.data.tasks.base import shuffled
from remask.errors import UserError
from remask.evaluation.likelihood import spread_indices
from remask.evaluation.measurement import identity_of
from remask.randomness import derive_seed
from remask.reasoning_tasks.tasks import ReasoningTask

HUB = "hf"
"""What stands in place of a folder for Hugging Face datasets."""

Splits = Mapping[Split, tuple[str, Sequence[Pair]]]
"""Split → the name of its file or split, and its questions with answers."""


@dataclass(frozen=True, kw_only=True)
class Exam:
    """Questions to be answered.

    Attributes:
        task: says what is right.
        split: the name of the split or file that they are from.
        questions: with their answers.
        examples: of the training split, shown before each question; of them the same for all.
        common: the shortest response with the answer that is most common in training; None without a training split.
        identity: which questions these are, see `identity_of`.
    """

    task: ReasoningTask
    split: str
    questions: tuple[Pair, ...]
    examples: tuple[Pair, ...]
    common: str | None
    identity: str


def exam_of(
    task: ReasoningTask, splits: Splits, *, wanted: Split | None, limit: int | None, shots: int, seed: int
) -> Exam:
    """The questions of one split.

    Args:
        task: the task.
        splits: all that there are.
        wanted: the split to ask; None: test where it is there, else validation.
        limit: questions at most, spread evenly over the split; None for all.
        shots: examples, drawn from the training split.
        seed: of that draw.

    Raises:
        UserError: there is no such split, or there are too few examples.
    """
    asked = wanted or ("test" if "test" in splits else "validation")
    if asked not in splits:
        there = ", ".join(f"{split} ({name})" for split, (name, _) in splits.items()) or "none"
        raise UserError(f"{task.name} has no {asked} split; there are: {there}")
    name, pairs = splits[asked]
    chosen = tuple(pairs[int(k)] for k in spread_indices(len(pairs), limit))
    known = splits["train"][1] if "train" in splits else ()
    if shots > len(known):
        raise UserError(f"--shots {shots}: {task.name} has {len(known)} training questions to show as examples")
    order = shuffled(Random(derive_seed(seed, "reasoning", "shots", task.name)), len(known))[:shots]
    return Exam(
        task=task,
        split=name,
        questions=chosen,
        examples=tuple(known[k] for k in order),
        common=_most_common([task.shortest(pair.response) for pair in known]),
        identity=identity_of("reasoning", task.name, [[pair.prompt, pair.response] for pair in chosen]),
    )


def open_splits(task: ReasoningTask, *, place: str | None, cache: Path) -> Splits:
    """The splits of a task.

    Args:
        task: the task.
        place: a folder, `hf`, or None for a task that is made.
        cache: the cache home, where what is made is kept.

    Raises:
        UserError: the task has no such place, or a file cannot be read.
    """
    if place == HUB and task.hub is not None:
        return _hub_splits(task)
    if place not in (None, HUB) and task.place is not None:
        return _folder_splits(task, Path(str(place)).expanduser())
    if task.made is None:
        where = f"--reasoning FOLDER, with {task.place.folder}/ in it" if task.place else "a folder"
        raise UserError(f"--task {task.name} needs {where}{', or --reasoning hf' if task.hub else ''}")
    readers = task_readers(TASKS[task.made], cache=cache)
    found: dict[Split, tuple[str, Sequence[Pair]]] = {}
    for split, reader in readers.items():
        found[split] = (split, [document for document in reader if isinstance(document, Pair)])
    return found


def _folder_splits(task: ReasoningTask, folder: Path) -> Splits:
    place = task.place
    assert place is not None
    if not (folder / place.folder).is_dir():
        raise UserError(f"--reasoning {folder}: there is no folder {place.folder}/ in it for --task {task.name}")
    found: dict[Split, tuple[str, Sequence[Pair]]] = {}
    for split, names in place.files.items():
        if (path := next(_files(folder / place.folder, names), None)) is not None:
            pairs = open_pairs(path, columns=Columns(prompt=place.prompt, response=place.response))
            found[split] = (path.name.removesuffix(extension(path)), _problems(task, pairs, where=str(path)))
    if not found:
        named = ", ".join(name for names in place.files.values() for name in names)
        raise UserError(f"{folder / place.folder} has no file of {task.name}: none is called {named}")
    return found


def _hub_splits(task: ReasoningTask) -> Splits:
    assert task.hub is not None
    assert task.place is not None
    keys = (task.place.prompt, task.place.response)
    there = own_splits(task.hub.dataset, config=task.hub.config, streaming=False, revision=task.hub.revision)
    found: dict[Split, tuple[str, Sequence[Pair]]] = {}
    for split in SPLITS:
        own = next((name for name in task.place.files[split] if name in there), None)
        if own is not None:
            where = f"{task.hub.dataset}, split {own}"
            rows = cells(there[own], keys, where=where, options="its columns")
            found[split] = (own, _problems(task, (Pair(prompt=p, response=r) for p, r in rows), where=where))
    return found


def _files(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    return (path for name in names for end in (*EXTENSIONS, *LINES) if (path := folder / f"{name}{end}").is_file())


def _problems(task: ReasoningTask, pairs: Iterable[Pair], *, where: str) -> list[Pair]:
    assert task.place is not None
    problem = task.place.problem
    try:
        found = [problem(pair) for pair in pairs]
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    if not found:
        raise UserError(f"{where}: there is no question in it")
    return found


def _most_common(responses: Sequence[str]) -> str | None:
    return Counter(responses).most_common(1)[0][0] if responses else None
