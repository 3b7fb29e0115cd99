"""Token ids on disk, mapped into memory: a corpus of any size is read without being loaded.

Letters: N tokens of a split, D documents of it, V vocabulary.
"""

import json
import mmap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from remask.data.cache import grown_folder
from remask.data.corpora import Corpus
from remask.data.draft import Draft, layout
from remask.data.encoders import encoded
from remask.data.encoding import batches, units
from remask.data.sizes import size_estimate
from remask.tokenizers.base import Tokenizer

Progress = Callable[[int, int | None], None]
"""Told of UTF-8 bytes of text done so far, and how many there are in all, about (None: not known)."""

FORMAT = 1
END_OF_TEXT = 256  # the symbol after the 256 bytes in `text_bytes`
_META = "meta.json"
_BATCH = 1 << 20  # characters tokenized, or tokens decoded, at a time
_BATCHES_BEFORE_SEAL = 16  # what a kill can cost is that much work
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
            for name, dtype in layout(meta["vocab_size"], paired=meta.get("paired", False)).items()
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
            counts += np.bincount(self._learned(part, start), minlength=self.vocab_size)
            self.release_pages()
        return counts

    def source_counts(self) -> np.ndarray:
        """How often each id occurs at all, prompts of pairs included, int64 [V]."""
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for start in range(0, len(self), _CHUNK):
            counts += np.bincount(self.ids[start : start + _CHUNK], minlength=self.vocab_size)
            self.release_pages()
        return counts

    def _learned(self, part: np.ndarray, start: int) -> np.ndarray:
        """Those of the ids from `start` on that are no part of a prompt."""
        if self.prompt_lengths is None:
            return part
        at = np.arange(start, start + len(part))
        document = np.searchsorted(self.document_offsets, at, side="right") - 1
        return part[at - self.document_offsets[document] >= self.prompt_lengths[document]]

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


def unwatched(done: int, total: int | None) -> None:
    """A progress that nobody sees."""


def build_stores(
    corpus: Corpus,
    tokenizer: Tokenizer,
    *,
    cache: Path,
    progress: Progress | None = None,
    workers: int | None = None,
) -> dict[str, TokenStore]:
    """The tokens of every split, from the cache or tokenized now.

    The cache folder is named by the contents of corpus and tokenizer, so a change of either makes a new one, and
    whoever builds it, alone or on many cores, interrupted or not, writes the same bytes. A killed build is gone on
    with, and a damaged store is built again.

    Args:
        corpus: the text.
        tokenizer: how to encode it.
        cache: the cache home.
        progress: called while tokenizing with the UTF-8 bytes of text done so far, and how many there are in all.
        workers: processes that tokenize; None takes as many as there are cores, once the text is worth it.

    Returns:
        A store for each of the corpus' splits.

    Raises:
        UserError: the text cannot be read or encoded, or the cache cannot be written.
        RunError: the disk is full, or a process that tokenizes died.
    """
    key = json.dumps([FORMAT, corpus.fingerprint, corpus.splits, tokenizer.fingerprint])
    folder = cache / "tokens" / blake2b(key.encode(), digest_size=16).hexdigest()

    def build(target: Path) -> None:
        _write(target, corpus, tokenizer, progress or unwatched, workers)

    grown_folder(folder, build=build)
    return {split: TokenStore.open(folder, split=split) for split in corpus.splits}


def _write(folder: Path, corpus: Corpus, tokenizer: Tokenizer, progress: Progress, workers: int | None) -> None:
    dtypes = layout(tokenizer.vocab_size, paired=corpus.paired)
    total = size_estimate(corpus)
    with Draft(folder, splits=corpus.splits, dtypes=dtypes) as draft:
        rest = islice(units(corpus.items(), tokenizer), draft.units, None)
        groups = batches(rest, characters=_BATCH)
        for number, (count, blocks) in enumerate(
            encoded(groups, tokenizer, dtype=dtypes["ids"], workers=workers), start=1
        ):
            draft.add(blocks, units=count)
            if number % _BATCHES_BEFORE_SEAL == 0:
                draft.seal()
            progress(draft.text_bytes, total)
        draft.finish()
    meta = {
        "format": FORMAT,
        "corpus": corpus.fingerprint,
        "tokenizer": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
        "eos_id": tokenizer.eos_id,
        "paired": corpus.paired,
        "splits": {
            split: {"tokens": tally.tokens, "documents": tally.documents, "text_bytes": tally.text_bytes}
            for split, tally in draft.tallies.items()
        },
    }
    (folder / _META).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def _opened(folder: Path, split: str) -> TokenStore:
    return TokenStore.open(folder, split=split)


def _made(values: Mapping[str, Any]) -> TokenStore:
    return TokenStore(**values)


def _mapped(path: Path, *, dtype: str, maps: list[mmap.mmap]) -> np.ndarray:
    with path.open("rb") as file:
        if path.stat().st_size == 0:  # an empty file cannot be mapped
            return np.zeros(0, dtype=dtype)
        maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return np.frombuffer(maps[-1], dtype=dtype)
