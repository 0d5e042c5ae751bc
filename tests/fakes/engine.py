"""An engine over tables in memory, held to the same contract as the real ones."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from airflow_provider_mlops.drift.layout import Sample, choose_layout, without_identifiers
from airflow_provider_mlops.drift.profile import ProfileBuilder
from airflow_provider_mlops.errors import DataError


class MemoryEngine:
    """Profiles the tables it was given, by the path that a `DataRef` names."""

    def __init__(self, tables):
        self.tables = dict(tables)

    def _rows(self, data, window):
        if data.path not in self.tables:
            raise DataError(f"{data.path!r} is no table. Known: {', '.join(self.tables)}.")
        table = self.tables[data.path].combine_chunks()
        if window is not None:
            if data.timestamp not in table.column_names:
                raise DataError(f"Column {data.timestamp!r} is not in {data.path!r}.")
            if not pa.types.is_temporal(table[data.timestamp].type):
                raise DataError(f"The timestamp column {data.timestamp!r} of {data.path!r} holds no time.")
            times = table[data.timestamp].cast(pa.timestamp("us"), safe=False).cast(pa.int64())
            for bound, keep in ((window.start, pc.greater_equal), (window.end, pc.less)):
                if bound is not None:
                    aware = bound if bound.tzinfo else bound.replace(tzinfo=UTC)
                    mask = keep(times, (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))
                    table, times = table.filter(mask), times.filter(mask)
        return table

    def reference(self, data, *, window=None, block=None, exclude=(), text=None, segment=None):
        table = self._rows(data, window)
        if not table.num_rows:
            raise DataError(f"The reference {data.path!r} has no rows, so nothing can be compared with it.")
        left_out = [name for name in (data.label, data.entity, *exclude) if name is not None]
        judged = [
            n
            for n in table.column_names
            if n not in left_out and (data.columns is None or n in (*data.columns, data.timestamp))
        ]
        if segment in table.column_names and segment not in judged:
            judged.append(segment)
            left_out.append(segment)
        table = table.select(judged)
        origin = None
        if block is not None and data.timestamp is not None:
            first = pc.min(table[data.timestamp]).as_py()
            origin = (
                window.start
                if window is not None and window.start
                else datetime(first.year, first.month, first.day, tzinfo=UTC)
            )
        sample = Sample()
        for batch in table.to_batches(max_chunksize=65_536):
            sample.add(batch)
        layout = choose_layout(
            sample.batch(),
            timestamp=data.timestamp,
            exclude=left_out,
            block=block,
            origin=origin,
            text=text,
            segment=segment,
        )
        return without_identifiers(self._count(table, layout))

    def window(self, data, *, layout, window=None):
        timestamp = data.timestamp or layout.timestamp
        table = self._rows(replace(data, timestamp=timestamp), window)
        table = table.select(
            [
                n
                for n in table.column_names
                if (n not in layout.excluded and (data.columns is None or n in (*data.columns, timestamp)))
                or (layout.segments and n == layout.segments.column)
            ]
        )
        return self._count(table, replace(layout.without_counts(blocks=False), timestamp=timestamp))

    def _count(self, table, layout):
        builder = ProfileBuilder(layout)
        for batch in table.to_batches(max_chunksize=1000):
            builder.add(batch)
        return builder.profile()
