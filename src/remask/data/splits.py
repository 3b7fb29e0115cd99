"""Which documents train, which validate and which test: decided by each document's own text.

A document's place follows from a hash of its text alone (of the prompt, for a pair), so it is the same on every
machine and in every order, and two copies of one document never stand on both sides.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Literal

from remask.data.documents import Document, LongText, Pair, is_blank, key_pieces, length_of
from remask.errors import UserError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

TRAIN, VALIDATION = 0.90, 0.05
_WHOLE = 1 << 64


def place(document: Document) -> int:
    """The document's place among the splits, in [0, 2^64): the blake2b hash of its text or prompt."""
    digest = blake2b(digest_size=8)
    for piece in key_pieces(document):
        digest.update(piece.encode("utf-8"))
    return int.from_bytes(digest.digest(), "big")


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """How the documents of one source are given to splits.

    Attributes:
        edges: the upper end of each split's share of [0, 2^64), as (split, end) with rising ends.
        longest: the place of a document that trains wherever its hash falls; None for none.
        by_position: cut every document by position instead, because there are too few to share out.
    """

    edges: tuple[tuple[Split, int], ...]
    longest: int | None = None
    by_position: bool = False

    def parts(self, document: Document) -> list[tuple[Split, Document]]:
        """The document under its split, or its parts when it is cut by position; blank parts are left out.

        Raises:
            UserError: a pair would have to be cut.
        """
        if self.by_position:
            if isinstance(document, Pair):
                raise UserError(
                    f"there are fewer different prompts than splits ({len(self.edges)}), and a pair cannot be cut: "
                    "give more pairs, or set data.validation"
                )
            shares = _shares(self.edges)
            long = isinstance(document, LongText)
            parts = cut_long(document, shares=shares) if long else cut_by_position(document, shares=shares)
            return [(edge[0], part) for edge, part in zip(self.edges, parts, strict=True) if not is_blank(part)]
        where = place(document)
        if where == self.longest:
            return [("train", document)]
        return [(next(split for split, end in self.edges if where < end), document)]


def train_only() -> SplitPlan:
    """Every document trains."""
    return SplitPlan(edges=(("train", _WHOLE),))


def plan_splits(documents: Iterable[Document], *, wanted: tuple[Split, ...]) -> SplitPlan:
    """Shares documents out 90/5/5 (or 95/5 without a test split), so that no wanted split is empty.

    Where hashing leaves a split without a document, the documents of highest hash go to test and validation,
    and the longest always trains. Fewer distinct documents than splits are each cut by position, at line
    ends.

    Args:
        documents: every document of the source; reading stops as soon as each split has one.
        wanted: the splits to fill, from `train` on.
    """
    edges = _hash_edges(wanted)
    plan = SplitPlan(edges=edges)
    filled: set[Split] = set()
    lengths: dict[int, int] = {}
    for document in documents:
        where = place(document)
        filled.add(next(split for split, end in edges if where < end))
        if len(filled) == len(wanted):
            return plan
        lengths[where] = length_of(document)
    if len(lengths) < len(wanted):
        return SplitPlan(edges=edges, by_position=True)
    longest = max(lengths, key=lambda where: (lengths[where], where))
    ranked = sorted(where for where in lengths if where != longest)
    held_out = ranked[len(ranked) - (len(wanted) - 1) :]
    ends = [*held_out, _WHOLE]
    return SplitPlan(edges=tuple(zip(wanted, ends, strict=True)), longest=longest)


def cut_by_position(text: str, *, shares: tuple[float, ...]) -> list[str]:
    """Cuts `text` into consecutive parts of these shares, each cut moved to the next line end if one is near.

    The parts joined are the text again.
    """
    cuts = _cuts(len(text), shares=shares, line_end=lambda start, end: text.find("\n", start, end))
    return [text[start:end] for start, end in pairwise(cuts)]


def cut_long(text: LongText, *, shares: tuple[float, ...]) -> list[LongText]:
    """Cuts a long text at the same places, without holding it."""

    def line_end(start: int, end: int) -> int:
        at = start
        for piece in text.part(start, end).pieces():
            found = piece.find("\n")
            if found >= 0:
                return at + found
            at += len(piece)
        return -1

    cuts = _cuts(length_of(text), shares=shares, line_end=line_end)
    return [text.part(start, end) for start, end in pairwise(cuts)]


def _cuts(length: int, *, shares: tuple[float, ...], line_end: Callable[[int, int], int]) -> list[int]:
    """Where the parts begin and end; `line_end` finds the first line end between two places, or gives -1."""
    reach = max(1, length // 50)
    cuts, share = [0], 0.0
    for part in shares[:-1]:
        share += part
        at = max(cuts[-1], round(share * length))
        end = line_end(max(at - 1, 0), min(at + reach, length))
        cuts.append(at if end < 0 else end + 1)
    return [*cuts, length]


def _hash_edges(wanted: tuple[Split, ...]) -> tuple[tuple[Split, int], ...]:
    ends = {"train": TRAIN, "validation": TRAIN + VALIDATION, "test": 1.0}
    if wanted == ("train", "validation"):
        ends = {"train": TRAIN + VALIDATION, "validation": 1.0}
    return tuple((split, round(ends[split] * _WHOLE)) for split in wanted)


def _shares(edges: tuple[tuple[Split, int], ...]) -> tuple[float, ...]:
    return tuple((end - start) / _WHOLE for start, end in pairwise([0, *(end for _, end in edges)]))
