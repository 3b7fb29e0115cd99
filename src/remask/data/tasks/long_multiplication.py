"""Long multiplication with its partial products, in the form of the implicit chain of thought papers.

Digits are written lowest first with spaces between: `7 6 9 2 * 1 6 3 6` is 2967 · 6361. The response is one partial
product for each digit of the second factor, the running sum in parentheses, and the product behind `####`
(Deng et al., arXiv:2311.01460 and arXiv:2405.14838). Factors have n and m digits, the first not 0; a problem and the
same one with its factors exchanged stand on the same side of a split.
"""

import random
import re
from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import blake2b

from remask.data.documents import Pair
from remask.data.splits import Split
from remask.data.tasks.base import Task, below, shared_out
from remask.data.tasks.written import MARK

SIZES: Mapping[Split, int] = {"train": 50_000, "validation": 1_000, "test": 1_000}
_DIGITS = r"[0-9](?: [0-9]){0,8}"
_PROMPT = re.compile(rf"({_DIGITS}) \* ({_DIGITS})", re.ASCII)
_RESULT = re.compile(r"[0-9](?: ?[0-9]){0,29}", re.ASCII)


def is_right(prompt: str, response: str, reference: str) -> bool:
    """Whether the digits behind the response's last `####`, lowest first, are the product of the prompt's factors."""
    del reference
    factors = _PROMPT.fullmatch(prompt.strip())
    product = number_of(response.rpartition(MARK)[2]) if MARK in response else None
    return factors is not None and product is not None and product == _value(factors[1]) * _value(factors[2])


def number_of(text: str) -> int | None:
    """The number of digits that are written lowest first; None for any other text."""
    text = text.strip()
    return _value(text) if _RESULT.fullmatch(text) else None


def guess(prompt: str, draw: random.Random) -> str:
    """As many random digits as the product can have, behind the mark."""
    factors = _PROMPT.fullmatch(prompt.strip())
    if factors is None:
        return ""
    count = sum(len(factor.split()) for factor in factors.groups())
    return f"{MARK} {' '.join(str(below(draw, 10)) for _ in range(count))}"


def worked_out(one: int, other: int) -> Pair:
    """A problem with its partial products, running sums and answer."""
    n, m = len(str(one)), len(str(other))
    parts, running = list[str](), 0
    for place, digit in enumerate(map(int, reversed(str(other)))):
        product = one * digit * 10**place
        running += product
        parts.append(_digits(product, n + 1 + place))
        if 0 < place < m - 1:
            parts[-1] += f" ( {_digits(running, n + 1 + place)} )"
    response = f"{' + '.join(parts)} {MARK} {_digits(running, n + m)}"
    return Pair(prompt=f"{_digits(one, n)} * {_digits(other, m)}", response=response)


def pairs(draw: random.Random, sizes: Mapping[Split, int], *, digits: tuple[int, int]) -> dict[Split, list[Pair]]:
    """Different problems of factors with so many digits, parted by a hash of the factors."""
    return shared_out(_problems(draw, digits=digits), sizes=sizes, split_of=_split)


def _problems(draw: random.Random, *, digits: tuple[int, int]) -> Iterator[tuple[str, Pair]]:
    while True:
        one, other = (10 ** (n - 1) + below(draw, 9 * 10 ** (n - 1)) for n in digits)
        yield f"{one}*{other}", worked_out(one, other)


def _digits(number: int, width: int) -> str:
    """So many digits of a number, the lowest first."""
    return " ".join(reversed(f"{number:0{width}d}"))


def _value(digits: str) -> int:
    return int(digits.replace(" ", "")[::-1])


def _split(key: str) -> Split:
    """A twentieth of all problems each for validation and testing."""
    factors = sorted(map(int, key.split("*")))
    place = blake2b(repr(factors).encode(), digest_size=8).digest()[0]
    return "validation" if place < 13 else "test" if place < 26 else "train"


def _task(n: int, m: int) -> Task:
    made = partial(pairs, digits=(n, m))
    return Task(name=f"multiplication{n}x{m}", sizes=SIZES, pairs=made, right=is_right, guess=guess)


MULTIPLICATION3X3 = _task(3, 3)
MULTIPLICATION4X4 = _task(4, 4)
MULTIPLICATION5X5 = _task(5, 5)
