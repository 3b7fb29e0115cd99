"""Rows taken apart into given tokens and targets.

Shape letters: B rows, L places of a row, S places of the longest response.
"""

import torch

from remask.data.batch import Batch
from remask.data.given import close_up, split_fixed, split_given


def toy_batch() -> Batch:
    """Three rows of six: a prefix, scattered targets, and padding at the end."""
    ids = torch.tensor([[1, 2, 3, 4, 5, 6], [11, 12, 13, 14, 15, 16], [21, 22, 23, 9, 9, 9]])
    segments = torch.tensor([[1] * 6, [1] * 6, [1, 1, 1, 0, 0, 0]])
    targets = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0]]).bool()
    rows = torch.tensor([4, 1, 7])
    return Batch(ids=ids, segments=segments, targets=targets, byte_lengths=ids + 100, rows=rows, global_size=9)


def test_source_holds_every_token_that_is_neither_target_nor_padding_in_its_order() -> None:
    """Left-packed, and padded where a row has fewer."""
    parts = split_given(toy_batch())
    assert parts.source.tolist() == [[1, 2, 3], [12, 14, 15], [21, 22, 0]]
    assert parts.source_real.tolist() == [[True] * 3, [True] * 3, [True, True, False]]


def test_response_holds_the_targets_as_one_segment_and_keeps_the_places_in_the_global_batch() -> None:
    """Bytes travel with the tokens; padding is no target and has no byte."""
    response = split_given(toy_batch()).response
    assert response.ids.tolist() == [[4, 5, 6], [11, 13, 16], [23, 0, 0]]
    assert response.segments.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    assert response.targets.tolist() == [[True] * 3, [True] * 3, [True, False, False]]
    assert response.byte_lengths.tolist() == [[104, 105, 106], [111, 113, 116], [123, 0, 0]]
    assert (response.rows.tolist(), response.global_size) == ([4, 1, 7], 9)


def test_restoring_what_was_gathered_gives_the_table_at_targets_and_zero_elsewhere() -> None:
    """Values at padding of the response reach no place of the row."""
    batch = toy_batch()
    parts = split_given(batch)
    assert torch.equal(parts.restore(parts.gather(batch.ids)), batch.ids * batch.targets)
    noisy_padding = parts.gather(batch.ids) + 1000 * (~parts.places.real)
    assert torch.equal(parts.restore(noisy_padding), batch.ids * batch.targets)


def test_true_places_keep_their_row_major_order() -> None:
    """So that a network's answers at response places are answers at the row's places."""
    batch = toy_batch()
    parts = split_given(batch)
    assert torch.equal(batch.ids[batch.targets], parts.response.ids[parts.response.targets])


def test_fixed_and_other_tokens_together_are_the_row() -> None:
    """A sampler's split uses no batch."""
    z = torch.arange(12).reshape(2, 6)
    fixed = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 0, 1]]).bool()
    parts = split_fixed(z, fixed)
    assert parts.source.tolist() == [[0, 1, 0], [7, 9, 11]]
    assert parts.source_real.tolist() == [[True, True, False], [True] * 3]
    assert parts.gather(z).tolist() == [[2, 3, 4, 5], [6, 8, 10, 0]]
    assert torch.equal(parts.restore(parts.gather(z)) + z * fixed, z)


def test_rows_without_a_chosen_place_are_padding_alone() -> None:
    """A network cannot be run on rows of no place at all."""
    closed = close_up(torch.zeros(2, 3, dtype=torch.bool))
    assert closed.real.tolist() == [[False], [False]]
    assert closed.gather(torch.ones(2, 3)).tolist() == [[0.0], [0.0]]


def test_gradients_pass_through_restored_values_at_real_places_alone() -> None:
    """Losses are restored, so they must be differentiable."""
    parts = split_given(toy_batch())
    values = torch.ones(3, 3, requires_grad=True)
    parts.restore(values).sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad, parts.places.real.float())
