"""The schema asked about itself: which keys and kinds there are, and what a key may hold, in plain words."""

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo

from remask.config.schema import Recipe, Section


def alternatives(annotation: Any) -> list[Any]:
    """The plain types that an annotation admits, unions taken apart: `X | None` gives [X, NoneType]."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [leaf for part in get_args(annotation) for leaf in alternatives(part)]
    return [annotation]


def sections(field: FieldInfo) -> list[type[Section]]:
    """The kinds of section that a key may hold; empty for a key that holds one value."""
    leaves = alternatives(field.annotation)
    return [leaf for leaf in leaves if isinstance(leaf, type) and issubclass(leaf, Section)]


def kind_of(section: type[Section]) -> str | None:
    """What the section's key `kind` says, or None when there is only one sort of it."""
    field = section.model_fields.get("kind")
    return None if field is None else field.default


def kinds(field: FieldInfo) -> list[str]:
    """The values that `kind` may take in the section that a key holds."""
    return [kind for section in sections(field) if (kind := kind_of(section)) is not None]


def section_at(field: FieldInfo, value: Any) -> type[Section] | None:
    """The one section that `value` wants to be, by its `kind`; None when that cannot be told."""
    found = sections(field)
    if len(found) == 1:
        return found[0]
    kind = value.get("kind") if isinstance(value, Mapping) else None
    return next((section for section in found if kind_of(section) == kind), None)


def field_at(keys: Sequence[Any], data: Mapping[Any, Any]) -> FieldInfo | None:
    """The key at the end of a path, given the kinds in `data`; None when there is no such key."""
    section: type[Section] | None = Recipe
    field: FieldInfo | None = None
    value: Any = data
    for key in keys:
        field = None if section is None else section.model_fields.get(key)
        if field is None:
            return None
        value = value.get(key) if isinstance(value, Mapping) else None
        section = section_at(field, value)
    return field


def every_key(section: type[Section] = Recipe, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key that any kind of section has, each once a kind."""
    for name, field in section.model_fields.items():
        yield (*prefix, name)
        for inner in sections(field):
            yield from every_key(inner, (*prefix, name))


def valid_values(field: FieldInfo) -> str:
    """What a key may hold, e.g. `a number above 0 and below 1, or null`."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "valid" in extra:
        return str(extra["valid"])
    leaves = alternatives(field.annotation)
    if sections(field):
        names = kinds(field)
        words = ["a section of kind " + ", ".join(sorted(names)) if names else "a section"]
    else:
        words = [_words(leaf, field) for leaf in leaves if leaf is not types.NoneType]
    return " or ".join(words) + (", or null" if types.NoneType in leaves else "")


def _words(leaf: Any, field: FieldInfo) -> str:
    bounds = _bounds(field.metadata)
    if get_origin(leaf) is Literal:
        return ", ".join(str(value) for value in get_args(leaf))
    if get_origin(leaf) is tuple:
        items = get_args(leaf)
        if Ellipsis in items:
            names = get_args(items[0]) if get_origin(items[0]) is Literal else ()
            return f"a list, e.g. [{names[0]}], of {', '.join(names)}" if names else "a list of names, e.g. [a, b]"
        return f"a list of {len(items)} numbers, each{_bounds(_inner_metadata(items[0]))}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text, not empty"}
    if leaf is str and not field.is_required() and field.default == "":
        return "text"
    return names[leaf] + (bounds if leaf in (int, float) else "")


def _inner_metadata(annotation: Any) -> list[Any]:
    """The constraints inside `Annotated[float, Field(ge=0)]`."""
    found = get_args(annotation)[1:]
    return [item for part in found for item in (part.metadata if isinstance(part, FieldInfo) else [part])]


def _bounds(metadata: Sequence[Any]) -> str:
    phrases = []
    for item in metadata:
        match item:
            case annotated_types.Ge():
                phrases.append(f"at least {item.ge}")
            case annotated_types.Gt():
                phrases.append(f"above {item.gt}")
            case annotated_types.Le():
                phrases.append(f"at most {item.le}")
            case annotated_types.Lt():
                phrases.append(f"below {item.lt}")
    return " " + " and ".join(phrases) if phrases else ""
