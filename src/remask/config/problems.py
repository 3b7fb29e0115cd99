"""What is wrong with a recipe, in plain words: one line for each problem, all of them at once."""

import copy
import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from remask.config.contradictions import contradictions
from remask.config.keys import every_key, field_at, kind_of, kinds, section_at, sections, valid_values
from remask.config.schema import Recipe, Section
from remask.errors import did_you_mean

_UNKNOWN_KEY = ("extra_forbidden", "invalid_key")
_NOT_A_SECTION = ("model_type", "model_attributes_type", "dict_type")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        keys: the path of the key that the line is about.
        blames: the paths of keys whose values cannot be trusted because of it.
        message: one line: what was given, what is valid, what to do.
    """

    keys: tuple[Any, ...]
    blames: tuple[tuple[Any, ...], ...]
    message: str


def validate(data: Mapping[Any, Any]) -> tuple[Recipe | None, list[Problem]]:
    """The recipe that `data` stands for, or everything that is wrong with it.

    Keys that are wrong are reported first, then those that do not go together; a contradiction that rests on
    a wrong key is left out, for it may go away with it.
    """
    try:
        recipe = Recipe.model_validate(data)
        found: list[Problem] = []
    except ValidationError as error:
        found = _in_keys(error, data)
        recipe = _with_defaults_for(found, data)
    clashes = [] if recipe is None else _between_keys(recipe, found)
    problems = found + clashes
    return (None if problems else recipe), problems


def shown(value: Any) -> str:
    """A value as the user would write it, cut at 60 characters."""
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def dotted(keys: Iterable[Any]) -> str:
    """A path as the user writes it; a key that is no plain word is quoted."""
    return ".".join(key if isinstance(key, str) and re.fullmatch(r"[\w-]+", key) else shown(key) for key in keys)


def _in_keys(error: ValidationError, data: Mapping[Any, Any]) -> list[Problem]:
    found: dict[tuple[Any, ...], Problem] = {}
    for details in error.errors(include_url=False):
        for problem in _explain(details, data):
            found.setdefault(problem.keys, problem)
    return list(found.values())


def _path(location: tuple[int | str, ...], data: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Pydantic's location without the kinds that it names on the way and without places in a list."""
    keys: list[Any] = []
    section: type[Section] | None = Recipe
    value: Any = data
    steps = iter(location)
    for step in steps:
        keys.append(step)
        field = section.model_fields.get(step) if section is not None and isinstance(step, str) else None
        if field is None or not sections(field):
            break
        value = value.get(step) if isinstance(value, Mapping) else None
        if len(sections(field)) > 1:
            next(steps, None)
        section = section_at(field, value)
    return tuple(keys)


def _explain(details: ErrorDetails, data: Mapping[Any, Any]) -> list[Problem]:
    keys = _path(details["loc"], data)
    kind, value, field = details["type"], details["input"], field_at(keys, data)
    if kind in _UNKNOWN_KEY or field is None:
        return [_unknown_key(keys, data)]
    if kind == "missing":
        return _missing(keys, field)
    if kind == "union_tag_not_found":
        message = f"{dotted(keys)}.kind: not given; valid: {', '.join(sorted(kinds(field)))}"
        return [Problem(keys=(*keys, "kind"), blames=(keys,), message=message)]
    if kind == "union_tag_invalid":
        given = f"{dotted(keys)}.kind: {shown(value['kind'])} given"
        message = f"{given}; {_hint(value['kind'], kinds(field))}"
        return [Problem(keys=(*keys, "kind"), blames=(keys,), message=message)]
    if kind in _NOT_A_SECTION:
        return [Problem(keys=keys, blames=(keys,), message=_not_a_section(keys, value, field))]
    if kind == "literal_error":
        names = [name.strip("'") for name in re.findall(r"'[^']*'", details.get("ctx", {})["expected"])]
        hint = _hint(value, names)
    else:
        hint = f"valid: {valid_values(field)}"
    # A validator of ours gives its reason; the others' reasons are in the valid values.
    reason = details["msg"].removeprefix("Value error") if kind == "value_error" else ""
    message = f"{dotted(keys)}: {shown(value)} given{reason}; {hint}"
    return [Problem(keys=keys, blames=(keys,), message=message)]


