"""The parameters that one token uses."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from remask.model import weights_in
from remask.networks.experts import Experts


def active_parameters(network: nn.Module) -> int:
    """The parameters that one token uses: all of them, but for those of the experts that are not chosen.

    Args:
        network: of remask, or around a pretrained model that says how many experts it has and uses.
    """
    total = sum(weights_in(parameter) for parameter in network.parameters())
    ours = [part for part in network.modules() if isinstance(part, Experts)]
    if ours:
        return total - sum(parameter.numel() for part in ours for parameter in part.unused())
    chosen, number = _pretrained_experts(network)
    inside = sum(weights_in(p) for name, p in network.named_parameters() if ".experts." in name)
    return total - inside * (number - chosen) // number


def _pretrained_experts(network: nn.Module) -> tuple[int, int]:
    """How many experts a token uses in a pretrained model, and of how many; 1 of 1 where there are none."""
    backbones = [getattr(module, "backbone", None) for module in network.modules()]
    config: Any = next((backbone.config for backbone in backbones if backbone is not None), None)
    known: Mapping[str, Any] = vars(config) if config is not None else {}
    number = next(
        (known[key] for key in ("num_experts", "num_local_experts", "n_routed_experts") if key in known), None
    )
    return (int(known["num_experts_per_tok"]), int(number)) if number and "num_experts_per_tok" in known else (1, 1)
