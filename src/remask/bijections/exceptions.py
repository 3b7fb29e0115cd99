r"""What recovered noise is worth: the texts that do not come back from it, and how uniform it is.

Shape letters: N rows, L length, F free tokens of all rows, V vocabulary.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from remask.bijections.coding import Coded, Coder
from remask.bijections.rows import TokenRows


@dataclass(frozen=True, kw_only=True)
class Uniformity:
    """Kolmogorov and Smirnov's test of some numbers against the uniform distribution on [0, 1).

    Attributes:
        statistic: the largest distance between the two distribution functions, 0 to 1.
        p: the chance of a distance at least so large, were the numbers uniform and independent.
        n: how many numbers.
    """

    statistic: float
    p: float
    n: int


def uniformity(numbers: Float[Tensor, "F"]) -> Uniformity:
    """Tests whether some numbers look uniform on [0, 1)."""
    from scipy.stats import kstest

    found = kstest(numbers.double().numpy(), "uniform")
    return Uniformity(statistic=float(found.statistic), p=float(found.pvalue), n=len(numbers))


def noise_of_uniform_predictor(
    ids: Int[Tensor, "F"], within: Float[Tensor, "F"], *, vocab_size: int, mask_id: int
) -> Float[Tensor, "F"]:
    """The noise that a predictor of equal probabilities finds behind some tokens, u = (rank of x + w) / (V − 1).

    Args:
        ids: tokens, none of them the mask.
        within: w, in [0, 1).
        vocab_size: V, the mask among them.
        mask_id: the mask.
    """
    return ((ids - (ids > mask_id).long()).double() + within) / (vocab_size - 1)


def in_float32(coded: Coded) -> Float[Tensor, "N L"]:
    """Noise as float32 keeps it: the nearest number of 32 bits, or the one beside it within the token's interval.

    An interval so narrow (p below about 6e-8) that no such number lies in it is lost, and with it the token.

    Returns:
        The numbers of 32 bits, as float64.
    """
    width = (-coded.nats).double().exp()
    low = coded.noise - coded.within * width
    near = coded.noise.float()
    up, down = torch.nextafter(near, torch.ones_like(near)), torch.nextafter(near, -torch.ones_like(near))
    inside = torch.where(near.double() < low, up, torch.where(near.double() >= low + width, down, near))
    return inside.double().clamp(0, 1 - 2.0**-24)


def differing(coder: Coder, rows: TokenRows, noise: Float[Tensor, "N L"]) -> Int[Tensor, "N"]:
    """How many free tokens of each row decoding some noise does not give back: 0 where the text returns."""
    return rows.differing(coder.decode(rows, noise).ids)
