"""A snapshot is there wholly or not at all, never changes, and its two sides share no row."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet

from airflow_provider_mlops.adapters.snapshots import SnapshotStore, _TimeCounts, verify
from airflow_provider_mlops.data import DataRef, DataVersion
from airflow_provider_mlops.errors import ConfigError, DataError

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)


def hourly(days, *, kind=None, unlabeled_last=0):
    """Rows at every hour: a number, a label that alternates, the time."""
    count = days * 24
    times = [START + HOUR * hour for hour in range(count)]
    label = [hour % 2 for hour in range(count - unlabeled_last)] + [None] * unlabeled_last
    return pa.table(
        {
            "n": pa.array(range(count)),
            "label": pa.array(label, pa.int64()),
            "at": pa.array(times, kind or pa.timestamp("us", "UTC")),
        }
    )


@pytest.fixture
def source(tmp_path):
    """A function that writes a table and says where."""

    def write(table, **reference):
        path = tmp_path / "source.parquet"
        parquet.write_table(table, path)
        return DataRef(path=str(path), label="label", **reference)

    return write


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "root")


def read(version):
    return parquet.read_table(version.uri)


def left_behind(store):
    return [path.name for path in store._folder.iterdir() if path.name.startswith(".")]


# -- by time --


def test_evaluation_gets_the_newest_days_and_training_the_span_before(source, store):
    snapshot = store.freeze(source(hourly(30), timestamp="at"), train_on=10 * DAY, hold_out=5 * DAY)
    end = START + 30 * DAY - HOUR
    assert snapshot.evaluation.end == end.isoformat()
    assert snapshot.evaluation.start == (end - 5 * DAY).isoformat()
    assert snapshot.evaluation.rows == 5 * 24 + 1  # both ends belong to it
    assert snapshot.train.rows == 10 * 24
    assert snapshot.train.start == (end - 15 * DAY).isoformat()
    assert max(read(snapshot.train)["n"].to_pylist()) < min(read(snapshot.evaluation)["n"].to_pylist())


def test_without_train_on_training_reaches_back_to_the_first_row(source, store):
    snapshot = store.freeze(source(hourly(30), timestamp="at"), hold_out=5 * DAY)
    assert snapshot.train.start == START.isoformat()
    assert snapshot.train.rows + snapshot.evaluation.rows == 30 * 24


def test_a_share_of_timed_rows_is_the_newest_share(source, store):
    snapshot = store.freeze(source(hourly(10), timestamp="at"), hold_out=0.25)
    assert snapshot.evaluation.rows == 60
    assert snapshot.train.rows == 180
    assert snapshot.train.end < snapshot.evaluation.start


def test_rows_after_as_of_do_not_exist(source, store):
    as_of = START + 20 * DAY
    for moment in (as_of, as_of.replace(tzinfo=None)):  # naive is UTC
        snapshot = store.freeze(source(hourly(30), timestamp="at"), as_of=moment, hold_out=5 * DAY)
        assert snapshot.evaluation.end == as_of.isoformat()


def test_labels_younger_than_their_delay_are_not_final(source, store):
    snapshot = store.freeze(source(hourly(30), timestamp="at"), hold_out=5 * DAY, label_delay=3 * DAY)
    assert snapshot.evaluation.end == (START + 27 * DAY - HOUR).isoformat()


def test_evaluation_ends_at_the_newest_label_and_rows_without_one_are_counted(source, store):
    table = hourly(30, unlabeled_last=48)
    gaps = [None if index % 10 == 0 else value for index, value in enumerate(table["label"].to_pylist())]
    table = table.set_column(1, "label", pa.array(gaps))
    snapshot = store.freeze(source(table, timestamp="at"), hold_out=5 * DAY)
    assert snapshot.evaluation.end == (START + 28 * DAY - HOUR).isoformat()
    assert snapshot.unlabeled == 68
    assert read(snapshot.train)["label"].null_count == 0


def test_a_label_that_is_not_a_number_is_no_label(source, store):
    table = pa.table({"n": range(40), "label": [float("nan"), 0.0, 1.0, None] * 10})
    snapshot = store.freeze(source(table), hold_out=0.5)
    assert snapshot.unlabeled == 20
    assert snapshot.train.rows + snapshot.evaluation.rows == 20


def test_rows_without_a_time_are_left_out_and_counted(source, store):
    table = hourly(10)
    times = [None if index % 24 == 5 else value for index, value in enumerate(table["at"].to_pylist())]
    snapshot = store.freeze(source(table.set_column(2, "at", pa.array(times)), timestamp="at"), hold_out=0.2)
    assert snapshot.untimed == 10
    assert snapshot.train.rows + snapshot.evaluation.rows == 230


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("s"),
        pa.timestamp("ms"),
        pa.timestamp("ns"),
        pa.timestamp("us", "Europe/Paris"),
        pa.date32(),
        pa.date64(),
    ],
    ids=str,
)
def test_every_type_of_time_splits_alike(source, store, kind):
    snapshot = store.freeze(source(hourly(10, kind=kind), timestamp="at"), hold_out=DAY)
    assert snapshot.train.rows + snapshot.evaluation.rows == 240
    assert snapshot.evaluation.rows in {25, 48}  # a date has no hour: two whole days
    assert snapshot.train.start == START.isoformat()


def test_a_far_date_that_means_never_does_not_break_the_split(source, store):
    table = hourly(10, kind=pa.timestamp("us"))
    times = [*table["at"].to_pylist()[:-1], dt.datetime(9999, 12, 31, 23, 59, 59, 999_999)]
    snapshot = store.freeze(
        source(table.set_column(2, "at", pa.array(times, pa.timestamp("us"))), timestamp="at"),
        as_of=START + 100 * DAY,
        hold_out=DAY,
    )
    assert snapshot.train.rows + snapshot.evaluation.rows == 239


@settings(deadline=None, max_examples=40)
@given(
    times=st.lists(st.integers(-(10**15), 4 * 10**15), min_size=1, max_size=300),
    share=st.floats(0.01, 0.99),
    cut=st.integers(0, 300),
    most=st.integers(2, 40),
)
def test_the_start_of_the_newest_share_does_not_depend_on_the_order(times, share, cut, most):
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("airflow_provider_mlops.adapters.snapshots._MOST_TIMES", most)
        for chunks in ([times], [times[cut:], times[:cut]], [[value] for value in reversed(times)]):
            counts = _TimeCounts()
            for chunk in chunks:
                counts.add(np.array(chunk, dtype=np.int64))
            found.append(counts.start_of_newest(share, max(times)))
    assert len(set(found)) == 1
    assert sum(value >= found[0] for value in times) >= share * len(times) - 1e-9
    if most >= len(times):
        assert sum(value > found[0] for value in times) < share * len(times)


# -- by hash --


def test_a_row_keeps_its_side_when_rows_are_added_and_moved(source, store):
    table = pa.table({"n": range(2_000), "label": [index % 2 for index in range(2_000)]})
    more = pa.concat_tables([pa.table({"n": range(5_000, 6_000), "label": [0, 1] * 500}), table])
    before = store.freeze(source(table))
    after = store.freeze(source(more))
    assert abs(before.evaluation.rows - 400) < 4 * (2_000 * 0.2 * 0.8) ** 0.5
    assert set(read(before.train)["n"].to_pylist()) <= set(read(after.train)["n"].to_pylist())
    assert set(read(before.evaluation)["n"].to_pylist()) <= set(read(after.evaluation)["n"].to_pylist())


def test_copies_of_a_row_are_never_on_both_sides(source, store):
    table = pa.table(
        {"n": [index % 100 for index in range(2_000)], "label": [index // 100 % 2 for index in range(2_000)]}
    )
    snapshot = store.freeze(source(table))
    assert not set(read(snapshot.train)["n"].to_pylist()) & set(read(snapshot.evaluation)["n"].to_pylist())


def test_rows_of_one_entity_stay_together(source, store):
    table = pa.table(
        {
            "who": [None if index % 50 == 0 else f"c{index % 50}" for index in range(2_000)],
            "n": range(2_000),
            "label": [index // 50 % 2 for index in range(2_000)],
        }
    )
    snapshot = store.freeze(source(table, entity="who"))
    train, evaluation = (set(read(side)["who"].to_pylist()) for side in (snapshot.train, snapshot.evaluation))
    assert train & evaluation == {None}  # rows of nobody belong to nobody: they are dealt one by one


def test_only_the_named_columns_are_frozen(source, store):
    table = pa.table({"a": range(100), "b": range(100), "label": [0, 1] * 50})
    snapshot = store.freeze(source(table, columns=("b",)))
    assert read(snapshot.train).column_names == ["b", "label"]


# -- content and place --


def test_freezing_again_finds_the_same_folder(source, store):
    first, second = (store.freeze(source(hourly(10), timestamp="at")) for _ in range(2))
    assert first == second
    folders = [path for path in store._folder.iterdir() if path.is_dir()]
    assert [path.name for path in folders] == [first.digest.removeprefix("sha256:")]
    marker = json.loads((folders[0] / "_complete.json").read_text())
    assert marker["train"]["digest"] == first.train.digest
    assert not left_behind(store)


def test_the_digest_does_not_depend_on_how_the_source_was_cut(tmp_path, store):
    table = pa.table(
        {"n": range(150_000), "s": [f"v{index % 7}" for index in range(150_000)], "label": [0, 1] * 75_000}
    )
    cuts = {"one": [table], "three": [table.slice(0, 11), table.slice(11, 99_000), table.slice(99_011)]}
    digests = set()
    for name, parts in cuts.items():
        folder = tmp_path / name
        folder.mkdir()
        for index, part in enumerate(parts):
            encoded = part.set_column(1, "s", part["s"].dictionary_encode()) if name == "three" else part
            parquet.write_table(
                encoded.replace_schema_metadata({"who": name}), folder / f"{index}.parquet", row_group_size=777
            )
        digests.add(store.freeze(DataRef(path=str(folder), label="label")).digest)
    assert len(digests) == 1


def test_row_groups_have_a_fixed_size(source, store):
    table = pa.table({"n": range(200_000), "label": [0, 1] * 100_000})
    snapshot = store.freeze(source(table))
    file = parquet.ParquetFile(f"{snapshot.train.uri}/part-0.parquet")
    sizes = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert sizes[:-1] == [65_536] * (len(sizes) - 1)
    assert sum(sizes) == snapshot.train.rows


def test_csv_is_frozen_as_parquet(tmp_path, store):
    csv.write_csv(hourly(5), tmp_path / "rows.csv")
    snapshot = store.freeze(DataRef(path=str(tmp_path / "rows.csv"), label="label", timestamp="at"), hold_out=DAY)
    assert snapshot.evaluation.rows == 25


def test_a_frozen_version_that_was_changed_is_noticed(source, store):
    version = store.freeze(source(hourly(10), timestamp="at")).train
    verify(version)
    with (Path(version.uri) / "part-0.parquet").open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(DataError, match=r"was changed: its digest is sha256:\w{64}, and sha256:\w{64} was frozen"):
        verify(version)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        verify(DataVersion(uri=version.uri + "x", digest=version.digest, rows=1))


def test_a_snapshot_without_its_marker_is_not_trusted(source, store):
    snapshot = store.freeze(source(hourly(10), timestamp="at"))
    (store._folder / snapshot.digest.removeprefix("sha256:") / "_complete.json").unlink()
    with pytest.raises(DataError, match=r"lacks its _complete\.json.*Remove the folder"):
        store.freeze(source(hourly(10), timestamp="at"))


# -- refusals --

TWO = pa.table({"n": range(100), "label": [0, 1] * 50})


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        pytest.param({"hold_out": DAY}, "hold_out 1 day, 0:00:00 is a duration and needs a timestamp", id="duration"),
        pytest.param({"train_on": DAY}, "train_on 1 day, 0:00:00 needs a timestamp", id="train_on"),
        pytest.param({"as_of": START}, "as_of .* needs a timestamp", id="as_of"),
        pytest.param({"label_delay": DAY}, "label_delay .* needs a timestamp", id="label_delay"),
        pytest.param({"hold_out": 0}, "between 0 and 1, got 0", id="zero"),
        pytest.param({"hold_out": 1.0}, r"between 0 and 1, got 1\.0", id="one"),
        pytest.param({"hold_out": float("nan")}, "between 0 and 1, got nan", id="NaN"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(source, store, arguments, match):
    with pytest.raises(ConfigError, match=match):
        store.freeze(source(TWO), **arguments)


def test_a_negative_duration_is_refused(source, store):
    with pytest.raises(ConfigError, match="train_on must be longer than nothing"):
        store.freeze(source(hourly(3), timestamp="at"), train_on=-DAY)


def test_a_delay_of_labels_needs_a_label(tmp_path, store):
    with pytest.raises(ConfigError, match=r"label_delay .* needs a label column"):
        store.freeze(DataRef(path="x", timestamp="at"), label_delay=DAY)


@pytest.mark.parametrize("reference", [{"entity": "m"}, {"timestamp": "m"}, {"columns": ("m",)}])
def test_an_unknown_column_is_named_with_its_neighbors(source, store, reference):
    with pytest.raises(DataError, match=r"has no column 'm'\..*It has 2: n, label"):
        store.freeze(source(TWO, **reference))


def test_a_timestamp_column_without_times_is_refused(source, store):
    with pytest.raises(DataError, match=r"'n' .*holds int64, which is no time"):
        store.freeze(source(TWO, timestamp="n"))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        pytest.param(
            {"hold_out": 400 * DAY},
            r"left for train \(at from the first row to before 2024.*240 rows were read",
            id="train",
        ),
        pytest.param({"as_of": START - DAY}, "None of the 240 rows .* at or before 2025-12-31", id="as_of"),
    ],
)
def test_an_empty_side_is_named_with_its_window(source, store, arguments, match):
    with pytest.raises(DataError, match=match):
        store.freeze(source(hourly(10), timestamp="at"), **arguments)
    assert not left_behind(store) if store._folder.exists() else True


def test_no_label_at_all_is_said_so(source, store):
    table = hourly(2, unlabeled_last=48)
    with pytest.raises(DataError, match=r"None of the 48 rows .* has a label in 'label'"):
        store.freeze(source(table, timestamp="at"))
    with pytest.raises(
        DataError, match=r"No labeled row .* left for train .*48 rows were read, 48 of them have no label"
    ):
        store.freeze(source(table))


@pytest.mark.parametrize("label", [1, True, "yes"])
def test_a_single_label_cannot_be_learned(source, store, label):
    table = pa.table({"n": range(100), "label": [label] * 100})
    with pytest.raises(DataError, match=rf"All \d+ training rows .* have the label label = {label!r}"):
        store.freeze(source(table))
    assert not left_behind(store)


def test_one_class_only_in_the_training_span_is_refused_too(source, store):
    table = hourly(10)
    label = [0] * 9 * 24 + [0, 1] * 12
    with pytest.raises(DataError, match="nothing to learn"):
        store.freeze(source(table.set_column(1, "label", pa.array(label)), timestamp="at"), hold_out=0.1)


def test_a_column_that_parquet_cannot_hold_is_said_so(tmp_path, store):
    table = pa.table({"n": pa.array([pa.MonthDayNano([1, 2, 3])] * 20), "label": [0, 1] * 10})
    with pa.ipc.new_file(tmp_path / "x.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="Parquet cannot hold"):
        store.freeze(DataRef(path=str(tmp_path / "x.arrow"), label="label"))


@pytest.fixture
def somebody():
    """Not root, who may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_written_is_named(source, tmp_path, request):
    rows = source(TWO)
    SnapshotStore(tmp_path / "open").freeze(rows)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    tmp_path.joinpath("locked").mkdir(mode=0o500)
    request.getfixturevalue("somebody")
    with pytest.raises(ConfigError, match=r"locked.*Permission denied"):
        SnapshotStore(tmp_path / "locked").freeze(rows)


