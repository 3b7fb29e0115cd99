"""Which tokens stand near which, counted in a token store."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from remask.data import co_occurrences as counting
from remask.data.co_occurrences import SHIFT, SMOOTH, co_occurrences, company
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


def together(size=16, *, seed=0):
    """Counts of tokens 0 … size − 1, each beside a few others, one more than another; the last is never met."""
    draw = np.random.default_rng(seed)
    counts = draw.gamma(1.0, size=(size, size)) * (draw.random((size, size)) < 0.15)
    counts = counts + counts.T
    counts[-1] = counts[:, -1] = 0
    return sparse.csr_matrix(counts)


def cosines(vectors):
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return unit @ unit.T


@pytest.mark.parametrize("width", [3, 8, 20])
def test_vectors_are_those_of_a_dense_decomposition_of_positive_pointwise_mutual_information(width):
    counts = together().toarray()
    often = counts.sum(1)
    contexts = often**SMOOTH / (often**SMOOTH).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = np.log(counts / often[:, None] / contexts) - SHIFT
    u, values, _ = np.linalg.svd(np.maximum(np.nan_to_num(nats, nan=0.0, neginf=0.0), 0))
    expected = (u * np.sqrt(values))[:, :width]
    found = company(together(), width=width)
    some = np.linalg.norm(expected, axis=1) > 1e-6
    assert some.sum() >= min(width, 7)
    np.testing.assert_allclose(cosines(found[some]), cosines(expected[some]), atol=1e-4)
    np.testing.assert_allclose(np.square(found).mean(1), some, atol=1e-4)
    assert not some[-1], "a token that keeps no company has no direction"


def test_words_of_the_same_company_are_near_each_other_and_those_of_another_are_not():
    counts = np.zeros((6, 6))
    for word in (0, 1):  # beside 2 alone
        counts[word, 2] = counts[2, word] = 10.0
    for word in (3, 4):  # beside 5 alone
        counts[word, 5] = counts[5, word] = 10.0
    near = cosines(company(sparse.csr_matrix(counts), width=4))
    assert near[0, 1] > 0.999
    assert near[3, 4] > 0.999
    assert abs(near[0, 3]) < 1e-3


def test_vectors_are_the_same_each_time_and_as_wide_as_asked_where_the_vocabulary_is_smaller():
    one, again = (company(together(), width=20) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert one.shape == (16, 20)
    assert np.allclose(one[:, 16:], 0.0)


@pytest.mark.parametrize("counts", [np.zeros((8, 8)), np.ones((8, 8))], ids=["no pair", "everybody beside everybody"])
def test_where_no_two_tokens_keep_company_there_are_no_vectors(counts):
    assert company(sparse.csr_matrix(counts), width=4) is None
