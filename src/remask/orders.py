"""In which order hidden tokens are revealed, so that each next block depends on what is already revealed alone.

A schedule of K rounds splits the n free places of a row into blocks B_1 … B_K. An *order* says which places the next
block takes: fixed ranks of places, or those that the model is surest of. Neither reads a hidden token, so the product
over rounds of Π_{i ∈ B_k} p(x_i | x_{B_1 ∪ … ∪ B_{k−1}}) sums to 1 over all texts; an order that peeks breaks this.

Shape letters: B rows, L length, V vocabulary, K rounds, M wanted places.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.randomness import NUMBERS_AT_ONCE, keyed_generator, widest_float

Rank = Callable[[int, torch.device], Int[Tensor, "L"]]
"""(length, device) → the rank of each place of a row; lowest first, equal ranks to the earlier place [L]."""
Sureness = Callable[[Float[Tensor, "M V"]], Float[Tensor, "M"]]
"""Probabilities → how sure the model is of each place, whatever token is drawn there; the highest go first."""
DECIMALS = 6
"""Digits of a sureness that count: places that look alike tie, whatever the rounding of each says."""
NATS_DECIMALS = 4
"""Those of a sureness in nats, whose terms of all tokens are rounded each."""


Round = tuple[Bool[Tensor, "B L"], Int[Tensor, "B"]]
"""Places that a round may reveal, and how many of those still hidden it reveals in each row."""


@runtime_checkable
class Order(Protocol):
    """Which hidden places are revealed next, from the revealed tokens alone."""

    def wanted(self, hidden: Bool[Tensor, "B L"], count: Int[Tensor, "B"]) -> Bool[Tensor, "B L"]:
        """The hidden places whose probabilities `choose` needs, those that it chooses among them; none at count 0."""
        ...

    def choose(
        self,
        log_p: Float[Tensor, "M V"],
        wanted: Bool[Tensor, "B L"],
        hidden: Bool[Tensor, "B L"],
        count: Int[Tensor, "B"],
    ) -> Bool[Tensor, "B L"]:
        """The next block: `count` hidden places of each row, or all where fewer are left.

        Args:
            log_p: log-probabilities at the true places of `wanted`, in row-major order.
            wanted: as given by the method of that name.
            hidden: places that may be revealed now.
            count: places to reveal.
        """
        ...


@dataclass(frozen=True)
class FixedOrder:
    """The hidden places of lowest rank: a fixed partition of a row, known before any token is.

    Attributes:
        rank: of each place of a row.
    """

    rank: Rank

    def wanted(self, hidden: Bool[Tensor, "B L"], count: Int[Tensor, "B"]) -> Bool[Tensor, "B L"]:
        """The next block itself, so the vocabulary projection runs there alone."""
        return first(self.rank(hidden.shape[1], hidden.device).expand(hidden.shape), hidden, count)

    def choose(
        self,
        log_p: Float[Tensor, "M V"],
        wanted: Bool[Tensor, "B L"],
        hidden: Bool[Tensor, "B L"],
        count: Int[Tensor, "B"],
    ) -> Bool[Tensor, "B L"]:
        """`wanted`; the probabilities do not count."""
        del log_p, hidden, count
        return wanted


@dataclass(frozen=True)
class SureFirst:
    """The hidden places that the model is surest of; ties go to the earlier place, so the choice is deterministic.

    Attributes:
        score: of a place's predicted distribution, rounded to `DECIMALS` digits.
    """

    score: Sureness

    def wanted(self, hidden: Bool[Tensor, "B L"], count: Int[Tensor, "B"]) -> Bool[Tensor, "B L"]:
        """All hidden places of the rows that reveal any."""
        return hidden & (count > 0)[:, None]

    def choose(
        self,
        log_p: Float[Tensor, "M V"],
        wanted: Bool[Tensor, "B L"],
        hidden: Bool[Tensor, "B L"],
        count: Int[Tensor, "B"],
    ) -> Bool[Tensor, "B L"]:
        """The `count` hidden places of the highest score."""
        rows = max(1, NUMBERS_AT_ONCE // log_p.shape[-1])  # a large vocabulary is not held twice for all places
        score = torch.cat([self.score(part.exp()) for part in log_p.split(rows)]).round(decimals=DECIMALS)
        places = torch.zeros(wanted.shape, dtype=score.dtype, device=score.device).masked_scatter(wanted, score)
        return first(-places, hidden, count)


def first(key: Tensor, hidden: Bool[Tensor, "B L"], count: Int[Tensor, "B"]) -> Bool[Tensor, "B L"]:
    """The `count` hidden places of the lowest keys [B L] in each row, equal keys in order of place."""
    by_key = key.argsort(dim=-1, stable=True)
    # hidden places first among those sorted, each keeping its rank by key
    chosen = hidden.gather(-1, by_key) & (hidden.gather(-1, by_key).cumsum(-1) <= count[:, None])
    return torch.zeros_like(hidden).scatter(-1, by_key, chosen)


# ── ranks of places ────────────────────────────────────────────────────────────────────────────────────────────
# The relative ranks of a row's first places do not depend on its length, so padding changes no order.


def left_to_right(length: int, device: torch.device) -> Int[Tensor, "L"]:
    """Every place after those before it."""
    return torch.arange(length, device=device)


def spread(length: int, device: torch.device) -> Int[Tensor, "L"]:
    """Every block's places far apart: 0, ½, ¼, ¾, ⅛, … of the row (the van der Corput sequence, bits reversed).

    Tokens drawn together are drawn independently of each other, which does least harm where they lie far apart.
    """
    bits = max(1, (length - 1).bit_length())
    place = torch.arange(length, device=device)
    reversed_bits = torch.zeros_like(place)
    for bit in range(bits):
        reversed_bits |= ((place >> bit) & 1) << (bits - 1 - bit)
    return reversed_bits


def random_permutation(seed: int) -> Rank:
    """A random order that is a function of `seed`, the same for every row, batch and device."""

    def rank(length: int, device: torch.device) -> Int[Tensor, "L"]:
        keys = torch.rand(length, generator=keyed_generator(seed, "order"), dtype=torch.float64)
        return keys.argsort(stable=True).argsort().to(device)

    return rank


# ── sureness ───────────────────────────────────────────────────────────────────────────────────────────────────


def largest_probability(p: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    """The largest probability, in (0, 1]."""
    return p.amax(-1)


def top_gap(p: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    """The largest probability less the second largest, in [0, 1] (top-k margin, arXiv:2502.06768, section 4)."""
    top, second = p.topk(2, dim=-1).values.unbind(-1)
    return top - second


def negative_entropy(p: Float[Tensor, "M V"]) -> Float[Tensor, "M"]:
    """−H(p) in nats, in [−log V, 0], to `NATS_DECIMALS` digits: rounding of logits alone moves a sum by some 1e-6."""
    nats = -torch.special.entr(p).sum(-1, dtype=widest_float(p.device))
    return nats.round(decimals=NATS_DECIMALS).to(p.dtype)


# ── rounds ─────────────────────────────────────────────────────────────────────────────────────────────────────


def block_counts(free: Int[Tensor, "B"], steps: int) -> Int[Tensor, "B K"]:
    """Places that each of K rounds reveals: ⌊(k + 1) n / K⌋ − ⌊k n / K⌋ of a row's n, for k = 0 … K − 1.

    Raises:
        ValueError: when `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps} was given; a row is revealed in 1 round or more")
    ends = torch.arange(steps + 1, device=free.device) * free[:, None] // steps
    return ends.diff(dim=-1)


def rounds(free: Bool[Tensor, "B L"], steps: int, *, block_length: int | None = None) -> list[Round]:
    """The rounds that reveal all free places: `steps` over the row, or in each block from left to right.

    Args:
        free: places that are not given [B L].
        steps: K, rounds of the row or of each block.
        block_length: places of a block, counted from the row's first; None for the row as one.

    Raises:
        ValueError: when `steps` or `block_length` is below 1.
    """
    length = free.shape[1]
    width = length if block_length is None else block_length
    if width < 1:
        raise ValueError(f"block_length: {block_length} was given; a block holds 1 token or more")
    found: list[Round] = []
    for start in range(0, length, width):
        eligible = torch.zeros_like(free)
        eligible[:, start : start + width] = free[:, start : start + width]
        counts = block_counts(eligible.sum(-1), steps)
        found += [(eligible, count) for count in counts.unbind(-1)]
    return found
