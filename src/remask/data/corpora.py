"""Opening a text: the embedded ones, local files and folders, Hugging Face datasets; split by document."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from remask.data.documents import Document, Pair, text_of
from remask.data.embedded import EMBEDDED, embedded_reader
from remask.data.hub import PREFIX, hub_readers
from remask.data.readers import EXTENSIONS, Reader, open_files
from remask.data.splits import SPLITS, Split, SplitPlan, plan_splits, train_only
from remask.data.tables import KEY_OPTIONS, Columns, open_pairs
from remask.data.tasks import TASKS, task_readers
from remask.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Documents in three splits; no document stands in two that were shared out of one source.

    Attributes:
        name: the source as the user named it.
        source: the documents to train on, and to share out to splits that have no source of their own.
        held_out: sources of their own for `validation` and `test`, where given.
        paired: whether the documents are prompts with responses, rather than plain text.
        wanted: the splits to share the source out to; None: those that have no source of their own.
    """

    name: str
    source: Reader
    held_out: dict[Split, Reader]
    paired: bool = False
    wanted: tuple[Split, ...] | None = None

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
        """The texts of one split, in the order of the source; streamed, never blank. A pair is one text.

        Raises:
            UserError: the corpus has no such split, or its text cannot be read.
        """
        return map(text_of, self._of(split))

    def pairs(self, split: str) -> Iterator[Pair]:
        """The pairs of one split, in the order of the source; streamed.

        Raises:
            UserError: the documents are no pairs, the corpus has no such split, or it cannot be read.
        """
        if not self.paired:
            raise UserError(f"{self.name} holds plain text, not prompts with responses; set {KEY_OPTIONS}")
        return (document for document in self._of(split) if isinstance(document, Pair))

    def walk(self) -> Iterator[tuple[Split, str]]:
        """Every text with its split, reading each source once.

        Raises:
            UserError: the text cannot be read.
        """
        return ((split, text_of(document)) for split, document in self.items())

    def items(self) -> Iterator[tuple[Split, Document]]:
        """Every document with its split, as it was read: texts, or pairs.

        Raises:
            UserError: the text cannot be read.
        """
        for document in self.source:
            yield from self._plan.parts(document)
        for split, reader in self.held_out.items():
            for document in reader:
                yield split, document

    def _of(self, split: str) -> Iterator[Document]:
        if split not in self.splits:
            raise UserError(self._missing(split))
        return (document for at, document in self.items() if at == split)

    @cached_property
    def _plan(self) -> SplitPlan:
        return train_only() if self._wanted == ("train",) else plan_splits(self.source, wanted=self._wanted)

    @property
    def _wanted(self) -> tuple[Split, ...]:
        """The splits to share the source out to."""
        if self.wanted is not None:
            return self.wanted
        if "validation" in self.held_out:
            return ("train",)
        return ("train", "validation") if "test" in self.held_out else SPLITS

    def _missing(self, split: str) -> str:
        if split == "test":
            return f"{self.name} has a validation text of its own but no test text; set data.test"
        return f"unknown split {split!r} of {self.name}; {did_you_mean(split, self.splits)}"


@dataclass(frozen=True)
class SplitReader:
    """One split of a corpus as a source of its own.

    Attributes:
        corpus: the documents.
        split: which of them.
    """

    corpus: Corpus
    split: Split

    def fingerprint(self) -> tuple[str, ...]:
        """A hash of the corpus, and the split."""
        return (self.corpus.fingerprint, self.split)

    def has_text(self) -> bool:
        """Whether the split has any document."""
        return next(iter(self), None) is not None

    def __iter__(self) -> Iterator[Document]:
        return (document for split, document in self.corpus.items() if split == self.split)


@dataclass(frozen=True)
class ChainedReader:
    """The documents of several readers, one after the other.

    Attributes:
        readers: at least one.
    """

    readers: tuple[Reader, ...]

    def fingerprint(self) -> tuple[str, ...]:
        """Those of all readers."""
        return tuple(repr(reader.fingerprint()) for reader in self.readers)

    def has_text(self) -> bool:
        """Whether any reader has a document."""
        return any(reader.has_text() for reader in self.readers)

    def __iter__(self) -> Iterator[Document]:
        return (document for reader in self.readers for document in reader)


def all_training(corpus: Corpus) -> Corpus:
    """The corpus with every document of its source in training, and nothing held out."""
    return replace(corpus, held_out={}, wanted=("train",))


def mixed_corpus(main: Corpus, others: Sequence[Corpus]) -> Corpus:
    """All text that training sees, and the main corpus' held-out splits: what tokenizers are learned from."""
    if not others:
        return main
    training = ChainedReader(tuple(SplitReader(corpus, "train") for corpus in (main, *others)))
    held_out: dict[Split, Reader] = {split: SplitReader(main, split) for split in main.splits if split != "train"}
    return Corpus(name=main.name, source=training, held_out=held_out, paired=main.paired, wanted=("train",))


