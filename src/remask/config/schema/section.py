"""What every part of a recipe is made of."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """A part of a recipe: immutable, no unknown keys, no silent conversion, only finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def whole(value: Any) -> Any:
    """Lets 1e3 stand for 1000 where a whole number is wanted, and keeps it within 64 bits."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("which does not fit 64 bits")
    return value


def as_tuple(value: Any) -> Any:
    """YAML has lists only; a frozen recipe holds tuples."""
    return tuple(value) if isinstance(value, list) else value


def gated_width(width: int) -> int:
    """Hidden features of a gated MLP beside a stream of `width`: 8/3 of it, rounded to 32, at least 32.

    Its three matrices have as many weights then as the two of a plain MLP of four widths (arXiv:2002.05202, section 2).
    """
    return max(32, 32 * round(8 * width / 3 / 32))


Whole = Annotated[int, BeforeValidator(whole)]
Share = Annotated[float, Field(ge=0, lt=1)]
