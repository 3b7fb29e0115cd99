"""Operations as `torch.utils.flop_counter` counts them, of one row of a batch.

Shape letters: B rows, L tokens a row.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from remask.data.batch import Batch
from remask.flops.courses import courses
from remask.flops.rows import loss_of, mean_targets, typical_row
from remask.model import Model
from remask.networks.concepts.encoders import RecursiveEncoder
from remask.objectives.base import Objective


def training_flops(model: Model, batch: Batch) -> float | None:
    """Measured operations of training for each target token, by `torch.utils.flop_counter`.

    One row is computed forward and backward on the model's device; no weight, gradient, count or generator changes.
    The row is one of about the batch's mean number of targets, under noise that hides as much of it as noise does in
    the mean; an objective that changes as training goes on is taken as it is at the end. Where steps or rows are of
    several kinds, each kind is computed, and the mean over training is given (`courses`); so is that over depths that
    are drawn evenly, with which operations rise evenly.

    Args:
        model: whole on its device, not yet shared out over processes.
        batch: rows like those of training, on any device.

    Returns:
        None where operations cannot be counted: in 4 bits, in fused experts, or where the row does not fit in memory.
    """
    if any(not parameter.is_floating_point() for parameter in model.network.parameters()):
        return None
    try:
        return _mean_over_depths(model, batch)
    except torch.OutOfMemoryError:
        return None


def forward_flops(model: Model, batch: Batch) -> float | None:
    """As `training_flops`, of what is computed forward alone."""
    return _mean(model, batch, _look)


def _mean_over_depths(model: Model, batch: Batch) -> float | None:
    """The middle of training at the least and at the largest depth, where an encoder draws its depth."""
    encoder = getattr(model.network, "encoder", None)
    if not isinstance(encoder, RecursiveEncoder) or encoder.min_depth == encoder.depth:
        return _mean(model, batch, _train)
    total = 0.0
    for depth in (encoder.min_depth, encoder.depth):
        with encoder.at_depth(depth):
            counted = _mean(model, batch, _train)
        if counted is None:
            return None
        total += counted / 2
    return total


def _mean(model: Model, batch: Batch, work: Callable[[Model, Objective, Batch], None]) -> float | None:
    """Operations a target token of some work on a row, the mean over the kinds of steps."""
    row, total = typical_row(model, batch), 0.0
    for share, objective in courses(model.objective):
        counted = _count(partial(work, model, objective, row), model.network)
        if counted is None:
            return None
        total += share * counted
    return total / mean_targets(batch)


def _train(model: Model, objective: Objective, row: Batch) -> None:
    trained = [parameter for parameter in model.network.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        nats = loss_of(objective, row, network=model.network).nats
        torch.autograd.grad(nats.sum(), trained, allow_unused=True)


def _look(model: Model, objective: Objective, row: Batch) -> None:
    with torch.no_grad():
        loss_of(objective, row, network=model.network)


def _count(work: Callable[[], None], network: nn.Module) -> int | None:
    """Operations of some work; None where a product was made that the counter has no formula for."""
    from torch.utils.flop_counter import FlopCounterMode

    formulas = _attention_formulas()
    # in evaluation layers are computed once and directly, experts count nothing and nothing is dropped
    with _evaluating(network), _Watch() as watch, FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        work()
    known = {*counter.flop_registry, *formulas}
    return None if any(_is_product(op) for op in watch.seen if op not in known) else counter.get_total_flops()


def _attention_formulas() -> dict[Any, Callable[..., int]]:
    """Each attention kernel's operations: two products forward and four backward, whatever it computes again.

    torch counts five backward, and for the CPU's kernel none at all.
    """
    from torch.utils.flop_counter import sdpa_flop_count

    def forward(query: Any, key: Any, value: Any, *others: Any, **named: Any) -> int:
        del others, named
        return sdpa_flop_count(query, key, value)

    def backward(gradient: Any, query: Any, key: Any, value: Any, *others: Any, **named: Any) -> int:
        del gradient, others, named
        return 2 * sdpa_flop_count(query, key, value)

    kernels = [f"_scaled_dot_product_{name}" for name in ("efficient_attention", "flash_attention", "cudnn_attention")]
    formulas = {}
    for kernel in (*kernels, "_scaled_dot_product_flash_attention_for_cpu"):
        formulas[getattr(torch.ops.aten, kernel)] = forward
        formulas[getattr(torch.ops.aten, f"{kernel}_backward")] = backward
    return formulas


class _Watch(TorchDispatchMode):
    """Notes which operations are carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.overloadpacket)
        return func(*args, **(kwargs or {}))


_PRODUCT = re.compile(r"(^|_)(\w*mm|matmul|linear|conv\w*|attention|gemm)(_|\d|$)")


def _is_product(op: Any) -> bool:
    """Whether an operation may hold matrix products: by its name, or because it is none of torch's own."""
    space, _, name = op._qualified_op_name.partition("::")
    return space not in ("aten", "prim", "prims", "profiler") or bool(_PRODUCT.search(name))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
