"""A measured number, never without its unit, its error and the values that trivial predictors get."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DIFFERENCE = "_difference"
"""How the name of a figure ends that is another's distance, on the same examples, from what stands beside it."""
NEGLIGIBLE = 0.005
"""Nats a token: a gap whose interval does not reach beyond is no use of anything, however sure its sign is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """What each example adds to a figure, so that two models measured on the same ones can be compared in pairs.

    Attributes:
        identity: which examples, in which order, see `identity_of`: two figures whose identities are equal were
            measured on the same examples, whatever the models, and may be paired.
        values: one a example [n]; of a ratio of sums its numerators, in the figure's unit times that of the weights.
        weights: the denominators of a ratio of sums [n] (Cochran, Sampling Techniques, equation 6.13); None where
            the figure is the mean of the values.
    """

    identity: str
    values: Sequence[float]
    weights: Sequence[float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The examples as plain JSON values; a non-finite number becomes None."""
        weights = None if self.weights is None else [_finite(float(value)) for value in self.weights]
        return {
            "identity": self.identity,
            "values": [_finite(float(value)) for value in self.values],
            "weights": weights,
        }


def identity_of(*facts: Any) -> str:
    """A hash of everything that decides which examples were measured, and in which order.

    Args:
        facts: JSON values: the text's fingerprint, its split, the rows and their length, the tokenizer; or prompts.
    """
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure of an evaluation.

    Attributes:
        name: what was measured, e.g. `bits_per_byte`.
        value: the figure, in `unit`.
        unit: e.g. `bits/byte`, `nats/token`, `share`.
        n: the number of examples behind the figure (rows, samples, pairs); `errors_over` says which of them depend.
        stderr: the standard error of `value` in the same unit, or None where it has none.
        trivial: what named trivial predictors get for the same figure, in the same unit.
        protocol: everything that decides whether two figures may stand in one column.
        examples: the figure example by example, for comparisons in pairs; None where models share no examples.
    """

    name: str
    value: float
    unit: str
    n: int
    stderr: float | None
    trivial: Mapping[str, float] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    examples: Examples | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The figure as plain JSON values, its examples left out; a non-finite number becomes None."""
        return {
            "name": self.name,
            "value": _finite(self.value),
            "unit": self.unit,
            "n": self.n,
            "stderr": _finite(self.stderr),
            "trivial": {name: _finite(value) for name, value in self.trivial.items()},
            "protocol": dict(self.protocol),
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
