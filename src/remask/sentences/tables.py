"""Rows of labelled sentences out of files: TSV without quoting, JSON lines and Parquet."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from remask.data.readers import checked_text, extension, json_rows, parquet_rows, text_lines
from remask.errors import UserError
from remask.sentences.tasks import COLUMNS, SentenceTask

EXTENSIONS = (".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet")
UNLABELLED = frozenset({"", "-1", "-"})
"""Labels of rows that have none: hidden test labels, and pairs on which annotators did not agree."""

Row = tuple[tuple[str, ...], str]
"""The sentences of a row and its label as text."""


def file_rows(path: Path, task: SentenceTask) -> Iterator[Row]:
    """The labelled rows of a file.

    Raises:
        UserError: it cannot be read, a row is broken, or a column is missing.
    """
    if _kind(path) == ".parquet":
        columns = tuple(column_names(_parquet_names(path), task, where=str(path)))
        return labelled(parquet_rows(path, columns=columns, options="its columns"), task)
    return labelled(_plain_rows(path), task)


def has_labels(path: Path, task: SentenceTask) -> bool:
    """Whether a file has a column for a task's labels, be its name in other letters.

    Raises:
        UserError: it cannot be read.
    """
    rows = [_parquet_names(path)] if _kind(path) == ".parquet" else (row for _, row in _plain_rows(path))
    known = {name.casefold() for name in COLUMNS[task.columns[-1]]}
    return any(str(name).casefold() in known for row in rows for name in row)


def _kind(path: Path) -> str:
    return extension(path).removesuffix(".gz")


def _plain_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return tsv_rows(path) if _kind(path) == ".tsv" else json_rows(path, keys=(), options="its columns")


def labelled(rows: Iterator[tuple[str, Mapping[str, Any]]], task: SentenceTask) -> Iterator[Row]:
    """Rows of any source as sentences and labels; those without a label are left out.

    Args:
        rows: (where it stands, column → cell).
        task: which columns are read.

    Raises:
        UserError: a column is missing, or a cell is of the wrong kind.
    """
    for where, row in rows:
        *sentences, label = column_names(row, task, where=where)
        text = _label_text(row[label])
        plain = _class_text(text)
        if plain not in UNLABELLED:
            found = tuple(_sentence(row[name], f"{where}, {name!r}") for name in sentences)
            yield found, text if task.graded else plain


def column_names(names: Mapping[str, Any] | Sequence[str], task: SentenceTask, *, where: str) -> list[str]:
    """The columns of a task's sentences and label among those that are there.

    Raises:
        UserError: one is missing; the message says what it may be called.
    """
    found = []
    for part in task.columns:
        name = next((name for name in COLUMNS[part] if name in names), None)
        if name is None:
            raise UserError(
                f"{where}: {task.name} needs a column called {' or '.join(COLUMNS[part])}, and there are "
                f"{', '.join(map(str, names))}"
            )
        found.append(name)
    return found


def tsv_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a TSV file, each with where it stands; a quotation mark is part of the text, and an empty line is no row.

    Raises:
        UserError: it cannot be read, or a row has other columns than the first line.
    """
    lines = (line.rstrip("\r\n") for line in text_lines(path))
    header = next(lines, "").split("\t")
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise UserError(f"{path}, line {number}: {len(cells)} columns, and the header has {len(header)}")
        yield f"{path}, line {number}", dict(zip(header, cells, strict=True))


def _parquet_names(path: Path) -> Sequence[str]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("reading Parquet needs the extra `parquet`: pip install 'remask[parquet]'") from None
    try:
        return parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"cannot read {path} as Parquet: {str(error).splitlines()[0]}") from None


def _sentence(value: object, where: str) -> str:
    """A sentence; an empty one is one.

    Raises:
        UserError: there is none, or it is no text.
    """
    if value is None:
        raise UserError(f"{where}: there is no sentence. Leave the row out")
    return checked_text(value, where)


def _label_text(value: Any) -> str:
    """A label as text, whatever type a file gives it: 1, 1.0 and true are one; a missing number is none."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return "" if value is None or value != value else str(value).strip()


def _class_text(text: str) -> str:
    """A label that is a whole number as it is usually written: "1.0" is "1"."""
    return str(int(text.partition(".")[0])) if _WHOLE.fullmatch(text) else text


_WHOLE = re.compile(r"[+-]?\d{1,15}(\.0*)?")
