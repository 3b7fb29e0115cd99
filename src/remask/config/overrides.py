"""Changes to a recipe from the command line: `training.steps=60`, `process=null`, `tokenizer.kind=byte`."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic.fields import FieldInfo

from remask.config.keys import alternatives, field_at, kind_of, section_at, sections, valid_values
from remask.config.yaml_text import parse_yaml

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_KEYS = re.compile(r"^[^\s.=]+(\.[^\s.=]+)*$")


def apply_overrides(data: dict[Any, Any], overrides: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Changes `data` in place, one `a.b=c` after the other; the last one to name a key wins.

    Args:
        data: the recipe as plain YAML values.
        overrides: `key=value` texts; a value is YAML, except where the schema wants text: there it stands
            for itself, unless it is quoted or null.

    Returns:
        One line for each override that cannot be read, and the paths that were set. A path that the schema
        does not know is set all the same: validation names it.
    """
    problems: list[str] = []
    given: list[tuple[str, ...]] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not _KEYS.match(key.strip()):
            problems.append(f"'{text}' given; valid: key=value, e.g. training.steps=100")
            continue
        keys = tuple(key.strip().split("."))
        try:
            _set(data, keys, value.strip(), given)
        except ValueError as error:
            problems.append(str(error))
        given.append(keys)
    return problems, given


def _set(data: dict[Any, Any], keys: tuple[str, ...], text: str, given: list[tuple[str, ...]]) -> None:
    value = _read(data, keys, text)
    holder: Any = data
    for depth in range(1, len(keys)):
        path = keys[:depth]
        _require_section(path, keys, field_at(path, data), text)
        if not isinstance(holder, dict):
            return  # a section that is no mapping: validation says so
        if path[-1] not in holder:
            holder[path[-1]] = _default_kind(field_at(path, data))
        elif holder[path[-1]] is None:
            holder[path[-1]] = {}
        holder = holder[path[-1]]
    if not isinstance(holder, dict):
        return
    holder[keys[-1]] = value
    if keys[-1] == "kind" and len(keys) > 1:
        _drop_what_no_longer_fits(data, holder, keys[:-1], given)


def _read(data: dict[Any, Any], keys: tuple[str, ...], text: str) -> Any:
    """The value that `text` stands for at that key."""
    field = field_at(keys, data)
    if field is not None and str in alternatives(field.annotation) and text[:1] not in ('"', "'"):
        return None if text in _NULLS else text
    try:
        return parse_yaml(text)
    except ValueError as error:
        key = ".".join(keys)
        valid = f"; valid: {valid_values(field)}" if field is not None else ""
        raise ValueError(f"{key}: '{text}' given, which is not YAML: {error}{valid}") from None


def _require_section(path: tuple[str, ...], keys: tuple[str, ...], field: FieldInfo | None, text: str) -> None:
    if field is not None and not sections(field):
        name, valid = ".".join(path), valid_values(field)
        raise ValueError(f"{'.'.join(keys)}: {name} has no keys below it; give {name}={text} (valid: {valid})")


def _default_kind(field: FieldInfo | None) -> dict[str, Any]:
    """What stands for a section that the recipe leaves out: its default kind, so that its keys can be set."""
    kind = getattr(field.default, "kind", None) if field is not None else None
    return {} if kind is None else {"kind": kind}


def _drop_what_no_longer_fits(
    data: dict[Any, Any], holder: dict[Any, Any], path: tuple[str, ...], given: list[tuple[str, ...]]
) -> None:
    """After a change of kind, the old kind's keys go; those that were given on the command line stay."""
    field = field_at(path, data)
    section = None if field is None else section_at(field, holder)
    if section is None or kind_of(section) != holder["kind"]:
        return  # an unknown kind: validation lists the valid ones
    for key in list(holder):
        if key not in section.model_fields and not any(keys[: len(path) + 1] == (*path, key) for keys in given):
            del holder[key]
