"""Documents to blocks of tokens: what one process does with a batch of text.

Letters: N tokens of a block, D documents that end in it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from remask.data.documents import PIECE, Document, LongText, Pair, pieces_of
from remask.tokenizers.base import Encoding, Tokenizer

MOST = 255
"""Bytes that one token's place in a store can hold."""

Lengths = tuple[np.ndarray, np.ndarray, int]


@dataclass(frozen=True)
class Unit:
    """A document, or a part of a long one: what is tokenized in one go.

    Attributes:
        split: where it belongs.
        texts: the text, or prompt and response.
        ends: whether the document ends here.
    """

    split: str
    texts: tuple[str, ...]
    ends: bool

    def __len__(self) -> int:
        """Its characters."""
        return sum(map(len, self.texts))


@dataclass(frozen=True, kw_only=True)
class Block:
    """The tokens of consecutive units of one split.

    Attributes:
        ids: token ids with the ends of text, in the type that a store keeps [N].
        byte_lengths: UTF-8 bytes of each token, uint8 where none has more than 255, else int64 [N].
        ends: how many of the tokens stand before the end of each document, its end of text among them, int64 [D].
        prompt_lengths: tokens of each document's prompt, int64 [D]; empty for plain text.
    """

    ids: np.ndarray
    byte_lengths: np.ndarray
    ends: np.ndarray
    prompt_lengths: np.ndarray


def units(items: Iterable[tuple[str, Document]], tokenizer: Tokenizer) -> Iterator[Unit]:
    """Documents as units, in order, always cut at the same places; a blank text gives none.

    Args:
        items: documents with their splits.
        tokenizer: says where a long text can be cut.
    """
    for split, document in items:
        if isinstance(document, Pair):
            yield Unit(split, (document.prompt, document.response), True)
        elif isinstance(document, str) and len(document) <= PIECE:
            yield Unit(split, (document,), True)
        else:
            yield from _parts(split, document, tokenizer)


def _parts(split: str, document: str | LongText, tokenizer: Tokenizer) -> Iterator[Unit]:
    held: str | None = None
    for part in tokenizer.cut(pieces_of(document)):
        if held is not None:
            yield Unit(split, (held,), False)
        held = part
    if held is not None:
        yield Unit(split, (held,), True)


def batches(stream: Iterable[Unit], *, characters: int) -> Iterator[list[Unit]]:
    """Units in groups of about so many characters."""
    batch: list[Unit] = []
    size = 0
    for unit in stream:
        batch.append(unit)
        size += len(unit)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def encode(batch: Sequence[Unit], tokenizer: Tokenizer, *, dtype: np.typing.DTypeLike) -> dict[str, Block]:
    """The tokens of a batch, by split.

    Args:
        batch: units in the order of the text.
        tokenizer: how to encode them.
        dtype: of the ids.

    Raises:
        UserError: a text cannot be encoded.
    """
    encodings = iter(tokenizer.encode_batch([text for unit in batch for text in unit.texts]))
    parts: dict[str, list[tuple[Unit, Lengths]]] = {}
    for unit in batch:
        pieces = [_counted(next(encodings), text) for text in unit.texts]
        parts.setdefault(unit.split, []).append((unit, _joined(pieces, eos_id=tokenizer.eos_id, ends=unit.ends)))
    return {split: _block(rows, dtype=dtype) for split, rows in parts.items()}


def _counted(encoding: Encoding, text: str) -> Lengths:
    """A text's ids, the bytes of each, and the bytes that a lossy tokenizer left without any token."""
    size = len(text) if text.isascii() else len(text.encode("utf-8"))
    return encoding.ids, encoding.byte_lengths, size - int(encoding.byte_lengths.sum(dtype=np.int64))


def _joined(pieces: list[Lengths], *, eos_id: int, ends: bool) -> Lengths:
    """A unit's ids with its end of text, the bytes of each, and the tokens of its prompt."""
    ids = [ids for ids, _, _ in pieces]
    lengths = [lengths for _, lengths, _ in pieces]
    prompt = len(ids[0]) if len(pieces) == 2 else 0
    if ends:  # an end of text pays for what is left
        ids.append(np.array([eos_id], dtype=np.int32))
        lengths.append(np.array([pieces[-1][2]], dtype=np.int32))
    together = np.concatenate(lengths)
    if len(pieces) == 2:
        together[max(prompt - 1, 0)] += pieces[0][2]  # by the prompt itself, where it has a token
    return np.concatenate(ids), together, prompt


def _block(rows: list[tuple[Unit, Lengths]], *, dtype: np.typing.DTypeLike) -> Block:
    lengths = np.concatenate([lengths for _, (_, lengths, _) in rows])
    ended = np.array([unit.ends for unit, _ in rows])
    paired = len(rows[0][0].texts) == 2
    return Block(
        ids=np.concatenate([ids for _, (ids, _, _) in rows]).astype(dtype),
        byte_lengths=lengths.astype(np.uint8 if lengths.max(initial=0) <= MOST else np.int64),
        ends=np.cumsum([len(ids) for _, (ids, _, _) in rows], dtype=np.int64)[ended],
        prompt_lengths=np.array([prompt for _, (_, _, prompt) in rows if paired], dtype=np.int64),
    )
