"""The watch over a training: figures and weights that show, at the step where it happens, that something is wrong.

The figures handed in are sums over all processes, so that every process finds the same; what only one of them can see
(the layer in which its part of the batch broke) is told to the others. Gradients and weights are looked at in the first
steps and on suspicion only.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from remask.health import alarms
from remask.health.alarms import Alarm
from remask.health.watching import LINES, Expected, as_kept, judge_line
from remask.sharding import own_rows

_ODD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: keeps two sums apart in one number

Gather = Callable[[Any], list[Any]]
"""A plain value of each process → all of them, by rank (`remask.parallel.World.gather`)."""

WINDOW = 100
"""Steps whose median is what is usual."""

FEWEST, FIRST = 20, 3
"""Steps before there is a median to speak of; until then the first few stand in, of a network that has hardly moved."""

LOSS_SHARE = 1 / 3
"""Of the explosion factor, for the loss: of one row a step, sound runs had norms up to 11 and losses up to 3.2 times
their median (of 16 rows: 4.2 and 1.6)."""

FLOOR = 1 / 20
"""Of the first steps' loss, and of their gradient's norm: where nearly all is learned, one row that is not has many
times what is usual, and that is no explosion."""

STREAK, LATER_STREAK = 5, 20
"""Steps in a row at which a gradient or a loss of exactly zero is no accident: at first, and where it was not zero yet
(a small batch may have no masked token now and then)."""

OVERFLOWS = 20
"""Steps in a row that a gradient scaler, or the skipping of batches, may pass over."""

FIRST_STEPS = 10
"""Steps in which every trained parameter must have had a gradient, and something must have moved."""

LONG_ENOUGH = 100
"""Steps in which every trained parameter must have moved: in a long warm-up the first updates may round to nothing."""


@runtime_checkable
class Choosing(Protocol):
    """A part of a network that uses some of its weights for one batch and others for the next."""

    def chosen_parameters(self) -> Iterable[nn.Parameter]:
        """Those that a step may leave alone without anything being wrong."""
        ...


@dataclass(frozen=True)
class Seen:
    """One step after its backward pass, before the gradient is clipped and any weight changes.

    Attributes:
        step: from 1.
        loss: nats a target token.
        terms: parts of the loss, and other figures of the objective.
        gradient_norm: of the whole gradient, loss scaling undone.
        tokens: target tokens of all processes.
        network: unwrapped; its parameters hold the gradient.
        scaled: whether a gradient scaler is in use, which overflows on purpose now and then.
        rerun: evaluates the step's forward passes again, with the same noise and without a gradient.
    """

    step: int
    loss: float
    terms: Mapping[str, float]
    gradient_norm: float
    tokens: int
    network: nn.Module
    scaled: bool
    rerun: Callable[[], object]


def alone(value: Any) -> list[Any]:
    """The values of all processes where there is one."""
    return [value]


@dataclass
class _Memory:
    """All that is remembered between steps; plain values, for checkpoints.

    Attributes:
        norms: of the last gradients, `WINDOW` at most.
        losses: the last ones, alike.
        first_losses: those of the first steps, `FIRST` at most.
        first_norms: alike, of gradients.
        zero_norms: gradients of exactly zero in a row.
        zero_losses: losses of exactly zero in a row.
        overflows: steps in a row without a finite gradient.
        exploding: names of the alarms about single steps that the last step raised.
        looks: how often gradients were looked for.
        silent: parameters that never had one; None before the first look.
        since: the first step whose weights are known; 0 for none.
        sums: checksums of the weights after that step.
        checked: the steps since then after which they were compared.
        standing: names of the alarms that held at the last line of their kind, and the kind of that line.
        lines: the last training lines.
    """

    norms: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    first_losses: list[float] = field(default_factory=list)
    first_norms: list[float] = field(default_factory=list)
    zero_norms: int = 0
    zero_losses: int = 0
    overflows: int = 0
    exploding: list[str] = field(default_factory=list)
    looks: int = 0
    silent: list[str] | None = None
    since: int = 0
    sums: dict[str, int] = field(default_factory=dict)
    checked: list[int] = field(default_factory=list)
    standing: dict[str, list[str]] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)


class Monitor:
    """Looks at every step of a training, and at every line of its record.

    Args:
        network: unwrapped; sharded or whole.
        trivial: figure of a record → predictor → its value in that figure's unit, as in `Materials.trivial`
            (`bits_per_byte`, `nats_per_token`); under `loss`, values in the objective's own unit, such as
            {"predict zero": 1.0} for noise prediction.
        explosion_factor: gradient norm, as a multiple of its running median, that is an explosion; above 1. A third of
            it holds for the loss.
        steps: optimiser steps of the run.
        targets: figure of a training line → the value it is steered to, e.g. {"mask_probability": 0.05}.
        settled: the step from which targets hold: the end of an objective's warm-ups.
        held_out: some held-out text as long as a sample, for what is usual in it; empty for none.
        inversion_tolerance: by what share of their size activations may be missed when reversible blocks are undone.
        gather: makes what one process sees known to all.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        trivial: Mapping[str, Mapping[str, float]],
        explosion_factor: float,
        steps: int,
        targets: Mapping[str, float] | None = None,
        settled: int = 0,
        held_out: str = "",
        inversion_tolerance: float = math.inf,
        gather: Gather = alone,
    ) -> None:
        self.network, self.factor, self.gather = network, explosion_factor, gather
        self.expected = Expected(
            steps=steps,
            trivial=trivial,
            targets=targets or {},
            settled=settled,
            held_out=held_out,
            inversion_tolerance=inversion_tolerance,
        )
        self.memory = _Memory()

    def before_update(self, seen: Seen) -> list[Alarm]:
        """What a step shows before it changes a weight; called by every process."""
        if seen.tokens == 0:
            return [alarms.no_targets(step=seen.step)]
        sudden = [*self._not_finite(seen), *self._explosions(seen)]
        found = [replace(alarm, repeated=alarm.name in self.memory.exploding) for alarm in sudden]
        found += [*self._streaks(seen), *self._silent(seen)]
        self.memory.exploding = [alarm.name for alarm in sudden]
        _remember(self.memory.norms, seen.gradient_norm)
        _remember(self.memory.losses, seen.loss)
        if len(self.memory.first_losses) < FIRST:
            _remember(self.memory.first_losses, seen.loss)
        if len(self.memory.first_norms) < FIRST and len(self.memory.norms) < WINDOW:  # steps that did not overflow
            _remember(self.memory.first_norms, seen.gradient_norm)
        return found

    def after_update(self, step: int) -> list[Alarm]:
        """What the weights show after a step; they are read at three steps of a run."""
        memory = self.memory
        if not memory.since:
            memory.since, memory.sums = step, self._checksums()
            return []
        passed = step - memory.since + 1
        due = [count for count in (FIRST_STEPS, LONG_ENOUGH) if passed >= count and count not in memory.checked]
        if not due or memory.overflows >= passed:  # no step has been made yet, which `nothing_trained` speaks of
            return []
        memory.checked += due
        now = self._checksums()
        still = [name for name, value in now.items() if memory.sums.get(name) == value]
        none_moved = bool(still) and len(still) == len(now)
        known = none_moved and FIRST_STEPS not in due  # it was said then
        if known or not still or not (none_moved or LONG_ENOUGH in due):
            return []
        return [alarms.still_parameters(step=step, names=still, since=memory.since, all_of_them=none_moved)]

    def at_record(self, record: Mapping[str, Any]) -> list[Alarm]:
        """What a line of metrics.jsonl shows that the last line of each kind did not show already."""
        kind = str(record.get("kind"))
        if kind == "train":
            self.memory.lines = [*self.memory.lines, as_kept(record)][-LINES:]
        holding = judge_line(record, recent=self.memory.lines, expected=self.expected)
        before = {name for names in self.memory.standing.values() for name in names}
        self.memory.standing[kind] = [alarm.name for alarm in holding]
        return [alarm for alarm in holding if alarm.name not in before]

    def before_checkpoint(self, step: int) -> list[Alarm]:
        """Weights that broke in the last update: the next loss would show them, but a checkpoint comes first."""
        broken = self._named(lambda p: not bool(own_rows(p.detach()).isfinite().all()))
        if not broken:
            return []
        return [alarms.non_finite_weights(step=step, parameters=broken, half=self._holds_float16())]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain values."""
        return asdict(self.memory)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave."""
        self.memory = _Memory(**state)

    # ── single steps ───────────────────────────────────────────────────────────────────────────────────────────

    def _not_finite(self, seen: Seen) -> Iterator[Alarm]:
        if not math.isfinite(seen.loss) or not all(map(math.isfinite, seen.terms.values())):
            where, half = self._where(seen), self._holds_float16()
            yield alarms.non_finite_loss(step=seen.step, loss=seen.loss, terms=seen.terms, where=where, half=half)
        elif not math.isfinite(seen.gradient_norm) and not seen.scaled:
            broken = self._named(lambda p: p.grad is not None and not bool(own_rows(p.grad).isfinite().all()))
            half = self._holds_float16()
            yield alarms.non_finite_gradient(step=seen.step, norm=seen.gradient_norm, parameters=broken, half=half)

    def _explosions(self, seen: Seen) -> Iterator[Alarm]:
        if not math.isfinite(seen.loss) or not math.isfinite(seen.gradient_norm):
            return
        memory, usual = self.memory, _usual(self.memory.norms)
        if seen.gradient_norm > max(self.factor * usual, FLOOR * _usual(memory.first_norms)) and usual > 0:
            shares = self._largest_gradients()
            yield alarms.exploding_gradient(
                step=seen.step,
                norm=seen.gradient_norm,
                usual=usual,
                shares=shares,
                modulated=any("modulation" in name or name.startswith("time.") for name in shares),
            )
        usual = _usual(memory.losses)
        if seen.loss > max(self.factor * LOSS_SHARE * usual, FLOOR * _usual(memory.first_losses)) and usual > 0:
            yield alarms.exploding_loss(step=seen.step, loss=seen.loss, usual=usual, terms=seen.terms)

    def _streaks(self, seen: Seen) -> Iterator[Alarm]:
        memory, step = self.memory, seen.step
        finite = math.isfinite(seen.gradient_norm) and math.isfinite(seen.loss)
        memory.overflows = 0 if finite else memory.overflows + 1
        memory.zero_norms = memory.zero_norms + 1 if seen.gradient_norm == 0 else 0
        memory.zero_losses = memory.zero_losses + 1 if seen.loss == 0 else 0
        if memory.overflows == OVERFLOWS:
            yield alarms.nothing_trained(step=step, count=OVERFLOWS, scaled=seen.scaled)
        if memory.zero_losses == (LATER_STREAK if any(memory.losses) else STREAK):
            yield alarms.loss_at_zero(step=step, count=memory.zero_losses)
        if memory.zero_norms == (LATER_STREAK if any(memory.norms) else STREAK):
            yield alarms.no_gradient(step=step, count=memory.zero_norms)

    # ── gradients and weights ──────────────────────────────────────────────────────────────────────────────────

    def _silent(self, seen: Seen) -> Iterator[Alarm]:
        """Parameters that had no gradient at any of the first steps: those still without one are looked at again."""
        memory = self.memory
        if memory.looks >= FIRST_STEPS or not math.isfinite(seen.gradient_norm):
            return
        memory.looks += 1
        if memory.silent is None:
            memory.silent = self._always_used()
        if memory.silent:
            found = set(self._named(lambda p: p.grad is not None and bool(own_rows(p.grad).any())))
            memory.silent = [name for name in memory.silent if name not in found]
        if memory.looks == FIRST_STEPS and memory.silent and len(memory.silent) < len(self._trained()):
            yield alarms.silent_parameters(step=seen.step, names=memory.silent, count=FIRST_STEPS)

    def _always_used(self) -> list[str]:
        """The trained parameters that every step must reach."""
        parts = [module for module in self.network.modules() if isinstance(module, Choosing)]
        spared = {parameter for part in parts for parameter in part.chosen_parameters()}
        return [name for name, parameter in self._trained().items() if parameter not in spared]

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def _holds_float16(self) -> bool:
        return any(p.dtype == torch.float16 for p in self._trained().values())

    def _named(self, holds: Callable[[nn.Parameter], bool]) -> list[str]:
        """Trained parameters of which something holds in some process's part."""
        trained = self._trained()
        here = [name for name, parameter in trained.items() if holds(parameter)]
        anywhere = {name for names in self.gather(here) for name in names}
        return [name for name in trained if name in anywhere]

    def _largest_gradients(self) -> dict[str, float]:
        """The three parameters with most of the squared gradient norm, and their share of it."""
        trained = self._trained()
        here = [_square(parameter.grad) for parameter in trained.values()]
        squares = dict(zip(trained, map(sum, zip(*self.gather(here), strict=True)), strict=True))
        total = sum(squares.values())
        largest = sorted(squares, key=lambda name: -squares[name])[:3]
        return {name: squares[name] / total for name in largest} if total > 0 else {}

    def _checksums(self) -> dict[str, int]:
        trained = self._trained()
        here = [checksum(own_rows(parameter)) for parameter in trained.values()]
        return dict(zip(trained, map(sum, zip(*self.gather(here), strict=True)), strict=True))

    def _where(self, seen: Seen) -> str:
        """The first weight or layer that is not finite, in words."""
        weights = self._named(lambda p: not bool(own_rows(p.detach()).isfinite().all()))
        if weights:
            dtype = str(self._trained()[weights[0]].dtype).removeprefix("torch.")
            return f"already not finite: the weights {alarms.listed(weights)} ({dtype})"
        here = first_broken_layer(seen.network, seen.rerun)
        layers = [layer for layer in self.gather(here) if layer is not None]
        return f"first layer: {layers[0]}" if layers else "every layer's output is finite, the loss of them is not"


