"""
The journal in a SQL database: a SQLite file, PostgreSQL, or whatever else SQLAlchemy speaks to.

One row is one entry. The primary key (stream, sequence) decides between writers who are as fast as each other: the row
of the second is refused, and it is told so. INSERT and SELECT on one table are the only rights that are needed, and
granting no others is what keeps history from being rewritten.

A SQLite file is in WAL mode with ``synchronous=FULL``: an entry that `append` has returned is on the disk, also after
the machine has lost its power. That costs one fsync per entry as long as the connection is kept; closing the last
connection of a file moves the whole log into it, so every journal keeps its connection.
"""

from __future__ import annotations

import os
import random
import time
import weakref
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from airflow_provider_mlops.errors import ConfigError, ConflictError, DataError, ServiceError
from airflow_provider_mlops.journal.record import GENESIS, Entry, Record, check_name, entry_hash

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SqlJournal"]

_VERSION_TABLE: Final = "mlops_alembic_version"
_BUSY_SECONDS: Final = 60.0  # how long a writer of a SQLite file waits for the others
_CONFLICT_SECONDS: Final = 0.03
_LARGEST: Final = 2**63 - 1  # what the column of sequences holds
_CHUNK: Final = 2000  # rows that are fetched at a time
_JOURNAL: Final = sa.table(
    "mlops_journal",
    sa.column("stream", sa.String),
    sa.column("sequence", sa.BigInteger),
    sa.column("kind", sa.String),
    sa.column("at", sa.String),
    sa.column("actor", sa.String),
    sa.column("payload", sa.Text),
    sa.column("previous_hash", sa.String),
    sa.column("hash", sa.String),
)


