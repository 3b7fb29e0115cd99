"""Lanes: the fixed number of ways in which streamed documents become rows, each with a place of its own in the text.

Lane j reads its own documents in an order of its own and packs them end to end into rows, so what it makes is a
function of (seed, j) alone, whichever process or worker runs it. Where it stands is a few numbers, `Position`.

Letters: L tokens a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import count

import numpy as np

from remask.data.order import keyed_order
from remask.data.streams import Shards
from remask.errors import UserError
from remask.tokenizers.base import Encoding, Tokenizer

BLOCK_CHARACTERS = 1 << 22
"""Text after which a block ends, however few its documents: blocks are held in memory."""

_GROUP = 1 << 17  # characters that are tokenized at a time
_MANY = 8  # shards for each lane from which on lanes take whole shards


@dataclass(frozen=True)
class Position:
    """Where a lane goes on in one source.

    Attributes:
        epoch: how often the lane has read all of its documents.
        shard: the place, in the epoch's order of shards, of the one in which the block begins.
        document: the number within that shard at which the block begins.
        block: the number of the block within the epoch.
        within: documents of the shuffled block that are used up.
        token: tokens of the next document that are used up.
    """

    epoch: int = 0
    shard: int = 0
    document: int = 0
    block: int = 0
    within: int = 0
    token: int = 0

    def to_json(self) -> list[int]:
        """As a list of numbers."""
        return list(astuple(self))


@dataclass(frozen=True, kw_only=True)
class LaneSource:
    """What one lane reads of one source.

    With at least eight shards a lane (or as many for each) lane j of n reads shards j, j + n, …; with fewer it reads
    every n-th document of all of them. So each document belongs to one lane, and each lane sees all of its documents
    once an epoch: in the source's own order where `shuffle` is 1, else with the order of shards keyed by the epoch, and
    that of the documents within blocks of so many.

    Attributes:
        shards: the text.
        lane: j.
        lanes: n.
        shuffle: documents of a block.
        key: what keys the orders, beside lane and epoch.
    """

    shards: Shards
    lane: int
    lanes: int
    shuffle: int
    key: tuple[int | str, ...]

    def blocks(self, start: Position) -> Iterator[tuple[Position, list[str]]]:
        """The blocks from the one at `start` on, each with where it begins and its documents in order; without end.

        Raises:
            UserError: the lane has no document at all; or as `Shards.read`.
        """
        for epoch in count(start.epoch):
            first = replace(start, within=0, token=0) if epoch == start.epoch else Position(epoch)
            found = first.block
            for position, texts in self._epoch(first):
                found += 1
                order = self._order(len(texts), "documents", epoch, position.block)
                yield position, [texts[index] for index in order]
            if not found:
                raise UserError(
                    f"{self.shards.name} has too few documents for data.lanes={self.lanes}: lane {self.lane} has none. "
                    "Lower data.lanes, set data.separator if documents share a text file, or data.streaming=false"
                )

    def _epoch(self, start: Position) -> Iterator[tuple[Position, list[str]]]:
        """The blocks of the rest of an epoch, their documents in the order they are read."""
        whole = len(self.shards) % self.lanes == 0 or len(self.shards) >= _MANY * self.lanes
        own = np.arange(self.lane if whole else 0, len(self.shards), self.lanes if whole else 1)
        own = own[self._order(len(own), "shards", start.epoch)]
        position, texts, size = start, list[str](), 0
        for place in range(start.shard, len(own)):
            shard, first = int(own[place]), start.document if place == start.shard else 0
            for number, text in enumerate(self.shards.read(shard, start=first), start=first):
                if (whole or (number + shard) % self.lanes == self.lane) and text.strip():
                    texts.append(text)
                    size += len(text)
                if len(texts) == self.shuffle or size >= BLOCK_CHARACTERS:
                    yield position, texts
                    block = position.block + 1
                    position, texts, size = Position(start.epoch, place, number + 1, block), [], 0
        if texts:
            yield position, texts

    def _order(self, n: int, *key: int | str) -> np.ndarray:
        return np.arange(n) if self.shuffle == 1 else keyed_order(n, *self.key, self.lane, *key)


class Packer:
    """Documents of one lane and source, end to end in rows of L tokens; each ends with an end of text.

    Args:
        source: the documents.
        tokenizer: how to encode them.
        length: L.
        start: where to begin.
    """

    def __init__(self, source: LaneSource, *, tokenizer: Tokenizer, length: int, start: Position) -> None:
        self._length, self._tokenizer = length, tokenizer
        self._documents = self._tokens(source, start)
        self._position = start
        self._ids = self._bytes = np.zeros(start.token, dtype=np.int64)  # used up, so never looked at
        self._at = start.token

    @property
    def position(self) -> Position:
        """Where the next row begins."""
        return replace(self._position, token=self._at)

    def row(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The next row: ids, bytes of each token, and the number of its document within the row; int64 [L] each."""
        ids, lengths, segments = (np.empty(self._length, dtype=np.int64) for _ in range(3))
        done = segment = 0
        while done < self._length:
            while self._at == len(self._ids):  # the document that a resumed lane stands in may be used up
                self._position, self._ids, self._bytes = next(self._documents)
                self._at = self._position.token
            taken = min(self._length - done, len(self._ids) - self._at)
            segment += 1
            ids[done : done + taken] = self._ids[self._at : self._at + taken]
            lengths[done : done + taken] = self._bytes[self._at : self._at + taken]
            segments[done : done + taken] = segment
            done, self._at = done + taken, self._at + taken
        return ids, lengths, segments

    def _tokens(self, source: LaneSource, start: Position) -> Iterator[tuple[Position, np.ndarray, np.ndarray]]:
        """Each document with where it stands; of the first one, tokens before `start.token` are used up already."""
        within, token = start.within, start.token
        for position, texts in source.blocks(start):
            for group in _groups(texts, start=within):
                encodings = self._tokenizer.encode_batch([texts[index] for index in group])
                for index, encoding in zip(group, encodings, strict=True):
                    ids, lengths = self._ended(encoding, texts[index])
                    yield replace(position, within=index, token=token), ids, lengths
                    token = 0
            within = 0

    def _ended(self, encoding: Encoding, text: str) -> tuple[np.ndarray, np.ndarray]:
        """A document's tokens and its end of text, which counts the bytes that a lossy tokenizer left out."""
        lengths = encoding.byte_lengths.astype(np.int64)
        rest = len(text.encode("utf-8")) - int(lengths.sum())
        return np.append(encoding.ids, self._tokenizer.eos_id).astype(np.int64), np.append(lengths, rest)


def _groups(texts: Sequence[str], *, start: int) -> Iterator[range]:
    """Runs of documents from `start` on that are tokenized together."""
    size, first = 0, start
    for index in range(start, len(texts)):
        size += len(texts[index])
        if size >= _GROUP:
            yield range(first, index + 1)
            size, first = 0, index + 1
    if first < len(texts):
        yield range(first, len(texts))
