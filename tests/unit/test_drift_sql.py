"""The SQL that counts: it can be parsed in every dialect, quotes everything, and one statement does it."""

from __future__ import annotations

import math
import sqlite3
import struct
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.adapters.engines.dialects import DIALECTS, dialect_of, family_of_name, time_kind
from airflow_provider_mlops.adapters.engines.sql import SqlEngine
from airflow_provider_mlops.adapters.engines.statement import Arm, Blocks, Source, statements
from airflow_provider_mlops.data import DataRef, Window
from airflow_provider_mlops.drift.check import check
from airflow_provider_mlops.drift.counts import Family
from airflow_provider_mlops.drift.layout import choose_layout
from airflow_provider_mlops.errors import ConfigError, DataError, ServiceError

GRAMMAR = {"postgresql": "postgres"}
WORDS = ["plain", "o'brien", "back\\slash", "new\nline", "\\'; drop table t; --", "日本", ""]
PLANTED = '"; drop table x; --'
BATCH = pa.record_batch(
    {
        "n": [float(i) for i in range(400)],
        "few": [i % 3 for i in range(400)],
        "word": [WORDS[i % len(WORDS)] for i in range(400)],
        "flag": [i % 2 == 0 for i in range(400)],
        "when": pa.array([datetime(2026, 1, 1)] * 400, pa.timestamp("us")),
        PLANTED: [float(i % 7) for i in range(400)],
        "void": pa.nulls(400, pa.float64()),
    }
)


def ref(table="t", **options):
    return DataRef(table=table, conn_id="w", **options)


class Recording:
    """A connection that notes its statements, and passes them on."""

    def __init__(self, connection):
        self.connection = connection
        self.statements = []

    def cursor(self):
        cursor = self.connection.cursor()
        outer = self

        class Cursor:
            def execute(self, statement):
                outer.statements.append(statement)
                return cursor.execute(statement)

            def __getattr__(self, name):
                return getattr(cursor, name)

        return Cursor()

    def __getattr__(self, name):
        return getattr(self.connection, name)


@pytest.fixture
def file(tmp_path):
    """A SQLite file with the batch, and times."""
    path = tmp_path / "data.db"
    connection = sqlite3.connect(path)
    quoted = PLANTED.replace('"', '""')
    connection.execute(
        f'CREATE TABLE t (n REAL, few INTEGER, word TEXT, flag BOOLEAN, "at" TIMESTAMP, "{quoted}" REAL)'
    )
    connection.executemany(
        "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)",
        [
            (r["n"], r["few"], r["word"], r["flag"], f"2026-01-{1 + i // 40:02d} 00:00:00", r[PLANTED])
            for i, r in enumerate(BATCH.to_pylist())
        ],
    )
    connection.commit()
    connection.close()
    return path


@pytest.fixture
def engine(file):
    return SqlEngine(lambda: sqlite3.connect(file), "sqlite")


# Every dialect


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("query", [False, True], ids=["table", "query"])
def test_the_statement_can_be_parsed_and_only_reads(name, query):
    dialect = dialect_of(name)
    layout = choose_layout(BATCH)
    text = choose_layout(BATCH, text=["word"]).columns["word"]
    start = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
    for kind in ("instant", "naive", "date"):
        left, right = dialect.instant(start, kind, dialect.identifier("at"))
        table = dialect.table("shop.orders")
        source = Source("", f"FROM {table} WHERE {left} >= {right}")
        if query:
            source = Source(f"WITH mlops_rows AS (SELECT * FROM {table})\n", f"FROM mlops_rows WHERE {left} >= {right}")
        arms = [Arm(column, layout.columns[column]) for column in layout.columns]
        arms += [Arm("word", text, measure=measure) for measure in text.texts]
        time = dialect.microseconds[kind].format(dialect.identifier("at"))
        (statement,) = statements(source, arms, dialect, time=time, blocks=Blocks(0, 86_400_000_000))
        (tree,) = sqlglot.parse(statement, dialect=GRAMMAR.get(name, name))
        names = {node.name.lower() for node in tree.find_all(sqlglot.exp.Table)} - {"mlops_rows"}
        assert names == {"orders"}
        assert PLANTED in {node.name for node in tree.find_all(sqlglot.exp.Column)}
        assert not any(tree.find_all(sqlglot.exp.Drop, sqlglot.exp.Insert, sqlglot.exp.Update, sqlglot.exp.Delete))
        literals = {node.this for node in tree.find_all(sqlglot.exp.Literal) if node.is_string}
        assert not any("\\" in literal for literal in literals)


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "duckdb"])  # which runs it, all the time
def test_what_opens_a_transaction_can_be_parsed(name):
    for statement in dialect_of(name).begin:
        assert sqlglot.parse(statement.format(600_000, 600), dialect=GRAMMAR.get(name, name))


