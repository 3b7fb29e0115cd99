"""How rows of tokens are laid out for a causal language model, whose output at one place predicts the next token.

A pretrained causal model keeps that habit here: token i is predicted where the backbone reads token i−1, and the first
token of a document where it reads a start token.

A reading that shows no place what comes later can be resumed: it then lays out only what a cache does not hold.

Shape letters: B batch, L length, N places that the backbone reads, P places that a cache holds, K = P + N, G = 2L
candidates for places.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from remask.networks.pages import (
    CLEAN,
    LEAD,
    NOISY,
    Page,
    Past,
    Places,
    begins,
    block_mask,
    interleave,
    joined,
    keep,
    offsets,
    places_before,
    wanted_groups,
    within,
)


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


@runtime_checkable
class ResumedReading(Reading, Protocol):
    """A reading in which early places see nothing of later ones, so that what was computed of them can be kept."""

    @property
    def block_length(self) -> int:
        """Tokens that see each other while later ones are seen by none."""
        ...

    def resume(
        self,
        z: Int[Tensor, "B L"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        past: Past,
        known: int,
        start_id: int,
        opened: float,
    ) -> tuple[Page, Past]:
        """The page of what is not held yet, and what can be held once it was read.

        What is to be held comes first on the page, just behind the P places of `past`.

        Args:
            z: tokens from the row's start.
            segments: the document of each token.
            positions: where logits are wanted, behind the tokens of `past`.
            past: what is held, at first `Past()`.
            known: the number of tokens that will not change.
            start_id: as in a call.
            opened: as in a call, and as in all calls since the first.
        """
        ...


@dataclass(frozen=True)
class CausalReading:
    """Each place reads the token before its own and sees those to its left: logits are log p(x_i | x_{<i}).

    Attributes:
        block_length: 1.
    """

    block_length: int = 1

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
        """One place a token."""
        refuse_context(context)
        return self.resume(
            z, segments=segments, positions=positions, past=Past(), known=0, start_id=start_id, opened=opened
        )[0]

    def resume(
        self,
        z: Int[Tensor, "B L"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        past: Past,
        known: int,
        start_id: int,
        opened: float,
    ) -> tuple[Page, Past]:
        """The places behind those held; a place is settled as soon as the token before its own is known."""
        del positions, opened
        length, since = z.shape[1], past.length
        first = begins(segments)
        ids = torch.where(first, start_id, z.roll(1, dims=1))[:, since:]
        below = torch.ones(length - since, length, dtype=torch.bool, device=z.device).tril(since)
        mask = (segments[:, since:, None] == segments[:, None]) & below
        outputs = (torch.arange(length, device=z.device) - since).expand_as(z)
        settled = max(min(known + 1, length), since)
        return Page(ids, offsets(first)[:, since:], mask[:, None], outputs), Past(tokens=settled, length=settled)


read_causally = CausalReading()
"""The reading of a model that goes on as a causal language model."""


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
    mask = (documents[:, :, None] == documents[:, None]) & within(places, places, ahead=int(opened * z.shape[1]))
    return Page(ids, places, mask[:, None], places_before(kept)[:, : z.shape[1]])


@dataclass(frozen=True)
class BlockReading:
    """A reading for block diffusion (BD3LM, arXiv:2503.09573, section 3.1): noisy blocks, each after its clean past.

    The page holds the noisy blocks in which logits are wanted, then the clean tokens before the last of them. A noisy
    block sees itself and the clean blocks before it; a clean block sees itself and the clean blocks before it. Where a
    pretrained model is to predict the first token of a block, it must read the token before it and see the noisy
    block: so each noisy block is led by a copy of that token, which only asks and is seen by none. While attention
    opens, a place sees ⌊opened · block_length⌋ places ahead; closed, the clean half computes just what the causal
    model did.

    A clean block sees nothing noisy and nothing later, so once its tokens are known it is held; leads and noisy blocks
    are read anew in every call.

    Attributes:
        block_length: tokens a block, counted from the row's first place.

    Raises:
        ValueError: when it is below 1.
    """

    block_length: int

    def __post_init__(self) -> None:
        if self.block_length < 1:
            raise ValueError(f"block_length: {self.block_length} was given; a block holds 1 token or more")

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
        """Noisy blocks and their clean past; without a context `z` itself is the past."""
        row = _Row(z, z if context is None else context, segments, self.block_length, start_id)
        noisy = row.noisy(positions)
        return self._page(row, Past(), noisy=noisy, later=row.before(noisy), opened=opened)

    def resume(
        self,
        z: Int[Tensor, "B L"],
        *,
        segments: Int[Tensor, "B L"],
        positions: Bool[Tensor, "B L"],
        past: Past,
        known: int,
        start_id: int,
        opened: float,
    ) -> tuple[Page, Past]:
        """The blocks that became known, then as in a call without them and without those held."""
        row = _Row(z, z, segments, self.block_length, start_id)
        settled = max(min(known, z.shape[1]) // self.block_length * self.block_length, past.tokens)
        noisy = row.noisy(positions)
        held = row.clean().where(row.between(past.tokens, settled))
        later = row.before(noisy) & row.between(settled, z.shape[1])
        page = self._page(row, past, held, noisy=noisy, later=later, opened=opened)
        places = held if past.places is None else joined(past.places, held)
        return page, Past(tokens=settled, length=places.ids.shape[1], places=places)

    def _page(
        self,
        row: "_Row",
        past: Past,
        *held: Places,
        noisy: Bool[Tensor, "B L"],
        later: Bool[Tensor, "B G"],
        opened: float,
    ) -> Page:
        """The page of the places to be held, then noisy tokens, then the clean candidates `later`."""
        kept = torch.cat([row.slots(noisy), later], 1)
        rest = joined(row.led(), row.clean()).where(kept)
        new = joined(*held, rest)
        seen = new if past.places is None else joined(past.places, new)
        ahead = int(opened * self.block_length)
        mask = block_mask(new, seen) & within(new.offsets, seen.offsets, ahead=ahead)
        begin = new.ids.shape[1] - rest.ids.shape[1]
        return Page(new.ids, new.offsets, mask[:, None], begin + places_before(kept)[:, : noisy.shape[1]])


def read_in_blocks(block_length: int) -> BlockReading:
    """The reading for block diffusion in blocks of that many tokens."""
    return BlockReading(block_length)


class _Row:
    """Rows of tokens, cut into blocks, as candidates for places: two a token, in turn.

    A clean token has a start token's place before its own; a noisy one has its block's lead.

    Args:
        z: noisy tokens [B L].
        clean: clean tokens [B L].
        segments: the document of each [B L].
        block_length: tokens a block.
        start_id: read before the first token of a document.
    """

    def __init__(
        self,
        z: Int[Tensor, "B L"],
        clean: Int[Tensor, "B L"],
        segments: Int[Tensor, "B L"],
        block_length: int,
        start_id: int,
    ) -> None:
        self.column = torch.arange(z.shape[1], device=z.device).expand_as(z)
        self.block, self.first = self.column // block_length, begins(segments)
        self.opens = self.first | (self.column % block_length == 0)
        offset = offsets(self.first)
        self._common = {"offsets": interleave(offset, offset + 1), "documents": interleave(segments, segments)}
        self._z, self._clean, self._start_id = z, clean, start_id

    def noisy(self, positions: Bool[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """Tokens of the blocks, of one document each, in which a position is wanted."""
        return wanted_groups(self.opens, positions)

    def slots(self, noisy: Bool[Tensor, "B L"]) -> Bool[Tensor, "B G"]:
        """The candidates that noisy tokens and their leads take."""
        return interleave(self.opens & noisy, noisy)

    def before(self, noisy: Bool[Tensor, "B L"]) -> Bool[Tensor, "B G"]:
        """Clean candidates that the last noisy block sees, or one before it."""
        last = self.block.masked_fill(~noisy, 0).amax(1, keepdim=True)
        return interleave(self.first & (self.block <= last), self.block < last)

    def between(self, start: int, end: int) -> Bool[Tensor, "B G"]:
        """Clean candidates of tokens from `start` on and before `end`."""
        there = (self.column >= start) & (self.column < end)
        return interleave(self.first & there, there)

    def led(self) -> Places:
        """Noisy tokens, and before each what leads a block there: the clean token before it, or a start token [B G]."""
        before = torch.where(self.first, self._start_id, self._clean.roll(1, dims=1))
        lead = torch.full_like(self.block, LEAD)
        return Places(
            ids=interleave(before, self._z),
            blocks=interleave(self.block, self.block),
            roles=interleave(lead, torch.full_like(lead, NOISY)),
            **self._common,
        )

    def clean(self) -> Places:
        """Clean tokens, and before each a start token [B G]."""
        return Places(
            ids=interleave(torch.full_like(self._clean, self._start_id), self._clean),
            blocks=interleave(torch.full_like(self.block, -1), self.block),
            roles=interleave(clean := torch.full_like(self.block, CLEAN), clean),
            **self._common,
        )


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
