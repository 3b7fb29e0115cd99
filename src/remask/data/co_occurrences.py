r"""The company that tokens keep in a text: which stand near which, counted, and factored into vectors.

With n_vw how often v and w stand near each other, n_v = Σ_w n_vw and p_w = n_w^¾ / Σ_u n_u^¾,

    M_vw = max(0, log(n_vw / (n_v p_w)) − SHIFT) ≈ U Σ Vᵀ,   c_v = U_v √Σ / rms(U_v √Σ),                     (1)

positive pointwise mutual information, its contexts smoothed, factored at rank W (Levy, Goldberg and Dagan, "Improving
distributional similarity with lessons learned from word embeddings", TACL 2015, sections 2 and 3): what skip-gram with
negative samples factors too (Levy and Goldberg, NIPS 2014, equation 11), found at once. Words that keep the same
company are near each other ("guitar" and "drums"), whatever their letters.

Shape letters: V vocabulary, W width.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from remask.data.store import TokenStore

CHUNK = 1 << 22
"""Tokens that are counted at a time."""
SHIFT = 1.0
"""Nats of mutual information that are no company yet: pairs met by chance."""
SMOOTH = 0.75
"""The exponent of contexts in (1)."""
MORE, PASSES = 32, 3
"""Directions that are followed beyond W while M is factored, and how often."""
TINY = 1e-6
"""Root mean square below which a vector is rounding, and has no direction."""


def co_occurrences(store: TokenStore, *, window: int) -> Any:
    """How often each token stands near each other one, both in one document: n, symmetric and sparse [V V].

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


def company(counts: Any, *, width: int) -> np.ndarray | None:
    """The vectors c of (1), float32 [V W]; None where no two tokens keep company.

    Tokens that stand near none oftener than by chance have zeros; features beyond the rank of M are 0 of all.

    Args:
        counts: n, symmetric and sparse [V V].
        width: W.
    """
    from sklearn.utils.extmath import randomized_svd

    matrix = _information(counts)
    if not matrix.nnz:
        return None
    rank = min(width, matrix.shape[0])
    how: dict[str, Any] = {"n_oversamples": MORE, "n_iter": PASSES, "random_state": 0}
    u, values, _ = randomized_svd(matrix, rank, **how)
    vectors = np.zeros((matrix.shape[0], width), dtype=np.float32)
    vectors[:, :rank] = u * np.sqrt(values)
    size = np.sqrt(np.square(vectors).mean(1, keepdims=True))
    return np.divide(vectors, size, out=np.zeros_like(vectors), where=size > TINY)


def _information(counts: Any) -> Any:
    """M of (1), sparse [V V]."""
    from scipy import sparse

    n = counts.tocoo()
    often = np.asarray(counts.sum(1)).ravel()
    smooth = often**SMOOTH
    nats = np.log(n.data * smooth.sum() / (often[n.row] * smooth[n.col])) - SHIFT
    told = nats > 0
    return sparse.csr_matrix((nats[told], (n.row[told], n.col[told])), shape=n.shape)