def first_broken_layer(network: nn.Module, rerun: Callable[[], object]) -> str | None:
    """The first layer of a forward pass whose output is not finite though its inputs are, with its kind; None if none.

    Args:
        network: whose layers are watched.
        rerun: makes the forward pass.
    """
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any, Any], None]:
        def look(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if not found and _is_broken(output):
                given = _is_broken((args, kwargs))
                layer = f"{name} ({type(module).__name__})"
                found.append(f"what {layer} reads" if given else layer)

        return look

    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.named_modules():
            if name:  # the whole network may answer −∞, for a token that cannot be
                hooks.callback(module.register_forward_hook(watch(name), with_kwargs=True).remove)
        rerun()
    return found[0] if found else None


def _is_broken(value: Any) -> bool:
    return any(not bool(tensor.isfinite().all()) for tensor in _tensors(value))


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, Mapping):
        value = list(value.values())
    # nothing else is gone through: a string holds strings without end, and an iterator would be used up
    return [t for item in value for t in _tensors(item)] if isinstance(value, tuple | list) else []


def checksum(tensor: Tensor) -> int:
    """A number that changes when any bit of a tensor does; made where the tensor is, without a copy of its size.

    The bits of each place as an integer, summed over rows and over columns, with the row's and the column's number as
    weight, so that changes at two places that cancel in one sum do not in the other.
    """
    if tensor.numel() == 0:
        return 0
    integer = {1: torch.int8, 2: torch.int16}.get(tensor.element_size(), torch.int32)
    rows_of_numbers = tensor.detach().contiguous().view(tensor.shape[0] if tensor.ndim else 1, -1)
    table = rows_of_numbers.view(integer)
    rows, columns = table.sum(1, dtype=torch.int64), table.sum(0, dtype=torch.int64)
    weights = [torch.arange(1, len(sums) + 1, device=sums.device) for sums in (rows, columns)]
    by_row, by_column = (int((sums * weight).sum()) for sums, weight in zip((rows, columns), weights, strict=True))
    return (by_row + _ODD * by_column) % 2**63


def _square(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else float(torch.linalg.vector_norm(own_rows(gradient), dtype=torch.float32)) ** 2


def _usual(values: Sequence[float]) -> float:
    """What is usual after some values; 0 where that is not known."""
    known = values if len(values) >= FEWEST else values[:FIRST]
    return median(known) if len(known) >= FIRST else 0.0


def _remember(values: list[float], value: float) -> None:
    if math.isfinite(value):
        values.append(value)
        del values[:-WINDOW]
