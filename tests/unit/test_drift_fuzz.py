"""Whatever the files hold, a check ends with a report or with an error of ours that names the file or the column."""

import decimal
import json
from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import csv, feather, parquet

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.data import DataRef, Window
from airflow_provider_mlops.drift.check import Verdict, check
from airflow_provider_mlops.errors import DataError, MlopsError

ORIGIN = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = 200
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def table(seed=0):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "x": rng.normal(size=ROWS),
            "k": rng.integers(0, 5, ROWS),
            "c": pa.array(rng.choice(["a", "b"], ROWS)),
            "at": pa.array([ORIGIN + timedelta(hours=i) for i in range(ROWS)], pa.timestamp("us", tz="UTC")),
        }
    )


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    file = tmp_path_factory.mktemp("fuzz") / "reference.parquet"
    parquet.write_table(table(), file)
    return EmbeddedEngine().reference(DataRef(str(file), timestamp="at"), block=timedelta(days=1))


def judge(reference, path):
    return check(reference, EmbeddedEngine().window(DataRef(str(path), timestamp="at"), layout=reference))


# Files


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@FUZZ
@given(place=st.integers(0, 2**31), byte=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_file_is_named(reference, tmp_path, suffix, place, byte, cut):
    file = tmp_path / f"damaged.{suffix}"
    if suffix == "parquet":
        parquet.write_table(table(1), file)
    else:
        feather.write_feather(table(1), str(file), compression="uncompressed")
    content = bytearray(file.read_bytes())
    place %= len(content)
    content[place] ^= byte
    file.write_bytes(content[:place] if cut else content)
    try:
        report = judge(reference, file)
    except DataError as error:
        assert any(name in str(error) for name in (f"damaged.{suffix}", "column 'at'"))  # noqa: PT017 - or a report
    else:
        json.dumps(report.to_dict(), allow_nan=False)


CELLS = st.sampled_from(
    ["1", "2.5", "-3e4", "", "nil", "NaN", "inf", "a", "true", "1,5", "2026-01-01", " 7 ", "0x1F", "ü"]
)


@FUZZ
@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=60, max_size=80))
def test_a_csv_of_mixed_types_is_judged_by_the_references_types(reference, tmp_path, rows):
    file = tmp_path / "mixed.csv"
    lines = ["x,k,c,at", *(f'"{x}","{k}","{c}",2026-02-01T00:00:00' for x, k, c in rows)]
    file.write_text("\n".join(lines) + "\n")
    report = judge(reference, file)
    unparsed = sum(x not in {"1", "2.5", "-3e4", "", " 7 "} for x, _, _ in rows)
    if unparsed > 0.5 * len(rows):
        assert report.columns["x"].verdict is Verdict.BAD_DATA
    assert report.verdict is not Verdict.NO_DRIFT or not unparsed


VALUES = {
    "double": (pa.float64(), st.floats()),
    "half": (pa.float16(), st.floats(width=16).map(np.float16)),
    "tiny": (pa.int8(), st.integers(-128, 127)),
    "huge": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "decimal": (pa.decimal128(38, 9), st.decimals(-(10**20), 10**20, places=9)),
    "flag": (pa.bool_(), st.booleans()),
    "text": (pa.string(), st.text(max_size=5)),
    "large text": (pa.large_string(), st.text(max_size=5)),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "b", ""])),
    "number dictionary": (pa.dictionary(pa.int8(), pa.int64()), st.integers(0, 3)),
    "bytes": (pa.binary(), st.binary(max_size=4)),
    "list": (pa.list_(pa.float32()), st.lists(st.floats(width=32), max_size=3)),
    "struct": (pa.struct([("a", pa.int64())]), st.fixed_dictionaries({"a": st.integers(0, 9)})),
    "map": (
        pa.map_(pa.string(), pa.int64()),
        st.dictionaries(st.text(max_size=2), st.integers(0, 9)).map(lambda d: list(d.items())),
    ),
    "date": (pa.date32(), st.dates()),
    "time": (pa.time64("us"), st.times()),
    "moment": (pa.timestamp("ns"), st.integers(0, 2**62)),
    "duration": (pa.duration("s"), st.integers(0, 10**6)),
    "nothing": (pa.null(), st.none()),
}


