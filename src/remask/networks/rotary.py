"""Rotary positions (arXiv:2104.09864): queries and keys turned by their places, so that products see distances only.

Shape letters: B batch, L length, H heads, E head width, F = E/2 pairs.
"""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

TOP_FREQUENCY, BASE = 2.0, 10_000.0
"""Rotary frequencies, in radians a position: from the first down to it over the second."""


def rotary_frequencies(head_width: int, *, device: torch.device) -> Float[Tensor, "F"]:
    """Radians a position of each rotary pair, F = head width / 2."""
    half = head_width // 2
    return TOP_FREQUENCY * BASE ** (-torch.arange(half, device=device, dtype=torch.float32) / half)


def rotary(length: int, head_width: int, *, device: torch.device) -> Complex[Tensor, "L F"]:
    """Unit complex numbers of angle position × frequency."""
    angles = torch.arange(length, device=device)[:, None] * rotary_frequencies(head_width, device=device)
    return torch.polar(torch.ones_like(angles), angles)


def rotate(x: Float[Tensor, "B L H E"], rotation: Complex[Tensor, "L F"]) -> Float[Tensor, "B L H E"]:
    """Turns each pair (x_2f, x_2f+1) by its angle, so that products of queries and keys see distances only."""
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation.to(pairs.dtype)[:, None]).flatten(-2)
