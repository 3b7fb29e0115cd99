"""Where a run's weights come from: which checkpoints and models it went on from, and how."""

from collections.abc import Mapping, Sequence
from typing import Any

RESUMED, INITIALISED, CONVERTED = "resumed", "initialised", "converted"
"""Went on with its own training; began with another run's weights; was made from another library's model."""

_CHECKPOINTS = "/checkpoints/step-"


def understand(entries: Sequence[Any], *, run_id: str) -> list[dict[str, str]]:
    """A lineage as `{"how", "from"}` entries, oldest first, of entries that may be plain strings of an older remask.

    A plain string that names a checkpoint of the run itself was a resume, any other a start from other weights.

    Args:
        entries: as a record holds them.
        run_id: the run whose lineage it is.

    Raises:
        TypeError: an entry is neither a string nor a mapping.
        ValueError: an entry lacks `how` or `from`.
    """
    return [_entry(entry, run_id=run_id) for entry in entries]


def in_words(lineage: Sequence[Mapping[str, str]]) -> str:
    """A lineage as a phrase, e.g. `initialised from A/model, resumed from B/checkpoints/step-200`."""
    return ", ".join(f"{entry['how']} from {entry['from']}" for entry in lineage)


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
