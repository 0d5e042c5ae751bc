"""Rows come out of files as they are, or an error names the file, the column and the next step."""

import contextlib
import gzip
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import csv, feather, parquet

from airflow_provider_mlops.adapters.files import column_names, count_rows, file_format, scan, schema
from airflow_provider_mlops.data import Window
from airflow_provider_mlops.errors import ConfigError, DataError, MlopsError

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
TABLE = pa.table(
    {
        "n": [1, 2, 3, 4],
        "x": [0.5, None, 1.5, 2.5],
        "c": ["a", "b", None, "ä"],
        "at": pa.array([NOON + timedelta(days=d) for d in range(4)], pa.timestamp("us", tz="UTC")),
    }
)


def write(table, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    elif path.suffix == ".csv":
        csv.write_csv(table, path)
    else:
        feather.write_feather(table, str(path), compression="uncompressed")
    return str(path)


def read(path, **options):
    return pa.Table.from_batches(list(scan(str(path), **options)))


# What is read


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.arrow"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    path = write(TABLE, tmp_path / name)
    assert read(path).cast(TABLE.schema).equals(TABLE)
    assert schema(path).names == column_names(path) == TABLE.column_names


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.arrow"])
def test_columns_come_in_the_order_asked_for(tmp_path, name):
    assert read(write(TABLE, tmp_path / name), columns=["x", "n", "x"]).column_names == ["x", "n"]


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.arrow"])
def test_batches_are_no_larger_than_asked(tmp_path, name):
    sizes = [batch.num_rows for batch in scan(write(TABLE, tmp_path / name), batch_rows=3)]
    assert sum(sizes) == 4
    assert max(sizes) <= 3


def test_a_folder_is_its_data_files_sorted_without_hidden_ones(tmp_path):
    write(TABLE.slice(2), tmp_path / "data" / "b" / "2.parquet")
    write(TABLE.slice(0, 2), tmp_path / "data" / "a" / "1.parquet")
    (tmp_path / "data" / "_SUCCESS").touch()
    (tmp_path / "data" / ".part.parquet").write_bytes(b"half")
    write(TABLE, tmp_path / "data" / "_tmp" / "3.parquet")
    (tmp_path / "data" / "README.md").write_text("notes")
    assert read(tmp_path / "data")["n"].to_pylist() == [1, 2, 3, 4]


def test_a_folder_below_a_hidden_one_is_read(tmp_path):
    write(TABLE, tmp_path / ".cache" / "data" / "1.parquet")
    assert read(tmp_path / ".cache" / "data").num_rows == 4


def test_a_glob_picks_files(tmp_path):
    for name in ("2026-01.parquet", "2026-02.parquet", "2025-12.parquet"):
        write(TABLE, tmp_path / name)
    assert read(tmp_path / "2026-*.parquet").num_rows == 8


def test_a_url_is_read_through_fsspec():
    memory = fsspec.filesystem("memory")
    with memory.open("/bucket/data/1.parquet", "wb") as file:
        parquet.write_table(TABLE, file)
    with memory.open("/bucket/data/_SUCCESS", "wb") as file:
        file.write(b"")
    assert read("memory://bucket/data").equals(TABLE)
    assert read("memory://bucket/data/*.parquet", columns=["n"]).num_rows == 4


def test_the_content_tells_the_format_of_a_file_without_a_suffix(tmp_path):
    parquet.write_table(TABLE, tmp_path / "0a1b2c")
    assert file_format(str(tmp_path / "0a1b2c")) == "parquet"
    assert read(tmp_path / "0a1b2c").num_rows == 4


def test_a_compressed_csv_is_read(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,x\n2,y\n"))
    assert read(tmp_path / "t.csv.gz").to_pydict() == {"a": [1, 2], "b": ["x", "y"]}


def test_files_of_a_folder_may_lack_columns_and_differ_in_width_of_numbers(tmp_path):
    write(pa.table({"n": pa.array([1], pa.int32()), "x": [1]}), tmp_path / "1.parquet")
    write(pa.table({"n": pa.array([2], pa.int64())}), tmp_path / "2.parquet")
    assert read(tmp_path).to_pydict() == {"n": [1, 2], "x": [1, None]}
    assert schema(str(tmp_path)).field("n").type == pa.int64()


def test_dictionaries_stay_dictionaries_when_asked(tmp_path):
    path = write(TABLE, tmp_path / "t.parquet")
    assert pa.types.is_dictionary(read(path, dictionaries=True).schema.field("c").type)
    assert read(path, dictionaries=True)["c"].to_pylist() == TABLE["c"].to_pylist()


def test_text_of_very_many_values_is_spelled_out(tmp_path):
    names = pa.array([f"order number {number:030}" for number in range(200_000)])
    path = write(pa.table({"id": names, "c": pa.array(["a", "b"] * 100_000)}), tmp_path / "t.parquet")
    found = read(path, dictionaries=True)
    assert pa.types.is_string(found.schema.field("id").type)
    assert pa.types.is_dictionary(found.schema.field("c").type)
    assert found["id"].to_pylist() == names.to_pylist()


def test_dictionaries_of_files_that_lack_the_column_are_null(tmp_path):
    write(pa.table({"n": [1], "c": ["a"]}), tmp_path / "1.parquet")
    write(pa.table({"n": [2]}), tmp_path / "2.parquet")
    assert read(tmp_path, dictionaries=True).to_pydict() == {"n": [1, 2], "c": ["a", None]}


def test_views_of_text_are_text(tmp_path):
    path = write(TABLE.set_column(2, "c", TABLE["c"].cast(pa.string_view())), tmp_path / "t.arrow")
    window = Window(NOON + timedelta(days=1), None)
    assert read(path, timestamp="at", window=window)["c"].to_pylist() == ["b", None, "ä"]
    assert schema(path).field("c").type == pa.string()


def test_a_row_group_is_never_whole_in_memory(tmp_path):
    rows = 2_000_000
    write(pa.table({f"x{i}": np.random.default_rng(i).random(rows) for i in range(4)}), tmp_path / "t.parquet")
    assert parquet.ParquetFile(tmp_path / "t.parquet").num_row_groups == 2
    before, most = pa.total_allocated_bytes(), 0
    for _ in scan(str(tmp_path / "t.parquet")):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 16 * 2**20  # one row group decoded is 32 MiB


def test_a_batch_of_wide_rows_has_fewer_of_them(tmp_path):
    wide = pa.FixedSizeListArray.from_arrays(np.zeros(20_000 * 1000), 1000)
    table = pa.table({"wide": wide, "narrow": np.arange(20_000)})
    parquet.write_table(table, tmp_path / "t.parquet", use_dictionary=False)
    sizes = [batch.nbytes for batch in scan(str(tmp_path / "t.parquet"))]
    assert len(sizes) > 2
    assert max(sizes) < 70 * 2**20
    assert [batch.num_rows for batch in scan(str(tmp_path / "t.parquet"), columns=["narrow"])] == [20_000]


# Types of CSV


@pytest.mark.parametrize(
    ("values", "type_"),
    [
        (["1", "-2", ""], pa.int64()),
        (["1", "2.5", "1e3"], pa.float64()),
        (["true", "False"], pa.bool_()),
        (["2026-01-31", ""], pa.date32()),
        (["2026-01-31 10:00:00", "2026-02-01"], pa.timestamp("us")),
        (["2026-01-31T10:00:00Z", "2026-01-31T10:00:00+02:00"], pa.timestamp("us", tz="UTC")),
        (["2026-01-31T10:00:00Z", "2026-01-31T10:00:00"], pa.string()),
        (["1", "nil"], pa.string()),
        (["", "NA"], pa.null()),
        ([" 1", "2 "], pa.int64()),
    ],
    ids=str,
)
def test_the_narrowest_type_that_fits_every_value_is_taken(tmp_path, values, type_):
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f'0,"{value}"\n' for value in values))
    assert schema(str(tmp_path / "t.csv")).field("b").type == type_
    assert read(tmp_path / "t.csv")["b"].type == type_


