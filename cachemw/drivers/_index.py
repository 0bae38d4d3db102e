"""The sqlite driver's index: one row an entry, quick to list and to evict by.

It can always be made again from the files, so it is never waited for on the
way to a hit, and an index that is broken or gone is replaced. Totals are kept
by triggers, and no operation but listing and searching looks at more rows than it returns.

SQLite before 3.51.3 can corrupt a write-ahead log that one process resets
while others write and checkpoint; so nothing checkpoints by itself, and
:meth:`Index.checkpoint` is called with the directory's lock held.

Imports: concurrency, errors, drivers._finding, drivers._forks, drivers._hits, drivers.listing.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sqlite3
import stat
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from .. import concurrency
from ..errors import DriverError
from . import _finding, _forks
from ._hits import Gathered
from .listing import Query

T = TypeVar("T")

#: name, id (bytes), size, accessed, modified, checksum.
Row = tuple[str, bytes, int, float, float, str | None]

#: Bytes of write-ahead log after which it is checkpointed.
CHECKPOINT_AT = 4 * 2**20

#: Seconds to wait for another process's write.
_BUSY = 10.0

_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entries (
    name TEXT PRIMARY KEY,
    id BLOB NOT NULL,
    size INTEGER NOT NULL,
    hits INTEGER NOT NULL DEFAULT 0,
    accessed REAL NOT NULL,
    modified REAL NOT NULL,
    checksum TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_access ON entries (accessed);
CREATE TABLE IF NOT EXISTS totals (size INTEGER NOT NULL);
INSERT INTO totals SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM totals);
CREATE TRIGGER IF NOT EXISTS entry_added AFTER INSERT ON entries
    BEGIN UPDATE totals SET size = size + new.size; END;
CREATE TRIGGER IF NOT EXISTS entry_removed AFTER DELETE ON entries
    BEGIN UPDATE totals SET size = size - old.size; END;
CREATE TRIGGER IF NOT EXISTS entry_resized AFTER UPDATE OF size ON entries
    BEGIN UPDATE totals SET size = size - old.size + new.size; END;
COMMIT;
"""

#: Apart, since an index that an earlier version made is without.
_BY_ID = "CREATE INDEX IF NOT EXISTS entries_by_id ON entries (id)"

#: ``user_version`` of an index that was filled from the files since it was made.
_FILLED = 1

#: Seconds that a checkpoint waits for readers; then the next change tries again.
_CHECKPOINT_WAIT = 0.1

_UPSERT = """
INSERT INTO entries (name, id, size, accessed, modified, checksum) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET id = excluded.id, size = excluded.size,
    accessed = max(accessed, excluded.accessed), modified = excluded.modified,
    checksum = excluded.checksum
"""


class IndexBroken(DriverError):
    """The index's file is not a database any more, or not ours."""


class IndexNew(DriverError):
    """The index is new, and not yet filled from the files."""


