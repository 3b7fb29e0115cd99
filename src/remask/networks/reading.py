"""How rows of tokens are laid out for a causal language model, whose output at one place predicts the next token.

A pretrained causal model keeps that habit here: token i is predicted where the backbone reads token i−1, and the first
token of a document where it reads a start token. Documents (segments) number their places from 0, the start token's,
as they did when the backbone was trained, and see nothing of each other.

Shape letters: B batch, L length, N places that the backbone reads, G candidates for places.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True)
class Page:
    """What the backbone reads.

    Attributes:
        ids: token ids [B N].
        places: position ids, from 0 in each document [B N].
        mask: whether query n may attend to key k [B 1 N N]; every query may attend to some key.
        outputs: the place whose output predicts token i [B L]; only meaningful where logits are wanted.
    """

    ids: Int[Tensor, "B N"]
    places: Int[Tensor, "B N"]
    mask: Bool[Tensor, "B 1 N N"]
    outputs: Int[Tensor, "B L"]


@runtime_checkable
class Reading(Protocol):
    """Lays out a batch of rows."""

    def __call__(
        self,
        z: Int[Tensor, "B L"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        context: Int[Tensor, "B L"] | None,
        start_id: int,
        opened: float,
    ) -> Page:
        """The page of a batch.

        Args:
            z: noisy tokens.
            segments: the document of each token, from 1; 0 is padding.
            positions: where logits are wanted.
            context: the clean tokens, for a reading in blocks.
            start_id: read before the first token of a document.
            opened: how far attention has opened, from 0 (causal) to 1 (as far as the reading goes).

        Raises:
            ValueError: when a context is given to a reading that has none.
        """
        ...


def read_causally(
    z: Int[Tensor, "B L"],
    *,
    segments: Int[Tensor, "B L"],
    positions: Bool[Tensor, "B L"],
    context: Int[Tensor, "B L"] | None,
    start_id: int,
    opened: float,
) -> Page:
    """Each place reads the token before its own and sees those to its left: logits are log p(x_i | x_{<i})."""
    del positions, opened
    refuse_context(context)
    first = begins(segments)
    ids = torch.where(first, start_id, z.roll(1, dims=1))
    below = torch.ones(z.shape[1], z.shape[1], dtype=torch.bool, device=z.device).tril()
    mask = (segments[:, :, None] == segments[:, None]) & below
    return Page(ids, offsets(first), mask[:, None], torch.arange(z.shape[1], device=z.device).expand_as(z))


def read_both_ways(
    z: Int[Tensor, "B L"],
    *,
    segments: Int[Tensor, "B L"],
    positions: Bool[Tensor, "B L"],
    context: Int[Tensor, "B L"] | None,
    start_id: int,
    opened: float,
) -> Page:
    """Each document is read whole, a start token before it, and every place sees all of its document.

    While attention opens (DiffuLLaMA, arXiv:2410.17891, section 4.2 opens random entries; here it is a band, so that
    nothing is drawn), a place sees ⌊opened · L⌋ places ahead.
    """
    del positions
    refuse_context(context)
    first = begins(segments)
    offset = offsets(first)
    kept = interleave(first, torch.ones_like(first))
    ids = interleave(torch.full_like(z, start_id), z)
    ids, places, documents = keep(kept, ids, interleave(offset, offset + 1), interleave(segments, segments))
    mask = (documents[:, :, None] == documents[:, None]) & within(places, int(opened * z.shape[1]))
    return Page(ids, places, mask[:, None], places_before(kept)[:, : z.shape[1]])


def read_in_blocks(block_length: int) -> Reading:
    """A reading for block diffusion (BD3LM, arXiv:2503.09573, section 3.1): noisy blocks, each after its clean past.

    The page holds the noisy blocks in which logits are wanted, then the clean tokens before the last of them. A noisy
    block sees itself and the clean blocks before it; a clean block sees itself and the clean blocks before it. Where a
    pretrained model is to predict the first token of a block, it must read the token before it and see the noisy
    block: so each noisy block is led by a copy of that token, which only asks and is seen by none. While attention
    opens, a place sees ⌊opened · block_length⌋ places ahead; closed, the clean half computes just what the causal
    model did.

    Args:
        block_length: tokens a block, counted from the row's first place.

    Raises:
        ValueError: when it is below 1.
    """
    if block_length < 1:
        raise ValueError(f"block_length: {block_length} was given; a block holds 1 token or more")

    def read(
        z: Int[Tensor, "B L"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        context: Int[Tensor, "B L"] | None,
        start_id: int,
        opened: float,
    ) -> Page:
        clean = z if context is None else context
        column = torch.arange(z.shape[1], device=z.device).expand_as(z)
        block, first = column // block_length, begins(segments)
        opens = first | (column % block_length == 0)
        noisy = wanted_groups(opens, positions)
        last = block.masked_fill(~noisy, 0).amax(1, keepdim=True)
        before = torch.where(first, start_id, clean.roll(1, dims=1))
        start = torch.full_like(z, start_id)
        kept = torch.cat([interleave(opens & noisy, noisy), interleave(first & (block <= last), block < last)], 1)
        ids = torch.cat([interleave(before, z), interleave(start, clean)], 1)
        offset = interleave(offsets(first), offsets(first) + 1).repeat(1, 2)
        documents = interleave(segments, segments).repeat(1, 2)
        blocks = torch.cat([interleave(block, block), interleave(torch.full_like(block, -1), block)], 1)
        leads = torch.full_like(block, LEAD)
        roles = torch.cat([interleave(leads, leads - LEAD + NOISY), interleave(leads * 0, leads * 0)], 1)
        ids, offset, documents, blocks, roles = keep(kept, ids, offset, documents, blocks, roles)
        mask = (documents[:, :, None] == documents[:, None]) & block_mask(blocks, roles)
        mask = mask & within(offset, int(opened * block_length))
        return Page(ids, offset, mask[:, None], places_before(kept)[:, : z.shape[1]])

    return read


CLEAN, NOISY, LEAD = 0, 1, 2
"""Roles of a place in `read_in_blocks`: a clean token, a noisy one, and the copy that leads a noisy block."""


def block_mask(blocks: Int[Tensor, "B N"], roles: Int[Tensor, "B N"]) -> Bool[Tensor, "B N N"]:
    """Who sees whom of one document: M_BD, M_OBC and M_BC of BD3LM, with leads that none sees."""
    query_block, key_block = blocks[:, :, None], blocks[:, None]
    clean_query, key_role = (roles == CLEAN)[:, :, None], roles[:, None]
    own_noisy = ~clean_query & (key_block == query_block) & (key_role == NOISY)
    past_clean = (key_role == CLEAN) & torch.where(clean_query, key_block <= query_block, key_block < query_block)
    return own_noisy | past_clean


def refuse_context(context: Int[Tensor, "B L"] | None) -> None:
    """Refuses a clean context.

    Raises:
        ValueError: when one is given.
    """
    if context is not None:
        raise ValueError(
            "a clean context was given to a network that does not read in blocks; build it with read_in_blocks, or "
            "call it without context"
        )


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


def within(places: Int[Tensor, "B N"], ahead: int) -> Bool[Tensor, "B N N"]:
    """Whether key k stands at most `ahead` places after query n."""
    return places[:, None] <= places[:, :, None] + ahead


def wanted_groups(opens: Bool[Tensor, "B L"], positions: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """All places of those groups in which a position is wanted; a group begins wherever `opens` is true."""
    group = opens.cumsum(1)
    wanted = torch.zeros(group.shape[0], group.shape[1] + 1, dtype=torch.long, device=group.device)
    return wanted.scatter_add(1, group, positions.long()).gather(1, group) > 0
