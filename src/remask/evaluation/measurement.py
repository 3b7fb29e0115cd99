"""A measured number, never without its unit, its error and the values that trivial predictors get."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure of an evaluation.

    Attributes:
        name: what was measured, e.g. `bits_per_byte`.
        value: the figure, in `unit`.
        unit: e.g. `bits/byte`, `nats/token`, `share`.
        n: the number of independent examples behind the figure (rows, samples).
        stderr: the standard error of `value` in the same unit, or None where it has none.
        trivial: what named trivial predictors get for the same figure, in the same unit.
        protocol: everything that decides whether two figures may stand in one column.
    """

    name: str
    value: float
    unit: str
    n: int
    stderr: float | None
    trivial: Mapping[str, float] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The figure as plain JSON values; a non-finite number becomes None."""
        record = asdict(self)
        record["trivial"] = {name: _finite(value) for name, value in self.trivial.items()}
        return record | {"value": _finite(self.value), "stderr": _finite(self.stderr)}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
