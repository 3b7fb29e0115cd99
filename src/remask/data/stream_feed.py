"""Training on streamed text: lanes give each place of the global batch its rows, whichever process asks.

Letters: G examples of a step, n lanes; place p belongs to lane p·n // G. L tokens a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from remask.data.batch import Batch
from remask.data.feed import Sizes, check_share
from remask.data.lanes import LaneSource, Packer, Position
from remask.data.mixing import ALONE, Mixture
from remask.data.streams import Stream
from remask.data.workers import Items, interleaved
from remask.errors import RunError, UserError
from remask.tokenizers.base import Tokenizer


@dataclass(frozen=True, kw_only=True)
class LanePlan:
    """All that decides which rows come out of a stream.

    Attributes:
        streams: the sources.
        mixture: their weights.
        tokenizer: how to encode them.
        length: L, tokens a row.
        lanes: n, a divisor of the batch size; it does not depend on the processes, and never changes within a run.
        shuffle: documents that are shuffled together; 1 keeps the order of the source.
        seed: keys the orders.
    """

    streams: Sequence[Stream]
    mixture: Mixture = ALONE
    tokenizer: Tokenizer
    length: int
    lanes: int
    shuffle: int
    seed: int


class StreamFeed:
    """Rows packed while training goes on, out of lanes.

    Every step takes G / n rows of each lane. A process reads the lanes that its places belong to (with more processes
    than lanes several read the same one, and each keeps its own places), so every number of processes and of workers
    sees the same rows. Where each lane stands goes into the checkpoint.

    Args:
        plan: what decides the rows.
        bytes_per_target: of each source, in its sample.
        batch_size: G, a multiple of `plan.lanes`.
        micro_batch_size: rows at a time in one process; None takes all of its part.
        workers: processes that read ahead, each some of the lanes; 0 reads when asked.

    Raises:
        UserError: a size is below 1, or the lanes do not divide the batch.
    """

    def __init__(
        self,
        plan: LanePlan,
        *,
        bytes_per_target: Sequence[float],
        batch_size: int,
        micro_batch_size: int | None = None,
        workers: int = 0,
    ) -> None:
        self._sizes = Sizes(batch_size=batch_size, micro_batch_size=micro_batch_size)
        if batch_size % plan.lanes:
            raise UserError(f"data.lanes={plan.lanes} does not divide training.batch_size={batch_size}")
        self._plan, self._workers, self._bytes_per_target = plan, workers, bytes_per_target

    @property
    def bytes_per_target(self) -> float:
        """UTF-8 bytes of text for each token, in the samples."""
        return self._plan.mixture.mean(self._bytes_per_target)

    @property
    def rows(self) -> int | None:
        """Nobody has counted them."""
        return None

    @property
    def targets(self) -> int | None:
        """Nor these."""
        return None

    @property
    def left_out(self) -> int:
        """No document is: each is cut at the end of a row and runs on in another."""
        return 0

    def check(self, *, processes: int) -> None:
        """Refuses a number of processes that cannot share a batch evenly."""
        check_share(self._sizes.batch_size, processes=processes)

    def open(
        self, *, start_step: int, process: int, processes: int, state: Mapping[str, Any] | None = None
    ) -> "StreamReading":
        """Reads from a step on, which is the one that `state` was taken at.

        Raises:
            UserError: the text or the number of lanes is another than that of the state.
            RunError: there is no state, and this is not the first step.
        """
        places = self._sizes.places(process=process, processes=processes)
        each = self._sizes.batch_size // self._plan.lanes
        lanes = range(int(places[0]) // each, int(places[-1]) // each + 1)
        begin = self._positions(state or {}, lanes=lanes, step=start_step)
        parts = [
            _LaneSteps(
                plan=self._plan, batch_size=self._sizes.batch_size, places=places, begin=dict(own), first=start_step
            )
            for own in _dealt(list(begin.items()), hands=max(1, min(self._workers, len(lanes))))
        ]
        items = interleaved(parts, processes="one a part" if self._workers else "none")
        return StreamReading(
            items, parts=len(parts), sizes=self._sizes, identity=self._identity(), lanes=_as_json(begin)
        )

    def joined(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Where all lanes stand."""
        lanes = {lane: where for state in states for lane, where in state.get("lanes", {}).items()}
        return {**self._identity(), "lanes": lanes} if lanes else {}

    def _identity(self) -> dict[str, Any]:
        """What must be the same when a state is taken up again."""
        return {"streams": [stream.fingerprint for stream in self._plan.streams], "of": self._plan.lanes}

    def _positions(self, state: Mapping[str, Any], *, lanes: range, step: int) -> dict[int, list[Position]]:
        """Where each of these lanes stands in each source."""
        if not state:
            if step:
                raise RunError(f"step {step}: the checkpoint does not say where its text was; resume an earlier one")
            return {lane: [Position()] * len(self._plan.streams) for lane in lanes}
        if state["of"] != self._plan.lanes:
            raise UserError(
                f"data.lanes={self._plan.lanes} given, and the checkpoint was made with {state['of']}: it cannot change"
            )
        for stream, known in zip(self._plan.streams, state["streams"], strict=True):
            if stream.fingerprint != known:
                raise UserError(
                    f"the text of {stream.shards.name} has changed since the checkpoint was made (a shard was added, "
                    "removed or altered). Restore it"
                )
        return {lane: [Position(*numbers) for numbers in state["lanes"][str(lane)]] for lane in lanes}


