r"""How much of a text its concept vectors carry: the geometry of what varies between inputs.

With X the vectors of R texts, the part that every text shares is taken off slot by slot,

    Y_rc = X_rc − (1/R) Σ_r' X_r'c,                                                                           (1)

because C orthogonal slots that never change say nothing, though a rank of one text's [C D] matrix calls them perfect.
Of Y as a matrix [R, C·D] with squared singular values λ_k, in the order of size,

    effective rank        exp(−Σ_k p_k log p_k),  p_k = √λ_k / Σ_j √λ_j                                       (2)
    participation ratio   (Σ_k λ_k)² / Σ_k λ_k²                                                               (3)
    share η               Σ |Y|² / Σ |X|²: of the vectors' mean square, what depends on the input              (4)

(the first: Roy and Vetterli, The effective rank, EUSIPCO 2007, equations 2 to 4). Between slots c ≠ c' the cosine is
Σ_r Y_rc·Y_rc' / √(Σ_r |Y_rc|² Σ_r |Y_rc'|²). No rank is above R − 1, so each figure stands beside that of independent
noise of the same shape.

Shape letters: R texts, C concepts, D features a concept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from remask.evaluation.measurement import Measurement
from remask.randomness import keyed_generator

ROWS_FOR_RANK = 4
"""Of fewer rows independent noise has an effective rank of 2 or less."""
NEGLIGIBLE = 1e-6
"""A direction or slot counts as constant where it varies by less than this share of the vectors' mean square."""
_CONSTANT, _NOISE = "constant slots", "independent noise"


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The figures of one set of concept vectors.

    Attributes:
        effective_rank: (2), of whole codes; 0 where nothing varies.
        participation_ratio: (3).
        effective_rank_pooled: (2), of the mean over slots.
        participation_ratio_pooled: (3), of the mean over slots.
        input_share: (4), in [0, 1].
        slot_cosine_mean: mean |cosine| over pairs of slots, in [0, 1]; a slot that does not vary counts as a copy of
            every other. None for a single slot.
        slot_cosine_max: the largest.
    """

    effective_rank: float
    participation_ratio: float
    effective_rank_pooled: float
    participation_ratio_pooled: float
    input_share: float
    slot_cosine_mean: float | None
    slot_cosine_max: float | None


def geometry(vectors: Float[Tensor, "R C D"]) -> Geometry:
    """The figures of R texts' concept vectors.

    Raises:
        ValueError: there are fewer than 2 texts, or no slot.
    """
    if len(vectors) < 2 or not vectors.shape[1]:
        raise ValueError(f"vectors of shape {list(vectors.shape)} were given: nothing can vary between them")
    wide = vectors.double()
    varying = wide - wide.mean(0)
    total = float(wide.square().sum())
    spectrum = varying_spectrum(varying, total=total)
    pooled = wide.mean(1, keepdim=True)
    own = varying_spectrum(pooled - pooled.mean(0), total=float(pooled.square().sum()))
    cosines = slot_cosines(varying, wide)
    return Geometry(
        effective_rank=effective_rank(spectrum),
        participation_ratio=participation_ratio(spectrum),
        effective_rank_pooled=effective_rank(own),
        participation_ratio_pooled=participation_ratio(own),
        input_share=float(varying.square().sum()) / total if total else 0.0,
        slot_cosine_mean=float(cosines.mean()) if len(cosines) else None,
        slot_cosine_max=float(cosines.max()) if len(cosines) else None,
    )


def varying_spectrum(varying: Float[Tensor, "R C D"], *, total: float) -> Float[Tensor, "K"]:
    """λ_k: squared singular values of the [R, C·D] matrix, those that are negligible against `total` left out.

    Args:
        varying: Y of (1).
        total: the sum of squares before anything was taken off.
    """
    gram = torch.einsum("rcd,scd->rs", varying, varying)
    found = torch.linalg.eigvalsh(gram)
    return found[found > NEGLIGIBLE * total]


def effective_rank(spectrum: Float[Tensor, "K"]) -> float:
    """(2) of squared singular values; 0 without any."""
    if not len(spectrum):
        return 0.0
    p = spectrum.sqrt() / spectrum.sqrt().sum()
    return float((-(p * p.log()).sum()).exp())


def participation_ratio(spectrum: Float[Tensor, "K"]) -> float:
    """(3) of squared singular values; 0 without any."""
    return float(spectrum.sum().square() / spectrum.square().sum()) if len(spectrum) else 0.0


def slot_cosines(varying: Float[Tensor, "R C D"], vectors: Float[Tensor, "R C D"]) -> Float[Tensor, "P"]:
    """|cosine| of each pair of slots over all texts; 1 where one of them does not vary.

    Args:
        varying: Y of (1).
        vectors: X, against whose mean square a slot's variation is negligible.
    """
    products = torch.einsum("rcd,red->ce", varying, varying)
    size = products.diagonal()
    dead = size <= NEGLIGIBLE * vectors.square().sum((0, 2))
    cosines = products.abs() / size.sqrt().outer(size.sqrt()).clamp_min(torch.finfo(size.dtype).tiny)
    cosines = cosines.masked_fill(dead[:, None] | dead, 1.0).clamp_max(1.0)
    first, second = torch.triu_indices(*cosines.shape, offset=1, device=cosines.device).unbind(0)
    return cosines[first, second]


_UNITS = {
    "effective_rank": "dimensions",
    "participation_ratio": "dimensions",
    "effective_rank_pooled": "dimensions",
    "participation_ratio_pooled": "dimensions",
    "input_share": "share",
    "slot_cosine_mean": "|cosine|",
    "slot_cosine_max": "|cosine|",
}
_WORST = {"share": 0.0, "dimensions": 0.0, "|cosine|": 1.0}


def geometry_measurements(
    vectors: Float[Tensor, "R C D"], *, protocol: Mapping[str, Any], seed: int
) -> list[Measurement]:
    """The figures of (2) to (4) and of the cosines, beside constant slots and independent noise of the same shape.

    Args:
        vectors: of R texts.
        protocol: split, rows, and what was read.
        seed: of the noise.

    Raises:
        ValueError: as `geometry`.
    """
    generator = keyed_generator(seed, "independent noise")
    noise = torch.randn(vectors.shape, generator=generator, dtype=torch.float32, device="cpu")
    own, beside = geometry(vectors), geometry(noise)
    return [
        Measurement(
            name=name,
            value=value,
            unit=unit,
            n=len(vectors),
            stderr=None,
            trivial={_CONSTANT: _WORST[unit], _NOISE: getattr(beside, name)},
            protocol=dict(protocol),
        )
        for name, unit in _UNITS.items()
        if (value := getattr(own, name)) is not None
    ]


def is_of_concepts(measurement: Measurement) -> bool:
    """Whether a figure belongs to the concepts task, by its name."""
    return measurement.name in {*_UNITS, "shuffle_gap", "none_gap", "slot_gap", "nats_at_kept", "recovered_share"}


def geometry_warnings(measurements: Sequence[Measurement]) -> list[str]:
    """Sentences on concepts that hardly depend on what was read."""
    found = {m.name: m for m in measurements if m.name in _UNITS}
    if "input_share" not in found:
        return []
    share, rank = found["input_share"].value, found["effective_rank"].value
    reachable = found["effective_rank"].trivial[_NOISE]  # of few rows, or of few features, nothing has more
    said = []
    if share < LEAST_SHARE:
        said.append(
            f"THE CONCEPTS HARDLY DEPEND ON THE TEXT: {share:.2%} of their mean square varies between texts, and a "
            "rank of so little is that of noise."
        )
    if rank < LEAST_RANK <= reachable:
        said.append(f"THE CONCEPTS HAVE COLLAPSED: all texts lie within {rank:.1f} directions.")
    return said


LEAST_SHARE, LEAST_RANK = 0.01, 2.0
"""What a code is said to lack that has less."""
