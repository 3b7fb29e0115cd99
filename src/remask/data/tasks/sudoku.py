"""Sudoku of 4 × 4: rows, columns and 2 × 2 boxes each hold 1 to 4 once. There are 288 full grids.

A puzzle is 16 digits row by row, 0 for an empty cell; the response is the full grid. Every puzzle has one solution, so
puzzles of different grids are different puzzles. A tenth of the grids is kept for validation and a tenth for testing:
no grid that is asked for there is ever seen in training, though grids that differ from it by a renaming of the digits
are.
"""

import random
from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np

from remask.data.documents import Pair
from remask.data.splits import Split
from remask.data.tasks.base import Task, below, shared_out, shuffled

SIZES: Mapping[Split, int] = {"train": 20_000, "validation": 500, "test": 500}
FEWEST_CLUES, MOST_CLUES = 5, 12
_UNITS = [
    *([4 * row + column for column in range(4)] for row in range(4)),
    *([4 * row + column for row in range(4)] for column in range(4)),
    *([8 * row + 2 * column + cell for cell in (0, 1, 4, 5)] for row in range(2) for column in range(2)),
]


@cache
def full_grids() -> tuple[str, ...]:
    """All full grids as strings of 16 digits, in order."""
    grids = [""]
    for _ in range(16):
        grids = [grid + digit for grid in grids for digit in "1234" if _fits(grid, digit)]
    return tuple(grids)


def is_right(prompt: str, response: str, reference: str) -> bool:
    """Whether the response is a full grid that keeps the prompt's clues."""
    del reference
    puzzle, grid = prompt.strip(), response.strip()
    if len(puzzle) != 16 or len(grid) != 16:
        return False
    kept = all(clue in ("0", digit) for clue, digit in zip(puzzle, grid, strict=True))
    return kept and all(sorted(grid[cell] for cell in unit) == list("1234") for unit in _UNITS)


def guess(prompt: str, draw: random.Random) -> str:
    """Any full grid, whatever the clues."""
    del prompt
    return full_grids()[below(draw, len(full_grids()))]


def pairs(draw: random.Random, sizes: Mapping[Split, int]) -> dict[Split, list[Pair]]:
    """Puzzles of 5 to 12 clues with one solution each, the grids parted between the splits."""
    grids = full_grids()
    order, tenth = shuffled(draw, len(grids)), len(grids) // 10
    splits: dict[str, Split] = {grids[place]: "train" for place in order}
    splits |= {grids[place]: "validation" for place in order[:tenth]}
    splits |= {grids[place]: "test" for place in order[tenth : 2 * tenth]}
    solutions: dict[str, Split] = {}

    def remembered() -> Iterator[tuple[str, Pair]]:
        for pair in _puzzles(draw):
            solutions[pair.prompt] = splits[pair.response]
            yield pair.prompt, pair

    return shared_out(remembered(), sizes=sizes, split_of=solutions.__getitem__)


def _puzzles(draw: random.Random) -> Iterator[Pair]:
    """Puzzles of random grids without end."""
    grids = full_grids()
    table = np.array([[int(digit) for digit in grid] for grid in grids])
    while True:
        place = below(draw, len(grids))
        count = FEWEST_CLUES + below(draw, MOST_CLUES - FEWEST_CLUES + 1)
        clues = shuffled(draw, 16)[:count]
        if (table[:, clues] == table[place, clues]).all(axis=1).sum() == 1:
            shown = "".join(digit if cell in clues else "0" for cell, digit in enumerate(grids[place]))
            yield Pair(prompt=shown, response=grids[place])


def _fits(grid: str, digit: str) -> bool:
    """Whether a digit may follow the first cells of a grid."""
    cell = len(grid)
    return all(grid[other] != digit for unit in _UNITS if cell in unit for other in unit if other < cell)


SUDOKU4 = Task(name="sudoku4", sizes=SIZES, pairs=pairs, right=is_right, guess=guess)
