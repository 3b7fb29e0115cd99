"""Which tokens stand near which, counted in a token store."""

from itertools import pairwise

import numpy as np
import pytest

from remask.data import co_occurrences as counting
from remask.data.co_occurrences import co_occurrences
from remask.data.store import TokenStore

EOS, V = 5, 6


def store(*documents):
    """A store in memory whose documents hold tokens 0 … 4, each closed by an end of text."""
    rows = [np.array([*document, EOS], dtype=np.uint16) for document in documents]
    ids = np.concatenate(rows)
    return TokenStore(
        split="train",
        ids=ids,
        byte_lengths=np.ones(len(ids), dtype=np.uint8),
        document_offsets=np.cumsum([0, *map(len, rows)]),
        text_bytes_total=len(ids),
        vocab_size=V,
        eos_id=EOS,
        fingerprint="toy",
    )


def by_hand(of, *, window):
    counts = np.zeros((V, V))
    for start, end in pairwise(of.document_offsets.tolist()):
        words = of.ids[start : end - 1].tolist()
        for i, one in enumerate(words):
            for j, other in enumerate(words):
                if 0 < abs(i - j) <= window:
                    counts[one, other] += (window + 1 - abs(i - j)) / window
    return counts


@pytest.mark.parametrize("window", [1, 3, 64])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 22])
def test_pairs_within_the_window_of_one_document_count_the_more_the_nearer_whatever_the_chunks(
    monkeypatch, window, chunk
):
    monkeypatch.setattr(counting, "CHUNK", chunk)
    draw = np.random.default_rng(0)
    text = store(*(draw.integers(0, 5, size=size) for size in (30, 1, 0, 9, 2)))
    np.testing.assert_allclose(co_occurrences(text, window=window).toarray(), by_hand(text, window=window))


def test_neighbours_count_one_and_ends_of_text_are_no_company():
    counts = co_occurrences(store([0, 1], [2]), window=2).toarray()
    assert counts[0, 1] == counts[1, 0] == 1.0
    assert counts.sum() == 2.0


def test_a_text_of_single_words_holds_no_pair():
    assert co_occurrences(store([0], [1], []), window=5).nnz == 0
