"""Noise that deletes tokens.

Shape letters: B rows, L places.
"""

import torch

from concept_readers import rows
from remask.data.given import close_up
from remask.deletion import halves, masked_everywhere, remaining


def draws(batch, *, seed: int = 3):
    return torch.rand(batch.ids.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_deleted_tokens_are_gone_with_their_places() -> None:
    """What is left stands together at the start, in its order, and nothing says where the gaps were."""
    batch = rows(count=2)
    u = torch.tensor([[0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1], [0.1, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.1]])
    closed = close_up(remaining(batch, u, share=0.6))
    assert closed.gather(batch.ids).tolist() == [batch.ids[0, [0, 2, 5]].tolist(), batch.ids[1, [1, 3, 6]].tolist()]
    assert closed.real.all()


def test_the_share_of_deleted_targets_is_the_one_asked_for() -> None:
    """80,000 tokens, within four standard errors."""
    batch = rows(count=2000, length=40)
    left = remaining(batch, draws(batch), share=0.6)
    assert abs(float(left.float().mean()) - 0.4) < 4 * (0.24 / 80_000) ** 0.5


def test_given_tokens_stay_and_padding_is_never_left() -> None:
    """Whatever is drawn."""
    batch = rows(count=50, given=3, lengths=(8,) * 25 + (5,) * 25)
    left = remaining(batch, draws(batch), share=0.9)
    assert left[:, :3].all()
    assert not left[batch.segments == 0].any()


def test_a_row_never_loses_everything() -> None:
    """One target stays where all were to go."""
    batch = rows(count=30, lengths=(8,) * 15 + (1,) * 15)
    left = remaining(batch, 0.5 * draws(batch), share=0.9)
    assert left.sum(1).tolist() == [1] * 30


def test_halves_are_disjoint_and_together_the_row() -> None:
    """Of an odd number the second has one more; given tokens are in both."""
    batch = rows(count=20, given=1, lengths=(8,) * 10 + (5,) * 10)
    first, second = halves(batch, draws(batch))
    assert not (first & second & batch.targets).any()
    assert torch.equal((first | second), batch.segments > 0)
    assert (first & batch.targets).sum(1).tolist() == [3] * 10 + [2] * 10
    assert first[:, 0].all()
    assert second[:, 0].all()


def test_the_row_that_a_decoder_starts_from_has_no_target_left() -> None:
    """Every target is masked, and nothing else."""
    batch = rows(given=2, lengths=(8, 8, 5, 5))
    z = masked_everywhere(batch, mask_id=6)
    assert (z[batch.targets] == 6).all()
    assert torch.equal(z[~batch.targets], batch.ids[~batch.targets])
