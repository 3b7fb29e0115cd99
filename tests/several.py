"""Several processes in one test: copies of this one (fork), which find each other as torchrun's do."""

import json
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from remask.parallel import World, joined


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def in_processes(count: int, work: Callable[[World], Any], *, folder: Path) -> list[Any]:
    """What `work` gives in each of `count` processes that have joined, by rank.

    To be called from a script of few imports and one thread. What a process prints goes to its own file in `folder`.

    Raises:
        AssertionError: when a process fails, with what it said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    children = [_child(rank, count, port, work, folder) for rank in range(count)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    said = "\n".join((folder / f"{rank}.txt").read_text() for rank in range(count) if codes[rank])
    assert not any(codes), said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def _child(rank: int, count: int, port: int, work: Callable[[World], Any], folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with (folder / f"{rank}.txt").open("w") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        os.environ |= {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{count}"}
        os.environ |= {"LOCAL_WORLD_SIZE": f"{count}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"}
        with joined(torch.device("cpu"), patience=60.0) as world:
            result = work(world)
        (folder / f"{rank}.json").write_text(json.dumps(result))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without the parent's cleanup
