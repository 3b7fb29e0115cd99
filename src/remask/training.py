"""The training loop: a generator of steps, in which nothing depends on anything but the seed and the step index.

Step k sees batch f(seed, k) and noise f(seed, k, example), so a run resumed from a checkpoint goes on exactly as it
would have. Micro-batches and processes change nothing but rounding, and which units dropout leaves out, where there is
any. Every process has the same sums of losses and the same gradient, so all of them decide alike.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from remask.data.batch import Batch
from remask.monitor import Seen
from remask.objectives.base import Loss, Objective
from remask.objectives.prompt_dropout import unwrapped
from remask.optimisation import Curve, MovingAverage, gradient_norm, set_rate
from remask.parallel import World
from remask.randomness import keyed_dropout, keyed_generator, widest_float


@runtime_checkable
class Stepped(Protocol):
    """A network that changes as training goes on, as a function of the step alone, so that runs resume."""

    def begin_step(self, step: int) -> None:
        """Called before the forward passes of each optimiser step, counted from 1."""
        ...


@runtime_checkable
class Telling(Protocol):
    """An objective that has figures of its own for the training record."""

    def diagnostics(self, network: nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """The figures.

        Args:
            network: unwrapped.
            terms: the terms of the losses, each step's summed over all micro-batches and divided by its target
                tokens, then summed over the steps since the last record.
        """
        ...


@runtime_checkable
class Steered(Telling, Protocol):
    """An objective that turns a knob of the network after each optimiser step, and says what it sees in doing so."""

    def steer(self, network: nn.Module, terms: Mapping[str, float]) -> None:
        """Changes the network (unwrapped) in place.

        Args:
            network: after the optimiser's step, before the moving average takes it in.
            terms: the terms of this step's losses, summed over all micro-batches and divided by its target tokens.
        """
        ...


@runtime_checkable
class Balanced(Protocol):
    """A part of a network that counts what its units get to do, and keeps the load even as training goes on.

    Attributes:
        load: the counts that the last `steer` was told of, or None before the first.
    """

    load: Tensor | None

    def begin_count(self) -> None:
        """Forgets the counts; called before the forward passes of each optimiser step."""
        ...

    def counted(self) -> Tensor:
        """What this process has counted since, a number for each unit."""
        ...

    def steer(self, load: Tensor) -> None:
        """Changes the network in place, after the optimiser's step.

        Args:
            load: the counts of all processes.
        """
        ...


@runtime_checkable
class Guard(Protocol):
    """Looks at each step before and after the weights change, and may keep them from changing."""

    def before_update(self, seen: Seen) -> bool:
        """Whether the optimisers are to step; the gradient is thrown away where not.

        Raises:
            RunError: the run must stop.
        """
        ...

    def after_update(self, step: int) -> None:
        """Called when optimiser step `step` has been made or left out.

        Raises:
            RunError: the run must stop.
        """
        ...


@dataclass
class TrainingState:
    """All that changes while a run trains.

    Attributes:
        network: the trained weights.
        optimizers: their state.
        average: the moving average of the weights.
        step: optimiser steps done.
        tokens: target tokens seen.
    """

    network: nn.Module
    optimizers: Sequence[Optimizer]
    average: MovingAverage
    step: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Step:
    """What one optimiser step reports, of all processes together.

    Attributes:
        index: from 1.
        loss: nats a target token.
        gradient_norm: before clipping.
        learning_rate: the share of the peak rate, in [0, 1].
        tokens: target tokens of this step.
        terms: parts of the loss, nats a target token.
        updated: whether the weights were changed; false where the guard left the batch out, or a scaled gradient
            overflowed.
    """

    index: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    terms: Mapping[str, float] = field(default_factory=dict)
    updated: bool = True


def train(
    state: TrainingState,
    *,
    objective: Objective,
    batches: Iterator[Sequence[Batch]],
    accelerator: Accelerator,
    curve: Curve,
    clip: float,
    seed: int,
    steps: int,
    world: World,
    guard: Guard,
) -> Iterator[Step]:
    """Trains from `state.step` to `steps`, yielding after each step with `state` up to date.

    Args:
        state: changed in place.
        objective: gives nats and weights.
        batches: this process's micro-batches of each step, beginning with step `state.step + 1`.
        accelerator: device, precision and gradient scaling; `state.network` and the optimisers are prepared by it.
        curve: share of the peak learning rate at each step.
        clip: largest gradient norm.
        seed: of the run.
        steps: the last step.
        world: the processes that share each step.
        guard: sees each step before it is made.

    Raises:
        RunError: where the guard stops the run.
    """
    network = accelerator.unwrap_model(state.network)
    balanced = balanced_parts(network)
    for index in range(state.step + 1, steps + 1):
        places = [batch.to(accelerator.device) for batch in next(batches)]
        share = curve(index)
        set_rate(state.optimizers, share)
        _begin_step(network, index, balanced)
        step = _Work(state.network, objective.at(index), places, seed=seed, index=index, tokens=_tokens(places, world))
        loss, terms = _sum(step.backward(accelerator, world), tokens=step.tokens, world=world)
        norm = full_gradient_norm(state.network, accelerator)
        seen = step.seen(loss=loss, terms=terms, norm=norm, network=network, scaled=accelerator.scaler is not None)
        # a gradient scaler leaves out the optimiser whose own weights overflowed; the others must not step either
        overflowed = seen.scaled and not math.isfinite(seen.gradient_norm)
        updated = guard.before_update(seen) and not overflowed
        if updated:
            nn.utils.clip_grads_with_norm_(network.parameters(), clip, norm)
            apply_gradient(state.optimizers, accelerator)
            _steer(objective, network, terms)
            _balance(balanced, world)
            state.average.update(network, step=index)
        else:
            drop_gradient(state.optimizers, accelerator)
        guard.after_update(index)
        state.step, state.tokens = index, state.tokens + step.tokens
        yield Step(index, loss, seen.gradient_norm, share, step.tokens, terms, updated)


def balanced_parts(network: nn.Module) -> list[Balanced]:
    """The parts of a network that keep a load even."""
    return [module for module in network.modules() if isinstance(module, Balanced)]


def load_figures(network: nn.Module) -> dict[str, float]:
    """How even the last step's load was; empty where nothing is balanced, or no step has been made.

    Returns:
        `expert_load`: the share of one part's choices that went to its busiest unit, in the part where that is most;
        `expert_load_even`: what that would be if all were as busy (trivial: nobody chooses).
    """
    loads = [part.load for part in balanced_parts(network) if part.load is not None and part.load.any()]
    if not loads:
        return {}
    busiest = max(float(load.max() / load.sum()) for load in loads)
    return {"expert_load": busiest, "expert_load_even": 1 / len(loads[0])}


def _begin_step(network: object, step: int, balanced: Sequence[Balanced]) -> None:
    if isinstance(network, Stepped):
        network.begin_step(step)
    for part in balanced:
        part.begin_count()


def _balance(balanced: Sequence[Balanced], world: World) -> None:
    """Tells each part what all processes have counted, which takes one exchange."""
    if balanced:
        counts = [part.counted() for part in balanced]
        loads = world.add(torch.cat(counts)).split([len(count) for count in counts])
        for part, load in zip(balanced, loads, strict=True):
            part.steer(load)


def _steer(objective: Objective, network: nn.Module, terms: Mapping[str, float]) -> None:
    steered = unwrapped(objective)
    if isinstance(steered, Steered):
        steered.steer(network, terms)


def _tokens(places: Sequence[Batch], world: World) -> int:
    """Target tokens of a step, of all processes."""
    here = sum(int(batch.targets.sum()) for batch in places)
    return int(world.add(torch.tensor(float(here), dtype=torch.float64, device="cpu")))


@dataclass(frozen=True)
class _Work:
    """One step's work of this process: its micro-batches, and the noise and dropout they are seen with."""

    network: nn.Module
    objective: Objective
    places: Sequence[Batch]
    seed: int
    index: int
    tokens: int

    def backward(self, accelerator: Accelerator, world: World) -> list[Loss]:
        """Adds the gradient of Σ nats / Σ weight over all micro-batches and processes; the losses, detached."""
        losses = []
        self.network.train()
        for place in range(len(self.places)):
            last = place == len(self.places) - 1
            with nullcontext() if last else _without_exchange(self.network):
                loss = self._loss(place)
                # gradients are averaged over processes
                accelerator.backward(loss.nats.sum() / max(self.tokens, 1) * world.size)
            losses.append(Loss(loss.nats.detach(), loss.weight, loss.terms))
        return losses

    def seen(self, *, loss: float, terms: Mapping[str, float], norm: Tensor, network: nn.Module, scaled: bool) -> Seen:
        """What a guard is shown of the step; `network` is unwrapped."""
        return Seen(
            step=self.index,
            loss=loss,
            terms=terms,
            gradient_norm=float(norm),
            tokens=self.tokens,
            network=network,
            scaled=scaled,
            rerun=self.rerun,
        )

    @torch.no_grad()
    def rerun(self) -> list[Loss]:
        """Every forward pass again, with the same noise and without a gradient."""
        return [self._loss(place) for place in range(len(self.places))]

    def _loss(self, place: int) -> Loss:
        batch = self.places[place]
        generator = keyed_generator(self.seed, "noise", self.index, device=batch.ids.device)
        with keyed_dropout(self.seed, self.index, int(batch.rows[0]), device=batch.ids.device):
            return self.objective(self.network, batch, generator=generator)


