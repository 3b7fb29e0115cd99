"""Every file that the program reads, damaged in every way, under every command that reads it.

A command may refuse in a line, or give the result of the undamaged file, or give another one and say so. It may never
print a traceback, and never print another number without a word.
"""

import ctypes
import gzip
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kills import VARIANTS
from moments import At, Watch, kill_self
from stage import Ended, in_parallel, nothing, places, remask, write_text

CLOCKS = frozenset(
    {"seconds", "tokens_per_second", "created", "finished", "steps_per_second", "peak_memory_bytes", "age", "since"}
    | {"evaluation", "id"}  # an evaluation's id tells when it began
)
Damage = Callable[[Path, random.Random], None]


def _truncated(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(max(1, path.stat().st_size)))


def _emptied(path: Path, draw: random.Random) -> None:
    del draw
    os.truncate(path, 0)


def _flipped(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def _zeroed(path: Path, draw: random.Random) -> None:
    size = path.stat().st_size
    start = draw.randrange(max(1, size // 2))
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(size - start))


def _junk(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.randbytes(200))


def _other_json(path: Path, draw: random.Random) -> None:
    path.write_text(draw.choice(['[1, "a", null]\n', "{}\n", "null\n", '{"a": 1e999}\n', "[" * 100_000 + "\n", "7\n"]))


def _deleted(path: Path, draw: random.Random) -> None:
    del draw
    path.unlink()


def _a_folder(path: Path, draw: random.Random) -> None:
    del draw
    path.unlink()
    path.mkdir()


def _unreadable(path: Path, draw: random.Random) -> None:
    del draw
    path.chmod(0)


DAMAGES: Mapping[str, Damage] = {
    "truncated": _truncated,
    "emptied": _emptied,
    "one bit flipped": _flipped,
    "second half zeros": _zeroed,
    "random bytes": _junk,
    "other JSON": _other_json,
    "deleted": _deleted,
    "a folder": _a_folder,
    "unreadable": _unreadable,
}

FINISHED = (
    ("runs", "--json"),
    ("show", "last", "--json"),
    ("health", "last"),
    ("report", "last"),
    ("sample", "last", "--json", "--seed", "3"),
    ("evaluate", "last", "--task", "likelihood", "--json"),
)
STOPPED = (("train", "--resume", "last"),)
SOURCES = ("text.txt", "text.txt.gz", "text.jsonl", "text.parquet")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A home with something in it, and commands that read it.

    Attributes:
        name: what it is.
        folder: its home, cache and texts; copied for every case.
        commands: to be tried.
        files: to be damaged, relative to `folder`.
    """

    name: str
    folder: Path
    commands: Sequence[Sequence[str]]
    files: Sequence[str]


def run(*, share: float, jobs: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Damages files and tries commands.

    Args:
        share: of all cases, drawn at random.
        jobs: processes side by side.
        seed: decides which bytes are hit, and which cases are drawn.
        scratch: an empty folder.
    """
    scenes = [finished_scene(scratch), stopped_scene(scratch), new_scene(scratch)]
    cases = [
        (scene, file, damage, command)
        for scene in scenes
        for file in scene.files
        for damage in DAMAGES
        for command in scene.commands
        if Path(command[-1]).suffix == "" or command[-1] == f"data.source={file}" or not file.startswith("text.")
    ]
    draw = random.Random(seed)
    chosen = [case for case in cases if draw.random() < share]
    whole = {
        (scene.name, *command): result(attempt(scene, command, scratch / "whole"), scratch / "whole")
        for scene in scenes
        for command in scene.commands
    }
    found = in_parallel(
        lambda job: _try(chosen[job::jobs], whole, scratch / f"case-{job}", seed=seed), jobs=jobs, scratch=scratch
    )
    return {
        "cases": len(found),
        "files": len({(case["scene"], case["file"]) for case in found}),
        "outcomes": dict(Counter(case["outcome"] for case in found)),
        "silent": [case for case in found if case["outcome"] == "another result without a word"],
        "lost": [case for case in found if case["outcome"] == "trouble"],
    }


def _try(cases: Sequence[Any], whole: Mapping[Any, Any], place: Path, *, seed: int) -> Iterator[dict[str, Any]]:
    for scene, file, damage, command in cases:

        def spoil(folder: Path, file: str = file, damage: str = damage) -> None:
            DAMAGES[damage](folder / file, random.Random(f"{seed}/{file}/{damage}"))

        ended = attempt(scene, command, place, spoil=spoil, prepare=give_up_rights)
        outcome = judge(ended, result(ended, place), whole[(scene.name, *command)])
        if scene.name == "new" and outcome.startswith("another result"):
            outcome = "another text, taken as it stands"
        yield {
            "scene": scene.name,
            "file": file,
            "damage": damage,
            "command": " ".join(command),
            "outcome": outcome,
            "said": (ended.trouble or " / ".join(ended.err.splitlines()[-2:]))[-400:],
        }


def attempt(
    scene: Scene,
    command: Sequence[str],
    place: Path,
    *,
    spoil: Callable[[Path], None] = lambda folder: None,
    prepare: Callable[[], None] = nothing,
) -> Ended:
    """Runs a command on a copy of the scene, damaged by `spoil`."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(scene.folder, place)
    spoil(place)
    return remask(command, environment=places(place), folder=place, prepare=prepare)


def give_up_rights() -> None:
    """Gives root's capabilities up, so that permissions count as they do for everybody else."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the interface, this process
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def judge(ended: Ended, found: Any, wanted: Any) -> str:
    """What kind of answer a command gave."""
    if ended.trouble:
        return "trouble"
    if ended.code:
        lines = ended.said
        readable = 0 < len(lines) <= 3 and ended.err.splitlines()[-1] == lines[-1] and ended.code in (1, 2)
        return "refused in a line" if readable else "trouble"
    if found == wanted:
        return "the same result"
    words = (
        "is not the recipe",
        "cannot be found",
        "damaged",
        "skipped",
        "passed over",
        "left out",
        "could not be",
        "cannot be",
        "unreadable",
        "not list",
        "torn",
        "missing",
        "differ",
    )
    told = f"{ended.err}{found}"
    return "another result, and said so" if any(word in told for word in words) else "another result without a word"


def result(ended: Ended, place: Path) -> Any:
    """What a command gave, clocks and places aside."""
    if ended.code:
        return None
    if ended.out.strip().endswith(".html"):
        return _page(Path(ended.out.strip()))
    lines = [_parsed(line) for line in ended.out.splitlines()]
    trained = list(place.glob("runs/*/model/model.safetensors")) if not ended.out else []
    weights = sorted(path.read_bytes().hex() for path in trained)
    metrics = [
        _timeless(json.loads(line)) for path in place.glob("runs/*/metrics.jsonl") if trained for line in path.open()
    ]
    return [_timeless(line) for line in lines] + weights + metrics


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in (*CLOCKS, "path", "files", "run")}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def _page(path: Path) -> str:
    return path.read_text(encoding="utf-8").replace(str(path.parent.parent.parent), "")


# -- scenes -------------------------------------------------------------------------------------------


def _train(source: str) -> list[str]:
    return ["train", *VARIANTS["mdlm"], f"data.source={source}"]


def _must(ended: Ended) -> None:
    if ended.code or ended.trouble:
        raise RuntimeError(f"a scene could not be set: {ended.trouble or ended.err}")


def finished_scene(scratch: Path) -> Scene:
    """A run that was trained and evaluated."""
    folder = scratch / "finished"
    folder.mkdir()
    write_text(folder / "text.txt")
    for command in (_train("text.txt"), FINISHED[-1], FINISHED[3]):
        _must(remask(command, environment=places(folder), folder=folder))
    ngrams = [path for path in folder.rglob("cache/ngrams/*/*") if "order" in path.name][2:]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in ngrams]
    unread = ("lock", ".lock", "report.html")
    named = [str(path.relative_to(folder)) for path in files if not path.name.endswith(unread)]
    return Scene(
        name="finished",
        folder=folder,
        commands=FINISHED,
        files=[name for name in named if "checkpoints" not in name and not name.startswith("cache/tokenizers")],
    )


