"""Tokenizing on every core: a few processes that each encode a batch at a time; the batches come back in order.

They are plain subprocesses at the end of a socket each, so that they need no guarded main module, get no Ctrl-C of
their own, and end as soon as their parent is gone, even when that is killed.
"""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from remask.data.encoding import Block, Unit, encode
from remask.errors import RunError, UserError
from remask.tokenizers.base import Tokenizer
from remask.tokenizers.files import load_tokenizer

WORTH_IT = 8
"""Batches that are encoded before processes are started: starting them takes about a second."""

Encoded = tuple[int, dict[str, Block]]
"""The number of units of a batch, and their tokens by split."""


def cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # absent on some systems
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def encoded(
    stream: Iterator[list[Unit]], tokenizer: Tokenizer, *, dtype: str, workers: int | None = None
) -> Iterator[Encoded]:
    """The tokens of each batch, in order.

    Args:
        stream: the batches.
        tokenizer: how to encode them.
        dtype: of the ids.
        workers: processes to share the work between; None takes all cores once there is work for them.

    Raises:
        UserError: a text cannot be encoded.
        RunError: a process died.
    """
    if workers is None:
        for batch in islice(stream, WORTH_IT):
            yield len(batch), encode(batch, tokenizer, dtype=dtype)
    first = next(stream, None)
    if first is None:
        return
    count = cores() if workers is None else workers
    rest = chain([first], stream)
    if count == 1:
        yield from ((len(batch), encode(batch, tokenizer, dtype=dtype)) for batch in rest)
    else:
        yield from _shared(rest, tokenizer, dtype=dtype, workers=count)


def _shared(stream: Iterable[list[Unit]], tokenizer: Tokenizer, *, dtype: str, workers: int) -> Iterator[Encoded]:
    """Batch k goes to process k mod W, and is read back before batch k + W goes there."""
    with TemporaryDirectory(prefix="remask-") as folder:
        tokenizer.save(folder)
        crew = [_start(folder, dtype) for _ in range(workers)]
        try:
            working: deque[_Encoder] = deque()
            for idle, batch in zip(chain(crew, repeat(None)), stream, strict=False):
                encoder = idle or working.popleft()
                done = None if idle else encoder.result()
                encoder.give(batch)  # before what is done goes on, so that it works meanwhile
                working.append(encoder)
                if done is not None:
                    yield done
            yield from (encoder.result() for encoder in working)
        finally:
            for encoder in crew:
                encoder.stop()


@dataclass
class _Encoder:
    """One process, seen from its parent."""

    process: subprocess.Popen[bytes]
    socket: Connection
    units: int = 0

    def give(self, batch: Sequence[Unit]) -> None:
        self.units = len(batch)
        try:
            self.socket.send(batch)
        except OSError:
            raise self._died() from None

    def result(self) -> Encoded:
        try:
            answer: Any = self.socket.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if isinstance(answer, Exception):
            raise answer
        return self.units, answer

    def stop(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def _died(self) -> RunError:
        code = self.process.wait()
        how = f"killed by signal {-code}, perhaps for want of memory" if code < 0 else f"exit code {code}"
        return RunError(f"a process that tokenizes the text died ({how}); run again: what was done is kept")


def _start(folder: str, dtype: str) -> _Encoder:
    ours, theirs = Pipe()
    code = f"import sys; sys.path[:] = {sys.path!r}; from remask.data.encoders import serve; serve({theirs.fileno()})"
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent
            env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
        )
    encoder = _Encoder(process, ours)
    ours.send((folder, dtype))
    return encoder


def serve(handle: int) -> None:
    """What such a process does: encodes what it is given until its parent closes the socket."""
    with Connection(handle) as socket:
        try:
            folder, dtype = socket.recv()
            tokenizer = load_tokenizer(Path(folder))
            while True:
                socket.send(_answer(socket.recv(), tokenizer, dtype))
        except (EOFError, OSError):  # the parent is done, or gone
            return


def _answer(batch: Sequence[Unit], tokenizer: Tokenizer, dtype: str) -> dict[str, Block] | UserError:
    try:
        return encode(batch, tokenizer, dtype=dtype)
    except UserError as error:
        return error
