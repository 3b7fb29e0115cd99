"""Iterables read in processes of their own, in an order that does not depend on how many there are.

Each worker has a pipe of its own: a worker that dies in the middle of a message closes it, which is noticed at once,
and no other worker waits for a lock that it held. Workers are started afresh (`forkserver`, or `spawn` where there is
none), not forked off the training process: they inherit neither its GPU nor the lock on its run folder.
"""

import multiprocessing
import os
import pickle
import queue
import signal
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from remask.errors import RunError, UserError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

AHEAD = 4
"""Items that a worker makes ready before they are asked for."""


@runtime_checkable
class Items(Protocol[T_co]):
    """Items one by one, and an end to making them."""

    def __next__(self) -> T_co:
        """The next item."""
        ...

    def close(self) -> None:
        """Stops whatever makes them; harmless when done twice."""
        ...


def interleaved(parts: Sequence[Iterable[T]], *, processes: Literal["none", "one a part"]) -> Items[T]:
    """The first item of each part in turn, then the second of each, and so on; ends with the first part that ends.

    Args:
        parts: at least one; picklable where they run in processes.
        processes: whether this process iterates, or a worker process for each part.
    """
    return _Here(parts) if processes == "none" else _Workers(parts)


class _Here(Generic[T]):
    """Parts iterated by this process."""

    def __init__(self, parts: Sequence[Iterable[T]]) -> None:
        self._items = _in_turn([iter(part) for part in parts])

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        self._items = iter(())


def _in_turn(parts: Sequence[Iterator[T]]) -> Iterator[T]:
    while True:
        for part in parts:
            try:
                item = next(part)
            except StopIteration:
                return
            yield item


@dataclass(frozen=True)
class _Message:
    """What a worker sends."""

    kind: Literal["item", "end", "user error", "failure"]
    content: Any = None


class _Workers(Generic[T]):
    """A worker process a part."""

    def __init__(self, parts: Sequence[Iterable[T]]) -> None:
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context: Any = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload(["remask.data.feed"])  # torch is loaded once, not once a worker
        self._workers: list[tuple[Any, Connection]] = []
        self._turn = 0
        try:
            for part in parts:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(part, theirs), daemon=True)
                process.start()
                theirs.close()  # so that its end is the only one, and closes when the worker dies
                self._workers.append((process, ours))
        except BaseException:
            self.close()
            raise

    def __next__(self) -> T:
        if not self._workers:
            raise StopIteration
        process, connection = self._workers[self._turn]
        self._turn = (self._turn + 1) % len(self._workers)
        try:
            message = connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            process.join(timeout=5)
            ended = process.exitcode
            self.close()
            raise RunError(
                f"a worker process of the data died (exit code {ended}); it may have been killed for memory: set "
                "data.workers lower, or 0"
            ) from None
        if message.kind == "item":
            return message.content
        self.close()
        if message.kind == "end":
            raise StopIteration
        raise (UserError if message.kind == "user error" else RunError)(message.content)

    def close(self) -> None:
        for process, connection in self._workers:
            connection.close()
            process.terminate()
        for process, _ in self._workers:
            process.join(timeout=5)
            if process.is_alive():  # stopped, or deep in a system call
                process.kill()
                process.join()
            process.close()
        self._workers = []


def _work(part: Iterable[Any], connection: Connection) -> None:
    """A worker's life: makes items until nobody reads them any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the training process decides
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are the parallelism
    ready: queue.Queue[_Message] = queue.Queue(maxsize=AHEAD)
    threading.Thread(target=_make, args=(part, ready), daemon=True).start()
    with suppress(BrokenPipeError, ConnectionResetError):  # the training process is gone
        while True:
            message = ready.get()
            connection.send(message)
            if message.kind != "item":
                return


def _make(part: Iterable[Any], ready: queue.Queue[_Message]) -> None:
    try:
        for item in part:
            ready.put(_Message("item", item))
        ready.put(_Message("end"))
    except UserError as error:
        ready.put(_Message("user error", str(error)))
    except RunError as error:
        ready.put(_Message("failure", str(error)))
    except Exception:
        ready.put(_Message("failure", f"a worker process of the data failed: {traceback.format_exc().strip()}"))
