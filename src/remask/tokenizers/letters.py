"""The letter n-grams of each token, hashed, for networks that read tokens by their letters.

Shape letters: V vocabulary, K n-grams of a token at most.
"""

import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from remask.tokenizers.base import Tokenizer


def letter_grams(text: str, *, least: int, most: int) -> Iterator[str]:
    """The n-grams of a token's letters, from `least` to `most` of them, in lower case, a blank at either end counted.

    A token of blanks, and one without a text, has none. For n beyond its length a token is its own n-gram.
    """
    word = text.strip().casefold()
    if not word:
        return
    bounded = f" {word} "
    for size in range(least, most + 1):
        for start in range(max(1, len(bounded) - size + 1)):
            yield bounded[start : start + size]


def hashed_grams(texts: Sequence[str], *, buckets: int, least: int, most: int) -> np.ndarray:
    """The bucket of each n-gram of each text, int64 [V K], the same on every machine; `buckets` stands behind the last.

    Args:
        texts: of each token; those that stand for no text are empty.
        buckets: how many there are.
        least: letters of the shortest n-gram, a boundary counted as one.
        most: of the longest.
    """
    rows = [
        [zlib.crc32(gram.encode("utf-8", "replace")) % buckets for gram in letter_grams(text, least=least, most=most)]
        for text in texts
    ]
    table = np.full((len(rows), max(1, *map(len, rows))), buckets, dtype=np.int64)
    for token, row in enumerate(rows):
        table[token, : len(row)] = row
    return table


def token_texts(tokenizer: Tokenizer) -> list[str]:
    """The text of each id; empty for end of text and mask, U+FFFD in place of bytes that are no character."""
    return [tokenizer.decode_bytes([token]).decode("utf-8", "replace") for token in range(tokenizer.vocab_size)]
