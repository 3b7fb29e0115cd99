"""Cells and tables of Markdown (GitHub's dialect) in which no text of a record can break a table."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # a_b is no emphasis
_ADDRESS = re.compile(r"(?:https?|file)://[^\s<>|\\]+")


class Piece(NamedTuple):  # a log has tens of thousands, and a dataclass takes three times as long to make
    """A part of a cell.

    Attributes:
        text: as it is, in one or several lines.
        bold: marked as the best of its group.
        code: a name that somebody may want to copy.
        address: where it leads, or None.
    """

    text: str
    bold: bool = False
    code: bool = False
    address: str | None = None


Cell = Sequence[Piece]


def plain(cell: Cell) -> str:
    """A cell's text in one line."""
    return _one_line("".join([piece.text for piece in cell])) if cell else ""


def rendered(cell: Cell) -> str:
    """A cell as Markdown that stays within its cell, whatever its text."""
    return _one_line("".join([_piece(piece) for piece in cell])) if cell else ""


def table(columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> list[str]:
    """The lines of a table; columns that are empty in all rows are left out.

    Args:
        columns: headings, in order.
        rows: heading → cell; a missing one is empty.
    """
    texts = [{name: rendered(row.get(name, ())) for name in columns} for row in rows]
    shown = [name for name in columns if any(text[name] for text in texts)]
    if not shown:
        return []
    lines = [_line(shown), _line(["---"] * len(shown))]
    return lines + [_line([text[name] for name in shown]) for text in texts]


@lru_cache(maxsize=4096)  # machines, commits and settings recur from row to row
def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\g<0>", _visible(text))


def _piece(piece: Piece) -> str:
    if piece.code:
        # within a code span only the bar that ends a cell needs a backslash, and a backtick would end the span
        text = "`" + _visible(piece.text).replace("`", "'").replace("|", "\\|").replace("\\\\|", "\\|") + "`"
    else:
        text = escaped(piece.text)
    if piece.address is not None and _ADDRESS.fullmatch(piece.address):
        text = f"[{text}](<{piece.address}>)"
    return f"**{text}**" if piece.bold else text


def _visible(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _one_line(text: str) -> str:
    whole = text.isprintable() and "  " not in text  # as nearly all texts are
    return text.strip() if whole else " ".join(text.split())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
