"""Arithmetic in steps: `(23+15)*2?` is answered by `23+15=38 38*2=76 #### 76`.

A chain of sums, differences and products with one-digit factors, worked out from the left; parentheses stand where a
product follows a sum or a difference. All results are of 0 to 99 and all numbers of 1 to 99. The answer is drawn first,
evenly, and the steps backwards from it: who guesses any number of 0 to 99 is right one time in a hundred. Problems with
the same numbers and the same answer, in whatever order, are the same problem; of two steps there are 425,421, at least
2,599 for each answer.
"""

import random
import re
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import blake2b

from remask.data.documents import Pair
from remask.data.splits import Split
from remask.data.tasks.base import Task, below, shared_out, shuffled
from remask.data.tasks.written import MARK, result_behind_mark

SIZES: Mapping[Split, int] = {"train": 50_000, "validation": 1_000, "test": 1_000}
LARGEST, LARGEST_FACTOR = 99, 9
_PROMPT = re.compile(r"\(*[0-9]{1,4}(?:[-+*][0-9]{1,4}\)?){1,9}\?", re.ASCII)


def is_right(prompt: str, response: str, reference: str) -> bool:
    """Whether the number behind the response's last `####` is the prompt's value; the steps before it may be any."""
    del reference
    value = value_of(prompt)
    return value is not None and MARK in response and result_behind_mark(response) == str(value)


def steps_are_right(prompt: str, response: str) -> bool:
    """Whether the response is what the prompt asks for in full: every step, each with its result, and the answer."""
    chain = _read(prompt)
    return chain is not None and response.strip() == _worked_out(*chain)


def value_of(prompt: str) -> int | None:
    """The number that a prompt comes to; None for a prompt that is none."""
    chain = _read(prompt)
    return None if chain is None else _results(*chain)[-1]


def guess(prompt: str, draw: random.Random) -> str:
    """Any number of 0 to 99 behind the mark."""
    del prompt
    return f"{MARK} {below(draw, LARGEST + 1)}"


def pairs(draw: random.Random, sizes: Mapping[Split, int], *, steps: int) -> dict[Split, list[Pair]]:
    """Problems of so many steps each, parted by a hash of their numbers and answer."""
    return shared_out(_problems(draw, steps=steps), sizes=sizes, split_of=_split)


def _problems(draw: random.Random, *, steps: int) -> Iterator[tuple[str, Pair]]:
    """Different problems without end; each hundred of them has each answer once."""
    seen: set[str] = set()
    while True:
        for answer in shuffled(draw, LARGEST + 1):
            start, chain = _chain(answer, draw, steps=steps)
            while (key := f"{sorted([start, *(number for _, number in chain)])} {answer}") in seen:
                start, chain = _chain(answer, draw, steps=steps)
            seen.add(key)
            yield key, Pair(prompt=_written(start, chain), response=_worked_out(start, chain))


def _chain(answer: int, draw: random.Random, *, steps: int) -> tuple[int, list[tuple[str, int]]]:
    """A start and random steps from it to an answer, drawn backwards."""
    start, chain = answer, list[tuple[str, int]]()
    for before in reversed(range(steps)):
        start, sign, number = _backwards(start, draw, lowest=0 if before else 1)
        chain.insert(0, (sign, number))
    return start, chain


def _backwards(result: int, draw: random.Random, *, lowest: int) -> tuple[int, str, int]:
    """A step that ends at a result: what it starts from, at least `lowest`, its sign and its number."""
    factors = [n for n in range(2, LARGEST_FACTOR + 1) if result > 0 and result % n == 0]
    starts = {
        "+": range(lowest, result),
        "-": range(result + 1, LARGEST + 1),
        "*": [result // factor for factor in factors],
    }
    signs = [sign for sign, found in starts.items() if len(found)]
    sign = signs[below(draw, len(signs))]
    start = starts[sign][below(draw, len(starts[sign]))]
    return start, sign, {"+": result - start, "-": start - result, "*": result // max(start, 1)}[sign]


def _written(start: int, chain: list[tuple[str, int]]) -> str:
    """The question of a chain."""
    text, last = str(start), "*"
    for sign, number in chain:
        text = f"({text}){sign}{number}" if sign == "*" and last != "*" else f"{text}{sign}{number}"
        last = sign
    return text + "?"


def _worked_out(start: int, chain: list[tuple[str, int]]) -> str:
    """The steps of a chain with their results, and the answer behind the mark."""
    results = _results(start, chain)
    befores = [start, *results[:-1]]
    steps = [f"{b}{sign}{n}={r}" for b, (sign, n), r in zip(befores, chain, results, strict=True)]
    return f"{' '.join(steps)} {MARK} {results[-1]}"


def _results(start: int, chain: list[tuple[str, int]]) -> list[int]:
    found = [start]
    for sign, number in chain:
        before = found[-1]
        found.append({"+": before + number, "-": before - number, "*": before * number}[sign])
    return found[1:]


def _read(prompt: str) -> tuple[int, list[tuple[str, int]]] | None:
    """The start and steps of a question as `_written` writes it; None for any other text."""
    if _PROMPT.fullmatch(prompt.strip()) is None:
        return None
    start, *rest = re.findall(r"[0-9]+|[-+*]", prompt)
    chain = [(sign, int(number)) for sign, number in zip(rest[::2], rest[1::2], strict=True)]
    return (int(start), chain) if _written(int(start), chain) == prompt.strip() else None


def _split(key: str) -> Split:
    """A tenth of all problems each for validation and testing."""
    place = blake2b(key.encode(), digest_size=8).digest()[0]
    return "validation" if place < 26 else "test" if place < 52 else "train"


def _task(name: str, *, steps: int) -> Task:
    return Task(name=name, sizes=SIZES, pairs=partial(pairs, steps=steps), right=is_right, guess=guess)


ARITHMETIC = _task("arithmetic", steps=2)
ARITHMETIC3 = _task("arithmetic3", steps=3)
ARITHMETIC4 = _task("arithmetic4", steps=4)
