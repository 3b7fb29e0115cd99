"""One prompt-response pair a row: the prompt is given, the response and its end are learned.

Letters: D pairs of a split, L tokens a row, B rows of a batch.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from remask.data.batch import Batch
from remask.data.packing import check_rows
from remask.data.store import TokenStore
from remask.errors import UserError


class PairRows:
    """A split of pairs as rows of prompt, response, end of text, and padding up to L.

    The targets are the response and its end; the prompt is shown clean and counts nowhere. Padding is of segment 0,
    which no token sees. So a network that looks both ways can tell how long the response is, and bounds
    −log p(response | prompt, its length): to draw responses of unknown length, train on `FilledPairRows`.

    Pairs longer than L are left out; `left_out` says how many.

    Args:
        store: the tokens of pairs.
        length: L, tokens a row.

    Raises:
        UserError: the split holds no pairs, or none that fits a row.
    """

    shows_ends = True

    def __init__(self, store: TokenStore, *, length: int) -> None:
        if store.prompt_lengths is None:
            raise UserError(f"the {store.split} split holds plain text: set data.prompt_key and data.response_key")
        self.store, self.length = store, length
        self._prompts = store.prompt_lengths
        sizes = np.diff(store.document_offsets)
        self._chosen = np.flatnonzero(sizes <= length)
        self.left_out = len(sizes) - len(self._chosen)
        if len(self._chosen) == 0:
            shortest = f"; the shortest of {len(sizes)} has {sizes.min()}" if len(sizes) else ""
            raise UserError(
                f"the {store.split} split has no pair of at most data.length={length} tokens, its end of text "
                f"included{shortest}: give more pairs, or raise data.length"
            )

    def __len__(self) -> int:
        """The number of pairs that fit a row."""
        return len(self._chosen)

    @property
    def targets(self) -> int:
        """Learned tokens of all rows: responses and their ends."""
        return int(self._responses()[1].sum())

    @cached_property
    def bytes_per_target(self) -> float:
        """UTF-8 bytes of text for each learned token of this split."""
        first, sizes = self._responses()
        running = np.concatenate([[0], np.cumsum(self.store.byte_lengths, dtype=np.int64)])
        text = running[first + sizes] - running[first]
        return float(text.sum() / self.targets)

    def _responses(self) -> tuple[np.ndarray, np.ndarray]:
        """Where the response of each row begins in the store, and its tokens with its end."""
        first = self.store.document_offsets[self._chosen] + self._prompts[self._chosen]
        return first, self.store.document_offsets[self._chosen + 1] - first

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        *,
        rows: Sequence[int] | np.ndarray | None = None,
        global_size: int | None = None,
    ) -> Batch:
        """The rows of these indices; arguments, result and errors as of `PackedRows.batch`."""
        chosen = self._chosen[check_rows(indices, total=len(self))]
        starts, ends = self.store.document_offsets[chosen], self.store.document_offsets[chosen + 1]
        at = starts[:, None] + np.arange(self.length)
        valid = at < ends[:, None]
        at = np.minimum(at, len(self.store) - 1)
        ids = np.where(valid, self.store.ids[at], self.store.eos_id).astype(np.int64)
        byte_lengths = np.where(valid, self.store.byte_lengths[at], 0).astype(np.int64)
        behind = np.arange(self.length) >= self._prompts[chosen][:, None]
        there = self._there(valid)
        places = np.arange(len(chosen)) if rows is None else np.asarray(rows, dtype=np.int64)
        return Batch(
            ids=torch.from_numpy(ids),
            segments=torch.from_numpy(there.astype(np.int64)),
            targets=torch.from_numpy(behind & there),
            byte_lengths=torch.from_numpy(byte_lengths),
            rows=torch.from_numpy(places),
            global_size=len(chosen) if global_size is None else global_size,
        )

    def _there(self, valid: np.ndarray) -> np.ndarray:
        """Which places of each row are no padding, of those that hold the pair, bool [B L]."""
        return valid


class FilledPairRows(PairRows):
    """As `PairRows`, with ends of text up to L instead of padding, all of them learned.

    A denoiser draws all places of a row at once, so it must know what stands behind a short response: here it learns to
    put ends of text there, and with them how long responses are (LLaDA, arXiv:2502.09992, section 2.3). Nothing in a
    row shows where the response ends. The filling is cheap to predict, so figures a token are low: compare a byte.
    """

    shows_ends = False

    def _there(self, valid: np.ndarray) -> np.ndarray:
        return np.ones_like(valid)

    @property
    def targets(self) -> int:
        """Learned tokens of all rows: responses and ends of text up to L."""
        return int(self.length * len(self._chosen) - self._prompts[self._chosen].sum())
