"""Witten–Bell counts of one n-gram order over byte symbols: count a text, interpolate, look up, draw.

A key spells an n-gram in base 257, oldest symbol first, so that key // 257 is its context and
key % 257^(k−1) its newest k−1 symbols. An n-gram counts only where it lies within one segment of the text.
With h the context of w and h' the same without its oldest symbol, order k is (Witten and Bell 1991,
method C, interpolated as in Chen and Goodman 1998, section 2.4):

    p_k(w | h) = (c(h w) + T(h) · p_{k−1}(w | h')) / (c(h) + T(h)),        p_0(w) = 1/257

c counts occurrences and T(h) the distinct symbols seen after h; an unseen context leaves p_k = p_{k−1}.

Shape letters: G distinct n-grams of the order, H distinct contexts, m queries.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

END_OF_TEXT = 256
SYMBOLS = 257
_FIT_CHUNK = 1 << 21  # symbols counted at a time: the fastest, in less than half the memory of 2^24

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class OrderCounts:
    """Counts of one order and what follows from them.

    Attributes:
        keys: the distinct n-grams, ascending, [G].
        cumulative: the sum of the counts before each n-gram, and of all, [G+1].
        probabilities: p_k of each n-gram, [G].
        contexts: the distinct contexts, ascending, [H].
        first: the place in `keys` of each context's first n-gram, and G, [H+1].
        backoff: T(h) / (c(h) + T(h)), the weight of the next lower order, [H].
    """

    keys: IntArray
    cumulative: IntArray
    probabilities: FloatArray
    contexts: IntArray
    first: IntArray
    backoff: FloatArray

    def blend(self, keys: IntArray, lower: FloatArray) -> FloatArray:
        """p_k of the n-grams `keys` [m], given p_{k−1} of the same positions [m]."""
        if len(self.keys) == 0:
            return lower
        place, known = _find(self.contexts, keys // SYMBOLS)
        blended = lower * np.where(known, self.backoff[place], 1.0)
        place, known = _find(self.keys, keys)
        return np.where(known, self.probabilities[place], blended)

    def draw(self, contexts: IntArray, rng: np.random.Generator) -> IntArray:
        """A symbol for each context [m] from the counts alone, or −1 where the lower order has to draw."""
        if len(self.keys) == 0:
            return np.full(len(contexts), -1)
        place, known = _find(self.contexts, contexts)
        kept = known & (rng.random(len(contexts)) >= self.backoff[place])
        low, high = self.cumulative[self.first[place]], self.cumulative[self.first[place + 1]]
        chosen = np.searchsorted(self.cumulative, rng.integers(low, high), side="right") - 1
        return np.where(kept, self.keys[chosen] % SYMBOLS, -1)


def ngrams_within(
    symbols: npt.NDArray[np.integer],
    starts: npt.NDArray[np.bool_] | None,
    *,
    order: int,
    low: int,
    high: int,
) -> tuple[IntArray, IntArray]:
    """The n-grams that end in [low, high) and lie within one segment: their ends less `low`, their keys."""
    first = max(low, order - 1)
    count = max(0, high - first)
    begin = first - order + 1
    window = np.asarray(symbols[begin : begin + order - 1 + count])
    keys = np.zeros(count, dtype=np.int64)
    broken = np.zeros(count, dtype=np.bool_)
    for offset in range(order):
        keys *= SYMBOLS
        keys += window[offset : offset + count]
        if offset < order - 1:
            broken |= window[offset : offset + count] == END_OF_TEXT
        if offset > 0 and starts is not None:
            broken |= starts[begin + offset : begin + offset + count]
    kept = np.flatnonzero(~broken)
    return kept + (first - low), keys[kept]


def count_ngrams(symbols: npt.NDArray[np.integer], order: int) -> tuple[IntArray, IntArray]:
    """The distinct n-grams of a text, ascending, and how often each occurs."""
    keys, counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    for low in range(0, len(symbols), _FIT_CHUNK):
        high = min(low + _FIT_CHUNK, len(symbols))
        _, chunk = ngrams_within(symbols, None, order=order, low=low, high=high)
        chunk.sort()
        first = _run_starts(chunk)
        keys, counts = _merge(keys, counts, chunk[first], np.diff(np.append(first, len(chunk))))
    return keys, counts


def _merge(keys: IntArray, counts: IntArray, more_keys: IntArray, more_counts: IntArray) -> tuple[IntArray, IntArray]:
    if len(keys) == 0 or len(more_keys) == 0:
        return (more_keys, more_counts) if len(keys) == 0 else (keys, counts)
    both = np.concatenate([keys, more_keys])
    ascending = np.argsort(both, kind="stable")
    both = both[ascending]
    first = _run_starts(both)
    return both[first], np.add.reduceat(np.concatenate([counts, more_counts])[ascending], first)


def _run_starts(ascending: IntArray) -> IntArray:
    """Where each run of equal values starts."""
    if len(ascending) == 0:
        return np.empty(0, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(ascending[1:] != ascending[:-1]) + 1])


def witten_bell(keys: IntArray, counts: IntArray, lower: OrderCounts | None, order: int) -> OrderCounts:
    """The order's probabilities from its counts and the next lower order (None below order 1)."""
    contexts = keys // SYMBOLS
    first = _run_starts(contexts)
    ends = np.append(first, len(keys))
    types = np.diff(ends)
    cumulative = np.concatenate([[0], np.cumsum(counts)])
    totals = cumulative[ends[1:]] - cumulative[first]
    if lower is None:
        p_lower = np.full(len(keys), 1 / SYMBOLS)
    else:  # a counted n-gram's newest symbols were counted too, one order below
        p_lower = lower.probabilities[np.searchsorted(lower.keys, keys % SYMBOLS ** (order - 1))]
    backoff = types / (totals + types)
    probabilities = (counts + np.repeat(types, types) * p_lower) / np.repeat(totals + types, types)
    return OrderCounts(
        keys=keys,
        cumulative=cumulative,
        probabilities=probabilities,
        contexts=contexts[first],
        first=ends,
        backoff=backoff,
    )


def _find(ascending: IntArray, wanted: IntArray) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """The place of each wanted value (any valid place where it is absent), and whether it is there."""
    place = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    return place, ascending[place] == wanted
