"""Airflow's SQL connections, as engines that count tables where they lie."""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow.sdk import BaseHook

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.hooks.settings import named_connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Connection

    from airflow_provider_mlops.adapters.engines.sql import SqlEngine

__all__ = ["sql_engine"]

_TIMEOUT = timedelta(hours=1)
_DIALECTS = {
    "postgres": "postgresql",
    "gcpbigquery": "bigquery",
    "presto": "trino",
}  # by connection type, where they are called otherwise


def sql_engine(conn_id: str, *, timeout: timedelta | None = None) -> SqlEngine:
    """
    Return the drift engine for the tables of an Airflow connection.

    The connection's own hook opens it (any `DbApiHook`). SQLite, PostgreSQL and DuckDB work without their provider.

    :param timeout: how long one statement may run; one hour by default.
    :raises ConfigError: no SQL connection, or a database whose SQL is not spoken here.
    """
    from airflow_provider_mlops.adapters.engines.sql import SqlEngine

    with named_connection(conn_id, "Postgres or another SQL database"):
        connection = BaseHook.get_connection(conn_id)
    return SqlEngine(_opener(connection), _dialect(connection), timeout=timeout or _TIMEOUT)


def _dialect(connection: Connection) -> str:
    kind = str(connection.conn_type or "")
    if kind == "postgres" and connection.extra_dejson.get("redshift"):
        return "redshift"
    return _DIALECTS.get(kind, kind)


def _opener(connection: Connection) -> Callable[[], Any]:
    """Return what opens *connection*: its hook, or the driver itself where the hook's provider is not installed."""
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.sdk.exceptions import AirflowException

    try:
        hook = connection.get_hook()  # type: ignore[no-untyped-call]
    except AirflowException as error:
        opener = _DRIVERS.get(_dialect(connection))
        if opener is None:
            raise ConfigError(
                f"Connection {connection.conn_id!r} has the type {connection.conn_type!r}, whose provider is not "
                f"installed. Install apache-airflow-providers-{connection.conn_type}."
            ) from error
        return opener(connection)
    if not isinstance(hook, DbApiHook):
        raise ConfigError(
            f"Connection {connection.conn_id!r} has the type {connection.conn_type!r}, which is no SQL database. "
            "Name an SQL connection, or export the data to Parquet and name its path."
        )
    opened: Callable[[], Any] = hook.get_conn
    return opened


def _postgresql(connection: Connection) -> Callable[[], Any]:
    import sqlalchemy as sa

    url = sa.URL.create(
        "postgresql+psycopg" if find_spec("psycopg") else "postgresql+psycopg2",
        username=connection.login,
        password=connection.password,
        host=connection.host,
        port=connection.port,
        database=connection.schema,
        query={key: value for key, value in connection.extra_dejson.items() if isinstance(value, str)},
    )
    return sa.create_engine(url, poolclass=sa.NullPool).raw_connection


def _sqlite(connection: Connection) -> Callable[[], Any]:
    import sqlite3

    file = _file(connection)
    return lambda: sqlite3.connect(f"file:{file}?mode=ro", uri=True)


def _duckdb(connection: Connection) -> Callable[[], Any]:
    import duckdb

    file = _file(connection)
    return lambda: duckdb.connect(file, read_only=True)


def _file(connection: Connection) -> str:
    """Return the path of a database file: the connection's host, as Airflow's SQLite hook has it."""
    return unquote(connection.host or connection.schema or "")


_DRIVERS: dict[str, Callable[[Connection], Callable[[], Any]]] = {
    "postgresql": _postgresql,
    "sqlite": _sqlite,
    "duckdb": _duckdb,
}