def test_a_file_where_the_folder_should_be_is_named(source, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/data.*Not a directory.*\[mlops\] storage"):
        SnapshotStore(tmp_path / "file").freeze(source(TWO))


# -- several processes --

FREEZE = """
import sys, pathlib
from airflow_provider_mlops.adapters.snapshots import SnapshotStore
from airflow_provider_mlops.data import DataRef
print(SnapshotStore(pathlib.Path(sys.argv[1])).freeze(DataRef(path=sys.argv[2], label="label")).digest)
"""
LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n" + FREEZE
# Stops for good in the middle of the second pass, with one row group on the disk.
HANGING = (
    """
import time
from airflow_provider_mlops.adapters import snapshots
def hang(*args): print("hanging", flush=True); time.sleep(600)
write = snapshots._Side._write_group
snapshots._Side._write_group = lambda side: (write(side), hang())
"""
    + FREEZE
)


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_that_freeze_the_same_rows_end_with_one_copy(source, store, tmp_path):
    path = source(pa.table({"n": range(300_000), "label": [0, 1] * 150_000})).path
    racers = [start(FREEZE, tmp_path / "root", path) for _ in range(3)]
    results = [racer.communicate(timeout=120) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0], results
    assert len({output for output, _ in results}) == 1
    assert [path.name for path in store._folder.iterdir()] == [results[0][0].strip().removeprefix("sha256:")]


def test_what_a_killed_process_left_goes_with_the_next_freeze_but_a_living_one_is_left_alone(source, store, tmp_path):
    reference = source(pa.table({"n": range(100_000), "label": [0, 1] * 50_000}))
    dead, living = (start(HANGING, tmp_path / "root", reference.path) for _ in range(2))
    try:
        assert dead.stdout.readline() == living.stdout.readline() == "hanging\n"
        dead.send_signal(signal.SIGKILL)
        dead.communicate()
        assert len(left_behind(store)) == 4  # two folders, two locks
        snapshot = store.freeze(reference)
        assert len(left_behind(store)) == 2
        verify(snapshot.train)
        verify(snapshot.evaluation)
    finally:
        for process in (dead, living):
            process.kill()
            process.communicate()
    store.freeze(reference)
    assert not left_behind(store)


def test_a_disk_that_takes_no_more_is_a_failure_of_the_service(source, store, tmp_path):
    path = source(pa.table({"n": range(100_000), "label": [0, 1] * 50_000})).path
    process = start(LIMITED, tmp_path / "root", path)
    _, errors = process.communicate(timeout=60)
    assert "ServiceError: Writing to" in errors
    assert "File too large" in errors
    assert not left_behind(store)


def test_freezing_is_not_slow(source, store):
    count = 400_000
    rng = np.random.default_rng(1)
    columns = {f"f{index}": rng.normal(size=count) for index in range(8)}
    reference = source(pa.table({**columns, "label": rng.integers(0, 2, count)}))
    began = time.monotonic()
    store.freeze(reference)
    assert count / (time.monotonic() - began) > 20_000  # a hundred times less than an idle machine does
