"""What a pretrained causal model reads in one call: which token at each place, and which places each may attend to.

Documents (segments) number their places from 0, the start token's, as they did when the model was trained, and see
nothing of each other. Padding is document 0; it sees itself, so that no query is without a key.

Shape letters: B batch, L length of the rows, N places read in one call, P places read before, K = P + N, G candidates
for places, Q queries.
"""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Int
from torch import Tensor

CLEAN, NOISY, LEAD = 0, 1, 2
"""Roles of a place: a clean token, a noisy one, and the copy of a clean token that leads a noisy block."""


@dataclass(frozen=True)
class Page:
    """What the backbone reads.

    Attributes:
        ids: token ids [B N].
        places: position ids, from 0 in each document [B N].
        mask: whether query n may attend to key k, the P places read before first [B 1 N K]; every query may attend to
            some key.
        outputs: the place, among the N, whose output predicts token i [B L]; only meaningful where logits are wanted.
    """

    ids: Int[Tensor, "B N"]
    places: Int[Tensor, "B N"]
    mask: Bool[Tensor, "B 1 N K"]
    outputs: Int[Tensor, "B L"]


@dataclass(frozen=True)
class Places:
    """What is asked of a place, to read it and to say who sees it.

    Attributes:
        ids: token ids [B N].
        offsets: places from the document's start [B N].
        documents: 0 for padding [B N].
        blocks: the block of the row, −1 for a document's start [B N].
        roles: `CLEAN`, `NOISY` or `LEAD` [B N].
    """

    ids: Int[Tensor, "B N"]
    offsets: Int[Tensor, "B N"]
    documents: Int[Tensor, "B N"]
    blocks: Int[Tensor, "B N"]
    roles: Int[Tensor, "B N"]

    def where(self, kept: Bool[Tensor, "B N"]) -> "Places":
        """The kept places in order; rows with fewer than the fullest one end in padding."""
        return Places(*keep(kept, *(getattr(self, field.name) for field in fields(self))))


@dataclass(frozen=True)
class Past:
    """The places that a cache holds, whose states will not change.

    Attributes:
        tokens: the number of a row's first tokens that they tell of.
        length: P.
        places: the places themselves, [B P]; None where there are none, or the segments say all that is asked of them.
    """

    tokens: int = 0
    length: int = 0
    places: Places | None = None


def joined(*parts: Places) -> Places:
    """Places of the same rows, one part after another."""
    return Places(*(torch.cat([getattr(p, field.name) for p in parts], 1) for field in fields(Places)))


def block_mask(queries: Places, keys: Places) -> Bool[Tensor, "B Q K"]:
    """Who sees whom of one document: M_BD, M_OBC and M_BC of BD3LM (arXiv:2503.09573), with leads that none sees."""
    query_block, key_block = queries.blocks[:, :, None], keys.blocks[:, None]
    clean_query, key_role = (queries.roles == CLEAN)[:, :, None], keys.roles[:, None]
    own_noisy = ~clean_query & (key_block == query_block) & (key_role == NOISY)
    past_clean = (key_role == CLEAN) & torch.where(clean_query, key_block <= query_block, key_block < query_block)
    return (queries.documents[:, :, None] == keys.documents[:, None]) & (own_noisy | past_clean)


def begins(segments: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """Where a document begins; padding begins none."""
    first = segments != segments.roll(1, dims=1)
    first[:, 0] = True
    return first & (segments > 0)


def offsets(first: Bool[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """How many places each is past the last true one (past the row's first, where there is none)."""
    column = torch.arange(first.shape[1], device=first.device).expand(first.shape)
    return column - column.masked_fill(~first, 0).cummax(1).values


def interleave(one: Tensor, other: Tensor) -> Tensor:
    """Places of `one` and `other` [B L] in turn [B 2L]."""
    return torch.stack([one, other], -1).flatten(1)


def keep(kept: Bool[Tensor, "B G"], *fields: Int[Tensor, "B G"]) -> list[Int[Tensor, "B N"]]:
    """Each field at the kept candidates, in order; rows with fewer than the fullest one end in zeros."""
    count = int(kept.sum(1).max())
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, :count]
    there = kept.gather(1, order)
    return [torch.where(there, field.gather(1, order), 0) for field in fields]


def places_before(kept: Bool[Tensor, "B G"]) -> Int[Tensor, "B H"]:
    """For each second candidate, the place just before it among the kept (H = G / 2)."""
    return (kept.cumsum(1)[:, 1::2] - 2).clamp(min=0)


def within(queries: Int[Tensor, "B Q"], keys: Int[Tensor, "B K"], *, ahead: int) -> Bool[Tensor, "B Q K"]:
    """Whether a key's offset is at most `ahead` places past a query's."""
    return keys[:, None] <= queries[:, :, None] + ahead


def wanted_groups(opens: Bool[Tensor, "B L"], positions: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """All places of those groups in which a position is wanted; a group begins wherever `opens` is true."""
    group = opens.cumsum(1)
    wanted = torch.zeros(group.shape[0], group.shape[1] + 1, dtype=torch.long, device=group.device)
    return wanted.scatter_add(1, group, positions.long()).gather(1, group) > 0
