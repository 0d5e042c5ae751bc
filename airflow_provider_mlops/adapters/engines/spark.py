"""The Spark engine: counts DataFrames, tables and Parquet files by the same statement as the SQL engine."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.adapters.engines.sql import SqlEngine

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

__all__ = ["SparkEngine"]

_ZONE = "spark.sql.session.timeZone"


class SparkEngine(SqlEngine):
    """
    Profiles what a Spark session can read. Implements `drift.engine.Engine`.

    The ``path`` of a `DataRef` is read as Parquet; ``table`` is a table or a view, so a DataFrame comes as
    ``frame.createOrReplaceTempView("orders")`` and ``DataRef(table="orders")``. What Spark runs, and what leaves it, is
    what `SqlEngine` says.

    :param spark: the session. Its time zone is UTC while it counts.
    :param timeout: how long one statement may run.
    """

    def __init__(self, spark: SparkSession, *, timeout: timedelta = timedelta(hours=1)) -> None:
        super().__init__(lambda: _Connection(spark), "spark", timeout=timeout)


class _Connection:
    """As much of a DBAPI connection as `SqlEngine` uses."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._zone = str(spark.conf.get(_ZONE))
        spark.conf.set(_ZONE, "UTC")

    def cursor(self) -> _Cursor:
        return _Cursor(self._spark)

    def close(self) -> None:
        self._spark.conf.set(_ZONE, self._zone)


class _Cursor:
    """Runs a statement when its rows are asked for."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        self._group = f"mlops-{uuid.uuid4().hex}"
        self._frame: Any = None
        self.description: list[tuple[str, str]] = []

    def execute(self, statement: str) -> None:
        self._frame = self._spark.sql(statement)
        self.description = [(field.name, field.dataType.simpleString()) for field in self._frame.schema]

    def fetchall(self) -> list[tuple[Any, ...]]:
        self._spark.sparkContext.setJobGroup(self._group, "Counting for a drift check", interruptOnCancel=True)
        return [tuple(row) for row in self._frame.collect()]

    def interrupt(self) -> None:
        self._spark.sparkContext.cancelJobGroup(self._group)

    def close(self) -> None:
        self._frame = None
