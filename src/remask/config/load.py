"""Recipes from names, files and command lines; recipes to YAML that reads back identically."""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remask.config.keys import field_at, kinds, sections, valid_values
from remask.config.overrides import apply_overrides
from remask.config.problems import Problem, validate
from remask.config.schema import Recipe
from remask.config.yaml_text import parse_yaml, to_yaml
from remask.errors import UserError, did_you_mean, printable
from remask.recipes import read_recipe, recipe_names

_LARGEST = 1_000_000  # bytes; a recipe has about two thousand
_COMMENT_COLUMN = 34


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name, or in that YAML file, with `a.b=c` changes made to it.

    Args:
        name_or_path: a name from `remask recipes`, or the path of a YAML file.
        overrides: changes in order, e.g. `training.learning_rate=1e-3` or `tokenizer.kind=byte`.

    Raises:
        UserError: one line for everything that is wrong, all at once.
    """
    data, origin = _read(name_or_path)
    unreadable, given = apply_overrides(data, overrides)
    recipe, problems = validate(data)
    lines = unreadable + [_line(problem, origin, given) for problem in problems]
    if recipe is None or lines:
        raise UserError("\n".join(dict.fromkeys(map(printable, lines))))
    return recipe


def preview_recipe(name_or_path: str) -> Recipe:
    """The recipe as it can be shown: FILE stands for a `data.source` that is left to the user, RUN for a codec.

    Raises:
        UserError: as `load_recipe`.
    """
    data, _ = _read(name_or_path)
    text, network = data.get("data", {}), data.get("network", {})
    left_open = []
    if isinstance(text, dict) and "source" not in text:
        left_open.append("data.source=FILE")
    around = isinstance(network, dict) and (network.get("kind") == "concept_prior" or network.get("latent") == "codec")
    if around and "codec" not in network:
        left_open.append("network.codec=RUN")
    return load_recipe(name_or_path, left_open)


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML, defaults spelled out: `load_recipe` of it gives an equal recipe."""
    return to_yaml(recipe.model_dump())