def test_a_value_late_in_the_file_widens_the_type(tmp_path):
    lines = [f"{i},{i}\n" for i in range(200_000)]
    (tmp_path / "t.csv").write_text("i,v\n" + "".join(lines) + "0,nil\n")
    assert schema(str(tmp_path / "t.csv")).types == [pa.int64(), pa.string()]


def test_given_types_are_not_inferred(tmp_path):
    (tmp_path / "t.csv").write_text("zip,n\n01234,1\n")
    assert read(tmp_path / "t.csv", types={"zip": pa.string()})["zip"].to_pylist() == ["01234"]


def test_a_csv_that_does_not_hold_the_given_type_names_file_and_column(tmp_path):
    (tmp_path / "t.csv").write_text("n\n1\nx\n")
    with pytest.raises(DataError, match=r"Column 'n' of '.*t\.csv' cannot be read as int64.*read the column as text"):
        read(tmp_path / "t.csv", types={"n": pa.int64()})


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_a_csv_with_another_separator_is_named_with_the_way_out(tmp_path, sign):
    (tmp_path / "rows.csv").write_text(f"a{sign}b\n1{sign}2\n")
    with pytest.raises(DataError, match=r"rows\.csv' is separated by .*, and commas are read\. Write it anew"):
        schema(str(tmp_path / "rows.csv"))


