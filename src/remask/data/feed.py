"""What training reads: the micro-batches of each step, each process its own part of the global batch.

Letters: G examples of a step over all processes, of which process r of W has places rG/W to (r + 1)G/W.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from remask.data.batch import Batch
from remask.data.mixing import ALONE, Mixture
from remask.data.order import epoch_order
from remask.data.packing import Rows
from remask.data.workers import Items, interleaved
from remask.errors import UserError


@runtime_checkable
class Reading(Protocol):
    """The micro-batches of one step after another, of one process."""

    def __iter__(self) -> Iterator[list[Batch]]: ...

    def __next__(self) -> list[Batch]: ...

    def state(self) -> dict[str, Any]:
        """Where the step after the last one handed out begins; empty where the step's number says it all."""
        ...

    def close(self) -> None:
        """Ends whatever reads ahead."""
        ...


@runtime_checkable
class Feed(Protocol):
    """The text of a training, from any step on."""

    @property
    def bytes_per_target(self) -> float:
        """UTF-8 bytes of text for each token that counts; of a stream, in its sample."""
        ...

    @property
    def rows(self) -> int | None:
        """Rows in all; None for a stream."""
        ...

    @property
    def targets(self) -> int | None:
        """Tokens that count in an epoch; None for a stream, and for a mixture, whose sources end at different times."""
        ...

    @property
    def left_out(self) -> int:
        """Documents that fit no row."""
        ...

    def check(self, *, processes: int) -> None:
        """Refuses a number of processes that cannot share a batch evenly.

        Raises:
            UserError: with the nearest sizes that fit.
        """
        ...

    def open(self, *, start_step: int, process: int, processes: int, state: Mapping[str, Any] | None = None) -> Reading:
        """Reads from a step on: places [rG/W, (r+1)G/W) of the global batch of G, for process r of W.

        Args:
            start_step: the first step to read, from 0.
            process: r.
            processes: W.
            state: what `joined` made of the states at that step; None or empty at the start.
        """
        ...

    def joined(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The states of the readings of all processes, as one that `open` takes for any number of them."""
        ...


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many rows are read at a time.

    Attributes:
        batch_size: G, rows a step over all processes.
        micro_batch_size: rows at a time in one process; None takes all of its part.

    Raises:
        UserError: a size is below 1.
    """

    batch_size: int
    micro_batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.micro_batch_size is not None and self.micro_batch_size < 1):
            given = f"batch_size {self.batch_size}, micro_batch_size {self.micro_batch_size}"
            raise UserError(f"batch sizes must be at least 1, got {given}")

    def places(self, *, process: int, processes: int) -> np.ndarray:
        """The places of one process in the global batch, int64 [G / W]."""
        check_share(self.batch_size, processes=processes)
        share = self.batch_size // processes
        return np.arange(process * share, (process + 1) * share)

    def cut(self, count: int) -> list[slice]:
        """The parts of `count` rows that are read at a time."""
        micro = self.micro_batch_size or count
        return [slice(at, min(at + micro, count)) for at in range(0, count, micro)]


class RowsFeed:
    """Rows that lie on disk, in an order that is a function of (seed, epoch).

    Example k of step s is number g = s · G + k of the run: row g mod R of epoch g // R in the order that `epoch_order`
    gives that epoch. So any step can be the first: a resumed run sees what it would have. Of several sources each has
    its own count of examples and its own epochs; `mixture` says whose turn it is.

    Args:
        rows: the rows to train on.
        others: those of further sources.
        mixture: the weights of all of them; their rows have the same length.
        batch_size: G, examples a step over all processes.
        micro_batch_size: examples at a time in one process; None takes all of its part.
        seed: keys the order.
        workers: processes that read ahead, taking the steps in turn; 0 reads when asked.

    Raises:
        UserError: a size is below 1.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        others: Sequence[Rows] = (),
        mixture: Mixture = ALONE,
        batch_size: int,
        micro_batch_size: int | None = None,
        seed: int,
        workers: int = 0,
    ) -> None:
        assert len(mixture.weights) == 1 + len(others)
        self._sources, self._mixture, self._seed, self._workers = (rows, *others), mixture, seed, workers
        self._sizes = Sizes(batch_size=batch_size, micro_batch_size=micro_batch_size)

    @property
    def bytes_per_target(self) -> float:
        """UTF-8 bytes of text for each token that counts."""
        return self._mixture.mean([source.bytes_per_target for source in self._sources])

    @property
    def rows(self) -> int | None:
        """Rows in all."""
        return sum(len(source) for source in self._sources)

    @property
    def targets(self) -> int | None:
        """Tokens that count in an epoch; None for a mixture."""
        return self._sources[0].targets if len(self._sources) == 1 else None

    @property
    def left_out(self) -> int:
        """Documents that fit no row."""
        return sum(source.left_out for source in self._sources)

    def check(self, *, processes: int) -> None:
        """Refuses a number of processes that cannot share a batch evenly."""
        check_share(self._sizes.batch_size, processes=processes)

    def open(
        self, *, start_step: int, process: int, processes: int, state: Mapping[str, Any] | None = None
    ) -> "RowsReading":
        """Reads from a step on; `state` says nothing that the step does not."""
        del state
        parts = [
            _Steps(
                sources=self._sources,
                mixture=self._mixture,
                sizes=self._sizes,
                seed=self._seed,
                places=self._sizes.places(process=process, processes=processes),
                first=start_step + turn,
                every=max(1, self._workers),
            )
            for turn in range(max(1, self._workers))
        ]
        return RowsReading(interleaved(parts, processes="one a part" if self._workers else "none"))

    def joined(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Nothing to keep."""
        del states
        return {}


