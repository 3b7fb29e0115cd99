"""A known mixture of experts opened in 4 bits, one layer at a time: no more than a layer is ever there in full.

Every linear layer becomes 4-bit NormalFloat with doubly quantised scales (arXiv:2305.14314, section 3), the experts'
first of all, which the library's own `load_in_4bit` leaves whole without a word: it sees linear layers only, and holds
experts in tensors of three dimensions. Routers, gates and norms stay in float32; the vocabulary projection and the
biases are held in what the device multiplies in; embeddings as the files hold them. The residual stream is float32.

Shape letters: D width, F hidden features.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from remask.backbones.files import WeightFiles, opened_weights
from remask.backbones.layouts import (
    Holding,
    Layout,
    Place,
    four_bit_bytes,
    holdings,
    layers_in_four_bits,
    layout_of,
    skeleton,
)
from remask.errors import UserError
from remask.networks.pretrained_experts import UnfusedExperts
from remask.networks.pretrained_tables import HeldHead, StayingEmbedding, WideEmbedding

CPU = torch.device("cpu")
BYTES_A_WEIGHT = (0.5, 0.54)
"""What a weight of an expert takes in 4 bits with doubly quantised scales: 0.516, and more in tiny layers."""


def compute_dtype(device: torch.device) -> torch.dtype:
    """What 4-bit layers multiply in: bfloat16 where a GPU has it (not where it emulates it), else float16 there.

    float32 elsewhere. The stream between layers is float32, whose values float16 may not hold.
    """
    if device.type != "cuda":
        return torch.float32
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float16


def stored_dtype(config: Any) -> torch.dtype:
    """What a model's files hold by its configuration; float32 where it does not say."""
    said = getattr(config, "dtype", None)
    found = getattr(torch, said, None) if isinstance(said, str) else said
    return found if isinstance(found, torch.dtype) and found.is_floating_point else torch.float32


def open_in_four_bits(
    config: Any, folder: Path, *, device: torch.device, embeddings: Place, attention: str = "sdpa"
) -> Any:
    """A mixture of experts with the weights of a folder, frozen, in 4 bits on `device`.

    Args:
        config: the library's, of an architecture that has a layout.
        folder: of its safetensors files.
        device: as in `held_in_four_bits`.
        embeddings: as in `held_in_four_bits`.
        attention: as in `held_in_four_bits`.

    Raises:
        UserError: when files are missing, damaged, or laid out in another way.
    """
    with opened_weights(folder) as files:
        return held_in_four_bits(config, files, device=device, embeddings=embeddings, attention=attention)


@torch.no_grad()
def held_in_four_bits(
    config: Any, files: WeightFiles, *, device: torch.device, embeddings: Place, attention: str = "sdpa"
) -> Any:
    """A mixture of experts with the weights that `files` gives, frozen, in 4 bits on `device`.

    Args:
        config: as in `open_in_four_bits`.
        files: read one tensor at a time.
        device: where it goes.
        embeddings: `device`, or `cpu` to leave the table there.
        attention: the library's attention.

    Raises:
        UserError: as `open_in_four_bits`.
    """
    layout = layout_of(config)
    assert layout is not None, f"{config.model_type} has no layout"
    model, compute = skeleton(config, attention=attention), compute_dtype(device)
    plan = {h.name: h for h in holdings(model, compute=compute, tables=stored_dtype(config), embeddings=embeddings)}
    _check_names(model, files, layout)
    _fill_tables(model, files, plan, layout, device=device)
    _fill_layers(model, files, layout, device=device, compute=compute)
    _fill_rest(model, files, plan, layout, device=device)
    model.config.tie_word_embeddings = False  # each has a copy of its own, which is trained by nobody
    check_experts(model, name=str(files.folder))
    return model


def _check_names(model: Any, files: WeightFiles, layout: Layout) -> None:
    """Refuses files that hold what the architecture has no place for; what they lack is found when it is read."""
    due = {layout.stored(name) for name, _ in model.named_parameters(remove_duplicate=False)}
    more = sorted(name for name in files.places if name not in due and not name.endswith("inv_freq"))
    if more:
        raise UserError(
            f"{files.folder} holds {len(more)} tensors that a {model.config.model_type} has no place for, such as "
            f"{more[0]}: its files are laid out in a way that is not known. Give the model as it was published"
        )


def _read(files: WeightFiles, layout: Layout, name: str, *, like: Tensor) -> Tensor:
    value = files.read(layout.stored(name))
    if value.shape != like.shape:
        raise UserError(
            f"{files.folder}: {layout.stored(name)} has shape {list(value.shape)}, and its config.json asks for "
            f"{list(like.shape)}. Fetch the model again"
        )
    return value


def _fill_tables(
    model: Any, files: WeightFiles, plan: Mapping[str, Holding], layout: Layout, *, device: torch.device
) -> None:
    """Embeddings and vocabulary projection; where a model shares one table, each gets a copy of its own."""
    words, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {id(module): name for name, module in model.named_modules()}
    word_name, head_name = f"{names[id(words)]}.weight", f"{names[id(head)]}.weight"
    table, projection = plan[word_name], plan_dtype(plan[head_name])
    read = _read(files, layout, word_name, like=words.weight)
    weight = read if model.config.tie_word_embeddings else _read(files, layout, head_name, like=head.weight)
    bias = None if head.bias is None else files.read(f"{names[id(head)]}.bias").to(device, projection)
    kind, place = (StayingEmbedding, CPU) if table.place == "cpu" else (WideEmbedding, device)
    model.set_input_embeddings(kind(read.to(place, plan_dtype(table), copy=True)))
    model.set_output_embeddings(HeldHead(weight.to(device, projection, copy=True), bias))


