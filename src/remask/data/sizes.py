"""How much text a corpus holds, about, found without reading it: what is left to do is said beside what is done."""

import json
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from remask.data.corpora import Corpus
from remask.data.readers import FileReader, extension, parquet_rows, text_lines
from remask.errors import UserError

_LOOKED_AT = 256  # rows from which the share of text in a file is taken


def size_estimate(corpus: Corpus) -> int | None:
    """UTF-8 bytes of text in all splits, about; None where that cannot be told before reading."""
    total = 0
    for reader in (corpus.source, *corpus.held_out.values()):
        size = file_text(reader) if isinstance(reader, FileReader) and reader.max_documents is None else None
        if size is None:
            return None
        total += size
    return total


def file_text(reader: FileReader) -> int | None:
    """UTF-8 bytes of text in the files of a reader, about; None where one of them does not tell."""
    total = 0
    for path in reader.files:
        with suppress(OSError, UserError):
            size = _size(path, reader.text_key)
            if size is not None:
                total += size
                continue
        return None
    return total


def _size(path: Path, text_key: str) -> int | None:
    if extension(path) == ".parquet":
        return _parquet(path, text_key)
    size = _unpacked(path) if path.suffix.lower() == ".gz" else path.stat().st_size
    if size is None or extension(path).startswith(".txt"):
        return size
    lines = list(islice(text_lines(path), _LOOKED_AT))
    with suppress(ValueError, TypeError, KeyError):
        text = _bytes(json.loads(line)[text_key] for line in lines if line.strip())
        return round(size * text / max(1, _bytes(lines)))
    return None


def _unpacked(path: Path) -> int | None:
    """What a gzip file says it unpacks to (RFC 1952: modulo 2^32, of its last member); None where that cannot be."""
    with path.open("rb") as file:
        file.seek(-4, 2)
        size = int.from_bytes(file.read(4), "little")
    return size if size >= path.stat().st_size else None


def _parquet(path: Path, text_key: str) -> int:
    from pyarrow import parquet

    rows = parquet_rows(path, columns=(text_key,), options="data.text_key")
    texts = [str(row[text_key]) for _, row in islice(rows, _LOOKED_AT)]
    return round(parquet.read_metadata(path).num_rows * _bytes(texts) / max(1, len(texts)))


def _bytes(texts: Iterable[str]) -> int:
    return sum(len(text.encode("utf-8")) for text in texts)