@dataclass
class RowsReading:
    """One process's part of each step.

    Attributes:
        items: the steps.
    """

    items: Items[list[Batch]]

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        return next(self.items)

    def state(self) -> dict[str, Any]:
        """Nothing that the step does not say."""
        return {}

    def close(self) -> None:
        """Ends the workers."""
        self.items.close()


@dataclass(frozen=True, kw_only=True)
class _Steps:
    """Steps `first`, `first + every`, … of one process, without end."""

    sources: Sequence[Rows]
    mixture: Mixture
    sizes: Sizes
    seed: int
    places: np.ndarray
    first: int
    every: int

    def __iter__(self) -> Iterator[list[Batch]]:
        orders = [_Order(len(source), self.seed) for source in self.sources]
        step = self.first
        while True:
            whose, numbers = self.mixture.step(step, batch_size=self.sizes.batch_size, seed=self.seed)
            yield [
                self._batch(orders, whose[places], numbers[places], places)
                for places in map(self.places.__getitem__, self.sizes.cut(len(self.places)))
            ]
            step += self.every

    def _batch(self, orders: Sequence["_Order"], whose: np.ndarray, numbers: np.ndarray, places: np.ndarray) -> Batch:
        parts = [
            self.sources[source].batch(
                orders[source].rows(numbers[whose == source]),
                rows=places[whose == source],
                global_size=self.sizes.batch_size,
            )
            for source in np.unique(whose).tolist()
        ]
        return parts[0] if len(parts) == 1 else in_place_order(parts)


class _Order:
    """Which row stands at each number of a source, epoch after epoch; the orders in use are kept."""

    def __init__(self, rows: int, seed: int) -> None:
        self._rows, self._seed = rows, seed
        self._known: dict[int, np.ndarray] = {}

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """The row of each number, int64 [B]."""
        epochs, within = np.divmod(numbers, self._rows)
        needed = np.unique(epochs).tolist()
        self._known = {epoch: self._order(epoch) for epoch in needed}
        chosen = np.empty(len(numbers), dtype=np.int64)
        for epoch in needed:
            chosen[epochs == epoch] = self._known[epoch][within[epochs == epoch]]
        return chosen

    def _order(self, epoch: int) -> np.ndarray:
        known = self._known.get(epoch)
        return epoch_order(self._rows, seed=self._seed, epoch=epoch) if known is None else known


def in_place_order(parts: Sequence[Batch]) -> Batch:
    """Parts of one global batch as one, its rows in the order of their places."""
    order = torch.cat([part.rows for part in parts]).argsort()
    names = [f.name for f in fields(Batch) if isinstance(getattr(parts[0], f.name), Tensor)]
    return replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts])[order] for name in names})


def check_share(batch_size: int, *, processes: int) -> None:
    """Refuses a number of processes that cannot share a batch evenly.

    Raises:
        UserError: with the nearest sizes that fit.
    """
    if batch_size % processes:
        below = batch_size // processes * processes
        fitting = " or ".join(str(size) for size in (below, below + processes) if size)
        raise UserError(
            f"training.batch_size={batch_size} cannot be shared evenly by {processes} processes. Give {fitting}"
        )
