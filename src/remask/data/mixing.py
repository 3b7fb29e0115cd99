"""Which source each training example comes from, when several are mixed by weight.

The source of global example g is a function of g alone, and after any n examples each source has been taken within one
of n times its share. Letters: K sources with whole weights d_i, D = Σ d_i, G examples of a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, reduce
from math import gcd, lcm

import numpy as np

from remask.data.order import keyed_order

FINEST = 1 << 16
"""The longest pattern D that is kept; weights that need a longer one are rounded to D-ths of the whole."""


@dataclass(frozen=True)
class Mixture:
    """Sources taken in turn, as often as their weights say.

    Attributes:
        weights: one for each source, above 0; only their ratios count.
    """

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.weights or min(self.weights) <= 0:
            raise ValueError(f"a mixture needs weights above 0, got {list(self.weights)}")

    @cached_property
    def shares(self) -> tuple[int, ...]:
        """d_i: how often each source is taken in D examples."""
        exact = [Fraction(str(weight)) for weight in self.weights]  # 0.1 as it is written, not its binary neighbour
        common = reduce(lcm, (part.denominator for part in exact))
        whole = [int(part * common) for part in exact]
        divisor = reduce(gcd, whole)
        if sum(whole) // divisor <= FINEST:
            return tuple(part // divisor for part in whole)
        return _rounded(exact)

    @cached_property
    def pattern(self) -> np.ndarray:
        """The source of each example of one round, int64 [D]."""
        return _even_sequence(self.shares)

    @cached_property
    def _taken(self) -> np.ndarray:
        """How often each source comes in the first n examples of a round, int64 [D, K]."""
        chosen = self.pattern[:, None] == np.arange(len(self.shares))
        return np.concatenate([np.zeros((1, len(self.shares)), dtype=np.int64), chosen.cumsum(axis=0)])[:-1]

    def mean(self, values: Sequence[float]) -> float:
        """The mean of one value a source, weighted by the shares."""
        return sum(share * value for share, value in zip(self.shares, values, strict=True)) / sum(self.shares)

    def assign(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where examples come from.

        Args:
            examples: global numbers g, int64 [B].

        Returns:
            The source of each, and its number among the examples of that source, from 0; both int64 [B].
        """
        rounds, at = np.divmod(examples, len(self.pattern))
        source = self.pattern[at]
        return source, rounds * np.asarray(self.shares)[source] + self._taken[at, source]

    def step(self, step: int, *, batch_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Source and number within it of each place of a global batch, both int64 [G].

        The examples of a step stand at places shuffled by (seed, step): otherwise a weight that divides the batch size
        would give a place, and with it the documents that only this place reads, to one source for ever.

        Args:
            step: from 0.
            batch_size: G.
            seed: of the run.
        """
        examples = step * batch_size + np.arange(batch_size)
        if len(self.shares) > 1:
            examples = examples[keyed_order(batch_size, "mixture", seed, step)]
        return self.assign(examples)


ALONE = Mixture((1.0,))
"""One source."""


def _rounded(weights: list[Fraction]) -> tuple[int, ...]:
    """The weights as whole parts of `FINEST`, by largest remainder; none is left with nothing."""
    total = sum(weights)
    ideal = [max(weight * FINEST / total, Fraction(1)) for weight in weights]
    parts = [int(part) for part in ideal]
    spare = max(0, FINEST - sum(parts))
    by_remainder = sorted(range(len(parts)), key=lambda i: (parts[i] - ideal[i], i))
    for i in by_remainder[:spare]:
        parts[i] += 1
    return tuple(parts)


def _even_sequence(shares: tuple[int, ...]) -> np.ndarray:
    """D turns in which source i comes d_i times, after n of them always within one of n·d_i/D, int64 [D].

    Earliest deadline first among the sources that one more turn would not put ahead of their share by one or more
    (Steiner and Yeomans 1993: some such sequence always exists, and this finds it).
    """
    total = sum(shares)
    taken = [0] * len(shares)
    sequence = np.empty(total, dtype=np.int64)
    for turn in range(total):
        open_to = [i for i, share in enumerate(shares) if taken[i] * total < (turn + 1) * share]
        chosen = min(open_to, key=lambda i: (-(-(taken[i] + 1) * total // shares[i]), i))
        sequence[turn] = chosen
        taken[chosen] += 1
    return sequence
