"""What a run left on disk, read so that a torn, missing or odd file costs a sentence and never the report."""

import json
import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from remask.errors import UserError

Record = Mapping[str, Any]

_FILES_OF_A_RUN = ("run.json", "recipe.yaml", "metrics.jsonl", "samples.jsonl", "evaluations.jsonl")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The text at one step of a sampler.

    Attributes:
        step: steps taken so far, from 0.
        time: the diffusion time t in [0, 1], or None where the file does not say.
        tokens: the text of each token, None where it is masked.
    """

    step: int
    time: float | None
    tokens: tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """How one sample came to be.

    Attributes:
        sampler: the sampler's name.
        steps: the number of steps it took, at least 1.
        seed: its seed, or None where the file does not say.
        tokens: the text of each token at the end.
        revealed: the step in 0..steps at which each token took its final value; 0 = given by the prompt.
        frames: the text after some of the steps, in order.
    """

    sampler: str
    steps: int
    seed: int | None
    tokens: tuple[str, ...]
    revealed: tuple[int, ...]
    frames: tuple[Frame, ...]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """Everything that a run's folder says about it.

    Attributes:
        name: the run's id, or the folder's name where the record is missing.
        record: `run.json`, empty where it is missing.
        recipe: `recipe.yaml` as written, or None.
        description: the recipe's one line about itself, or None.
        metrics: the readable lines of `metrics.jsonl`, in order.
        samples: the readable lines of `samples.jsonl` that hold a text.
        evaluations: the readable lines of `evaluations.jsonl` that hold a name.
        judgings: the record of each evaluation, by its id.
        settings: `recipe.yaml` as nested keys, empty where it cannot be read.
        trajectory: `trajectory.json`, or None.
        complaints: one plain sentence for each file that was torn or could not be understood.
    """

    name: str
    record: Record
    recipe: str | None
    description: str | None
    metrics: tuple[Record, ...]
    samples: tuple[Record, ...]
    evaluations: tuple[Record, ...]
    judgings: Mapping[str, Record]
    settings: Record
    trajectory: Trajectory | None
    complaints: tuple[str, ...]


def read_run(folder: Path) -> RunFacts:
    """Reads a run's folder, whatever state the run left it in.

    Args:
        folder: the run's folder.

    Raises:
        UserError: there is no such folder, or nothing in it comes from a run.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a run's folder, its id, or `last`")
    if not holds_run(folder):
        raise UserError(f"{folder} is not a run's folder: it holds none of {', '.join(_FILES_OF_A_RUN)}")
    complaints: list[str] = []
    record = _json_object(folder / "run.json", complaints)
    recipe = _text(folder / "recipe.yaml", complaints)
    settings = _yaml(recipe or "")
    if recipe is not None and not isinstance(settings, dict):
        complaints.append("recipe.yaml is torn or is no recipe.")
    return RunFacts(
        name=text_or_none(record.get("id")) or text_or_none(record.get("run")) or folder.resolve().name,
        record=record,
        recipe=recipe,
        description=text_or_none(mapping(settings).get("description")),
        metrics=_json_lines(folder / "metrics.jsonl", complaints),
        samples=_json_lines(folder / "samples.jsonl", complaints, needs="text"),
        evaluations=_json_lines(folder / "evaluations.jsonl", complaints, needs="name"),
        judgings=_judgings(folder / "evaluations", complaints),
        settings=mapping(settings),
        trajectory=_trajectory(folder / "trajectory.json", complaints),
        complaints=tuple(complaints),
    )


def holds_run(folder: Path) -> bool:
    """Whether any file in the folder comes from a run."""
    return any((folder / name).is_file() for name in _FILES_OF_A_RUN)


