"""What a sample shares with the training text, exact at every size: its longest common run, its common n-grams.

Windows are told apart by rank, not by a hash. The windows of 2^j tokens that occur in the samples are
numbered; a window of 2^(j+1) tokens is known by the pair of ranks of its halves, and one of any length l,
2^j ≤ l < 2^(j+1), by the pair of its first and its last 2^j tokens, which overlap (Karp, Miller and Rosenberg
1972, "Rapid identification of repeated patterns"). Equal pairs are equal windows: nothing is left to verify.

Shape letters: n samples, W positions of all samples laid end to end, T positions of a chunk of training text.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_CHUNK = 1 << 20
_SLOT_BITS = 18

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shared:
    """What each sample shares with a text.

    Attributes:
        longest: tokens of its longest run that stands somewhere in the text, int64 [n], from 0 to its length.
        ngrams: size → the share of its n-grams of that size that the text holds, from 0 to 1, each place counted;
            nan for a sample that is shorter, float64 [n].
    """

    longest: npt.NDArray[np.int64]
    ngrams: Mapping[int, npt.NDArray[np.float64]]


def shared_with(
    samples: Sequence[npt.NDArray[np.integer]], train_ids: npt.NDArray[np.integer], *, sizes: Sequence[int] = ()
) -> Shared:
    """What each sample shares with the training text, which is read once, in chunks: a memory map is welcome.

    Args:
        samples: token ids of each sample, n flat arrays of any lengths.
        train_ids: token ids of the training text, flat.
        sizes: the sizes of n-grams, in tokens, each at least 1.
    """
    best = np.zeros(len(samples), dtype=np.int64)
    lengths = np.array([len(sample) for sample in samples], dtype=np.int64)
    longest = int(lengths.max(initial=0))
    if longest == 0:
        return Shared(longest=best, ngrams={size: np.full(len(samples), math.nan) for size in sizes})
    windows = _Windows.of(samples)
    held = {size: np.zeros(len(windows.owner), dtype=np.bool_) for size in sizes}
    for low in range(0, len(train_ids), _CHUNK):
        chunk = windows.ranks_of(np.asarray(train_ids[low : low + _CHUNK + longest - 1]))
        _extend(best, windows, chunk)
        for size in (size for size in sizes if size <= longest):
            missing = np.flatnonzero((windows.remaining >= size) & ~held[size])
            held[size][missing] = _held(windows, chunk, length=size, at=missing)
    return Shared(longest=best, ngrams={size: _shares(windows, lengths, held[size], size=size) for size in sizes})


def longest_copy(
    samples: Sequence[npt.NDArray[np.integer]], train_ids: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """The length of the longest run of each sample that stands somewhere in the training text, in tokens [n]."""
    return shared_with(samples, train_ids).longest


@dataclass(frozen=True, kw_only=True, eq=False)
class _Windows:
    """The windows of the samples.

    Attributes:
        owner: the sample of each position, [W].
        remaining: tokens from each position to the end of its sample, [W].
        tokens: the distinct tokens of the samples, ascending; a token's rank is its place.
        pairs: for each level j ≥ 1 the distinct pairs of ranks of the level below, ascending; a window's
            rank is its place.
        ranks: for each level j the rank of the window of 2^j tokens at each position, −1 where it would
            leave its sample, [W].
    """

    owner: IntArray
    remaining: IntArray
    tokens: IntArray
    pairs: tuple[IntArray, ...]
    ranks: tuple[IntArray, ...]

    @classmethod
    def of(cls, samples: Sequence[npt.NDArray[np.integer]]) -> "_Windows":
        lengths = np.array([len(sample) for sample in samples])
        ids = np.concatenate([np.asarray(sample, dtype=np.int64) for sample in samples])
        remaining = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(ids))
        tokens, inverse = np.unique(ids, return_inverse=True)
        pairs, ranks = [], [inverse]
        for level in range(1, int(lengths.max()).bit_length()):
            whole = np.flatnonzero(remaining >= 1 << level)
            keys = _pair(ranks[-1], whole, whole + (1 << level - 1))
            distinct, inverse = np.unique(keys, return_inverse=True)
            pairs.append(distinct)
            ranks.append(_scatter(whole, inverse, len(ids)))
        owner = np.repeat(np.arange(len(samples)), lengths)
        return cls(owner=owner, remaining=remaining, tokens=tokens, pairs=tuple(pairs), ranks=tuple(ranks))

    def ranks_of(self, chunk: npt.NDArray[np.integer]) -> list[tuple[IntArray, IntArray]]:
        """For each level the ranks of the chunk's windows [T], −1 where no sample has one, and places."""
        at, rank = _find(self.tokens, chunk.astype(np.int64))
        found = [(_scatter(at, rank, len(chunk)), at)]
        for level, pairs in enumerate(self.pairs, start=1):
            ranks, at = found[-1]
            at, keys = _pairs_at(ranks, at, 1 << level - 1)
            known, rank = _find(pairs, keys)
            found.append((_scatter(at[known], rank, len(chunk)), at[known]))
        return found


