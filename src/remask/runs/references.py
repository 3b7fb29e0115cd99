"""What a user may write for a run or an evaluation, and what is said where nothing fits, or too much."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from remask.errors import UserError, did_you_mean

_LISTED = 6  # candidates named in an error


@runtime_checkable
class Named(Protocol):
    """What has an id."""

    @property
    def id(self) -> str:
        """The id."""
        ...


Record = TypeVar("Record", bound=Named)


def by_prefix(reference: str, records: Sequence[Record], *, what: str) -> Record | None:
    """The one record whose id begins with a reference; None where none does.

    Args:
        reference: what the user wrote.
        records: all there are, newest first.
        what: the kind of records, in the plural: `runs`.

    Raises:
        UserError: several do.
    """
    matches = [record for record in records if reference and record.id.startswith(reference)]
    if len(matches) > 1:
        named = ", ".join(record.id for record in matches[:_LISTED])
        more = f" and {len(matches) - _LISTED} more" if len(matches) > _LISTED else ""
        raise UserError(f"'{reference}' begins the ids of {len(matches)} {what}: {named}{more}. Write more of it.")
    return matches[0] if matches else None


def unknown_run(reference: str, ids: Sequence[str], *, home: Path) -> UserError:
    """The error for a run that nothing fits, with the nearest ids."""
    if not ids:
        return UserError(f"no run '{reference}': {home} holds no runs yet, `remask train` starts one")
    return UserError(f"no run '{reference}' in {home}: {_hint(reference, ids)} `remask runs` lists all {len(ids)}.")


def unknown_evaluation(reference: str, ids: Sequence[str], *, run_id: str) -> UserError:
    """The error for an evaluation that nothing fits, with the nearest ids of the run."""
    if not ids:
        return UserError(f"no evaluation '{reference}': {run_id} has none yet, `remask evaluate {run_id}` makes one")
    return UserError(f"no evaluation '{reference}' of {run_id}: {_hint(reference, ids)}")


def _hint(reference: str, ids: Sequence[str]) -> str:
    near = difflib.get_close_matches(reference, ids, n=_LISTED, cutoff=0.5) or ids[:_LISTED]
    return did_you_mean(reference, [*near, "last"])
