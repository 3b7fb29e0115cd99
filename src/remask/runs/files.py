"""Files that are never half-written: atomic replacement, and logs of one JSON object a line."""

import errno
import json
import math
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from remask.errors import RunError

_BINARY = getattr(os, "O_BINARY", 0)  # Windows would turn "\n" into "\r\n" without it
_UNFINISHED = (".tmp", ".partial", ".removed", ".import")


def write_atomic(path: Path | str, content: bytes | str) -> None:
    """Replaces a file in one step, so that a reader or a kill sees the old content or the new, never a part.

    Args:
        path: the file; its folder must exist.
        content: all of it; text is written as UTF-8.

    Raises:
        RunError: the disk is full, the folder is read-only, …; the old file is untouched.
    """
    path = Path(path)
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        # O_EXCL with 0o666 (not mkstemp's 0o600): the umask decides who may read a run
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except OSError as error:
        _remove(temporary)
        raise disk_error(path, error) from error
    except BaseException:
        _remove(temporary)
        raise
    _sync_folder(path.parent)


def disk_error(path: Path, error: OSError) -> RunError:
    """The one line for a file or folder that could not be written: its path, the reason, what was kept."""
    reason = error.strerror or str(error)
    return RunError(f"cannot write {path}: {reason}; what was saved before is kept")


def new_folder(parent: Path, name: str) -> Path:
    """Makes a folder that nobody else has: `name` within `parent` (made too), or `name-2`, … where that is taken.

    Raises:
        RunError: the folder cannot be made.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(parent, error) from error
    for number in count(1):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise disk_error(path, error) from error
        return path
    raise AssertionError("count() has no end")


def is_leftover(name: str) -> bool:
    """Whether a file or folder of this name is what a killed process left of something that it was writing."""
    return name.startswith(".") and name.endswith(_UNFINISHED)


def remove_leftovers(folder: Path, *, older_than: float) -> None:
    """Removes temporary files that killed processes left in a folder.

    Args:
        folder: where `write_atomic` wrote.
        older_than: seconds since the last change; younger ones may belong to a living process.
    """
    for leftover in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > older_than:
                leftover.unlink()


def plain(value: Any) -> Any:
    """A value as JSON can hold it: non-finite numbers become None, 0-d arrays numbers, arrays lists.

    Raises:
        TypeError: the value has no form in JSON.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy's and torch's scalars and arrays, without importing either
        return plain(value.tolist())
    raise TypeError(f"no JSON form for a {type(value).__name__}")


def storable(values: Mapping[str, Any]) -> dict[str, Any]:
    """`plain` values, of whose texts a database can hold each: bytes that are no UTF-8 become question marks."""
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) and not value.isascii() else value
        for name, value in plain(values).items()
    }


def json_line(record: Mapping[str, Any]) -> str:
    """A record as one line of JSON, without its line end and without NaN."""
    return json.dumps(plain(record), ensure_ascii=False, allow_nan=False)


def read_json_lines(path: Path | str) -> list[dict[str, Any]]:
    """The records of a JSON-lines file, oldest first; an absent file has none.

    A line that a killed process or a full disk cut short is skipped: the start of a JSON object is
    never itself one, and writers begin on a fresh line after it.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    # split by "\n" only: str.splitlines would also cut at separators that text may hold
    return [record for line in data.split(b"\n") if (record := _parse(line)) is not None]


def unreadable_lines(path: Path | str) -> int:
    """How many lines of a JSON-lines file `read_json_lines` passes over: those of a kill, or damage."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return 0
    return sum(1 for line in data.split(b"\n") if line.strip() and _parse(line) is None)


class JsonLines:
    """A log of JSON objects that is appended to a line at a time; each line reaches the system at once."""

    def __init__(self, path: Path, *, sync_interval: float) -> None:
        """Opens nothing yet.

        Args:
            path: the file, created by the first append.
            sync_interval: the least seconds between two flushes to the disk itself; 0 flushes each line.
        """
        self.path = path
        self._sync_interval = sync_interval
        self._descriptor: int | None = None
        self._synced = -math.inf

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one line, whole in a single write.

        Raises:
            RunError: the disk is full or the file cannot be written.
        """
        line = f"{json_line(record)}\n".encode("utf-8", "backslashreplace")
        try:
            if self._descriptor is None:
                self._descriptor = _open_on_fresh_line(self.path)
            _write_all(self._descriptor, line)
            if time.monotonic() - self._synced >= self._sync_interval:
                _sync(self._descriptor)
                self._synced = time.monotonic()
        except OSError as error:
            self.close()  # the next append looks again whether the last line is whole
            raise disk_error(self.path, error) from error

    def extend(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Adds a line for each record."""
        for record in records:
            self.append(record)

    def records(self) -> list[dict[str, Any]]:
        """All whole lines, oldest first."""
        return read_json_lines(self.path)

    def trim(self, *, after_step: int) -> None:
        """Drops, atomically, the lines whose `step` is greater than `after_step`, and cut-off lines.

        Raises:
            RunError: the file cannot be replaced; it is unchanged then.
        """
        self.close()
        if not self.path.exists():
            return
        self.replace(record for record in self.records() if (record.get("step") or 0) <= after_step)

    def replace(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Puts these lines in the place of all that there are, atomically.

        Raises:
            RunError: the file cannot be replaced; it is unchanged then.
        """
        self.close()
        write_atomic(self.path, "".join(f"{json_line(record)}\n" for record in records))

    def close(self) -> None:
        """Flushes to the disk and closes; a later append opens again."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        with suppress(OSError):
            _sync(descriptor)
        os.close(descriptor)


def _open_on_fresh_line(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | _BINARY, 0o666)
    try:
        if os.fstat(descriptor).st_size > 0:
            os.lseek(descriptor, -1, os.SEEK_END)
            if os.read(descriptor, 1) != b"\n":
                _write_all(descriptor, b"\n")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a pipe or device has nothing to flush
            raise


def _sync_folder(folder: Path) -> None:
    # makes the rename itself durable; systems that cannot open a folder go without
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
