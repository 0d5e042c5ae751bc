"""What a data set holds: rows, columns, the values of the label and the span of time, read in one pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from airflow_provider_mlops.errors import ConfigError, did_you_mean

__all__ = ["DataReport", "read_data"]

_MOST_CLASSES = 20


@dataclass(frozen=True, slots=True)
class DataReport:
    """
    What was found.

    :param rows: number of rows.
    :param columns: names, in the order of the data.
    :param labels: how often each value of the label occurs, the most frequent first; ``None`` when there are too many
        for classes.
    :param missing: rows without a label.
    :param start: time of the first row, as text, or ``None``.
    :param end: time of the last row.
    """

    rows: int
    columns: tuple[str, ...]
    labels: dict[Any, int] | None
    missing: int
    start: str | None
    end: str | None


def read_data(path: str, *, label: str, timestamp: str | None) -> DataReport:
    """
    Return what the data at *path* holds.

    :raises DataError: it cannot be read.
    :raises ConfigError: a column that is not there.
    """
    import pyarrow.compute as pc

    from airflow_provider_mlops.adapters.files import column_names, scan

    columns = tuple(column_names(path))
    for column in (label, *((timestamp,) if timestamp else ())):
        if column not in columns:
            raise ConfigError(
                f"{path}: there is no column {column!r}.{did_you_mean(column, columns)} Columns: {', '.join(columns)}."
            )
    rows = missing = 0
    counts: Counter[Any] | None = Counter()
    times: list[Any] = []
    for batch in scan(path, columns=[label, *((timestamp,) if timestamp else ())]):
        rows += batch.num_rows
        values = batch.column(batch.schema.get_field_index(label))
        missing += values.null_count
        if counts is not None:
            counts.update({item["values"]: item["counts"] for item in pc.value_counts(values.drop_null()).to_pylist()})
            counts = counts if len(counts) <= _MOST_CLASSES else None
        if timestamp and batch.num_rows:
            span = pc.min_max(batch.column(batch.schema.get_field_index(timestamp))).as_py()
            times += [value for value in span.values() if value is not None]
    fractions = counts is not None and any(isinstance(value, float) and not value.is_integer() for value in counts)
    return DataReport(
        rows=rows,
        columns=columns,
        labels=dict(counts.most_common()) if counts is not None and not fractions else None,
        missing=missing,
        start=str(min(times)) if times else None,
        end=str(max(times)) if times else None,
    )
