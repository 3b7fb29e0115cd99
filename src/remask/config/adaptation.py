"""Low-rank adapters (LoRA) and 4-bit weights of a pretrained backbone; and the plain weights they amount to.

LoRA (arXiv:2106.09685) adds (alpha / rank)·B A to a frozen matrix; QLoRA (arXiv:2305.14314) holds that matrix in
4-bit NormalFloat. What is saved in the end is the sum, in float32, which loads without peft or bitsandbytes.
"""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from remask.errors import UserError, did_you_mean
from remask.networks.pretrained import Backbone
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
        targets: last parts of the names of layers that get one; None: every linear layer but the vocabulary projection.
        seed: decides the updates' A matrices (their B matrices are zero).

    Raises:
        UserError: when peft is missing, or a target names no layer.
    """
    require("peft", extra="adapters", for_what="network.adaptation=lora")
    from peft import LoraConfig, inject_adapter_in_model

    valid = linear_names(backbone)
    for target in targets or ():
        if target not in valid:
            raise UserError(f"network.lora_targets: no linear layer is named {target}; {did_you_mean(target, valid)}")
    # named one by one: peft's own "all-linear" takes in routers and fused experts of some architectures only
    chosen = sorted(targets or valid)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen)  # pyright: ignore[reportArgumentType]
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft draws A from torch's global generator, and warns that it treats GPT-2's transposed layers as such
        torch.manual_seed(derive_seed(seed, "weights"))
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        inject_adapter_in_model(config, backbone)


def linear_names(backbone: nn.Module) -> set[str]:
    """The last parts of the names of linear layers, the vocabulary projection left out."""
    from transformers.pytorch_utils import Conv1D

    assert isinstance(backbone, Backbone)
    head = backbone.get_output_embeddings()
    modules = backbone.named_modules()
    return {name.rpartition(".")[2] for name, m in modules if isinstance(m, nn.Linear | Conv1D) and m is not head}


def nf4_config(device: torch.device) -> Any:
    """How the library is told to hold linear layers in 4-bit NormalFloat with doubly quantised scales.

    Products are made in bfloat16 where the device has it, else in float32: activations of large models overflow
    float16.

    Raises:
        UserError: when bitsandbytes is missing.
    """
    require("bitsandbytes", extra="quantisation", for_what="network.quantisation=nf4")
    from transformers import BitsAndBytesConfig

    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if native else torch.float32,
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
            "(fused experts are no linear layers). Set network.quantisation=none, or name a model without them"
        )


@torch.no_grad()
def plain_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network as one without adapters and in full precision names and holds them."""
    tensors = {name: parameter.detach() for name, parameter in network.named_parameters()}
    for name, layer in network.named_modules():
        if hasattr(layer, "get_delta_weight"):
            for key in [key for key in tensors if key.startswith(f"{name}.")]:
                del tensors[key]
            base: Any = layer.get_base_layer()  # pyright: ignore[reportCallIssue]
            weight = dense(base.weight)
            update = layer.get_delta_weight("default")  # pyright: ignore[reportCallIssue]
            tensors[f"{name}.weight"] = weight + update.to(weight.dtype)
            if base.bias is not None:
                tensors[f"{name}.bias"] = base.bias.detach()
    for name, parameter in network.named_parameters():
        if name in tensors and hasattr(parameter, "quant_state"):
            tensors[name] = dense(parameter)
    return tensors


def dense(weight: Tensor) -> Tensor:
    """A weight as float32, 4-bit or not."""
    if not hasattr(weight, "quant_state"):
        return weight.detach()
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(weight.data, weight.quant_state).float()  # pyright: ignore[reportAttributeAccessIssue]