def _missing(keys: tuple[Any, ...], field: FieldInfo) -> list[Problem]:
    found = sections(field)
    if found:
        needed = [(name, inner) for name, inner in found[0].model_fields.items() if inner.is_required()]
        return [problem for name, inner in needed for problem in _missing((*keys, name), inner)]
    name = dotted(keys)
    message = f"{name}: not given; valid: {field.description}; give {name}=VALUE"
    return [Problem(keys=keys, blames=(keys,), message=message)]


def _not_a_section(keys: tuple[Any, ...], value: Any, field: FieldInfo) -> str:
    name, names = dotted(keys), kinds(field)
    given = f"{name}: {shown(value)} given, but it is a section"
    if isinstance(value, str) and value in names:
        return f"{given}; give {name}.kind={value}"
    if names:
        return f"{given}; give {name}.kind=KIND, with KIND one of {', '.join(sorted(names))}"
    inner = sections(field)[0].model_fields
    return f"{given}; give its keys, {name}.KEY=VALUE, with KEY one of {', '.join(sorted(inner))}"


def _unknown_key(keys: tuple[Any, ...], data: Mapping[Any, Any]) -> Problem:
    above, given = keys[:-1], str(keys[-1])
    parent = field_at(above, data) if above else None
    value: Any = data
    for key in above:
        value = value[key]
    section = Recipe if parent is None else section_at(parent, value)
    names = [] if section is None else list(section.model_fields)
    close = difflib.get_close_matches(given, names, n=1)
    elsewhere = _elsewhere(above, given, parent, section) if not close else ""
    message = f"{dotted(keys)}: unknown key; {elsewhere}{did_you_mean(given, names)}"
    return Problem(keys=keys, blames=tuple((*above, name) for name in close), message=message)


def _elsewhere(above: tuple[Any, ...], given: str, parent: FieldInfo | None, section: type[Section] | None) -> str:
    """Where a key of that name does belong: in another kind of the same section, or in another section."""
    others = [] if parent is None else [other for other in sections(parent) if given in other.model_fields]
    if others and section is not None:
        owners = ", ".join(str(kind_of(other)) for other in others)
        return f"kind {kind_of(section)} has none, kind {owners} has it. "
    paths = dict.fromkeys(".".join(path) for path in every_key() if path[-1] == given and path[:-1] != above)
    return f"did you mean {' or '.join(paths)}? " if paths and given != "kind" else ""


def _with_defaults_for(found: list[Problem], data: Mapping[Any, Any]) -> Recipe | None:
    """The recipe with every wrong key left out, to see what else is wrong; None when even that is none."""
    rest = copy.deepcopy(dict(data))
    for problem in found:
        for keys in (problem.keys, *problem.blames):
            _leave_out(rest, keys)
    rest.setdefault("name", "unnamed")
    if isinstance(rest.setdefault("data", {}), dict):
        rest["data"].setdefault("source", "unnamed")
    try:
        return Recipe.model_validate(rest)
    except ValidationError:
        return None


def _hint(given: Any, names: Iterable[str]) -> str:
    hint = did_you_mean(str(given), names)
    return hint[0].lower() + hint[1:]


def _leave_out(data: dict[Any, Any], keys: tuple[Any, ...]) -> None:
    holder: Any = data
    for key in keys[:-1]:
        holder = holder.get(key) if isinstance(holder, dict) else None
    if isinstance(holder, dict):
        holder.pop(keys[-1], None)


def _between_keys(recipe: Recipe, found: list[Problem]) -> list[Problem]:
    blamed = [".".join(map(str, keys)) + "." for problem in found for keys in problem.blames]
    problems = []
    for clash in contradictions(recipe):
        paths = [f"{key}." for key in clash.keys]
        if not any(a.startswith(b) or b.startswith(a) for a in paths for b in blamed):
            keys = tuple(clash.keys[-1].split("."))
            blames = tuple(tuple(key.split(".")) for key in clash.keys)
            problems.append(Problem(keys=keys, blames=blames, message=clash.message))
    return problems
