"""The SQL engine: counts a table or a query where it lies, by one statement that returns counts only."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.adapters.engines.dialects import TimeKind, dialect_of, family_of_name, time_kind
from airflow_provider_mlops.adapters.engines.statement import Arm, Blocks, Source, fold, moment, odd_code, statements
from airflow_provider_mlops.drift.counts import Family
from airflow_provider_mlops.drift.layout import SAMPLE_ROWS, block_origin, choose_layout, without_identifiers
from airflow_provider_mlops.errors import ConfigError, DataError, ServiceError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import pyarrow as pa

    from airflow_provider_mlops.adapters.engines.dialects import Dialect
    from airflow_provider_mlops.data import DataRef, Window
    from airflow_provider_mlops.drift.profile import DataProfile, Segments

__all__ = ["SqlEngine"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MARGIN = 0.9  # of the sample that is asked for: more than SAMPLE_ROWS rows then practically never come
_SNOWFLAKE_TYPES = (
    *("FIXED", "REAL", "TEXT", "DATE", "TIMESTAMP", "VARIANT", "TIMESTAMP_LTZ", "TIMESTAMP_TZ", "TIMESTAMP_NTZ"),
    *("OBJECT", "ARRAY", "BINARY", "TIME", "BOOLEAN"),
)  # by the number that its driver gives
_STORAGE = {"integer": Family.NUMBER, "real": Family.NUMBER, "text": Family.TEXT, "blob": Family.OTHER}


@dataclass(frozen=True, slots=True)
class _Column:
    family: Family
    type_name: str
    mixed: bool = False  # SQLite: each value has a type of its own


class SqlEngine:
    """
    Profiles tables and queries of a SQL database. Implements `drift.engine.Engine`.

    A window costs one statement that describes the columns, in some databases one or two more for their types, and one
    that counts them (one per 400 columns); its answer are counts. A reference costs two more: the number of rows, and a
    random sample of at most 20,000 rows, the only rows that ever leave the database, from which the bins are chosen. A
    reference with more rows gives the same bins twice only where random numbers can be seeded (PostgreSQL, Spark); the
    counts on given bins never differ.

    All statements run in one transaction, which cannot write in PostgreSQL, Redshift, DuckDB and SQLite. Times without
    a zone are UTC; SQLite holds times as ISO 8601 text or as seconds since 1970. `NumberCounts.mean` is NaN when a
    value is beyond 1e150.

    :param connect: returns a new DBAPI connection; ``engine.raw_connection`` of a SQLAlchemy engine, or
        ``hook.get_conn`` of an Airflow hook.
    :param dialect: ``postgresql``, ``duckdb``, ``sqlite``, ``bigquery``, ``snowflake``, ``databricks``, ``trino`` or
        ``redshift``; for Spark there is `SparkEngine`.
    :param timeout: how long one statement may run. BigQuery knows no such limit: set it on the connection.
    """

    def __init__(self, connect: Callable[[], Any], dialect: str, *, timeout: timedelta = timedelta(hours=1)) -> None:
        self._connect = connect
        self._dialect = dialect_of(dialect)
        self._timeout = timeout

    def reference(
        self,
        data: DataRef,
        *,
        window: Window | None = None,
        block: timedelta | None = None,
        exclude: Sequence[str] = (),
        text: Sequence[str] | None = None,
        segment: str | None = None,
    ) -> DataProfile:
        """Choose bins for *data* and count it on them. See `drift.engine.Engine.reference`."""
        left_out = tuple(dict.fromkeys(name for name in (data.label, data.entity, *exclude) if name is not None))
        with self._session(data) as session:
            found = session.columns()
            wanted = list(data.columns) if data.columns is not None else list(found)
            _require([*wanted, *([data.timestamp] if data.timestamp else [])], found, session.name)
            names = [name for name in wanted if name not in left_out and name != data.timestamp]
            if segment is not None and segment in found and segment not in names:
                names.append(segment)
                left_out = tuple(dict.fromkeys((*left_out, segment)))
            source, times = session.source(found, data.timestamp, window)
            rows, first = session.extent(source, times)
            if not rows:
                raise DataError(
                    f"The reference {session.name} has no rows{_in(window)}, so nothing can be compared with it."
                )
            sample = session.sample(source, {name: found[name] for name in names}, rows)
            layout = choose_layout(
                sample,
                timestamp=data.timestamp,
                exclude=left_out,
                block=block,
                origin=block_origin(first, block, window),
                text=text,
                segment=segment,
            )
            return without_identifiers(session.count_all(source, times, layout, found))

    def window(self, data: DataRef, *, layout: DataProfile, window: Window | None = None) -> DataProfile:
        """Count *data* on the bins of *layout*. See `drift.engine.Engine.window`."""
        timestamp = data.timestamp if data.timestamp is not None else layout.timestamp
        with self._session(data) as session:
            found = session.columns()
            wanted = found if data.columns is None else [name for name in data.columns if name in found]
            known = {*layout.columns, *layout.excluded, timestamp}
            source, times = session.source(found, timestamp, window)
            plain = replace(
                layout.without_counts(blocks=False),
                timestamp=timestamp,
                extra={name: found[name].family.value for name in sorted(wanted) if name not in known},
            )
            return session.count_all(source, times, plain, found, wanted)

    def newest(self, data: DataRef) -> datetime | None:
        """Return the event time of the newest row; ``None`` when no row has one."""
        with self._session(data) as session:
            source, times = session.source(session.columns(), data.timestamp, None)
            if times is None:
                raise ConfigError("A window of event time needs the name of the timestamp column (data: timestamp).")
            rows = session.run(f"{source.head}SELECT MAX({times}) {source.body}")
            return None if rows[0][0] is None else moment(int(rows[0][0]))

    @contextmanager
    def _session(self, data: DataRef) -> Iterator[_Session]:
        dialect = self._dialect
        try:
            connection = self._connect()
        except Exception as error:
            raise ServiceError(
                f"{_name(data)}: the connection to {dialect.name} failed: {_text(error)}. Check the connection."
            ) from error
        try:
            session = _Session(connection, dialect, data, self._timeout)
            try:
                limits = (int(self._timeout / timedelta(milliseconds=1)), max(1, int(self._timeout.total_seconds())))
                for statement in dialect.begin:
                    session.run(statement.format(*limits))
                yield session
            finally:
                session.close()
        finally:
            connection.close()


class _Session:
    """One transaction on one connection."""

    def __init__(self, connection: Any, dialect: Dialect, data: DataRef, timeout: timedelta) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._dialect = dialect
        self._data = data
        self._timeout = timeout.total_seconds()
        self.name = _name(data)

    def close(self) -> None:
        """Roll back."""
        if self._dialect.end:
            for statement in self._dialect.end:
                self._cursor.execute(statement)
        elif hasattr(self._connection, "rollback"):
            self._connection.rollback()
        self._cursor.close()

    def run(self, statement: str) -> list[Sequence[Any]]:
        """Return the rows of *statement*. :raises ServiceError: the database refused, or took too long."""
        started = time.monotonic()
        try:
            with self._interrupted_in_time():
                self._cursor.execute(statement)
                return list(self._cursor.fetchall()) if self._cursor.description else []
        except Exception as error:
            if time.monotonic() - started >= 0.99 * self._timeout:
                raise ServiceError(
                    f"{self.name}: a statement ran longer than {self._timeout:g} s and was stopped. Name fewer columns "
                    "(data: columns) or a shorter window, or give the task a longer execution_timeout."
                ) from error
            raise ServiceError(
                f"{self.name}: {self._dialect.name} refused a statement: {_text(error)}. "
                "Check the data, and that the connection's role may read it."
            ) from error

    @contextmanager
    def _interrupted_in_time(self) -> Iterator[None]:
        """Stop what runs in this process after the time limit; a server stops its statements itself."""
        stoppable = next((part for part in self._stoppable() if hasattr(part, "interrupt")), None)
        if stoppable is None:
            yield
            return
        timer = threading.Timer(self._timeout, stoppable.interrupt)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _stoppable(self) -> tuple[Any, ...]:
        return self._cursor, self._connection, getattr(self._connection, "driver_connection", None)

    # What is there

    def columns(self) -> dict[str, _Column]:
        """Return the columns, with their types. :raises DataError: no such table, or two columns of one name."""
        origin = self._origin()
        try:
            self.run(f"SELECT * {origin} WHERE 1 = 0")
        except ServiceError as error:
            if "ran longer" in str(error):
                raise
            raise DataError(
                f"{self.name} cannot be read: {_text(error.__cause__ or error)}. "
                "Check the name, and that the connection's role may read it."
            ) from error
        described = [(entry[0], entry[1]) for entry in self._cursor.description]
        names = [name for name, _ in described]
        for name in names:
            if names.count(name) > 1:
                raise DataError(f"{self.name} has two columns named {name!r}. Rename one of them.")
        if self._dialect.name == "sqlite":
            return self._stored(names, origin)
        types = self._type_names([code for _, code in described])
        return {
            name: _Column(family_of_name(type_name), type_name) for name, type_name in zip(names, types, strict=True)
        }

    def _origin(self) -> str:
        if self._data.table is not None:
            return f"FROM {self._dialect.table(self._data.table)}"
        if self._data.path:
            if self._dialect.files is None:
                raise ConfigError(f"{self.name} are files, and {self._dialect.name} counts tables and queries only.")
            return f"FROM {self._dialect.files.format(self._dialect.identifier(self._data.path))}"
        return f"FROM (\n{(self._data.query or '').rstrip().rstrip(';')}\n) AS mlops_query"

    def _type_names(self, codes: Sequence[Any]) -> list[str]:
        """Return the types' names, for what drivers write in ``cursor.description``."""
        if not all(isinstance(code, int) for code in codes):
            return [str(code) for code in codes]
        if self._dialect.name == "snowflake":
            return [_SNOWFLAKE_TYPES[code] if code < len(_SNOWFLAKE_TYPES) else "OTHER" for code in codes]
        listed = ", ".join(map(str, sorted(set(codes))))
        names = {
            int(number): "ENUM" if kind == "e" else str(name)
            for number, name, kind in self.run(
                f"SELECT CAST(oid AS BIGINT), typname, typtype FROM pg_catalog.pg_type WHERE oid IN ({listed})"
            )
        }
        return [names.get(code, "OTHER") for code in codes]

    def _stored(self, names: Sequence[str], origin: str) -> dict[str, _Column]:
        """Return the columns of SQLite, whose values have types, and whose columns have hints."""
        hints: dict[str, str] = {}
        if self._data.table is not None:
            *schema, table = map(self._dialect.string, self._dialect.parts(self._data.table))
            found = self.run(f"SELECT name, type FROM pragma_table_xinfo({', '.join([table, *schema])})")
            hints = {str(name): str(kind) for name, kind in found}
        families = {name: family_of_name(hints.get(name, "")) for name in names}
        unknown = [name for name in names if families[name] is Family.OTHER]
        if unknown:
            quoted = [self._dialect.identifier(name) for name in unknown]
            firsts = ", ".join(f"(SELECT TYPEOF({q}) {origin} WHERE {q} IS NOT NULL LIMIT 1)" for q in quoted)
            for name, storage in zip(unknown, self.run(f"SELECT {firsts}")[0], strict=True):
                families[name] = _STORAGE.get(storage, Family.OTHER)
        return {name: _Column(family, hints.get(name, ""), mixed=True) for name, family in families.items()}

    def source(
        self, found: dict[str, _Column], timestamp: str | None, window: Window | None
    ) -> tuple[Source, str | None]:
        """Return where the rows of *window* come from, and the expression of their time in microseconds."""
        if window is not None:
            window.check(timestamp)
        ends = [] if window is None else [(window.start, ">="), (window.end, "<")]
        bounds = [(bound, sign) for bound, sign in ends if bound is not None]
        conditions, times = ["1 = 1"], None
        if timestamp is not None and (timestamp in found or bounds):
            _require([timestamp], found, self.name)
            kind = self._kind(timestamp, found[timestamp])
            column = self._dialect.identifier(timestamp)
            times = self._dialect.microseconds[kind].format(column)
            if found[timestamp].mixed:
                self._refuse_no_times(timestamp, column, times)
            for bound, sign in bounds:
                aware = bound.replace(tzinfo=UTC) if bound.tzinfo is None else bound
                left, right = self._dialect.instant(aware, kind, column)
                conditions.append(f"{left} {sign} {right}")
        body = f"{self._origin()} WHERE {' AND '.join(conditions)}"
        if self._data.query is None:
            return Source("", body), times
        # By name, so that the database can run the query once for all columns.
        return Source(f"WITH mlops_rows AS (SELECT * {body})\n", "FROM mlops_rows WHERE 1 = 1"), times

    def _kind(self, timestamp: str, column: _Column) -> TimeKind:
        kind = time_kind(column.type_name, self._dialect) or ("naive" if column.mixed else None)
        if kind is None:
            raise DataError(
                f"The timestamp column {timestamp!r} of {self.name} holds {column.type_name}, which is no time. "
                "Name a column of dates or timestamps, or convert it."
            )
        return kind

    def _refuse_no_times(self, timestamp: str, column: str, times: str) -> None:
        rows = self.run(f"SELECT {column} {self._origin()} WHERE {column} IS NOT NULL AND {times} IS NULL LIMIT 1")
        if rows:
            raise DataError(
                f"The timestamp column {timestamp!r} of {self.name} holds {rows[0][0]!r}, which is no time. "
                "Write times as ISO 8601 text or as seconds since 1970."
            )

    # Counting

    def extent(self, source: Source, times: str | None) -> tuple[int, int | None]:
        """Return the number of rows, and the first one's time in microseconds."""
        first = f"MIN({times})" if times else "NULL"
        rows = self.run(f"{source.head}SELECT COUNT(*), {first} {source.body}")
        count, earliest = rows[0]
        if earliest is not None:
            moment(int(earliest))
        return int(count), None if earliest is None else int(earliest)

    def sample(self, source: Source, columns: dict[str, _Column], rows: int) -> pa.RecordBatch:
        """Return random rows: numbers, booleans and text with their values, other columns with their type only."""
        import pyarrow as pa

        d = self._dialect
        fetched: dict[str, str] = {}
        for name, column in columns.items():
            quoted = d.identifier(name)
            if column.family is Family.NUMBER:
                value = f"CAST({quoted} AS {d.double})"
                odd = self._odd(name, column, Family.NUMBER)
                fetched[name] = f"CASE WHEN ({odd}) IS NULL THEN {value} END" if odd else value
            elif column.family is Family.TEXT:
                fetched[name] = d.exact_text.format(quoted)
            elif column.family is Family.BOOLEAN:
                fetched[name] = f"CASE WHEN {quoted} THEN 1 WHEN NOT {quoted} THEN 0 END"
        chosen = source if rows <= SAMPLE_ROWS else source.where(f"{d.random} < {_MARGIN * SAMPLE_ROWS / rows!r}")
        listed = ", ".join(fetched.values()) or "NULL"
        values = self.run(f"{source.head}SELECT {listed} {chosen.body} LIMIT {SAMPLE_ROWS}")
        types = {
            Family.NUMBER: pa.float64(),
            Family.TEXT: pa.string(),
            Family.BOOLEAN: pa.bool_(),
            Family.TIME: pa.timestamp("us"),
        }
        by_name = dict(zip(fetched, zip(*values, strict=True), strict=True)) if values and fetched else {}
        arrays = []
        for name, column in columns.items():
            type_ = types.get(column.family, pa.null())
            if name not in by_name:
                arrays.append(pa.nulls(len(values), type_))
                continue
            got = by_name[name]
            if column.family is Family.NUMBER:  # what some drivers bring as a Decimal
                got = tuple(None if value is None else float(value) for value in got)
            elif column.family is Family.BOOLEAN:
                got = tuple(None if value is None else bool(value) for value in got)
            arrays.append(pa.array(got, type_, from_pandas=False))
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def count_all(
        self,
        source: Source,
        times: str | None,
        layout: DataProfile,
        found: dict[str, _Column],
        wanted: Collection[str] | None = None,
    ) -> DataProfile:
        """Count on the bins of *layout*, and once more per segment; the columns *wanted*, by default all."""
        chosen = found if wanted is None else {name: found[name] for name in wanted}
        whole = self.count(source, times, layout, chosen)
        segments = layout.segments
        if segments is None or segments.column not in found:
            return whole
        value = self._segment_value(segments, found[segments.column])
        profiles = {
            label: self.count(
                source.where(self._is(value, segments, label)),
                times,
                replace(part, timestamp=layout.timestamp),
                chosen,
            )
            for label, part in segments.profiles.items()
        }
        return replace(whole, segments=replace(segments, profiles=profiles))

    def _segment_value(self, segments: Segments, column: _Column) -> str:
        """Return the expression of a row's segment; null where the column is of another family."""
        d, quoted = self._dialect, self._dialect.identifier(segments.column)
        if column.family is not segments.family:
            return f"CAST(NULL AS {d.text})"
        odd = self._odd(segments.column, column, segments.family)
        value = {
            Family.NUMBER: f"CAST({quoted} AS {d.double})",
            Family.BOOLEAN: f"CASE WHEN {quoted} THEN 'true' WHEN NOT {quoted} THEN 'false' END",
        }.get(segments.family, d.exact_text.format(quoted))
        return f"(CASE WHEN ({odd}) IS NULL THEN {value} END)" if odd else f"({value})"

    def _is(self, value: str, segments: Segments, label: str | None) -> str:
        """Return the condition that a row with the segment *value* belongs to *label*."""
        number = segments.family is Family.NUMBER and not value.startswith("CAST(NULL")
        literals = {
            known: self._dialect.number(float(known)) if number else self._dialect.string(known)
            for known in segments.values
        }
        if label is not None:
            return f"{value} = {literals[label]}"
        if not literals:
            return "1 = 1"
        return f"({value} IS NULL OR {value} NOT IN ({', '.join(literals.values())}))"

    def count(self, source: Source, times: str | None, layout: DataProfile, found: dict[str, _Column]) -> DataProfile:
        """Count on the bins of *layout*."""
        arms = []
        for name, column in layout.columns.items():
            if column.vectors is not None:
                raise ConfigError(
                    f"{self.name}: column {name!r} holds embeddings, which are compared in files only. Exclude it, or "
                    "export the data to Parquet and name its path."
                )
            if name in found:
                odd = self._odd(name, found[name], column.family)
                measures = ("", *(column.texts or ()))
                arms += [Arm(name, column, odd, mixed=found[name].mixed, measure=measure) for measure in measures]
        blocks = None
        if layout.block is not None and layout.origin is not None:
            origin = (datetime.fromisoformat(layout.origin) - _EPOCH) // timedelta(microseconds=1)
            blocks = Blocks(origin, layout.block // timedelta(microseconds=1))
        rows: list[Sequence[Any]] = []
        for statement in statements(source, arms, self._dialect, time=times, blocks=blocks):
            rows += self.run(statement)
        return fold(rows, layout, arms, blocked=blocks is not None)

    def _odd(self, name: str, column: _Column, wanted: Family) -> str | None:
        """Return the expression of `Arm.odd`."""
        quoted = self._dialect.identifier(name)
        if not column.mixed:
            return (
                None
                if column.family is wanted
                else f"CASE WHEN {quoted} IS NOT NULL THEN {odd_code(column.family)} END"
            )
        own = dict(_STORAGE)
        if column.family is Family.BOOLEAN:
            own["integer"] = Family.BOOLEAN
        elif column.family is Family.TIME:
            own = dict.fromkeys(own, Family.TIME)
        cases = [f"WHEN '{kind}' THEN {odd_code(family)}" for kind, family in own.items() if family is not wanted]
        return f"CASE TYPEOF({quoted}) {' '.join(cases)} END" if cases else None


def _require(names: Sequence[str], found: dict[str, _Column], where: str) -> None:
    for name in names:
        if name not in found:
            raise DataError(
                f"Column {name!r} is not in {where}.{did_you_mean(name, found)} It has {len(found)} columns: "
                f"{', '.join(list(found)[:20])}{', ...' if len(found) > 20 else ''}."
            )


def _name(data: DataRef) -> str:
    if data.table is not None:
        return f"Table {data.table!r}"
    if data.path:
        return f"Files {data.path!r}"
    query = " ".join((data.query or "").split())
    return f"Query {query[:80] + '...' if len(query) > 80 else query!r}"


def _text(error: BaseException) -> str:
    return " ".join(str(error).split())[:256] or type(error).__name__


def _in(window: Window | None) -> str:
    return "" if window is None else f" from {window.start} to {window.end}"
