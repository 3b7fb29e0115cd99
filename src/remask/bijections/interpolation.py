r"""Between two texts: a path between the noises that make them.

Noise u of one token is uniform on [0, 1), so Φ⁻¹(u) is a standard normal number (Φ: the normal distribution function).
Between two such vectors z_0, z_1 of a text's L tokens the path runs on a sphere (Shoemake, Animating rotation with
quaternion curves, 1985; White, arXiv:1609.04468):

    z_s = (sin((1 − s)Ω) z_0 + sin(sΩ) z_1) / sin Ω,     cos Ω = z_0·z_1 / (|z_0| |z_1|),     u_s = Φ(z_s).       (1)

Two independent noises have Ω near 90°, and z_s is standard normal again but for terms of order 1/L, so u_s is noise as
the sampler draws it. A straight line between u_0 and u_1 is not: midway it has the variance ½ of uniform noise, and the
sampler is handed too many middling numbers.

Shape letters: L length, N texts of the path, M texts beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from remask.bijections.coding import Coder, draw_noise
from remask.bijections.rows import TokenRows
from remask.generation import TEXTS_AT_ONCE

SMALLEST = 2.0**-54
"""Noise is kept so far from 0 and 1 on the path, where Φ⁻¹ is infinite; the ends are taken as they are."""


def spherical(
    first: Float[Tensor, "L"], last: Float[Tensor, "L"], shares: Sequence[float]
) -> Float[Tensor, "{len(shares)} L"]:
    """Equation (1) at each share s of the way; at 0 and 1 the given noises themselves, to the last bit.

    Args:
        first: u_0, float64 in [0, 1).
        last: u_1, likewise.
        shares: s, each in [0, 1].
    """
    z = torch.special.ndtri(torch.stack([first, last]).clamp(SMALLEST, 1 - 2.0**-53))
    angle = torch.nn.functional.cosine_similarity(z[0], z[1], dim=0).clamp(-1, 1).arccos()
    points = []
    for s in shares:
        if s in (0.0, 1.0):
            points.append(last if s else first)
            continue
        weights = torch.tensor([1 - s, s], dtype=z.dtype)
        if angle.sin() > 1e-6:  # else (1) tends to a straight line: one noise twice, or its opposite
            weights = (weights * angle).sin() / angle.sin()
        points.append(torch.special.ndtr(weights @ z).clamp_max(1 - 2.0**-53))
    return torch.stack(points)


@dataclass(frozen=True, kw_only=True, eq=False)
class Path:
    """Texts on the way from one to another.

    Attributes:
        shares: how far each has come, from 0 to 1.
        ids: their tokens [N L].
        nats: −log P of each token under the sampler [N L].
        strangers: texts of fresh noise, which know neither end [M L].
    """

    shares: list[float]
    ids: Int[Tensor, "N L"]
    nats: Float[Tensor, "N L"]
    strangers: Int[Tensor, "M L"]


def interpolate(coder: Coder, ends: TokenRows, *, count: int, seed: int) -> Path:
    """Decodes `count` noises on the path between those of two rows, ends included.

    The ends are decoded in the batch in which they were encoded, so that rounding cannot change them.

    Args:
        coder: the bijection.
        ends: two rows of one length, every token free.
        count: texts, at least 2.
        seed: keys the noise within the ends' intervals, and that of the strangers.
    """
    found = coder.encode(ends, within=draw_noise(ends, seed, "within"))
    back = coder.decode(ends, found.noise)
    shares = [place / (count - 1) for place in range(count)]
    between = ends.taken([0]).repeated(count)
    middle = coder.decode(between, spherical(found.noise[0], found.noise[1], shares))
    beside = ends.taken([0]).repeated(TEXTS_AT_ONCE)
    strangers = coder.decode(beside, draw_noise(beside, seed, "strangers"))
    ids, nats = middle.ids.clone(), middle.nats.clone()
    for place, end in ((0, 0), (-1, 1)):
        ids[place], nats[place] = back.ids[end], back.nats[end]
    return Path(shares=shares, ids=ids, nats=nats, strangers=strangers.ids)
