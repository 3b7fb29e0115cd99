"""Recipes with every kind of mistake in them, through the real command line: readable lines and no traceback.

A configuration is a recipe that comes with remask, made tiny, with some keys changed (to other valid values, to values
of the wrong type, size or shape), keys added, dropped, misspelled or moved, then perhaps damaged as text, and overrides
on top. It must be refused in lines that a person can read, leaving nothing behind, or train.
"""

import os
import resource
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count as count_up
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from stage import in_parallel, places, remask, write_text

from remask.config.keys import alternatives, every_key, field_at, kinds, sections
from remask.config.yaml_text import parse_yaml
from remask.recipes import read_recipe, recipe_names

TINY: dict[str, dict[str, Any]] = {
    "data": {"length": 16, "source": "text.txt"},
    "training": {
        **{"steps": 2, "batch_size": 4, "micro_batch_size": 2, "log_every": 1, "evaluate_every": 2},
        **{"evaluate_rows": 2, "checkpoint_every": 2, "sample_every": 2},
    },
    "evaluation": {"rows": 2, "draws": 1},
    "sampling": {"steps": 2, "count": 1},
}
TINY_TRANSFORMER = {"width": 16, "layers": 1, "heads": 2}
PATIENCE = 30.0
"""Seconds after which a training is asked to stop; one that was allowed to be endless may be."""

MEMORY = 12 << 30
"""Bytes of address space of one command: a network too large for it must be refused, and not end the machine."""

LONGEST_LINE = 2000
CHECKS: Any = tuple(HealthCheck)
FOREIGN = ("Traceback", "errors.pydantic.dev", "validation error", "ValidationError", "Exception", "<class ")
"""Words of the machinery, which a person who wrote a recipe never has to read."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What is given to `remask train`: the bytes of a YAML file, and overrides."""

    file: bytes
    overrides: tuple[str, ...]


# -- configurations -----------------------------------------------------------------------------------

SMALL_NUMBERS = st.one_of(
    st.integers(-3, 40), st.floats(-2.0, 2.0), st.sampled_from([float("nan"), float("inf"), -float("inf"), 1e-300])
)
NUMBERS = st.one_of(
    SMALL_NUMBERS, st.sampled_from([2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400, 1e308, -1e308, 10**6, 10**9])
)
CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                " ",
                "null",
                "~",
                "true",
                "no",
                "1e3",
                "0x10",
                "1_000",
                "٣",
                "ﬁ",
                "naïve",
                "日本語",
                "🙂",
                "\u202e",
                "\ufeff",
            ),
            *(
                "a\nb",
                "\t",
                "\x1b[31m",
                "../..",
                "/",
                "/dev/null",
                "text.txt",
                "..",
                "hf:",
                "hf:nobody/nothing",
                "C:\\x",
            ),
            *(
                "%s",
                "{}",
                "{{ x }}",
                "$HOME",
                "`id`",
                "'",
                '"',
                "[",
                "- a",
                "a: b",
                "!!python/object:os.system",
                "&a",
                "*a",
            ),
        ]
    ),
    st.text(CHARACTERS, max_size=12),
)


