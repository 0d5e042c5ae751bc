"""What every drift engine must do. A new engine joins by one line in ENGINES."""

import decimal
import math
import random
import sqlite3
import uuid
from contextlib import chdir, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from pyarrow import csv, feather, parquet

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.adapters.engines.frames import FrameEngine
from airflow_provider_mlops.adapters.engines.spark import SparkEngine
from airflow_provider_mlops.adapters.engines.sql import SqlEngine
from airflow_provider_mlops.data import DataRef, Window
from airflow_provider_mlops.drift.check import Verdict, check
from airflow_provider_mlops.errors import DataError, ServiceError

# Older releases of Spark's client leave the sockets to its Java to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

ORIGIN = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
PLANTED = '"; drop table wide; --'
ODD_NAME = "o'brien %s :x {y} `z`"


@dataclass(frozen=True)
class Place:
    """An engine, and how the tables are called there."""

    engine: Any
    name: str
    call: Any

    def data(self, table, **options):
        return DataRef(**{"label": "label", "timestamp": "at", **self.call(table), **options})


def memory(tables, folder, _):
    return FrameEngine({str(folder / name): table for name, table in tables.items()}), in_folder(folder)


def in_folder(folder):
    return lambda name: {"path": str(folder / name)}


def in_database(name):
    return {"table": name, "conn_id": "warehouse"}


def embedded(write, suffix):
    def make(tables, folder, _):
        for name, table in tables.items():
            (folder / name).mkdir()
            half = table.num_rows // 2 or table.num_rows
            for part, rows in enumerate([table.slice(0, half), table.slice(half)]):
                write(rows, folder / name / f"part-{part}.{suffix}")
        return EmbeddedEngine(), in_folder(folder)

    return make


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def create(name, table, types):
    """Return CREATE TABLE, with the type that *types* gives to each arrow type."""
    columns = ", ".join(f"{quoted(field.name)} {types(field.type)}" for field in table.schema)
    return f"CREATE TABLE {quoted(name)} ({columns})"


def sqlite(tables, folder, _):
    def type_of(type_):
        if pa.types.is_timestamp(type_):
            return "TIMESTAMP"
        names = {pa.bool_(): "BOOLEAN", pa.int64(): "BIGINT", pa.string(): "TEXT"}
        return names.get(type_, "DOUBLE PRECISION")

    def stored(value):
        return float(value) if isinstance(value, decimal.Decimal) else str(value) if is_time(value) else value

    file = folder / "data.db"
    connection = sqlite3.connect(file)
    for name, table in tables.items():
        connection.execute(create(name, table, type_of))
        marks = ", ".join("?" * table.num_columns)
        connection.executemany(
            f"INSERT INTO {quoted(name)} VALUES ({marks})", [[stored(v) for v in r] for r in rows(table)]
        )
    connection.commit()
    connection.close()
    return SqlEngine(lambda: sqlite3.connect(file), "sqlite"), in_database


def is_time(value):
    return isinstance(value, datetime)


def rows(table):
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def in_duckdb(tables, folder, _):
    file = str(folder / "data.duckdb")
    with duckdb.connect(file) as connection:
        for name, table in tables.items():
            connection.register("arrow", table)
            connection.execute(f"CREATE TABLE {quoted(name)} AS SELECT * FROM arrow")
            connection.unregister("arrow")
    return SqlEngine(lambda: duckdb.connect(file, read_only=True), "duckdb"), in_database


def postgresql(tables, _, server):
    def type_of(type_):
        if pa.types.is_timestamp(type_):
            return "timestamptz" if type_.tz else "timestamp"
        if pa.types.is_decimal(type_):
            return "numeric"
        return {pa.bool_(): "boolean", pa.int64(): "bigint", pa.string(): "text"}.get(type_, "double precision")

    engine = database(server("postgres"))
    with engine.begin() as connection:
        cursor = connection.connection.cursor()
        for name, table in tables.items():
            cursor.execute(create(name, table, type_of))
            with cursor.copy(f"COPY {quoted(name)} FROM STDIN") as copy:
                for row in rows(table):
                    copy.write_row(row)
    return SqlEngine(engine.raw_connection, "postgresql"), in_database


