"""SIGKILL at every kind of moment, and resume until the end: is the run the one that was never killed?"""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moments import At, Recorder, Watch, kill_self
from stage import Ended, forked, in_parallel, places, remask, write_text

TINY = (
    *("tokenizer.kind=bpe", "tokenizer.vocab_size=300", "data.length=16", "network.width=32", "network.layers=1"),
    *("network.heads=2", "network.dropout=0.1", "training.steps=18", "training.batch_size=4"),
    *("training.micro_batch_size=2", "training.log_every=1", "training.checkpoint_every=4"),
    *("training.evaluate_every=6", "training.evaluate_rows=4", "training.sample_every=9", "training.ema_decay=0.9"),
    *("evaluation.rows=4", "evaluation.draws=2", "sampling.count=2", "sampling.steps=4", "device=cpu"),
)
VARIANTS: Mapping[str, Sequence[str]] = {
    "mdlm": ("mdlm-file", *TINY),
    "proofread": ("proofread", *TINY, "training.optimizer=adamw"),
    "ar": ("ar-file", *TINY),
    "bd3lm": ("bd3lm", *TINY, "objective.block_length=4", "sampling.block_length=4"),
    "stream": (
        *("mdlm-file", *TINY, "data.source=FOLDER/shards", "data.validation=FOLDER/held-out.txt"),
        *("data.streaming=true", "data.lanes=4", "data.workers=1"),
        "data.mixture=[{source: FOLDER/more.jsonl, weight: 2.0}]",
    ),
}
"""What is trained: two optimisers, an average, dropout, accumulation; a steered bias; no noise at all; blocks; a stream
of shards mixed with another text, read by a worker process. FOLDER holds the texts."""

EVALUATE = ("evaluate", "last", "--task", "likelihood", "--json")
CLOCKS = frozenset({"seconds", "tokens_per_second", "run", "created", "steps_per_second", "evaluation"})
RANDOM_SHARE = 0.25
"""Strikes at a random time, of all."""

REPEATED = 3
"""Times that a moment comes in a whole run for it to be likely in one that goes on."""

LIVES = 6
"""Strikes a run takes at most."""


@dataclass(frozen=True, kw_only=True)
class Strike:
    """Where a process is to be killed: at the `count`-th moment of a name, or after so many seconds."""

    name: str
    count: int = 1
    seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.count})" if self.seconds is None else f"after {self.seconds:.2f} s"


@dataclass(frozen=True, kw_only=True)
class Original:
    """A run that nothing disturbed.

    Attributes:
        variant: what was trained.
        end: all that it left, as `finished_state` reads it.
        moments: how often each moment came, in training and in evaluation.
        seconds: how long the two took.
    """

    variant: str
    end: dict[str, Any]
    moments: dict[str, dict[str, int]]
    seconds: dict[str, float]


