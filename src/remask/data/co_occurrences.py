"""Which tokens stand near which in a text, counted."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from remask.data.store import TokenStore

CHUNK = 1 << 22
"""Tokens that are counted at a time."""


def co_occurrences(store: TokenStore, *, window: int) -> Any:
    """How often each token stands near each other one, both in one document, as a symmetric sparse matrix [V V].

    A pair that is d places apart counts (window + 1 − d) / window, as it does on average in word2vec's windows of drawn
    width. Ends of text are no company.

    Args:
        store: the text; prompts of pairs are counted too.
        window: the greatest distance, at least 1.
    """
    from scipy import sparse

    size = store.vocab_size
    counts = sparse.csr_matrix((size, size), dtype=np.float64)
    for first, second, weight in _pairs(store, window):
        pair, often = np.unique(first * size + second, return_counts=True)
        counts = counts + sparse.csr_matrix((weight * often, (pair // size, pair % size)), shape=(size, size))
    return counts + counts.T


def _pairs(store: TokenStore, window: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Tokens that stand a distance apart, int64 each, and what such a pair counts; of each distance and chunk."""
    for start in range(0, len(store), CHUNK):
        stop = min(start + CHUNK + window, len(store))  # pairs that begin in the chunk
        ids = store.ids[start:stop].astype(np.int64)
        document = np.searchsorted(store.document_offsets, np.arange(start, stop), side="right")
        word = ids != store.eos_id
        for distance in range(1, window + 1):
            here = slice(0, max(0, min(CHUNK, stop - start - distance)))
            there = slice(distance, here.stop + distance)
            near = (document[here] == document[there]) & word[here] & word[there]
            yield ids[here][near], ids[there][near], (window + 1 - distance) / window
        store.release_pages()
