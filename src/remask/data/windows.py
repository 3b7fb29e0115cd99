"""Rows of one document each, whose first tokens, if any, are given and whose others are learned.

Letters: N tokens of a split, D documents, L tokens a row, P given ones, S tokens from the start of a row to the next,
B rows of a batch.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from remask.data.batch import Batch
from remask.data.packing import check_rows
from remask.data.store import TokenStore
from remask.errors import UserError

_CHUNK = 1 << 22  # tokens whose bytes are added up at a time
_ROWS_BEFORE_RELEASE = 256  # rows read before mapped pages are given back


class WindowRows:
    """A split as windows of L tokens inside documents: P tokens are given, those behind them are the targets.

    A document's windows begin at its tokens 0, S, 2S, …; each has at least one target, and the last ones may be padded
    (segment 0). So a row never holds two documents. Documents of P tokens or fewer, their end of text included, have no
    target and are left out; `left_out` says how many. With S = L − P every token behind the first P of a document is a
    target once; with S = L windows do not overlap. With P = 0 nothing is given and every document has its rows.

    What a network that looks both ways bounds here is −log p(targets | given tokens, where the document ends).

    Args:
        store: the tokens of plain text.
        length: L, tokens a row, more than P.
        given: P, at least 0.
        stride: S, at least 1; None takes L.

    Raises:
        UserError: the numbers do not fit, the store holds pairs, or no document is longer than P.
    """

    shows_ends = True

    def __init__(self, store: TokenStore, *, length: int, given: int, stride: int | None = None) -> None:
        step = length if stride is None else stride
        if not 0 <= given < length or step < 1:
            raise UserError(
                f"data.prefix={given} and data.stride={step} do not fit data.length={length}: give a prefix from 0 to "
                f"{length - 1} and a stride of at least 1"
            )
        if store.prompt_lengths is not None:
            raise UserError(f"the {store.split} split holds pairs, whose prompts are given: set data.prefix=null")
        self.store, self.length, self.given = store, length, given
        sizes = np.diff(store.document_offsets)
        self.left_out = int((sizes <= given).sum())
        counts = np.maximum(-(-(sizes - given) // step), 0)  # windows that begin before token size − P
        if not counts.sum():
            longest = f"; the longest of {len(sizes)} has {sizes.max()}" if len(sizes) else ""
            raise UserError(
                f"the {store.split} split has no document of more than data.prefix={given} tokens{longest}: lower "
                "data.prefix, or give longer documents"
            )
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self._starts = np.repeat(store.document_offsets[:-1], counts) + within * step
        self._ends = np.minimum(self._starts + length, np.repeat(store.document_offsets[1:], counts))
        self._unreleased = 0

    def __len__(self) -> int:
        """The number of windows."""
        return len(self._starts)

    @property
    def whole(self) -> np.ndarray:
        """The windows of L tokens, without padding, int64."""
        return np.flatnonzero(self._ends - self._starts == self.length)

    def documents(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The number of the document that each of these windows lies in, int64."""
        starts = self._starts[np.asarray(indices, dtype=np.int64)]
        return np.searchsorted(self.store.document_offsets, starts, side="right") - 1

    @property
    def targets(self) -> int:
        """Tokens behind the given ones, of all rows."""
        return int((self._ends - self._starts - self.given).sum())

    @property
    def bytes_per_target(self) -> float:
        """UTF-8 bytes of text for each target of this split."""
        return self._bytes_per_target

    @cached_property
    def _bytes_per_target(self) -> float:
        text = self._bytes_before(self._ends) - self._bytes_before(self._starts + self.given)
        return float(text.sum() / self.targets)

    def _bytes_before(self, at: np.ndarray) -> np.ndarray:
        """UTF-8 bytes of the tokens before each place of the store."""
        found, before = np.zeros(len(at), dtype=np.int64), 0
        for start in range(0, len(self.store), _CHUNK):
            running = np.cumsum(self.store.byte_lengths[start : start + _CHUNK], dtype=np.int64)
            here = (at > start) & (at <= start + len(running))
            found[here] = before + running[at[here] - start - 1]
            before += int(running[-1])
            self.store.release_pages()
        return found

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        global_size: int | None = None,
    ) -> Batch:
        """The rows of these indices; arguments, result and errors as of `PackedRows.batch`."""
        chosen = check_rows(indices, total=len(self))
        self._make_room(len(chosen))
        at = self._starts[chosen][:, None] + np.arange(self.length)
        valid = at < self._ends[chosen][:, None]
        at = np.minimum(at, len(self.store) - 1)
        ids = np.where(valid, self.store.ids[at], self.store.eos_id).astype(np.int64)
        byte_lengths = np.where(valid, self.store.byte_lengths[at], 0).astype(np.int64)
        places = np.arange(len(chosen)) if rows is None else np.asarray(rows, dtype=np.int64)
        return Batch(
            ids=torch.from_numpy(ids),
            segments=torch.from_numpy(valid.astype(np.int64)),
            targets=torch.from_numpy(valid & (np.arange(self.length) >= self.given)),
            byte_lengths=torch.from_numpy(byte_lengths),
            rows=torch.from_numpy(places),
            global_size=len(chosen) if global_size is None else global_size,
        )

    def _make_room(self, rows: int) -> None:
        self._unreleased += rows
        if self._unreleased > _ROWS_BEFORE_RELEASE:
            self.store.release_pages()
            self._unreleased = rows


def documents_of(rows: object, indices: Sequence[int] | np.ndarray) -> np.ndarray | None:
    """The document that each row lies in, int64; None for rows that do not each lie in one."""
    return rows.documents(indices) if isinstance(rows, WindowRows) else None