def explain_recipe(recipe: Recipe) -> str:
    """`dump_recipe` with a comment on each line: what the key means and what it may hold."""
    data = recipe.model_dump()
    lines = []
    keys: list[str] = []
    for line in dump_recipe(recipe).splitlines():
        indent, key = _INDENTED_KEY.findall(line)[0]
        keys[len(indent) // 2 :] = [key]
        lines.append(f"{line:<{_COMMENT_COLUMN}}  # {_comment(keys, data)}")
    return "\n".join(lines) + "\n"


def explain_keys(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """For every dotted key of the recipe: its `value`, its `description` and the `valid` values."""
    found: dict[str, dict[str, Any]] = {}

    def walk(data: Mapping[str, Any], above: tuple[str, ...]) -> None:
        for name, value in data.items():
            keys = (*above, name)
            if isinstance(value, dict):
                walk(value, keys)
                continue
            description, valid = _meaning(keys, whole)
            found[".".join(keys)] = {"value": value, "description": description, "valid": valid}

    whole = recipe.model_dump(mode="json")
    walk(whole, ())
    return found


def recipe_hash(recipe: Recipe) -> str:
    """16 hexadecimal digits that two recipes share when they describe the same experiment.

    The name and the description do not count; every other key does, defaults included.
    """
    return _short_hash(recipe.model_dump(mode="json", exclude={"name", "description"}))


def _short_hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


_NO_PART_OF_A_SETUP = {
    **dict.fromkeys(("name", "description", "seed", "device", "tracking", "evaluation", "sampling"), True),
    "data": {
        **dict.fromkeys(("source", "validation", "test", "workers"), True),
        "mixture": {"__all__": {"source"}},
    },
    "training": {
        *("log_every", "evaluate_every", "evaluate_rows", "checkpoint_every", "keep_checkpoints", "sample_every")
    },
}
"""Keys that name a run, say where it is computed, or how it is watched and judged; texts count by their content."""


def setup_hash(recipe: Recipe, *, data_hash: str) -> str:
    """16 hexadecimal digits that two trainings share when one repeats the other with another seed.

    Args:
        recipe: how it is trained. Its name, seed and device, and how it is judged and sampled, do not count.
        data_hash: the content of its texts, wherever they lie.
    """
    return _short_hash({"recipe": recipe.model_dump(mode="json", exclude=_NO_PART_OF_A_SETUP), "data": data_hash})


def differs(path: str, known_hash: str | None) -> str | None:
    """A sentence where a file's recipe is not the one of a known `recipe_hash`; None where it is, or none is known.

    The file may have been edited or damaged since; a remask that knows other keys gives other hashes too.
    """
    try:
        if known_hash in (None, recipe_hash(load_recipe(path))):
            return None
    except UserError as error:
        return str(error).splitlines()[0]
    return (
        f"{path} is not the recipe that the run began with: it was edited or damaged, or another version of remask "
        "wrote it"
    )


_INDENTED_KEY = re.compile(r"^( *)(\w+):")


def _comment(keys: Sequence[str], data: Mapping[str, Any]) -> str:
    description, valid = _meaning(keys, data)
    field = field_at(keys, data)
    return description if field is not None and sections(field) else f"{description} ({valid})"


def _meaning(keys: Sequence[str], data: Mapping[str, Any]) -> tuple[str, str]:
    """What a key means, and what it may hold."""
    field = field_at(keys, data)
    assert field is not None, f"{keys} came out of a recipe, so the schema knows it"
    valid = valid_values(field)
    if keys[-1] == "kind":
        parent = field_at(keys[:-1], data)
        valid = ", ".join(sorted(kinds(parent))) if parent is not None else valid
    return field.description or "", valid


def _line(problem: Problem, origin: str, given: Sequence[tuple[str, ...]]) -> str:
    """The problem's line; where a file is at fault rather than the command line, the file's name leads."""
    blamed = (problem.keys, *problem.blames)
    from_command_line = any(keys[: len(path)] == path[: len(keys)] for keys in given for path in blamed)
    return problem.message if from_command_line or not origin else f"{origin}: {problem.message}"


def _read(name_or_path: str) -> tuple[dict[Any, Any], str]:
    """The plain values of a recipe, and the file to blame ('' for one that comes with remask)."""
    looks_like_path = os.sep in name_or_path or name_or_path.endswith((".yaml", ".yml"))
    if name_or_path in recipe_names() and not looks_like_path:
        return parse_yaml(read_recipe(name_or_path)), ""
    if not looks_like_path and not Path(name_or_path).is_file():
        hint = did_you_mean(name_or_path, recipe_names())
        raise UserError(printable(f"recipe '{name_or_path}': unknown; {hint} Or give the path of a YAML file."))
    return _read_file(name_or_path), name_or_path


def _read_file(path: str) -> dict[Any, Any]:
    """The mapping in a YAML file."""
    try:
        data = parse_yaml(_text(path))
    except OSError as error:
        what = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or "cannot be read"
        problem = f"{what}; give a YAML file, or one of the recipes {', '.join(recipe_names())}"
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8; save the recipe as UTF-8 text"
    except ValueError as error:
        problem = f"not readable as YAML: {error}"
    else:
        if isinstance(data, dict):
            return data
        what = "empty" if data is None else f"a {_sort_of(data)}, not a mapping"
        problem = f"{what}; a recipe is a list of 'key: value' lines: see `remask recipes quickstart`"
    raise UserError(printable(f"recipe {path}: {problem}")) from None


def _text(path: str) -> str:
    with open(path, "rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"more than {_LARGEST:,} bytes, too large for a recipe")
    return content.decode("utf-8-sig")


def _sort_of(value: Any) -> str:
    names = {bool: "truth value", int: "number", float: "number", str: "text", list: "list"}
    return names[type(value)]
