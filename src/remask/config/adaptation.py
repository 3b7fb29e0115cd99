"""Low-rank adapters (LoRA) and 4-bit weights of a pretrained backbone; and the plain weights they amount to.

LoRA (arXiv:2106.09685) adds (alpha / rank)·B A to a frozen matrix; QLoRA (arXiv:2305.14314) holds that matrix in
4-bit NormalFloat. What is saved in the end is the sum, in float32, which loads without peft or bitsandbytes.
"""

import importlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from remask.backbones.layouts import LAYOUTS
from remask.backbones.quantised import compute_dtype
from remask.backbones.targets import adapted_layers
from remask.errors import UserError
from remask.networks.pretrained import Backbone
from remask.networks.pretrained_experts import PROJECTIONS, InFloat32, UnfusedExperts
from remask.randomness import derive_seed

LARGEST_FLOAT_SHARE = 0.02
"""Of the blocks' weights, how many may stay unquantised: norms and biases, and gates of experts."""


def require(package: str, *, extra: str, for_what: str) -> None:
    """Sees to it that an optional package is there.

    Raises:
        UserError: naming the extra to install.
    """
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{for_what} needs {package} ({error}): pip install 'remask[{extra}]'") from None


def add_lora(backbone: nn.Module, *, rank: int, alpha: float, targets: Sequence[str] | None, seed: int) -> None:
    """Freezes a backbone and puts low-rank updates beside its linear layers, zero at first, in place.

    Args:
        backbone: changed in place.
        rank: of each update.
        alpha: an update is scaled by alpha / rank.
        targets: as `adapted_layers` takes them.
        seed: decides the updates' A matrices (their B matrices are zero).

    Raises:
        UserError: when peft is missing, or a target names no layer.
    """
    require("peft", extra="adapters", for_what="network.adaptation=lora")
    from peft import LoraConfig, inject_adapter_in_model

    # named one by one: peft's own "all-linear" takes in routers and fused experts of some architectures only
    chosen = adapted_layers(backbone, targets)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen)  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft draws A from torch's global generator, and warns that it treats GPT-2's transposed layers as such
        torch.manual_seed(derive_seed(seed, "weights"))
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        inject_adapter_in_model(config, backbone)
    due = {f"{name}.lora_{side}.default.weight" for name in chosen for side in "AB"}
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trained == due, f"other weights are trained than was asked for: {sorted(trained ^ due)[:3]}"


def nf4_config(device: torch.device) -> Any:
    """How the library is told to hold linear layers in 4-bit NormalFloat with doubly quantised scales.

    Args:
        device: decides what products are made in; see `compute_dtype`.

    Raises:
        UserError: when bitsandbytes is missing.
    """
    require("bitsandbytes", extra="quantisation", for_what="network.quantisation=nf4")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype(device),
    )


def check_quantised(backbone: nn.Module, *, name: str) -> None:
    """Sees to it that 4 bits were asked for and got: fused experts, which are no linear layers, stay whole silently.

    Raises:
        UserError: when more than a fiftieth of the blocks' weights is not in 4 bits.
    """
    assert isinstance(backbone, Backbone)
    outside = {id(p) for m in backbone.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    outside |= {id(p) for p in backbone.get_output_embeddings().parameters()}
    inside = [p for p in backbone.parameters() if id(p) not in outside]
    whole = sum(p.numel() for p in inside if not hasattr(p, "quant_state"))
    packed = sum(2 * p.numel() for p in inside if hasattr(p, "quant_state"))  # two weights a byte
    if whole > LARGEST_FLOAT_SHARE * (whole + packed):
        raise UserError(
            f"network.quantisation=nf4: {whole / (whole + packed):.0%} of the weights of {name} would stay whole "
            "(fused experts are no linear layers). Set network.quantisation=none, or name a model without them or of "
            f"a known kind: {', '.join(LAYOUTS)}"
        )


@torch.no_grad()
def plain_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network as the library's model names and holds them: no adapters, no 4 bits, experts fused."""
    tensors = dict(plain_items(network))
    for owner, module in network.named_modules():
        if isinstance(module, InFloat32):
            for name, _ in module.inner.named_parameters():
                tensors[f"{owner}.{name}"] = tensors.pop(f"{owner}.inner.{name}")
        if isinstance(module, UnfusedExperts):
            parts = {
                part: torch.stack([tensors.pop(f"{owner}.{number}.{part}.weight") for number in range(len(module))])
                for part in PROJECTIONS
            }
            tensors[f"{owner}.gate_up_proj"] = torch.cat([parts["gate_proj"], parts["up_proj"]], 1)
            tensors[f"{owner}.down_proj"] = parts["down_proj"]
    return tensors


@torch.no_grad()
def plain_items(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of each parameter, one at a time, low-rank updates added and 4 bits as what they stand for."""
    inside: set[str] = set()
    for name, layer in network.named_modules():
        if hasattr(layer, "get_delta_weight"):
            base: Any = layer.get_base_layer()  # pyright: ignore[reportCallIssue]
            weight = dense(base.weight)
            update = layer.get_delta_weight("default")  # pyright: ignore[reportCallIssue]
            yield f"{name}.weight", weight + update.to(weight.dtype)
            if base.bias is not None:
                yield f"{name}.bias", dense(base.bias)
            inside |= {f"{name}.{own}" for own, _ in layer.named_parameters()}
    for name, parameter in network.named_parameters():
        if name not in inside:
            held = parameter.dtype in (torch.float16, torch.bfloat16) and not parameter.requires_grad
            yield name, dense(parameter).float() if held else dense(parameter)


def dense(weight: Tensor) -> Tensor:
    """A weight as float32, 4-bit or not."""
    if not hasattr(weight, "quant_state"):
        return weight.detach()
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state).float()  # pyright: ignore[reportAttributeAccessIssue]
