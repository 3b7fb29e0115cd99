"""What each process reads: its part of the same global batches, from any step on, whoever prepares them."""

import multiprocessing
import os
import signal

import pytest
import torch
from counting import Counting, Forever
from hypothesis import given
from hypothesis import strategies as st
from test_packing import store_of

from remask.data.feed import RowsFeed
from remask.data.mixing import Mixture
from remask.data.order import epoch_order
from remask.data.packing import PackedRows
from remask.data.workers import interleaved
from remask.errors import RunError, UserError

NAMES = ("ids", "segments", "targets", "byte_lengths", "rows")


def reading(feed, *, start=0, process=0, processes=1):
    return feed.open(start_step=start, process=process, processes=processes, state=None)


def steps(feed, count, **where):
    opened = reading(feed, **where)
    try:
        return [next(opened) for _ in range(count)]
    finally:
        opened.close()


def running():
    """The worker processes of this process."""
    return [process.pid for process in multiprocessing.active_children() if process.pid is not None]


def joined(micro_batches, name):
    return torch.cat([getattr(batch, name) for batch in micro_batches])


def same(one, other):
    return all(torch.equal(joined(one, name), joined(other, name)) for name in NAMES)


def packed(*lengths):
    return PackedRows(store_of(*(lengths or (40, 30, 25))), length=8)


@given(n=st.integers(0, 300), seed=st.integers(0, 2**63), epoch=st.integers(0, 1000))
def test_an_epoch_is_a_permutation(n, seed, epoch):
    assert sorted(epoch_order(n, seed=seed, epoch=epoch)) == list(range(n))


def test_the_order_is_keyed_by_seed_and_epoch_and_never_changes():
    orders = {tuple(epoch_order(50, seed=s, epoch=e)) for s, e in [(1, 0), (1, 1), (2, 0), (0, 1)]}
    assert len(orders) == 4
    assert epoch_order(8, seed=1, epoch=0).tolist() == [3, 5, 2, 7, 0, 6, 1, 4]


@pytest.mark.parametrize("micro", [1, 2, 3, 4, 6, 9])
def test_micro_batches_change_no_example(micro):
    whole = steps(RowsFeed(packed(), batch_size=6, micro_batch_size=None, seed=1), 7)
    cut = steps(RowsFeed(packed(), batch_size=6, micro_batch_size=micro, seed=1), 7)
    for one, parts in zip(whole, cut, strict=True):
        assert max(len(part) for part in parts) == min(micro, 6)
        assert {part.global_size for part in parts} == {6}
        assert joined(parts, "rows").tolist() == list(range(6))
        assert same(one, parts)


