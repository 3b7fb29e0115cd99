"""The SQLite file behind the registry: how it is opened, upgraded and locked, and its errors in one line."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from remask.errors import RunError, UserError
from remask.runs.files import disk_error

_BUSY_SECONDS = 30.0
_NO_ROOM = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN)

# One entry a schema version; entries are never changed once released, only followed by others.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE runs (
            id TEXT PRIMARY KEY,
            recipe TEXT NOT NULL,
            family TEXT NOT NULL,
            seed INTEGER NOT NULL,
            created TEXT NOT NULL,
            status TEXT NOT NULL,
            finished TEXT,
            folder TEXT NOT NULL,
            git_commit TEXT,
            git_dirty INTEGER,
            data_hash TEXT,
            tokenizer_hash TEXT,
            config_hash TEXT,
            machine TEXT,
            device TEXT,
            torch_version TEXT,
            python_version TEXT,
            parameters INTEGER,
            tokens_seen INTEGER NOT NULL,
            step INTEGER NOT NULL,
            steps INTEGER,
            steps_per_second REAL,
            tokens_per_second REAL,
            peak_memory_bytes INTEGER,
            lineage TEXT NOT NULL,
            links TEXT NOT NULL,
            tags TEXT NOT NULL,
            conclusion TEXT,
            verdict TEXT,
            headline TEXT NOT NULL,
            trivial TEXT NOT NULL,
            error TEXT
        )
        """,
        "CREATE INDEX runs_by_created ON runs (created)",
        """
        CREATE TABLE evaluations (
            number INTEGER PRIMARY KEY,
            run_id TEXT NOT NULL,
            task TEXT NOT NULL,
            name TEXT NOT NULL,
            value REAL,
            unit TEXT NOT NULL,
            n INTEGER NOT NULL,
            stderr REAL,
            trivial TEXT NOT NULL,
            protocol TEXT NOT NULL,
            created TEXT NOT NULL
        )
        """,
        "CREATE INDEX evaluations_by_run ON evaluations (run_id)",
    ),
    (
        "ALTER TABLE runs ADD COLUMN git_tag TEXT",
        "ALTER TABLE runs ADD COLUMN architecture TEXT",
        "ALTER TABLE runs ADD COLUMN data TEXT",
        "ALTER TABLE runs ADD COLUMN tokenizer TEXT",
        "ALTER TABLE runs ADD COLUMN objective TEXT",
        "ALTER TABLE runs ADD COLUMN extra_losses TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE runs ADD COLUMN setup_hash TEXT",
        "ALTER TABLE runs ADD COLUMN active_parameters INTEGER",
        "ALTER TABLE runs ADD COLUMN train_tokens INTEGER",
        "ALTER TABLE runs ADD COLUMN seconds REAL",
        "ALTER TABLE runs ADD COLUMN flops_per_token REAL",
        "ALTER TABLE runs ADD COLUMN flops REAL",
        # what version 1 calls evaluations are single figures, of which an evaluation has several
        "ALTER TABLE evaluations RENAME TO measurements",
        "ALTER TABLE measurements ADD COLUMN evaluation TEXT",
        """
        CREATE TABLE evaluations (
            run_id TEXT NOT NULL,
            id TEXT NOT NULL,
            task TEXT NOT NULL,
            created TEXT NOT NULL,
            status TEXT NOT NULL,
            finished TEXT,
            checkpoint TEXT,
            model_hash TEXT,
            step INTEGER,
            git_commit TEXT,
            git_dirty INTEGER,
            git_tag TEXT,
            machine TEXT,
            device TEXT,
            torch_version TEXT,
            python_version TEXT,
            data_hash TEXT,
            tokenizer_hash TEXT,
            seconds REAL,
            peak_memory_bytes INTEGER,
            links TEXT NOT NULL,
            tags TEXT NOT NULL,
            conclusion TEXT,
            error TEXT,
            PRIMARY KEY (run_id, id)
        )
        """,
    ),
)


class UnusableRegistry(UserError):
    """The registry's file is corrupt or of another version; it can be made anew from the run folders."""


