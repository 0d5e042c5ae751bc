"""What every drift engine must do. A new engine joins by one line in ENGINES."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, feather, parquet

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.data import DataRef, Window
from airflow_provider_mlops.drift.check import Verdict, check
from airflow_provider_mlops.errors import DataError
from fakes.engine import MemoryEngine

ORIGIN = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def memory(tables, folder):
    return MemoryEngine({str(folder / name): table for name, table in tables.items()})


def embedded(write, suffix):
    def make(tables, folder):
        for name, table in tables.items():
            (folder / name).mkdir()
            half = table.num_rows // 2 or table.num_rows
            for part, rows in enumerate([table.slice(0, half), table.slice(half)]):
                write(rows, folder / name / f"part-{part}.{suffix}")
        return EmbeddedEngine()

    return make


ENGINES = [
    pytest.param(memory, id="memory"),
    pytest.param(embedded(lambda t, p: parquet.write_table(t, p, row_group_size=700), "parquet"), id="parquet"),
    pytest.param(embedded(csv.write_csv, "csv"), id="csv"),
    pytest.param(embedded(lambda t, p: feather.write_feather(t, str(p)), "arrow"), id="arrow"),
]


def events(days, per_day=400, seed=0, first=ORIGIN):
    rng, n = np.random.default_rng(seed), days * per_day
    at = [first + timedelta(minutes=int(m)) for m in np.sort(rng.integers(0, days * 1440, n))]
    return pa.table(
        {
            "x": pa.array(rng.normal(size=n).round(6), mask=rng.random(n) < 0.02),
            "k": rng.integers(0, 9, n),
            "c": pa.array(rng.choice(["red", "green", "blue"], n)),
            "b": rng.random(n) < 0.3,
            "id": pa.array([f"{seed}-{i}" for i in range(n)]),
            "label": rng.integers(0, 2, n),
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
        }
    )


@pytest.fixture(scope="module")
def tables():
    now = events(2, seed=1, first=ORIGIN + 8 * DAY)
    return {
        "before": events(8),
        "now": now,
        "lacking": now.drop_columns(["k"]),
        "more": now.append_column("z", pa.array(["new"] * now.num_rows)),
        "text": now.set_column(1, "k", pa.array(["many"] * now.num_rows)),
    }


@pytest.fixture(params=ENGINES)
def engine(request, tables, tmp_path):
    return request.param(tables, tmp_path)


@pytest.fixture
def data(tmp_path):
    return lambda name, **options: DataRef(str(tmp_path / name), label="label", timestamp="at", **options)


def test_the_reference_counts_every_row_and_judges_neither_label_nor_time(engine, data, tables):
    reference = engine.reference(data("before"), block=DAY)
    assert reference.rows == tables["before"].num_rows
    assert list(reference.columns) == ["x", "k", "c", "b", "id"]
    assert reference.columns["x"].null == tables["before"]["x"].null_count
    assert reference.columns["id"].identifier
    assert sum(reference.block_rows) == reference.rows
    assert reference.full_blocks().size == 8


def test_all_engines_give_the_counts_of_the_fake(engine, data, tables, tmp_path):
    fake = memory(tables, tmp_path)
    left, right = (e.reference(data("before"), block=DAY) for e in (engine, fake))
    for name, column in left.columns.items():
        other = right.columns[name]
        assert (column.rows, column.null) == (other.rows, other.null)
        assert column.same_layout(other)
        if column.numbers:
            assert np.array_equal(column.numbers.counts, other.numbers.counts)
            assert np.array_equal(column.numbers.blocks, other.numbers.blocks)
        if column.categories:
            assert column.categories.counts == other.categories.counts
    left, right = (e.window(data("now"), layout=right) for e in (engine, fake))
    assert left.columns["x"].numbers.counts.tolist() == right.columns["x"].numbers.counts.tolist()
    assert left.columns["c"].categories.counts == right.columns["c"].categories.counts


def test_the_same_rows_give_the_same_reference(engine, data):
    assert engine.reference(data("before"), block=DAY) == engine.reference(data("before"), block=DAY)


def test_a_window_of_time_is_half_open(engine, data, tables):
    reference = engine.reference(data("before"), block=DAY)
    start, end = ORIGIN + 2 * DAY, ORIGIN + 4 * DAY
    inside = engine.window(data("before"), layout=reference, window=Window(start, end))
    before = engine.window(data("before"), layout=reference, window=Window(None, start))
    after = engine.window(data("before"), layout=reference, window=Window(end, None))
    assert inside.rows == sum(start <= t < end for t in tables["before"]["at"].to_pylist())
    assert before.rows + inside.rows + after.rows == reference.rows


def test_a_window_without_rows_is_an_answer(engine, data):
    reference = engine.reference(data("before"))
    profile = engine.window(data("now"), layout=reference, window=Window(ORIGIN + 99 * DAY))
    assert profile.rows == 0
    assert check(reference, profile).verdict is Verdict.NO_DATA


def test_a_reference_without_rows_is_an_error(engine, data):
    with pytest.raises(DataError, match="has no rows"):
        engine.reference(data("before"), window=Window(ORIGIN + 99 * DAY))


def test_data_that_is_not_there_is_an_error_with_its_name(engine, data):
    with pytest.raises(DataError, match="nowhere"):
        engine.reference(data("nowhere"))


def test_the_columns_asked_for_are_judged_and_no_others(engine, data):
    reference = engine.reference(data("before", columns=("k", "c")), exclude=["c"])
    assert list(reference.columns) == ["k"]
    assert engine.window(data("more", columns=("k",)), layout=reference).extra == {}


@pytest.mark.parametrize(
    ("name", "code"), [("now", None), ("lacking", "missing_column"), ("more", "extra_column"), ("text", "retyped")]
)
def test_what_is_broken_is_seen(engine, data, name, code, request):
    if code == "retyped" and "csv" in request.node.name:
        code = "unparsed_values"  # a CSV has no types; its values fail to parse
    reference = engine.reference(data("before"), block=DAY)
    report = check(reference, engine.window(data(name), layout=reference))
    assert (report.verdict is Verdict.BAD_DATA) is (code is not None)
    if code:
        assert report.reason == code


def test_profiles_of_parts_merge_to_the_profile_of_the_whole(engine, data):
    reference = engine.reference(data("before"), block=DAY)
    middle = ORIGIN + 9 * DAY
    whole = engine.window(data("now"), layout=reference)
    parts = [
        engine.window(data("now"), layout=reference, window=w) for w in (Window(None, middle), Window(middle, None))
    ]
    merged = parts[0].merge(parts[1])
    assert (merged.rows, merged.start, merged.end) == (whole.rows, whole.start, whole.end)
    assert merged.columns["x"].numbers.counts.tolist() == whole.columns["x"].numbers.counts.tolist()
    assert merged.columns["c"].categories.counts == whole.columns["c"].categories.counts
