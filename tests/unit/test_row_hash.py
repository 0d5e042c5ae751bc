"""A row's hash depends on its values and column names, and on nothing else."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.adapters.row_hash import row_hashes

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "number": st.none() | st.integers(-(2**63), 2**63 - 1),
            "share": st.none() | st.floats(),
            "flag": st.none() | st.booleans(),
            "name": st.none() | st.text(max_size=6),
            "at": st.none() | st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)),
        }
    ),
    min_size=1,
    max_size=12,
)
SCHEMA = pa.schema(
    {
        "number": pa.int64(),
        "share": pa.float64(),
        "flag": pa.bool_(),
        "name": pa.string(),
        "at": pa.timestamp("us"),
    }
)


def one(value, kind=None, name="x"):
    return int(row_hashes(pa.record_batch({name: pa.array([value], kind)}))[0])


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, order=st.permutations(SCHEMA.names), cut=st.integers(0, 12))
def test_neither_the_order_of_columns_nor_the_chunking_changes_a_hash(rows, order, cut):
    batch = pa.RecordBatch.from_pylist(rows, schema=SCHEMA)
    whole = row_hashes(batch)
    assert (row_hashes(batch.select(order)) == whole).all()
    pieces = [row_hashes(batch.slice(0, cut)), row_hashes(batch.slice(cut))]
    assert (np.concatenate(pieces) == whole).all()


@settings(deadline=None, max_examples=60)
@given(rows=ROWS)
def test_equal_rows_have_equal_hashes_and_different_rows_have_different_ones(rows):
    def same(row):
        return tuple("NaN" if value != value else value for value in map(row.get, SCHEMA.names))

    hashes = row_hashes(pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
    by_row = {}
    for row, value in zip(rows, hashes.tolist(), strict=True):
        assert by_row.setdefault(same(row), value) == value
    assert len(set(by_row.values())) == len(by_row)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param((0.0, None), (-0.0, None), id="minus zero is zero"),
        pytest.param((float("nan"), None), (-float("nan"), None), id="one NaN"),
        pytest.param((7, pa.int8()), (7, pa.int64()), id="integer widths"),
        pytest.param((7, pa.uint16()), (7, pa.uint64()), id="unsigned widths"),
        pytest.param((0.5, pa.float32()), (0.5, pa.float64()), id="float widths"),
        pytest.param(("a", pa.string()), ("a", pa.large_string()), id="string offsets"),
        pytest.param(("a", pa.string()), ("a", pa.dictionary(pa.int8(), pa.string())), id="dictionary encoding"),
        pytest.param(
            (dt.datetime(2026, 1, 2), pa.timestamp("s")), (dt.datetime(2026, 1, 2), pa.timestamp("ns")), id="units"
        ),
        pytest.param((dt.datetime(2026, 1, 2), pa.timestamp("s")), (dt.date(2026, 1, 2), pa.date32()), id="date"),
        pytest.param((dt.date(2026, 1, 2), pa.date64()), (dt.date(2026, 1, 2), pa.date32()), id="date widths"),
        pytest.param((None, pa.string()), (None, pa.int64()), id="nulls of any type"),
        pytest.param((None, pa.null()), (None, pa.float64()), id="a column of type null"),
        pytest.param((None, pa.dictionary(pa.int8(), pa.string())), (None, pa.string()), id="an empty dictionary"),
    ],
)
def test_how_arrow_stores_a_value_does_not_matter(left, right):
    assert one(*left) == one(*right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        pytest.param((None, pa.int64()), (0, pa.int64()), id="null is not zero"),
        pytest.param((None, pa.float64()), (float("nan"), pa.float64()), id="null is not NaN"),
        pytest.param((None, pa.string()), ("", pa.string()), id="null is not empty"),
        pytest.param((Decimal("1.10"), None), (Decimal("1.20"), None), id="decimals"),
        pytest.param((b"a", None), (b"b", None), id="bytes"),
        pytest.param(([1, 2], None), ([2, 1], None), id="lists"),
        pytest.param(({"a": 1}, None), ({"a": 2}, None), id="structs"),
        pytest.param((dt.time(1, 2), None), (dt.time(1, 3), None), id="times of day"),
        pytest.param((dt.timedelta(1), None), (dt.timedelta(2), None), id="durations"),
    ],
)
def test_different_values_are_told_apart(left, right):
    assert one(*left) != one(*right)


def test_a_value_under_another_column_name_is_another_row():
    assert one(1, name="a") != one(1, name="b")
    swapped = [pa.record_batch({"a": [1], "b": [2]}), pa.record_batch({"a": [2], "b": [1]})]
    assert row_hashes(swapped[0])[0] != row_hashes(swapped[1])[0]


def test_only_the_named_columns_count():
    batch = pa.record_batch({"a": [1, 1], "b": ["x", "y"]})
    left, right = row_hashes(batch, ["a"])
    assert left == right


def test_hashes_are_uniform_enough_to_split_by():
    hashes = row_hashes(pa.record_batch({"n": pa.array(range(100_000))}))
    for share in (0.01, 0.2, 0.5):
        assert abs((hashes < share * 2.0**64).mean() - share) < 4 * (share * (1 - share) / 100_000) ** 0.5


def test_the_hash_is_the_same_in_another_process_with_another_hash_seed():
    code = (
        "import pyarrow as pa; from airflow_provider_mlops.adapters.row_hash import row_hashes; "
        "print(int(row_hashes(pa.record_batch({'n': [1], 's': ['é'], 'f': [0.1]}))[0]))"
    )
    here = int(row_hashes(pa.record_batch({"n": [1], "s": ["é"], "f": [0.1]}))[0])
    there = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert int(there.stdout) == here == 3413442126501318834  # a released value: sides of rows move when it changes