class SqlJournal:
    """
    A `Journal` in the table ``mlops_journal``.

    A SQLite file is created by its first writer; until then it reads as empty. It must lie on a local disk, where all
    writers can lock it. In any other database the table is made by `migrate`, once, by a role that may create tables.

    One connection is kept, more while several threads ask at once. A forked process gets its own; the last reference
    to a journal takes its connections with it.

    :param database: URL: ``sqlite:////var/lib/mlops/journal.db``, ``postgresql+psycopg://...``.
    :raises ConfigError: no such URL, a missing driver, or SQLite in memory.
    """

    def __init__(self, database: str | sa.URL) -> None:
        try:
            self._engine = _engine(sa.make_url(database))
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:  # ValueError: the port
            raise ConfigError(
                f"The journal's database URL cannot be used: {error}. Write sqlite:////absolute/path.db or "
                "postgresql+psycopg://user@host/name."
            ) from error
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        self._file = Path(self._engine.url.database or ":memory:")
        if self._is_sqlite and self._engine.url.database in (None, "", ":memory:"):
            raise ConfigError("The journal cannot be a SQLite database in memory: it would end with the process.")
        self._has_table = False
        self._inode: int | None = None
        _OPEN.add(self)
        weakref.finalize(self, self._engine.dispose)

    @property
    def address(self) -> str:
        """The database's URL, without secrets."""
        # Airflow puts what a connection holds beside its password, such as sslpassword, into the query.
        return self._engine.url.set(query={}).render_as_string(hide_password=True)

    def __repr__(self) -> str:
        return f"SqlJournal({self.address!r})"

    def append(self, stream: str, expected_sequence: int | None, record: Record) -> Entry:
        """Write *record* in one transaction, see `Journal.append`. A writer who lost is told so a moment later."""
        check_name("stream", stream)
        try:
            return self._append(stream, expected_sequence, record)
        except ConflictError:
            # Those who lost together would else come back together, and all but one of them lose again.
            time.sleep(random.uniform(0, _CONFLICT_SECONDS))
            raise

    def _append(self, stream: str, expected_sequence: int | None, record: Record) -> Entry:
        if not self._table_exists():
            if not self._is_sqlite:
                raise self._no_table()
            self.migrate()
        newest = sa.select(_JOURNAL).where(_JOURNAL.c.stream == stream).order_by(_JOURNAL.c.sequence.desc()).limit(1)
        with self._connection() as connection:
            if expected_sequence is None:
                self._queue_up(connection, stream)
            last = connection.execute(newest).one_or_none()
            sequence, previous_hash = _end_of(_entry(last), last.sequence) if last else (0, GENESIS)
            if expected_sequence not in (None, sequence):
                raise ConflictError(f"{stream} ends at entry {sequence}, not at {expected_sequence}. Read it again.")
            entry = Entry.following(stream, sequence + 1, record, previous_hash)
            try:
                connection.execute(sa.insert(_JOURNAL).values(_row(entry)))
                connection.commit()
            except IntegrityError as error:
                raise ConflictError(
                    f"Somebody else wrote entry {entry.sequence} of {stream} first. Read it again."
                ) from error
        return entry

    def _queue_up(self, connection: sa.Connection, stream: str) -> None:
        """
        Wait until nobody else appends at the end of *stream*, where the database can do that.

        It saves those who come together from losing against each other; the table's primary key keeps the chain whole.
        """
        if self._is_sqlite:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        elif self._engine.dialect.name == "postgresql":
            lock = sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:stream, 0))")
            connection.execute(lock, {"stream": stream})

    def read(self, stream: str, after: int = 0) -> list[Entry]:
        """Return the entries, see `Journal.read`. What is no record any more comes too, and never fits its hash."""
        return [_entry(row) for row in self._select(_rows_of(stream, after))]

    def scan(self, stream: str | None) -> Iterator[Entry]:
        """
        Give what `read` returns, one after the other: for a check of streams that may not fit into memory.

        :param stream: ``None`` gives the rows that no stream has, since a hand made their stream something else than
            text. Their `Entry.stream` is how it looks in Python.
        """
        if not self._found() or (stream is None and not self._is_sqlite):  # others keep only text in a column of text
            return
        with self._connection() as connection:
            for row in connection.execution_options(yield_per=_CHUNK).execute(_rows_of(stream, 0)):
                yield _entry(row)

    def last_sequence(self, stream: str) -> int:
        """Return the newest sequence, see `Journal.last_sequence`."""
        rows = self._select(sa.select(sa.func.max(_JOURNAL.c.sequence)).where(_JOURNAL.c.stream == stream))
        last = (rows[0][0] or 0) if rows else 0
        if not isinstance(last, int):
            raise _changed(stream, last)
        return last

    def streams(self) -> list[str]:
        """Return the names of all streams, sorted."""
        rows = self._select(sa.select(_JOURNAL.c.stream).distinct())
        return sorted(row.stream for row in rows if isinstance(row.stream, str))

    def migrate(self) -> None:
        """
        Create the table, or bring it to this release's shape. Asking twice is asking once, also at the same time.

        :raises ConfigError: the folder of the SQLite file cannot be made or written to.
        :raises ServiceError: the database refused, for instance because the role may not create tables.
        """
        if self._is_sqlite:
            self._create_file()
        with self._connection() as connection:
            if self._is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # one creator at a time; the others find the table
            elif self._engine.dialect.name == "postgresql":
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7205759403792793600)")
            _upgrade(connection)
            connection.commit()
        self._has_table = True
        self._inode = _inode(self._file) if self._is_sqlite else None

    def _create_file(self) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            # Never one that is there: closing it would drop the locks of every connection that this process has to it.
            with suppress(FileExistsError):
                os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644))
        except OSError as error:
            raise ConfigError(f"The journal {str(self._file)!r} cannot be created: {error.strerror}.") from error
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                with self._engine.connect() as connection:
                    connection.exec_driver_sql(
                        "PRAGMA journal_mode=WAL"
                    )  # readers and the writer do not wait for each other
            except OperationalError as error:
                # This one lock is not covered by SQLite's own busy timeout.
                if "locked" not in str(error.orig) or time.monotonic() > deadline:
                    raise self._refused(error) from error
                time.sleep(0.01)
            else:
                return

    def _select(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        if not self._found():
            return []
        with self._connection() as connection:
            return list(connection.execute(query))

    def _found(self) -> bool:
        """Return whether there is a table to read; a SQLite file without one was never written to."""
        found = self._table_exists()
        if not found and not self._is_sqlite:
            raise self._no_table()
        return found

    def _table_exists(self) -> bool:
        if self._is_sqlite and (inode := _inode(self._file)) != self._inode:
            # The file was made, or removed or replaced by somebody: what is kept open would write into the old one.
            self._engine.dispose()
            self._has_table, self._inode = False, inode
        if not self._has_table and (not self._is_sqlite or self._file.exists()):
            with self._connection() as connection:
                self._has_table = sa.inspect(connection).has_table(_JOURNAL.name)
        return self._has_table

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._refused(error) from error

    def _no_table(self) -> ConfigError:
        return ConfigError(
            f"The journal at {self.address} has no table {_JOURNAL.name!r}. "
            "Run `mlops journal migrate` once, as a role that may create it."
        )

    def _refused(self, error: SQLAlchemyError) -> ServiceError:
        cause = str(error.orig if isinstance(error, DBAPIError) else error).strip().partition("\n")[0]
        return ServiceError(f"The journal at {self.address} failed: {cause[:256]}")


def _engine(url: sa.URL) -> sa.Engine:
    # Airflow writes the URIs of its connections as postgres://... and sqlite://%2Fpath; a driver is never named.
    if url.drivername in {"postgres", "postgresql"}:
        driver = "psycopg" if find_spec("psycopg") else "psycopg2"
        url = url.set(drivername=f"postgresql+{driver}")
    if url.get_backend_name() == "sqlite" and url.host and not url.database:
        url = sa.URL.create(url.drivername, database=unquote(url.host), query=url.query)
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = sa.create_engine(
        url,
        poolclass=sa.QueuePool,
        pool_size=1,
        max_overflow=-1,
        pool_pre_ping=not is_sqlite,  # a server that was restarted has ended the connection that is kept
        connect_args={"timeout": _BUSY_SECONDS} if is_sqlite else {},
    )
    if is_sqlite:
        sa.event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=FULL"))
    return engine


def _inode(file: Path) -> int | None:
    try:
        return file.stat().st_ino
    except OSError:
        return None


# All journals of this process, and the connections that a forked process inherited. Closing these would end
# them for the parent too, or drop its locks, so they are kept until the process ends.
_OPEN: weakref.WeakSet[SqlJournal] = weakref.WeakSet()
_INHERITED: list[sa.Pool] = []


def _start_anew() -> None:
    """Leave all connections to the parent."""
    for journal in _OPEN:
        _INHERITED.append(journal._engine.pool)  # noqa: SLF001 - of this module
        journal._engine.dispose(close=False)  # noqa: SLF001


os.register_at_fork(after_in_child=_start_anew)


def _upgrade(connection: sa.Connection) -> None:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(__file__).parent / "migrations"))

    def steps(revision: Any, _context: MigrationContext) -> Any:
        return scripts._upgrade_revs("head", revision)  # noqa: SLF001 - what Alembic's own `upgrade` command calls

    context = MigrationContext.configure(
        connection, opts={"version_table": _VERSION_TABLE, "fn": steps, "script": scripts}
    )
    with context.begin_transaction(), Operations.context(context):
        context.run_migrations()


