"""Who works in a folder: a lock that the system gives back when its holder dies, and the holder's name."""

import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from remask.errors import UserError
from remask.runs.files import disk_error, json_line, remove_leftovers, write_atomic
from remask.runs.home import timestamp

_WAIT = 1.0  # seconds; `is_held` holds the lock for an instant, which must not fail a training
_LEFTOVER_AGE = 600.0  # seconds
LOCK_FILES = ("lock", "lock.json")


class FolderLock:
    """The lock of one folder, held by one process at a time.

    Attributes:
        path: the lock's file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path, self._holder_path = (folder / name for name in LOCK_FILES)

    @contextmanager
    def hold(self, *, in_use: Callable[[], str]) -> Iterator[None]:
        """Holds the folder; the system lets go when the process dies, even by SIGKILL.

        Args:
            in_use: what the user is told when another process holds it.

        Raises:
            UserError: another process holds it.
            RunError: the lock file cannot be written.
        """
        from filelock import FileLock, Timeout  # 50 ms of imports that listing runs does not need

        lock = FileLock(str(self.path), timeout=_WAIT, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(in_use()) from None
        except OSError as error:
            raise disk_error(self.path, error) from error
        try:
            holder = {"pid": os.getpid(), "host": platform.node(), "since": timestamp()}
            write_atomic(self._holder_path, json_line(holder) + "\n")
            remove_leftovers(self._folder, older_than=_LEFTOVER_AGE)
            yield
        finally:
            with suppress(OSError):
                self._holder_path.unlink(missing_ok=True)
            lock.release()

    def is_held(self) -> bool:
        """Whether a process holds the folder. True too where the lock may not be tried (read-only)."""
        if not self.path.exists():
            return False
        from filelock import FileLock, Timeout

        lock = FileLock(str(self.path), thread_local=False)
        try:
            lock.acquire(blocking=False)
        except (Timeout, OSError):
            return True
        lock.release()
        return False

    def holder(self) -> dict[str, Any] | None:
        """Who took the lock last and did not give it back: `pid`, `host`, `since`; None if nobody did."""
        try:
            holder = json.loads(self._holder_path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return holder if isinstance(holder, dict) else None
