"""Documents out of files: text, JSON lines and Parquet, plain or gzipped.

Readers stream: never more than one document and one block of a file are in memory, and of a file that is one long
document only the block.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

from remask.data.cache import file_hash
from remask.data.documents import Document, LongText, is_blank, text_of
from remask.errors import UserError, did_you_mean

EXTENSIONS = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")
_BLOCK = 1 << 20
_LONG = 1 << 24  # characters from which on a file that is one document is read piece by piece


@runtime_checkable
class Reader(Protocol):
    """Documents that can be read again and again, always the same ones in the same order."""

    def fingerprint(self) -> tuple[str, ...]:
        """Hashes of everything that decides the documents."""
        ...

    def has_text(self) -> bool:
        """Whether there is any document, found without reading further than it takes."""
        ...

    def __iter__(self) -> Iterator[Document]: ...


@dataclass(frozen=True)
class FileReader:
    """The documents of some files, in order; blank documents are left out.

    Attributes:
        files: the files to read.
        text_key: the column or key of the text, for JSON lines and Parquet.
        separator: what stands between two documents of a text file; None makes each file one document.
        max_documents: how many documents to read at most; None reads all.
    """

    files: tuple[Path, ...]
    text_key: str
    separator: str | None
    max_documents: int | None

    def fingerprint(self) -> tuple[str, ...]:
        """Hashes of the files' bytes, with the options that decide what is read out of them."""
        options = (self.text_key, repr(self.separator), repr(self.max_documents))
        return (*options, *(f"{extension(path)}:{content_hash(path)}" for path in self.files))

    def has_text(self) -> bool:
        """Whether any document is not blank; of a file that is one document a block is enough.

        Raises:
            UserError: a file cannot be read, or is not UTF-8 so far.
        """
        whole = self.separator is None
        texts = [path for path in self.files if whole and extension(path).startswith(".txt")]
        return any(piece.strip() for path in texts for piece in _decoded(path)) or next(iter(self), None) is not None

    def __iter__(self) -> Iterator[str | LongText]:
        return islice((d for path in self.files for d in self._read(path) if not is_blank(d)), self.max_documents)

    def documents_of(self, path: Path) -> Iterator[str]:
        """The documents of one file, blank ones among them, each whole.

        Raises:
            UserError: the file cannot be read as what its name says.
        """
        return map(text_of, self._read(path))

    def _read(self, path: Path) -> Iterator[str | LongText]:
        kind = extension(path)
        if kind == ".parquet":
            return read_parquet(path, text_key=self.text_key)
        if kind.startswith(".jsonl"):
            return read_jsonl(path, text_key=self.text_key)
        return read_text(path, separator=self.separator)


def open_files(place: Path, *, text_key: str, separator: str | None, max_documents: int | None = None) -> FileReader:
    """A reader over a file, or over every readable file of a folder in the order of their paths.

    Raises:
        UserError: the path is missing, of an unknown extension, empty, or a folder without such files.
    """
    if separator == "":
        raise UserError("the separator between documents is empty; give its characters, or null for one a file")
    if max_documents is not None and max_documents < 1:
        raise UserError(f"max_documents must be at least 1, got {max_documents}")
    place = place.expanduser()
    if place.is_dir():
        files = tuple(path for path in sorted(place.rglob("*")) if _readable(path, place))
        if not files:
            raise UserError(f"the folder {place} holds no file that can be read ({', '.join(EXTENSIONS)})")
    elif place.exists():
        if extension(place) not in EXTENSIONS:
            raise UserError(f"cannot read {place}: its name must end in one of {', '.join(EXTENSIONS)}")
        files = (place,)
    else:
        raise UserError(f"there is no file or folder {str(place)!r}")
    return FileReader(files=files, text_key=text_key, separator=separator, max_documents=max_documents)


def extension(path: Path) -> str:
    """The lower-case extension that decides how a file is read, `.txt.gz` in one piece."""
    return "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower()


def read_text(path: Path, *, separator: str | None) -> Iterator[str | LongText]:
    """The documents of a text file: the whole file, or the parts between separators.

    Raises:
        UserError: the file cannot be read or is not UTF-8.
    """
    if separator is None:
        yield _whole(path)
        return
    held: list[str] = []  # of a document whose end has not come yet; joined once, however long it is
    for piece in _decoded(path):
        last = held[-1] if held else ""
        if len(last) >= len(separator) and separator not in last[1 - len(separator) or len(last) :] + piece:
            held.append(piece)
            continue
        *documents, rest = "".join([*held, piece]).split(separator)
        yield from documents
        held = [rest]
    yield "".join(held)


def _whole(path: Path) -> str | LongText:
    """A file as one document, which is held only where it is short."""
    held: list[str] = []
    size = 0
    for piece in _decoded(path):
        held.append(piece)
        size += len(piece)
        if size > _LONG:
            return LongText(read=partial(_decoded, path))
    return "".join(held)