def spark(tables, folder, session):
    embedded(lambda t, p: parquet.write_table(t, p, row_group_size=700), "parquet")(tables, folder, None)
    return SparkEngine(session("spark_session")), in_folder(folder)


@pytest.fixture(scope="session")
def spark_session(tmp_path_factory):
    """Spark in this process's own Java, in a zone that is not UTC."""
    from pyspark.sql import SparkSession

    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "1g",
        "spark.sql.shuffle.partitions": "1",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "America/New_York",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("spark")),
    }
    builder = SparkSession.builder.master("local[2]").appName("drift")
    for key, value in settings.items():
        builder = builder.config(key, value)
    with chdir(tmp_path_factory.mktemp("spark")):  # Java writes where it was started
        session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")  # it warns of long statements
    yield session
    session.stop()


def database(url):
    """Return a new database of the server, in a zone that is not UTC."""
    name = f"drift_{uuid.uuid4().hex}"
    admin = sa.create_engine(url.format(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
        connection.execute(sa.text(f"ALTER DATABASE {name} SET timezone = 'America/New_York'"))
    return sa.create_engine(url.format(database=name), poolclass=sa.NullPool)


ENGINES = [
    pytest.param(memory, id="memory"),
    pytest.param(embedded(lambda t, p: parquet.write_table(t, p, row_group_size=700), "parquet"), id="parquet"),
    pytest.param(embedded(csv.write_csv, "csv"), id="csv"),
    pytest.param(embedded(lambda t, p: feather.write_feather(t, str(p)), "arrow"), id="arrow"),
    pytest.param(sqlite, id="sqlite"),
    pytest.param(in_duckdb, id="duckdb"),
    pytest.param(postgresql, id="postgresql", marks=pytest.mark.service("postgresql")),
    pytest.param(spark, id="spark", marks=pytest.mark.service("java")),
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


def wide(days, seed, moved=0.0):
    """Return a table with whatever makes engines differ. No row in 20 has a time."""
    rng, n = np.random.default_rng(seed), days * 150
    pick = random.Random(seed)
    minutes = np.sort(rng.integers(0, days * 1440, n))
    at = [
        None if rng.random() < 0.05 else datetime(2026, 3, 1) + timedelta(minutes=int(m), microseconds=7)
        for m in minutes
    ]
    words = [
        "",
        " ",
        "plain",
        "o'brien",
        'say "hi"',
        "back\\slash",
        "new\nline",
        "tab\t",
        "naïve",
        "日本",
        "🌧",
        "100%",
        ":x",
        "NULL",
        "a;--",
    ]
    letters = [*map(chr, range(9, 14)), *map(chr, range(32, 127)), *"é日🌧\u200d\x1f\xa0\u2003"]
    edges = [5e-324, -5e-324, 0.0, -0.0, 1e-200, 1e140, -1e140, 0.1, 1 / 3, 2**53 + 2.0]
    return pa.table(
        {
            "at": pa.array(at, pa.timestamp("us")),
            "smooth": rng.normal(moved, 1, n),
            "ties": pa.array(rng.normal(moved, 1, n).round(1), mask=rng.random(n) < 0.1),
            "few": rng.integers(-3, 4, n),
            "large": pa.array([pick.randrange(-(2**62), 2**62) for _ in range(n)], pa.int64()),
            "extreme": pa.array([pick.choice(edges) for _ in range(n)]),
            "price": pa.array(
                [decimal.Decimal(pick.randrange(0, 99999)) / 100 for _ in range(n)], pa.decimal128(10, 2)
            ),
            "flag": pa.array(rng.random(n) < 0.2 + moved / 10, mask=rng.random(n) < 0.1),
            "word": pa.array([pick.choice(words) for _ in range(n)], mask=rng.random(n) < 0.1),
            "code": pa.array([f"c{int(v)}" for v in rng.zipf(1.5, n).clip(0, 900)]),
            "note": pa.array(
                ["a " + "".join(pick.choices(letters, k=pick.randrange(40))) for _ in range(n)],
                mask=rng.random(n) < 0.1,
            ),
            "mostly_null": pa.array(rng.normal(size=n), mask=rng.random(n) < 0.95),
            "void": pa.nulls(n, pa.float64()),
            "constant": np.ones(n),
            "ordered": pa.array([datetime(2026, 1, 1)] * n, pa.timestamp("us")),
            PLANTED: rng.integers(0, 3, n),
            ODD_NAME: pa.array([pick.choice(["x", "y"]) for _ in range(n)]),
        }
    )


@pytest.fixture(scope="module")
def tables():
    now = events(2, seed=1, first=ORIGIN + 8 * DAY)
    broken = wide(2, 3)
    not_a_number = pa.array([[math.nan, math.inf, -math.inf, None, 1.5][i % 5] for i in range(broken.num_rows)])
    return {
        "before": events(8),
        "now": now,
        "lacking": now.drop_columns(["k"]),
        "more": now.append_column("z", pa.array(["new"] * now.num_rows)),
        "text": now.set_column(1, "k", pa.array(["many"] * now.num_rows)),
        "wide": wide(12, 1),
        "wide_now": wide(4, 2),
        "wide_moved": wide(4, 4, moved=2.0),
        "wide_broken": broken.set_column(3, "few", pa.array(["3"] * broken.num_rows)).drop_columns(["word"]),
        "wide_numbers": broken.set_column(1, "smooth", not_a_number),
        "wide_null": pa.table(
            {f.name: broken[f.name] if f.name == "at" else pa.nulls(broken.num_rows, f.type) for f in broken.schema}
        ),
    }


@pytest.fixture(params=ENGINES, scope="module")
def place(request, tables, tmp_path_factory):
    def server(name):
        return request.getfixturevalue(name)

    engine, call = request.param(tables, tmp_path_factory.mktemp("data"), server)
    return Place(
        engine, request.node.callspec.id if hasattr(request.node, "callspec") else request.param.__name__, call
    )


@pytest.fixture
def engine(place):
    return place.engine


@pytest.fixture
def data(place):
    return place.data


@pytest.fixture
def fake(tables, tmp_path):
    engine, call = memory(tables, tmp_path, None)
    return Place(engine, "memory", call)


def test_the_reference_counts_every_row_and_judges_neither_label_nor_time(engine, data, tables):
    reference = engine.reference(data("before"), block=DAY)
    assert reference.rows == tables["before"].num_rows
    assert list(reference.columns) == ["x", "k", "c", "b", "id"]
    assert reference.columns["x"].null == tables["before"]["x"].null_count
    assert reference.columns["id"].identifier
    assert sum(reference.block_rows) == reference.rows
    assert reference.full_blocks().size == 8


def test_all_engines_give_the_counts_of_the_fake(place, data, fake):
    left, right = (e.engine.reference(e.data("before"), block=DAY) for e in (place, fake))
    for name, column in left.columns.items():
        other = right.columns[name]
        assert (column.rows, column.null) == (other.rows, other.null)
        assert column.same_layout(other)
        if column.numbers:
            assert np.array_equal(column.numbers.counts, other.numbers.counts)
            assert np.array_equal(column.numbers.blocks, other.numbers.blocks)
        if column.categories:
            assert column.categories.counts == other.categories.counts
    left, right = (e.engine.window(e.data("now"), layout=right) for e in (place, fake))
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


def test_text_is_counted_by_its_length_and_characters(engine, data):
    columns = {"columns": ("note",), "timestamp": None, "label": None}
    reference = engine.reference(data("wide", **columns), text=["note"])
    texts = reference.columns["note"].texts
    assert list(texts) == ["length", "digits", "spaces", "punctuation", "capitals", "other"]
    assert {counts.rows for counts in texts.values()} == {reference.columns["note"].values}
    assert (texts["length"].minimum, texts["length"].maximum) == (2, 41)
    assert engine.window(data("wide", **columns), layout=reference).columns["note"].texts["other"].rows > 1000


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


# What only a server can show


@pytest.fixture(scope="module")
def server(tables, tmp_path_factory, request):
    return postgresql(tables, None, request.getfixturevalue)[0]


def test_two_columns_of_one_name_are_refused(server):
    with pytest.raises(DataError, match="has two columns named 'x'"):
        server.reference(DataRef(query="SELECT x, x FROM before", conn_id="warehouse"))


@pytest.mark.parametrize(
    "query", ["SELECT 1 AS x) AS q; DROP TABLE before; --", "DELETE FROM before RETURNING x", "DROP TABLE before"]
)
def test_a_query_that_would_write_changes_nothing(server, query):
    with pytest.raises((DataError, ServiceError)):
        server.reference(DataRef(query=query, conn_id="warehouse"))
    assert server.newest(DataRef(table="before", timestamp="at", conn_id="warehouse")) is not None


def test_a_function_that_would_write_is_refused(server):
    refused = pytest.raises(ServiceError, match="read-only transaction")
    with server._session(DataRef(table="before", conn_id="warehouse")) as session, refused:
        session.run("CREATE TABLE mine (x INTEGER)")


def test_a_server_stops_what_runs_too_long(server):
    slow = SqlEngine(server._connect, "postgresql", timeout=timedelta(seconds=0.3))
    with pytest.raises(ServiceError, match=r"Query 'SELECT .*': a statement ran longer than 0\.3 s and was stopped\."):
        slow.reference(DataRef(query="SELECT 1 AS x FROM pg_sleep(20)", conn_id="warehouse"))


def test_enumerations_count_as_text_and_nested_types_only_their_nulls(server):
    query = "SELECT 'b'::mood AS e, '{1,2}'::int[] AS nested, NULL::jsonb AS j, 'x'::char(9) AS c, now()::date AS day"
    with closing(server._connect()) as connection:
        connection.cursor().execute("CREATE TYPE mood AS ENUM ('a', 'b')")
        connection.commit()
    profile = server.reference(DataRef(query=query, conn_id="warehouse", timestamp="day"), block=DAY)
    families = {name: column.family.value for name, column in profile.columns.items()}
    assert families == {"e": "text", "nested": "other", "j": "other", "c": "text"}
    assert profile.columns["j"].null == 1
    assert profile.columns["c"].rows == 1


# To the digit


# A CSV has no types: 'NULL', '' and NaN cannot be told apart in it.
typed = pytest.mark.parametrize("place", [engine for engine in ENGINES if engine.id != "csv"], indirect=True)


def plain(profile, *, without=()):
    """Return all of a profile but what follows from the order in which floats are added up."""
    values = profile.to_dict()
    for part in (values["segments"] or {}).get("profiles", ()):
        for column in part["profile"]["columns"].values():
            for numbers in [column["numbers"], *(column["texts"] or {}).values()]:
                for moment in ("mean", "m2") if numbers else ():
                    del numbers[moment]
    for name, column in values["columns"].items():
        for numbers in [column["numbers"], *(column["texts"] or {}).values()]:
            for moment in ("mean", "m2") if numbers else ():
                del numbers[moment]
        if name in without:
            column.clear()
    return values


@typed
def test_the_whole_reference_is_the_same(place, fake):
    left, right = (p.engine.reference(p.data("wide", label="price"), block=DAY) for p in (place, fake))
    assert plain(left) == plain(right)
    assert len(left.blocks) == 12
    assert left.columns[PLANTED].rows == left.rows
    assert left.columns["note"].texts
    assert left.columns["note"].categories is None
    for name, column in right.columns.items():
        if column.numbers and name != "void":
            assert left.columns[name].numbers.mean == pytest.approx(column.numbers.mean, rel=1e-6, abs=1e-9)
            assert left.columns[name].numbers.m2 == pytest.approx(column.numbers.m2, rel=1e-6)


@pytest.mark.parametrize("table", ["wide", "wide_now", "wide_moved", "wide_broken", "wide_numbers", "wide_null"])
@typed
def test_a_window_and_its_report_are_the_same_to_the_digit(place, fake, table):
    layout = fake.engine.reference(fake.data("wide", label="price"), block=DAY)
    left, right = (p.engine.window(p.data(table, label="price"), layout=layout) for p in (place, fake))
    without = ()
    if table == "wide_numbers" and place.name == "sqlite":  # which stores NaN as null
        without = ("smooth",)
        assert left.columns["smooth"].missing == right.columns["smooth"].missing
    assert plain(left, without=without) == plain(right, without=without)
    assert check(layout, left).to_dict() == check(layout, right).to_dict()


@pytest.mark.parametrize("segment", ["word", "flag", "few", ODD_NAME])
@typed
def test_segments_and_their_report_are_the_same_to_the_digit(place, fake, segment):
    columns = {"label": "price", "columns": ("smooth", "flag", "note", "word")}
    left, right = (p.engine.reference(p.data("wide", **columns), block=DAY, segment=segment) for p in (place, fake))
    assert plain(left) == plain(right)
    assert sum(part.rows for part in left.segments.profiles.values()) == left.rows
    whole, part = left.columns["smooth"], next(iter(left.segments.profiles.values()))
    assert part.columns["smooth"].numbers.edges.size < 45 < whole.numbers.edges.size
    assert set(left.columns) - {segment} == set(part.columns)
    for table in ("wide_moved", "wide_broken"):
        left, now = (p.engine.window(p.data(table, **columns), layout=right) for p in (place, fake))
        assert plain(left) == plain(now)
        assert check(right, left).to_dict() == check(right, now).to_dict()


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (datetime(2026, 3, 2), datetime(2026, 3, 4, 12)),  # without a zone: UTC
        (datetime(2026, 3, 2, tzinfo=UTC), None),
        (None, datetime(2026, 3, 2, 3, 4, 5, 678901, tzinfo=UTC)),
        (datetime(2026, 3, 1, 20, tzinfo=timezone(timedelta(hours=-5))), datetime(2026, 3, 3, tzinfo=UTC)),
        (datetime(2026, 9, 1), datetime(2026, 9, 2)),
    ],
)
@typed
def test_a_window_of_time_is_the_same(place, fake, start, end):
    layout = fake.engine.reference(fake.data("wide", label="price"), block=DAY)
    left, right = (
        p.engine.window(p.data("wide", label="price"), layout=layout, window=Window(start, end)) for p in (place, fake)
    )
    assert plain(left) == plain(right)
    assert check(layout, left).to_dict() == check(layout, right).to_dict()


@typed
def test_blocks_of_an_odd_length_from_the_middle_of_the_data_are_the_same(place, fake):
    window, block = Window(datetime(2026, 3, 3, 4, 5, tzinfo=UTC)), timedelta(hours=17, seconds=11)
    left, right = (p.engine.reference(p.data("wide", label="price"), window=window, block=block) for p in (place, fake))
    assert plain(left) == plain(right)
    assert left.blocks[0] == 0


@pytest.mark.parametrize("column", ["nowhere", "At"])
def test_a_timestamp_column_that_is_not_there_is_an_error(engine, data, column):
    with pytest.raises(DataError, match=f"Column '{column}' is not in"):
        engine.reference(data("before", timestamp=column), window=Window(ORIGIN))


@typed
def test_a_timestamp_column_without_times_is_an_error(place):
    with pytest.raises(DataError, match=r"timestamp column 'c' of .* no time"):
        place.engine.reference(place.data("before", timestamp="c"), block=DAY, window=Window(ORIGIN))
