"""The part of a response that is its answer: what stands behind a mark, or all of it.

Shape letters: B rows, L places of a row, A places of an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch
from remask.data.given import close_up


@dataclass(frozen=True, kw_only=True)
class Found:
    """The answers of some rows.

    Attributes:
        ids: their tokens, the end of text included, packed to the left [B A].
        real: what of `ids` is a token of an answer [B A].
        places: where those tokens stand in the rows [B L].
    """

    ids: Int[Tensor, "B A"]
    real: Bool[Tensor, "B A"]
    places: Bool[Tensor, "B L"]


@dataclass(frozen=True, kw_only=True)
class WrittenAnswers:
    """Answers that are written from left to right behind their thought.

    Attributes:
        marks: token sequences, behind the last of which an answer stands; None: a response is all answer.
        eos_id: ends an answer.
        weight: of the mean nats of a written token in the loss, beside those of a place of the thought.
        share: of the rows, whose answers are written in a step, in (0, 1].
        latest: the largest time of the noise that lies on the thought, in (0, 1].
    """

    marks: Sequence[Sequence[int]] | None
    eos_id: int
    weight: float
    share: float
    latest: float

    def rows(self, batch: Batch) -> Bool[Tensor, "B"]:
        """The rows whose answers are written: as many as the share says, spread evenly; of a small batch the last."""
        if batch.global_size * self.share < 1:
            return batch.rows == batch.global_size - 1
        before, behind = (batch.rows * self.share).floor(), ((batch.rows + 1) * self.share).floor()
        return behind > before

    def factor(self, places: Bool[Tensor, "B L"], batch: Batch) -> Float[Tensor, "B 1"]:
        """What nats of written tokens count in a loss that is divided by the places of all thoughts.

        A row's mean over its answer counts as much as `weight` times a thought's mean over its places, once for each of
        the rows that it stands for: as in a sum of the two means, and alike however a batch is cut up.

        Args:
            places: the written tokens.
            batch: rows.
        """
        answers = places.sum(-1, keepdim=True).clamp_min(1)
        share = max(self.share, 1 / batch.global_size)
        return self.weight * batch.targets.sum(-1, keepdim=True) / (answers * share)

    def find(self, batch: Batch) -> Found:
        """The answers of clean rows, each up to its first end of text; a row without a mark has none."""
        ids, targets = batch.ids, batch.targets
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        start = torch.zeros_like(ids[:, 0]) if self.marks is None else self._behind_marks(ids, targets)
        behind = targets & (places >= start[:, None])
        ends = behind & (ids == self.eos_id)
        chosen = behind & (ends.cumsum(-1) - ends.long() == 0)
        closed = close_up(chosen)
        return Found(ids=closed.gather(ids), real=closed.real, places=chosen)

    def _behind_marks(self, ids: Int[Tensor, "B L"], targets: Bool[Tensor, "B L"]) -> Int[Tensor, "B"]:
        """The place behind the last mark of each row, L where there is none."""
        length = ids.shape[1]
        best = torch.full_like(ids[:, 0], -1)
        for mark in self.marks or ():
            if not 0 < len(mark) <= length:
                continue
            windows = ids.unfold(1, len(mark), 1) == torch.tensor(list(mark), device=ids.device)
            here = windows.all(-1) & targets[:, : windows.shape[1]]
            ends = torch.arange(windows.shape[1], device=ids.device) + len(mark)
            best = torch.maximum(best, torch.where(here, ends, -1).amax(-1))
        return torch.where(best < 0, length, best)
