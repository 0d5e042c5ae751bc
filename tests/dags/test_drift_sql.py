"""CheckDataDriftOperator on tables: real databases behind Airflow connections."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk import Connection
from airflow.sdk.execution_time.context import OutletEventAccessors

from airflow_provider_mlops.data import DataRef, Window
from airflow_provider_mlops.errors import ConfigError, DataError, ServiceError
from airflow_provider_mlops.hooks.journal import JournalHook
from airflow_provider_mlops.hooks.sql import _opener, sql_engine
from airflow_provider_mlops.journal import model_stream
from airflow_provider_mlops.operators.data import SnapshotDataOperator
from airflow_provider_mlops.operators.drift import CheckDataDriftOperator
from airflow_provider_mlops.sensors.drift import DataDriftSensor

START = datetime(2026, 1, 1, tzinfo=UTC)
CHANGE = START + timedelta(days=140)


def rows():
    """170 days; the amount moves after 140."""
    random = np.random.default_rng(0)
    for minute in range(0, 170 * 1440, 15):
        at = START + timedelta(minutes=minute)
        yield at, random.normal(0.6 if at >= CHANGE else 0.0), random.normal(), ["a", "b"][minute % 2]


def fill(execute_many, mark):
    execute_many(f"INSERT INTO orders VALUES ({', '.join([mark] * 4)})", list(rows()))


COLUMNS = "(at TIMESTAMP, amount DOUBLE PRECISION, steady DOUBLE PRECISION, kind TEXT)"


def in_sqlite(folder, _):
    file = folder / "orders.db"
    with sqlite3.connect(file) as connection:
        connection.execute(f"CREATE TABLE orders {COLUMNS}")
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?)", [(str(at), *rest) for at, *rest in rows()])
    connection.close()
    return {"conn_type": "sqlite", "host": str(file)}


def in_duckdb(folder, _):
    file = str(folder / "orders.duckdb")
    with duckdb.connect(file) as connection:
        connection.register("made", pa.table(list(zip(*rows(), strict=True)), ["at", "amount", "steady", "kind"]))
        connection.execute("CREATE TABLE orders AS SELECT * FROM made")
    return {"conn_type": "duckdb", "host": file}


def in_postgresql(_, server):
    url = sa.make_url(server("postgres").format(database="postgres"))
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(f"DROP TABLE IF EXISTS orders; CREATE TABLE orders {COLUMNS}")
        cursor.executemany("INSERT INTO orders VALUES (%s, %s, %s, %s)", list(rows()))
    return {"conn_type": "postgres", "host": url.query["host"], "login": "postgres", "schema": "postgres"}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(in_sqlite, id="sqlite"),
        pytest.param(in_duckdb, id="duckdb"),
        pytest.param(in_postgresql, id="postgresql", marks=pytest.mark.service("postgresql")),
    ],
)
def warehouse(request, tmp_path_factory):
    """A connection to the orders, and the profile of their first 100 days."""
    folder = tmp_path_factory.mktemp("warehouse")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(request.param(folder, request.getfixturevalue)))
        data = DataRef(table="orders", timestamp="at", conn_id="warehouse")
        profile = sql_engine("warehouse").reference(
            data, window=Window(START, START + timedelta(days=100)), block=timedelta(days=10)
        )
        (folder / "profile.json").write_text(profile.to_json())
        yield str(folder / "profile.json")


@pytest.fixture(autouse=True)
def storage(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__STORAGE", str(tmp_path / "storage"))


def context(**task):
    ti = SimpleNamespace(dag_id="watch", run_id="run1", task_id="check", map_index=-1)
    return {"ti": ti, "outlet_events": OutletEventAccessors(), "task": SimpleNamespace(**task)}


def check(profile, data=None, **options):
    arguments = {
        "task_id": "check",
        "model": "orders",
        "reference_profile": profile,
        "data": {"table": "orders", "conn_id": "warehouse", "timestamp": "at", **(data or {})},
        "window": "10d",
        "false_alarms_per_30_days": 0.3,
        **options,
    }
    return CheckDataDriftOperator(**arguments).execute(context(execution_timeout=timedelta(minutes=5)))


def journal():
    return [entry.record.payload for entry in JournalHook().journal.read(model_stream("orders"))]


def test_the_newest_window_of_a_table_is_judged(warehouse):
    found = check(warehouse)
    assert (found["verdict"], found["top_columns"], found["variation"]) == ("drift", ["amount"], "known")
    assert found["window_end"] == "2026-06-19T23:45:00.000001+00:00"
    assert journal()[0]["numbers"]["rows"]["current"] == 960


def test_a_window_before_the_change_is_quiet(warehouse):
    assert check(warehouse, as_of="2026-05-21T00:00:00", ignore_shift_below=0.15)["verdict"] == "no_drift"


def test_a_query_is_judged_as_a_table_is(warehouse):
    query = 'SELECT "at", amount, steady, kind FROM orders WHERE amount > -100 -- all of them;'
    found = check(warehouse, {"table": None, "query": query})
    assert {**found, "data_digest": None, "report_uri": None} == {
        **check(warehouse),
        "data_digest": None,
        "report_uri": None,
    }


def test_a_retry_journals_nothing_twice(warehouse):
    assert check(warehouse) == check(warehouse)
    assert len(journal()) == 1


def test_a_table_without_a_column_is_bad_data(warehouse):
    found = check(warehouse, {"table": None, "query": 'SELECT "at", amount, kind FROM orders'})
    assert (found["verdict"], found["reason"], found["top_columns"]) == ("bad_data", "missing_column", ["steady"])


def test_a_window_without_rows_is_no_data(warehouse):
    assert check(warehouse, as_of="2027-01-01T00:00:00Z")["verdict"] == "no_data"


def test_a_table_that_is_not_there_is_named(warehouse):
    with pytest.raises(DataError, match=r"Table 'order' cannot be read: .*order.*Check the name"):
        check(warehouse, {"table": "order"})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "/data", "table": "t"}, "'path' and 'table' both say where the data is"),
        ({"table": "t", "query": "SELECT 1", "conn_id": "w"}, "'table' and 'query' both say"),
        ({"path": "/data", "conn_id": "w"}, "'conn_id' goes with 'table' or 'query'"),
        ({"table": "t"}, "'table' needs 'conn_id'"),
        ({"query": "SELECT 1"}, "'query' needs 'conn_id'"),
        ({"timestamp": "at"}, "'path' is missing"),
        ({"tabel": "t", "conn_id": "w"}, "'tabel' is no key of a data reference. Did you mean 'table'"),
    ],
)
def test_data_that_says_nothing_or_two_things_is_refused(tmp_path, data, message):
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"schema":1,"rows":0,"columns":{},"timestamp":null,"excluded":[],"extra":{},"start":null,"end":null,'
        '"block_seconds":null,"origin":null,"blocks":[],"block_rows":[]}'
    )
    operator = CheckDataDriftOperator(task_id="check", model="m", reference_profile=str(profile), data=data)
    with pytest.raises(ConfigError, match=message):
        operator.execute(context())


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_sensor_refuses_tables_and_says_what_to_do(deferrable):
    sensor = DataDriftSensor(
        task_id="wait", model="m", data={"table": "t", "conn_id": "w"}, deferrable=deferrable, poke_interval=1
    )
    with pytest.raises(ConfigError, match=r"waits for files to change.*CheckDataDriftOperator on a schedule"):
        sensor.execute(context())


def test_operators_that_read_files_refuse_tables():
    operator = SnapshotDataOperator(task_id="snapshot", data={"table": "t", "conn_id": "w"})
    with pytest.raises(ConfigError, match="'table' cannot be used here: files are needed"):
        operator.execute(context())


# Connections


class Hook(DbApiHook):
    """As a provider's hook: it has a connection, and opens it in its own way."""

    conn_name_attr = "file"

    def get_conn(self):
        return sqlite3.connect(self.file)


