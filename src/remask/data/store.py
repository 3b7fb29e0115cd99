"""Token ids on disk, mapped into memory: a corpus of any size is read without being loaded.

Letters: N tokens of a split, D documents of it, V vocabulary.
"""

import json
import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, fields
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from remask.data.cache import cached_folder
from remask.data.corpora import Corpus
from remask.data.documents import Document, pieces_of, text_of
from remask.data.splits import Split
from remask.errors import UserError
from remask.tokenizers.base import Encoding, Tokenizer

FORMAT = 1
END_OF_TEXT = 256  # the symbol after the 256 bytes in `text_bytes`
_META = "meta.json"
_MOST = 255  # bytes that a token's uint8 can hold
_BATCH = 1 << 20  # characters tokenized, or tokens decoded, at a time
_CHUNK = 1 << 22  # tokens looked at at a time


@dataclass(frozen=True, kw_only=True)
class TokenStore:
    """One split of a tokenized corpus; every document ends with an end of text.

    Attributes:
        split: `train`, `validation` or `test`.
        ids: token ids, uint16 or uint32 [N], read-only, mapped from disk.
        byte_lengths: UTF-8 bytes of each token, uint8 [N], mapped; 0 for end of text. A token of more than
            255 bytes leaves the rest to the tokens after it, so that the sum stays exact.
        document_offsets: where each document starts, and N at the end, int64 [D + 1], mapped.
        text_bytes_total: UTF-8 bytes of the split's text.
        vocab_size: V of the tokenizer.
        eos_id: the tokenizer's end of text.
        fingerprint: hash of corpus, tokenizer and format; the name of the cache folder.
        prompt_lengths: tokens of each document that are its prompt, int64 [D], mapped; None for plain text.
        folder: the cache folder that the arrays are mapped from; None for arrays in memory.
    """

    split: str
    ids: np.ndarray
    byte_lengths: np.ndarray
    document_offsets: np.ndarray
    text_bytes_total: int
    vocab_size: int
    eos_id: int
    fingerprint: str
    prompt_lengths: np.ndarray | None = None
    folder: Path | None = None
    _maps: tuple[mmap.mmap, ...] = ()

    @classmethod
    def open(cls, folder: Path, *, split: str) -> "TokenStore":
        """Maps the files of one split in a finished cache folder."""
        meta = json.loads((folder / _META).read_text(encoding="utf-8"))
        maps: list[mmap.mmap] = []
        arrays = {
            name: _mapped(folder / f"{split}.{name}", dtype=dtype, maps=maps)
            for name, dtype in _layout(meta["vocab_size"], paired=meta.get("paired", False)).items()
        }
        return cls(
            split=split,
            **arrays,
            text_bytes_total=meta["splits"][split]["text_bytes"],
            vocab_size=meta["vocab_size"],
            eos_id=meta["eos_id"],
            fingerprint=folder.name,
            folder=folder,
            _maps=tuple(maps),
        )

    def __reduce__(self) -> tuple[Callable[..., "TokenStore"], tuple[Any, ...]]:
        """A worker process maps the files itself instead of being sent their contents."""
        if self.folder is not None:
            return _opened, (self.folder, self.split)
        return _made, ({f.name: getattr(self, f.name) for f in fields(self) if f.name != "_maps"},)

    def __len__(self) -> int:
        """N, the number of tokens."""
        return len(self.ids)

    @property
    def documents(self) -> int:
        """D, the number of documents."""
        return len(self.document_offsets) - 1

    def token_counts(self) -> np.ndarray:
        """How often each id occurs where it is learned, int64 [V]: everywhere, or in the responses of pairs."""
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for start in range(0, len(self), _CHUNK):
            part = self.ids[start : start + _CHUNK]
            counts += np.bincount(part[self._learned(start, len(part))], minlength=self.vocab_size)
            self.release_pages()
        return counts

    def _learned(self, start: int, size: int) -> np.ndarray:
        """Which of `size` tokens from `start` on are no part of a prompt, bool [size]."""
        at = np.arange(start, start + size)
        if self.prompt_lengths is None:
            return np.ones(size, dtype=bool)
        document = np.searchsorted(self.document_offsets, at, side="right") - 1
        return at - self.document_offsets[document] >= self.prompt_lengths[document]

    def text_bytes(self, tokenizer: Tokenizer, *, limit: int | None = None) -> np.ndarray:
        """The split's text as byte symbols, each document followed by 256, uint16.

        The text is what `tokenizer` decodes, so for a lossy tokenizer not quite what was encoded.

        Args:
            tokenizer: the one that made this store.
            limit: how many symbols to return at most; None returns all.
        """
        parts: list[np.ndarray] = []
        total = 0
        for start, end in pairwise(self.document_offsets.tolist()):
            if limit is not None and total >= limit:
                break
            # No document is decoded much further than the limit: a token is seldom empty.
            last = end if limit is None else min(end, start + limit - total)
            for low in range(start, last, _BATCH):  # a list of ids takes many times the memory of the array
                if limit is not None and total >= limit:
                    break
                ids = self.ids[low : min(last, low + _BATCH)]
                symbols = np.frombuffer(tokenizer.decode_bytes(ids), dtype=np.uint8).astype(np.uint16)
                ended = [END_OF_TEXT] if low + len(ids) == end else []
                parts += [symbols, np.array(ended, dtype=np.uint16)]
                total += len(symbols) + len(ended)
        self.release_pages()
        return np.concatenate([*parts, np.zeros(0, dtype=np.uint16)])[:limit]

    def release_pages(self) -> None:
        """Gives mapped pages back to the system, so that resident memory stays small; they are read again."""
        advice = getattr(mmap, "MADV_DONTNEED", None)  # absent on some systems
        if advice is not None:
            for mapped in self._maps:
                mapped.madvise(advice)


