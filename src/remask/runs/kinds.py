"""Whether what a file holds are values of the kinds that a record's fields have."""

from dataclasses import fields
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LARGEST = 1 << 63  # whole numbers below it fit into a column of the registry


def check_kinds(record: "DataclassInstance") -> None:
    """Refuses a record of an edited or damaged file, which would keep all others from being read.

    Raises:
        TypeError: a field holds a value of another kind than its annotation says.
    """
    for field in fields(record):
        value = getattr(record, field.name)
        if not _fits(value, field.type):
            raise TypeError(f"{field.name} is {value!r:.60}, which is no {field.type}")


def _fits(value: Any, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_fits(value, each) for each in arguments)
    if origin is Literal:
        return value in arguments
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST
    if kind is float:
        return isinstance(value, float) or _fits(value, int)
    return isinstance(value, kind)
