"""The MLPs of blocks, from a recipe: one for every token, or several experts of which a token uses a few."""

from collections.abc import Callable
from functools import partial

from torch import nn

from remask.config import schema
from remask.networks.blocks import GatedMLP
from remask.networks.experts import Experts

BALANCE_RATE = 1e-2
"""Of experts. The 1e-3 of arXiv:2408.15664, section 4.3, is for learning rates of 1e-3 and less: at five times that and
with Muon the router leaves experts without a token in the first steps, faster than 1e-3 can bring them back."""


def gated_mlp(spec: schema.SizesSpec) -> tuple[Callable[[int, int], nn.Module], int]:
    """(width, hidden features) → an MLP, and the hidden features of one."""
    if spec.experts is None:
        return GatedMLP, spec.hidden_width
    chosen, rate = spec.active_experts, BALANCE_RATE if spec.balance_rate is None else spec.balance_rate
    mlp = partial(Experts, experts=spec.experts, per_token=chosen, balance_rate=rate)
    return mlp, spec.expert_width or spec.hidden_width // chosen
