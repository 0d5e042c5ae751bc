"""The embedded engine: counts files with arrow in this process. The default."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_mlops.adapters.files import column_names, file_format, scan, schema
from airflow_provider_mlops.drift.counting import microseconds
from airflow_provider_mlops.drift.layout import Sample, block_origin, choose_layout, without_identifiers
from airflow_provider_mlops.drift.profile import DataProfile, Family, ProfileBuilder
from airflow_provider_mlops.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from airflow_provider_mlops.data import DataRef, Window

__all__ = ["EmbeddedEngine"]

_PARSED = (Family.NUMBER, Family.BOOLEAN, Family.TEXT)  # families that CSV text is read as, by the layout


class EmbeddedEngine:
    """Profiles files, folders, globs and fsspec URLs of Parquet, CSV or Arrow. Implements `drift.engine.Engine`."""

    def reference(
        self,
        data: DataRef,
        *,
        window: Window | None = None,
        block: timedelta | None = None,
        exclude: Sequence[str] = (),
    ) -> DataProfile:
        """Choose bins for *data* and count it on them; reads it twice. See `drift.engine.Engine.reference`."""
        found = schema(data.path)
        left_out = tuple(dict.fromkeys(name for name in (data.label, data.entity, *exclude) if name is not None))
        wanted = data.columns if data.columns is not None else found.names
        read = [name for name in wanted if name not in left_out]
        if data.timestamp and data.timestamp not in read:
            read.append(data.timestamp)
        types = {field.name: field.type for field in found}
        sample, first = Sample(), None
        for batch in scan(
            data.path, columns=read, timestamp=data.timestamp, window=window, types=types, dictionaries=True
        ):
            sample.add(batch)
            if data.timestamp and block is not None:
                times, valid = microseconds(batch.column(data.timestamp), name=data.timestamp)
                if valid.any():
                    earliest = int(times[valid].min())
                    first = earliest if first is None else min(first, earliest)
        rows = sample.batch()
        if rows is None:
            raise DataError(
                f"The reference {data.path!r} has no rows{_in(window)}, so nothing can be compared with it."
            )
        layout = choose_layout(
            rows, timestamp=data.timestamp, exclude=left_out, block=block, origin=block_origin(first, block, window)
        )
        builder = ProfileBuilder(layout)
        for batch in scan(
            data.path, columns=read, timestamp=data.timestamp, window=window, types=types, dictionaries=True
        ):
            builder.add(batch)
        return without_identifiers(builder.profile())

    def window(self, data: DataRef, *, layout: DataProfile, window: Window | None = None) -> DataProfile:
        """Count *data* on the bins of *layout*; reads it once. See `drift.engine.Engine.window`."""
        import pyarrow as pa

        untyped = file_format(data.path) == "csv"
        types = {name: pa.string() for name, column in layout.columns.items() if untyped and column.family in _PARSED}
        found = dict.fromkeys(column_names(data.path))
        wanted = data.columns if data.columns is not None else found
        timestamp = data.timestamp if data.timestamp is not None else layout.timestamp
        read = [name for name in wanted if name in found and name not in layout.excluded]
        if timestamp in found and timestamp not in read:
            read.append(timestamp)
        builder = ProfileBuilder(replace(layout.without_counts(blocks=False), timestamp=timestamp))
        for batch in scan(data.path, columns=read, timestamp=timestamp, window=window, types=types, dictionaries=True):
            builder.add(batch, typed=not untyped)
        return builder.profile()


def _in(window: Window | None) -> str:
    return "" if window is None else f" from {window.start} to {window.end}"