@FUZZ
@given(st.data())
def test_columns_of_any_type_are_judged_or_said_not_to_be(tmp_path, data):
    kinds = data.draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))

    def draw(kind, rows):
        type_, values = VALUES[kind]
        some = data.draw(st.lists(st.one_of(st.none(), values), min_size=1, max_size=8))
        return pa.array([some[i % len(some)] for i in range(rows)], type_)

    now = data.draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=len(kinds), max_size=len(kinds)))
    for name, chosen in (("before", kinds), ("now", now)):
        columns = {f"column {i}": draw(kind, ROWS) for i, kind in enumerate(chosen)}
        feather.write_feather(pa.table(columns), str(tmp_path / f"{name}.arrow"), compression="uncompressed")
    engine = EmbeddedEngine()
    before = engine.reference(DataRef(str(tmp_path / "before.arrow")))
    before = type(before).from_json(before.to_json())
    report = check(before, engine.window(DataRef(str(tmp_path / "now.arrow")), layout=before))
    json.dumps(report.to_dict(), allow_nan=False)
    assert set(report.columns) == {f"column {i}" for i in range(len(kinds))}
    for column in report.columns.values():
        assert column.sentence.startswith((f"'{column.name}'", "All ", "The share ")) or column.name in column.sentence


# What people bring


def test_files_whose_times_have_several_zones_are_one_moment_in_time(reference, tmp_path):
    for zone in ("UTC", "America/New_York", "Asia/Kolkata"):
        part = table(2).set_column(3, "at", table(2)["at"].cast(pa.timestamp("us", tz=zone)))
        parquet.write_table(part, tmp_path / f"{zone.replace('/', '-')}.parquet")
    try:
        profile = EmbeddedEngine().window(
            DataRef(str(tmp_path), timestamp="at"),
            layout=reference,
            window=Window(ORIGIN, ORIGIN + timedelta(hours=10)),
        )
    except DataError as error:
        assert "'at'" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert profile.rows == 30


def test_a_csv_whose_times_have_several_zones_is_read_in_utc(reference, tmp_path):
    lines = [f"{i}.5,1,a,2026-01-01T{i % 24:02}:00:00{zone}" for i in range(60) for zone in ("Z", "+05:30", "-05:00")]
    (tmp_path / "zones.csv").write_text("\n".join(["x,k,c,at", *lines]) + "\n")
    profile = EmbeddedEngine().window(DataRef(str(tmp_path / "zones.csv"), timestamp="at"), layout=reference)
    assert profile.rows == 180
    assert (profile.start, profile.end) == ("2025-12-31T18:30:00+00:00", "2026-01-02T04:00:00+00:00")


def test_python_objects_are_a_type_of_their_own(reference, tmp_path):
    import pandas as pd

    frame = table(3).to_pandas()
    frame["x"] = [{"a": i} if i % 2 else [i] for i in range(ROWS)]
    with pytest.raises((pa.ArrowException, TypeError)):
        frame.to_parquet(tmp_path / "objects.parquet")  # pandas itself cannot write them
    frame["x"] = [{"a": i} for i in range(ROWS)]
    frame.to_parquet(tmp_path / "objects.parquet")
    assert isinstance(frame, pd.DataFrame)
    report = judge(reference, tmp_path / "objects.parquet")
    assert (report.verdict, report.reason, report.top_columns) == (Verdict.BAD_DATA, "retyped", ("x",))


def test_ten_thousand_columns_are_judged(tmp_path):
    rng = np.random.default_rng(0)
    wide = pa.table({f"c{i}": rng.normal(size=60) for i in range(10_000)})
    feather.write_feather(wide, str(tmp_path / "wide.arrow"), compression="uncompressed")
    engine, data = EmbeddedEngine(), DataRef(str(tmp_path / "wide.arrow"))
    reference = engine.reference(data)
    report = check(reference, engine.window(data, layout=reference))
    assert len(report.columns) == 10_000
    assert report.verdict is Verdict.INSUFFICIENT


def test_times_dates_and_decimals_of_the_edge_of_their_types(tmp_path):
    edges = pa.table(
        {
            "date": pa.array([date.min, date.max] * 50),
            "time": pa.array([time.min, time.max] * 50),
            "decimal": pa.array([decimal.Decimal("1e37"), decimal.Decimal("-1e37")] * 50, pa.decimal128(38, 0)),
            "big": pa.array([2**63 - 1, -(2**63)] * 50),
        }
    )
    parquet.write_table(edges, tmp_path / "edges.parquet")
    csv.write_csv(edges, tmp_path / "edges.csv")
    engine = EmbeddedEngine()
    reference = engine.reference(DataRef(str(tmp_path / "edges.parquet")))
    report = check(reference, engine.window(DataRef(str(tmp_path / "edges.parquet")), layout=reference))
    assert not report.drifted
    with pytest.raises(MlopsError, match="timestamp column 'time'"):
        engine.window(DataRef(str(tmp_path / "edges.parquet"), timestamp="time"), layout=reference)
