"""Where runs are kept, and what they are called."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path

from remask.errors import UserError

_LONGEST_PART = 80  # characters; a folder's name may have 255 bytes in all
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*")


def runs_home() -> Path:
    """The folder that holds all runs: `REMASK_HOME` where it is set, else `./runs`. Creates nothing.

    Raises:
        UserError: the home is a file.
    """
    home = Path(os.environ.get("REMASK_HOME") or "runs").expanduser()
    if home.exists() and not home.is_dir():
        raise UserError(f"the home of runs, {home}, is not a folder: set REMASK_HOME to a folder")
    return home


def make_run_id(recipe: str, *, shape: str, moment: datetime) -> str:
    """A run's name: `{recipe}_{shape}_{YYYYMMDD_HHMMSS}`, with characters unfit for a folder replaced by `-`.

    Args:
        recipe: the recipe's name.
        shape: the network's size in short, e.g. `W256D4`.
        moment: when the run began; pass local time to read the clock on the wall.
    """
    parts = [folder_name(part) for part in (recipe, shape)]
    return "_".join([*parts, moment.strftime("%Y%m%d_%H%M%S")])


def timestamp() -> str:
    """Now, as ISO 8601 in UTC to the millisecond; such strings sort by time."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def is_plain_name(text: str) -> bool:
    """Whether a text is the name of one folder beside others: no path, not hidden, of at most 255 bytes."""
    return bool(_PLAIN.fullmatch(text)) and len(text) <= 255


def folder_name(text: str) -> str:
    """A text as part of a folder's name, with the characters that do not fit replaced by `-`."""
    return re.sub(r"[^A-Za-z0-9.\-]+", "-", text).strip("-.")[:_LONGEST_PART] or "run"
