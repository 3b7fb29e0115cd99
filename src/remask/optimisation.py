"""Optimisers, learning-rate curves and the moving average of weights."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from remask.muon import Muon
from remask.sharding import frozen_parameters, is_sharded, own_rows, whole

Curve = Callable[[int], float]
"""Step index from 1 → the share of the peak learning rate, in [0, 1]."""


@runtime_checkable
class Trainable(Protocol):
    """A network that knows which of its weights Muon may orthogonalise."""

    def hidden_matrices(self) -> Iterable[nn.Parameter]:
        """The trained two-dimensional weights that are neither embeddings nor the vocabulary projection."""
        ...


def warmed(decay: Curve, *, warmup_steps: int) -> Curve:
    """Rises linearly to the peak over `warmup_steps`, then follows `decay` (whose first step is then step 1)."""

    def curve(step: int) -> float:
        return step / warmup_steps if step <= warmup_steps else decay(step - warmup_steps)

    return curve


def cosine_decay(steps: int, *, final: float) -> Curve:
    """From 1 to `final` along half a cosine over `steps` steps."""
    return lambda step: final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * min(step / max(steps, 1), 1.0)))


def linear_decay(steps: int, *, final: float) -> Curve:
    """From 1 to `final` along a line over `steps` steps."""
    return lambda step: final + (1.0 - final) * (1.0 - min(step / max(steps, 1), 1.0))


def constant(step: int) -> float:
    """The peak rate at every step."""
    del step
    return 1.0


def warmup_stable_decay(steps: int, *, final: float) -> Curve:
    """1 for the first four fifths of `steps`, then a line to `final` (WSD, arXiv:2404.06395)."""
    stable = steps - steps // 5
    fall = linear_decay(steps - stable, final=final)
    return lambda step: 1.0 if step <= stable else fall(step - stable)


def set_rate(optimizers: Sequence[Optimizer], share: float) -> None:
    """Sets every group's learning rate to `share` of its peak, kept under `peak`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share


def adamw(
    network: nn.Module, *, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> list[Optimizer]:
    """AdamW (arXiv:1711.05101) on all trained parameters; matrices decay, vectors and embeddings do not."""
    return [_adamw(network, trained_parameters(network), learning_rate, weight_decay, betas)]


def muon(
    network: nn.Module,
    hidden: Sequence[nn.Parameter],
    *,
    learning_rate: float,
    muon_learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
) -> list[Optimizer]:
    """Muon (Jordan et al. 2024, muon.py) on the `hidden` matrices, AdamW on all else.

    Args:
        network: whose parameters are trained.
        hidden: two-dimensional weights whose updates are orthogonalised.
        learning_rate: peak of AdamW's part.
        muon_learning_rate: peak of Muon's part.
        weight_decay: of both parts.
        betas: of AdamW.
    """
    chosen = {id(parameter) for parameter in hidden}
    rest = [parameter for parameter in trained_parameters(network) if id(parameter) not in chosen]
    orthogonal = Muon(list(hidden), lr=muon_learning_rate, weight_decay=weight_decay, momentum=0.95)
    _remember_peak(orthogonal)
    return [orthogonal, _adamw(network, rest, learning_rate, weight_decay, betas)]


def kept_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters by name that a run must keep to go on: all but frozen ones, each shared one once.

    Names are those of the network itself, also where it is wrapped as a copy among others (DDP): what is kept is to be
    read by any number of processes.
    """
    inner = network.module if isinstance(network, DistributedDataParallel) else network
    frozen = frozen_parameters(inner)
    return {name: parameter for name, parameter in inner.named_parameters() if parameter not in frozen}


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen, each shared one once."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The Euclidean norm of the whole gradient, the same on every process where parameters are sharded.

    Args:
        parameters: those without a gradient count for nothing.

    Returns:
        A scalar.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    kinds = ([g for g in gradients if is_sharded(g)], [g for g in gradients if not is_sharded(g)])
    norms = [whole(nn.utils.get_total_norm(kind)) for kind in kinds if kind]
    return norms[0] if len(norms) == 1 else nn.utils.get_total_norm(norms)


def _adamw(
    network: nn.Module,
    parameters: Sequence[nn.Parameter],
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
) -> Optimizer:
    embeddings = {id(m.weight) for m in network.modules() if isinstance(m, nn.Embedding)}
    free = [p for p in parameters if p.ndim < 2 or id(p) in embeddings]
    decayed = [p for p in parameters if p.ndim >= 2 and id(p) not in embeddings]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=betas, fused=True)
    _remember_peak(optimizer)
    return optimizer


def _remember_peak(optimizer: Optimizer) -> None:
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]


class MovingAverage:
    """Exponential moving average of a network's parameters, frozen ones left out.

    Args:
        network: whose parameters are followed; the average starts equal to them.
        decay: the share of the old average kept each step, in [0, 1); the first steps use (1 + n)/(10 + n) where that
            is smaller, so that the start is forgotten.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.average = {name: value.detach().clone() for name, value in kept_parameters(network).items()}

    @torch.no_grad()
    def update(self, network: nn.Module, *, step: int) -> None:
        """Moves the average towards the parameters after optimiser step `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        current = dict(network.named_parameters())
        for name, average in self.average.items():
            own_rows(average).lerp_(own_rows(current[name]), 1.0 - decay)

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Lends the averaged weights to the network, and puts its own back afterwards."""
        give_back = [_lend(parameter, self.average[name]) for name, parameter in kept_parameters(network).items()]
        try:
            yield
        finally:
            for undo in give_back:
                undo()


def _lend(parameter: nn.Parameter, value: Tensor) -> Callable[[], object]:
    """Gives a parameter another value; returns what gives it its own back.

    FSDP gathers a sharded parameter from memory of its own, so that one is overwritten, not merely pointed elsewhere.
    """
    if is_sharded(parameter):
        rows = own_rows(parameter)
        kept = rows.clone()
        rows.copy_(own_rows(value))
        return lambda: rows.copy_(kept)
    kept = parameter.data
    parameter.data = value
    return lambda: setattr(parameter, "data", kept)


def optimizer_names(optimizers: Sequence[Optimizer]) -> list[str]:
    """The kind of each optimiser, also where Accelerate has wrapped it."""
    return [type(getattr(optimizer, "optimizer", optimizer)).__name__ for optimizer in optimizers]


def optimizer_tensors(optimizers: Sequence[Optimizer]) -> dict[str, Tensor]:
    """All optimiser state as named tensors, `optimizer.parameter.key`; learning rates follow from the step."""
    tensors: dict[str, Tensor] = {}
    for i, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"{i}.{parameter}.{key}"] = torch.as_tensor(value)
    return tensors


def optimizer_parameter(optimizers: Sequence[Optimizer], name: str) -> Tensor:
    """The parameter that a tensor named by `optimizer_tensors` belongs to."""
    optimizer, parameter, _ = name.split(".")
    return [p for group in optimizers[int(optimizer)].param_groups for p in group["params"]][int(parameter)]


def load_optimizer_tensors(optimizers: Sequence[Optimizer], tensors: dict[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` took from optimisers of the same kinds over the same parameters."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for name, value in tensors.items():
        optimizer, parameter, key = name.split(".")
        states[int(optimizer)].setdefault(int(parameter), {})[key] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
