"""Changes to the predicted distribution before a draw: temperature and nucleus.

Shape letters: M positions, V vocabulary.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from remask.randomness import widest_float


def identity(logits: Float[Tensor, "M V"]) -> Float[Tensor, "M V"]:
    """The distribution as the network gives it."""
    return logits


def reshape_distribution(
    *, temperature: float = 1.0, top_p: float = 1.0
) -> Callable[[Float[Tensor, "M V"]], Float[Tensor, "M V"]]:
    """Divides logits by `temperature`, then keeps the smallest set of tokens that holds a share `top_p`.

    A sampler with a transform draws from another distribution than the model's: no likelihood belongs to it.

    Args:
        temperature: above 0; below 1 sharpens.
        top_p: in (0, 1]; 1 keeps all (nucleus sampling, arXiv:1904.09751).

    Raises:
        ValueError: when either is out of range.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"temperature: {temperature} was given; it must be a number above 0 (1 leaves the model as it is)"
        )
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: {top_p} was given; it must lie above 0 and not above 1 (1 keeps every token)")
    if temperature == 1 and top_p == 1:
        return identity
    return lambda logits: _nucleus(logits / temperature, top_p)


def _nucleus(logits: Float[Tensor, "M V"], top_p: float) -> Float[Tensor, "M V"]:
    ordered, order = logits.sort(-1, descending=True)
    p = ordered.to(widest_float(ordered.device)).softmax(-1)
    # the mass before a token decides, so the most likely one always stays
    outside = p.cumsum(-1) - p >= top_p
    return logits.masked_fill(torch.zeros_like(outside).scatter(-1, order, outside), -torch.inf)
