"""What a task is: prompts with responses that are made, not collected, and answers that can be checked exactly."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from remask.data.cache import cached_folder
from remask.data.documents import Pair
from remask.data.readers import Reader
from remask.data.splits import SPLITS, Split
from remask.data.tables import GATHERED, PairReader, write_pairs

FORMAT = 1
SEED = 20240229

Checker = Callable[[str, str, str], bool]
"""(prompt, response, reference) → whether the response is a right answer; any text at all may be asked about."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A source of pairs that every machine makes alike, without a download.

    Attributes:
        name: as in `data.source`.
        sizes: how many pairs each split is to have, or all there are.
        pairs: so many pairs of each split, drawn with a generator; no prompt stands in two splits, and fewer pairs are
            the first of more.
        right: whether a response answers a prompt.
        guess: a response by someone who knows the form of an answer and nothing else.
    """

    name: str
    sizes: Mapping[Split, int]
    pairs: Callable[[random.Random, Mapping[Split, int]], Mapping[Split, list[Pair]]]
    right: Checker
    guess: Callable[[str, random.Random], str]


def task_readers(task: Task, *, cache: Path, max_documents: int | None = None) -> dict[Split, Reader]:
    """The pairs of each split of a task, made into the cache at its first use.

    Args:
        task: what to make.
        cache: the cache home.
        max_documents: how many pairs to make and read of each split at most: the first ones of all there are.
    """
    few = "" if max_documents is None else f"-first-{max_documents}"
    sizes: Mapping[Split, int] = {
        split: size if max_documents is None else min(size, max_documents) for split, size in task.sizes.items()
    }
    folder = cache / "texts" / f"{task.name}-{FORMAT}{few}"

    def make(target: Path) -> None:
        for split, pairs in task.pairs(random.Random(SEED), sizes).items():
            write_pairs(target / f"{split}.jsonl", iter(pairs))

    cached_folder(folder, build=make)
    return {split: PairReader((folder / f"{split}.jsonl",), GATHERED, max_documents) for split in SPLITS}


def shared_out(
    problems: Iterator[tuple[str, Pair]], *, sizes: Mapping[Split, int], split_of: Callable[[str], Split]
) -> dict[Split, list[Pair]]:
    """Fills each split with so many different problems, in the order in which they come.

    Args:
        problems: pairs, each with what makes two problems the same one.
        sizes: pairs wanted of each split; reading stops when all are there, or when there are no more problems.
        split_of: the split of a problem, by what makes it what it is.
    """
    found: dict[Split, list[Pair]] = {split: [] for split in sizes}
    seen: set[str] = set()
    for key, pair in problems:
        split = split_of(key)
        if key not in seen and len(found[split]) < sizes[split]:
            seen.add(key)
            found[split].append(pair)
            if all(len(found[s]) == size for s, size in sizes.items()):
                break
    return found


def below(draw: random.Random, n: int) -> int:
    """A number of 0 to n − 1, from `random()` alone: the only draw whose stream Python promises never to change."""
    return int(draw.random() * n)


def shuffled(draw: random.Random, n: int) -> list[int]:
    """The numbers 0 to n − 1 in random order."""
    return [place for _, place in sorted((draw.random(), place) for place in range(n))]
