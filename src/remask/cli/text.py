"""Records as plain text and as JSON lines.

Tables are laid out here rather than by rich, which needs a second for a thousand rows.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import typer

_COLORS = {"finished": "green", "running": "cyan", "failed": "red", "killed": "red", "interrupted": "yellow"}
_ENCODER = json.JSONEncoder(allow_nan=False)  # ASCII: safe in any terminal, pipe and encoding
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int]) -> None:
    """Prints columns two blanks apart; on a terminal lines are cut at its width, in a pipe they are whole.

    Args:
        header: the columns' names.
        rows: their cells; a status in the second column is coloured on a terminal.
        right: the columns that are flush right.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = []
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        lines.append(line if limit is None or len(line) <= limit else f"{line[: limit - 1]}…")
    if limit is not None:
        lines = [typer.style(lines[0], bold=True), *map(_colored, lines[1:], rows)]
    typer.echo("\n".join(lines))


def print_fields(fields: Sequence[tuple[str, Any]]) -> None:
    """Prints a line for each field that is known."""
    for name, value in fields:
        if value:
            typer.echo(f"{name:<12} {printable(str(value))}")


def heading(text: str) -> None:
    """Prints what comes next, after an empty line."""
    typer.echo(f"\n{typer.style(text, bold=True)}")


def as_json(value: Any) -> str:
    """A value as one line of JSON, without NaN."""
    from remask.runs.files import plain

    return _ENCODER.encode(plain(value))


def number(value: Any) -> str:
    """A figure to four decimals, or four digits where it is small or large; – where it is unknown."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if 0.001 <= abs(value) < 1000 else f"{value:.4g}"
    return str(value)


def count(value: int | None) -> str | None:
    """A whole number with its thousands set off."""
    return None if value is None else f"{value:,}"


def gibibytes(size: int | None) -> str | None:
    """Bytes as GiB."""
    return None if size is None else f"{size / 2**30:.2f} GiB"


def duration(seconds: float | None) -> str | None:
    """Seconds, and hours and minutes where it is more than one: `61.3 s`, `2 h 3 min`."""
    if seconds is None:
        return None
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def age(created: str, *, now: datetime) -> str:
    """How long ago an ISO 8601 moment was, in its largest unit."""
    try:
        seconds = (now - datetime.fromisoformat(created)).total_seconds()
    except (ValueError, TypeError):
        return "?"
    for unit, length in _UNITS:
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def printable(text: str) -> str:
    """Text with control characters made visible: a sample must not steer the terminal."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def one_line(text: str) -> str:
    """Printable text without line ends."""
    return printable(text).replace("\n", " ")


def _colored(line: str, row: Sequence[str]) -> str:
    status = row[1]
    return line.replace(f" {status} ", f" {typer.style(status, fg=_COLORS[status])} ", 1) if status in _COLORS else line
