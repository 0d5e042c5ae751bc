"""Values that say where data is. Pure: nothing here opens a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_mlops.errors import ConfigError, did_you_mean

__all__ = ["DataRef", "DataVersion", "Window", "parse_duration", "parse_time"]

_DURATION = re.compile(r"(\d+)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(text: str) -> timedelta:
    """
    Return the duration that *text* says: a whole number and one unit, ``45s``, ``30m``, ``12h`` or ``7d``.

    :raises ConfigError: anything else, zero included.

    >>> parse_duration("90d")
    datetime.timedelta(days=90)
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match[1]) == 0 or len(match[1]) > 6:
        raise ConfigError(f"{text!r} is no duration. Write a whole number > 0 and a unit: 45s, 30m, 12h or 7d.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_time(name: str, text: str | None) -> datetime | None:
    """
    Return the time that *text* says in ISO 8601, without a zone UTC; ``None`` for none.

    :param name: what the error calls it.
    :raises ConfigError: *text* is no time.

    >>> parse_time("as_of", "2026-01-31T06:00")
    datetime.datetime(2026, 1, 31, 6, 0, tzinfo=datetime.timezone.utc)
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{name}: {text!r} is no time. Write ISO 8601, such as 2026-01-31T00:00:00Z.") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _utc(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open span of event time, ``start <= t < end``. ``None`` leaves that side open; no zone means UTC."""

    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        if self.start is not None and self.end is not None and _utc(self.start) > _utc(self.end):
            raise ConfigError(f"A window cannot end ({self.end}) before it starts ({self.start}).")

    def check(self, timestamp: str | None) -> None:
        """Raise `ConfigError` when the window has an end and no column *timestamp* to hold against it is named."""
        if timestamp is None and (self.start is not None or self.end is not None):
            raise ConfigError("A window of event time needs the name of the timestamp column (data: timestamp).")

    def before(self, length: timedelta) -> Window:
        """Return the window of *length* that ends where this one starts; a window without a start has none before."""
        if self.start is None:
            raise ConfigError("Nothing lies before a window that has no start.")
        try:
            return Window(self.start - length, self.start)
        except OverflowError as error:
            raise ConfigError(f"{length} before {self.start} is before the year 1. Name a shorter time.") from error


@dataclass(frozen=True, slots=True)
class DataRef:
    """
    Where data is and what its columns mean: files (*path*), or a *table* or *query* on an Airflow connection.

    :param path: file, folder, glob or fsspec URL of Parquet, CSV or Arrow files.
    :param label: column that a model is to predict.
    :param timestamp: column with the event time of a row.
    :param entity: column whose rows belong together (a customer, a machine).
    :param columns: the columns to read; ``None`` reads all. Label, timestamp and entity are read in any case.
    :param table: ``name`` or ``schema.name`` of a table or view, in place of *path*.
    :param query: a ``SELECT``, in place of *path*.
    :param conn_id: the Airflow connection that *table* or *query* is read by.
    """

    path: str = ""
    label: str | None = None
    timestamp: str | None = None
    entity: str | None = None
    columns: tuple[str, ...] | None = None
    table: str | None = None
    query: str | None = None
    conn_id: str | None = None

    def __post_init__(self) -> None:
        named = [key for key in ("path", "table", "query") if getattr(self, key)]
        if len(named) > 1:
            raise ConfigError(f"data: {named[0]!r} and {named[1]!r} both say where the data is. Keep one of them.")
        if not named:
            raise ConfigError("data: 'path' is missing: the file, folder, glob or URL of the data.")
        if self.conn_id and named == ["path"]:
            raise ConfigError("data: 'conn_id' goes with 'table' or 'query'; files are opened by their path alone.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, tables: bool = False) -> DataRef:
        """
        Return the reference that a plain mapping describes.

        :param tables: whether a table or a query will do; else only files.
        :raises ConfigError: an unknown or missing key, keys that exclude each other, or a table where files are needed.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"data: expected a mapping with a 'path', got {values!r}.")
        known = [field.name for field in fields(cls)]
        for key, value in values.items():
            if key not in known:
                raise ConfigError(f"data: {key!r} is no key of a data reference.{did_you_mean(key, known)}")
            if key != "columns" and not isinstance(value, str | None):
                raise ConfigError(f"data.{key}: expected text, got {value!r}.")
        columns = values.get("columns")
        if isinstance(columns, str) or not all(isinstance(name, str) for name in columns or ()):
            raise ConfigError(f"data.columns: expected a list of columns, got {columns!r}.")
        path = values.get("path") or ""
        data = cls(**{**values, "path": path, "columns": tuple(columns) if columns is not None else None})
        if not data.path and not tables:
            raise ConfigError(
                f"data: {'table' if data.table else 'query'!r} cannot be used here: files are needed, so a 'path'. "
                "Tables and queries are read by CheckDataDriftOperator."
            )
        if not data.path and not data.conn_id:
            raise ConfigError(f"data: {'table' if data.table else 'query'!r} needs 'conn_id', an Airflow connection.")
        return data


@dataclass(frozen=True, slots=True)
class DataVersion:
    """
    A frozen version of data: what training, evaluation and drift read, and what the journal and MLflow name.

    :param uri: folder or file that holds it; immutable.
    :param digest: ``sha256:`` and 64 hexadecimal digits of the content.
    :param rows: number of rows.
    :param start: event time of the first row, ISO 8601, or ``None`` without a timestamp column.
    :param end: event time of the last row, or ``None``.
    """

    uri: str
    digest: str
    rows: int
    start: str | None = None
    end: str | None = None