@pytest.mark.parametrize(
    ("name", "table", "written"),
    [
        ("postgresql", "shop.orders", '"shop"."orders"'),
        ("postgresql", 'shop."a.b"', '"shop"."a.b"'),
        ("postgresql", '"a""b"', '"a""b"'),
        ("bigquery", "project-1.shop.orders", "`project-1`.`shop`.`orders`"),
        ("snowflake", "shop.orders", '"SHOP"."ORDERS"'),
        ("snowflake", 'shop."orders"', '"SHOP"."orders"'),
        ("databricks", "main.shop.orders", "`main`.`shop`.`orders`"),
        ("sqlite", "orders", '"orders"'),
    ],
)
def test_a_table_s_name_is_quoted_part_by_part(name, table, written):
    assert dialect_of(name).table(table) == written


@pytest.mark.parametrize("name", ["", ".", "a.", ".b", "a..b", 'a"b', '"a"b'])
def test_what_is_no_name_of_a_table_is_refused(name):
    with pytest.raises(ConfigError, match="no name of a table"):
        dialect_of("postgresql").table(name)


@pytest.mark.parametrize(("name", "bad"), [("bigquery", "a\\b"), ("postgresql", "a\x00b")])
def test_a_name_that_a_database_cannot_hold_is_refused(name, bad):
    with pytest.raises(DataError, match="Rename it"):
        dialect_of(name).identifier(bad)


def test_a_database_whose_sql_is_not_spoken_is_named():
    with pytest.raises(ConfigError, match=r"'mysql' cannot be counted where it lies.*Export the data to Parquet"):
        SqlEngine(lambda: None, "mysql")


@pytest.mark.parametrize(
    ("type_name", "family", "kind"),
    [
        ("int4", Family.NUMBER, None),
        ("NUMERIC(10,2)", Family.NUMBER, None),
        ("double precision", Family.NUMBER, None),
        ("UBIGINT", Family.NUMBER, None),
        ("FIXED", Family.NUMBER, None),
        ("bool", Family.BOOLEAN, None),
        ("BOOLEAN", Family.BOOLEAN, None),
        ("character varying(20)", Family.TEXT, None),
        ("bpchar", Family.TEXT, None),
        ("ENUM('date', 'int[]')", Family.TEXT, None),
        ("uuid", Family.TEXT, None),
        ("timestamptz", Family.TIME, "instant"),
        ("TIMESTAMP WITH TIME ZONE", Family.TIME, "instant"),
        ("timestamp(6) without time zone", Family.TIME, "naive"),
        ("TIMESTAMP_NTZ", Family.TIME, "naive"),
        ("DATETIME", Family.TIME, "naive"),
        ("date", Family.TIME, "date"),
        ("time", Family.TIME, None),
        ("interval", Family.OTHER, None),
        ("point", Family.OTHER, None),
        ("_int4", Family.OTHER, None),
        ("INTEGER[]", Family.OTHER, None),
        ("STRUCT(a INTEGER)", Family.OTHER, None),
        ("jsonb", Family.OTHER, None),
        ("", Family.OTHER, None),
    ],
)
def test_a_type_s_name_gives_its_family(type_name, family, kind):
    assert family_of_name(type_name) is family
    assert time_kind(type_name, dialect_of("postgresql")) == kind


def test_a_plain_timestamp_is_an_instant_where_the_database_says_so():
    kinds = {name: time_kind("TIMESTAMP", dialect) for name, dialect in DIALECTS.items()}
    assert {name for name, kind in kinds.items() if kind == "instant"} == {"bigquery", "databricks", "spark"}


# Literals


@pytest.fixture(scope="module")
def databases():
    with duckdb.connect() as duck:
        lite = sqlite3.connect(":memory:")
        yield {"duckdb": duck, "sqlite": lite}
        lite.close()


doubles = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(0, 2**63 - 1).map(lambda bits: struct.unpack("d", struct.pack("Q", bits))[0]).filter(math.isfinite),
)


