"""Countdown: reach a target from three or four numbers, each used once.

The prompt is `a,b,c,d,target:` and the response one step for each operation, `90+95=185,11*185=2035,2035/37=55`: a step
takes two of the numbers that are left and puts their result in their place; the last result is the target. Division
comes out even, and no result is below 1 or above 9999. Many chains are right, and the checker accepts them all.
"""

import random
import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b

from remask.data.documents import Pair
from remask.data.splits import Split
from remask.data.tasks.base import Task, below, shared_out

SIZES: Mapping[Split, int] = {"train": 50_000, "validation": 500, "test": 500}
LARGEST_NUMBER, LARGEST_RESULT = 99, 9999
SMALLEST_TARGET, LARGEST_TARGET = 10, 100
_STEP = re.compile(r"([0-9]{1,9})([-+*/])([0-9]{1,9})=([0-9]{1,9})", re.ASCII)


def is_right(prompt: str, response: str, reference: str) -> bool:
    """Whether the response's steps use each number of the prompt once and end at its target."""
    del reference
    try:
        *left, target = [int(number) for number in prompt.strip().removesuffix(":").split(",")]
    except ValueError:
        return False
    for text in response.strip().split(","):
        step = _STEP.fullmatch(text)
        if step is None:
            return False
        one, sign, other, result = int(step[1]), step[2], int(step[3]), int(step[4])
        if one not in left or other not in left or (one == other and left.count(one) < 2):
            return False
        if apply(one, sign, other) != result:
            return False
        left.remove(one)
        left.remove(other)
        left.append(result)
    return left == [target]


def apply(one: int, sign: str, other: int) -> int | None:
    """The result of a step; None where division leaves a rest."""
    match sign:
        case "+":
            return one + other
        case "-":
            return one - other
        case "*":
            return one * other
        case _:
            return one // other if other and one % other == 0 else None


def guess(prompt: str, draw: random.Random) -> str:
    """Random steps over the prompt's numbers, wherever they end; empty for a prompt that is none."""
    try:
        numbers = [int(number) for number in prompt.strip().removesuffix(":").split(",")][:-1]
    except ValueError:
        return ""
    return ",".join(_chain(numbers, draw)[0])


def pairs(draw: random.Random, sizes: Mapping[Split, int]) -> dict[Split, list[Pair]]:
    """Problems with a solution; the same numbers in another order with the same target are the same problem."""
    return shared_out(_problems(draw), sizes=sizes, split_of=_split)


def _problems(draw: random.Random) -> Iterator[tuple[str, Pair]]:
    while True:
        numbers = [1 + below(draw, LARGEST_NUMBER) for _ in range(3 + below(draw, 2))]
        steps, target = _chain(numbers, draw)
        if SMALLEST_TARGET <= target <= LARGEST_TARGET:
            prompt = ",".join(map(str, [*numbers, target])) + ":"
            yield f"{sorted(numbers)} {target}", Pair(prompt=prompt, response=",".join(steps))


def _chain(numbers: list[int], draw: random.Random) -> tuple[list[str], int]:
    """Random steps that are allowed, and the number they end at."""
    left, steps = list(numbers), []
    while len(left) > 1:
        one = left.pop(below(draw, len(left)))
        other = left.pop(below(draw, len(left)))
        allowed = [
            (sign, result)
            for sign in "+-*/"
            if (result := apply(one, sign, other)) is not None and 1 <= result <= LARGEST_RESULT
        ]
        if not allowed:  # two large numbers: the chain ends far above every target
            allowed = [("+", one + other)]
        sign, result = allowed[below(draw, len(allowed))]
        steps.append(f"{one}{sign}{other}={result}")
        left.append(result)
    return steps, left[0]


def _split(key: str) -> Split:
    """A tenth of all problems each for validation and testing, by a hash of the problem."""
    place = blake2b(key.encode(), digest_size=8).digest()[0]
    return "validation" if place < 26 else "test" if place < 52 else "train"


COUNTDOWN = Task(name="countdown", sizes=SIZES, pairs=pairs, right=is_right, guess=guess)
