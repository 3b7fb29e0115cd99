"""Experts of a pretrained mixture as layers of their own, and its router kept in full precision.

transformers (5.17 to 5.23 at least) holds all experts of a layer in two tensors of three dimensions. Those are no
linear layers: nothing that holds linear layers in 4 bits, or puts low-rank updates beside them, finds them.
`UnfusedExperts` takes the place of the library's module, is called as it is, and computes the same.

Shape letters: T tokens of all rows, D width, F hidden features of an expert, E experts, k experts a token.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
"""The linear layers of a gated expert, by the names that published checkpoints give them."""


class Expert(nn.Module):
    """x ↦ W_down (act(W_gate x) ⊙ W_up x), without biases.

    Args:
        width: D.
        hidden_width: F.
        activation: act.
        device: where the weights are made.
    """

    def __init__(
        self, width: int, hidden_width: int, *, activation: Callable[[Tensor], Tensor], device: torch.device
    ) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden_width, bias=False, device=device)
        self.up_proj = nn.Linear(width, hidden_width, bias=False, device=device)
        self.down_proj = nn.Linear(hidden_width, width, bias=False, device=device)
        self.activation = activation

    def forward(self, x: Float[Tensor, "T D"]) -> Float[Tensor, "T D"]:
        """One expert's answer to its tokens."""
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class UnfusedExperts(nn.ModuleList):
    """All experts of a layer, each with linear layers of its own; takes the place of the library's fused module.

    Tokens are sorted by expert, so that each expert runs once, and its answers are put back in the order of tokens:
    the sum over a token's experts has one order, on every device.
    """

    def forward(
        self,
        hidden_states: Float[Tensor, "T D"],
        top_k_index: Int[Tensor, "T k"],
        top_k_weights: Float[Tensor, "T k"],
    ) -> Float[Tensor, "T D"]:
        """The weighted sum of each token's k experts.

        Args:
            hidden_states: x.
            top_k_index: the experts of each token, in [0, E).
            top_k_weights: what each of them counts.
        """
        chosen = top_k_index.shape[1]
        order = top_k_index.flatten().argsort(stable=True)
        counts = top_k_index.flatten().bincount(minlength=len(self)).tolist()
        sorted_tokens = hidden_states[order // chosen].split(counts)
        answers = [expert(x) for expert, x in zip(self, sorted_tokens, strict=True) if len(x)]
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        found = torch.cat(answers)[back].unflatten(0, top_k_index.shape)
        return (found * top_k_weights[..., None].to(found.dtype)).sum(1)


def expert_width(experts: UnfusedExperts) -> int:
    """F, hidden features of each expert."""
    first = experts[0]
    assert isinstance(first, Expert)
    return first.gate_proj.out_features


class InFloat32(nn.Module):
    """A router or a gate whose products are made in float32, also where autocast would halve them.

    Which experts a token goes to hangs on differences that float16 rounds away.

    Args:
        inner: its weights are float32.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden_states: Tensor) -> Any:
        """What the inner module gives for float32 inputs."""
        with torch.autocast(hidden_states.device.type, enabled=False):
            return self.inner(hidden_states.float())


def unfuse(fused: nn.Module, *, device: torch.device) -> UnfusedExperts:
    """Experts of the same sizes as the library's fused ones, with weights still to be put in.

    Args:
        fused: holds `gate_up_proj` [E 2F D] and `down_proj` [E D F] and nothing else.
        device: where the empty weights are made.

    Raises:
        ValueError: when it holds other tensors, or of other shapes.
    """
    shapes = {name: tuple(p.shape) for name, p in fused.named_parameters()}
    if shapes.keys() != {"gate_up_proj", "down_proj"} or len(shapes["down_proj"]) != 3:
        raise ValueError(f"experts of a layout that is not known: {shapes}")
    number, width, hidden = shapes["down_proj"]
    if shapes["gate_up_proj"] != (number, 2 * hidden, width):
        raise ValueError(f"experts of a layout that is not known: {shapes}")
    activation: Any = fused.act_fn
    return UnfusedExperts(Expert(width, hidden, activation=activation, device=device) for _ in range(number))
