"""Rows of one document each: what is given, what is learned, and what stands in no row."""

import numpy as np
import pytest
import torch

from remask.data.feed import RowsFeed
from remask.data.packing import Rows
from remask.data.store import TokenStore
from remask.data.windows import WindowRows
from remask.errors import UserError
from remask.evaluation.likelihood import ends_nats

EOS = 99


def store_of(*sizes, split="train", prompts=None):
    """Documents of these sizes, their ends included; token k of the store has the id k and k bytes, an end none."""
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    ids = np.arange(offsets[-1], dtype=np.uint16)
    ids[offsets[1:] - 1] = EOS
    byte_lengths = np.where(ids == EOS, 0, np.arange(offsets[-1])).astype(np.uint8)
    return TokenStore(
        split=split,
        ids=ids,
        byte_lengths=byte_lengths,
        document_offsets=offsets,
        text_bytes_total=int(byte_lengths.sum()),
        vocab_size=101,
        eos_id=EOS,
        fingerprint="none",
        prompt_lengths=prompts,
    )


def everything(rows):
    return rows.batch(range(len(rows)))


def test_windows_of_one_document_follow_each_other_and_the_last_is_padded():
    rows = WindowRows(store_of(12), length=5, given=2)
    batch = everything(rows)
    assert isinstance(rows, Rows)
    assert batch.ids.tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]  # tokens 10 and the end leave no target
    rows = WindowRows(store_of(13), length=5, given=2)
    assert everything(rows).ids[2].tolist()[:3] == [10, 11, EOS]
    assert everything(rows).segments[2].tolist() == [1, 1, 1, 0, 0]
    assert everything(rows).targets.tolist() == [[False, False, True, True, True]] * 2 + [
        [False, False, True, False, False]
    ]


def test_no_row_holds_two_documents():
    store = store_of(7, 3, 12, 5)
    rows = WindowRows(store, length=4, given=1, stride=2)
    document = np.searchsorted(store.document_offsets, np.arange(len(store)), side="right")
    batch = everything(rows)
    ends = 0
    for ids, segments in zip(batch.ids.tolist(), batch.segments.tolist(), strict=True):
        here = [i for i, s in zip(ids, segments, strict=True) if s]
        assert EOS not in here[:-1]
        ends += here[-1] == EOS
        assert len({document[i] for i in here if i != EOS}) == 1
    assert ends > 0


def test_documents_without_a_target_are_left_out_and_counted():
    rows = WindowRows(store_of(3, 4, 2, 3), length=6, given=3)
    assert rows.left_out == 3
    assert everything(rows).ids[:, :4].tolist() == [[3, 4, 5, EOS]]


def test_with_a_stride_of_the_targets_each_token_behind_the_first_ones_is_a_target_once():
    sizes, given = (9, 4, 23, 11), 3
    store = store_of(*sizes)
    rows = WindowRows(store, length=7, given=given, stride=4)
    batch = everything(rows)
    counted = torch.bincount(batch.ids[batch.targets], minlength=101)
    behind = np.concatenate(
        [np.arange(low + given, low + size - 1) for low, size in zip(store.document_offsets[:-1], sizes, strict=True)]
    )
    expected = np.zeros(101, dtype=np.int64)
    expected[behind], expected[EOS] = 1, len(sizes)
    assert counted.tolist() == expected.tolist()


def test_without_a_prefix_every_token_of_every_document_is_a_target_once():
    store = store_of(9, 1, 4, 13)
    rows = WindowRows(store, length=4, given=0)
    batch = everything(rows)
    assert batch.targets.tolist() == (batch.segments != 0).tolist()
    assert (batch.ids[batch.targets].tolist(), rows.left_out) == (store.ids.tolist(), 0)


@pytest.mark.parametrize("stride", [None, 1, 3, 20])
def test_targets_and_their_bytes_are_those_of_the_rows(stride):
    rows = WindowRows(store_of(9, 4, 23, 11), length=7, given=3, stride=stride)
    batch = everything(rows)
    assert rows.targets == int(batch.targets.sum())
    text = int((batch.byte_lengths * batch.targets).sum())
    assert rows.bytes_per_target == pytest.approx(text / rows.targets, rel=1e-12)


def test_a_row_pays_for_the_end_that_its_padding_shows():
    batch = everything(WindowRows(store_of(13), length=5, given=2))
    nats = ends_nats(batch, end_share=0.1)
    assert nats[2].tolist() == pytest.approx([0, 0, -np.log(0.1), 0, 0])
    assert nats[0].tolist() == pytest.approx([0, 0, -np.log(0.9), -np.log(0.9), 0])


def test_rows_keep_their_places_in_the_global_batch():
    rows = WindowRows(store_of(40), length=5, given=2)
    batch = rows.batch([3, 1], rows=[6, 7], global_size=8)
    assert (batch.rows.tolist(), batch.global_size) == ([6, 7], 8)
    assert batch.ids[:, 0].tolist() == [15, 5]
    with pytest.raises(IndexError, match="rows are 0 to 7"):
        rows.batch([8])


def test_a_feed_reads_each_row_once_an_epoch():
    rows = WindowRows(store_of(11, 30, 2, 18), length=5, given=2)
    feed = RowsFeed(rows, batch_size=len(rows) // 2, seed=1)
    assert len(rows) % 2 == 0
    reading = feed.open(start_step=0, process=0, processes=1)
    seen = torch.cat([next(reading)[0].ids[:, 0] for _ in range(2)])
    assert sorted(seen.tolist()) == sorted(everything(rows).ids[:, 0].tolist())
    assert (feed.left_out, feed.targets) == (1, rows.targets)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 4, "given": 4}, "a prefix from 0 to 3"),
        ({"length": 4, "given": -1}, "a prefix from 0 to 3"),
        ({"length": 4, "given": 2, "stride": 0}, "a stride of at least 1"),
        ({"length": 40, "given": 12}, "no document of more than data.prefix=12 tokens; the longest of 2 has 12"),
    ],
)
def test_numbers_that_fit_no_text_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        WindowRows(store_of(12, 5), **options)


def test_pairs_have_no_windows():
    with pytest.raises(UserError, match="holds pairs, whose prompts are given"):
        WindowRows(store_of(12, prompts=np.array([3])), length=5, given=2)
