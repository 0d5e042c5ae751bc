"""Embeddings: what is kept of them, and when they drift."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.adapters.engines.sql import SqlEngine
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.drift import vectors
from airflow_provider_mlops.drift.check import DriftPolicy, Variation, Verdict, check, rows_needed
from airflow_provider_mlops.drift.layout import choose_layout, without_identifiers
from airflow_provider_mlops.drift.profile import DataProfile, Family, ProfileBuilder
from airflow_provider_mlops.drift.report import html
from airflow_provider_mlops.errors import ConfigError

ORIGIN = datetime(2026, 1, 5, tzinfo=UTC)
WIDTH = 24
TOPICS = np.random.default_rng(1).normal(size=(8, WIDTH)) * 2


def texts(count, random, *, weights=None, shift=0.0):
    """Return embeddings of texts of eight topics, shape ``(count, WIDTH)``."""
    found = TOPICS[random.choice(8, count, p=weights)] + random.normal(size=(count, WIDTH))
    found[:, 0] += shift
    return found


def column(values):
    return pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(values, np.float32).ravel()), WIDTH)


def counted(values, layout=None, **more):
    batch = pa.record_batch({"e": column(values) if isinstance(values, np.ndarray) else values, **more})
    timed = {"timestamp": "at", "block": timedelta(days=7), "origin": ORIGIN} if "at" in more else {}
    builder = ProfileBuilder(layout or choose_layout(batch, **timed))
    builder.add(batch)
    return builder.profile() if layout else without_identifiers(builder.profile())


@pytest.fixture(scope="module")
def reference():
    return counted(texts(20_000, np.random.default_rng(0)))


def test_new_topics_and_moved_vectors_drift(reference):
    random = np.random.default_rng(2)
    mixed = check(reference, counted(texts(8000, random, weights=[0.3, *[0.1] * 7]), reference))
    moved = check(reference, counted(texts(8000, random, shift=0.5), reference))
    for report in (mixed, moved):
        found = report.columns["e"]
        assert (found.verdict, found.reason) == (Verdict.DRIFT, "distribution")
        assert found.effect_low <= found.effect <= found.effect_high
        assert 0.55 < found.numbers["auc"] < 0.9
        assert "a classifier tells the two sides apart with an area under the curve of 0." in found.sentence
    assert report.tests == 2


def test_the_same_topics_do_not_drift(reference):
    report = check(reference, counted(texts(20_000, np.random.default_rng(3)), reference))
    assert (report.verdict, report.columns["e"].reason) == (Verdict.NO_DRIFT, "steady")
    assert abs(report.columns["e"].numbers["auc"] - 0.5) < 0.03


def test_too_few_vectors_say_nothing(reference):
    report = check(reference, counted(texts(1000, np.random.default_rng(3)), reference))
    assert (report.verdict, report.reason) == (Verdict.INSUFFICIENT, "too_few_rows")
    assert report.rows["needed"] == rows_needed(reference, DriftPolicy())
    enough = counted(texts(report.rows["needed"], np.random.default_rng(4)), reference)
    assert check(reference, enough).verdict is Verdict.NO_DRIFT


@pytest.mark.parametrize(("n", "m"), [(2000, 60), (1000, 300), (400, 400)])
def test_false_alarms_are_as_many_as_are_allowed(n, m):
    """200 pairs without drift: of their p, those under .05 are not more than chance allows (.975 quantile: 17)."""
    random = np.random.default_rng(n)
    low = 0
    for _ in range(200):
        before = counted(texts(n, random))
        now = counted(texts(m, random), before)
        sides = before.columns["e"].vectors, now.columns["e"].vectors
        low += min(1.0, 2 * min(vectors.mmd_p(*sides)[1], vectors.classifier(*sides)[1])) < 0.05
    assert low <= 17


def test_days_that_differ_are_learnt_from_the_blocks_of_the_reference():
    """Topics come and go from day to day: with rows taken as independent most windows alarm, and here next to none."""
    random = np.random.default_rng(5)

    def weeks(first, count):
        parts = [texts(60, random, weights=random.dirichlet([3] * 8)) for _ in range(7 * count)]
        at = [ORIGIN + timedelta(days=7 * first, minutes=24 * i) for i in range(420 * count)]
        return {"values": np.concatenate(parts), "at": pa.array(at)}

    before = counted(**weeks(0, 16))
    reports = [
        check(before, counted(layout=before, **weeks(16, 1)), DriftPolicy(false_alarms_per_30_days=1.5))
        for _ in range(40)
    ]
    assert {report.variation for report in reports} == {Variation.KNOWN}
    assert sum(report.plain_alarm for report in reports) >= 25
    assert sum(report.drifted for report in reports) <= 4  # of 40 at .05


def test_parts_merge_to_the_whole_exactly_and_are_read_back(reference):
    values = texts(9001, np.random.default_rng(6))
    whole = counted(values, reference)
    parts = [counted(values[cut], reference) for cut in (slice(17), slice(17, 5000), slice(5000, None))]
    assert parts[0].merge(parts[1].merge(parts[2])) == parts[2].merge(parts[0]).merge(parts[1]) == whole
    assert DataProfile.from_json(reference.to_json()) == reference
    assert len(reference.to_json()) < 120_000
    assert 0.45 < reference.columns["e"].vectors.halves[0] / reference.rows < 0.55


def test_what_is_no_vector_of_that_length_is_told_apart(reference):
    good = texts(60, np.random.default_rng(7)).tolist()
    bad = [None, [1.0], [*good[0][:-1], float("nan")], [*good[0][:-1], None]]
    found = counted(pa.array(good + bad, pa.list_(pa.float64())), reference).columns["e"]
    assert (found.rows, found.null, found.unparsed, found.vectors.rows) == (64, 1, 3, 60)
    violated = check(reference, counted(pa.array(good + bad * 10, pa.list_(pa.float32())), reference))
    assert (violated.verdict, violated.reason) == (Verdict.BAD_DATA, "unparsed_values")
    longer = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(100 * 7, np.float32)), 7)
    assert check(reference, counted(longer, reference)).verdict is Verdict.BAD_DATA


@pytest.mark.parametrize("values", [[None, None], [[], []]])
def test_a_column_without_vectors_has_nothing_to_compare(values):
    array = pa.array(values * 50, pa.list_(pa.float32()))
    before = counted(array)
    assert before.columns["e"].family is Family.VECTOR
    now = counted(array, before)
    assert check(before, now).columns["e"].reason == "no_values"


def test_a_profile_of_the_first_form_still_reads_such_a_column(reference):
    values = reference.to_dict()
    values["schema"] = 1
    values["columns"]["e"] |= {"family": "other"}
    for name in ("vectors", "texts"):
        del values["columns"]["e"][name]
    old = DataProfile.from_json(json.dumps(values))
    report = check(old, counted(texts(100, np.random.default_rng(8)), old))
    assert report.columns["e"].reason == "other_column"


def test_files_of_embeddings_are_compared_and_a_database_says_that_it_cannot(tmp_path):
    random = np.random.default_rng(9)
    for name, shift in (("before", 0.0), ("now", 1.0)):
        table = pa.table({"e": column(texts(4000, random, shift=shift)), "x": random.normal(size=4000)})
        pq.write_table(table, tmp_path / f"{name}.parquet", row_group_size=900)
    engine = EmbeddedEngine()
    reference = engine.reference(DataRef(str(tmp_path / "before.parquet")))
    report = check(reference, engine.window(DataRef(str(tmp_path / "now.parquet")), layout=reference))
    assert report.top_columns == ("e",)
    file = str(tmp_path / "data.duckdb")
    with duckdb.connect(file) as connection:
        connection.execute("CREATE TABLE now AS SELECT [x, x] AS e, x FROM (SELECT random() AS x FROM range(90))")
    database = SqlEngine(lambda: duckdb.connect(file, read_only=True), "duckdb")
    now = DataRef(table="now", conn_id="warehouse")
    with pytest.raises(ConfigError, match="column 'e' holds embeddings, which are compared in files only"):
        database.window(now, layout=reference)
    alone = database.reference(now)
    assert "(embeddings are, in files)" in check(alone, database.window(now, layout=alone)).columns["e"].sentence


def test_the_report_shows_how_far_the_vectors_lie_from_the_reference(reference):
    now = counted(texts(8000, np.random.default_rng(2), shift=0.5), reference)
    page = html(check(reference, now), reference, now, title="now")
    assert 'aria-label="e: distance between mean features. The mean features of both sides are 0.' in page
    assert "current data</text>" in page
    assert "time blocks</text>" not in page  # it has none


def test_the_report_shows_the_distances_of_the_time_blocks():
    random = np.random.default_rng(7)
    at = pa.array([ORIGIN + timedelta(days=7 * i / 500) for i in range(8 * 500)])
    before = counted(texts(8 * 500, random), at=at)
    page = html(check(before, before), before, before, title="now")
    assert "time blocks</text>" in page
    assert "Each of the reference&#x27;s 8 time blocks is 0." in page
