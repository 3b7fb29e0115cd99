r"""The quantile coupling layer: a token and a place within its share of [0, 1), as one uniform number, and back.

With p the predicted distribution of a token and C(x) = Σ_{y < x} p(y) the sum before x,

    u = C(x) + w · p(x),        w in [0, 1),                                                                  (1)

maps (x, w) one-to-one onto [0, 1): the shares [C(x), C(x) + p(x)) lie side by side. At fixed x it is linear in w, and
log|du/dw| = log p(x). A uniform u gives x the law p and w a uniform law of its own; the inverse is the quantile
function of p, so drawing by it is drawing from p (the discrete case of a coupling by quantiles).

All of it is float64, on the CPU where the device has none: in float32 a share narrower than 6e-8 holds no number.

Shape letters: M places, V vocabulary.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from remask.randomness import NUMBERS_AT_ONCE, widest_float

BELOW_ONE = 1.0 - 2.0**-53
"""The largest float64 below 1."""


def exact_device(device: torch.device | str) -> torch.device:
    """Where numbers of a device are held in float64: there, or on the CPU."""
    return torch.device(device) if widest_float(device) == torch.float64 else torch.device("cpu")


def exact(values: Tensor) -> Tensor:
    """The values in float64, moved to where that exists."""
    return values.to(exact_device(values.device)).to(torch.float64)


def draw(p: Float[Tensor, "M V"], u: Float[Tensor, "M"]) -> tuple[Int[Tensor, "M"], Float[Tensor, "M"]]:
    """The inverse of (1): the token in whose share each number lies, and where in it.

    Args:
        p: probabilities, float64; scaled to sum to 1.
        u: numbers in [0, 1), float64; 1 itself, which rounding may give, counts as the one below it.

    Returns:
        x, int64, and w in [0, 1).
    """
    found = [_draw(part, at) for part, at in zip(*_parts(p, u), strict=True)]
    return torch.cat([x for x, _ in found]), torch.cat([w for _, w in found])


def place(p: Float[Tensor, "M V"], x: Int[Tensor, "M"], w: Float[Tensor, "M"]) -> Float[Tensor, "M"]:
    """Equation (1), rounded to a number within the share of x, so that `draw` gives x back.

    Args:
        p: probabilities, float64; scaled to sum to 1.
        x: tokens.
        w: places within their shares, in [0, 1), float64.

    Returns:
        u in [0, 1). A token whose share holds no float64 (a probability below about 1e-16) has the share's edge,
        from which `draw` gives another token.
    """
    parts = zip(*_parts(p, x, w), strict=True)
    return torch.cat([_place(part, token, within) for part, token, within in parts])


def _parts(p: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """As many rows at once as memory should hold cumulative sums of."""
    rows = max(1, NUMBERS_AT_ONCE // p.shape[-1])
    return [each.split(rows) for each in (p, *others)]


def _draw(p: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    ends, u = _ends(p), u.clamp_max(BELOW_ONE)
    # right=True: the first share that ends beyond u, so a share of no width is never taken
    x = torch.searchsorted(ends, u[:, None], right=True).squeeze(-1)
    start, end = _share(ends, x)
    return x, ((u - start) / (end - start)).clamp(0.0, BELOW_ONE)


def _place(p: Tensor, x: Tensor, w: Tensor) -> Tensor:
    start, end = _share(_ends(p), x)
    last = torch.nextafter(end, torch.zeros_like(end))
    return torch.minimum(start + w * (end - start), last).maximum(start).clamp_max(BELOW_ONE)


def _ends(p: Float[Tensor, "M V"]) -> Float[Tensor, "M V"]:
    """C(x) + p(x) of every token; exactly 1 at the last and from the last positive one on."""
    cumulative = p.cumsum(-1)
    return cumulative / cumulative[:, -1:]


def _share(ends: Float[Tensor, "M V"], x: Int[Tensor, "M"]) -> tuple[Float[Tensor, "M"], Float[Tensor, "M"]]:
    end = ends.gather(-1, x[:, None]).squeeze(-1)
    before = ends.gather(-1, (x - 1).clamp_min(0)[:, None]).squeeze(-1)
    return torch.where(x > 0, before, 0.0), end
