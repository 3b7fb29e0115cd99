"""Responses as rows of one length of their own, whatever stands before them.

Shape letters: B rows, L places of a row, R tokens of a response, V vocabulary, T places of all responses.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch

CERTAIN = 20.0
"""Nats by which an end of text is likelier than any other token behind a response's last place that is held."""


@dataclass(frozen=True, kw_only=True)
class Responses:
    """The free places of rows, moved to the left, cut or filled up with ends of text to R.

    Behind place R an end of text is taken for certain: a longer response loses what stands there.

    Attributes:
        ids: the rows [B L].
        free: which of their places are response [B L].
        length: R.
        eos_id: end of text.
    """

    ids: Int[Tensor, "B L"]
    free: Bool[Tensor, "B L"]
    length: int
    eos_id: int

    @cached_property
    def _where(self) -> tuple[Int[Tensor, "T"], Int[Tensor, "T"], Int[Tensor, "T"]]:
        """The row of each place, its place in the row, and in the response."""
        rows, places = self.free.nonzero(as_tuple=True)
        return rows, places, (self.free.cumsum(1) - 1)[rows, places]

    @property
    def tokens(self) -> Int[Tensor, "B R"]:
        """The responses."""
        rows, places, at = self._where
        held = at < self.length
        tokens = torch.full((len(self.ids), self.length), self.eos_id, dtype=self.ids.dtype, device=self.ids.device)
        tokens[rows[held], at[held]] = self.ids[rows[held], places[held]]
        return tokens

    def in_places(self, logits: Float[Tensor, "B R V"]) -> Float[Tensor, "T V"]:
        """Logits of the responses' tokens at the true places of `free`, in row-major order."""
        rows, _, at = self._where
        behind = torch.zeros(logits.shape[-1], dtype=logits.dtype, device=logits.device)
        behind[self.eos_id] = CERTAIN
        inside = logits[rows, at.clamp_max(self.length - 1)]
        return torch.where((at < self.length)[:, None], inside, behind)

    def tokens_in_places(self, tokens: Int[Tensor, "B R"]) -> Int[Tensor, "T"]:
        """Tokens of responses at the true places of `free`, in row-major order; ends of text behind the last held."""
        rows, _, at = self._where
        return torch.where(at < self.length, tokens[rows, at.clamp_max(self.length - 1)], self.eos_id)


@dataclass(frozen=True, kw_only=True)
class AsTexts:
    """Rows of pairs as texts of their own: the responses alone, all R of their tokens targets.

    Attributes:
        length: R.
        eos_id: end of text.
    """

    length: int
    eos_id: int

    def of(self, batch: Batch) -> Responses:
        """The responses of a batch."""
        return Responses(ids=batch.ids, free=batch.targets, length=self.length, eos_id=self.eos_id)

    def __call__(self, batch: Batch) -> Batch:
        """Rows of R tokens, in which nothing stands of the questions."""
        tokens = self.of(batch).tokens
        one = torch.ones_like(tokens)
        return replace(batch, ids=tokens, segments=one, targets=one.bool(), byte_lengths=torch.zeros_like(tokens))

    def share(self, batch: Batch) -> Float[Tensor, "B"]:
        """What a token of `__call__` counts, so that a row counts by the tokens that it has."""
        return batch.targets.sum(1) / self.length

    def own(self, batch: Batch) -> Bool[Tensor, "B R"]:
        """Which tokens of `__call__` are the row's own targets, and not what fills it up."""
        return torch.arange(self.length, device=batch.ids.device) < batch.targets.sum(1, keepdim=True)
