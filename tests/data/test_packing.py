"""Rows: every token once, documents told apart."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.data.packing import PackedRows
from remask.data.store import TokenStore
from remask.errors import UserError

EOS = 999


def store_of(*lengths, split="train"):
    """A store of documents of these many tokens, each ended by EOS; ids count up, bytes are id modulo 4."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.arange(offsets[-1], dtype=np.uint16) % 900
    byte_lengths = (ids % 4).astype(np.uint8)
    if len(lengths):
        ids[offsets[1:] - 1] = EOS
        byte_lengths[offsets[1:] - 1] = 0
    return TokenStore(
        split=split,
        ids=ids,
        byte_lengths=byte_lengths,
        document_offsets=offsets,
        text_bytes_total=int(byte_lengths.sum()),
        vocab_size=1000,
        eos_id=EOS,
        fingerprint="made",
    )


def test_segments_number_the_documents_of_each_row_from_one():
    batch = PackedRows(store_of(3, 4, 1, 6), length=5).batch([0, 1, 2])
    assert batch.segments.tolist() == [[1, 1, 1, 2, 2], [1, 1, 2, 3, 3], [1, 1, 1, 1, 0]]
    assert batch.targets.tolist() == [[True] * 5, [True] * 5, [True] * 4 + [False]]
    assert batch.ids.tolist() == [[0, 1, EOS, 3, 4], [5, EOS, EOS, 8, 9], [10, 11, 12, EOS, EOS]]
    assert batch.byte_lengths.tolist() == [[0, 1, 0, 3, 0], [1, 0, 0, 0, 1], [2, 3, 0, 0, 0]]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), length=st.integers(1, 10))
@settings(deadline=None)
def test_rows_hold_every_token_once_and_only_the_last_is_padded(lengths, length):
    store = store_of(*lengths, split="validation")
    packed = PackedRows(store, length=length)
    batch = packed.batch(range(len(packed)))
    assert batch.ids[batch.targets].tolist() == store.ids.tolist()
    assert batch.byte_lengths.sum() == store.byte_lengths.sum(dtype=int)
    assert batch.targets[:-1].all()
    assert ((batch.segments == 0) == ~batch.targets).all()
    document = np.repeat(np.arange(len(lengths)), lengths)
    for row in range(len(packed)):
        own = document[row * length : (row + 1) * length]
        assert batch.segments[row][: len(own)].tolist() == (own - own[0] + 1).tolist()


def test_a_batch_is_what_the_model_side_expects():
    batch = PackedRows(store_of(50), length=8).batch([3, 1], rows=[5, 6], global_size=16)
    kinds = {"ids": torch.int64, "segments": torch.int64, "targets": torch.bool}
    for name, kind in (kinds | {"byte_lengths": torch.int64}).items():
        assert getattr(batch, name).dtype == kind
        assert getattr(batch, name).shape == (2, 8)
    assert batch.rows.tolist() == [5, 6]
    assert batch.rows.dtype == torch.int64
    assert batch.global_size == 16
    plain = PackedRows(store_of(50), length=8).batch(np.array([3, 1]))
    assert (plain.rows.tolist(), plain.global_size) == ([0, 1], 2)


@pytest.mark.parametrize("wrong", [-1, 7])
def test_a_row_that_does_not_exist_is_refused(wrong):
    with pytest.raises(IndexError, match="rows are 0 to 6"):
        PackedRows(store_of(50), length=8).batch([0, wrong])


def test_too_short_a_training_text_is_one_clear_line():
    with pytest.raises(UserError, match="the training split has 7 tokens, fewer than one row of 8"):
        PackedRows(store_of(7), length=8)
    assert len(PackedRows(store_of(8), length=8)) == 1


def test_a_short_validation_text_is_one_padded_row():
    batch = PackedRows(store_of(3, split="validation"), length=8).batch([0])
    assert batch.targets.tolist() == [[True] * 3 + [False] * 5]


def test_an_empty_split_is_one_clear_line():
    with pytest.raises(UserError, match="the validation split has no tokens"):
        PackedRows(store_of(split="validation"), length=8)


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_a_large_store_is_read_without_becoming_resident(tmp_path):
    code = f"""
        import numpy as np
        from pathlib import Path
        from remask.data.feed import RowsFeed
        from remask.data.packing import PackedRows
        from remask.data.store import TokenStore
        import json

        folder, tokens = Path({str(tmp_path)!r}), 96 << 20
        for name, size in [("ids", 2), ("byte_lengths", 1)]:
            with open(folder / f"train.{{name}}", "wb") as file:
                file.truncate(size * tokens)
        np.arange(0, tokens + 1, 1000, dtype="<i8").tofile(folder / "train.document_offsets")
        meta = {{"vocab_size": 258, "eos_id": 256, "splits": {{"train": {{"text_bytes": 0}}}}}}
        (folder / "meta.json").write_text(json.dumps(meta))
        packed = PackedRows(TokenStore.open(folder, split="train"), length=128)

        def resident():
            return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

        batches = RowsFeed(packed, batch_size=64, seed=1).open(start_step=0, process=0, processes=1)
        next(batches)
        before, most = resident(), 0
        for _ in range(200):
            next(batches)
            most = max(most, resident() - before)
        print(most)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, check=True)
    assert int(result.stdout) < 150 << 20
