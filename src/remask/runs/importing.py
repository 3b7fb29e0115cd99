"""Taking a run folder of another machine into a home: whole, or not at all."""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remask.errors import UserError
from remask.runs.files import disk_error, is_leftover, json_line, write_atomic
from remask.runs.folder import RunFolder
from remask.runs.home import is_plain_name
from remask.runs.lock import LOCK_FILES
from remask.runs.record import RunRecord
from remask.runs.removal import sweep
from remask.runs.store import Store

_CHUNK = 2**20  # bytes
_RECORDS = ("run.json", "evaluation.json")


@dataclass(frozen=True, kw_only=True)
class TakenIn:
    """What became of a folder that was to be imported.

    Attributes:
        record: the run, as the home has it.
        was_there: whether the home had it, with the same content.
    """

    record: RunRecord
    was_there: bool


def take_in(store: Store, source: Path) -> TakenIn:
    """Copies a run folder into the home and lists it with its evaluations; see `Registry.take_in`."""
    record = _read(store, source)
    entries = _entries(source)
    target = store.home / record.id
    if target.exists():
        _refuse_other(source, target, entries)
        with store.database.write() as connection:
            return TakenIn(record=store.present(connection, record.id), was_there=True)
    sweep(store.home)
    temporary = store.home / f".{record.id[:200]}.{os.urandom(6).hex()}.import"
    try:
        _copy(source, temporary, entries)
        _settle(temporary)
        return TakenIn(record=_list(store, temporary, target), was_there=False)
    except OSError as error:
        raise disk_error(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _list(store: Store, temporary: Path, target: Path) -> RunRecord:
    """Gives the folder its name and lists it, or leaves it where it was."""
    try:
        with store.database.write() as connection:
            _refuse_listed(store, store.listed(connection, target.name))
            os.rename(temporary, target)  # fails where another import was quicker
            taken = store.read_run(target)
            assert taken is not None, "it was read before it was copied"
            store.adopt_run(connection, taken)
            return taken
    except BaseException:
        if not temporary.exists():
            os.rename(target, temporary)
        raise


def _read(store: Store, source: Path) -> RunRecord:
    if not source.is_dir():
        raise UserError(f"{source} is not a folder: give the folder of a run, which has a run.json")
    record = store.read_run(source)
    if record is None:
        raise UserError(f"{source} is not a run's folder: it has no readable run.json")
    if not is_plain_name(record.id):
        raise UserError(f"{source}: its run.json has the id '{record.id}', which cannot be a folder's name")
    if source.resolve().is_relative_to(store.home.resolve()):
        raise UserError(f"{source} lies in {store.home}, the home of runs: `remask runs --rebuild` lists what is there")
    if record.status == "running" and RunFolder(source).is_locked():
        raise UserError(f"run {record.id} is being trained into {source}. Wait for it or stop it, then import it")
    return record


def _entries(source: Path) -> list[Path]:
    """What is copied, relative to the folder: files and links, without locks and what kills left.

    Raises:
        UserError: a link leads out of the folder or nowhere, or something is neither file, folder nor link.
    """
    return [path.relative_to(source) for path in _walk(source, root=source.resolve())]


def _walk(folder: Path, *, root: Path) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from error
    for path in paths:
        if path.name in LOCK_FILES or is_leftover(path.name):
            continue
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            _refuse_outward(path, root=root)
            yield path
        elif stat.S_ISDIR(mode):
            yield from _walk(path, root=root)
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise UserError(f"{path} is neither a file nor a folder: an import copies these only")


def _refuse_outward(link: Path, *, root: Path) -> None:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        raise UserError(f"{link} is a symbolic link that leads nowhere: remove it, then import again") from None
    if not target.is_relative_to(root):
        raise UserError(
            f"{link} is a symbolic link out of the folder, to {target}: put a copy in its place, then import again"
        )


def _refuse_listed(store: Store, listed: RunRecord | None) -> None:
    if listed is not None:
        raise UserError(
            f"there is a run {listed.id} in {store.home} already, in {store.folder_of(listed).path}: "
            f"`remask remove {listed.id}` takes it away"
        )


def _refuse_other(source: Path, target: Path, entries: list[Path]) -> None:
    """Lets pass only a folder that holds what is there already."""
    present = _entries(target)
    differing = sorted(
        str(path)
        for path in {*entries, *present}
        if path not in entries or path not in present or not _same(path, source, target)
    )
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise UserError(
            f"there is a run {target.name} in {target.parent} already, and {source} differs from it in "
            f"{', '.join(differing[:3])}{more}. To take this one instead: remask remove {target.name}"
        )


def _same(path: Path, source: Path, target: Path) -> bool:
    one, other = source / path, target / path
    if one.is_symlink() or other.is_symlink():
        ends = [(place / path).resolve().relative_to(place.resolve()) for place in (source, target)]
        return one.is_symlink() and other.is_symlink() and ends[0] == ends[1]
    if path.name in _RECORDS:
        return _settled(_json(one)) == _settled(_json(other))
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as first, other.open("rb") as second:
        while chunk := first.read(_CHUNK):
            if chunk != second.read(_CHUNK):
                return False
    return True


def _settled(values: Any) -> Any:
    """A record as an import leaves it, without what a home adds: where it lies."""
    if not isinstance(values, dict):
        return values
    status = "killed" if values.get("status") == "running" else values.get("status")
    return {**values, "status": status, "folder": None}


def _json(path: Path) -> Any:
    with suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_bytes())
    return None


def _copy(source: Path, temporary: Path, entries: list[Path]) -> None:
    temporary.mkdir(parents=True)
    root = source.resolve()
    for path in entries:
        (temporary / path).parent.mkdir(parents=True, exist_ok=True)
        if (source / path).is_symlink():
            inside = (source / path).resolve().relative_to(root)
            os.symlink(os.path.relpath(inside, path.parent), temporary / path)
        else:
            shutil.copy2(source / path, temporary / path)


def _settle(folder: Path) -> None:
    """Marks as killed what says that it is running: on this machine no process does it."""
    for path in (folder / "run.json", *folder.glob("evaluations/*/evaluation.json")):
        values = _json(path)
        if isinstance(values, dict) and values.get("status") == "running":
            write_atomic(path, json_line({**values, "status": "killed"}) + "\n")
