"""Where each part of a model lies: one map, printed once, and an error where a tensor is anywhere else."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor, nn

from remask.backbones.quantised import held_bytes
from remask.networks.pretrained import Backbone
from remask.networks.pretrained_experts import InFloat32, UnfusedExperts
from remask.networks.pretrained_tables import StayingEmbedding


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A part of a model.

    Attributes:
        component: which.
        device: where it lies.
        dtype: how its numbers are held: `nf4`, `float32` …
        numbers: how many.
        bytes: what they take, with their scales.
        trained: how many of the numbers are trained.
    """

    component: str
    device: torch.device
    dtype: str
    numbers: int
    bytes: int
    trained: int


def device_map(network: nn.Module) -> list[Placed]:
    """What a network holds, by component, device and dtype; each shared tensor once."""
    found: dict[tuple[str, torch.device, str], Placed] = {}
    for _, component, tensor in _tensors(network):
        state = getattr(tensor, "quant_state", None)
        dtype = str(tensor.dtype).removeprefix("torch.") if state is None else state.quant_type
        key = (component, tensor.device, dtype)
        before = found.get(key)
        numbers = tensor.numel() if state is None else state.shape.numel()
        found[key] = Placed(
            component=component,
            device=tensor.device,
            dtype=dtype,
            numbers=numbers + (before.numbers if before else 0),
            bytes=held_bytes(tensor) + (before.bytes if before else 0),
            trained=(numbers if tensor.requires_grad else 0) + (before.trained if before else 0),
        )
    return sorted(found.values(), key=lambda placed: -placed.bytes)


def device_lines(network: nn.Module) -> Iterator[str]:
    """The map as text; nothing for a network that lies in one place in one kind of number."""
    rows = device_map(network)
    if len({(row.device, row.dtype) for row in rows}) < 2:
        return
    for row in rows:
        trained = f", {row.trained:,} of them trained" if row.trained else ""
        size = f"{row.bytes / 2**20:,.1f} MiB"
        yield f"on {row.device}: {row.component}, {row.dtype}, {size}, {row.numbers:,} numbers{trained}"


def check_placement(network: nn.Module, *, device: torch.device) -> None:
    """Sees to it that all of a network lies on its device, but for a table that stays on the CPU and lies there.

    Args:
        network: to be looked at.
        device: where it computes.

    Raises:
        AssertionError: naming the first tensor that lies elsewhere, or that has no memory (`meta`).
    """
    staying = {id(p) for m in network.modules() if isinstance(m, StayingEmbedding) for p in m.parameters()}
    for name, _, tensor in _tensors(network):
        due = torch.device("cpu") if id(tensor) in staying else device
        for part in (tensor, *_scales(tensor)):
            there = part.device.type == due.type and due.index in (None, part.device.index)
            assert there, f"{name} lies on {part.device}, and the device map says {due}"


def _scales(tensor: Tensor) -> list[Tensor]:
    state = getattr(tensor, "quant_state", None)
    if state is None:
        return []
    nested = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    return [state.absmax, state.code, *nested]


def _tensors(network: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Name, component and tensor of all parameters and buffers, shared ones once."""
    owners: dict[int, str] = {}
    for module in network.modules():
        for part, component in _parts(module):
            owners |= {id(tensor): component for tensor in chain(part.parameters(), part.buffers())}
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        if tensor.requires_grad:
            yield name, "adapters" if ".lora_" in name else "trained in full", tensor
        else:
            matrix = tensor.ndim > 1 or hasattr(tensor, "quant_state")
            yield name, owners.get(id(tensor), "other linear layers" if matrix else _SMALL), tensor


_SMALL = "norms, gates and biases"


def _parts(module: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Modules of which every tensor belongs to one component."""
    if isinstance(module, UnfusedExperts):
        yield module, "experts"
    elif isinstance(module, InFloat32):
        yield module, _SMALL
    elif isinstance(module, nn.Embedding):
        yield module, "embeddings"
    elif isinstance(module, Backbone) and isinstance(head := module.get_output_embeddings(), nn.Module):
        yield head, "head"
