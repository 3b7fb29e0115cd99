"""Streamed text: the same rows for any processes and workers, from any step on; each document once an epoch."""

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from remask.data.lanes import LaneSource, Packer, Position
from remask.data.mixing import Mixture
from remask.data.packing import PackedRows
from remask.data.store import build_stores
from remask.data.stream_feed import LanePlan, StreamFeed
from remask.data.streams import Stream, open_stream
from remask.errors import RunError, UserError
from remask.tokenizers import ByteTokenizer

NAMES = ("ids", "segments", "targets", "byte_lengths", "rows")
TOKENIZER = ByteTokenizer()


def texts(name, count):
    return [f"{name}{i}" + "é" * (i % 7) + " " * (i % 3) for i in range(count)]


def write_shards(folder, *shards):
    """A folder of JSON lines, one file a shard."""
    folder.mkdir(exist_ok=True)
    for number, documents in enumerate(shards):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
        (folder / f"{number:03}.jsonl").write_text(lines)
    return folder


def stream_of(folder, cache, **options) -> Stream:
    return open_stream(str(folder), cache=cache, **{"sample_bytes": 10_000, **options})


@pytest.fixture
def two(tmp_path):
    """Two sources: few shards and many."""
    few = write_shards(tmp_path / "few", texts("a", 40), texts("b", 31))
    many = write_shards(tmp_path / "many", *(texts(f"c{i}-", 3 + i % 4) for i in range(16)))
    return tuple(stream_of(folder, tmp_path / "cache") for folder in (few, many))


def feed_of(streams, *, lanes=4, batch_size=8, micro=3, shuffle=5, weights=None, seed=1, workers=0, length=16):
    weights = weights or (2.0, 1.0)[: len(streams)]
    plan = LanePlan(
        streams=streams,
        mixture=Mixture(weights),
        tokenizer=TOKENIZER,
        length=length,
        lanes=lanes,
        shuffle=shuffle,
        seed=seed,
    )
    return StreamFeed(
        plan,
        bytes_per_target=[1.0] * len(streams),
        batch_size=batch_size,
        micro_batch_size=micro,
        workers=workers,
    )


def joined(micro_batches, name):
    return torch.cat([getattr(batch, name) for batch in micro_batches])


def same(one, other):
    return all(torch.equal(joined(one, name), joined(other, name)) for name in NAMES)


def read(feed, steps, *, start=0, processes=1, state=None):
    """Global batches of all processes together, and the state behind each."""
    readings = [feed.open(start_step=start, process=r, processes=processes, state=state) for r in range(processes)]
    batches, states = [], []
    try:
        for _ in range(steps):
            batches.append([batch for reading in readings for batch in next(reading)])
            states.append(json.loads(json.dumps(feed.joined([reading.state() for reading in readings]))))
    finally:
        for reading in readings:
            reading.close()
    return batches, states


def documents_in(batches, lanes):
    """The texts that the batches hold, lane by lane."""
    ids = torch.stack([joined(step, "ids") for step in batches])
    each = ids.shape[1] // lanes
    found = []
    for lane in range(lanes):
        tokens = ids[:, lane * each : (lane + 1) * each].reshape(-1).tolist()
        ends = [i for i, token in enumerate(tokens) if token == TOKENIZER.eos_id]
        found.append([TOKENIZER.decode(tokens[a + 1 : b]) for a, b in zip([-1, *ends], ends, strict=False)])
    return found


def test_one_lane_in_the_sources_order_gives_the_rows_of_the_token_store(tmp_path):
    documents = texts("a", 50)
    stream = stream_of(write_shards(tmp_path / "set", documents[:20], documents[20:]), tmp_path)
    (corpus, store) = stream.sample, build_stores(stream.sample, TOKENIZER, cache=tmp_path)["train"]
    assert list(corpus.documents("train")) != documents, "a sample takes shards in turn"
    rows = PackedRows(store, length=16)
    whole = stream_of(write_shards(tmp_path / "one", list(corpus.documents("train"))), tmp_path)
    batches, _ = read(feed_of([whole], lanes=1, batch_size=1, shuffle=1), len(rows) - 1)
    expected = [rows.batch([index]) for index in range(len(rows) - 1)]
    for name in NAMES[:-1]:
        assert torch.equal(torch.cat([joined(step, name) for step in batches]), joined(expected, name))


