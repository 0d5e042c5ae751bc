"""The embedded engine: counts files with arrow in this process. The default."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_mlops.adapters.files import column_names, count_rows, file_format, scan, schema
from airflow_provider_mlops.drift.counting import microseconds
from airflow_provider_mlops.drift.layout import Sample, block_origin, choose_layout, without_identifiers
from airflow_provider_mlops.drift.profile import DataProfile, Family, ProfileBuilder
from airflow_provider_mlops.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import timedelta

    import pyarrow as pa

    from airflow_provider_mlops.data import DataRef, Window

__all__ = ["EmbeddedEngine"]

_PARSED = (Family.NUMBER, Family.BOOLEAN, Family.TEXT)  # families that CSV text is read as, by the layout


class EmbeddedEngine:
    """
    Profiles files, folders, globs and fsspec URLs of Parquet, CSV or Arrow. Implements `drift.engine.Engine`.

    :param max_rows: of Parquet with more rows than that, only about so many are read: a seeded choice of row groups
        spread over files and time. The profile then says how many there are (`DataProfile.sampled_of`).
    """

    def __init__(self, *, max_rows: int | None = None) -> None:
        if max_rows is not None and max_rows < 1:
            raise ConfigError(f"max_rows: expected a whole number >= 1, got {max_rows!r}.")
        self._max_rows = max_rows

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
        """Choose bins for *data* and count it on them; reads it twice. See `drift.engine.Engine.reference`."""
        found = self._schema(data)
        left_out = tuple(dict.fromkeys(name for name in (data.label, data.entity, *exclude) if name is not None))
        wanted = data.columns if data.columns is not None else found.names
        read = [name for name in wanted if name not in left_out]
        if data.timestamp and data.timestamp not in read:
            read.append(data.timestamp)
        if segment is not None and segment in found.names and segment not in read:
            read.append(segment)
            left_out = tuple(dict.fromkeys((*left_out, segment)))
        types = {field.name: field.type for field in found}
        most, there = self._limit(data, data.timestamp, window)
        sample, first = Sample(), None
        for batch in self._scan(
            data,
            columns=read,
            timestamp=data.timestamp,
            window=window,
            types=types,
            most_rows=most,
        ):
            sample.add(batch)
            if data.timestamp and block is not None:
                times, valid = microseconds(batch.column(data.timestamp), name=data.timestamp, calendar=True)
                if valid.any():
                    earliest = int(times[valid].min())
                    first = earliest if first is None else min(first, earliest)
        rows = sample.batch()
        if rows is None:
            raise DataError(
                f"The reference {data.path!r} has no rows{_in(window)}, so nothing can be compared with it."
            )
        layout = choose_layout(
            rows,
            timestamp=data.timestamp,
            exclude=left_out,
            block=block,
            origin=block_origin(first, block, window),
            text=text,
            segment=segment,
        )
        builder = ProfileBuilder(layout)
        for batch in self._scan(
            data,
            columns=read,
            timestamp=data.timestamp,
            window=window,
            types=types,
            most_rows=most,
        ):
            builder.add(batch)
        return without_identifiers(_of(builder.profile(), there))

    def window(self, data: DataRef, *, layout: DataProfile, window: Window | None = None) -> DataProfile:
        """Count *data* on the bins of *layout*; reads it once. See `drift.engine.Engine.window`."""
        import pyarrow as pa

        untyped = self._format(data) == "csv"
        types = {name: pa.string() for name, column in layout.columns.items() if untyped and column.family in _PARSED}
        found = dict.fromkeys(self._names(data))
        wanted = data.columns if data.columns is not None else found
        timestamp = data.timestamp if data.timestamp is not None else layout.timestamp
        read = [name for name in wanted if name in found and name not in layout.excluded]
        if timestamp in found and timestamp not in read:
            read.append(timestamp)
        segments = layout.segments
        if segments is not None and segments.column in found:
            read = list(dict.fromkeys((*read, segments.column)))
            types |= {segments.column: pa.string()} if untyped else {}
        builder = ProfileBuilder(replace(layout.without_counts(blocks=False), timestamp=timestamp))
        most, there = self._limit(data, timestamp, window)
        for batch in self._scan(
            data,
            columns=read,
            timestamp=timestamp,
            window=window,
            types=types,
            most_rows=most,
        ):
            builder.add(batch, typed=not untyped)
        return _of(builder.profile(), there)

    # Where the rows come from.

    def _format(self, data: DataRef) -> str:
        return file_format(data.path)

    def _schema(self, data: DataRef) -> pa.Schema:
        return schema(data.path)

    def _names(self, data: DataRef) -> Sequence[str]:
        return column_names(data.path)

    def _scan(
        self,
        data: DataRef,
        *,
        columns: Sequence[str],
        timestamp: str | None,
        window: Window | None,
        types: Mapping[str, pa.DataType],
        most_rows: int | None,
    ) -> Iterator[pa.RecordBatch]:
        return scan(
            data.path,
            columns=columns,
            timestamp=timestamp,
            window=window,
            types=types,
            dictionaries=True,
            most_rows=most_rows,
        )

    def _limit(self, data: DataRef, timestamp: str | None, window: Window | None) -> tuple[int | None, int | None]:
        """Return how many rows to read at most and how many there are; ``None`` twice when all are read."""
        if self._max_rows is None or self._format(data) != "parquet":
            return None, None
        there = count_rows(data.path, timestamp=timestamp, window=window)
        return (self._max_rows, there) if there > self._max_rows else (None, None)


def _of(profile: DataProfile, there: int | None) -> DataProfile:
    """Return *profile* with the number of rows that there are, if not all of them were read."""
    return replace(profile, sampled_of=there) if there is not None and there > profile.rows else profile


def _in(window: Window | None) -> str:
    return "" if window is None else f" from {window.start} to {window.end}"
