"""Where a run's weights come from: which checkpoints and models it went on from, and how."""

from collections.abc import Mapping, Sequence
from typing import Any

RESUMED, INITIALISED, CONVERTED, ENCLOSED = "resumed", "initialised", "converted", "enclosed"
"""Went on with its own training; began with another run's weights; was made from another library's model; is around
another run's model, which stays as it is."""

_CHECKPOINTS = "/checkpoints/step-"


def understand(entries: Sequence[Any], *, run_id: str) -> list[dict[str, str]]:
    """A lineage as `{"how", "from"}` entries, oldest first, of entries that may be plain strings of an older remask.

    An entry may also hold `git_commit` and `machine`, where the run went on with others than its record names, and
    `but`, the part of a network whose weights were not taken.

    A plain string that names a checkpoint of the run itself was a resume, any other a start from other weights.

    Args:
        entries: as a record holds them.
        run_id: the run whose lineage it is.

    Raises:
        TypeError: an entry is neither a string nor a mapping.
        ValueError: an entry lacks `how` or `from`.
    """
    return [_entry(entry, run_id=run_id) for entry in entries]


def resumed(run_id: str, *, step: int, recorded: object, here: Mapping[str, Any]) -> dict[str, str]:
    """The entry of a resume: the checkpoint, and the code and the machine where they are others by now.

    Args:
        run_id: the run that goes on.
        step: of the checkpoint.
        recorded: has the `git_commit` and `machine` that the run began with, a `RunRecord`.
        here: those of this process, None where unknown.
    """
    changed = {
        name: here[name] for name in ("git_commit", "machine") if here[name] not in (None, getattr(recorded, name))
    }
    return {"how": RESUMED, "from": f"{run_id}{_CHECKPOINTS}{step}", **changed}


def in_words(lineage: Sequence[Mapping[str, str]]) -> str:
    """A lineage as a phrase, e.g. `initialised from A/model, resumed from B/checkpoints/step-200`."""
    return ", ".join(f"{entry['how']} from {entry['from']}{_aside(entry)}" for entry in lineage)


def _aside(entry: Mapping[str, str]) -> str:
    """What was not taken, and on what code and machine a run went on, where they were others than its record's."""
    told = [f"all but its {entry['but']}"] if entry.get("but") else []
    told += [f"by commit {entry['git_commit'][:7]}"] if entry.get("git_commit") else []
    told += [f"on {entry['machine']}"] if entry.get("machine") else []
    return f" ({' '.join(told)})" if told else ""


def names_run(lineage: Sequence[Mapping[str, str]], run_id: str) -> bool:
    """Whether a lineage goes through a run or one of its checkpoints, given as its id, or a path that contains it."""
    return any(run_id in entry["from"].replace("\\", "/").split("/") for entry in lineage)


def _entry(entry: Any, *, run_id: str) -> dict[str, str]:
    if isinstance(entry, str):
        how = RESUMED if entry.startswith(f"{run_id}{_CHECKPOINTS}") else INITIALISED
        return {"how": how, "from": entry}
    if not isinstance(entry, Mapping):
        raise TypeError(f"a lineage entry is a {type(entry).__name__}, not a mapping with 'how' and 'from'")
    if not {"how", "from"} <= set(entry):
        raise ValueError(f"a lineage entry lacks 'how' or 'from': {dict(entry)}")
    return {str(key): str(value) for key, value in entry.items()}
