"""Noise that deletes: tokens are taken out and the rest moves together, so that nothing says where they were.

(TSDAE, Wang et al., arXiv:2104.06979, section 3 and table 3: deletion of 60 % of the tokens served best of all noises.)

`remask.data.given.close_up` moves together what is left.

Shape letters: B rows, L places of a row.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from remask.data.batch import Batch


def remaining(batch: Batch, u: Float[Tensor, "B L"], *, share: float) -> Bool[Tensor, "B L"]:
    """The tokens that are left when each target is deleted with a probability, independently.

    Given tokens always stay. A row that would lose all it has keeps one of its targets, whichever was drawn last.

    Args:
        batch: clean rows.
        u: uniform draws in [0, 1).
        share: the probability of deletion, in [0, 1).
    """
    kept = batch.targets & (u >= share)
    given = ~batch.targets & (batch.segments > 0)
    latest = u.masked_fill(~batch.targets, -1.0)
    last = batch.targets & (latest == latest.amax(1, keepdim=True))
    left = kept | given
    return left | (last & ~left.any(1, keepdim=True))


def halves(batch: Batch, u: Float[Tensor, "B L"]) -> tuple[Bool[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """The targets of each row in two disjoint halves by the order of `u`, the first not the larger; padding in neither.

    Given tokens are in both. Of a single target the first half gets none.

    Args:
        batch: clean rows.
        u: uniform draws in [0, 1).
    """
    ranks = u.masked_fill(~batch.targets, 2.0).argsort(1).argsort(1)
    first = batch.targets & (ranks < batch.targets.sum(1, keepdim=True) // 2)
    given = ~batch.targets & (batch.segments > 0)
    return first | given, (batch.targets & ~first) | given


def masked_everywhere(batch: Batch, *, mask_id: int) -> Int[Tensor, "B L"]:
    """The rows with every target masked, given tokens and padding as they are."""
    return torch.where(batch.targets, mask_id, batch.ids)