def stopped_scene(scratch: Path) -> Scene:
    """A run that was killed with two checkpoints on disk."""
    folder = scratch / "stopped"
    folder.mkdir()
    write_text(folder / "text.txt")
    watch = Watch([folder], At("before optimizer step", 19, kill_self))
    ended = remask(_train("text.txt"), environment=places(folder), folder=folder, prepare=watch.install)
    assert ended.killed, ended.err
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "ngrams" not in path.parts]
    return Scene(
        name="stopped",
        folder=folder,
        commands=STOPPED,
        files=[str(path.relative_to(folder)) for path in files if not path.name.endswith((".lock",))],
    )


def new_scene(scratch: Path) -> Scene:
    """Texts of every kind, and nothing trained yet."""
    import pyarrow
    import pyarrow.parquet

    folder = scratch / "new"
    folder.mkdir()
    text = write_text(folder / "text.txt").read_text(encoding="utf-8")
    documents = text.split("\n\n")
    (folder / "text.txt.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    pyarrow.parquet.write_table(pyarrow.table({"text": documents}), folder / "text.parquet")
    (folder / "recipe.yaml").write_text("name: own\ndata: {source: text.txt}\n")
    return Scene(name="new", folder=folder, commands=[_train(source) for source in SOURCES], files=SOURCES)