def read_jsonl(path: Path, *, text_key: str) -> Iterator[str]:
    """The text of each line of a JSON-lines file.

    Raises:
        UserError: a line is not a JSON object with a string under `text_key`; the message names the line.
    """
    for where, row in json_rows(path, keys=(text_key,), options="data.text_key"):
        yield checked_text(row[text_key], f"{where}, key {text_key!r}")


def json_rows(path: Path, *, keys: Sequence[str], options: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line of a JSON-lines file as (where it stands, object).

    Args:
        path: the file.
        keys: what every object must have.
        options: the recipe's keys that name them, for the message.

    Raises:
        UserError: a line is not a JSON object with these keys; the message names the line.
    """
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno})") from None
        except RecursionError:
            raise UserError(f"{path}, line {number}: JSON nested too deeply") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: not a JSON object but {type(row).__name__}")
        for key in keys:
            if key not in row:
                raise UserError(f"{path}, line {number}: no key {key!r}; {unknown_key(key, row, options=options)}")
        yield f"{path}, line {number}", row


def read_parquet(path: Path, *, text_key: str) -> Iterator[str]:
    """The text column of a Parquet file, row by row.

    Raises:
        UserError: pyarrow is missing, the file is damaged, or the column is missing or no text.
    """
    for where, row in parquet_rows(path, columns=(text_key,), options="data.text_key"):
        yield checked_text(row[text_key], f"{where}, column {text_key!r}")


def parquet_rows(path: Path, *, columns: Sequence[str], options: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a Parquet file as (where it stands, its cells in these columns).

    Args:
        path: the file.
        columns: what is read.
        options: the recipe's keys that name them, for the message.

    Raises:
        UserError: pyarrow is missing, the file is damaged, or a column is missing.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError("reading Parquet needs the extra `parquet`: pip install 'remask[parquet]'") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for key in columns:
                if key not in names:
                    raise UserError(f"{path}: no column {key!r}; {unknown_key(key, names, options=options)}")
            for block in file.iter_batches(batch_size=1024, columns=list(columns)):
                for row in block.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"cannot read {path} as Parquet: {str(error).splitlines()[0]}") from None


def checked_text(value: object, where: str) -> str:
    """A cell as text; an absent one (null) is blank.

    Raises:
        UserError: the cell is no string or holds a lone surrogate; the message says `where`.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where}: the text is no string but {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: holds U+{ord(value[error.start]):04X} at character {error.start}, a lone surrogate, "
            "which is no character; remove or replace it"
        ) from None
    return value


def unknown_key(key: str, names: Iterable[str], *, options: str) -> str:
    """What to say when there is no `key` among `names`: the closest one, and the recipe's keys to set."""
    return f"{did_you_mean(key, [str(name) for name in names])} Set {options}"


def _decoded(path: Path) -> Iterator[str]:
    """The text of a file, a block at a time; a byte-order mark at its start is dropped."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    done, first = 0, True
    for block in _blocks(path):
        pending = len(decoder.getstate()[0])
        text = _decode(decoder, block, path=path, start=done - pending)
        done += len(block)
        yield text.removeprefix("\ufeff") if first else text
        first = first and not text
    _decode(decoder, b"", path=path, start=done - len(decoder.getstate()[0]), final=True)


def _decode(decoder: codecs.IncrementalDecoder, block: bytes, *, path: Path, start: int, final: bool = False) -> str:
    try:
        return decoder.decode(block, final)
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, start + error.start, error.object[error.start]) from None


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their ends; a byte-order mark at its start is dropped.

    Raises:
        UserError: the file cannot be read or is not UTF-8.
    """
    done = 0
    with _opened(path) as file:
        for line in file:
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _wrong_encoding(path, done + error.start, line[error.start]) from None
            yield text.removeprefix("\ufeff") if done == 0 else text
            done += len(line)


def _wrong_encoding(path: Path, offset: int, byte: int) -> UserError:
    return UserError(
        f"{path} is not UTF-8: byte 0x{byte:02x} at offset {offset}; convert it first, e.g. iconv -f LATIN1 -t UTF-8"
    )


def _blocks(path: Path) -> Iterator[bytes]:
    with _opened(path) as file:
        while block := file.read(_BLOCK):
            yield block


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked when it is gzipped; reading errors become one clear line."""
    try:
        if path.suffix.lower() == ".gz":
            with gzip.open(path, "rb") as file:
                yield cast(BinaryIO, file)
        else:
            with path.open("rb") as file:
                yield file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = "it ends too early (truncated)" if isinstance(error, EOFError) else str(error)
        raise UserError(f"{path} is no complete gzip file: {reason}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def content_hash(path: Path) -> str:
    """The hash of a file's bytes.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return file_hash(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def _readable(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.is_file() and not hidden and extension(path) in EXTENSIONS
