"""Multiplication in digits: `123*45=` is answered by `5535`.

All factors of 1 to 999 and 1 to 99 are asked once; a problem and the same one with its factors exchanged stand on the
same side of a split.
"""

import random
import re
from collections.abc import Iterator, Mapping
from hashlib import blake2b

from remask.data.documents import Pair
from remask.data.splits import Split
from remask.data.tasks.base import Task, below, shared_out, shuffled

SIZES: Mapping[Split, int] = {"train": 90_000, "validation": 500, "test": 500}
LARGEST, SECOND_LARGEST = 999, 99
_PROMPT = re.compile(r"([0-9]{1,9})\*([0-9]{1,9})=?", re.ASCII)


def is_right(prompt: str, response: str, reference: str) -> bool:
    """Whether the response is the product of the prompt's factors, in digits without leading zeros."""
    del reference
    factors = _PROMPT.fullmatch(prompt.strip())
    return factors is not None and response.strip() == str(int(factors[1]) * int(factors[2]))


def guess(prompt: str, draw: random.Random) -> str:
    """A number of as many digits as a product of these factors can have."""
    factors = _PROMPT.fullmatch(prompt.strip())
    if factors is None:
        return ""
    digits = len(factors[1]) + len(factors[2])
    low = 10 ** (digits - 2)
    return str(low + below(draw, 10**digits - low))


def pairs(draw: random.Random, sizes: Mapping[Split, int]) -> dict[Split, list[Pair]]:
    """The problems in random order, parted by a hash of their factors."""
    return shared_out(_problems(draw), sizes=sizes, split_of=_split)


def _problems(draw: random.Random) -> Iterator[tuple[str, Pair]]:
    for place in shuffled(draw, LARGEST * SECOND_LARGEST):
        one, other = 1 + place // SECOND_LARGEST, 1 + place % SECOND_LARGEST
        yield f"{one}*{other}", Pair(prompt=f"{one}*{other}=", response=str(one * other))


def _split(key: str) -> Split:
    """A twentieth of all problems each for validation and testing."""
    factors = sorted(map(int, key.split("*")))
    place = blake2b(repr(factors).encode(), digest_size=8).digest()[0]
    return "validation" if place < 13 else "test" if place < 26 else "train"


MULTIPLICATION = Task(name="multiplication", sizes=SIZES, pairs=pairs, right=is_right, guess=guess)
