"""What a study varies: lists of values and ranges of recipe keys, read from the command line and checked at once."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from remask.config.keys import alternatives, field_at, valid_values
from remask.config.load import load_recipe, recipe_hash
from remask.config.schema import Recipe
from remask.errors import UserError

MOST = 10_000
"""Trainings of one grid; more are a slip of the keyboard."""
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"^({_NUMBER})\.\.({_NUMBER})(:log)?$")
_OPENING, _CLOSING = "[{(", "]})"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A key and the values it takes, as they were written."""

    key: str
    values: tuple[str, ...]

    def shown(self, value: str) -> str:
        """A value for a reader."""
        return value

    def to_json(self) -> dict[str, Any]:
        """The key and its values."""
        return {"key": self.key, "values": list(self.values)}


@dataclass(frozen=True, kw_only=True)
class Span:
    """A key and the range that its values are drawn from, both ends included.

    Attributes:
        key: dotted, of a recipe.
        low: smallest value.
        high: largest value.
        log: drawn evenly in the logarithm.
        whole: whole numbers only.
    """

    key: str
    low: float
    high: float
    log: bool
    whole: bool

    def to_json(self) -> dict[str, Any]:
        """The key and its range."""
        return {"key": self.key, "low": self.low, "high": self.high, "log": self.log, "whole": self.whole}

    def shown(self, value: float) -> str:
        """A value for a reader, in four figures."""
        return f"{value:.4g}"

    def written(self, value: float) -> str:
        """A value of the range as a recipe has it."""
        return str(round(value)) if self.whole else repr(float(value))


Varied = Choice | Span


def read_over(words: Sequence[str], *, recipe: Recipe) -> list[Varied]:
    """What `--over` says, one entry a word: `key=a,b,c` is a list, `key=1e-4..1e-2:log` a range.

    Args:
        words: as they were given.
        recipe: the recipe whose keys they are; it tells whole numbers from others.

    Raises:
        UserError: a word that is neither, an unknown key, an empty or upside-down range, a key or value given twice.
    """
    found: list[Varied] = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.strip() or not text.strip():
            raise UserError(f"--over {word}: write KEY=a,b,c or KEY=LOW..HIGH, with :log behind it for a log scale")
        found.append(_read(key.strip(), text.strip(), recipe))
        if key.strip() in [each.key for each in found[:-1]]:
            raise UserError(f"--over names {key.strip()} twice: give all of its values at once, {key.strip()}=a,b,c")
    return found


def from_json(entry: Mapping[str, Any]) -> Varied:
    """The entry that `to_json` wrote."""
    if "values" in entry:
        return Choice(key=entry["key"], values=tuple(entry["values"]))
    return Span(**entry)


def _read(key: str, text: str, recipe: Recipe) -> Varied:
    ends = _RANGE.match(text)
    if ends is None:
        values = split_list(text)
        for value in values:
            if values.count(value) > 1:
                raise UserError(f"--over {key}: {value} is given twice")
        return Choice(key=key, values=tuple(values))
    low, high, log = float(ends[1]), float(ends[2]), ends[3] is not None
    if not low < high:
        raise UserError(f"--over {key}={text}: a range goes from its smaller end to its larger, {high:g}..{low:g}")
    if log and low <= 0:
        raise UserError(f"--over {key}={text}: a log scale begins above 0")
    return Span(key=key, low=low, high=high, log=log, whole=_is_whole(key, text, recipe))


def _is_whole(key: str, text: str, recipe: Recipe) -> bool:
    """Whether a key holds whole numbers alone; a key that the recipe does not know is left to its validation."""
    field = field_at(key.split("."), recipe.model_dump())
    if field is None:
        return False
    kinds = alternatives(field.annotation)
    if float in kinds or not ({int, float} & set(kinds)):
        if float not in kinds:
            raise UserError(f"--over {key}={text}: {key} holds no numbers to draw from. Valid: {valid_values(field)}")
        return False
    ends = text.removesuffix(":log").split("..")
    if any(not float(end).is_integer() for end in ends):
        raise UserError(f"--over {key}={text}: {key} holds whole numbers, and so must the ends of its range")
    return True


def split_list(text: str) -> list[str]:
    """The values between commas; a comma within brackets or quotes belongs to its value.

    Raises:
        UserError: a value is empty.
    """
    parts, depth, quote, start = [], 0, "", 0
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    parts = [part.strip() for part in [*parts, text[start:]]]
    if not all(parts):
        raise UserError(f"the list {text!r} has an empty value: write a,b,c, and null for none")
    return parts


def combinations(choices: Sequence[Choice]) -> Iterator[dict[str, str]]:
    """Every combination of the lists, the last key varying fastest."""
    for values in product(*(choice.values for choice in choices)):
        yield dict(zip((choice.key for choice in choices), values, strict=True))


def corners(over: Sequence[Varied]) -> Iterator[dict[str, str]]:
    """Every combination of the lists' values and the ranges' ends."""
    yield from combinations(
        [
            each
            if isinstance(each, Choice)
            else Choice(key=each.key, values=(each.written(each.low), each.written(each.high)))
            for each in over
        ]
    )


def check(recipe: str, overrides: Sequence[str], over: Sequence[Varied]) -> list[Recipe]:
    """Reads the recipe of every combination (of a range: of its ends), so that no training finds a mistake later.

    Args:
        recipe: a name or a file.
        overrides: keys that are the same in all of them.
        over: what is varied.

    Returns:
        these recipes.

    Raises:
        UserError: the first combination that is no recipe, in one line; a text that is not there; too many of them;
            two that differ in how a value is written, or in the name alone.
    """
    fixed = {word.partition("=")[0].strip() for word in overrides}
    for each in over:
        if each.key in fixed:
            raise UserError(f"{each.key} is both fixed and varied: leave {each.key}=… out, or --over {each.key}")
    count = math.prod(len(each.values) if isinstance(each, Choice) else 2 for each in over)
    if count > MOST:
        raise UserError(f"--over makes {count:,} combinations, and {MOST:,} is the most. Give fewer values")
    seen: dict[str, str] = {}
    found = []
    for values in corners(over):
        changed = [f"{key}={value}" for key, value in values.items()]
        words = " ".join(changed)
        try:
            loaded = load_recipe(recipe, [*overrides, *changed])
            refuse_missing_texts(loaded)
        except UserError as error:
            first, *more = str(error).splitlines()
            others = f" (and {len(more)} more)" if more else ""
            raise UserError(f"with {words}: {first}{others}" if changed else str(error)) from None
        other = seen.setdefault(recipe_hash(loaded), words)
        if other != words:
            raise UserError(
                f"{other} and {words} are one experiment, and would be trained twice: leave one of them out"
            )
        found.append(loaded)
    return found


def refuse_missing_texts(recipe: Recipe) -> None:
    """Looks for the texts that a recipe names, without reading them.

    Raises:
        UserError: one is not there.
    """
    from remask.data.corpora import refuse_missing

    data = recipe.data
    held_out = [place for place in (data.validation, data.test) if place is not None]
    for place in (data.source, *held_out, *(entry.source for entry in data.mixture)):
        refuse_missing(place)
