"""The engine for tables in memory: in a notebook, a test, or a task that has them anyway."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.adapters.files import fitted, inside, plain_schema, require_columns, time_bounds
from airflow_provider_mlops.errors import ConfigError, DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from airflow_provider_mlops.data import DataRef, Window

__all__ = ["FrameEngine"]

_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls the numbers of its rows
_BATCH = 65_536  # rows


class FrameEngine(EmbeddedEngine):
    """
    Profiles tables of Arrow, pandas, Polars and whatever else hands out an Arrow C stream.

    Implements `drift.engine.Engine`. None of these libraries but pyarrow is needed. Row numbers of pandas are left out.

    :param frames: the tables, each by the name that `DataRef.path` says.
    :raises ConfigError: one of them hands out no Arrow stream.
    :raises DataError: a column that Arrow has no type for, or two of one name.

    >>> import pyarrow as pa
    >>> from airflow_provider_mlops.data import DataRef
    >>> FrameEngine({"training": pa.table({"x": [1.0, 2.0]})}).reference(DataRef("training")).rows
    2
    """

    def __init__(self, frames: Mapping[str, Any]) -> None:
        super().__init__()
        self._tables = {name: _table(frame, name) for name, frame in frames.items()}

    def _table(self, data: DataRef) -> pa.Table:
        if data.path not in self._tables:
            near = did_you_mean(data.path, self._tables)
            raise DataError(f"{data.path!r} is none of the tables in memory.{near} Name one of them.")
        return self._tables[data.path]

    def _format(self, data: DataRef) -> str:
        self._table(data)
        return "memory"

    def _schema(self, data: DataRef) -> pa.Schema:
        return plain_schema(self._table(data).schema)

    def _names(self, data: DataRef) -> Sequence[str]:
        names: list[str] = self._table(data).column_names
        return names

    def _scan(
        self, data: DataRef, *, columns: Sequence[str], timestamp: str | None, window: Window | None, **_: Any
    ) -> Iterator[pa.RecordBatch]:
        table, found = self._table(data), self._schema(data)
        require_columns(columns, found.names, data.path)
        if window is not None:
            window.check(timestamp)
        bounds = time_bounds(found, timestamp, window, data.path)
        read = [*columns, timestamp] if bounds and timestamp is not None and timestamp not in columns else columns
        for batch in table.select(list(read)).to_batches(max_chunksize=_BATCH):
            part = fitted(batch, found, read)
            if bounds:
                part = part.filter(inside(part.column(timestamp), bounds))
            if part.num_rows:
                yield part.select(list(columns))


def _table(frame: Any, name: str) -> pa.Table:
    import pyarrow as pa

    if not hasattr(frame, "__arrow_c_stream__"):
        raise ConfigError(
            f"{name!r} is of type {type(frame).__name__}, which hands out no Arrow stream. "
            "Give an Arrow table, a frame of Polars, or one of pandas 2.2 or newer."
        )
    try:
        table = pa.table(frame)
    except (pa.ArrowException, ValueError, TypeError) as error:
        text = " ".join(str(error).split())[:256]
        raise DataError(
            f"{name!r} cannot be read as an Arrow table: {text}. Convert or leave out that column."
        ) from error
    doubles = {column for column in table.column_names if table.column_names.count(column) > 1}
    if doubles:
        raise DataError(f"{name!r} has two columns named {min(doubles)!r}. Rename one of them.")
    return table.drop_columns([column for column in table.column_names if _INDEX.fullmatch(column)])
