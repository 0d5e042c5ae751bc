"""Suites from files, and what Great Expectations says about rows."""

from __future__ import annotations

import json
import sys

import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_provider_mlops.adapters.great_expectations import Suite, check_suite, read_suite
from airflow_provider_mlops.errors import ConfigError

NOT_NULL = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "amount"}}


@pytest.fixture
def write(tmp_path):
    """A function that writes a suite into a folder and reads it."""

    def make(content, name="suite.json"):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text)
        return read_suite(name, tmp_path)

    return make


@pytest.fixture
def rows(tmp_path):
    table = pa.table({"amount": [1.0, None, 30.0], 'it\'s "odd"': ["a", "b", "b"], "id": [1, 2, 2]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    return str(tmp_path / "rows.parquet")


# -- reading a suite: without the library --


def test_json_and_yaml_in_the_form_of_1_and_of_0(write):
    expected = (("expect_column_values_to_not_be_null", {"column": "amount"}),)
    assert write({"name": "mine", "expectations": [NOT_NULL]}) == Suite("mine", expected)
    old = {
        "expectation_suite_name": "old",
        "expectations": [{"expectation_type": NOT_NULL["type"], "kwargs": NOT_NULL["kwargs"]}],
    }
    assert write(old) == Suite("old", expected)
    text = "expectations:\n  - type: expect_column_values_to_not_be_null\n    kwargs: {column: amount}\n"
    assert write(text, "rain.yaml") == Suite("rain", expected)


@pytest.mark.parametrize("path", ["../secret.json", "/etc/passwd", "sub/../../secret.json", "link.json"])
def test_a_suite_outside_of_its_folder_is_refused(tmp_path, path):
    folder = tmp_path / "dags"
    folder.mkdir()
    (tmp_path / "secret.json").write_text('{"expectations": [{"type": "expect_secret"}]}')
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ConfigError, match="is not below") as caught:
        read_suite(path, folder)
    assert "expect_secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "name", "match"),
    [
        ("{", "s.json", r"'s\.json' is no JSON, see line 1"),
        ("a: [s3cret\nb: }", "s.yaml", r"'s\.yaml' is no YAML, see line 2"),
        ("a: 1\na: 2", "s.yaml", r"'s\.yaml' is no YAML, see line 2"),
        ("!!python/object/apply:os.system [id]", "s.yaml", "is no YAML|is no suite"),
        ("just text: s3cret", "s.yaml", "is no suite of Great Expectations: it needs a list 'expectations'"),
        ("", "s.yaml", "is no suite"),
        ("[1]", "s.json", "is no suite"),
        ('{"expectations": []}', "s.json", "that is not empty"),
        ('{"expectations": [1]}', "s.json", r"expectations\[0\] needs a 'type'"),
        ('{"expectations": [{"type": "__import__"}]}', "s.json", r"expectations\[0\] needs a 'type'"),
        ('{"expectations": [{"type": "expect_x", "kwargs": [1]}]}', "s.json", r"expectations\[0\]\.kwargs must be a mapping"),
        ("x", "s.txt", r"is neither \.json nor \.yaml"),
        (" " * (1 << 20) + "{}", "s.json", "is larger than 1 MiB"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_suite_says_so_and_is_not_quoted(write, content, name, match):
    with pytest.raises(ConfigError, match=match) as caught:
        write(content, name)
    assert "s3cret" not in str(caught.value)


def test_a_suite_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json cannot be read: No such file"):
        read_suite("none.json", tmp_path)
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"x\.json cannot be read: it is no UTF-8 text"):
        read_suite("x.json", tmp_path)


def test_without_the_library_the_extra_is_named(monkeypatch, rows):
    monkeypatch.setitem(sys.modules, "great_expectations", None)
    with pytest.raises(
        ConfigError, match=r"great_expectations is not installed\. Run: pip install 'airflow-provider-mlops\[gx\]'"
    ):
        check_suite(Suite("s", (("expect_column_to_exist", {"column": "id"}),)), rows)


# -- with the library --


@pytest.fixture
def check(rows, monkeypatch):
    """Check expectations on the rows with the real library."""
    monkeypatch.setenv("GX_ANALYTICS_ENABLED", "false")

    def run(*expectations):
        return check_suite(Suite("suite", expectations), rows)

    return run


with_library = pytest.mark.filterwarnings("default")  # its own warnings are not ours to mend


@with_library
def test_what_holds_is_no_violation(check):
    assert check(("expect_table_row_count_to_equal", {"value": 3}), ("expect_column_to_exist", {"column": "id"})) == ()


@with_library
def test_what_does_not_hold_is_told_with_type_column_and_what_was_seen(check):
    between, unique, count = check(
        ("expect_column_values_to_be_between", {"column": "amount", "max_value": 10}),
        ("expect_column_values_to_be_unique", {"column": 'it\'s "odd"'}),
        ("expect_table_row_count_to_equal", {"value": 4}),
    )
    assert (between.code, between.column) == ("expect_column_values_to_be_between", "amount")
    assert between.sentence == (
        "expect_column_values_to_be_between of 'amount' with {\"max_value\": 10.0}: "
        "1 of 3 values are unexpected, such as 30.0."
    )
    assert unique.column == 'it\'s "odd"'
    assert "2 of 3 values are unexpected, such as 'b'" in unique.sentence
    assert count.sentence == 'expect_table_row_count_to_equal with {"value": 4}: observed 3.'


@with_library
def test_what_cannot_be_evaluated_does_not_hold(check):
    (found,) = check(("expect_column_values_to_not_be_null", {"column": "amonut"}))
    assert found.column == "amonut"
    assert "it could not be evaluated" in found.sentence


@with_library
@pytest.mark.parametrize(
    "expectation",
    [("expect_miracles", {}), ("expect_column_to_exist", {}), ("expect_column_to_exist", {"colum": "id"})],
)
def test_an_expectation_that_the_library_does_not_know_is_named_by_its_place(check, expectation):
    with pytest.raises(
        ConfigError, match=rf"suite 'suite': expectations\[0\]: Great Expectations .* '{expectation[0]}'"
    ):
        check(expectation)
