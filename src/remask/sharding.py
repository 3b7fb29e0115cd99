"""Weights shared out over processes (FSDP2), so that each holds and trains a part of every tensor.

torch's `fully_shard` cuts each parameter into rows of its first dimension, one run of rows a process, and brings a
layer's weights together for as long as the layer computes (ZeRO-3, arXiv:1910.02054). Everything here also takes
tensors that are not sharded, and leaves them as they are.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from remask.parallel import World

WAYS_IN = ("resume", "encode", "decode")
"""Other ways into a network than a plain call: with a cache, or in its two parts. Each brings the weights together."""


@runtime_checkable
class Layered(Protocol):
    """A network of repeated layers, each of which is gathered, compiled or computed again as one."""

    def repeated_layers(self) -> Iterable[nn.Module]:
        """The layers, in order."""
        ...


@runtime_checkable
class PartlyFrozen(Protocol):
    """A module on top of weights that training never changes."""

    def frozen_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that stay as they are, and that are found again where the module came from."""
        ...


def frozen_parameters(network: nn.Module) -> set[nn.Parameter]:
    """The parameters of a network that stay as they are, and that are found again elsewhere."""
    bases = [module for module in network.modules() if isinstance(module, PartlyFrozen)]
    return {parameter for base in bases for parameter in base.frozen_parameters()}


def shard(network: nn.Module, *, layers: Iterable[nn.Module], world: World, device: torch.device | None = None) -> None:
    """Shares the weights of a network out over the processes, in place.

    Optimisers and averages are to be made afterwards, from the parameters that the network has then. Each forward pass
    is from now on made by all processes together, and gradients are averages over them.

    Left whole on every process are parameters that someone writes by hand (neither trained nor frozen) and weights in
    formats that cannot be cut (4 bits).

    Args:
        network: the same on all processes.
        layers: parts of it whose weights are brought together one part at a time.
        world: the processes; with one nothing changes.
        device: where each process holds its part, a CPU (gloo) or a GPU (NCCL); None: where the network is. A network
            on the CPU goes to a GPU layer by layer, so that one which no GPU could hold is never there as a whole.
    """
    if world.size == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    device = next(network.parameters()).device if device is None else device
    frozen = frozen_parameters(network)
    by_hand = {p for p in network.parameters() if not p.requires_grad and p not in frozen}
    uncut = {p for p in network.parameters() if not p.is_floating_point()}
    # weights are let go after each forward pass, the root's too: one written between passes is then seen by the next
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (world.size,)),
        "reshard_after_forward": True,
        "ignored_params": by_hand | uncut,
    }
    for layer in layers:
        fully_shard(layer, **options)
    fully_shard(network, **options)
    for parameter in by_hand | uncut:
        parameter.data = parameter.data.to(device)
    for way in WAYS_IN:
        if hasattr(network, way):
            register_fsdp_forward_method(network, way)


if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> TypeGuard["DTensor"]:
    """Whether this process holds only a part of a tensor."""
    return hasattr(tensor, "full_tensor")  # of a DTensor, whose module takes most of a second to import


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor, asked for by all processes; one that is not sharded as it is."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


@torch.no_grad()
def own_rows(tensor: Tensor) -> Tensor:
    """The rows of a tensor that this process holds, in their own memory; one that is not sharded as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor.detach()


def own_range(tensor: Tensor) -> range:
    """The numbers, in the whole tensor, of the rows of a sharded tensor that this process holds."""
    mesh: Any = tensor.device_mesh  # pyright: ignore[reportAttributeAccessIssue]
    rows = -(-tensor.shape[0] // mesh.size())  # as torch.chunk cuts: as many for each, and fewer for the last
    first = min(mesh.get_local_rank() * rows, tensor.shape[0])
    return range(first, min(first + rows, tensor.shape[0]))


def shared_out(rows: Tensor, *, like: Tensor) -> Tensor:
    """The sharded tensor that has the shape and the places of `like`, of which this process holds `rows`."""
    from torch.distributed.tensor import DTensor

    mesh, placements = like.device_mesh, like.placements  # pyright: ignore[reportAttributeAccessIssue]
    return DTensor.from_local(rows, mesh, placements, shape=like.shape, stride=like.stride())