class StreamReading:
    """One process's part of each step, and where its lanes stand behind it.

    Args:
        items: what each part of the lanes gives for a step, in turn.
        parts: how many those are.
        sizes: of batches.
        identity: what a state says beside the lanes.
        lanes: where they stand now.
    """

    def __init__(
        self,
        items: "Items[LaneStep]",
        *,
        parts: int,
        sizes: Sizes,
        identity: Mapping[str, Any],
        lanes: Mapping[str, list[list[int]]],
    ) -> None:
        self._items, self._parts, self._sizes, self._identity = items, parts, sizes, identity
        self._lanes = dict(lanes)

    def __iter__(self) -> Iterator[list[Batch]]:
        return self

    def __next__(self) -> list[Batch]:
        found = [next(self._items) for _ in range(self._parts)]
        for part in found:
            self._lanes |= part.lanes
        places = np.concatenate([part.places for part in found])
        order = np.argsort(places)
        ids, lengths, segments = (np.concatenate([part.rows[i] for part in found])[order] for i in range(3))
        return [
            Batch(
                ids=torch.from_numpy(ids[cut]),
                segments=torch.from_numpy(segments[cut]),
                targets=torch.from_numpy(segments[cut] > 0),
                byte_lengths=torch.from_numpy(lengths[cut]),
                rows=torch.from_numpy(places[order][cut]),
                global_size=self._sizes.batch_size,
            )
            for cut in self._sizes.cut(len(places))
        ]

    def state(self) -> dict[str, Any]:
        """Where this process's lanes stand after the last step handed out."""
        return {**self._identity, "lanes": dict(self._lanes)}

    def close(self) -> None:
        """Ends the workers."""
        self._items.close()


@dataclass(frozen=True)
class LaneStep:
    """What some lanes give for one step.

    Attributes:
        places: of the rows in the global batch.
        rows: ids, bytes of each token, and documents within the row; [B L] each.
        lanes: where each lane stands behind it, in each source.
    """

    places: np.ndarray
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]
    lanes: Mapping[str, list[list[int]]]


@dataclass(frozen=True, kw_only=True)
class _LaneSteps:
    """The steps of some lanes from `first` on, without end; only rows at `places` are handed out."""

    plan: LanePlan
    batch_size: int
    places: np.ndarray
    begin: Mapping[int, Sequence[Position]]
    first: int

    def __iter__(self) -> Iterator[LaneStep]:
        packers = {lane: self._packers(lane, positions) for lane, positions in self.begin.items()}
        each = self.batch_size // self.plan.lanes
        step = self.first
        while True:
            whose, _ = self.plan.mixture.step(step, batch_size=self.batch_size, seed=self.plan.seed)
            made = [
                (place, packers[lane][whose[place]].row())
                for lane in packers
                for place in range(lane * each, (lane + 1) * each)
            ]
            kept = [(place, row) for place, row in made if self.places[0] <= place <= self.places[-1]]
            lanes = {lane: [packer.position for packer in own] for lane, own in packers.items()}
            ids, lengths, segments = (np.stack([row[i] for _, row in kept]) for i in range(3))
            yield LaneStep(np.array([place for place, _ in kept]), (ids, lengths, segments), _as_json(lanes))
            step += 1

    def _packers(self, lane: int, positions: Sequence[Position]) -> list[Packer]:
        plan = self.plan
        sources = [
            LaneSource(
                shards=stream.shards, lane=lane, lanes=plan.lanes, shuffle=plan.shuffle, key=(plan.seed, "source", i)
            )
            for i, stream in enumerate(plan.streams)
        ]
        return [
            Packer(source, tokenizer=plan.tokenizer, length=plan.length, start=start)
            for source, start in zip(sources, positions, strict=True)
        ]


def _dealt(items: list[Any], *, hands: int) -> list[list[Any]]:
    """The items given out one after the other to so many hands."""
    return [items[hand::hands] for hand in range(hands)]


def _as_json(lanes: Mapping[int, Sequence[Position]]) -> dict[str, list[list[int]]]:
    return {str(lane): [position.to_json() for position in positions] for lane, positions in lanes.items()}