def plan_dtype(holding: Holding) -> torch.dtype:
    """The dtype of a tensor that is held in floats."""
    assert holding.dtype is not None, f"{holding.name} is held in 4 bits"
    return holding.dtype


def _fill_layers(
    model: nn.Module, files: WeightFiles, layout: Layout, *, device: torch.device, compute: torch.dtype
) -> None:
    for name, linear in layers_in_four_bits(model).items():
        weight = _read(files, layout, f"{name}.weight", like=linear.weight)
        bias = None
        if linear.bias is not None:
            bias = _read(files, layout, f"{name}.bias", like=linear.bias)
        model.set_submodule(name, four_bit_layer(weight, bias, device=device, compute=compute))


def _fill_rest(
    model: nn.Module, files: WeightFiles, plan: Mapping[str, Holding], layout: Layout, *, device: torch.device
) -> None:
    """Norms, routers and gates; and tables of positions, which are computed already."""
    for owner, module in model.named_modules():
        for name, parameter in list(module._parameters.items()):
            full = f"{owner}.{name}" if owner else name
            if parameter is not None and parameter.is_meta:
                value = _read(files, layout, full, like=parameter).to(device, plan_dtype(plan[full]), copy=True)
                module._parameters[name] = nn.Parameter(value, requires_grad=False)
        for name, buffer in list(module._buffers.items()):
            module._buffers[name] = None if buffer is None else buffer.to(device)
            if name in vars(module):  # `nn.Buffer` of newer versions is found as a buffer alone
                setattr(module, name, module._buffers[name])


def four_bit_layer(weight: Tensor, bias: Tensor | None, *, device: torch.device, compute: torch.dtype) -> Any:
    """A frozen linear layer of bitsandbytes with a weight [F D] quantised on the device.

    Args:
        weight: in floats, anywhere.
        bias: [F], or None.
        device: where the layer goes.
        compute: what it multiplies in.
    """
    from bitsandbytes.functional import quantize_4bit
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    held: Any = Params4bit  # its arguments are those of __new__
    layer: Any = Linear4bit(
        weight.shape[1],
        weight.shape[0],
        bias=bias is not None,
        compute_dtype=compute,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    packed, state = quantize_4bit(weight.to(device).contiguous(), quant_type="nf4", compress_statistics=True)
    state.dtype = compute
    _share_tables(state)
    layer.weight = held(
        packed,
        requires_grad=False,
        quant_state=state,
        compress_statistics=True,
        quant_type="nf4",
        module=layer,
        bnb_quantized=True,
    )
    layer.quant_state = state
    if bias is not None:
        layer.bias = nn.Parameter(bias.to(device, compute, copy=True), requires_grad=False)
    keep_packing(layer)
    return layer


_SHARED: dict[tuple[torch.device, int], Tensor] = {}


def _share_tables(state: Any) -> None:
    """The two tables of values are the same for all layers of a device: one copy of each, instead of thousands."""
    state.code = _SHARED.setdefault((state.code.device, len(state.code)), state.code)
    nested = state.state2
    nested.code = _SHARED.setdefault((nested.code.device, len(nested.code)), nested.code)


def keep_packing(module: nn.Module) -> None:
    """Keeps 4-bit layers on a CPU as they are.

    Where a CPU multiplies bfloat16, bitsandbytes would pack weights anew in the first forward pass of an evaluation:
    they would then be neither trained through nor read back as what they stand for, and products be made in bfloat16.
    """
    layers: list[Any] = [layer for layer in module.modules() if hasattr(layer, "support_avx512bf16_for_cpu")]
    for layer in layers:
        layer.support_avx512bf16_for_cpu = False


# ── checks ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def held_bytes(tensor: Tensor) -> int:
    """Bytes of a parameter with its scales, without what 4-bit layers share."""
    own = tensor.numel() * tensor.element_size()
    state = getattr(tensor, "quant_state", None)
    if state is None:
        return own
    parts = [state.absmax]
    if state.nested:
        parts += [state.offset, state.state2.absmax]
    return own + sum(part.numel() * part.element_size() for part in parts)


def check_experts(model: nn.Module, *, name: str) -> None:
    """Sees to it that all experts' weights are in 4 bits, at about half a byte each.

    Raises:
        UserError: when experts are still fused, or a weight of theirs stayed whole.
    """
    fused = [key for key, parameter in model.named_parameters() if parameter.ndim > 2]
    if fused:
        raise UserError(
            f"network.quantisation=nf4: {name} holds experts fused into one tensor ({fused[0]}), which would stay "
            "whole. Set network.quantisation=none, or name a mixture that is known"
        )
    weights = [
        (key, layer.weight)
        for owner, experts in model.named_modules()
        if isinstance(experts, UnfusedExperts)
        for key, layer in experts.named_modules(prefix=owner)
        if isinstance(layer, nn.Linear)
    ]
    for key, weight in weights:
        state = getattr(weight, "quant_state", None)
        numbers = weight.numel() if state is None else state.shape.numel()
        share = held_bytes(weight) / numbers
        most = max(BYTES_A_WEIGHT[1], four_bit_bytes(numbers) / numbers)
        if not BYTES_A_WEIGHT[0] <= share <= most:
            raise UserError(
                f"network.quantisation=nf4: {key} of {name} takes {share:.2f} bytes a weight, where 4 bits with their "
                "scales take 0.52. Set network.quantisation=none, or report this model"
            )
