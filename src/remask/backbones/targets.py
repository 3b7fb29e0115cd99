"""Which linear layers of a pretrained model get low-rank updates."""

from collections.abc import Sequence

from torch import nn

from remask.backbones.layouts import routed_layers
from remask.errors import UserError, did_you_mean
from remask.networks.pretrained import Backbone


def adapted_layers(backbone: nn.Module, targets: Sequence[str] | None) -> list[str]:
    """The full names of the layers that get low-rank updates.

    Args:
        backbone: the library's model.
        targets: names of layers (`q_proj`) or of what they are part of (`self_attn`, `shared_expert`); those of experts
            that a router chooses from are meant by names with `experts` alone (`experts`, `experts.down_proj`). None:
            every linear layer but the vocabulary projection, gates of one output and routed experts.

    Raises:
        UserError: when a target names no layer.
    """
    layers = linear_layers(backbone)
    routed = routed_layers(backbone)
    if targets is None:
        return sorted(name for name, (_, outputs) in layers.items() if name not in routed and outputs > 1)
    chosen: set[str] = set()
    for target in targets:
        within = {name for name in layers if f".{target}." in f".{_unnumbered(name)}." or f".{target}." in f".{name}."}
        if "experts" not in target.split("."):
            within -= routed
        if not within:
            valid = {name.rpartition(".")[2] for name in layers.keys() - routed} | ({"experts"} if routed else set())
            raise UserError(f"network.lora_targets: no linear layer is named {target}; {did_you_mean(target, valid)}")
        chosen |= within
    return sorted(chosen)


def _unnumbered(name: str) -> str:
    """A layer's name without the numbers of the lists it is in."""
    return ".".join(part for part in name.split(".") if not part.isdecimal())


def linear_layers(backbone: nn.Module) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each linear layer by its name, the vocabulary projection left out."""
    from transformers.pytorch_utils import Conv1D

    assert isinstance(backbone, Backbone)
    head = backbone.get_output_embeddings()
    modules = backbone.named_modules()
    linear = {name: m for name, m in modules if isinstance(m, nn.Linear | Conv1D) and m is not head}
    return {
        name: (m.nx, m.nf) if isinstance(m, Conv1D) else (m.in_features, m.out_features) for name, m in linear.items()
    }
