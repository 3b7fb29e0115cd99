"""Orders that are a function of a key.

They are those of the raw numbers of Philox (Salmon et al. 2011), which numpy promises never to change.
"""

from hashlib import blake2b

import numpy as np


def epoch_order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation of 0 to n - 1 keyed by (seed, epoch), int64 [n]."""
    return _order(n, np.array([seed, epoch], dtype=np.uint64))


def keyed_order(n: int, *key: int | str) -> np.ndarray:
    """A permutation of 0 to n - 1 keyed by any numbers and words, int64 [n]; unlike keys give unrelated orders."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return _order(n, np.frombuffer(blake2b(text.encode(), digest_size=16).digest(), dtype="<u8"))


def _order(n: int, key: np.ndarray) -> np.ndarray:
    return np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")
