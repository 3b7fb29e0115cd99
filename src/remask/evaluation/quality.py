"""What samples look like: how varied, how repetitive, how alike, how much copied, how much of it words.

No figure says by itself that samples are good: a copy of the training text scores well on all but one. Each
is given beside the same figure of held-out text and of the caller's trivial samples, computed here alike.

Shape letters: n samples, L tokens of a sample.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from remask.evaluation.copying import longest_copy, shared_with
from remask.evaluation.measurement import Measurement
from remask.evaluation.self_bleu import self_bleu

__all__ = [
    "corpus_words",
    "distinct_ngrams",
    "distinct_samples",
    "longest_copy",
    "quality_measurements",
    "repetition",
    "sample_figures",
    "token_entropy",
    "word_share",
    "words",
]

Ids = npt.NDArray[np.integer]
Texts = tuple[Sequence[Ids] | Ids, Sequence[str]]
"""Token ids of samples, [n L] or n flat arrays, and the same samples decoded."""
Figures = Mapping[str, npt.NDArray[np.float64]]
"""Each figure for each sample of a set, [n]; nan where a sample has none."""

_WORD = re.compile(r"[A-Za-z]{2,}")
_OVERLAPS = (4, 8, 16)
"""Tokens of the n-grams that are looked for in the training text."""
_UNITS = {
    "entropy": "nats/token",
    "distinct_1": "share",
    "distinct_2": "share",
    "distinct_3": "share",
    "repetition": "share",
    "self_bleu": "BLEU, 0 to 1",
    **{f"overlap_{size}": "share" for size in _OVERLAPS},
    "longest_copy": "tokens",
    "word_share": "share",
    "distinct_samples": "share",
}
_OF_SETS = ("self_bleu", "distinct_samples")
"""Figures for which each sample is held against the others, so that samples are no independent examples."""


def words(text: str) -> list[str]:
    """The runs of two or more ASCII letters in a text, in order, in the case they are written in."""
    return _WORD.findall(text)


def corpus_words(texts: Iterable[str]) -> set[str]:
    """The distinct words of a corpus, for `word_share`."""
    return {word for text in texts for word in words(text)}


def token_entropy(ids: Ids) -> float:
    """The entropy of a sample's own token frequencies, in nats, 0 to log L; nan for an empty sample."""
    if len(ids) == 0:
        return math.nan
    counts = np.unique(ids, return_counts=True)[1]
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum()) + 0.0  # −0 becomes 0


def distinct_ngrams(ids: Ids, n: int) -> float:
    """Distinct n-grams over all n-grams of a sample, above 0 to 1; nan for a sample shorter than n.

    After Li et al. 2016, "A diversity-promoting objective function", within one sample.
    """
    if len(ids) < n:
        return math.nan
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(ids), n)
    return len(np.unique(windows, axis=0)) / len(windows)


def repetition(ids: Ids) -> float:
    """The share of a sample's 4-grams that occurred in it before, 0 to below 1; nan below 4 tokens.

    seq-rep-4 of Welleck et al. 2020, "Neural text generation with unlikelihood training".
    """
    return 1 - distinct_ngrams(ids, 4)


def word_share(text: str, vocabulary: set[str]) -> float:
    """The share of a text's words that are in the vocabulary, 0 to 1; nan for a text without words.

    Words cut off by the ends of the text count as they stand, for samples and references alike.
    """
    found = words(text)
    return sum(word in vocabulary for word in found) / len(found) if found else math.nan


def distinct_samples(samples: Sequence[Ids] | Ids) -> float:
    """The share of samples that differ from every earlier one, above 0 to 1."""
    return float(np.mean(_differs(samples)))