def test_a_provider_s_hook_opens_its_connection(tmp_path):
    known = SimpleNamespace(conn_id="w", conn_type="sqlite", get_hook=lambda: Hook(file=str(tmp_path / "x.db")))
    with _opener(known)() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    connection.close()


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        ({"conn_type": "fs"}, "no SQL database"),
        ({"conn_type": "snowflake"}, "Install apache-airflow-providers-snowflake"),
        ({"conn_type": "mysql"}, "Install apache-airflow-providers-mysql"),
    ],
)
def test_a_connection_that_cannot_be_used_is_named(monkeypatch, connection, message):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(connection))
    with pytest.raises(ConfigError, match=message):
        sql_engine("other")


def test_a_server_that_does_not_answer_is_a_service_error(monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "postgres", "host": str(tmp_path)}))
    with pytest.raises(ServiceError, match=r"Table 't': the connection to postgresql failed: .*Check the connection"):
        sql_engine("other").newest(DataRef(table="t", timestamp="at", conn_id="other"))


@pytest.mark.parametrize(
    ("connection", "dialect"),
    [
        (Connection(conn_id="c", conn_type="postgres"), "postgresql"),
        (Connection(conn_id="c", conn_type="postgres", extra='{"redshift": true}'), "redshift"),
        (Connection(conn_id="c", conn_type="gcpbigquery"), "bigquery"),
        (Connection(conn_id="c", conn_type="trino"), "trino"),
    ],
)
def test_a_connection_type_stands_for_a_dialect(connection, dialect):
    from airflow_provider_mlops.hooks.sql import _dialect

    assert _dialect(connection) == dialect
