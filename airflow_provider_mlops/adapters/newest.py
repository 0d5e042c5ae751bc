"""Where a window of the newest data begins and ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_mlops.adapters.files import scan
from airflow_provider_mlops.data.values import Window
from airflow_provider_mlops.drift.counting import microseconds
from airflow_provider_mlops.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_mlops.data.values import DataRef

__all__ = ["newest", "newest_window"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def newest(data: DataRef) -> datetime | None:
    """Return the event time of the newest row; ``None`` when no row has one. Reads one column."""
    if data.timestamp is None:
        raise ConfigError("A window of event time needs the name of the timestamp column (data: timestamp).")
    latest: int | None = None
    for batch in scan(data.path, columns=[data.timestamp], timestamp=data.timestamp):
        times, valid = microseconds(batch.column(data.timestamp), name=data.timestamp, calendar=True)
        if valid.any():
            latest = max(int(times[valid].max()), latest if latest is not None else int(times[valid].min()))
    return None if latest is None else _EPOCH + timedelta(microseconds=latest)


def newest_window(
    data: DataRef,
    length: timedelta,
    as_of: datetime | None = None,
    *,
    look: Callable[[DataRef], datetime | None] = newest,
) -> Window:
    """
    Return the window of *length* that ends at *as_of*, or with the newest row when *as_of* is ``None``.

    :param as_of: first instant after the window; without a zone it is UTC.
    :param look: finds the newest row's event time; reads files by default.
    """
    if as_of is not None:
        end = as_of if as_of.tzinfo else as_of.replace(tzinfo=UTC)
    elif (latest := look(data)) is not None:
        end = latest + timedelta(microseconds=1)  # half-open, and the newest row belongs to it
    else:
        return Window()
    return Window(start=end).before(length)