def values(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Anything that YAML can hold."""
    leaves = st.one_of(st.none(), st.booleans(), numbers, TEXTS)
    return st.one_of(
        leaves,
        leaves,
        st.lists(leaves, max_size=3),
        st.dictionaries(st.one_of(TEXTS, st.integers(0, 9)), leaves, max_size=3),
        st.integers(1, 200).map(lambda depth: _nested(depth)),
    )


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if depth % 2 else [value]
    return value


_NAMES = [name for name in recipe_names() if not name.startswith(("convert-", "sft-"))]
_NAMES = 3 * _NAMES + [name for name in recipe_names() if name not in _NAMES]  # most have to be downloaded to train


@st.composite
def configs(draw: st.DrawFn, numbers: st.SearchStrategy[Any] = NUMBERS) -> Config:
    """A recipe with mistakes; half of them only combine what the schema admits, and may train or not go together."""
    data = _tiny(draw(st.sampled_from(_NAMES)))
    if draw(st.booleans()):
        for _ in range(draw(st.integers(0, 4))):
            draw(st.sampled_from([_valid, _valid, _valid, _kind]))(draw, data, numbers)
        return Config(file=_as_yaml(draw, data).encode(), overrides=())
    for _ in range(draw(st.integers(0, 3))):
        draw(st.sampled_from(CHANGES))(draw, data, numbers)
    text = _as_yaml(draw, data)
    if draw(st.integers(0, 3)) == 0:
        text = draw(st.sampled_from(TEXT_DAMAGE))(draw, text)
    file = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        file = draw(st.sampled_from(BYTE_DAMAGE))(draw, file)
    return Config(file=file, overrides=tuple(draw(st.lists(_override(values(numbers)), max_size=2))))


def _as_yaml(draw: st.DrawFn, data: dict[Any, Any]) -> str:
    flow = draw(st.sampled_from([None, True]))
    return yaml.safe_dump(data, allow_unicode=True, sort_keys=False, default_flow_style=flow)


def _tiny(name: str) -> dict[Any, Any]:
    data = parse_yaml(read_recipe(name))
    for section, changes in TINY.items():
        data[section] = {**data.get(section, {}), **changes}
    if data.get("network", {}).get("kind") == "transformer":
        data["network"] |= TINY_TRANSFORMER
    if data.get("tokenizer", {}).get("kind") == "bpe":
        data["tokenizer"]["vocab_size"] = 280
    for section in ("objective", "sampling"):
        if data.get(section, {}).get("block_length"):
            data[section]["block_length"] = 4
    return data


def _holder(data: Any, keys: Sequence[Any]) -> dict[Any, Any] | None:
    """The mapping that holds the last key of a path, made on the way; None where another value stands there."""
    for key in keys[:-1]:
        data = data.setdefault(key, {}) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else None


def _path(draw: st.DrawFn) -> tuple[str, ...]:
    return draw(st.sampled_from(sorted(set(every_key()))))


def _put(data: dict[Any, Any], keys: Sequence[Any], value: Any) -> None:
    holder = _holder(data, keys)
    if holder is not None:
        holder[keys[-1]] = value


def _valid(draw: st.DrawFn, data: dict[Any, Any], numbers: st.SearchStrategy[Any]) -> None:
    """Another value that the schema admits: the recipe may then contradict itself, or train."""
    del numbers
    keys = _path(draw)
    field = field_at(keys, data)
    if field is not None and keys[-1] != "kind" and not sections(field):
        _put(data, keys, _admitted(draw, field))


def _admitted(draw: st.DrawFn, field: Any) -> Any:
    leaf = draw(st.sampled_from(alternatives(field.annotation)))
    bounds = {type(item): item for item in field.metadata}
    low = getattr(bounds.get(annotated_types.Ge), "ge", getattr(bounds.get(annotated_types.Gt), "gt", 0))
    high = getattr(bounds.get(annotated_types.Le), "le", getattr(bounds.get(annotated_types.Lt), "lt", low + 10))
    if get_origin(leaf) is Literal:
        return draw(st.sampled_from(get_args(leaf)))
    if leaf is int:
        return draw(st.integers(low, min(low + 12, high)))
    if leaf is float:
        return draw(st.floats(float(low), float(min(high, low + 1))))
    if leaf is bool:
        return draw(st.booleans())
    if leaf is str:
        return draw(st.sampled_from(["text.txt", "python-docs", "text", "cpu", "auto", "a"]))
    return None if leaf is type(None) else draw(st.sampled_from([[], [0.5, 0.5], ["a"], {}]))


def _kind(draw: st.DrawFn, data: dict[Any, Any], numbers: st.SearchStrategy[Any]) -> None:
    """Another kind of a section, the keys of the old one left in it or not."""
    del numbers
    paths = [keys for keys in set(every_key()) if (field := field_at(keys, data)) is not None and kinds(field)]
    keys = draw(st.sampled_from(sorted(paths)))
    field = field_at(keys, data)
    assert field is not None
    kind = {"kind": draw(st.sampled_from(sorted(kinds(field))))}
    holder = _holder(data, keys)
    if holder is not None:
        old = holder.get(keys[-1])
        kept = old if isinstance(old, dict) and draw(st.booleans()) else {}
        holder[keys[-1]] = kept | kind


def _value(draw: st.DrawFn, data: dict[Any, Any], numbers: st.SearchStrategy[Any]) -> None:
    """Anything at all at a known key."""
    _put(data, _path(draw), draw(values(numbers)))


def _misspelled(draw: st.DrawFn, data: dict[Any, Any], numbers: st.SearchStrategy[Any]) -> None:
    """A key with a letter gone, doubled or in the other case."""
    keys = _path(draw)
    name = keys[-1]
    place = draw(st.integers(0, len(name) - 1))
    wrong = draw(
        st.sampled_from([name[:place] + name[place + 1 :], name[:place] + name[place] + name[place:], name.upper()])
    )
    _put(data, (*keys[:-1], wrong), draw(values(numbers)))


def _dropped(draw: st.DrawFn, data: dict[Any, Any], numbers: st.SearchStrategy[Any]) -> None:
    """A key that is not there."""
    del numbers
    keys = _path(draw)
    holder = _holder(data, keys)
    if holder is not None:
        holder.pop(keys[-1], None)


def _moved(draw: st.DrawFn, data: dict[Any, Any], numbers: st.SearchStrategy[Any]) -> None:
    """A key in the wrong section."""
    keys, other = _path(draw), _path(draw)
    _put(data, (*other[:-1], keys[-1]), draw(values(numbers)))


def _foreign(draw: st.DrawFn, data: dict[Any, Any], numbers: st.SearchStrategy[Any]) -> None:
    """A key that is no word, or no text."""
    keys = _path(draw)
    _put(data, (*keys[:-1], draw(st.one_of(TEXTS, numbers, st.booleans(), st.none()))), draw(values(numbers)))


def _cut(draw: st.DrawFn, text: str) -> str:
    return text[: draw(st.integers(0, len(text)))]


def _inserted(draw: st.DrawFn, text: str) -> str:
    place = draw(st.integers(0, len(text)))
    piece = draw(
        st.one_of(
            TEXTS, st.sampled_from(["\t", ":", "{", "]", "\n---\n", "\n...\n", "<<: *a", "%YAML 3.0\n", "? ", "|"])
        )
    )
    return text[:place] + piece + text[place:]


def _line_twice(draw: st.DrawFn, text: str) -> str:
    lines = text.splitlines(keepends=True)
    place = draw(st.integers(0, max(0, len(lines) - 1)))
    return "".join(lines[: place + 1] + lines[place:])


def _indented(draw: st.DrawFn, text: str) -> str:
    lines = text.splitlines(keepends=True)
    place = draw(st.integers(0, max(0, len(lines) - 1)))
    return "".join(
        draw(st.sampled_from([" ", "   ", "\t"])) + line if at == place else line for at, line in enumerate(lines)
    )


def _aliased(draw: st.DrawFn, text: str) -> str:
    return draw(
        st.sampled_from(
            [
                "a: &a {steps: 3}\n" + text + "training: *a\n",
                text + "b: &b [*b]\n",
                text + "c: !!python/object/apply:os.system ['true']\n",
                text + "d: !custom 1\n",
                text + "<<: {seed: 3}\n",
                "? [a, b]\n: 1\n" + text,
                text + "\n---\n" + text,
                text.replace("\n", "\r\n"),
                text + "e: " + "[" * 3000 + "\n",
                text + "f: " + "9" * 5000 + "\n",
                text + "# " + "x" * 1_000_001,
                "",
                "[]",
                "just words",
                "1",
            ]
        )
    )


def _bytes_inserted(draw: st.DrawFn, file: bytes) -> bytes:
    place = draw(st.integers(0, len(file)))
    piece = draw(
        st.sampled_from([b"\xff", b"\xc3", b"\0", b"\x80\x80", b"\xef\xbb\xbf", b"\x1b[2J", b"\xed\xa0\x80", b"\r"])
    )
    return file[:place] + piece + file[place:]


def _utf16(draw: st.DrawFn, file: bytes) -> bytes:
    del draw
    return file.decode("utf-8", "replace").encode("utf-16")


CHANGES = [_valid, _kind, _value, _value, _misspelled, _dropped, _moved, _foreign]
TEXT_DAMAGE = [_cut, _inserted, _line_twice, _indented, _aliased]
BYTE_DAMAGE = [_bytes_inserted, _utf16]


@st.composite
def _override(draw: st.DrawFn, anything: st.SearchStrategy[Any]) -> str:
    key = ".".join(_path(draw))
    wrong = [
        "",
        "=",
        ".",
        "a..b",
        "training",
        "training.",
        ".steps",
        "training.steps.more",
        "data.source.x",
        "seed ",
        "é",
    ]
    key = draw(st.one_of(st.just(key), st.just(key), st.sampled_from(wrong)))
    value = draw(
        st.one_of(anything.map(str), st.sampled_from(["", "[", "{", "{a: 1}", "[1", "'", "null", "3", "0.5", "byte"]))
    )
    text = draw(st.sampled_from([f"{key}={value}", f"{key}={value}", f"{key} = {value}", key, f"--{key}={value}"]))
    return text.replace("\0", "")


# -- trials -------------------------------------------------------------------------------------------


def judge(code: int, out: str, err: str, *, folders: Sequence[str]) -> tuple[str, str | None]:
    """What came of a configuration, and what was wrong with that.

    Args:
        code: the exit code.
        out: standard output.
        err: standard error.
        folders: of runs in the home afterwards.
    """
    lines = [line for line in err.split("\n") if line.startswith("remask: ")]
    outcome = {0: "trained", 1: "failed in a line", 2: "refused", 130: "stopped when its time was up"}.get(
        code, "broken"
    )
    if outcome == "broken":
        return outcome, f"exit code {code}: {err[-300:]}"
    if code == 0:
        return outcome, None
    if not lines or err.rstrip("\n").split("\n")[-len(lines) :] != lines:
        return outcome, f"exit code {code}, and its lines do not stand last: {err[-300:]}"
    if code in (1, 2) and any(word in line for line in lines for word in FOREIGN):
        return outcome, f"not for people: {lines}"
    if any(len(line) > LONGEST_LINE or not line.isprintable() for line in lines):
        return outcome, f"not readable: {lines}"
    if code == 2 and (out or folders):
        return outcome, f"left {folders or out} behind, and said {lines}"
    return outcome, None


def run(*, count: int, jobs: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Tries so many configurations, each in a process of its own.

    Args:
        count: configurations.
        jobs: processes side by side.
        seed: decides what is drawn.
        scratch: an empty folder.
    """
    share = [count // jobs + (job < count % jobs) for job in range(jobs)]
    found = in_parallel(
        lambda job: _trials(share[job], random_seed=seed * 1000 + job, folder=scratch / f"fuzz-{job}"),
        jobs=jobs,
        scratch=scratch,
    )
    return {
        "configs": len(found),
        "outcomes": dict(Counter(trial["outcome"] for trial in found)),
        "first_words": dict(Counter(trial["sort"] for trial in found if trial["outcome"] == "refused").most_common(40)),
        "lost": [trial for trial in found if trial["problem"]],
    }


def _trials(count: int, *, random_seed: int, folder: Path) -> Iterator[dict[str, Any]]:
    folder.mkdir(parents=True)
    tried: set[Config] = set()
    for number in count_up():
        for config in _drawn(random_seed * 1_000_000 + number):
            if len(tried) == count:
                return
            if config not in tried:
                tried.add(config)
                yield trial(config, folder)


def _drawn(random_seed: int) -> list[Config]:
    """A few configurations; few at a time, because hypothesis varies what it drew before rather than draw anew."""
    found: list[Config] = []

    @seed(random_seed)
    @settings(max_examples=6, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=CHECKS)
    @given(configs())
    def draw_one(config: Config) -> None:
        found.append(config)

    draw_one()
    return found


def trial(config: Config, folder: Path) -> dict[str, Any]:
    """Gives a configuration to the command line, in a process of its own with an empty home."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    write_text(folder / "text.txt")
    (folder / "recipe.yaml").write_bytes(config.file)
    environment = {**places(folder), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    ended = remask(
        ["train", "recipe.yaml", *config.overrides],
        environment=environment,
        folder=folder,
        prepare=_bounded,
        patience=PATIENCE,
    )
    home = folder / "runs"
    folders = [path.name for path in home.iterdir() if path.is_dir()] if home.is_dir() else []
    outcome, problem = judge(ended.code, ended.out, ended.err, folders=folders)
    problem = ended.trouble or problem
    first = next(iter(ended.said), "")
    return {
        "outcome": outcome,
        "problem": problem,
        "sort": first.removeprefix("remask: ").removeprefix("recipe.yaml: ").split(" ")[0][:40],
        "file": config.file.decode("utf-8", "replace")[:3000] if problem else "",
        "overrides": list(config.overrides) if problem else [],
    }


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    os.nice(5)
