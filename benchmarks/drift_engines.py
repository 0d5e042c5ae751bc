"""
What does each engine take to count the same million rows of 20 columns, and do all of them count the same?

    python benchmarks/drift_engines.py [--rows 1000000] [--engines files duckdb sqlite postgresql spark]

Fourteen numeric and six text columns of the board of costs, up to 10,000 values, counted on the bins of a reference of
as many rows. Seconds are wall time of one call on a warm connection, loading apart. PostgreSQL is a private server
without fsync; Spark runs in its local mode on two threads. Writes ``benchmarks/results/drift-engines.json``.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from common import goal, load, table, write
from drift_cost import SEED, columns
from services import postgres_server

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.adapters.engines.spark import SparkEngine
from airflow_provider_mlops.adapters.engines.sql import SqlEngine
from airflow_provider_mlops.data.values import DataRef
from airflow_provider_mlops.drift.check import check

KEPT = (
    *(f"normal_{number}" for number in range(4)),
    *(f"amount_{number}" for number in range(4)),
    *(f"missing_{number}" for number in range(2)),
    *(f"zero_inflated_{number}" for number in range(2)),
    *(f"count_{number}" for number in range(2)),
    *(f"category_{number}" for number in (0, 3, 6, 9, 12, 14)),
)
TABLE = DataRef(table="rows", conn_id="warehouse")


def generate(path, seed, rows):
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    made = columns(np.random.default_rng([SEED, seed]), rows)
    parquet.write_table(pa.table({name: made[name] for name in KEPT}), path)


def created(schema):
    """Return the statement that makes the table, in words that all three databases know."""
    import pyarrow as pa

    words = {pa.float64(): "DOUBLE PRECISION", pa.int64(): "BIGINT", pa.string(): "TEXT"}
    return f"CREATE TABLE rows ({', '.join(f'{field.name} {words[field.type]}' for field in schema)})"


@contextmanager
def files(path, _):
    yield EmbeddedEngine(), DataRef(path=path)


@contextmanager
def duckdb(path, folder):
    import duckdb

    name = str(folder / "data.duckdb")
    with duckdb.connect(name) as connection:
        connection.execute(f"CREATE TABLE rows AS SELECT * FROM '{path}'")
    yield SqlEngine(lambda: duckdb.connect(name, read_only=True), "duckdb"), TABLE


@contextmanager
def sqlite(path, folder):
    import sqlite3

    from pyarrow import parquet

    name = folder / "data.db"
    with sqlite3.connect(name) as connection, parquet.ParquetFile(path) as file:
        connection.execute(created(file.schema_arrow))
        for batch in file.iter_batches():
            rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
            connection.executemany(f"INSERT INTO rows VALUES ({', '.join('?' * batch.num_columns)})", rows)
    connection.close()
    yield SqlEngine(lambda: sqlite3.connect(name), "sqlite"), TABLE


@contextmanager
def postgresql(path, _):
    import sqlalchemy as sa
    from pyarrow import csv, parquet

    with postgres_server() as url, parquet.ParquetFile(path) as file:
        engine = sa.create_engine(url.format(database="postgres"))
        with engine.begin() as connection:
            cursor = connection.connection.cursor()
            cursor.execute(created(file.schema_arrow))
            with cursor.copy("COPY rows FROM STDIN (FORMAT csv)") as copy:
                for batch in file.iter_batches():
                    text = io.BytesIO()
                    csv.write_csv(batch, text, csv.WriteOptions(include_header=False))
                    copy.write(text.getvalue())
        yield SqlEngine(engine.raw_connection, "postgresql"), TABLE
        engine.dispose()


@contextmanager
def spark(path, folder):
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    for name in ("spark.driver.host", "spark.driver.bindAddress"):
        builder = builder.config(name, "127.0.0.1")
    session = builder.config("spark.sql.warehouse.dir", str(folder)).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield SparkEngine(session), DataRef(path=path)
    session.stop()


ENGINES = {make.__name__: make for make in (files, duckdb, sqlite, postgresql, spark)}


def counts(profile):
    """Return *profile* without the moments, whose last digits depend on the order of rows."""
    bare = {
        name: replace(column, numbers=replace(column.numbers, mean=0.0, m2=0.0)) if column.numbers else column
        for name, column in profile.columns.items()
    }
    return replace(profile, columns=bare)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    options = parser.parse_args()
    before, found, rows = load(), {}, []
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        reference, current = (str(Path(made) / name) for name in ("a.parquet", "b.parquet"))
        for seed, path in enumerate((reference, current)):
            generate(path, seed, options.rows)
        layout = EmbeddedEngine().reference(DataRef(path=reference))
        for name in options.engines:
            begin = time.monotonic()
            engine, data = stack.enter_context(ENGINES[name](current, Path(made)))
            loaded = time.monotonic()
            found[name] = engine.window(data, layout=layout)
            done = time.monotonic()
            rows.append(
                {
                    "engine": name,
                    "rows": options.rows,
                    "columns": len(KEPT),
                    "loading_seconds": round(loaded - begin, 2),
                    "counting_seconds": round(done - loaded, 2),
                    "load_average": before,
                }
            )
    table(rows, list(rows[0]))
    first = next(iter(found.values()))
    alike = sum(counts(profile) == counts(first) for profile in found.values())
    reports = {str(check(layout, profile).to_dict()) for profile in found.values()}
    goals = [
        goal("engines that count the same, to the row", f"{len(found)} of {len(found)}", alike, alike == len(found)),
        goal("different reports", "1", len(reports), len(reports) == 1),
    ]
    return write("drift-engines", goals, rows)


if __name__ == "__main__":
    sys.exit(main())
