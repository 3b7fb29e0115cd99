"""The training loop: a generator of steps, in which nothing depends on anything but the seed and the step index.

Step k sees batch f(seed, k) and noise f(seed, k, example), so a run resumed from a checkpoint goes on exactly as it
would have, and micro-batches change nothing but rounding (and which units dropout leaves out, where there is any).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer

from remask.data.batch import Batch
from remask.errors import RunError
from remask.objectives.base import Loss, Objective
from remask.objectives.prompt_dropout import unwrapped
from remask.optimisation import Curve, MovingAverage, set_rate
from remask.randomness import derive_seed, keyed_generator


@runtime_checkable
class Stepped(Protocol):
    """A network that changes as training goes on, as a function of the step alone, so that runs resume."""

    def begin_step(self, step: int) -> None:
        """Called before the forward passes of each optimiser step, counted from 1."""
        ...


@runtime_checkable
class Steered(Protocol):
    """An objective that turns a knob of the network after each optimiser step, and says what it sees in doing so."""

    def steer(self, network: nn.Module, terms: Mapping[str, float]) -> None:
        """Changes the network (unwrapped) in place.

        Args:
            network: after the optimiser's step, before the moving average takes it in.
            terms: the terms of this step's losses, summed over all micro-batches and divided by its target tokens.
        """
        ...

    def diagnostics(self, network: nn.Module, terms: Mapping[str, float]) -> dict[str, float]:
        """Figures for the training record, from the same terms summed over the steps since the last one."""
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
    """What one optimiser step reports.

    Attributes:
        index: from 1.
        loss: nats a target token.
        gradient_norm: before clipping.
        learning_rate: the share of the peak rate, in [0, 1].
        tokens: target tokens of this step.
        terms: parts of the loss, nats a target token.
    """

    index: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    terms: Mapping[str, float] = field(default_factory=dict)


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
) -> Iterator[Step]:
    """Trains from `state.step` to `steps`, yielding after each step with `state` up to date.

    Args:
        state: changed in place.
        objective: gives nats and weights.
        batches: the micro-batches of each step, beginning with step `state.step + 1`.
        accelerator: device, precision and gradient scaling; `state.network` and the optimisers are prepared by it.
        curve: share of the peak learning rate at each step.
        clip: largest gradient norm.
        seed: of the run.
        steps: the last step.

    Raises:
        RunError: at the first loss or gradient that is not finite, naming step and term.
    """
    for index in range(state.step + 1, steps + 1):
        micro_batches = [batch.to(accelerator.device) for batch in next(batches)]
        share = curve(index)
        set_rate(state.optimizers, share)
        network = accelerator.unwrap_model(state.network)
        _begin_step(network, index)
        tokens = sum(int(batch.targets.sum()) for batch in micro_batches)
        losses = _backward(state, objective, micro_batches, accelerator, seed=seed, index=index, tokens=tokens)
        loss, terms = _sum(losses, index=index, tokens=tokens)
        norm = clip_gradient(state.network, accelerator, clip=clip, index=index)
        apply_gradient(state.optimizers, accelerator)
        steered = unwrapped(objective)
        if isinstance(steered, Steered):
            steered.steer(network, terms)
        state.average.update(network, step=index)
        state.step, state.tokens = index, state.tokens + tokens
        yield Step(index, loss, norm, share, tokens, terms)


def _begin_step(network: object, step: int) -> None:
    if isinstance(network, Stepped):
        network.begin_step(step)


def _backward(
    state: TrainingState,
    objective: Objective,
    micro_batches: Sequence[Batch],
    accelerator: Accelerator,
    *,
    seed: int,
    index: int,
    tokens: int,
) -> list[Loss]:
    """Adds the gradient of Σ nats / Σ weight over all micro-batches; returns their losses, detached."""
    losses = []
    state.network.train()
    for place, batch in enumerate(micro_batches):
        generator = keyed_generator(seed, "noise", index, device=accelerator.device)
        with keyed_dropout(seed, index, place, device=accelerator.device):
            loss = objective.at(index)(state.network, batch, generator=generator)
        accelerator.backward(loss.nats.sum() / tokens)
        losses.append(Loss(loss.nats.detach(), loss.weight, loss.terms))
    return losses


def _sum(losses: Sequence[Loss], *, index: int, tokens: int) -> tuple[float, dict[str, float]]:
    """The loss and its terms over all micro-batches, nats a target token; stops the run where one is not finite."""
    total = sum(float(loss.nats.sum()) for loss in losses) / tokens
    terms = {name: sum(float(loss.terms[name]) for loss in losses) / tokens for name in losses[0].terms}
    broken = [name for name, value in terms.items() if not math.isfinite(value)]
    if broken or not math.isfinite(total):
        raise RunError(
            f"step {index}: the loss is not finite (term: {', '.join(broken) or 'loss'}). Usual causes: a learning "
            "rate that is too high, or half precision without scaling. Lower training.learning_rate, or set "
            "training.precision=float32; the last checkpoint is untouched"
        )
    return total, terms


def clip_gradient(network: nn.Module, accelerator: Accelerator, *, clip: float, index: int) -> float:
    """Scales the whole gradient down to norm `clip` where it is longer; returns its norm before that.

    Raises:
        RunError: at the first gradient that is not finite, naming the step and a parameter. (A gradient scaler meets
            overflow on purpose and skips the step: then the norm is returned as it is.)
    """
    accelerator.unscale_gradients()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    norm = nn.utils.get_total_norm(gradients.values())
    if accelerator.scaler is None and not math.isfinite(norm):
        # finite numbers whose squares overflow make an infinite norm too: then no single parameter is to blame
        broken = [name for name, gradient in gradients.items() if not bool(gradient.isfinite().all())]
        raise RunError(
            f"step {index}: the gradient is not finite though the loss is (parameter: "
            f"{broken[0] if broken else 'all'}). Usual cause: overflow in half precision, or the square root or "
            "logarithm of zero. Set training.precision=float32 or lower training.learning_rate; the last checkpoint is "
            "untouched"
        )
    nn.utils.clip_grads_with_norm_(network.parameters(), clip, norm)
    return float(norm)


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
    if scaler is not None:
        scaler.update()
    for optimizer in optimizers:
        optimizer.zero_grad()


@contextmanager
def keyed_dropout(*key: int | str, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's global generator: inside, that generator is a function of `key`; outside, as was.

    Of several GPUs only `device`'s generator is put back: asked for all, torch copies each one's state and warns.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed("dropout", *key))
        yield
