"""Prompt-response pairs out of files with named columns: JSON lines, Parquet, CSV and TSV.

A text file may hold pairs, too, one a line with `||` between prompt and response, as those of the implicit chain of
thought papers (arXiv:2311.01460); its columns are called `prompt` and `response`.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from remask.data.documents import Pair
from remask.data.readers import (
    checked_text,
    content_hash,
    extension,
    json_rows,
    parquet_rows,
    text_lines,
    unknown_key,
)
from remask.errors import UserError

EXTENSIONS = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz")
LINES = (".txt", ".txt.gz")
BETWEEN = "||"
"""What stands between prompt and response in a line of a text file."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where a pair stands in a row of a table.

    Attributes:
        prompt: the column or key of the prompt.
        response: that of the response.
        prompt_end: text put after every prompt, e.g. a line end; empty for none.
    """

    prompt: str
    response: str
    prompt_end: str = ""

    def pair(self, prompt: str, response: str) -> Pair | None:
        """The pair of two cells; None where either is blank."""
        if not prompt.strip() or not response.strip():
            return None
        return Pair(prompt=prompt + self.prompt_end, response=response)


@dataclass(frozen=True)
class PairReader:
    """The pairs of some files, in order; a row whose prompt or response is blank is left out.

    Attributes:
        files: the files to read.
        columns: where prompt and response stand.
        max_documents: how many pairs to read at most; None reads all.
    """

    files: tuple[Path, ...]
    columns: Columns
    max_documents: int | None

    def fingerprint(self) -> tuple[str, ...]:
        """Hashes of the files' bytes, with the options that decide what is read out of them."""
        own = self.columns
        options = ("pairs", own.prompt, own.response, repr(own.prompt_end), repr(self.max_documents))
        return (*options, *(f"{extension(path)}:{content_hash(path)}" for path in self.files))

    def has_text(self) -> bool:
        """Whether there is any pair."""
        return next(iter(self), None) is not None

    def __iter__(self) -> Iterator[Pair]:
        pairs = (self.columns.pair(*cells) for path in self.files for cells in self._cells(path))
        return islice((pair for pair in pairs if pair is not None), self.max_documents)

    def _cells(self, path: Path) -> Iterator[tuple[str, str]]:
        keys = (self.columns.prompt, self.columns.response)
        kind = extension(path).removesuffix(".gz")
        if kind == ".parquet":
            rows = parquet_rows(path, columns=keys, options=KEY_OPTIONS)
        elif kind == ".jsonl":
            rows = json_rows(path, keys=keys, options=KEY_OPTIONS)
        elif kind == ".txt":
            rows = _line_rows(path, keys=keys)
        else:
            rows = _table_rows(path, keys=keys)
        for where, row in rows:
            prompt, response = (checked_text(row[key], f"{where}, {key!r}") for key in keys)
            yield prompt, response


KEY_OPTIONS = "data.prompt_key and data.response_key"
GATHERED = Columns(prompt="prompt", response="response")
"""The keys of pairs that remask writes itself."""


def write_pairs(path: Path, pairs: Iterator[Pair]) -> int:
    """Writes one JSON object a line, with the keys of `GATHERED`; returns how many."""
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for pair in pairs:
            row = {GATHERED.prompt: pair.prompt, GATHERED.response: pair.response}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def open_pairs(place: Path, *, columns: Columns, max_documents: int | None = None) -> PairReader:
    """A reader over a file of pairs, or over every such file of a folder (no text files) in the order of their paths.

    Raises:
        UserError: the path is missing, of an unknown extension, or a folder without such files.
    """
    place = place.expanduser()
    if not place.exists():
        raise UserError(f"there is no file or folder {str(place)!r}")
    if place.is_dir():
        files = tuple(path for path in sorted(place.rglob("*")) if path.is_file() and extension(path) in EXTENSIONS)
        if not files:
            raise UserError(f"the folder {place} holds no file of pairs ({', '.join(EXTENSIONS)})")
    elif extension(place) in (*EXTENSIONS, *LINES):
        files = (place,)
    else:
        raise UserError(
            f"cannot read pairs from {place}: data.prompt_key and data.response_key need named columns, and its name "
            f"must end in one of {', '.join(EXTENSIONS)}, or in .txt with lines of prompt{BETWEEN}response"
        )
    return PairReader(files=files, columns=columns, max_documents=max_documents)


def _line_rows(path: Path, *, keys: tuple[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The lines of a text file of pairs; empty ones are passed over.

    Raises:
        UserError: a line has no `||`, or other columns are asked for than such a file has.
    """
    names = (GATHERED.prompt, GATHERED.response)
    for key in keys:
        if key not in names:
            raise UserError(f"{path}: no column {key!r}; {unknown_key(key, names, options=KEY_OPTIONS)}")
    for number, line in enumerate(text_lines(path), start=1):
        prompt, between, response = line.rstrip("\r\n").partition(BETWEEN)
        if not between and prompt.strip():
            raise UserError(f"{path}, line {number}: no {BETWEEN} between prompt and response")
        if between:
            yield f"{path}, line {number}", dict(zip(names, (prompt, response), strict=True))


def _table_rows(path: Path, *, keys: tuple[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file, quoted as usual, or of a TSV file, where a quotation mark is part of the text.

    Raises:
        UserError: a column is missing, or a row has more or fewer cells than the header.
    """
    if extension(path).startswith(".tsv"):
        lines = (line.rstrip("\r\n") for line in text_lines(path))
        rows = enumerate((line.split("\t") for line in lines if line), start=1)
        yield from _named(path, rows, keys=keys)
        return
    reader = csv.reader(text_lines(path), strict=True)
    try:
        yield from _named(path, ((reader.line_num, row) for row in reader if row), keys=keys)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV ({error})") from None


def _named(
    path: Path, rows: Iterator[tuple[int, list[str]]], *, keys: tuple[str, str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Each row's cells by the names of the header, which is the first row."""
    _, header = next(rows, (0, []))
    for key in keys:
        if header and key not in header:
            raise UserError(f"{path}: no column {key!r}; {unknown_key(key, header, options=KEY_OPTIONS)}")
    for number, row in rows:
        if len(row) != len(header):
            raise UserError(f"{path}, line {number}: {len(row)} cells, and the header has {len(header)}")
        yield f"{path}, line {number}", dict(zip(header, row, strict=True))