def number(value: object) -> float | None:
    """The value as a finite number, or None where it is anything else (a boolean, a NaN, a text)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # JSON allows whole numbers of any length
        return None
    return found if math.isfinite(found) else None


def whole(value: object) -> int | None:
    """The value as a whole number, or None where it is none."""
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def text_or_none(value: object) -> str | None:
    """The value where it is a text with something in it."""
    return value if isinstance(value, str) and value.strip() else None


def mapping(value: object) -> Record:
    """The value where it is a JSON object, else an empty one."""
    return cast(Record, value) if isinstance(value, dict) else {}


def named_numbers(value: object) -> dict[str, float]:
    """The finite numbers of a JSON object, by name."""
    return {printable(name): found for name, v in mapping(value).items() if (found := number(v)) is not None}


def printable(text: str) -> str:
    """The text with every character that an HTML page cannot carry replaced by a visible sign for it."""
    return "".join(map(_printable, text))


def _judgings(folder: Path, complaints: list[str]) -> dict[str, Record]:
    """The record of each evaluation, by the name of its folder."""
    try:
        paths = sorted(folder.glob("*/evaluation.json"))
    except OSError:
        return {}
    found = {path.parent.name: _json_object(path, complaints) for path in paths}
    return {printable(name): record for name, record in found.items() if record}


def _text(path: Path, complaints: list[str]) -> str | None:
    """The file's text, None where there is no such file; bytes that are no UTF-8 are shown as marks."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        complaints.append(f"{path.name} could not be read ({error.strerror}) and is left out.")
        return None


def _json_object(path: Path, complaints: list[str]) -> Record:
    text = _text(path, complaints)
    if text is None:
        return {}
    found = _parse(text)
    if not isinstance(found, dict):
        complaints.append(f"{path.name} is torn or is no JSON object, and is left out.")
    return mapping(found)


def _json_lines(path: Path, complaints: list[str], *, needs: str | None = None) -> tuple[Record, ...]:
    """The readable JSON objects of a file, one a line; `needs` names a key that must hold a text."""
    lines = [line for line in (_text(path, complaints) or "").split("\n") if line.strip()]
    found = [mapping(_parse(line)) for line in lines]
    kept = [record for record in found if record and (needs is None or isinstance(record.get(needs), str))]
    lost = len(lines) - len(kept)
    if lost:
        what = "1 line" if lost == 1 else f"{lost} lines"
        complaints.append(f"{what} of {path.name} could not be understood and {'is' if lost == 1 else 'are'} left out.")
    return tuple(kept)


def _parse(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _yaml(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None


def _trajectory(path: Path, complaints: list[str]) -> Trajectory | None:
    record = _json_object(path, complaints)
    if not record:
        return None
    tokens, revealed = _texts(record.get("tokens")), _whole_numbers(record.get("revealed"))
    steps = whole(record.get("steps")) or 0
    if not tokens or len(revealed) != len(tokens) or steps < 1:
        complaints.append(f"{path.name} does not fit together (tokens, revealed, steps), and is left out.")
        return None
    return Trajectory(
        sampler=text_or_none(record.get("sampler")) or "unnamed",
        steps=steps,
        seed=whole(record.get("seed")),
        tokens=tokens,
        revealed=tuple(min(max(step, 0), steps) for step in revealed),
        frames=tuple(_frames(record.get("frames"), length=len(tokens))),
    )


def _texts(value: object) -> tuple[str, ...]:
    """The value where it is a list of texts, else nothing."""
    found = value if isinstance(value, list) else []
    texts = tuple(token for token in found if isinstance(token, str))
    return texts if len(texts) == len(found) else ()


def _whole_numbers(value: object) -> tuple[int, ...]:
    """The value where it is a list of whole numbers, else nothing."""
    found = value if isinstance(value, list) else []
    numbers = tuple(step for step in map(whole, found) if step is not None)
    return numbers if len(numbers) == len(found) else ()


def _frames(value: object, *, length: int) -> Iterator[Frame]:
    """The frames that have one token (a text, or None for a mask) for each position."""
    for record in map(mapping, cast(Sequence[object], value) if isinstance(value, list) else ()):
        tokens, step = record.get("tokens"), whole(record.get("step"))
        if step is None or not isinstance(tokens, list) or len(tokens) != length:
            continue
        if all(token is None or isinstance(token, str) for token in tokens):
            yield Frame(step=step, time=number(record.get("time")), tokens=tuple(tokens))


def _printable(sign: str) -> str:
    code = ord(sign)
    if sign in "\n\t" or 0x20 <= code < 0x7F:
        return sign
    if code < 0x20:
        return chr(0x2400 + code)
    return {0x7F: "␡"}.get(code, "\ufffd" if unicodedata.category(sign) in ("Cc", "Cs") else sign)
