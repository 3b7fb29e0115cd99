"""Text that is read while training goes on: in shards, from any document of a shard on, never tokenized beforehand."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from remask.data.cache import cached_folder
from remask.data.corpora import Corpus
from remask.data.embedded import EMBEDDED, write_documents
from remask.data.hub import PREFIX, cells, load_splits, newest_revision
from remask.data.readers import FileReader, Reader, extension, open_files
from remask.data.splits import SPLITS, Split
from remask.data.tasks import TASKS
from remask.errors import UserError

FORMAT = 1
SAMPLED_SHARDS = 16
"""Shards that a sample is taken from at most, spread evenly over all of them."""

_LOOKED_AT = 1 << 30  # bytes of all files together that a fingerprint reads, about a second's work
_BLOCKS = 16  # pieces of a large file that it reads
_LEAST = 1 << 20  # bytes of each file that it reads, however many there are
_LONGEST = 1 << 26  # bytes of a text file that may be one document
_SAVED_SHARDS = 64  # parts that a saved dataset, of which any row can be reached, is cut into
_PIN = "stream.json"


@runtime_checkable
class Shards(Protocol):
    """Documents in numbered shards, always the same ones in the same order; sent to worker processes."""

    @property
    def name(self) -> str:
        """The source as the user named it."""
        ...

    def __len__(self) -> int:
        """How many shards there are."""
        ...

    def fingerprint(self) -> tuple[str, ...]:
        """What decides the documents, found without reading all of them."""
        ...

    def read(self, shard: int, *, start: int) -> Iterator[str]:
        """The documents of one shard from number `start` on, blank ones among them.

        Raises:
            UserError: the shard holds something else than text.
            RunError: it can no longer be reached.
        """
        ...


@dataclass(frozen=True)
class FileShards:
    """Each file is a shard.

    Attributes:
        name: the source as the user named it.
        reader: the files, and how they are read.
        states: of the files, from `file_states`.
    """

    name: str
    reader: FileReader
    states: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.reader.files)

    def fingerprint(self) -> tuple[str, ...]:
        """Names and states of the files, with the options that decide what is read out of them."""
        return (self.reader.text_key, repr(self.reader.separator), *self.states)

    def read(self, shard: int, *, start: int) -> Iterator[str]:
        """The documents of one file; those before `start` are read and passed over."""
        return islice(self.reader.documents_of(self.reader.files[shard]), start, None)


@dataclass(frozen=True)
class HubShards:
    """The shards of one split of a Hugging Face dataset.

    Attributes:
        name: the dataset.
        rows: the split: streamed (an IterableDataset) or saved on disk (a Dataset).
        text_key: the column of the text.
        state: what decides its rows.
    """

    name: str
    rows: Any
    text_key: str
    state: tuple[str, ...]

    def __len__(self) -> int:
        return self.rows.num_shards if self._streamed else min(_SAVED_SHARDS, len(self.rows))

    def fingerprint(self) -> tuple[str, ...]:
        """What decides the rows, and the column."""
        return (*self.state, self.text_key)

    def read(self, shard: int, *, start: int) -> Iterator[str]:
        """The texts of one shard; rows before `start` are passed over, which a stream does by reading them."""
        rows = self.rows.shard(num_shards=len(self), index=shard)
        if not self._streamed and start >= len(rows):  # which the library refuses to select
            return iter(())
        rows = rows.skip(start) if self._streamed else rows.select(range(start, len(rows)))
        where = f"{self.name}, shard {shard}"
        return (text for (text,) in cells(rows, (self.text_key,), where=where, options="data.text_key"))

    @property
    def _streamed(self) -> bool:
        return hasattr(self.rows, "num_shards")


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A source that is streamed.

    Attributes:
        shards: all of its training text.
        sample: some of it as an ordinary corpus, and the held-out text: what tokenizers and trivial predictors are
            fitted on, and what models are judged on.
    """

    shards: Shards
    sample: Corpus

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what decides the documents."""
        return _digest("shards", *self.shards.fingerprint())


def open_stream(
    source: str,
    *,
    text_key: str = "text",
    separator: str | None = None,
    config: str | None = None,
    sample_bytes: int,
    cache: Path,
) -> Stream:
    """Opens a text for streaming, and gathers a sample of it.

    The sample is taken in turn from up to `SAMPLED_SHARDS` shards. A Hugging Face dataset is pinned at its first use:
    the cache keeps the commit it stood at, so that a resumed run streams the same rows.

    Args:
        source: a file, a folder whose files are the shards (.txt, .jsonl, .parquet), or `hf:NAME`.
        text_key: the key or column of the text in JSON lines, Parquet and datasets.
        separator: stands between two documents of a text file; None: each file is one.
        config: the configuration of a Hugging Face dataset.
        sample_bytes: UTF-8 bytes of text, about, that the sample and each held-out split of a dataset have at most.
        cache: the cache home.

    Returns:
        The stream; its sample holds out what the dataset itself holds out, and nothing of any other source.

    Raises:
        UserError: the source is missing, empty, cannot be streamed or reached.
    """
    if source in EMBEDDED or source in TASKS:
        raise UserError(f"data.streaming: {source} comes with remask and is small; give data.streaming=false")
    take = _hub if source.startswith(PREFIX) else _files
    return take(source, text_key=text_key, separator=separator, config=config, sample_bytes=sample_bytes, cache=cache)


def _files(
    source: str, *, text_key: str, separator: str | None, config: str | None, sample_bytes: int, cache: Path
) -> Stream:
    del config  # a contradiction, refused with the recipe
    reader = open_files(Path(source), text_key=text_key, separator=separator)
    _refuse_one_document(reader)
    shards = FileShards(source, reader, file_states(reader.files))
    folder = cache / "texts" / f"stream-{_digest(FORMAT, *shards.fingerprint(), sample_bytes)}"
    cached_folder(folder, build=lambda target: _write_sample(target, "train", shards, sample_bytes))
    return Stream(shards=shards, sample=_corpus(source, folder))


def _refuse_one_document(reader: FileReader) -> None:
    for path in reader.files:
        if reader.separator is None and extension(path) == ".txt" and path.stat().st_size > _LONGEST:
            raise UserError(
                f"{path} has no separator, so all of it is one document, and too long a one to stream: set "
                "data.separator, or data.streaming=false"
            )


def _hub(
    source: str, *, text_key: str, separator: str | None, config: str | None, sample_bytes: int, cache: Path
) -> Stream:
    del separator  # rows are documents
    name = source.removeprefix(PREFIX)
    place = Path(name).expanduser()
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else []
    own = [*map(str, (path.relative_to(place) for path in files)), *file_states(files)]
    label = re.sub(r"[^A-Za-z0-9.-]+", "-", place.name if own else name).strip("-")[:60]
    folder = cache / "texts" / f"stream-{label}-{_digest(FORMAT, name, *own, config, text_key, sample_bytes)}"

    def splits(revision: str | None) -> dict[str, HubShards]:
        found = load_splits(name, config=config, streaming=True, revision=revision)
        state = (str(config), *(own or [name, str(revision)]))
        return {split: HubShards(name, rows, text_key, (*state, split)) for split, rows in found.items()}

    def gather(target: Path) -> None:
        revision = newest_revision(name)
        for split, shards in splits(revision).items():
            _write_sample(target, split, shards, sample_bytes)
        (target / _PIN).write_text(json.dumps({"revision": revision}) + "\n", encoding="utf-8")

    cached_folder(folder, build=gather)
    revision = json.loads((folder / _PIN).read_text(encoding="utf-8"))["revision"]
    return Stream(shards=splits(revision)["train"], sample=_corpus(source, folder))


def _corpus(name: str, folder: Path) -> Corpus:
    """What was gathered in `folder`; every document under `train` trains."""
    paths: dict[Split, Path] = {split: folder / f"{split}.jsonl" for split in SPLITS}
    readers: dict[Split, Reader] = {
        split: FileReader(files=(path,), text_key="text", separator=None, max_documents=None)
        for split, path in paths.items()
        if path.exists()
    }
    return Corpus(name=name, source=readers.pop("train"), held_out=readers, wanted=("train",))


def _write_sample(folder: Path, split: str, shards: Shards, most: int) -> None:
    """Documents of a split in turn from shards spread evenly over it, about `most` bytes of text in all."""
    count = min(SAMPLED_SHARDS, len(shards))
    chosen = [index * len(shards) // count for index in range(count)]
    readers = [shards.read(shard, start=0) for shard in chosen]
    if not write_documents(folder / f"{split}.jsonl", _up_to(most, _in_turn(readers))):
        raise UserError(f"{shards.name} is empty: there is no text in its {split} split")


def _in_turn(readers: list[Iterator[str]]) -> Iterator[str]:
    """One document of each reader after the other, until the last has ended; blank ones are left out."""
    while readers:
        going = []
        for reader in readers:
            text = next((text for text in reader if text.strip()), None)
            if text is not None:
                yield text
                going.append(reader)
        readers = going


def _up_to(most: int, texts: Iterable[str]) -> Iterator[str]:
    """Texts until they have `most` bytes together; at least one."""
    total = 0
    for text in texts:
        yield text
        total += len(text.encode("utf-8"))
        if total >= most:
            return


def file_states(paths: Sequence[Path]) -> tuple[str, ...]:
    """Name, size and hash of each file; of files too large to be read whole, of pieces spread evenly from end to end.

    Raises:
        UserError: a file cannot be read.
    """
    each = max(_LEAST, _LOOKED_AT // max(1, len(paths)))
    return tuple(f"{path.name}:{_state(path, most=each)}" for path in paths)


def _state(path: Path, *, most: int) -> str:
    digest = blake2b(digest_size=16)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            piece = most // _BLOCKS if size > most else -(-size // _BLOCKS)
            for index in range(_BLOCKS):
                file.seek(max(0, size - piece) * index // (_BLOCKS - 1))
                digest.update(file.read(piece))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    return f"{size}:{digest.hexdigest()}"


def _digest(*parts: object) -> str:
    return blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
