"""Words that say where data is and which part of it is meant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from airflow_provider_mlops.data import DataRef, parse_time
from airflow_provider_mlops.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("tx.parquet", "data: expected a mapping with a 'path', got 'tx.parquet'"),
        ({"path": 5}, "data.path: expected text, got 5"),
        ({"path": "tx/", "label": ["fraud"]}, r"data.label: expected text, got \['fraud'\]"),
        ({"path": "tx/", "columns": "amount"}, "data.columns: expected a list of columns, got 'amount'"),
        ({"path": "tx/", "columns": ["amount", 1]}, "data.columns: expected a list of columns"),
        (
            {"path": "tx/", "lable": "fraud"},
            "data: 'lable' is no key of a data reference. Did you mean 'table' or 'label'",
        ),
        ({"label": "fraud"}, "data: 'path' is missing"),
    ],
)
def test_what_is_no_data_reference_is_named(values, message):
    with pytest.raises(ConfigError, match=message):
        DataRef.from_dict(values)


def test_a_time_without_a_zone_is_utc_and_nothing_is_no_time():
    assert parse_time("as_of", "2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    east = parse_time("as_of", "2026-01-31T06:00+02:00")
    assert east == datetime(2026, 1, 31, 6, tzinfo=timezone(timedelta(hours=2)))
    assert parse_time("as_of", "") is parse_time("as_of", None) is None
    with pytest.raises(ConfigError, match=r"as_of: 'soon' is no time\. Write ISO 8601, such as"):
        parse_time("as_of", "soon")