def _scatter(at: IntArray, rank: IntArray, size: int) -> IntArray:
    ranks = np.full(size, -1)
    ranks[at] = rank
    return ranks


def _extend(best: IntArray, windows: _Windows, chunk: list[tuple[IntArray, IntArray]]) -> None:
    """Raises each sample's best length, token by token, while the chunk holds a longer run of it."""
    lengths = np.bincount(windows.owner, minlength=len(best))
    open_ = best < lengths
    while open_.any():
        length = int(best[open_].min()) + 1
        tried = open_ & (best + 1 == length)
        longer = _present(windows, chunk, length=length, samples=tried)
        best[longer] = length
        open_ = np.where(tried, longer, open_) & (best < lengths)


def _present(
    windows: _Windows,
    chunk: list[tuple[IntArray, IntArray]],
    *,
    length: int,
    samples: npt.NDArray[np.bool_],
) -> npt.NDArray[np.bool_]:
    """Which of the marked samples have a window of `length` tokens that the chunk holds, bool [n]."""
    at = np.flatnonzero(samples[windows.owner] & (windows.remaining >= length))
    present = np.zeros(len(samples), dtype=np.bool_)
    present[windows.owner[at[_held(windows, chunk, length=length, at=at)]]] = True
    return present


def _held(
    windows: _Windows, chunk: list[tuple[IntArray, IntArray]], *, length: int, at: IntArray
) -> npt.NDArray[np.bool_]:
    """Which of the samples' windows of `length` tokens at these positions the chunk holds."""
    level = length.bit_length() - 1
    shift = length - (1 << level)
    wanted, inverse = np.unique(_pair(windows.ranks[level], at, at + shift), return_inverse=True)
    ranks, places = chunk[level]
    _, keys = _pairs_at(ranks, places, shift)
    held = np.zeros(len(wanted), dtype=np.bool_)
    held[_find(wanted, keys)[1]] = True
    return held[inverse]


def _shares(windows: _Windows, lengths: IntArray, held: npt.NDArray[np.bool_], *, size: int) -> npt.NDArray[np.float64]:
    """The share of each sample's windows that are held; nan where it has none."""
    found = np.bincount(windows.owner, weights=held, minlength=len(lengths))
    windows_of = np.maximum(lengths - size + 1, 0)
    return np.where(windows_of > 0, found / np.maximum(windows_of, 1), math.nan)


def _pairs_at(ranks: IntArray, at: IntArray, shift: int) -> tuple[IntArray, IntArray]:
    """The positions among `at` whose window `shift` tokens later is a sample's too, and the pairs' keys."""
    at = at[: np.searchsorted(at, len(ranks) - shift)]
    at = at[ranks[at + shift] >= 0]
    return at, _pair(ranks, at, at + shift)


def _pair(ranks: IntArray, first: IntArray, second: IntArray) -> IntArray:
    return (ranks[first] << 32) | ranks[second]


def _find(ascending: IntArray, wanted: IntArray) -> tuple[IntArray, IntArray]:
    """Which of the wanted values are in `ascending` (their indices in `wanted`), and their places there."""
    table = np.zeros(1 << _SLOT_BITS, dtype=np.bool_)
    table[_slots(ascending)] = True
    likely = np.flatnonzero(table[_slots(wanted)])  # spares most absent values the binary search
    values = wanted[likely]
    place = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    known = ascending[place] == values
    return likely[known], place[known]


def _slots(values: IntArray) -> IntArray:
    mixed = values.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing, Knuth 6.4
    return (mixed >> np.uint64(64 - _SLOT_BITS)).view(np.int64)