class Database:
    """A SQLite file that several processes read and write at once, each for moments only.

    Every use opens and closes a connection of its own: nothing is held across a fork, a kill, or a
    replacement of the file.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, *, on_create: Callable[[sqlite3.Connection], None]) -> None:
        """Opens nothing yet.

        Args:
            path: the file, created by the first write.
            on_create: fills a newly created file, within the transaction that creates its tables.
        """
        self.path = path
        self._on_create = on_create

    def exists(self) -> bool:
        """Whether the file is there; reading one that is not is the caller's empty answer."""
        return self.path.exists()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection to an existing file, upgraded to the present schema; one that cannot be written, in a copy.

        It works in a read-only folder and on a full disk too, where SQLite cannot make the files that it reads a
        write-ahead log by: if no log lies there, the file is read as it is.

        Raises:
            UnusableRegistry: the file is corrupt or was written by a newer remask.
            RunError: the file cannot be opened, or is locked for longer than 30 s.
        """
        with self._errors(), closing(self._connect_to_read()) as connection:
            self._check_size(connection)
            with self._upgraded(connection) as upgraded:
                yield upgraded

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its start; rolled back when the body raises.

        Raises:
            UnusableRegistry: the file is corrupt or was written by a newer remask.
            RunError: the folder is read-only, the disk is full, or the file is locked for longer than 30 s.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(self.path.parent, error) from error
        with self._errors(), closing(self._connect("mode=rwc")) as connection:
            _use_write_ahead_log(connection)
            self._check_size(connection)
            self._upgrade(connection)
            with _immediate(connection):
                yield connection

    def check(self, connection: sqlite3.Connection) -> None:
        """Reads every page of the file.

        Raises:
            UnusableRegistry: a page is damaged.
        """
        finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if finding != "ok":
            raise self.unusable(finding)

    def replace(self) -> Path | None:
        """Builds the file anew from `on_create` and puts it in the old one's place in one step.

        Returns:
            Where the old file is kept, or None if there was none.

        Raises:
            RunError: the folder cannot be written.
        """
        fresh = Database(self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp"), on_create=self._on_create)
        kept = self.path.with_name(f"{self.path.name}.bak") if self.exists() else None
        try:
            fresh.path.unlink(missing_ok=True)
            with fresh._errors(), closing(fresh._connect("mode=rwc")) as connection:
                fresh._upgrade(connection)
            if kept is not None:
                kept.write_bytes(self.path.read_bytes())
            # the old write-ahead log must go first: SQLite would replay it into the new file
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
            os.replace(fresh.path, self.path)
        except OSError as error:
            raise disk_error(self.path, error) from error
        finally:
            with suppress(OSError):
                fresh.path.unlink(missing_ok=True)
        return kept

    def _connect(self, mode: str) -> sqlite3.Connection:
        # isolation_level None: sqlite3 opens no transactions of its own accord
        address = f"{self.path.resolve().as_uri()}?{mode}"
        return sqlite3.connect(address, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)

    def _connect_to_read(self) -> sqlite3.Connection:
        connection = self._connect(self._read_mode())
        try:
            self._version(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            if _primary_code(error) not in _NO_ROOM or self._log_size():
                raise
            return self._connect("mode=ro&immutable=1")
        except BaseException:
            connection.close()
            raise
        return connection

    def _read_mode(self) -> str:
        if os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK):
            return "mode=rw"
        # without write access SQLite reads a write-ahead log only if one lies there; else the file as it is
        log = self.path.with_name(f"{self.path.name}-wal")
        return "mode=ro" if log.exists() else "mode=ro&immutable=1"

    def _check_size(self, connection: sqlite3.Connection) -> None:
        """Notices a file that was cut short within its last page, of which SQLite reads the missing part as zeros.

        Raises:
            UnusableRegistry: the file is no whole number of pages, and no log waits to complete it.
        """
        page = connection.execute("PRAGMA page_size").fetchone()[0]
        if self.path.stat().st_size % page and not self._log_size():
            raise self.unusable("it was cut short")

    def _log_size(self) -> int:
        """Bytes of the write-ahead log, 0 where there is none."""
        with suppress(FileNotFoundError):
            return self.path.with_name(f"{self.path.name}-wal").stat().st_size
        return 0

    @contextmanager
    def _upgraded(self, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        """The connection after its upgrade; where the file may only be read, one to an upgraded copy in memory."""
        try:
            self._upgrade(connection)
            copy = None
        except sqlite3.OperationalError as error:
            if _primary_code(error) != sqlite3.SQLITE_READONLY:
                raise
            copy = sqlite3.connect(":memory:", isolation_level=None)
        if copy is None:
            yield connection
            return
        with closing(copy):
            connection.backup(copy)
            self._upgrade(copy)
            yield copy

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        if self._version(connection) == len(MIGRATIONS):
            return
        with _immediate(connection):
            version = self._version(connection)  # another process may have upgraded meanwhile
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    connection.execute(statement)
            if version == 0:
                self._on_create(connection)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _version(self, connection: sqlite3.Connection) -> int:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise UnusableRegistry(
                f"the registry {self.path} has schema {version}, this remask knows {len(MIGRATIONS)}: "
                "upgrade remask, or make the registry anew with `remask runs --rebuild`"
            )
        return version

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise self._in_one_line(error) from error

    def unusable(self, finding: str) -> UnusableRegistry:
        """The error for a file of which something cannot be understood: what that is, and how it is made anew."""
        return UnusableRegistry(
            f"the registry {self.path} is corrupt ({' '.join(finding.split())}): "
            "run `remask runs --rebuild` to make it anew from the run folders"
        )

    def _in_one_line(self, error: sqlite3.DatabaseError) -> Exception:
        code = _primary_code(error)
        damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        if damaged or str(error).startswith("no such"):  # a table or column that the schema version promises
            return self.unusable(str(error))
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return RunError(f"the registry {self.path} was locked by another process for {_BUSY_SECONDS:.0f} s")
        hint = ". Check space and permissions there" if code in _NO_ROOM else ""
        return RunError(f"cannot use the registry {self.path}: {error}{hint}")


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte


@contextmanager
def _immediate(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has rolled back already
            connection.execute("ROLLBACK")
        raise


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # The switch does not wait for other connections as other statements do, so this does.
    deadline = time.monotonic() + _BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return  # a network file system that has no WAL keeps the rollback journal
        except sqlite3.OperationalError as error:
            if _primary_code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
