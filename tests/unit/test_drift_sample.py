"""A part of large data, chosen by row groups, gives the answer that all of it gives."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.data import DataRef, Window
from airflow_provider_mlops.drift.check import DriftPolicy, check, rows_needed
from airflow_provider_mlops.errors import ConfigError

ORIGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAYS, PER_DAY = 40, 4000


def days(first, count, shift=0.0):
    rng, n = np.random.default_rng(first), count * PER_DAY
    at = np.datetime64("2026-01-01", "us") + (
        np.arange(n) * (86_400_000_000 // PER_DAY) + first * 86_400_000_000
    ).astype("timedelta64[us]")
    return pa.table(
        {
            "x": rng.normal(shift, 1, n),
            "c": pa.array(rng.choice(["a", "b", "c"], n, p=[0.6, 0.3, 0.1])),
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    for name, table in (("before", days(0, DAYS)), ("quiet", days(DAYS, 20)), ("moved", days(DAYS, 20, shift=0.2))):
        parquet.write_table(table, folder / f"{name}.parquet", row_group_size=1000)
    return lambda name: DataRef(str(folder / f"{name}.parquet"), timestamp="at")


def test_a_part_gives_the_verdict_of_the_whole(data):
    policy = DriftPolicy()
    reference = EmbeddedEngine().reference(data("before"), block=timedelta(days=1))
    engine = EmbeddedEngine(max_rows=rows_needed(reference, policy))
    for name, verdict in (("quiet", "no_drift"), ("moved", "drift")):
        part, whole = engine.window(data(name), layout=reference), EmbeddedEngine().window(data(name), layout=reference)
        assert part.rows < whole.rows / 10
        assert (part.sampled_of, whole.sampled_of) == (whole.rows, None)
        assert check(reference, part, policy).verdict == check(reference, whole, policy).verdict == verdict


def test_a_part_of_a_reference_has_rows_of_every_block(data):
    reference = EmbeddedEngine(max_rows=40_000).reference(data("before"), block=timedelta(days=1))
    assert (reference.rows, reference.sampled_of) == (40_000, DAYS * PER_DAY)
    assert len(reference.blocks) == DAYS
    assert reference.full_blocks().size >= DAYS - 2  # the first and the last are perhaps not seen to their ends


def test_what_is_not_larger_or_no_parquet_is_read_whole(data, tmp_path):
    reference = EmbeddedEngine(max_rows=10**9).reference(data("before"))
    assert (reference.rows, reference.sampled_of) == (DAYS * PER_DAY, None)
    engine = EmbeddedEngine(max_rows=4000)
    day = Window(ORIGIN + timedelta(days=3), ORIGIN + timedelta(days=4))
    assert engine.window(data("before"), layout=reference, window=day).sampled_of is None
    csv.write_csv(days(0, 2), tmp_path / "two.csv")
    found = engine.window(DataRef(str(tmp_path / "two.csv"), timestamp="at"), layout=reference)
    assert (found.rows, found.sampled_of) == (2 * PER_DAY, None)


def test_no_rows_at_most_is_a_mistake():
    with pytest.raises(ConfigError, match="max_rows: expected a whole number >= 1, got 0"):
        EmbeddedEngine(max_rows=0)