@dataclass
class Life:
    """One run through all of its kills.

    Attributes:
        folder: holds its runs and its cache.
        variant: what is trained.
        kills: where it was killed.
        lost: what was wrong.
    """

    folder: Path
    variant: str
    kills: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def run(*, count: int, jobs: int, fresh: int, only: Sequence[str], seed: int, scratch: Path) -> dict[str, Any]:
    """Kills processes `count` times and compares each run in the end.

    Args:
        count: kills.
        jobs: processes that work side by side.
        fresh: of the kills, how many strike a process that was started anew rather than forked.
        only: the variants to train.
        seed: decides where the strikes fall.
        scratch: an empty folder.
    """
    write_texts(scratch)
    originals = in_parallel(lambda job: _originals(only[job::jobs], scratch), jobs=jobs, scratch=scratch)
    share = [count // jobs + (job < count % jobs) for job in range(jobs)]
    anew = [fresh // jobs + (job < fresh % jobs) for job in range(jobs)]
    lives = in_parallel(
        lambda job: campaign(
            [Original(**original) for original in originals],
            count=share[job],
            fresh=anew[job],
            random_source=random.Random(f"{seed}/{job}"),
            scratch=scratch / f"job-{job}",
            text=scratch / "text.txt",
            part=(job, jobs),
        ),
        jobs=jobs,
        scratch=scratch,
    )
    return _report(lives)


def _originals(names: Sequence[str], scratch: Path) -> Iterator[dict[str, Any]]:
    for name in names:
        original = undisturbed(name, scratch / f"whole-{name}", text=scratch / "text.txt")
        yield vars(original)


def _report(lives: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    kills = [place for life in lives for place in life["kills"]]
    good = sum(len(life["kills"]) for life in lives if not life["lost"])
    return {
        "kills": len(kills),
        "resumed_bit_identical": good,
        "runs": len(lives),
        "runs_identical": sum(not life["lost"] for life in lives),
        "moments": dict(sorted(Counter(map(_kind, kills)).items())),
        "lost": [vars(Life(**life)) | {"folder": str(life["folder"])} for life in lives if life["lost"]],
    }


def _kind(kill: str) -> str:
    """The name of a kill's moment."""
    command, _, place = kill.partition(": ")
    return f"{command}: {place.rpartition(' (')[0] or 'at a random time'}"


def undisturbed(variant: str, folder: Path, *, text: Path) -> Original:
    """Trains and evaluates without a kill, and takes down every moment.

    Raises:
        RuntimeError: a command failed, so there is nothing to compare with.
    """
    folder.mkdir(parents=True)
    moments: dict[str, dict[str, int]] = {}
    seconds: dict[str, float] = {}
    for name, arguments in (("train", train_command(variant, text)), ("evaluate", EVALUATE)):
        record = folder / f"moments-{name}"
        record.touch()
        watch = Watch([folder], Recorder(record))
        ended = remask(arguments, environment=places(folder), folder=folder, prepare=watch.install)
        if ended.code:
            raise RuntimeError(f"an undisturbed {' '.join(map(str, arguments))} failed: {ended.err}")
        moments[name] = dict(Counter(record.read_text(encoding="utf-8").splitlines()))
        record.unlink()
        seconds[name] = ended.seconds
    return Original(variant=variant, end=finished_state(folder), moments=moments, seconds=seconds)


def campaign(
    originals: Sequence[Original],
    *,
    count: int,
    fresh: int,
    random_source: random.Random,
    scratch: Path,
    text: Path,
    part: tuple[int, int],
) -> Iterator[dict[str, Any]]:
    """Runs, one after the other, until `count` processes were killed; yields each `Life` as a mapping."""
    scratch.mkdir(parents=True, exist_ok=True)
    wanted = {original.variant: _strikes(original, random_source, part) for original in originals}
    done = number = 0
    while done < count:
        original = originals[number % len(originals)]
        life = Life(folder=scratch / f"run-{number}", variant=original.variant)
        live(
            life,
            original,
            strikes=wanted[original.variant],
            random_source=random_source,
            text=text,
            most=min(LIVES, count - done),
            anew=fresh - done > 0,
        )
        done += len(life.kills)
        number += 1
        yield vars(life) | {"folder": str(life.folder)}


def _strikes(original: Original, random_source: random.Random, part: tuple[int, int]) -> dict[str, list[str]]:
    """The names of the moments that this job strikes at, in random order, for each command."""
    found = {}
    for command, moments in original.moments.items():
        names = sorted(moments)[part[0] :: part[1]]
        random_source.shuffle(names)
        found[command] = names
    return found


def live(
    life: Life,
    original: Original,
    *,
    strikes: dict[str, list[str]],
    random_source: random.Random,
    text: Path,
    most: int,
    anew: bool,
) -> None:
    """Trains and evaluates through up to `most` kills, then to the end, and says what differs from the original."""
    life.folder.mkdir(parents=True)
    for command in ("train", "evaluate"):
        budget = min(most - len(life.kills), LIVES - 1 if command == "train" else 1)
        for left in range(budget, -1, -1):
            first = left == budget
            strike = _next(strikes[command], original, command, random_source, first=first) if left else None
            arguments = train_or_resume(life.variant, life.folder, text) if command == "train" else EVALUATE
            if arguments is None:  # killed after its last word was written: nothing is left to do
                break
            run_it = _fresh if anew and strike is not None and command == "train" else _forked
            ended = run_it(arguments, life.folder, strike, original.seconds[command], random_source)
            if ended.killed and strike is not None:
                life.kills.append(f"{command}: {'after its start' if run_it is _fresh else strike}")
                life.lost += sound(life.folder)
                continue
            if ended.code or ended.trouble:
                life.lost.append(f"{' '.join(map(str, arguments))}: {ended.trouble or ended.err[-500:]}")
                return
            if strike is not None and strike.seconds is None and run_it is _forked:
                strikes[command].insert(0, strike.name)  # it came to its end before
            break
    life.lost += difference(finished_state(life.folder), original.end)


def _next(names: list[str], original: Original, command: str, random_source: random.Random, *, first: bool) -> Strike:
    """A moment that no process was killed at yet, or a random time.

    A run that goes on comes by fewer moments than one that begins, so there one is chosen that comes often.
    """
    often = original.moments[command]
    fitting = names if first else [name for name in names if often[name] >= REPEATED]
    if not fitting or random_source.random() < RANDOM_SHARE:
        return Strike(name="time", seconds=random_source.uniform(0.02, 1.0) * original.seconds[command])
    name = fitting[-1]
    names.remove(name)
    return Strike(name=name, count=random_source.randint(1, max(1, often[name] // 3)))


def train_command(variant: str, text: Path) -> list[str]:
    """The arguments of a new run."""
    given = [word.replace("FOLDER", str(text.parent)) for word in VARIANTS[variant]]
    return ["train", *given, *([] if "data.source" in " ".join(given) else [f"data.source={text}"])]


def write_texts(folder: Path) -> Path:
    """Writes all texts of the variants; returns the one that most of them read."""
    (folder / "shards").mkdir()
    for number, path in enumerate(
        [*(folder / "shards" / f"{shard}.jsonl" for shard in range(3)), folder / "more.jsonl"]
    ):
        words = write_text(path, paragraphs=20, seed=number + 1).read_text(encoding="utf-8")
        lines = [json.dumps({"text": paragraph}) for paragraph in words.split("\n\n")]
        path.write_text("\n".join(lines), encoding="utf-8")
    write_text(folder / "held-out.txt", paragraphs=20, seed=9)
    return write_text(folder / "text.txt")


def train_or_resume(variant: str, folder: Path, text: Path) -> list[str] | None:
    """What a person would type: resume a run that is listed, else begin again; None where it has finished."""
    listed = in_a_process(folder, _newest)
    if listed is None:
        return train_command(variant, text)
    return None if listed["status"] == "finished" else ["train", "--resume", "last"]


def _forked(
    arguments: Sequence[str], folder: Path, strike: Strike | None, seconds: float, random_source: random.Random
) -> Ended:
    del seconds, random_source
    if strike is None or strike.seconds is not None:
        after = None if strike is None else strike.seconds
        return remask(arguments, environment=places(folder), folder=folder, strike_after=after)
    watch = Watch([folder], At(strike.name, strike.count, kill_self))
    return remask(arguments, environment=places(folder), folder=folder, prepare=watch.install)


def _fresh(
    arguments: Sequence[str], folder: Path, strike: Strike | None, seconds: float, random_source: random.Random
) -> Ended:
    """A process that Python starts anew (nothing shared, another hash seed), killed at a random time."""
    del strike
    command = [sys.executable, "-m", "remask", *arguments]
    environment = {**os.environ, **places(folder)}
    process = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = b""
    for line in process.stderr:
        said += line
        if line.startswith((b"folder ", b"resuming ")):
            break
    try:
        _, rest = process.communicate(timeout=random_source.uniform(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        _, rest = process.communicate()
    return Ended(code=process.returncode, out="", err=(said + rest).decode(errors="replace"), seconds=0.0)


def sound(folder: Path) -> list[str]:
    """What is wrong with a home after a kill: nothing, if it can be listed and every log can be read."""
    ended = forked(lambda: _look(folder))
    return [] if ended.code == 0 else [f"after a kill: {ended.err.strip().splitlines()[-1]}"]


def _look(folder: Path) -> None:
    from remask.runs import Registry

    registry = Registry(folder / "runs")
    for record in registry.list():
        assert record.status != "running", f"{record.id} is said to be running"
        run = registry.folder_of(record)
        steps = [line["step"] for line in run.metrics() if line["kind"] == "train"]
        assert steps == sorted(set(steps)), f"training lines of {record.id}: {steps}"
        json.loads(run.record_path.read_bytes())
        registry.evaluations(record.id)


def _newest(folder: Path) -> dict[str, Any] | None:
    from remask.runs import Registry

    records = Registry(folder / "runs").list()
    return records[0].to_json() if records else None


def in_a_process(folder: Path, ask: Any) -> Any:
    """What `ask(folder)` returns, asked in a forked process so that this one never opens the registry."""
    ended = forked(lambda: print(json.dumps(ask(folder))))
    if ended.code:
        raise RuntimeError(ended.err)
    return json.loads(ended.out)


def finished_state(folder: Path) -> dict[str, Any]:
    """All that a finished run left, clocks aside: digests of weights, and every figure and text."""
    return in_a_process(folder, _read_end)


def _read_end(folder: Path) -> dict[str, Any]:
    from remask.runs import Registry

    registry = Registry(folder / "runs")
    (record,) = registry.list()
    run = registry.folder_of(record)
    files = [run.model_path / "model.safetensors", *sorted(run.checkpoints_path.glob("step-*/*.safetensors"))]
    kept = ("status", "step", "tokens_seen", "headline", "verdict", "trivial", "data_hash", "tokenizer_hash", "error")
    values = record.to_json()
    return {
        "weights": {str(path.relative_to(run.path)): _hash(path) for path in files},
        "metrics": [_timeless(line) for line in run.metrics()],
        "samples": [_timeless(line) for line in run.samples()],
        "trajectory": _timeless(json.loads(run.trajectory_path.read_text(encoding="utf-8"))),
        "evaluations": _once([_timeless(line) for line in registry.evaluations(record.id)]),
        "record": {name: values[name] for name in kept},
        "leftovers": sorted(path.name for path in run.path.glob(".*") if path.is_dir()),
    }


def _once(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines without repeats: an evaluation may have been stored whose command was killed, and so repeated."""
    return list({json.dumps(line, sort_keys=True): line for line in lines}.values())


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(line: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key not in CLOCKS}


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs, a line each."""
    lines = []
    for name, value in wanted.items():
        if found[name] != value:
            lines.append(f"{name} differ: {_first_difference(found[name], value)}")
    return lines


def _first_difference(found: Any, wanted: Any) -> str:
    if isinstance(found, list) and isinstance(wanted, list):
        pairs = [(a, b) for a, b in zip(found, wanted, strict=False) if a != b]
        return f"{len(found)} lines for {len(wanted)}" + (f", {pairs[0][0]} for {pairs[0][1]}" if pairs else "")
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
        return ", ".join(f"{name}: {found.get(name)!r} for {wanted.get(name)!r}" for name in names)
    return f"{found!r} for {wanted!r}"
