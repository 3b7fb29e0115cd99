"""Which mixtures of experts are known, what their layers are called on disk, and what is held in how many bits.

The library's modules name a mixture's parts alike (`mlp.experts`, `mlp.gate`); published files do not. A layout says
what a part of the module is called in files; an architecture without one is refused, never guessed at.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Literal

import torch
from torch import Tensor, nn

from remask.errors import UserError
from remask.networks.pretrained_experts import PROJECTIONS, InFloat32, UnfusedExperts, unfuse

META = torch.device("meta")
BLOCK, NESTED_BLOCK = 64, 256
"""Weights that share a scale, and scales that share a scale of their own (arXiv:2305.14314, section 3)."""

Component = Literal["experts", "other linear layers", "embeddings", "head", "norms, gates and biases"]
Place = Literal["device", "cpu"]


@dataclass(frozen=True)
class Layout:
    """What an architecture's parts are called in its files.

    Attributes:
        block: the part that the library calls `mlp`, in the layers that have experts.
        projections: the library's name of each expert's linear layer → the files'.
    """

    block: str = "mlp"
    projections: Mapping[str, str] = field(default_factory=lambda: {name: name for name in PROJECTIONS})

    def stored(self, name: str) -> str:
        """The name in files of a parameter of `skeleton`."""
        name = name.replace(".inner.", ".")
        if self.block != "mlp":
            name = name.replace(".mlp.", f".{self.block}.")
        head, experts, tail = name.partition(".experts.")
        if experts:
            number, projection, rest = tail.split(".")
            tail = f"{number}.{self.projections[projection]}.{rest}"
        return head + experts + tail


_PLAIN = Layout()
LAYOUTS: Mapping[str, Layout] = {
    "qwen2_moe": _PLAIN,
    "qwen3_moe": _PLAIN,
    "olmoe": _PLAIN,
    "mixtral": Layout("block_sparse_moe", {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}),
}


def layout_of(config: Any) -> Layout | None:
    """The layout of an architecture; None where it is no mixture that is known."""
    return LAYOUTS.get(config.model_type)


def skeleton(config: Any, *, attention: str = "sdpa") -> Any:
    """The library's model without weights (all on `meta`), its experts unfused and its routers kept in float32.

    Args:
        config: of a known mixture.
        attention: the library's attention.

    Raises:
        UserError: when the architecture holds its experts in a way that is not known.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    # positions' tables are computed, not stored, so that they are made at once
    with init_empty_weights(include_buffers=False), torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(deepcopy(config), attn_implementation=attention, dtype=torch.float32)
    model.config.dtype = config.dtype  # what the files hold, which the library has overwritten in its copy
    for module in list(model.modules()):
        if isinstance(fused := getattr(module, "experts", None), nn.Module):
            try:
                module.experts = unfuse(fused, device=META)
            except ValueError as error:
                raise UserError(f"{config.model_type}: {error}; known are {', '.join(LAYOUTS)}") from None
            for gate in ("gate", "shared_expert_gate"):
                if isinstance(inner := getattr(module, gate, None), nn.Module):
                    setattr(module, gate, InFloat32(inner))
    return model.requires_grad_(False)


def layers_in_four_bits(model: Any) -> dict[str, nn.Linear]:
    """The linear layers that are held in 4 bits: all, but for the vocabulary projection, routers and gates."""
    head = model.get_output_embeddings()
    whole = {id(part) for gate in model.modules() if isinstance(gate, InFloat32) for part in gate.modules()}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head and id(module) not in whole
    }


def routed_layers(model: nn.Module) -> set[str]:
    """The names of all modules within experts that a router chooses from."""
    owners = [name for name, module in model.named_modules() if isinstance(module, UnfusedExperts)]
    return {f"{owner}.{name}" for owner in owners for name, _ in model.get_submodule(owner).named_modules() if name}


@dataclass(frozen=True, kw_only=True)
class Holding:
    """How one tensor of a model is held.

    Attributes:
        name: in the model.
        component: what it belongs to.
        place: on the device, or on the CPU.
        dtype: None: NF4 with doubly quantised scales.
        numbers: how many it holds.
    """

    name: str
    component: Component
    place: Place
    dtype: torch.dtype | None
    numbers: int

    @property
    def bytes(self) -> int:
        """What it takes, without what 4-bit layers share."""
        return four_bit_bytes(self.numbers) if self.dtype is None else self.numbers * self.dtype.itemsize


def four_bit_bytes(numbers: int) -> int:
    """Bytes of so many weights of a layer in NF4, about 0.516 a weight.

    Half a byte each, a byte for the scale of every 64, a float for that of every 256 scales, and a float that all
    scales are counted from. (The values that the bits stand for are a KiB, once for all layers.)
    """
    scales = ceil(numbers / BLOCK)
    return ceil(numbers / 2) + scales + 4 * ceil(scales / NESTED_BLOCK) + 4


def holdings(model: Any, *, compute: torch.dtype, tables: torch.dtype, embeddings: Place) -> Iterator[Holding]:
    """How each parameter and buffer of a `skeleton` is to be held.

    Args:
        model: as `skeleton` gives it.
        compute: what the device multiplies in: the head's dtype, and that of the biases of 4-bit layers.
        tables: the embeddings' dtype, the files' own.
        embeddings: where they lie.
    """
    layers, head, words = layers_in_four_bits(model), model.get_output_embeddings(), model.get_input_embeddings()
    for owner, module in model.named_modules():
        own: dict[str, Tensor] = {**module._parameters, **module._buffers}  # type: ignore[dict-item]
        for name, tensor in own.items():
            if tensor is None:
                continue
            component, place, dtype = "norms, gates and biases", "device", torch.float32
            if module is words:
                component, place, dtype = "embeddings", embeddings, tables
            elif module is head:
                component, dtype = "head", compute
            elif owner in layers and name == "weight":
                component = "experts" if ".experts." in f".{owner}." else "other linear layers"
                dtype = None
            elif owner in layers:
                dtype = compute
            full = f"{owner}.{name}" if owner else name
            yield Holding(name=full, component=component, place=place, dtype=dtype, numbers=tensor.numel())
