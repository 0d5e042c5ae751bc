"""Drift of tables in memory. What all engines share is in tests/contract/test_drift_engine.py."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import feather

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.adapters.engines.frames import FrameEngine
from airflow_provider_mlops.data import DataRef, Window
from airflow_provider_mlops.drift.check import Verdict, check
from airflow_provider_mlops.errors import ConfigError, DataError

ROWS = 8000
DAY = timedelta(days=1)


def values(seed=0, rows=ROWS, move=0.0):
    rng = np.random.default_rng(seed)
    return {
        "amount": rng.normal(move, size=rows),
        "kind": rng.choice(list("abc"), rows),
        "paid": rng.random(rows) > 0.5,
        "at": np.datetime64("2026-01-01", "us") + np.arange(rows) * np.timedelta64(60_000_000, "us"),
    }


def profiles(make, window):
    engine = FrameEngine({"before": make(values()), "now": make(values(1, move=0.3))})
    before = engine.reference(DataRef("before", timestamp="at"), block=DAY)
    return before, engine.window(DataRef("now", timestamp="at"), layout=before, window=window)


def test_frames_of_all_makers_have_the_same_profile():
    window = Window(datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 6, tzinfo=UTC))
    expected = profiles(pa.table, window)
    assert expected[1].rows == 4 * 24 * 60
    assert check(*expected).top_columns == ("amount",)
    for make in (pd.DataFrame, pl.DataFrame, lambda columns: pa.table(columns).to_reader()):
        assert profiles(make, window) == expected


def test_the_row_numbers_of_a_filtered_pandas_frame_are_no_column():
    frame = pd.DataFrame(values())
    engine = FrameEngine({"all": frame, "some": frame[frame["amount"] > -9]})
    before = engine.reference(DataRef("all"))
    assert check(before, engine.window(DataRef("some"), layout=before)).verdict is Verdict.NO_DRIFT


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        ([1, 2], ConfigError, "'t' is of type list, which hands out no Arrow stream"),
        (pl.LazyFrame({"a": [1]}), ConfigError, "LazyFrame"),
        (pd.DataFrame({"mixed": [1, "a", object()]}), DataError, "'t'.*column mixed with type object.*leave out"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), DataError, "'t'.*Duplicate column names"),
        (pa.table([[1], [2]], names=["a", "a"]), DataError, "'t' has two columns named 'a'"),
    ],
)
def test_what_is_no_table_says_so(frame, error, words):
    with pytest.raises(error, match=words):
        FrameEngine({"t": frame})


def test_an_unknown_table_is_named_with_its_neighbor():
    with pytest.raises(DataError, match=r"'befor' is none of the tables in memory\. Did you mean 'before'"):
        FrameEngine({"before": pa.table({"x": [1]})}).reference(DataRef("befor"))


BYTES = pa.array([b"a", None, b"b"] * 1000, pa.binary_view())


@pytest.mark.parametrize(
    ("column", "family"),
    [
        (BYTES, "other"),
        (pa.array([["a"], None, ["b"]] * 1000, pa.list_(pa.string_view())), "other"),
        (pa.StructArray.from_arrays([BYTES], ["a"]), "other"),
        (pa.array(["a", None, "b"] * 1000, pa.string_view()), "text"),
        (pc.run_end_encode(pa.array([1.5, 1.5, 2.5] * 1000)), "number"),
        (pc.run_end_encode(pa.array(["a", "a", "b"] * 1000)), "text"),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_types_of_which_arrow_takes_no_rows_are_counted(tmp_path, column, family):
    table = pa.table({"x": column, "at": pa.array(range(3000), pa.timestamp("s"))})
    path = str(tmp_path / "rows.arrow")
    feather.write_feather(table, path, compression="uncompressed")
    half = Window(None, datetime(1970, 1, 1, 0, 25))
    for engine, name in ((EmbeddedEngine(), path), (FrameEngine({"t": table}), "t")):
        before = engine.reference(DataRef(name, timestamp="at"), block=timedelta(minutes=5))
        assert before.columns["x"].family == family
        assert engine.window(DataRef(name), layout=before, window=half).rows == 1500


def test_times_that_no_calendar_holds_are_named_also_where_blocks_are_cut():
    table = pa.table({"x": [1.0, 2.0], "at": pa.array([2**62, 2**62 + 1], pa.timestamp("us"))})
    with pytest.raises(DataError, match="'at' holds a time outside the years 1 to 9999"):
        FrameEngine({"t": table}).reference(DataRef("t", timestamp="at"), block=DAY)


def test_a_block_of_no_length_is_refused():
    with pytest.raises(ConfigError, match="block: expected a length of time > 0"):
        FrameEngine({"t": pa.table(values())}).reference(DataRef("t", timestamp="at"), block=timedelta(0))


def test_whole_numbers_beyond_those_of_a_float_make_segments():
    table = pa.table({"x": np.arange(200.0), "shop": pa.array([2**63, 5] * 100, pa.uint64())})
    found = FrameEngine({"t": table}).reference(DataRef("t"), segment="shop")
    assert [part.rows for part in found.segments.profiles.values()] == [100, 100]


def test_a_window_may_name_the_zone_of_one_end_only():
    assert Window(datetime(2026, 1, 1), datetime(2026, 1, 2, tzinfo=UTC)).end == datetime(2026, 1, 2, tzinfo=UTC)
    with pytest.raises(ConfigError, match="cannot end"):
        Window(datetime(2026, 1, 3), datetime(2026, 1, 2, tzinfo=UTC))


def test_no_window_begins_before_the_calendar():
    with pytest.raises(ConfigError, match=r"999999 days.* is before the year 1"):
        Window(datetime(2026, 1, 1, tzinfo=UTC)).before(timedelta(days=999_999))
    engine = FrameEngine({"t": pa.table(values())})
    east = timezone(timedelta(hours=5))
    with pytest.raises(ConfigError, match="0001-01-01 00:00:00\\+05:00 is outside the years 1 to 9999"):
        engine.reference(DataRef("t", timestamp="at"), window=Window(datetime(1, 1, 1, tzinfo=east)))


def test_a_reference_of_next_to_no_rows_is_compared_with_nothing():
    engine = FrameEngine({"one": pa.table({"x": [1.0]}), "now": pa.table({"x": np.arange(3000.0)})})
    before = engine.reference(DataRef("one"))
    report = check(before, engine.window(DataRef("now"), layout=before))
    assert (report.verdict, report.reason) == (Verdict.NO_DATA, "few_reference_rows")
    assert report.sentence == "The reference has 1 row; with under 50 nothing is compared. Take a longer one."
