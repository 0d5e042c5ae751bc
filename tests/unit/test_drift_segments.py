"""Segments: the rows of each value of a column, judged on their own under one budget of false alarms."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.drift.check import DriftPolicy, Variation, Verdict, check
from airflow_provider_mlops.drift.layout import choose_layout, without_identifiers
from airflow_provider_mlops.drift.profile import DataProfile, ProfileBuilder
from airflow_provider_mlops.drift.report import html, lines
from airflow_provider_mlops.drift.selection import select_columns
from airflow_provider_mlops.errors import ConfigError

ORIGIN = datetime(2026, 1, 5, tzinfo=UTC)
COUNTRIES = ("NO", "SE", "DK", "FI")


def rows(count, *, seed=0, moved=None, by=1.0, countries=COUNTRIES, first=0, days=None):
    """Return rows; in those of the country *moved* the amounts are larger."""
    random = np.random.default_rng(seed)
    country = random.choice(countries, count)
    amount = random.normal(size=count) + np.where(country == moved, by, 0.0)
    columns = {"amount": amount, "steady": random.normal(size=count), "country": pa.array(country)}
    if days is not None:
        seconds = np.sort(random.integers(0, days * 86_400, count))
        columns["at"] = pa.array([ORIGIN + timedelta(days=first, seconds=int(second)) for second in seconds])
    return pa.record_batch(columns)


def reference_of(batch, segment="country", **options):
    return without_identifiers(counted(batch, choose_layout(batch, segment=segment, **options)))


def counted(batch, layout):
    builder = ProfileBuilder(layout)
    builder.add(batch)
    return builder.profile()


@pytest.fixture(scope="module")
def reference():
    return reference_of(rows(40_000))


def test_drift_in_one_segment_is_found_and_named(reference):
    report = check(reference, counted(rows(20_000, seed=1, moved="DK", by=0.19), reference))
    assert report.columns["amount"].verdict is Verdict.NO_DRIFT
    assert (report.verdict, report.reason, report.top_columns) == (Verdict.DRIFT, "variation_unknown", ("amount",))
    assert [value for value, part in report.segments.items() if part.drifted] == ["DK"]
    assert "1 of 4 segments by 'country' drifted; 'DK': 1 of 2 columns drifted. 'amount' moved by 0." in report.sentence
    assert report.to_dict()["segments"][list(report.segments).index("DK")]["value"] == "DK"


def test_drift_everywhere_is_drift_of_the_whole_and_of_every_segment(reference):
    moved = counted(rows(20_000, seed=1), reference)
    batch = rows(20_000, seed=1)
    batch = batch.set_column(0, "amount", pa.array(batch["amount"].to_numpy() + 0.5))
    moved = counted(batch, reference)
    report = check(reference, moved)
    assert report.verdict is Verdict.DRIFT
    assert report.sentence.endswith("So did 4 of 4 segments by 'country'.")
    assert all(part.drifted for part in report.segments.values())


def test_quiet_windows_stay_quiet_over_all_segments(reference):
    policy = DriftPolicy(false_alarms_per_30_days=6)  # alpha .2, so that 60 windows show it
    alarms = sum(check(reference, counted(rows(8000, seed=seed), reference), policy).drifted for seed in range(10, 70))
    assert alarms <= 18  # the .95 quantile at .2


def test_all_tests_of_all_segments_share_one_correction(reference):
    whole = reference_of(rows(40_000), segment=None)
    report = check(reference, counted(rows(800, seed=1), reference))
    alone = check(whole, counted(rows(800, seed=1), whole))
    assert report.tests == alone.tests + 4 * 4  # two numbers, two tests each, in each of four segments
    assert report.columns["amount"].p == alone.columns["amount"].p
    assert report.columns["amount"].limit > alone.columns["amount"].limit


def test_a_segment_with_few_rows_says_so_and_changes_nothing(reference):
    few = rows(20_000, seed=2, countries=("NO", "SE", "DK"))
    report = check(reference, counted(few, reference))
    assert report.segments["FI"].verdict is Verdict.NO_DATA
    assert "country" in report.top_columns  # that Finland is gone is a change of the column itself
    quiet = check(reference, counted(rows(20_000, seed=2), reference), DriftPolicy(min_rows=5100))
    assert quiet.verdict is Verdict.NO_DRIFT
    assert "Nor did any of 4 segments by 'country'." in quiet.sentence
    assert " of them hold too few rows to tell." in quiet.sentence


def test_the_most_frequent_values_have_a_segment_and_all_others_share_one():
    random = np.random.default_rng(0)
    codes = pa.array([None if v > 30 else int(v) for v in random.zipf(1.3, 20_000)], pa.int64())
    batch = pa.record_batch({"x": random.normal(size=20_000), "code": codes})
    found = reference_of(batch, "code").segments
    assert list(found.profiles)[:3] == ["1", "2", "3"]
    assert len(found.values) == 10
    assert sum(part.rows for part in found.profiles.values()) == 20_000
    now = counted(pa.record_batch({"x": [1.0, 2.0], "code": [2, 77]}), reference_of(batch, "code")).segments.profiles
    assert (now["2"].rows, now[None].rows, now["1"].rows) == (1, 1, 0)


def test_natural_variation_is_learnt_within_each_segment():
    timed = {"timestamp": "at", "block": timedelta(days=7), "origin": ORIGIN}
    reference = reference_of(rows(24_000, days=84), **timed)
    moved = counted(rows(6000, seed=1, moved="SE", by=0.6, first=84, days=7), reference)
    report = check(reference, moved)
    assert (report.verdict, report.variation) == (Verdict.DRIFT, Variation.KNOWN)
    assert report.segments["SE"].variation is Variation.KNOWN
    assert report.segments["SE"].drifted


def test_the_time_before_the_window_is_cut_alike(reference):
    before = counted(rows(20_000, seed=1), reference)
    now = counted(rows(20_000, seed=2, moved="NO"), reference)
    report = check(reference, now, trailing=before)
    assert report.segments["NO"].columns["amount"].numbers["change"] == "sudden"


def test_segments_merge_and_are_read_back(reference):
    batch = rows(2000, seed=3)
    whole = counted(batch, reference)
    parts = [counted(batch.slice(0, 700), reference), counted(batch.slice(700), reference)]
    merged = parts[0].merge(parts[1])
    for value, part in whole.segments.profiles.items():
        assert merged.segments.profiles[value].rows == part.rows
        assert (
            merged.segments.profiles[value].columns["amount"].numbers.counts.tolist()
            == part.columns["amount"].numbers.counts.tolist()
        )
    assert DataProfile.from_json(reference.to_json()) == reference
    with pytest.raises(ConfigError, match="different segments cannot be merged"):
        whole.merge(counted(batch, reference_of(rows(40_000), segment=None)))


def test_chosen_columns_are_chosen_in_the_segments_too(reference):
    chosen = select_columns(reference, columns=["amount"])
    assert {tuple(part.columns) for part in chosen.segments.profiles.values()} == {("amount",)}
    report = check(chosen, counted(rows(20_000, seed=1, moved="DK"), chosen))
    assert report.segments["DK"].drifted


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ("contry", r"segment: 'contry' is no column of the reference\. Did you mean 'country'\?"),
        ("at", r"segment: 'at' holds time\. Name a column of text, booleans or numbers\."),
    ],
)
def test_only_values_make_segments(segment, message):
    with pytest.raises(ConfigError, match=message):
        choose_layout(rows(10, days=1), segment=segment)


def test_a_csv_is_cut_like_a_typed_file_and_by_a_column_that_is_not_judged(tmp_path):
    table = pa.Table.from_batches([rows(4000)]).append_column("store", pa.array(np.arange(4000) % 3))
    csv.write_csv(table, tmp_path / "rows.csv")
    data = DataRef(str(tmp_path / "rows.csv"), columns=("amount",))
    engine = EmbeddedEngine()
    reference = engine.reference(data, segment="store")
    assert list(reference.columns) == ["amount"]
    now = engine.window(data, layout=reference)
    assert {value: part.rows for value, part in now.segments.profiles.items()} == {"0": 1334, "1": 1333, "2": 1333}
    assert check(reference, now).verdict is not Verdict.BAD_DATA


def test_the_report_shows_which_segment_drifted(reference):
    current = counted(rows(20_000, seed=1, moved="DK", by=0.19), reference)
    report = check(reference, current)
    page = html(report, reference, current, title="rain")
    assert '<article id="s0" class="drift"><h3>' in page
    assert "<span>amount, DK</span>" in page
    assert "<h2>Segments by country <small>1 of 4 drifted</small></h2>" in page
    assert page.index('<th scope="row">DK</th>') < page.index('<th scope="row">NO</th>')
    assert any(line.startswith("country = DK: drift. ") for line in lines(report))


def test_a_profile_stays_at_a_few_megabytes_whatever_it_is_of():
    """50 columns of up to 10,000 values, more days than are kept, eleven segments."""
    random = np.random.default_rng(0)
    count = 20_000
    columns = {f"n{i}": random.normal(size=count) for i in range(35)}
    columns |= {f"c{i}": pa.array(random.integers(0, 10_000, count).astype(str)).dictionary_encode() for i in range(2)}
    columns |= {
        f"d{i}": pa.array(random.zipf(1.5, count).clip(0, 300).astype(str)).dictionary_encode() for i in range(13)
    }
    columns["store"] = random.integers(0, 30, count)
    seconds = np.sort(random.integers(0, 100 * 86_400, count)) * 1_000_000
    columns["at"] = pa.array(seconds, pa.timestamp("us"))
    batch = pa.record_batch(columns)
    timed = {"timestamp": "at", "block": timedelta(days=1), "origin": datetime(1970, 1, 1)}
    reference = reference_of(batch, "store", **timed)
    assert reference.rows == sum(part.rows for part in reference.segments.profiles.values()) == count
    assert 12 <= len(reference.blocks) < 100
    assert len(reference.full_blocks()) == len(reference.blocks)
    assert len(reference.to_json()) < 6_000_000
