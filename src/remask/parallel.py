"""Several processes that train one model: how they were launched, how they meet, and what they tell each other.

Processes are started by torchrun (of one node or of several); each learns its place from the environment. They speak
in tensors, which are summed, and in plain values, which travel as JSON.
"""

import json
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from remask.errors import RunError, UserError

T = TypeVar("T")

PATIENCE = 300.0
"""Seconds that a process waits for the others to start."""

LONGEST_WORK = timedelta(hours=12)
"""How long processes wait for one that works alone (tokenising a large text); one that is gone is noticed at once."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """This process's place among those that were started together.

    Attributes:
        rank: its number among all, from 0.
        size: how many there are.
        local_rank: its number among those on this machine, from 0.
        local_size: how many are on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def launched(environment: Mapping[str, str] = os.environ) -> Launch:
    """Reads RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, as torchrun sets them; without them: one process.

    Raises:
        UserError: when some are missing, are no numbers or do not fit together; or when `accelerate launch` was asked
            for several processes and started one, as it does on CPUs without a word.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = {name: environment[name] for name in (*names, "LOCAL_WORLD_SIZE") if name in environment}
    advice = "Start with: torchrun --nproc-per-node N -m remask train …"
    if not given:
        if "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_ADDR" in environment:
            raise UserError(f"accelerate launch was asked for several processes and started one. {advice}")
        return Launch()
    if missing := [name for name in names if name not in given]:
        raise UserError(f"{', '.join(given)} given in the environment without {' and '.join(missing)}. {advice}")
    for name, value in given.items():
        if not value.isdecimal():
            raise UserError(f"{name}={value} in the environment is no whole number. {advice}")
    rank, size, local_rank = (int(given[name]) for name in names)
    local_size = int(given.get("LOCAL_WORLD_SIZE", local_rank + 1))
    if not (rank < size and local_rank < local_size <= size):
        listing = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UserError(f"{listing} in the environment do not fit together. {advice}")
    if size > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        raise UserError(f"WORLD_SIZE={size} in the environment without MASTER_ADDR and MASTER_PORT. {advice}")
    return Launch(rank=rank, size=size, local_rank=local_rank, local_size=local_size)


def local_device(device: torch.device, launch: Launch) -> torch.device:
    """The device of this process: of several on one machine each takes the GPU of its own number.

    Args:
        device: what the recipe names.
        launch: this process's place.

    Raises:
        UserError: when several processes would share a GPU, or are to use a device that works for one alone.
    """
    if launch.size == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UserError(f"device={device} works for one process, and {launch.size} were started. Valid: cpu, cuda")
    if device.index is not None:
        raise UserError(
            f"device={device} names one GPU for {launch.size} processes. Set device=cuda: each takes its own"
        )
    if launch.local_size > torch.cuda.device_count():
        raise UserError(
            f"{launch.local_size} processes were started on a machine with {torch.cuda.device_count()} GPUs. Start "
            f"torchrun --nproc-per-node {torch.cuda.device_count()}, or set device=cpu"
        )
    return torch.device("cuda", launch.local_rank)


class World(ABC):
    """The processes that train one model, seen from one of them.

    Every method is called by all processes, in the same order.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
        local_rank: this process's number on its machine, from 0.
    """

    rank: int
    size: int
    local_rank: int

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @abstractmethod
    def add(self, values: Tensor) -> Tensor:
        """The sum over processes of float tensors of one shape, the same bits on each; the arguments stay."""

    @abstractmethod
    def gather(self, value: T) -> list[T]:
        """The values of all processes by rank; they are what JSON can say."""

    @abstractmethod
    def wait(self) -> None:
        """Returns when every process has come here."""

    def any(self, flag: bool) -> bool:
        """Whether it is so on any process."""
        return bool(self.add(torch.tensor(float(flag))))

    def share(self, value: T) -> T:
        """The main process's value, which is what JSON can say; those of others are not read."""
        return self.gather(value if self.is_main else None)[0]  # pyright: ignore[reportReturnType]

    def together(self, work: Callable[[], T]) -> T:
        """Does this process's part of some work; a failure of one process is everyone's failure, at once.

        Args:
            work: this process's part. It must not wait for other processes itself.

        Raises:
            UserError, RunError: the failure of any process, on each.
        """
        value, own = None, None
        try:
            value = work()
        except Exception as error:
            own = error
        problems = self.gather(None if own is None else [isinstance(own, UserError), _one_line(own)])
        if own is not None:
            raise own
        for problem in problems:
            if problem is not None:
                is_users, line = problem
                raise UserError(str(line)) if is_users else RunError(str(line))
        return value  # pyright: ignore[reportReturnType]

    def on_main(self, work: Callable[[], T]) -> T:
        """The main process alone does some work; all get its value (what JSON can say), or its failure.

        Raises:
            UserError, RunError: the main process's failure, on each.
        """
        value: Any = self.together(work if self.is_main else _nothing)
        return self.share(value)


