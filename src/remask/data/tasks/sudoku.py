"""Sudoku of 4 × 4: rows, columns and 2 × 2 boxes each hold 1 to 4 once. There are 288 full grids.

The checker and the guess know 9 × 9, too: there boxes are of 3 × 3 and the digits 1 to 9.

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


@cache
def units(side: int) -> tuple[tuple[int, ...], ...]:
    """The cells of each row, column and box of a grid of 4 × 4 or 9 × 9, counted row by row."""
    lines, box = range(side), round(side**0.5)
    rows = [tuple(side * row + column for column in lines) for row in lines]
    columns = [tuple(side * row + column for row in lines) for column in lines]
    within = [side * row + column for row in range(box) for column in range(box)]
    corners = [side * row + column for row in lines[::box] for column in lines[::box]]
    return (*rows, *columns, *(tuple(corner + cell for cell in within) for corner in corners))


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
    side = {16: 4, 81: 9}.get(len(puzzle))
    if side is None or len(grid) != len(puzzle):
        return False
    kept = all(clue in ("0", digit) for clue, digit in zip(puzzle, grid, strict=True))
    return kept and all(sorted(grid[cell] for cell in unit) == list("123456789"[:side]) for unit in units(side))


def guess(prompt: str, draw: random.Random) -> str:
    """Any full grid, whatever the clues; of 9 × 9, one of those that shifted rows make."""
    if len(prompt.strip()) == 81:
        digits = [str(1 + digit) for digit in shuffled(draw, 9)]
        return "".join(digits[(3 * (row % 3) + row // 3 + column) % 9] for row in range(9) for column in range(9))
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
    return all(grid[other] != digit for unit in units(4) if cell in unit for other in unit if other < cell)


SUDOKU4 = Task(name="sudoku4", sizes=SIZES, pairs=pairs, right=is_right, guess=guess)
