"""Opening a text: the embedded ones, local files and folders, Hugging Face datasets; split by document."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from remask.data.embedded import EMBEDDED, embedded_reader
from remask.data.hub import PREFIX, hub_readers
from remask.data.readers import EXTENSIONS, Reader, open_files
from remask.data.splits import SPLITS, Split, SplitPlan, plan_splits, train_only
from remask.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents in three splits; no document stands in two that were shared out of one source.

    Attributes:
        name: the source as the user named it.
        source: the documents to train on, and to share out to splits that have no source of their own.
        held_out: sources of their own for `validation` and `test`, where given.
    """

    name: str
    source: Reader
    held_out: dict[Split, Reader]

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that this corpus has, in the order train, validation, test."""
        return tuple(split for split in SPLITS if split in self._wanted or split in self.held_out)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the contents and of everything that decides the documents and their splits."""
        digest = blake2b(digest_size=16)
        for split, reader in [("source", self.source), *sorted(self.held_out.items())]:
            digest.update(repr((split, reader.fingerprint())).encode())
        return digest.hexdigest()

    def documents(self, split: str) -> Iterator[str]:
        """The documents of one split, in the order of the source; streamed, never blank.

        Raises:
            UserError: the corpus has no such split, or its text cannot be read.
        """
        if split not in self.splits:
            raise UserError(self._missing(split))
        return (document for at, document in self.walk() if at == split)

    def walk(self) -> Iterator[tuple[Split, str]]:
        """Every document with its split, reading each source once.

        Raises:
            UserError: the text cannot be read.
        """
        for document in self.source:
            yield from self._plan.parts(document)
        for split, reader in self.held_out.items():
            for document in reader:
                yield split, document

    @cached_property
    def _plan(self) -> SplitPlan:
        return train_only() if self._wanted == ("train",) else plan_splits(self.source, wanted=self._wanted)

    @property
    def _wanted(self) -> tuple[Split, ...]:
        """The splits to share the source out to."""
        if "validation" in self.held_out:
            return ("train",)
        return ("train", "validation") if "test" in self.held_out else SPLITS

    def _missing(self, split: str) -> str:
        if split == "test":
            return f"{self.name} has a validation text of its own but no test text; set data.test"
        return f"unknown split {split!r} of {self.name}; {did_you_mean(split, self.splits)}"


def open_corpus(
    source: str | Path,
    *,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    text_key: str = "text",
    separator: str | None = None,
    config: str | None = None,
    streaming: bool = False,
    max_documents: int | None = None,
    cache: Path,
) -> Corpus:
    """Opens a text and checks that there is something to read.

    Args:
        source: `python-docs` or `python-code`; a path to a .txt, .txt.gz, .jsonl, .jsonl.gz or .parquet file
            or a folder of those; or `hf:NAME` for a Hugging Face dataset on the hub or in a local folder.
        validation: a path of its own for validation; then every document of `source` trains.
        test: a path of its own for test.
        text_key: the key or column of the text in JSON lines, Parquet and datasets.
        separator: what stands between two documents of a text file, e.g. a blank line; None makes a file one
            document.
        config: the configuration of a Hugging Face dataset.
        streaming: read a Hugging Face dataset as it arrives, without downloading the whole of it first.
        max_documents: how many documents to read of each source at most.
        cache: the cache home, see `remask.data.cache.cache_home`.

    Raises:
        UserError: a path is missing, of unknown kind, empty or named twice; an embedded name is unknown; a
            file is not what its name says; an extra is missing; a dataset cannot be reached.
    """
    if max_documents is not None and max_documents < 1:
        raise UserError(f"max_documents must be at least 1, got {max_documents}")
    given: dict[Split, str | Path | None] = {"validation": validation, "test": test}
    _refuse_repeats({"source": source, **given})

    def files(place: str | Path) -> Reader:
        return open_files(Path(place), text_key=text_key, separator=separator, max_documents=max_documents)

    name, own = str(source), dict[Split, Reader]()
    if name in EMBEDDED:
        main: Reader = embedded_reader(name, cache=cache, max_documents=max_documents)
    elif name.startswith(PREFIX):
        readers = hub_readers(
            name.removeprefix(PREFIX),
            text_key=text_key,
            config=config,
            streaming=streaming,
            max_documents=max_documents,
            cache=cache,
        )
        main = readers.pop("train")
        own.update(readers)
    else:
        main = files(_existing(source))
    own.update({split: files(place) for split, place in given.items() if place is not None})
    corpus = Corpus(name=name, source=main, held_out={s: own[s] for s in SPLITS if s in own})
    _require_text(corpus)
    return corpus


def _existing(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(
            f"there is no text {str(source)!r}: neither a file or folder nor an embedded corpus; "
            f"{did_you_mean(str(source), EMBEDDED)} Files end in {', '.join(EXTENSIONS)}; "
            "a Hugging Face dataset is hf:NAME"
        )
    return path


def _refuse_repeats(given: dict[str, str | Path | None]) -> None:
    seen: dict[Path, str] = {}
    for role, path in given.items():
        if path is None or not Path(path).exists():
            continue
        place = Path(path).expanduser().resolve()
        if place in seen:
            raise UserError(f"{path} is given as both {seen[place]} and {role}; text to judge on must be other text")
        seen[place] = role


def _require_text(corpus: Corpus) -> None:
    readers = {
        corpus.name: corpus.source,
        **{f"the {s} text of {corpus.name}": r for s, r in corpus.held_out.items()},
    }
    for name, reader in readers.items():
        if not reader.has_text():
            raise UserError(f"{name} is empty: there is no text in it")