def _nothing() -> None:
    return None


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@dataclass(frozen=True)
class Alone(World):
    """One process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    def add(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def gather(self, value: T) -> list[T]:
        """The value itself."""
        return [value]

    def wait(self) -> None:
        """Returns at once."""


ALONE = Alone()


@dataclass(frozen=True)
class Joined(World):
    """Processes that meet through torch.distributed.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are.
        local_rank: this process's number on its machine, from 0.
        words: the group over which plain values travel: gloo, on the CPU.
    """

    rank: int
    size: int
    local_rank: int
    words: dist.ProcessGroup

    def add(self, values: Tensor) -> Tensor:
        """The sum over processes, on the device of the values."""
        total = values.clone()
        with company():
            dist.all_reduce(total, group=self.words if total.device.type == "cpu" else None)
        return total

    def gather(self, value: T) -> list[T]:
        """The values of all processes by rank, as they come out of JSON (tuples as lists)."""
        text = bytearray(json.dumps(value).encode())
        with company():
            lengths = self._all(torch.tensor([len(text)]))
            longest = max(int(length) for length in lengths)
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(text)] = torch.frombuffer(text, dtype=torch.uint8)
            texts = self._all(padded)
        return [json.loads(t[: int(n)].numpy().tobytes()) for t, n in zip(texts, lengths, strict=True)]

    def wait(self) -> None:
        """Returns when every process has come here."""
        self.add(torch.zeros(1))

    def _all(self, tensor: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor, group=self.words)
        return parts


@contextmanager
def joined(device: torch.device, *, patience: float = PATIENCE) -> Iterator[World]:
    """Brings the processes that were launched together into one world, for the time it is entered.

    Args:
        device: of this process; gradients travel over NCCL from a GPU, over gloo from a CPU.
        patience: seconds to wait for all of them to come.

    Raises:
        UserError: when the environment makes no sense (`launched`) or the device works for one process alone.
        RunError: when there are not as many processes as WORLD_SIZE says; or inside, when another one has stopped.
    """
    launch = launched()
    if launch.size == 1:
        yield ALONE
        return
    local_device(torch.device(device.type), launch)
    began = not dist.is_initialized()
    if began:
        _begin(device, launch, patience=patience)
    elif dist.get_world_size() != launch.size:
        raise RunError(f"WORLD_SIZE is {launch.size}, but {dist.get_world_size()} processes have met")
    try:
        with company():
            words: Any = dist.group.WORLD if began else dist.new_group(backend="gloo", timeout=LONGEST_WORK)
        with company():
            yield Joined(launch.rank, launch.size, launch.local_rank, words)
    except BaseException:
        if began and device.type == "cpu":  # NCCL would wait for processes that do not come; leaving ends it
            dist.destroy_process_group()
        raise
    if began:
        dist.destroy_process_group()


def _begin(device: torch.device, launch: Launch, *, patience: float) -> None:
    try:
        store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=patience)))
        store = meet(store, launch, patience=patience, identity=f"{socket.gethostname()} {os.getpid()}")
        store.set_timeout(LONGEST_WORK)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(backend, store=store, rank=launch.rank, world_size=launch.size, timeout=LONGEST_WORK)
    except (dist.DistError, ValueError) as error:
        raise RunError(
            f"WORLD_SIZE is {launch.size}, but fewer processes came within {patience:g} s ({_one_line(error)}). Start "
            "as many as it says, with torchrun, and see that their machines reach MASTER_ADDR"
        ) from error


def meet(store: Any, launch: Launch, *, patience: float, identity: str) -> Any:
    """Waits until each of the launched processes has come to the store, as often as this one now has.

    Args:
        store: a torch.distributed store that all of them see.
        launch: this process's place.
        patience: in seconds.
        identity: of this process among all of all machines.

    Returns:
        A part of the store in which earlier meetings have left nothing.

    Raises:
        RunError: when some do not come, or two have one rank.
    """
    name = f"remask/process-{launch.rank}"
    if store.compare_set(name, "", identity) != identity.encode():
        raise RunError(f"two processes have RANK={launch.rank}. Start them with torchrun, which numbers them")
    meeting = store.add(f"remask/meetings-{launch.rank}", 1)
    part = dist.PrefixStore(f"remask/meeting-{meeting}", store)  # pyright: ignore[reportPrivateImportUsage]
    if part.add("come", 1) == launch.size:
        part.set("all", "yes")
    try:
        part.wait(["all"], timedelta(seconds=patience))
    except dist.DistError as error:
        raise RunError(
            f"WORLD_SIZE is {launch.size}, but {part.add('come', 0)} processes came within {patience:g} s. Start as "
            "many as it says, with torchrun"
        ) from error
    return part


@contextmanager
def company() -> Iterator[None]:
    """Says in one line that another process has gone, where torch tells of sockets.

    Raises:
        RunError: in the place of what torch raises then; other errors pass.
    """
    try:
        yield
    except RunError:
        raise
    except RuntimeError as error:
        signs = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
        if isinstance(error, dist.DistError) or any(sign in str(error) for sign in signs):
            raise RunError("another process of this run has stopped; its own message says why") from error
        raise