def _rows_of(stream: str | None, after: int) -> sa.Select[Any]:
    named = _JOURNAL.c.stream == stream if stream is not None else sa.func.typeof(_JOURNAL.c.stream) != "text"
    wanted = sa.select(_JOURNAL).where(named)
    if after:  # a whole stream also has the rows that a hand moved before its begin
        wanted = wanted.where(_JOURNAL.c.sequence > after)
    return wanted.order_by(_JOURNAL.c.sequence)


def _end_of(last: Entry, stored: Any) -> tuple[int, str]:
    """Return the sequence and the hash of a stream's *last* entry. :raises DataError: it is not what was written."""
    fits = entry_hash(last.stream, last.sequence, last.record, last.previous_hash) == last.hash
    if not fits or not 0 < last.sequence < _LARGEST:
        raise _changed(last.stream, stored)
    return last.sequence, last.hash


def _changed(stream: str, stored: Any) -> DataError:
    return DataError(
        f"The journal of {stream} was changed from outside: its last row, at sequence {stored!r:.40}, is not what was "
        "written, and nothing follows it. See `mlops journal verify`, and restore the rows from a backup or an export."
    )


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "stream": entry.stream,
        "sequence": entry.sequence,
        "kind": entry.record.kind,
        "at": entry.record.at.isoformat(timespec="microseconds"),
        "actor": entry.record.actor,
        "payload": entry.record.text,
        "previous_hash": entry.previous_hash,
        "hash": entry.hash,
    }


def _entry(row: sa.Row[Any]) -> Entry:
    try:
        record = Record.stored(row.kind, datetime.fromisoformat(row.at), row.actor, row.payload)
    except (ValueError, TypeError, OverflowError, RecursionError):
        # Edited by hand into something that is no record: shown as it is, for `verify` to name.
        record = Record("unreadable", datetime.fromtimestamp(0, UTC), "unknown", {"row": repr(tuple(row))})
    # SQLite keeps any type in any column.
    sequence = row.sequence if isinstance(row.sequence, int) else 0
    stream = row.stream if isinstance(row.stream, str) else repr(row.stream)
    return Entry(stream, sequence, record, str(row.previous_hash), str(row.hash))
