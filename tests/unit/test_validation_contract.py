"""What a hand-written contract says about rows, and how it says that it is broken."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.adapters.row_hash import row_hashes
from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.validation import Contract, ContractCheck

NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)


def broken(contract, *batches, **moments):
    contract = Contract.from_dict(contract)
    check = ContractCheck(contract)
    for columns in batches:
        batch = pa.record_batch(columns)
        check.add(batch, row_hashes(batch, contract.unique) if contract.unique else None)
    return [(found.column, found.code, found.sentence) for found in check.violations(**moments)]


@pytest.mark.parametrize(
    ("contract", "columns", "expected"),
    [
        pytest.param({}, {"a": [1]}, [], id="nothing asked"),
        pytest.param({"min_rows": 2}, {"a": [1]}, [("", "min_rows", "1 rows; at least 2 are needed.")], id="rows"),
        pytest.param({"min_rows": 2}, {"a": [1, 2]}, [], id="enough rows"),
        pytest.param({"ranges": {"a": [0, 2]}}, {"a": [0, 2, None]}, [], id="both ends are allowed"),
        pytest.param(
            {"ranges": {"a": [0, 2]}},
            {"a": [-1, 1, 9]},
            [("a", "out_of_range", "2 of 3 values of 'a' are outside 0 .. 2; they reach from -1 to 9.")],
            id="range",
        ),
        pytest.param(
            {"ranges": {"a": [None, 2]}},
            {"a": [-1.5, float("inf"), float("nan")]},
            [("a", "out_of_range", "1 of 3 values of 'a' are outside .. 2; they reach from -1.5 to inf.")],
            id="open range",
        ),
        pytest.param(
            {"ranges": {"a": [0, 2]}},
            {"a": ["1"]},
            [("a", "wrong_type", "'a' holds string; the contract needs numbers.")],
            id="text has no range",
        ),
        pytest.param(
            {"domains": {"a": [1]}},
            {"a": [[1], [2]]},
            [("a", "wrong_type", "'a' holds list<item: int64>; the contract needs single values.")],
            id="lists have no domain",
        ),
        pytest.param({"domains": {"a": [1.5]}}, {"a": [1.5, float("nan")]}, [], id="NaN is no value"),
        pytest.param({"ranges": {"a": [0, 2]}}, {"a": pa.nulls(3)}, [], id="nothing but nulls"),
        pytest.param({"domains": {"c": ["NO", "SE"]}}, {"c": ["NO", None]}, [], id="in the domain"),
        pytest.param(
            {"domains": {"c": ["NO"]}},
            {"c": ["NO", "D'K", "D'K", "x"]},
            [("c", "domain", "3 rows of 'c' hold a value outside its domain: \"D'K\", 'x'.")],
            id="domain",
        ),
        pytest.param({"domains": {"c": [1, 2]}}, {"c": ["1"]}, [("c", "domain", "1 rows of 'c' hold a value outside its domain: '1'.")], id="text is no number"),
        pytest.param({"domains": {"c": ["a"]}}, {"c": pa.array(["a"]).dictionary_encode()}, [], id="dictionary"),
        pytest.param({"null_share": {"a": 0.5}}, {"a": [None, 1]}, [], id="nulls at the limit"),
        pytest.param(
            {"null_share": {"a": 0.5}},
            {"a": [None, 1.0, float("nan")]},
            [("a", "null_share", "66.67% of 'a' are null; 50.00% is the limit.")],
            id="nulls",
        ),
        pytest.param({"unique": ["a", "b"]}, {"a": [1, 1], "b": [1, 2]}, [], id="unique together"),
        pytest.param(
            {"unique": ["a"]},
            {"a": [1, 1, 1, None, None], "b": [1, 2, 3, 4, 5]},
            [("a", "duplicates", "3 of 5 rows repeat the 'a' of another row.")],
            id="duplicates",
        ),
        pytest.param(
            {"null_share": {'we"ird \'col': 0}, "unique": ["a"]},
            {"a": [1]},
            [("we\"ird 'col", "missing_column", "'we\"ird \\'col' is missing from the data; the contract speaks of it.")],
            id="a missing column, with quotes",
        ),
    ],
)  # fmt: skip
def test_a_contract(contract, columns, expected):
    assert broken(contract, columns) == expected


@pytest.mark.parametrize(
    ("newest", "sentence"),
    [
        (NOON - dt.timedelta(days=2), None),
        ((NOON - dt.timedelta(days=1)).replace(tzinfo=None), None),
        (NOON + dt.timedelta(days=9), None),
        (
            NOON - dt.timedelta(days=2, seconds=1),
            (
                "The newest row is from 2026-01-29T11:59:59+00:00, 2 days, 0:00:01 before 2026-01-31T12:00:00+00:00; "
                "2 days, 0:00:00 is the limit."
            ),
        ),
        (None, "No row has an event time, so none is younger than 2 days, 0:00:00."),
    ],
)
def test_freshness(newest, sentence):
    found = broken({"fresh_within": "2d"}, {"a": [1]}, newest=newest, as_of=NOON)
    assert found == ([("", "stale", sentence)] if sentence else [])


def test_what_many_strange_values_cost_is_bounded():
    check = ContractCheck(Contract.from_dict({"domains": {"a": [-1]}}))
    check.add(pa.record_batch({"a": pa.array(range(5_000))}))
    (found,) = check.violations()
    assert found.numbers == {"rows": 5_000}
    assert len(check._strange["a"]) == 1_001


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.none() | st.integers(-5, 5), min_size=1, max_size=50), cut=st.integers(0, 50))
def test_how_the_rows_are_cut_does_not_matter(values, cut):
    contract = {"ranges": {"a": [-2, 2]}, "domains": {"a": [0, 1]}, "null_share": {"a": 0.2}, "unique": ["a"]}
    column = pa.array(values, pa.int64())
    assert broken(contract, {"a": column}) == broken(contract, {"a": column[:cut]}, {"a": column[cut:]})


@pytest.mark.parametrize(
    ("contract", "match"),
    [
        ({"rangs": {}}, r"'rangs' is no key of a contract\. Did you mean 'ranges'\? The keys are min_rows, unique"),
        ({"min_rows": -1}, r"contract\.min_rows: expected a whole number >= 0, got -1"),
        ({"min_rows": True}, r"contract\.min_rows: .* got True"),
        ({"unique": "id"}, r"contract\.unique: expected a list of columns, got 'id'"),
        ({"ranges": [1, 2]}, r"contract\.ranges: expected a mapping"),
        ({"ranges": {"a": [2, 1]}}, r"contract\.ranges\.a: 2 is above 1"),
        ({"ranges": {"a": [1]}}, r"contract\.ranges\.a: expected \[smallest, largest\]"),
        ({"ranges": {"a": [float("nan"), 1]}}, r"contract\.ranges\.a: expected"),
        ({"domains": {"a": "NO"}}, r"contract\.domains\.a: expected a list"),
        ({"domains": {"a": [["NO"]]}}, r"contract\.domains\.a: expected a list"),
        ({"domains": {"a": []}}, r"contract\.domains\.a: expected a list"),
        ({"null_share": {"a": 5}}, r"contract\.null_share\.a: expected a share between 0 and 1, got 5"),
        ({"fresh_within": "2 days"}, "'2 days' is no duration"),
    ],
)
def test_a_contract_that_makes_no_sense_is_refused(contract, match):
    with pytest.raises(ConfigError, match=match):
        Contract.from_dict(contract)


def test_keys_that_are_not_given_ask_for_nothing():
    contract = Contract.from_dict({"min_rows": None, "ranges": None})
    assert contract == Contract()
    assert ContractCheck(contract).violations(newest=None, as_of=np.datetime64("2026-01-01", "us").item()) == ()
