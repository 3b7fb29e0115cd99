"""How repeated layers are computed while a network trains: at once, compiled, or again in the backward pass.

A way of running stands between a layer's call and its `forward`, so names of weights, hooks and the layer's own code
stay as they are, and a sharded layer has its weights together when it runs. Evaluation and sampling, whose shapes
change all the time, compute layers directly whatever is asked for.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Run = Callable[..., Any]
"""(forward, its inputs …) → its outputs."""


def direct(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    """Calls a layer's forward pass."""
    return forward(*inputs, **named)


@dataclass(frozen=True)
class Recomputed:
    """Keeps a layer's inputs instead of its activations, and computes these again in the backward pass.

    Dropout draws the same units both times, and autocast is the same. The inputs include the tensors of the caller's
    that layers share (masks, rotary positions), which cost nothing more.

    Attributes:
        inner: how the layer is run, both times.
    """

    inner: Run = direct

    def __call__(self, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        """Calls a layer's forward pass, now and once more when its gradient is wanted."""
        return checkpoint(self.inner, forward, *inputs, use_reentrant=False, **named)


@dataclass(frozen=True)
class Compiled:
    """Runs a layer through torch.compile, which compiles at the first call: once for all layers that are alike.

    Dropout under `inductor` draws other units than uncompiled, from the same seed.

    Attributes:
        backend: of torch.compile.
    """

    backend: str

    @cached_property
    def _call(self) -> Callable[..., Any]:
        return torch.compile(direct, backend=self.backend)

    def __call__(self, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
        """Calls a layer's forward pass, compiled."""
        return self._call(forward, *inputs, **named)


class InTraining:
    """A layer's forward pass, run in some way in training mode and directly otherwise.

    Args:
        forward: the layer's own, bound to it.
        run: how it is called in training.
    """

    def __init__(self, forward: Callable[..., Any], run: Run) -> None:
        self.forward, self.run = forward, run
        self.layer: nn.Module = getattr(forward, "__self__")  # noqa: B009

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """What the layer computes."""
        run = self.run if self.layer.training else direct
        return run(self.forward, *inputs, **named)


def run_in_training(layers: Iterable[nn.Module], run: Run) -> None:
    """Has layers computed in another way while they train, from now on.

    Args:
        layers: changed in place, their weights and names untouched; each once.
        run: `Recomputed`, `Compiled`, or one within the other.
    """
    for layer in layers:
        layer.forward = InTraining(layer.forward, run)
