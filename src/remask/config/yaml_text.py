"""YAML as recipes use it: YAML 1.2 scalars, no aliases, no tags, no key twice; one line a key when written.

PyYAML follows YAML 1.1, where `1e-3` is text, `no` is false, `12:30` is 750 and `2024-01-01` is a date. Here
numbers, true, false and null are what they look like, and everything else is text.
"""

import re
from typing import Any

import yaml

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]+$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_STANDARD = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset({"null", "bool", "int", "float", "str", "seq", "map", "timestamp", "merge", "value"})
_LONGEST_NUMBER = 1000  # digits; Python itself refuses more than 4300


def parse_yaml(text: str) -> Any:
    """The value that `text` stands for: mappings, lists, text, numbers, booleans and null.

    Raises:
        ValueError: one line that says what cannot be read, with its line and column.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if node is None else _value(node, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        said = ", ".join(part for part in (error.context, error.problem) if part)
        raise ValueError(f"{said}{place}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def to_yaml(value: Any) -> str:
    """Block YAML with one line a key and lists in brackets, which readers of YAML 1.1 and 1.2 read alike."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000_000_000)


def _value(node: yaml.Node, seen: set[int]) -> Any:
    if id(node) in seen:
        raise _refusal(node, "aliases (*name) are not supported")
    seen.add(id(node))
    if not node.tag.startswith(_STANDARD) or node.tag.removeprefix(_STANDARD) not in _PLAIN_TAGS:
        raise _refusal(node, f"the tag {node.tag.replace(_STANDARD, '!!')} is not supported")
    match node:
        case yaml.MappingNode():
            return _mapping(node, seen)
        case yaml.SequenceNode():
            return [_value(item, seen) for item in node.value]
        case _:
            return _scalar(node)


def _mapping(node: yaml.MappingNode, seen: set[int]) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise _refusal(key_node, "a key must be one word")
        key = _value(key_node, seen)
        if key in result:
            raise _refusal(key_node, f"the key {key} is given twice")
        result[key] = _value(value_node, seen)
    return result


def _scalar(node: yaml.Node) -> Any:
    text: str = node.value
    if getattr(node, "style", None) is not None:  # quoted, or a block of text
        return text
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _refusal(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either dialect would misread, and escapes whatever would break a line."""


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(f"{_STANDARD}str", value, style=None if value.isprintable() else '"')


def _represent_list(dumper: yaml.SafeDumper, value: Any) -> yaml.SequenceNode:
    return dumper.represent_sequence(f"{_STANDARD}seq", value, flow_style=True)


# PyYAML's own patterns stay registered beside these.
_Dumper.add_implicit_resolver(f"{_STANDARD}int", _INT, list("-+0123456789"))
_Dumper.add_implicit_resolver(f"{_STANDARD}float", _FLOAT, list("-+0123456789."))
_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(tuple, _represent_list)