def test_a_csv_of_a_header_alone_has_columns_and_no_rows(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n")
    assert list(scan(str(tmp_path / "t.csv"))) == []
    assert column_names(str(tmp_path / "t.csv")) == ["a", "b"]


# Windows of time


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.arrow"])
@pytest.mark.parametrize(
    "type_",
    [
        pa.timestamp("us", tz="UTC"),
        pa.timestamp("s"),
        pa.timestamp("ns"),
        pa.timestamp("ms", tz="Asia/Tokyo"),
        pa.date32(),
    ],
    ids=str,
)
def test_a_window_is_half_open_in_any_time_type(tmp_path, name, type_):
    midnights = [datetime(2026, 5, d, tzinfo=UTC) for d in range(1, 6)]
    times = pa.array(midnights, pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us")).cast(type_)
    if getattr(type_, "tz", None):
        times = pa.array(midnights, type_)
    path = write(pa.table({"d": [1, 2, 3, 4, 5], "at": times}), tmp_path / name)
    window = Window(midnights[1], midnights[3])
    assert read(path, timestamp="at", window=window)["d"].to_pylist() == [2, 3]
    assert read(path, columns=["d"], timestamp="at", window=window).column_names == ["d"]
    later = Window(midnights[1] + timedelta(hours=1), None)
    assert read(path, timestamp="at", window=later)["d"].to_pylist() == [3, 4, 5]
    naive = Window(None, midnights[1].replace(tzinfo=None))
    assert read(path, timestamp="at", window=naive)["d"].to_pylist() == [1]


def test_files_outside_the_window_and_files_without_rows_are_passed_over(tmp_path):
    write(TABLE, tmp_path / "1.parquet")
    write(TABLE.slice(0, 0), tmp_path / "2.parquet")
    assert read(tmp_path).num_rows == 4
    assert list(scan(str(tmp_path), timestamp="at", window=Window(NOON + timedelta(days=9), None))) == []


def test_rows_without_a_time_lie_in_no_window(tmp_path):
    path = write(pa.table({"at": pa.array([date(2026, 1, 1), None])}), tmp_path / "t.parquet")
    assert read(path, timestamp="at", window=Window(datetime(2000, 1, 1), None)).num_rows == 1
    assert read(path, timestamp="at", window=Window()).num_rows == 2


def test_row_groups_outside_the_window_are_not_read(tmp_path):
    times = pa.array(np.datetime64("2026-01-01", "us") + np.arange(4000) * np.timedelta64(1, "h"))
    path = tmp_path / "t.parquet"
    parquet.write_table(
        pa.table({"at": times, "x": np.arange(4000)}),
        path,
        row_group_size=1000,
        compression="none",
        use_dictionary=False,
    )
    content = bytearray(path.read_bytes())
    chunk = parquet.ParquetFile(path).metadata.row_group(3).column(1)
    content[chunk.data_page_offset : chunk.data_page_offset + chunk.total_compressed_size] = (
        b"\0" * chunk.total_compressed_size
    )
    path.write_bytes(content)
    assert read(path, timestamp="at", window=Window(None, datetime(2026, 1, 20))).num_rows == 19 * 24
    with pytest.raises(DataError, match="cannot be read"):
        read(path)


def test_a_window_needs_a_timestamp_column(tmp_path):
    with pytest.raises(ConfigError, match="needs the name of the timestamp column"):
        list(scan(write(TABLE, tmp_path / "t.parquet"), window=Window(NOON)))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_a_timestamp_column_that_holds_no_time_is_named(tmp_path, name):
    with pytest.raises(DataError, match=r"timestamp column 'c' .* holds string, which is no time"):
        list(scan(write(TABLE, tmp_path / name), timestamp="c", window=Window(NOON)))


# What cannot be read


def test_a_relative_path_that_is_not_there_says_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"^'rain\.csv' is no file and no folder\. It was looked for in {tmp_path}\.$"):
        schema("rain.csv")


def test_a_path_that_is_not_there_shows_its_neighbors(tmp_path):
    write(TABLE, tmp_path / "rain.parquet")
    with pytest.raises(DataError, match=r"rian\.parquet' is no file and no folder\. Did you mean '.*rain\.parquet'\?"):
        schema(str(tmp_path / "rian.parquet"))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none-*.parquet", "No file matches"),
        ("empty", "holds no Parquet, CSV or Arrow file"),
        ("mixed", "files of several formats: csv, parquet"),
        ("notes.txt", "is no Parquet or Arrow file, and its name does not end in .csv"),
        ("corrupt.parquet", r"corrupt\.parquet' cannot be read: .*Check the file, or write it again"),
        ("zero.parquet", r"zero\.parquet' cannot be read"),
        ("cut.parquet", r"cut\.parquet' cannot be read"),
        ("bad.arrow", r"bad\.arrow' cannot be read"),
        ("zero.csv", r"zero\.csv' cannot be read"),
        ("ragged.csv", r"ragged\.csv' cannot be read: .*Expected 2 columns, got 3"),
        ("latin.csv", r"latin\.csv' cannot be read: .*UTF8"),
        ("twice.csv", r"twice\.csv' has two columns named 'a'"),
        ("twice.parquet", r"twice\.parquet' has two columns named 'a'"),
        ("misfit", r"Column 'c' is string in '.*2\.parquet' and int64 in '.*1\.parquet'"),
    ],
)
@pytest.mark.parametrize("function", [schema, lambda path: list(scan(path))], ids=["schema", "scan"])
def test_what_cannot_be_read_is_our_error(tmp_path, path, message, function):
    (tmp_path / "empty").mkdir()
    write(TABLE, tmp_path / "mixed" / "1.parquet")
    write(TABLE, tmp_path / "mixed" / "2.csv")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "corrupt.parquet").write_bytes(b"PAR1" + b"\1" * 100 + b"PAR1")
    (tmp_path / "zero.parquet").touch()
    whole = write(TABLE, tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes(Path(whole).read_bytes()[:-20])
    (tmp_path / "bad.arrow").write_bytes(b"ARROW1\0\0junk")
    (tmp_path / "zero.csv").touch()
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    (tmp_path / "latin.csv").write_bytes("a,b\nk\xe4se,1\n".encode("latin-1"))
    (tmp_path / "twice.csv").write_text("a,a\n1,2\n")
    parquet.write_table(
        pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), tmp_path / "twice.parquet"
    )
    write(pa.table({"c": [1]}), tmp_path / "misfit" / "1.parquet")
    write(pa.table({"c": ["x"]}), tmp_path / "misfit" / "2.parquet")
    with pytest.raises(DataError, match=message):
        function(str(tmp_path / path))


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.arrow"])
def test_an_unknown_column_shows_its_neighbors(tmp_path, name):
    with pytest.raises(DataError, match=r"Column 'nn' is not in .*Did you mean 'n'\? It has 4 columns: n, x, c, at"):
        list(scan(write(TABLE, tmp_path / name), columns=["nn"]))