def sample_figures(sets: Mapping[str, Texts], *, train_ids: Ids, vocabulary: set[str]) -> dict[str, Figures]:
    """All figures of each sample of some sets; the training text is read once for all of them.

    Args:
        sets: samples by the name of their set.
        train_ids: token ids of the training text, flat; a memory map is read in chunks.
        vocabulary: the words of the training text, from `corpus_words`.

    Returns:
        for each set entropy, distinct_1 to distinct_3, repetition, self_bleu, overlap_4, overlap_8 and overlap_16,
        longest_copy, word_share and distinct_samples.

    Raises:
        ValueError: a set is empty, or has not as many texts as rows of ids.
    """
    for name, (ids, texts) in sets.items():
        if len(ids) != len(texts) or len(ids) == 0:
            raise ValueError(f"{name}: {len(ids)} rows of ids and {len(texts)} texts; equal, above 0, needed")
    shared = shared_with([np.asarray(row) for ids, _ in sets.values() for row in ids], train_ids, sizes=_OVERLAPS)
    bounds = np.cumsum([len(ids) for ids, _ in sets.values()])[:-1]
    copied = {
        "longest_copy": shared.longest.astype(np.float64),
        **{f"overlap_{k}": found for k, found in shared.ngrams.items()},
    }
    parts = {name: np.split(values, bounds) for name, values in copied.items()}
    return {
        name: {
            **_own_figures(ids, texts),
            **{figure: values[place] for figure, values in parts.items()},
            "word_share": np.array([word_share(text, vocabulary) for text in texts], dtype=np.float64),
        }
        for place, (name, (ids, texts)) in enumerate(sets.items())
    }


def quality_measurements(
    samples: Figures, *, references: Mapping[str, Figures], protocol: Mapping[str, Any]
) -> list[Measurement]:
    """All quality figures of a set of samples, each beside the same figure of every reference set.

    Figures are means over samples with the standard error of that mean; where each sample is held against the others
    (self_bleu, distinct_samples) there is none. A sample for which a figure is undefined (no word in it, fewer tokens
    than the n-gram) is left out of that figure and of its n.

    Args:
        samples: the set's, from `sample_figures`.
        references: those of what stands beside the samples, by name: `held-out text` and samples of the n-gram
            models, as many and as long as the samples so that the figures compare.
        protocol: what decides whether two figures compare; copied into every measurement.
    """
    return [_measurement(name, samples, references, protocol) for name in _UNITS]


def _own_figures(samples: Sequence[Ids] | Ids, texts: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """The figures for which nothing but the set is needed."""
    rows = [np.asarray(row) for row in samples]
    per_sample: dict[str, list[float]] = {
        "entropy": [token_entropy(row) for row in rows],
        "distinct_1": [distinct_ngrams(row, 1) for row in rows],
        "distinct_2": [distinct_ngrams(row, 2) for row in rows],
        "distinct_3": [distinct_ngrams(row, 3) for row in rows],
        "repetition": [repetition(row) for row in rows],
        "self_bleu": self_bleu(texts).tolist(),
        "distinct_samples": _differs(rows),
    }
    return {name: np.array(values, dtype=np.float64) for name, values in per_sample.items()}


def _differs(samples: Sequence[Ids] | Ids) -> list[float]:
    """1 for a sample that differs from every earlier one, else 0."""
    seen: set[bytes] = set()
    found = []
    for ids in samples:
        key = np.asarray(ids, dtype=np.int64).tobytes()
        found.append(float(key not in seen))
        seen.add(key)
    return found


def _measurement(
    name: str, samples: Figures, references: Mapping[str, Figures], protocol: Mapping[str, Any]
) -> Measurement:
    values = samples[name][~np.isnan(samples[name])]
    n = len(values)
    of_set = {"samples": len(samples[name])} if name in _OF_SETS else {}  # their number decides such a figure
    return Measurement(
        name=name,
        value=_mean(values),
        unit=_UNITS[name],
        n=n,
        stderr=float(values.std(ddof=1) / math.sqrt(n)) if n > 1 and not of_set else None,
        trivial={reference: _mean(figures[name]) for reference, figures in references.items()},
        protocol={**protocol, **of_set},
    )


def _mean(values: npt.NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