@pytest.mark.parametrize("name", ["duckdb", "sqlite"])
@settings(max_examples=300, deadline=None)
@given(value=doubles)
def test_a_double_is_read_back_exactly(databases, name, value):
    assert databases[name].execute(f"SELECT {dialect_of(name).number(value)}").fetchone()[0] == value


@pytest.mark.parametrize("name", ["duckdb", "sqlite"])
@settings(max_examples=200, deadline=None)
@given(value=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_text_is_read_back_exactly_without_a_backslash_in_the_statement(databases, name, value):
    literal = dialect_of(name).string(value)
    assert "\\" not in literal
    assert databases[name].execute(f"SELECT {literal}").fetchone()[0] == value


# What is sent


def test_a_window_is_one_statement_of_counts_and_one_that_names_the_columns(file):
    sent = Recording(sqlite3.connect(file))
    engine = SqlEngine(lambda: sent, "sqlite")
    layout = choose_layout(BATCH.select(["n", "few", "word", "flag", PLANTED]))
    engine.window(ref(), layout=layout)
    begin = len(dialect_of("sqlite").begin)
    middle = sent.statements[begin : -len(dialect_of("sqlite").end)]
    assert [statement.split()[1] for statement in middle] == ["*", "name,", "-1"]  # columns, SQLite's types, counts
    assert "LIMIT" not in middle[-1]


def test_a_reference_fetches_at_most_a_bounded_sample(tmp_path):
    connection = sqlite3.connect(tmp_path / "many.db")
    connection.execute("CREATE TABLE t (x REAL)")
    connection.executemany("INSERT INTO t VALUES (?)", [(float(i % 5000),) for i in range(60_000)])
    connection.commit()
    connection.close()
    sent = Recording(sqlite3.connect(tmp_path / "many.db"))
    profile = SqlEngine(lambda: sent, "sqlite").reference(ref())
    assert profile.columns["x"].numbers.counts.sum() == 60_000
    assert profile.columns["x"].numbers.edges.size > 250
    (sample,) = [statement for statement in sent.statements if "LIMIT" in statement]
    assert sample.endswith("LIMIT 20000")
    assert "RANDOM()" in sample


def test_a_table_of_a_thousand_columns_takes_three_statements(tmp_path):
    file = str(tmp_path / "broad.duckdb")
    with duckdb.connect(file) as connection:
        connection.register("made", pa.table({f"c{i}": [float(i), 1.0, None] for i in range(1000)}))
        connection.execute("CREATE TABLE t AS SELECT * FROM made")
    sent = Recording(duckdb.connect(file, read_only=True))
    profile = SqlEngine(lambda: sent, "duckdb").reference(ref())
    assert [column.null for column in profile.columns.values()] == [1] * 1000
    assert sum("UNION ALL" in statement for statement in sent.statements) == 3


@pytest.mark.parametrize("name", ["sqlite", "duckdb"])
def test_nothing_can_be_written(tmp_path, file, name):
    def connect():
        return sqlite3.connect(file) if name == "sqlite" else duckdb.connect(str(tmp_path / "empty.duckdb"))

    refused = pytest.raises(ServiceError, match=r"(?i)read-?\s?only|readonly")
    with SqlEngine(connect, name)._session(ref()) as session, refused:
        session.run("CREATE TABLE mine (x INTEGER)")


def test_sqlite_can_be_written_to_again_afterwards(file):
    connection = sqlite3.connect(file)
    kept = Recording(connection)
    kept.close = lambda: None  # as a pool does
    SqlEngine(lambda: kept, "sqlite").window(ref(), layout=choose_layout(BATCH.select(["n"])))
    connection.execute("CREATE TABLE mine (x INTEGER)")
    connection.close()


# What goes wrong


@pytest.mark.parametrize("name", ["sqlite", "duckdb"])
def test_a_statement_that_runs_too_long_is_stopped(tmp_path, file, name):
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x > 0) SELECT x FROM c"

    def connect():
        return sqlite3.connect(file) if name == "sqlite" else duckdb.connect(str(tmp_path / "empty.duckdb"))

    engine = SqlEngine(connect, name, timeout=timedelta(seconds=0.2))
    layout = choose_layout(pa.record_batch({"x": [1.0, 2.0]}))
    with pytest.raises(ServiceError, match=r"Query '.*' *: a statement ran longer than 0.2 s .*fewer columns"):
        engine.window(DataRef(query=endless, conn_id="w"), layout=layout)