def build_stores(
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    cache: Path,
    progress: Callable[[int], None] | None = None,
) -> dict[str, TokenStore]:
    """The tokens of every split, from the cache or tokenized now.

    The cache folder is named by the contents of corpus and tokenizer, so a change of either makes a new one,
    and whoever builds it writes the same bytes. A damaged one is built again.

    Args:
        corpus: the text.
        tokenizer: how to encode it.
        cache: the cache home.
        progress: called while tokenizing with the UTF-8 bytes of text done so far.

    Returns:
        A store for each of the corpus' splits.

    Raises:
        UserError: the text cannot be read or encoded, or the cache cannot be written.
        RunError: the disk is full.
    """
    key = json.dumps([FORMAT, corpus.fingerprint, corpus.splits, tokenizer.fingerprint])
    folder = cache / "tokens" / blake2b(key.encode(), digest_size=16).hexdigest()

    def build(target: Path) -> None:
        _write(target, corpus, tokenizer, progress or (lambda done: None))

    cached_folder(folder, build=build)
    return {split: TokenStore.open(folder, split=split) for split in corpus.splits}


def _opened(folder: Path, split: str) -> TokenStore:
    return TokenStore.open(folder, split=split)


def _made(values: Mapping[str, Any]) -> TokenStore:
    return TokenStore(**values)


def _layout(vocab_size: int, *, paired: bool) -> dict[str, str]:
    """Name and little-endian type of each file of a split."""
    files = {
        "ids": "<u2" if vocab_size <= 1 << 16 else "<u4",
        "byte_lengths": "|u1",
        "document_offsets": "<i8",
    }
    return files | ({"prompt_lengths": "<i8"} if paired else {})


def _mapped(path: Path, *, dtype: str, maps: list[mmap.mmap]) -> np.ndarray:
    with path.open("rb") as file:
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return np.zeros(0, dtype=dtype)
        maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return np.frombuffer(maps[-1], dtype=dtype)