def _without_exchange(network: nn.Module) -> AbstractContextManager[None]:
    """Keeps copies of a network from exchanging gradients before the step's last micro-batch."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def _sum(losses: Sequence[Loss], *, tokens: int, world: World) -> tuple[float, dict[str, float]]:
    """The loss and its terms over all micro-batches and processes, nats a target token."""
    names = list(losses[0].terms)
    wide = widest_float(losses[0].nats.device)
    rows = [torch.stack([loss.nats.sum(), *(loss.terms[name] for name in names)]).to(wide) for loss in losses]
    total, *terms = (world.add(torch.stack(rows).sum(0)) / max(tokens, 1)).tolist()
    return total, dict(zip(names, terms, strict=True))


def full_gradient_norm(network: nn.Module, accelerator: Accelerator) -> Tensor:
    """The norm of the whole gradient, loss scaling undone; infinite or nan where a gradient scaler overflowed."""
    accelerator.unscale_gradients()
    return gradient_norm(network.parameters())


def apply_gradient(optimizers: Sequence[Optimizer], accelerator: Accelerator) -> None:
    """One step of every optimiser, then no gradient; a gradient scaler is updated once, after the last of them.

    (Accelerate's own step updates it after each, which makes it forget that the others' gradients are unscaled.)
    """
    scaler = accelerator.scaler
    for optimizer in optimizers:
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(getattr(optimizer, "optimizer", optimizer))
    drop_gradient(optimizers, accelerator)


def drop_gradient(optimizers: Sequence[Optimizer], accelerator: Accelerator) -> None:
    """No gradient any more, and a gradient scaler that knows how the step went."""
    if accelerator.scaler is not None:
        accelerator.scaler.update()
    for optimizer in optimizers:
        optimizer.zero_grad()