def test_an_unknown_protocol_is_a_mistake_with_the_next_step():
    with pytest.raises(ConfigError, match=r"'nope://x' cannot be opened: .*Install the fsspec package"):
        schema("nope://x")


@pytest.mark.parametrize(
    "url", ["ftp://nowhere.invalid/d/", "https://nowhere.invalid/x.csv", "http://nowhere.invalid/*.csv"]
)
def test_a_url_of_an_unknown_host_names_it_and_the_next_step(url):
    with pytest.raises(
        DataError, match=r"'\w+://nowhere.invalid/.*the host 'nowhere.invalid' is not known here. Check"
    ):
        schema(url)


def test_a_url_without_data_is_an_error():
    with pytest.raises(DataError, match="Nothing was found at 'memory://no-such-bucket'"):
        schema("memory://no-such-bucket")


def test_ten_thousand_columns_are_read(tmp_path):
    path = write(pa.table({f"c{i}": [i] for i in range(10_000)}), tmp_path / "wide.parquet")
    assert read(path).num_columns == 10_000


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200), st.sampled_from([".parquet", ".csv", ".arrow", ""]))
def test_no_bytes_break_with_anything_but_our_error(tmp_path, content, suffix):
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(content)
    with contextlib.suppress(MlopsError):
        list(scan(str(path)))