def _write(folder: Path, corpus: Corpus, tokenizer: Tokenizer, progress: Callable[[int], None]) -> None:
    with ExitStack() as stack:
        writers: dict[str, _SplitWriter] = {
            split: stack.enter_context(_SplitWriter(folder, split=split, tokenizer=tokenizer, paired=corpus.paired))
            for split in corpus.splits
        }
        for batch in _batches(corpus.items()):
            pieces = [pieces_of(document) for _, document in batch]
            encodings = iter(tokenizer.encode_batch([text for parts in pieces for text in parts]))
            for (split, _), parts in zip(batch, pieces, strict=True):
                writers[split].add([_whole(next(encodings), text) for text in parts])
            progress(sum(writer.text_bytes for writer in writers.values()))
    meta = {
        "format": FORMAT,
        "corpus": corpus.fingerprint,
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "paired": corpus.paired,
        "splits": {split: writer.summary() for split, writer in writers.items()},
    }
    (folder / _META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def _batches(documents: Iterator[tuple[Split, Document]]) -> Iterator[list[tuple[Split, Document]]]:
    """Documents in groups of about a million characters: enough to tokenize in parallel, few to hold."""
    batch: list[tuple[Split, Document]] = []
    size = 0
    for item in documents:
        batch.append(item)
        size += len(text_of(item[1]))
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _whole(encoding: Encoding, text: str) -> tuple[np.ndarray, np.ndarray, int]:
    """A piece's ids, the bytes of each, and the bytes that a lossy tokenizer left without any token."""
    lengths = encoding.byte_lengths.astype(np.int64)
    return encoding.ids, lengths, len(text.encode("utf-8")) - int(lengths.sum())


class _SplitWriter:
    """Appends documents to the files of a split."""

    def __init__(self, folder: Path, *, split: str, tokenizer: Tokenizer, paired: bool) -> None:
        self._dtypes = _layout(tokenizer.vocab_size, paired=paired)
        self._paths = {name: folder / f"{split}.{name}" for name in self._dtypes}
        self._eos_id = tokenizer.eos_id
        self._files: dict[str, BinaryIO] = {}
        self._owed = 0  # bytes of text that no token's uint8 had room for yet
        self.tokens = self.documents = self.text_bytes = 0

    def __enter__(self) -> "_SplitWriter":
        self._files = {name: path.open("wb") for name, path in self._paths.items()}
        self._put("document_offsets", np.zeros(1))
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()
        if error[0] is None and self._owed:
            _pay_backwards(self._paths["byte_lengths"], self._owed)

    def add(self, pieces: list[tuple[np.ndarray, np.ndarray, int]]) -> None:
        """Writes one document, a text or a prompt and its response, and its end of text."""
        *_, (_, _, rest) = pieces
        lengths = np.concatenate([*(lengths for _, lengths, _ in pieces), [rest]])  # an end of text pays what is left
        if len(pieces) == 2:
            (prompt, _, unpaid), (response, _, _) = pieces
            lengths[max(len(prompt) - 1, 0)] += unpaid  # by the prompt itself, where it has a token
            self._put("prompt_lengths", np.array([len(prompt)]))
            pieces = [(np.concatenate([prompt, response]), lengths, 0)]
        text_bytes = int(lengths.sum())
        if self._owed or lengths.max() > _MOST:
            lengths[0] += self._owed
            lengths, self._owed = _carry(lengths)
        self._put("ids", np.append(pieces[0][0], self._eos_id))
        self._put("byte_lengths", lengths)
        self.tokens += len(lengths)
        self._put("document_offsets", np.array([self.tokens]))
        self.documents += 1
        self.text_bytes += text_bytes

    def summary(self) -> dict[str, Any]:
        """What the meta file keeps of this split."""
        return {"tokens": self.tokens, "documents": self.documents, "text_bytes": self.text_bytes}

    def _put(self, name: str, values: np.ndarray) -> None:
        self._files[name].write(values.astype(self._dtypes[name]).tobytes())


def _carry(lengths: np.ndarray) -> tuple[np.ndarray, int]:
    """Moves what exceeds 255 to the next token; returns the lengths and what is left after the last."""
    kept = lengths.copy()
    over = 0
    for place in range(len(kept)):
        over += int(kept[place])
        kept[place] = min(over, _MOST)
        over -= int(kept[place])
    return kept, over


def _pay_backwards(path: Path, owed: int) -> None:
    """Adds bytes that were left after the last document to the last tokens that have room."""
    lengths = np.memmap(path, dtype=np.uint8, mode="r+")
    for end in range(len(lengths), 0, -_CHUNK):
        part = lengths[max(0, end - _CHUNK) : end]
        room = (_MOST - part[::-1].astype(np.int64)).cumsum()
        paid = np.minimum(room, owed)
        part[::-1] += np.diff(paid, prepend=0).astype(np.uint8)
        owed -= int(paid[-1])
        if owed == 0:
            return
    raise UserError(
        f"this tokenizer leaves no room to count the text's bytes (more than {_MOST} a token on average): it "
        "does not cover this text; choose another tokenizer"
    )
