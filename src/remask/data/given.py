"""Rows taken apart into what is given and what is asked for, each closed up to the left.

Shape letters: B rows, L places of a row, N places of the longest source, S places of the longest response.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from remask.data.batch import Batch


@dataclass(frozen=True, kw_only=True)
class ClosedUp:
    """Chosen places of each row moved together to its start, in their order; what lay between them is gone.

    Attributes:
        index: the place in the row that each closed-up place came from, int64 [B S].
        real: which closed-up places hold a chosen one; the rest is padding, bool [B S].
        length: L, the places of the rows they came from.
    """

    index: Int[Tensor, "B S"]
    real: Bool[Tensor, "B S"]
    length: int

    def gather(self, table: Shaped[Tensor, "B L"], *, fill: float = 0) -> Shaped[Tensor, "B S"]:
        """The chosen places of `table`, with `fill` at padding."""
        return table.gather(1, self.index).masked_fill(~self.real, fill)

    def restore(self, values: Shaped[Tensor, "B S"], *, fill: float = 0) -> Shaped[Tensor, "B L"]:
        """Values of closed-up places put back where they came from; `fill` at places that were not chosen."""
        empty = torch.full((len(values), self.length), fill, dtype=values.dtype, device=values.device)
        return empty.scatter(1, self.index, values.masked_fill(~self.real, fill))


def close_up(chosen: Bool[Tensor, "B L"]) -> ClosedUp:
    """The chosen places of each row closed up to the left, as wide as the row with the most of them (at least 1)."""
    counts = chosen.sum(1)
    width = max(int(counts.max()), 1)
    index = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
    real = torch.arange(width, device=chosen.device) < counts[:, None]
    return ClosedUp(index=index, real=real, length=chosen.shape[1])


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Tokens of each row in two parts, each closed up to the left.

    Attributes:
        source: the given tokens, int64 [B N].
        source_real: which of them are tokens and no padding, bool [B N].
        places: the other part's places in the row.
    """

    source: Int[Tensor, "B N"]
    source_real: Bool[Tensor, "B N"]
    places: ClosedUp

    def gather(self, table: Shaped[Tensor, "B L"]) -> Shaped[Tensor, "B S"]:
        """A table of the row at the places that are asked for; zero at padding."""
        return self.places.gather(table)

    def restore(self, values: Shaped[Tensor, "B S"]) -> Shaped[Tensor, "B L"]:
        """Values of the places that are asked for, put back into the row; zero elsewhere."""
        return self.places.restore(values)


@dataclass(frozen=True, kw_only=True)
class Given(Parts):
    """A batch as a question and its answer: the tokens that are given, and the targets.

    Attributes:
        response: the targets as rows of their own: one segment, every real token a target [B S].
    """

    response: Batch


def split_fixed(z: Int[Tensor, "B L"], fixed: Bool[Tensor, "B L"]) -> Parts:
    """Rows of tokens as their fixed ones, which are given, and the places of all others."""
    source = close_up(fixed)
    return Parts(source=source.gather(z), source_real=source.real, places=close_up(~fixed))


def split_given(batch: Batch) -> Given:
    """A batch's tokens that are neither targets nor padding, and its targets, both in row-major order."""
    source = close_up(~batch.targets & (batch.segments > 0))
    places = close_up(batch.targets)
    response = replace(
        batch,
        ids=places.gather(batch.ids),
        segments=places.real.long(),
        targets=places.real,
        byte_lengths=places.gather(batch.byte_lengths),
    )
    return Given(source=source.gather(batch.ids), source_real=source.real, places=places, response=response)
