"""Fixed-length rows cut out of a token store.

Letters: N tokens of a split, L tokens a row, B rows of a batch, R = ceil(N / L) rows.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch

from remask.data.batch import Batch
from remask.data.store import TokenStore
from remask.errors import UserError

# Rows read before mapped pages are given back: one makes 64 KiB to 2 MiB resident.
_ROWS_BEFORE_RELEASE = 256


@runtime_checkable
class Rows(Protocol):
    """A split in rows of one length: packed text, or one pair a row."""

    @property
    def store(self) -> TokenStore:
        """The tokens."""
        ...

    @property
    def length(self) -> int:
        """L, tokens a row."""
        ...

    @property
    def targets(self) -> int:
        """Tokens that count, in all rows: those of an epoch."""
        ...

    @property
    def bytes_per_target(self) -> float:
        """UTF-8 bytes of text for each token that counts."""
        ...

    @property
    def shows_ends(self) -> bool:
        """Whether segments show a network that looks both ways where documents end."""
        ...

    @property
    def left_out(self) -> int:
        """Documents that fit no row."""
        ...

    def __len__(self) -> int:
        """R, the number of rows."""
        ...

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        global_size: int | None = None,
    ) -> Batch:
        """The rows of these indices."""
        ...


def check_rows(indices: Sequence[int] | np.ndarray, *, total: int) -> np.ndarray:
    """The indices as an array, int64 [B].

    Raises:
        IndexError: one is not in [0, total).
    """
    chosen = np.asarray(indices, dtype=np.int64)
    if chosen.size and (chosen.min() < 0 or chosen.max() >= total):
        raise IndexError(f"rows are 0 to {total - 1}, got {chosen.min()} to {chosen.max()}")
    return chosen


class PackedRows:
    """A split as R rows of L tokens: row r holds tokens rL to (r + 1)L; only the last one is padded.

    Documents run on from row to row, and `segments` tells them apart within a row.

    Args:
        store: the tokens.
        length: L, tokens a row.

    Raises:
        UserError: the split is empty, or the training split is shorter than one row.
    """

    shows_ends = True
    left_out = 0

    def __init__(self, store: TokenStore, *, length: int) -> None:
        if length < 1:
            raise UserError(f"data.length must be at least 1 token, got {length}")
        if len(store) == 0:
            raise UserError(
                f"the {store.split} split has no tokens; give more text, or a {store.split} text of its own"
            )
        if store.split == "train" and len(store) < length:
            raise UserError(
                f"the training split has {len(store)} tokens, fewer than one row of {length}: give more "
                f"text, or set data.length to {len(store)} or less"
            )
        self.store, self.length = store, length
        self._unreleased = 0

    def __len__(self) -> int:
        """R, the number of rows."""
        return -(-len(self.store) // self.length)

    @property
    def targets(self) -> int:
        """N: every token counts, once an epoch."""
        return len(self.store)

    @property
    def bytes_per_target(self) -> float:
        """UTF-8 bytes of text for each token."""
        return self.store.text_bytes_total / len(self.store)

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        global_size: int | None = None,
    ) -> Batch:
        """The rows of these indices.

        Args:
            indices: which rows of the split, each in [0, R), [B].
            rows: the place of each in the global batch; by default 0 to B - 1.
            global_size: the examples of that global batch; by default B.

        Raises:
            IndexError: an index is not a row of this split.
        """
        chosen = check_rows(indices, total=len(self))
        self._make_room(len(chosen))
        starts = chosen * self.length
        at = starts[:, None] + np.arange(self.length)
        valid = at < len(self.store)
        at = np.minimum(at, len(self.store) - 1)
        ids = np.where(valid, self.store.ids[at], self.store.eos_id).astype(np.int64)
        byte_lengths = np.where(valid, self.store.byte_lengths[at], 0).astype(np.int64)
        places = np.arange(len(chosen)) if rows is None else np.asarray(rows, dtype=np.int64)
        return Batch(
            ids=torch.from_numpy(ids),
            segments=torch.from_numpy(np.where(valid, self._segments(starts), 0)),
            targets=torch.from_numpy(valid),
            byte_lengths=torch.from_numpy(byte_lengths),
            rows=torch.from_numpy(places),
            global_size=len(chosen) if global_size is None else global_size,
        )

    def _segments(self, starts: np.ndarray) -> np.ndarray:
        """The number of each token's document within its row, from 1, int64 [B L]."""
        offsets = self.store.document_offsets
        first = np.searchsorted(offsets, starts, side="right")  # documents that start within the row, not at its edge
        last = np.searchsorted(offsets, starts + self.length, side="left")
        counts = last - first
        row = np.repeat(np.arange(len(starts)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        new = np.zeros((len(starts), self.length), dtype=np.int64)
        new[row, offsets[first[row] + within] - starts[row]] = 1
        new[:, 0] = 1
        return new.cumsum(axis=1)

    def _make_room(self, rows: int) -> None:
        self._unreleased += rows
        if self._unreleased > _ROWS_BEFORE_RELEASE:
            self.store.release_pages()
            self._unreleased = rows
