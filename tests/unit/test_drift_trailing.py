"""Two references at once: the training data, and the time just before the window."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from airflow_provider_mlops.drift.check import DriftPolicy, Variation, Verdict, check
from airflow_provider_mlops.drift.layout import choose_layout
from airflow_provider_mlops.drift.profile import ProfileBuilder
from airflow_provider_mlops.errors import ConfigError

ORIGIN = datetime(2026, 1, 1, tzinfo=UTC)
WEEK, ROWS = timedelta(weeks=1), 2000
POLICY = DriftPolicy(false_alarms_per_30_days=0.3)  # alpha .01


def batch(shifts, seed, *, wobble=0.0):
    """Return one week per shift, of a number and a text."""
    rng, weeks = np.random.default_rng(seed), len(shifts)
    level = np.repeat(np.asarray(shifts) + wobble * rng.normal(size=weeks), ROWS)
    at = np.datetime64("2026-01-01", "us") + (np.arange(weeks * ROWS) * 300_000_000).astype("timedelta64[us]")
    return pa.record_batch(
        {
            "x": rng.normal(size=level.size) + level,
            "c": pa.array(np.where(rng.normal(size=level.size) + level > 0, "up", "down")),
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
        }
    )


def count(layout, rows):
    builder = ProfileBuilder(layout)
    builder.add(rows)
    return builder.profile()


def reference_of(shifts=(0.0,) * 12, seed=0, **options):
    rows = batch(shifts, seed, **options)
    layout = choose_layout(rows, timestamp="at", block=timedelta(minutes=5 * ROWS), origin=ORIGIN)
    return count(layout, rows)


def part(reference, shifts, seed, **options):
    return count(reference.without_counts(blocks=False), batch(shifts, seed, **options))


@pytest.mark.parametrize(
    ("before", "now", "verdict", "change"),
    [
        ([0.0] * 4, 0.0, Verdict.INSUFFICIENT, None),
        ([0.0] * 4, 0.6, Verdict.DRIFT, "sudden"),
        ([0.6] * 4, 0.6, Verdict.DRIFT, "gradual"),
        ([0.6] * 4, 0.0, Verdict.DRIFT, "recent"),
    ],
    ids=["quiet", "sudden", "gradual", "back to what it was"],
)
def test_the_time_just_before_tells_how_a_change_came(before, now, verdict, change):
    reference = reference_of()
    report = check(reference, part(reference, [now], 1), POLICY, trailing=part(reference, before, 2))
    assert report.verdict is verdict
    assert report.variation is Variation.KNOWN
    for column in report.columns.values():
        assert column.numbers["change"] == change
        assert {"sudden": "suddenly", "gradual": "gradually", "recent": "against the time just before"}.get(
            change, ""
        ) in column.sentence
        assert (column.numbers["trailing_effect"] > 0.15) is (change in {"sudden", "recent"})


def test_a_change_that_the_long_reference_would_still_forgive_is_seen_against_the_time_before():
    reference = reference_of([-0.1, 0.1] * 6)
    now, before = part(reference, [0.5], 1), part(reference, [-0.5] * 20, 2)
    assert not check(reference, now, POLICY).drifted
    report = check(reference, now, POLICY, trailing=before)
    assert report.drifted
    assert report.columns["x"].numbers["change"] == "recent"


def test_two_references_are_twice_the_tests_and_one_is_as_before():
    reference = reference_of()
    now, before = part(reference, [0.1], 1), part(reference, [0.1] * 4, 2)
    alone, both = check(reference, now, POLICY), check(reference, now, POLICY, trailing=before)
    assert both.tests == 2 * alone.tests
    for name, column in alone.columns.items():
        assert "change" not in column.numbers
        assert both.columns[name].p_adjusted >= column.p_adjusted
        assert both.columns[name].effect == column.effect
    assert both.plain_columns == alone.plain_columns


def test_a_trailing_window_without_rows_finds_nothing():
    reference = reference_of()
    now, empty = part(reference, [0.6], 1), reference.without_counts(blocks=False)
    report = check(reference, now, POLICY, trailing=empty)
    assert report.drifted
    assert report.tests == 2 * check(reference, now, POLICY).tests


def test_weeks_that_differ_by_themselves_alarm_no_more_with_two_references():
    alarms = 0
    for seed in range(60):
        reference = reference_of(seed=3 * seed, wobble=0.2)
        now, before = (part(reference, [0.0] * n, 3 * seed + n, wobble=0.2) for n in (1, 2))
        alarms += check(reference, now, DriftPolicy(), trailing=before).drifted
    assert alarms <= 5  # alpha .033


def test_a_trailing_window_on_other_bins_is_a_mistake():
    reference = reference_of()
    other = reference_of(seed=9)
    with pytest.raises(ConfigError, match="of the trailing window was not counted on the reference's bins"):
        check(reference, part(reference, [0.0], 1), trailing=replace(other, block=None, origin=None))