def open_corpus(
    source: str | Path,
    *,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    text_key: str = "text",
    prompt_key: str | None = None,
    response_key: str | None = None,
    separator: str | None = None,
    config: str | None = None,
    streaming: bool = False,
    max_documents: int | None = None,
    cache: Path,
) -> Corpus:
    """Opens a text, or prompts with responses, and checks that there is something in it.

    Args:
        source: an embedded text or a task by name; a path to a file (.txt, .jsonl, .parquet; for pairs .jsonl,
            .parquet, .csv, .tsv) or a folder of those; or `hf:NAME` for a Hugging Face dataset.
        validation: a path of its own for validation; then every document of `source` trains.
        test: a path of its own for test.
        text_key: the key or column of the text in JSON lines, Parquet and datasets.
        prompt_key: that of the prompt; with `response_key` the documents are pairs.
        response_key: that of the response.
        separator: stands between two documents of a text file (None: it is one), or behind each prompt of a pair.
        config: the configuration of a Hugging Face dataset.
        streaming: read a Hugging Face dataset as it arrives, without downloading the whole of it first.
        max_documents: how many documents to read of each source at most.
        cache: the cache home, see `remask.data.cache.cache_home`.

    Raises:
        UserError: a source is missing, empty, unreadable or named twice; the options do not fit it.
    """
    if max_documents is not None and max_documents < 1:
        raise UserError(f"max_documents must be at least 1, got {max_documents}")
    given: dict[Split, str | Path | None] = {"validation": validation, "test": test}
    _refuse_repeats({"source": source, **given})
    columns = _columns(prompt_key, response_key, prompt_end=separator or "")
    name, own = str(source), dict[Split, Reader]()
    _refuse_own(name, columns, {"data.separator": separator, "data.validation": validation, "data.test": test})

    def files(place: str | Path) -> Reader:
        if columns is not None:
            return open_pairs(Path(place), columns=columns, max_documents=max_documents)
        return open_files(Path(place), text_key=text_key, separator=separator, max_documents=max_documents)

    if name in EMBEDDED:
        own["train"] = embedded_reader(name, cache=cache, max_documents=max_documents)
    elif name in TASKS:
        own |= task_readers(TASKS[name], cache=cache, max_documents=max_documents)
    elif name.startswith(PREFIX):
        reading = {"config": config, "streaming": streaming, "max_documents": max_documents, "cache": cache}
        own |= hub_readers(name.removeprefix(PREFIX), text_key=columns or text_key, **reading)
    else:
        own["train"] = files(_existing(source))
    own |= {split: files(place) for split, place in given.items() if place is not None}
    paired = columns is not None or name in TASKS
    corpus = Corpus(name=name, source=own["train"], held_out={s: own[s] for s in SPLITS[1:] if s in own}, paired=paired)
    _require_text(corpus)
    return corpus


def _columns(prompt: str | None, response: str | None, *, prompt_end: str) -> Columns | None:
    """Where pairs stand; None for plain text."""
    if prompt is None and response is None:
        return None
    if prompt is None or response is None:
        missing = "data.prompt_key" if prompt is None else "data.response_key"
        raise UserError(f"a pair has a prompt and a response, and {missing} is not given: set both, or neither")
    if prompt == response:
        raise UserError(f"data.prompt_key and data.response_key are both {prompt!r}: name two columns")
    return Columns(prompt=prompt, response=response, prompt_end=prompt_end)


def _refuse_own(name: str, columns: Columns | None, given: dict[str, str | Path | None]) -> None:
    """An embedded text or task has no columns, and a task brings its own splits and ends its prompts itself."""
    if columns is not None and (name in EMBEDDED or name in TASKS):
        raise UserError(f"data.source={name} has no columns: leave out {KEY_OPTIONS}")
    for key, value in given.items():
        if name in TASKS and value is not None:
            raise UserError(f"{key} is given, and the task {name} makes its own: leave {key} out")


def refuse_missing(source: str) -> None:
    """Looks whether a text is there, without reading it; a Hugging Face dataset is not asked for.

    Raises:
        UserError: it is neither embedded nor a file or folder.
    """
    if source not in (*EMBEDDED, *TASKS) and not source.startswith(PREFIX):
        _existing(source)


def _existing(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(
            f"there is no text {str(source)!r}: neither a file or folder nor an embedded corpus or task; "
            f"{did_you_mean(str(source), [*EMBEDDED, *TASKS])} Files end in {', '.join(EXTENSIONS)}; "
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
