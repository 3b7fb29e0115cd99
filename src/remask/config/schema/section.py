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


Whole = Annotated[int, BeforeValidator(whole)]
Share = Annotated[float, Field(ge=0, lt=1)]