class Index:
    """``cache.db``. Threads may share it; each process gets a connection of its own.

    Every method raises :class:`IndexBroken` where the file must be replaced,
    :class:`IndexNew` where it was never filled (but within :meth:`filling`),
    and :class:`~cachemw.errors.DriverError` for any other trouble.

    :param path: the file, made if missing.
    :param durable: whether a change must survive a power cut once it is made.
    :param is_reader: whether it only looks at what is there, and makes nothing.
    """

    def __init__(self, path: str, durable: bool, is_reader: bool = False) -> None:
        self.path = path
        self._is_reader = is_reader
        self._durable = durable
        # Re-entrant: the garbage collector may close an entry, and its hit be written, inside.
        self._lock = concurrency.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._identity: tuple[int, int] | None = None
        self._filled = False
        #: The thread that fills it.
        self._filler: int | None = None
        #: Connections of a process that this one was forked from: closing them here
        #: would let go of that process's locks.
        self._inherited: list[sqlite3.Connection] = []
        _every_index.add(self)
        _forks.register(self)

    def forget_parent(self) -> None:
        """Take a new lock in a child of fork."""
        self._lock = concurrency.RLock()
        self._filler = None

    # Connection

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            try:
                connection = self._connect()
                self._filled = self._filled or _is_filled(connection)
                if not self._filled and self._filler != concurrency.get_ident():
                    raise IndexNew("index", f"is new ({self.path})")
                return work(connection)
            except sqlite3.DatabaseError as exc:
                if self._connection is not None and self._connection.in_transaction:
                    # It could not even roll back; closing does.
                    self._disconnect()
                kind = IndexBroken if _means_broken(exc) else DriverError
                raise kind("index", f"{exc} ({self.path})") from exc
            except OSError as exc:
                raise DriverError("index", f"{exc.strerror} ({self.path})") from exc

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._pid == os.getpid():
            if self._is_current():
                return self._connection
            self._disconnect()
        elif self._connection is not None:
            self._inherited.append(self._connection)
        with _connecting:
            status = self._make_file()
            connection = self._open()
        self._identity = (status.st_dev, status.st_ino)
        self._pid = os.getpid()
        self._connection = connection
        self._filled = False
        return connection

    def _make_file(self) -> os.stat_result:
        """See that there is a file, and that only we may read it.

        One that is there is not opened: closing a file takes away all locks of the process on
        it, and with them those of other connections (fcntl(2)).
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            if self._is_reader:
                raise
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, flags, 0o600))
            status = os.lstat(self.path)
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), self.path)
        return status

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False
        )
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA cache_size = -16384")
        if self._is_reader:
            connection.execute("PRAGMA query_only = 1")
            return
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        if not _is_filled(connection):
            connection.executescript(_SCHEMA)
        connection.execute(_BY_ID)

    def _is_current(self) -> bool:
        """Say whether the open file still has its name; else others use another one."""
        try:
            status = os.lstat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._pid == os.getpid():
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        with self._lock:
            self._disconnect()

    def set_aside(self) -> None:
        """Move a broken index out of the way; the next call makes an empty one.

        :raises OSError: it cannot be moved.
        """
        with self._lock:
            self._disconnect()
            directory, name = os.path.split(self.path)
            for suffix in ("-wal", "-shm", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path + suffix)
            with contextlib.suppress(FileNotFoundError):
                os.replace(self.path, os.path.join(directory, f".broken-{name}"))

    def wants_checkpoint(self) -> bool:
        """Say whether the write-ahead log is long."""
        try:
            return os.stat(f"{self.path}-wal").st_size >= CHECKPOINT_AT
        except OSError:
            return False

    def checkpoint(self) -> None:
        """Move a long write-ahead log into the database; one caller at a time."""
        if not self.wants_checkpoint():
            return
        self._run(_checkpoint)

    # Changes

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Let this thread, and no other, use an index that is not filled; when the block ends,
        there is a row for every entry. One caller at a time."""
        before, self._filler = self._filler, concurrency.get_ident()
        try:
            yield
            self._run(lambda c: c.execute(f"PRAGMA user_version = {_FILLED}").close())
        finally:
            self._filler = before

    def put(self, rows: Iterable[Row]) -> None:
        """Add rows, or change them but for their hits; an access time never goes back."""
        self._run(lambda c: _write(c, lambda: c.executemany(_UPSERT, rows)))

    def remove(self, gone: Iterable[str]) -> None:
        """Remove rows by entry name; one that is not there is no error."""
        parameters = [(name,) for name in gone]
        self._run(
            lambda c: _write(
                c, lambda: c.executemany("DELETE FROM entries WHERE name = ?", parameters)
            )
        )

    def add_hits(self, gathered: Gathered) -> list[str]:
        """Add hits and move access times.

        :return: names that have no row.
        """

        def add(connection: sqlite3.Connection) -> list[str]:
            strangers = []
            for name, (hits, last) in gathered.items():
                cursor = connection.execute(
                    "UPDATE entries SET hits = hits + ?, accessed = max(accessed, ?)"
                    " WHERE name = ?",
                    (hits, last, name),
                )
                if cursor.rowcount == 0:
                    strangers.append(name)
            return strangers

        return self._run(lambda c: _write(c, lambda: add(c)))

    # Questions

    def total(self) -> int:
        """Give the bytes of all entries."""
        row = self._one("SELECT size FROM totals")
        if row is None:
            raise IndexBroken("index", f"has no total ({self.path})")
        return int(row[0])

    def hits(self, name: str) -> int:
        """Give an entry's hits; 0 for one without a row."""
        row = self._one("SELECT hits FROM entries WHERE name = ?", name)
        return int(row[0]) if row else 0

    def has(self, name: str) -> bool:
        """Say whether an entry has a row."""
        return self._one("SELECT 1 FROM entries WHERE name = ?", name) is not None

    def size(self, name: str) -> int:
        """Give the bytes of an entry's row; 0 for one without."""
        row = self._one("SELECT size FROM entries WHERE name = ?", name)
        return int(row[0]) if row else 0

    def oldest(self, limit: int) -> list[tuple[str, str, int]]:
        """Give name, id and bytes of the entries read longest ago, oldest first."""
        rows = self._all("SELECT name, id, size FROM entries ORDER BY accessed LIMIT ?", limit)
        return [(name, text(image_id), size) for name, image_id, size in rows]

    def stamps(self) -> dict[str, tuple[int, float]]:
        """Give every entry's bytes and modification time by name."""
        rows = self._all("SELECT name, size, modified FROM entries")
        return {name: (size, modified) for name, size, modified in rows}

    def listing(self) -> list[dict[str, Any]]:
        """Describe every entry, by id."""
        # Order of code points and of UTF-8 bytes is the same.
        rows = self._all(f"SELECT {_finding.COLUMNS} FROM entries ORDER BY id")
        return [_image(row) for row in rows]

    def find(self, query: Query) -> list[dict[str, Any]]:
        """Describe the entries that a query asks for, in its order.

        :param query: whose marker, if it has one, has a value.
        """
        return [_image(row) for row in self._all(*_finding.find(query))]

    def marker_value(self, query: Query) -> Any:
        """Give what the entries are sorted by, of the marker; ``None``: it has no row."""
        row = self._one(*_finding.marker_value(query))
        return row[0]

    def count(self, search: str) -> int:
        """Give how many entries have a text in their id."""
        row = self._one(*_finding.count(search))
        return int(row[0])

    def images(self, image_id: str) -> list[dict[str, Any]]:
        """Describe the entries of an image."""
        return [_image(row) for row in self._all(*_finding.images(image_id))]

    def glance_rows(self) -> dict[str, tuple[int, float]]:
        """Give hits and access time by name of the table that Glance's driver left, if any."""
        columns = {row[1] for row in self._all("PRAGMA table_info(cached_images)")}
        if not columns.issuperset({"image_id", "hits", "last_accessed"}):
            return {}
        rows = self._all(
            "SELECT image_id, CAST(hits AS INTEGER), CAST(last_accessed AS REAL) FROM cached_images"
        )
        return {str(name): (hits or 0, last or 0.0) for name, hits, last in rows}

    def set_hits(self, counts: Iterable[tuple[str, int]]) -> None:
        """Set hits by name, for entries that another program counted."""
        parameters = [(hits, name) for name, hits in counts]
        self._run(
            lambda c: _write(
                c, lambda: c.executemany("UPDATE entries SET hits = ? WHERE name = ?", parameters)
            )
        )

    # Check

    def problem(self) -> str:
        """Say what is wrong with the file as a whole; empty: nothing. Reads all of it.

        The sum of the sizes is not looked at.
        """
        found = self._all("PRAGMA integrity_check(1)")
        if found != [("ok",)]:
            return str(found[0][0]) if found else "cannot be looked at"
        # Another version may have made further indexes.
        if not _own_schema().issubset(self._run(_schema)):
            return "its tables are not as they were made"
        if len(self._all("SELECT size FROM totals LIMIT 2")) != 1:
            return "has no total, or several"
        return ""

    def miscount(self) -> int:
        """Give by how much the total is more than the sum of the entries' bytes."""
        row = self._one(
            "SELECT (SELECT size FROM totals) - (SELECT coalesce(sum(size), 0) FROM entries)"
        )
        return int(row[0])

    def recount(self) -> None:
        """Make the total the sum of the entries' bytes."""
        statement = "UPDATE totals SET size = (SELECT coalesce(sum(size), 0) FROM entries)"
        self._run(lambda c: _write(c, lambda: c.execute(statement).close()))

    def row(self, name: str) -> Row | None:
        """Give an entry's row."""
        row: Row | None = self._one(
            "SELECT name, id, size, accessed, modified, checksum FROM entries WHERE name = ?", name
        )
        return row

    def names(self, after: str, limit: int) -> list[str]:
        """Give names of entries, in their order, that come after one."""
        rows = self._all(
            "SELECT name FROM entries WHERE name > ? ORDER BY name LIMIT ?", after, limit
        )
        return [row[0] for row in rows]

    def _one(self, statement: str, *parameters: Any) -> Any:
        return self._run(lambda c: c.execute(statement, parameters).fetchone())

    def _all(self, statement: str, *parameters: Any) -> list[Any]:
        return self._run(lambda c: c.execute(statement, parameters).fetchall())


