"""Self-BLEU: how well each sample is put together from pieces of the others (Texygen, arXiv:1802.01886, section 3.2).

The self-BLEU of a set is the mean over its samples of the BLEU of one sample with all the others as its references:
1 where all are equal, near 0 where none shares a piece with another. It rises with the number of samples, so only
sets of one size compare. BLEU is sacrebleu's for single sentences: 1- to 4-grams of words (its tokenizer `13a`),
counts clipped to the largest in any one reference, the reference nearest in length, exponential smoothing, and
orders that the sample is too short for left out.

Shape letters: n samples.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics.bleu import BLEU

ORDER = 4
Ngram = tuple[str, ...]


@dataclass
class _Largest:
    """The two largest counts of an n-gram in one sample, and whose the largest is."""

    first: int = 0
    owner: int = -1
    second: int = 0

    def see(self, count: int, owner: int) -> None:
        if count > self.first:
            self.first, self.owner, self.second = count, owner, self.first
        else:
            self.second = max(self.second, count)

    def among_others(self, owner: int) -> int:
        return self.second if owner == self.owner else self.first


@dataclass
class _Lengths:
    """Samples by their length in words."""

    counts: Counter[int] = field(default_factory=Counter)

    def nearest_other(self, length: int) -> int:
        """The length nearest to this one among the other samples, the shorter of two that are equally near."""
        others = (other for other, count in self.counts.items() if other != length or count > 1)
        return min(others, key=lambda other: (abs(other - length), other))


def self_bleu(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """The BLEU of each sample against all the others, in time linear in the text.

    Args:
        texts: the samples.

    Returns:
        from 0 to 1 [n]; nan for a sample without words, and where there is no other sample.
    """
    metric = BLEU(effective_order=True)
    split = [metric.tokenizer(text.rstrip()).split() for text in texts]
    counts = [Counter(chain.from_iterable(_ngrams(words, size) for size in range(1, ORDER + 1))) for words in split]
    largest: dict[Ngram, _Largest] = {}
    for owner, grams in enumerate(counts):
        for gram, count in grams.items():
            largest.setdefault(gram, _Largest()).see(count, owner)
    lengths = _Lengths(Counter(map(len, split)))
    scores = np.full(len(texts), np.nan)
    for owner, (words, grams) in enumerate(zip(split, counts, strict=True)):
        if words and len(texts) > 1:
            scores[owner] = _score(
                grams, largest, owner, length=len(words), reference=lengths.nearest_other(len(words))
            )
    return scores


def _score(grams: Counter[Ngram], largest: dict[Ngram, _Largest], owner: int, *, length: int, reference: int) -> float:
    correct, total = [0] * ORDER, [0] * ORDER
    for gram, count in grams.items():
        total[len(gram) - 1] += count
        correct[len(gram) - 1] += min(count, largest[gram].among_others(owner))
    found = BLEU.compute_bleu(
        correct, total, sys_len=length, ref_len=reference, smooth_method="exp", effective_order=True
    )
    return found.score / 100.0


def _ngrams(words: Sequence[str], size: int) -> Iterable[Ngram]:
    return zip(*(words[start:] for start in range(size)), strict=False)