@pytest.mark.parametrize("lanes", [1, 2, 4, 8])
def test_every_number_of_processes_sees_the_same_batches_from_any_step_on(two, lanes):
    feed = feed_of(two, lanes=lanes)
    whole, states = read(feed, 12)
    assert [len(batch) for batch in whole[0]] == [3, 3, 2]
    assert joined(whole[0], "rows").tolist() == list(range(8))
    assert {batch.global_size for batch in whole[0]} == {8}
    for processes, stop in [(2, 5), (4, 1), (8, 11), (1, 7)]:
        part, left = read(feed, 12 - stop, start=stop, processes=processes, state=states[stop - 1])
        assert all(same(one, other) for one, other in zip(part, whole[stop:], strict=True))
        assert left[-1] == states[-1]


def test_workers_change_nothing_and_a_state_is_that_of_what_was_handed_out(two):
    whole, states = read(feed_of(two), 9)
    ahead = feed_of(two, workers=2)
    part, left = read(ahead, 3, start=2, processes=1, state=states[1])
    assert all(same(one, other) for one, other in zip(part, whole[2:5], strict=True))
    assert left == states[2:5]


@given(stop=st.integers(1, 30), length=st.integers(1, 9))
@settings(max_examples=10)
def test_a_lane_taken_up_at_any_row_goes_on_as_it_would_have(stop, length, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "rows"
    if not folder.exists():
        write_shards(folder, ["abcd", "", "efg", "h"], ["ij", " ", "klmnop"])
    stream = stream_of(folder, folder.parent / "rows-cache")

    def packer(start):
        source = LaneSource(shards=stream.shards, lane=0, lanes=2, shuffle=2, key=(1,))
        return Packer(source, tokenizer=TOKENIZER, length=length, start=start)

    first = packer(Position())
    for _ in range(stop):
        first.row()
    second = packer(Position(*json.loads(json.dumps(first.position.to_json()))))
    assert second.position == first.position
    for _ in range(5):
        assert np.array_equal(np.stack(first.row()), np.stack(second.row()))


@pytest.mark.parametrize(("shards", "shuffle"), [(2, 1), (4, 4), (5, 1000), (33, 4)])
def test_each_document_is_seen_once_an_epoch_and_by_one_lane(tmp_path, shards, shuffle):
    documents = texts("d", 120)
    folder = write_shards(tmp_path / "set", *(documents[i::shards] for i in range(shards)))
    feed = feed_of([stream_of(folder, tmp_path)], lanes=4, batch_size=8, shuffle=shuffle)
    batches, _ = read(feed, 32)
    lanes = documents_in(batches, 4)
    epochs = [Counter(lane) for lane in lanes]
    assert set().union(*epochs) == set(documents)
    assert sum(map(len, epochs)) == len(documents), "no document belongs to two lanes"
    for lane, counts in zip(lanes, epochs, strict=True):
        size = len(counts)
        full = len(lane) // size
        assert full >= 2
        for epoch in range(full):
            assert len(set(lane[epoch * size : (epoch + 1) * size])) == size


def test_documents_are_shuffled_anew_each_epoch_within_their_block_only(tmp_path):
    folder = write_shards(tmp_path / "set", texts("d", 40))
    (lane,) = documents_in(
        read(feed_of([stream_of(folder, tmp_path)], lanes=1, batch_size=4, shuffle=10), 30)[0], lanes=1
    )
    first, second = lane[:40], lane[40:80]
    assert first != second
    for epoch in (first, second):
        assert epoch != texts("d", 40)
        for block in range(4):
            assert set(epoch[block * 10 : block * 10 + 10]) == set(texts("d", 40)[block * 10 : block * 10 + 10])
    other = documents_in(
        read(feed_of([stream_of(folder, tmp_path)], lanes=1, batch_size=4, shuffle=10, seed=2), 30)[0], lanes=1
    )
    assert other[0][:40] != first


def test_sources_come_as_often_as_their_weights_say(two):
    feed = feed_of(two, weights=(3.0, 1.0), batch_size=8)
    batches, _ = read(feed, 40)
    ids = torch.cat([joined(step, "ids") for step in batches])
    of_many = (ids == ord("c")).any(dim=1) | (ids == ord("-")).any(dim=1)
    assert int(of_many.sum()) == len(ids) // 4
    assert feed.bytes_per_target == 1.0
    assert (feed.rows, feed.left_out) == (None, 0)


def test_bytes_are_counted_once_also_those_a_tokenizer_leaves_out(tmp_path):
    class Lossy(ByteTokenizer):
        def encode(self, text):
            return super().encode(text.replace("é", ""))

    stream = stream_of(write_shards(tmp_path / "set", ["aéb", "cc"]), tmp_path)
    source = LaneSource(shards=stream.shards, lane=0, lanes=1, shuffle=1, key=(1,))
    ids, lengths, segments = Packer(source, tokenizer=Lossy(), length=8, start=Position()).row()
    assert ids.tolist() == [97, 98, 256, 99, 99, 256, 97, 98]
    assert lengths.tolist() == [1, 1, 2, 1, 1, 0, 1, 1]
    assert segments.tolist() == [1, 1, 1, 2, 2, 2, 3, 3]


def compressed(path):
    with gzip.open(path.with_name(path.name + ".gz"), "wb") as file:
        file.write(path.read_bytes())
    path.unlink()


def test_shards_of_every_format_hold_the_same_documents(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    documents = [text for text in texts("d", 30) if text.strip()]
    for name in ("jsonl", "txt", "jsonl.gz", "txt.gz", "parquet"):
        (tmp_path / name).mkdir()
    write_shards(tmp_path / "jsonl", documents)
    (tmp_path / "txt" / "a.txt").write_text("|".join(documents))
    write_shards(tmp_path / "jsonl.gz", documents)
    (tmp_path / "txt.gz" / "a.txt").write_text("|".join(documents))
    compressed(tmp_path / "jsonl.gz" / "000.jsonl")
    compressed(tmp_path / "txt.gz" / "a.txt")
    parquet.write_table(pyarrow.table({"text": documents}), tmp_path / "parquet" / "a.parquet")
    for name in ("jsonl", "txt", "jsonl.gz", "txt.gz", "parquet"):
        shards = stream_of(tmp_path / name, tmp_path / "cache", separator="|").shards
        assert list(shards.read(0, start=0)) == documents, name
        assert list(shards.read(0, start=28)) == documents[28:], name


# ── samples and what is refused ────────────────────────────────────────────────────────────────────────────────


def test_a_sample_is_bounded_takes_shards_in_turn_and_is_kept(tmp_path, monkeypatch):
    folder = write_shards(tmp_path / "set", *(["x" * 99] * 50 for _ in range(40)))
    sample = stream_of(folder, tmp_path / "cache", sample_bytes=1000).sample
    assert len(list(sample.documents("train"))) == 11
    assert sample.splits == ("train",)
    monkeypatch.setattr("remask.data.streams._write_sample", None)
    again = stream_of(folder, tmp_path / "cache", sample_bytes=1000).sample
    assert again.fingerprint == sample.fingerprint


def test_a_changed_shard_is_refused_when_a_state_is_taken_up(two, tmp_path):
    _, states = read(feed_of(two), 2)
    path = tmp_path / "few" / "001.jsonl"
    path.write_text(path.read_text().replace("b3", "z3"))
    changed = (stream_of(tmp_path / "few", tmp_path / "cache"), two[1])
    with pytest.raises(UserError, match=r"few has changed since the checkpoint.*Restore it"):
        read(feed_of(changed), 1, start=2, state=states[-1])
    with pytest.raises(UserError, match=r"data.lanes=2 given, and the checkpoint was made with 4"):
        read(feed_of(two, lanes=2), 1, start=2, state=states[-1])
    with pytest.raises(RunError, match="step 2: the checkpoint does not say"):
        read(feed_of(two), 1, start=2, state={})


def test_a_large_file_is_known_by_its_size_and_pieces(tmp_path, monkeypatch):
    from remask.data import streams

    monkeypatch.setattr(streams, "_LOOKED_AT", 1 << 10)
    monkeypatch.setattr(streams, "_LEAST", 1 << 10)
    path = tmp_path / "a.txt"
    path.write_bytes(bytes(1 << 16))
    (before,) = streams.file_states([path])
    for place in (0, (1 << 16) - 1):
        content = bytearray(1 << 16)
        content[place] = 1
        path.write_bytes(content)
        assert streams.file_states([path]) != (before,)
    path.write_bytes(bytes((1 << 16) + 1))
    assert streams.file_states([path]) != (before,)


def test_too_few_documents_for_the_lanes_is_one_clear_line(tmp_path):
    stream = stream_of(write_shards(tmp_path / "set", ["a", "b", " "]), tmp_path)
    with pytest.raises(UserError, match=r"too few documents for data.lanes=4: lane \d has none"):
        read(feed_of([stream]), 1)


@pytest.mark.parametrize(
    ("prepare", "source", "message"),
    [
        (lambda at: None, "python-docs", "data.streaming: python-docs comes with remask"),
        (lambda at: None, "sudoku4", "comes with remask"),
        (lambda at: None, "missing", "there is no file or folder 'missing'"),
        (lambda at: write_shards(at / "set", [" ", ""]), "set", "set is empty: there is no text in its train split"),
        (lambda at: (at / "a.txt").write_bytes(b"x" * 100), "a.txt", "has no separator, so all of it is one document"),
    ],
)
def test_what_cannot_be_streamed_is_one_clear_line(prepare, source, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("remask.data.streams._LONGEST", 50)
    prepare(Path())
    with pytest.raises(UserError, match=message) as caught:
        stream_of(source, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_a_batch_that_lanes_do_not_divide_is_refused(two):
    with pytest.raises(UserError, match=r"data.lanes=3 does not divide training.batch_size=8"):
        feed_of(two, lanes=3)
    with pytest.raises(UserError, match="cannot be shared evenly by 3 processes"):
        feed_of(two).check(processes=3)


# ── Hugging Face datasets ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def offline(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    return datasets


def test_a_dataset_is_streamed_shard_by_shard_and_resumed(offline, tmp_path):
    (tmp_path / "set").mkdir()
    for split, count in {"train-0": 20, "train-1": 13, "validation": 4}.items():
        lines = "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in texts(split, count))
        (tmp_path / "set" / f"{split}.jsonl").write_text(lines)
    stream = stream_of(f"hf:{tmp_path / 'set'}", tmp_path / "cache")
    assert len(stream.shards) == 2
    assert sorted(stream.shards.read(1, start=10)) == sorted(texts("train-1", 13)[10:])
    assert list(stream.sample.documents("validation")) == texts("validation", 4)
    whole, states = read(feed_of([stream]), 8)
    part, _ = read(feed_of([stream]), 4, start=4, processes=2, state=states[3])
    assert all(same(one, other) for one, other in zip(part, whole[4:], strict=True))
    (tmp_path / "set" / "train-1.jsonl").write_text(json.dumps({"text": "other"}) + "\n")
    assert stream_of(f"hf:{tmp_path / 'set'}", tmp_path / "cache").fingerprint != stream.fingerprint


def test_a_saved_dataset_is_streamed_too(offline, tmp_path):
    rows = [{"text": text} for text in texts("d", 200)]
    offline.DatasetDict({"train": offline.Dataset.from_list(rows)}).save_to_disk(tmp_path / "saved")
    shards = stream_of(f"hf:{tmp_path / 'saved'}", tmp_path / "cache").shards
    assert len(shards) == 64
    assert [text for shard in range(64) for text in shards.read(shard, start=0)] == texts("d", 200)
    assert list(shards.read(3, start=100)) == []


def test_a_dataset_on_the_hub_is_pinned_to_the_commit_of_its_first_use(offline, tmp_path, monkeypatch):
    asked = []

    def load(name, *, config, streaming, revision=None):
        asked.append((name, config, streaming, revision))
        return {"train": offline.Dataset.from_list([{"text": "ab"}]).to_iterable_dataset()}

    monkeypatch.setattr("remask.data.streams.load_splits", load)
    monkeypatch.setattr("remask.data.streams.newest_revision", lambda name: f"commit{len(asked)}")
    first = stream_of("hf:some/set", tmp_path, config="en")
    again = stream_of("hf:some/set", tmp_path, config="en")
    assert set(asked) == {("some/set", "en", True, "commit0")}
    assert first.fingerprint == again.fingerprint