def test_an_epoch_has_as_many_targets_as_its_rows_and_a_mixture_has_none_of_its_own():
    feed = RowsFeed(packed(), batch_size=4, micro_batch_size=None, seed=1)
    epoch = steps(feed, feed.rows // 4)
    assert feed.rows % 4 == 0
    assert feed.targets == sum(int(joined(parts, "targets").sum()) for parts in epoch)
    mixed = RowsFeed(packed(), others=[packed()], mixture=Mixture((1.0, 1.0)), batch_size=4, seed=1)
    assert mixed.targets is None


@pytest.mark.parametrize("others", [(), (PackedRows(store_of(90), length=8),)])
@pytest.mark.parametrize("processes", [2, 4])
def test_the_parts_of_all_processes_are_the_whole_batch(processes, others):
    mixture = Mixture((2.0, 1.0)[: 1 + len(others)])
    feed = RowsFeed(packed(), others=others, mixture=mixture, batch_size=8, micro_batch_size=3, seed=1)
    parts = [steps(feed, 5, process=rank, processes=processes) for rank in range(processes)]
    for whole, *shares in zip(steps(feed, 5), *parts, strict=True):
        assert len({len(share) for share in shares}) == 1, "the same number of micro-batches everywhere"
        for rank, share in enumerate(shares):
            size = 8 // processes
            assert joined(share, "rows").tolist() == list(range(rank * size, (rank + 1) * size))
        assert same(whole, [batch for share in shares for batch in share])


@pytest.mark.parametrize("start", [1, 4, 8])
def test_starting_at_a_later_step_gives_what_would_have_come(start):
    feed = RowsFeed(packed(100), batch_size=4, micro_batch_size=None, seed=3)
    assert same(steps(feed, 1, start=start)[0], steps(feed, 9)[start])


@pytest.mark.parametrize("batch_size", [1, 4, 13, 40])
def test_each_epoch_sees_every_row_once_whatever_the_batch_size(batch_size):
    source = packed(100)
    count = len(source)
    feed = RowsFeed(source, batch_size=batch_size, micro_batch_size=None, seed=5)
    seen = torch.cat([joined(s, "ids") for s in steps(feed, -(-3 * count // batch_size))])
    every = source.batch(range(count)).ids.tolist()
    for epoch in range(3):
        assert sorted(seen[epoch * count : (epoch + 1) * count].tolist()) == sorted(every)


def test_workers_change_nothing_and_are_gone_when_closed():
    plain, ahead = (RowsFeed(packed(100), batch_size=4, micro_batch_size=3, seed=3, workers=n) for n in (0, 2))
    expected = steps(plain, 9)
    opened = reading(ahead, start=2)
    processes = running()
    try:
        assert len(processes) == 2
        for want in expected[2:]:
            got = next(opened)
            assert [len(batch) for batch in got] == [3, 1]
            assert same(got, want)
    finally:
        opened.close()
        opened.close()
    for pid in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("sizes", [{"batch_size": 0}, {"batch_size": 4, "micro_batch_size": 0}, {"batch_size": -1}])
def test_batch_sizes_below_one_are_refused_at_once(sizes):
    with pytest.raises(UserError, match="at least 1"):
        RowsFeed(packed(), seed=1, **sizes)


@pytest.mark.parametrize(("processes", "fitting"), [(3, "6 or 9"), (16, "Give 16")])
def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_sizes_that_fit(processes, fitting):
    feed = RowsFeed(packed(), batch_size=8, seed=1)
    for refused in (lambda: feed.check(processes=processes), lambda: reading(feed, processes=processes)):
        with pytest.raises(UserError, match=f"batch_size=8 cannot be shared evenly by {processes} .*{fitting}"):
            refused()
    feed.check(processes=4)


# ── workers ────────────────────────────────────────────────────────────────────────────────────────────────────


def all_of(items):
    found = []
    try:
        while True:
            found.append(next(items))
    except StopIteration:
        return found


@pytest.mark.parametrize("processes", ["none", "one a part"])
def test_parts_come_in_turn_and_an_error_comes_where_it_happens(processes):
    assert all_of(interleaved([Counting(0), Counting(10)], processes=processes)) == [0, 10, 1, 11, 2, 12]
    items = interleaved([Counting(0, UserError("not UTF-8")), Counting(10)], processes=processes)
    assert [next(items) for _ in range(6)] == [0, 10, 1, 11, 2, 12]
    with pytest.raises(UserError, match="not UTF-8"):
        all_of(items)


def test_a_worker_that_dies_or_breaks_is_one_clear_error_and_no_hang():
    items = interleaved([Counting(0, "killed"), Counting(10)], processes="one a part")
    others = running()
    with pytest.raises(RunError, match=r"a worker process of the data died \(exit code -9\).*data.workers"):
        all_of(items)
    for pid in others:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(RunError, match="ZeroDivisionError: by nothing"):
        all_of(interleaved([Counting(0, ZeroDivisionError("by nothing"))], processes="one a part"))


def test_a_worker_killed_from_outside_while_it_waits_is_noticed():
    items = interleaved([Forever()], processes="one a part")
    try:
        next(items)
        (pid,) = running()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(RunError, match="died"):
            all_of(items)
    finally:
        items.close()