def _schema(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """Describe tables, indexes and triggers."""
    return set(connection.execute("SELECT type, name, sql FROM sqlite_schema"))


@functools.cache
def _own_schema() -> frozenset[tuple[str, str, str]]:
    """Describe those that an index has to have."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return frozenset(_schema(connection))


def _is_filled(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("PRAGMA user_version").fetchone()[0] == _FILLED)


def _means_broken(exc: sqlite3.DatabaseError) -> bool:
    """Say whether an error is about the file, and not about one operation: locked, full."""
    # The plain class says "malformed" or "not a database"; the rest are a schema that is
    # not ours and a file that was cut off while it was open.
    return (
        type(exc) is sqlite3.DatabaseError
        or str(exc).startswith("no such ")
        or getattr(exc, "sqlite_errorcode", None) in _CUT_OFF
    )


_CUT_OFF = {sqlite3.SQLITE_IOERR_SHORT_READ}


def _checkpoint(connection: sqlite3.Connection) -> None:
    # Truncating, since the log's length is what asks for the next checkpoint.
    connection.execute(f"PRAGMA busy_timeout = {int(_CHECKPOINT_WAIT * 1000)}")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(_BUSY * 1000)}")


def _write(connection: sqlite3.Connection, work: Callable[[], T]) -> T:
    """Do ``work`` in one transaction, which begins as a writer: no deadlock on upgrading."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work()
    except BaseException:
        _roll_back(connection)
        raise
    try:
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise
    return result


def _roll_back(connection: sqlite3.Connection) -> None:
    # SQLite has rolled back by itself after some errors.
    if connection.in_transaction:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _image(row: tuple[Any, ...]) -> dict[str, Any]:
    """Describe an entry; :data:`_finding.COLUMNS` are the columns."""
    keys = ("image_id", "size", "hits", "last_accessed", "last_modified", "checksum")
    return dict(zip(keys, (text(row[0]), *row[1:]), strict=True))


def text(image_id: bytes | str) -> str:
    """Give an id as it stands in a row, which may be damaged."""
    if isinstance(image_id, str):
        return image_id
    try:
        return image_id.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return image_id.decode("utf-8", "backslashreplace")


def row(
    name: str, image_id: str, status: os.stat_result, checksum: str | None, accessed: float
) -> Row:
    """Make a row of an entry's file; ``accessed`` in seconds since the epoch."""
    encoded = image_id.encode("utf-8", "surrogatepass")
    return name, encoded, status.st_size, accessed, status.st_mtime, checksum


#: The indexes of this process, for its forks: SQLite's own state about an open file is
#: wrong in a child, so none is open at that moment.
_every_index: weakref.WeakSet[Index] = weakref.WeakSet()
_closed_for_fork: list[Index] = []

#: One at a time makes the file, so that none is made, and closed again, while another
#: connection already has it open. Held with an index's own lock only, and so free in a fork.
_connecting = concurrency.RLock()


def _before_fork() -> None:
    for index in sorted(_every_index, key=id):
        index._lock.acquire()
        _closed_for_fork.append(index)
        index._disconnect()


def _after_fork_in_parent() -> None:
    while _closed_for_fork:
        _closed_for_fork.pop()._lock.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_closed_for_fork.clear,
)