def test_a_column_that_is_not_there_is_named_with_its_neighbors(engine):
    with pytest.raises(DataError, match=r"Column 'wrod' is not in Table 't'. Did you mean 'word'"):
        engine.reference(ref(columns=("wrod",)))


def test_text_that_is_no_time_is_refused(file, engine):
    connection = sqlite3.connect(file)
    connection.execute("UPDATE t SET \"at\" = 'yesterday' WHERE n = 7")
    connection.commit()
    connection.close()
    with pytest.raises(DataError, match=r"'at' of Table 't' holds 'yesterday', which is no time"):
        engine.newest(ref(timestamp="at"))


def test_a_window_without_a_timestamp_is_refused(engine):
    layout = choose_layout(BATCH.select(["n"]))
    with pytest.raises(ConfigError, match="needs the name of the timestamp column"):
        engine.window(ref(), layout=layout, window=Window(datetime(2026, 1, 1)))
    with pytest.raises(ConfigError, match="needs the name of the timestamp column"):
        engine.newest(ref())


# SQLite's values have types of their own


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-05 06:07:08.123456",
        "2026-01-05T06:07:08.123456",
        "2026-01-05 06:07:08.123456+00:00",
        "2026-01-05T06:07:08.123456Z",
        "2026-01-05 01:07:08.123456-05:00",
        1767593228.123456,
    ],
)
def test_sqlite_s_times_are_read(file, written):
    connection = sqlite3.connect(file)
    connection.execute('CREATE TABLE times ("at")')
    connection.execute("INSERT INTO times VALUES (?)", (written,))
    connection.commit()
    connection.close()
    found = SqlEngine(lambda: sqlite3.connect(file), "sqlite").newest(ref("times", timestamp="at"))
    assert found == datetime(2026, 1, 5, 6, 7, 8, 123456, tzinfo=UTC)


@pytest.mark.parametrize("written", ["2026-01-05", "2026-01-05 00:00", 1767571200])
def test_sqlite_s_days_and_seconds_are_read(file, written):
    connection = sqlite3.connect(file)
    connection.execute('CREATE TABLE times ("at")')
    connection.execute("INSERT INTO times VALUES (?)", (written,))
    connection.commit()
    connection.close()
    found = SqlEngine(lambda: sqlite3.connect(file), "sqlite").newest(ref("times", timestamp="at"))
    assert found == datetime(2026, 1, 5, tzinfo=UTC)


def test_milliseconds_taken_for_seconds_are_refused(file, engine):
    connection = sqlite3.connect(file)
    connection.execute('UPDATE t SET "at" = 1767571200000')
    connection.commit()
    connection.close()
    for ask in (lambda: engine.newest(ref(timestamp="at")), lambda: engine.reference(ref(timestamp="at"))):
        with pytest.raises(DataError, match=r"outside the years 1 to 9999\. Is its unit right"):
            ask()


def test_values_of_another_type_are_counted_apart(file, engine):
    layout = engine.reference(ref(columns=("n", "word")))
    connection = sqlite3.connect(file)
    connection.execute("UPDATE t SET n = 'many' WHERE n < 5")
    connection.execute("UPDATE t SET word = x'00ff' WHERE n > 389")
    connection.commit()
    connection.close()
    found = engine.window(ref(), layout=layout).columns
    assert found["n"].retyped == {"text": 5}
    assert found["n"].numbers.rows == 395
    assert found["word"].retyped == {"other": 10 + 5}  # text sorts above every number
    assert check(layout, engine.window(ref(), layout=layout)).reason == "retyped"


def test_more_values_than_the_cap_are_counted_as_a_tail(tmp_path, monkeypatch):
    from airflow_provider_mlops.adapters.engines import statement

    monkeypatch.setattr(statement, "CATEGORY_CAP", 3)
    file = str(tmp_path / "values.duckdb")
    with duckdb.connect(file) as connection:
        connection.execute("CREATE TABLE t AS SELECT 'v' || (i * i % 7) AS v FROM range(70) r(i) UNION ALL SELECT 'v1'")
    engine = SqlEngine(lambda: duckdb.connect(file, read_only=True), "duckdb")
    counts = engine.reference(ref()).columns["v"].categories
    assert counts.counts == {"v1": 21, "v2": 20, "v4": 20}
    assert counts.tail_rows == 10