# Parts of large files


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return a folder of four files, forty days, a row group of a thousand rows per day; the names run backwards in time."""
    folder = tmp_path_factory.mktemp("large")
    for part in range(4):
        days = np.arange(10 * part, 10 * part + 10).repeat(1000)
        at = pa.array([NOON + timedelta(days=int(d)) for d in days], pa.timestamp("us", tz="UTC"))
        write_groups(pa.table({"day": days, "at": at}), folder / f"{3 - part}.parquet")
    return folder


def write_groups(table, path):
    parquet.write_table(table, path, row_group_size=1000)


@pytest.mark.parametrize(("most", "groups"), [(10_000, 10), (9_500, 10), (1, 1), (40_000, 40), (10**9, 40)])
def test_of_large_files_so_many_row_groups_are_read_spread_over_time(large, most, groups):
    days = read(large, timestamp="at", most_rows=most)["day"].to_numpy()
    assert days.size == groups * 1000
    chosen, step = np.unique(days), 40 // groups
    assert chosen.size == groups
    assert sorted(day // step for day in chosen) == list(range(groups))


def test_the_choice_is_the_same_every_time_and_knows_the_window(large):
    window = Window(NOON + timedelta(days=10), NOON + timedelta(days=30))
    first, again = (read(large, timestamp="at", window=window, most_rows=5000) for _ in range(2))
    assert first.equals(again)
    assert first.num_rows == 5000
    assert set(first["day"].to_pylist()) <= set(range(10, 30))
    assert count_rows(str(large), timestamp="at", window=window) == 20_000
    assert count_rows(str(large)) == 40_000


def test_without_times_the_parts_are_spread_over_the_files(large):
    days = read(large, columns=["day"], most_rows=4000)["day"].to_numpy()
    assert np.unique(days // 10).size == 4


def test_the_rows_of_csv_are_not_known_beforehand(tmp_path):
    path = write(TABLE, tmp_path / "t.csv")
    with pytest.raises(ConfigError, match=r"is CSV: .* Use Parquet"):
        count_rows(path)
    assert read(path, most_rows=1).num_rows == 4
