"""``mlops drift`` and ``python -m airflow_provider_mlops.drift``: one command, two names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.cli.drift import main as drift
from airflow_provider_mlops.cli.main import main as mlops
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.drift.profile import DataProfile
from fakes.model_server import served

START = datetime(2026, 1, 1)


def write(file, count, *, shift=0.0, start=START, drop=(), seed=0):
    random = np.random.default_rng(seed)
    table = pa.table(
        {
            "at": [start + timedelta(minutes=15 * i) for i in range(count)],
            "amount": random.normal(shift, 1, count),
            "steady": random.normal(0, 1, count),
            "color": random.choice(["red", "green"], count),
        }
    )
    pq.write_table(table.drop_columns(list(drop)), file)
    return str(file)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    quarter = START + timedelta(days=90)
    return {
        "reference": write(folder / "reference.parquet", 20_000),
        "quiet": write(folder / "quiet.parquet", 9000, seed=1, start=quarter),
        "moved": write(folder / "moved.parquet", 9000, shift=0.5, seed=2, start=quarter),
        "broken": write(folder / "broken.parquet", 9000, seed=3, drop=["steady"]),
    }


def call(capsys, *arguments):
    code = drift([str(argument) for argument in arguments], prog="drift")
    return code, *capsys.readouterr()


def test_the_answer_for_a_person_is_a_sentence_and_a_table(data, capsys):
    code, out, err = call(capsys, data["reference"], data["moved"], "--time", "at")
    assert (code, err) == (0, "")
    sentence, blank, titles, first, *_ = out.splitlines()
    assert sentence.startswith("1 of 3 columns drifted. 'amount' moved by 0.")
    assert blank == ""
    assert " ".join(titles.split()) == "column verdict change 95% interval limit p adjusted reason"
    assert first.split()[:2] == ["amount", "drift"]


def test_json_is_the_report_and_nothing_else(data, capsys):
    code, out, _ = call(capsys, data["reference"], data["moved"], "--time", "at", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["verdict"] == "drift"
    assert report["rows"] == {"reference": 20_000, "current": 9000, "needed": None}
    column = report["columns"]["amount"]
    assert {"verdict", "reason", "effect", "effect_low", "effect_high", "p", "p_adjusted"} <= set(column)
    assert column["effect_low"] <= column["effect"] <= column["effect_high"]


@pytest.mark.parametrize(
    ("current", "flags", "code"),
    [
        ("quiet", ["--fail-on-drift"], 0),
        ("moved", [], 0),
        ("moved", ["--fail-on-drift"], 1),
        ("broken", [], 0),
        ("broken", ["--fail-on-drift"], 1),
    ],
)
def test_the_exit_code_tells_drift_only_when_asked(data, capsys, current, flags, code):
    assert call(capsys, data["reference"], data[current], "--time", "at", *flags)[0] == code


def test_both_names_run_the_same_command(data, capsys):
    expected = call(capsys, data["reference"], data["moved"], "--time", "at")[1]
    assert mlops(["drift", data["reference"], data["moved"], "--timestamp", "at"]) == 0
    assert capsys.readouterr().out == expected


def test_a_stored_profile_gives_the_same_answer_as_its_data(data, capsys, tmp_path):
    profile = tmp_path / "below" / "profile.json"
    arguments = [data["moved"], "--time", "at", "--json"]
    from_data = call(capsys, data["reference"], *arguments, "--save-profile", profile)[1]
    assert DataProfile.from_json(profile.read_text()).rows == 20_000
    assert [file.name for file in profile.parent.iterdir()] == ["profile.json"]
    assert call(capsys, profile, *arguments)[1] == from_data


def test_the_stored_profile_knows_the_time_column_and_the_block(data, capsys, tmp_path):
    profile = tmp_path / "profile.json"
    window = ["--window", "14d", "--json"]
    first = call(capsys, data["reference"], data["moved"], "--time", "at", *window, "--save-profile", profile)[1]
    second = call(capsys, profile, data["moved"], *window)[1]
    assert first == second
    report = json.loads(first)
    assert report["variation"] == "known"
    assert report["rows"]["current"] == 14 * 24 * 4


def test_columns_and_exclude_choose_what_is_judged(data, capsys, tmp_path):
    profile = tmp_path / "profile.json"
    call(capsys, data["reference"], data["moved"], "--time", "at", "--save-profile", profile)
    for reference in (data["reference"], profile):
        base = (reference, data["moved"], "--time", "at", "--json")
        only = json.loads(call(capsys, *base, "--columns", "steady", "color")[1])
        assert set(only["columns"]) == {"steady", "color"}
        assert only["verdict"] == "no_drift"
        without = json.loads(call(capsys, *base, "--exclude", "amount")[1])
        assert set(without["columns"]) == {"steady", "color"}
        assert without["verdict"] == "no_drift"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--ignore-shift-below", "0.5"], "no_drift"),
        (["--min-rows", "10000"], "no_data"),
    ],
)
def test_the_policy_is_what_the_flags_say(data, capsys, flags, expected):
    out = call(capsys, data["reference"], data["moved"], "--time", "at", "--json", *flags)[1]
    assert json.loads(out)["verdict"] == expected


def test_false_alarms_and_checks_set_alpha(data, capsys):
    flags = ["--false-alarms-per-30-days", "3", "--checks-per-day", "10"]
    out = call(capsys, data["reference"], data["quiet"], "--time", "at", "--json", *flags)[1]
    assert json.loads(out)["alpha"] == pytest.approx(3 / 300)


def test_of_large_parquet_a_part_is_read_and_the_sentence_says_so(data, capsys, tmp_path):
    large = str(tmp_path / "large.parquet")
    pq.write_table(pa.concat_tables([pq.read_table(data["quiet"])] * 20), large, row_group_size=3000)
    found = json.loads(call(capsys, data["reference"], large, "--json", "--max-rows", "10000")[1])
    assert found["notes"][-1] == "sampled"
    assert found["rows"]["current"] < found["rows"]["current_of"] == 20 * 9000
    assert found["rows"]["reference_of"] is None or found["rows"]["reference"] < found["rows"]["reference_of"]
    assert " rows were read." in found["sentence"]
    few = json.loads(call(capsys, data["reference"], large, "--json", "--max-rows", "1")[1])
    assert few["verdict"] == found["verdict"]  # as many as the smallest change takes are read in any case


def test_the_time_before_the_window_is_a_second_reference(data, capsys):
    moved = ("--time", "at", "--window", "2d", "--json")
    alone, both = (
        json.loads(call(capsys, data["reference"], data["moved"], *moved, *more)[1])
        for more in ((), ("--trailing", "3d"))
    )
    assert both["tests"] == 2 * alone["tests"]
    assert {column["numbers"]["change"] for column in both["columns"].values() if column["verdict"] == "drift"} == {
        "gradual"
    }


def test_what_a_model_was_asked_is_judged_in_place_of_data(data, capsys, tmp_path):
    stored = tmp_path / "reference.json"
    call(capsys, data["reference"], data["quiet"], "--time", "at", "--save-profile", stored)
    layout = DataProfile.from_json(stored.read_text())
    asked = EmbeddedEngine().window(DataRef(data["moved"]), layout=layout)
    page = tmp_path / "report.html"
    with served(asked.to_json()) as first, served(asked.to_json()) as second:
        code, out, err = call(capsys, stored, "--served-by", first, second, "--json", "--html", page)
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["top_columns"], report["rows"]["current"]) == (["amount"], 18_000)
    assert f"{first}, {second} against" in page.read_text()


def test_html_is_written_whole(data, capsys, tmp_path):
    page = tmp_path / "report.html"
    assert call(capsys, data["reference"], data["moved"], "--time", "at", "--html", page)[0] == 0
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert text.endswith("</html>")
    assert "moved.parquet against" in text
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def damaged(folder):
    file = folder / "damaged.json"
    file.write_text("{")
    return file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda data, folder: [data["reference"], folder / "nothing.parquet"], r"nothing\.parquet' is no file"),
        (lambda data, folder: [folder / "nothing.json", data["quiet"]], r"nothing\.json cannot be read"),
        (lambda data, folder: [damaged(folder), data["quiet"]], "is no JSON"),
        (lambda data, folder: [data["reference"], data["quiet"], "--window", "7d"], "--window needs --time"),
        (lambda data, folder: [data["reference"], data["quiet"], "--trailing", "7d"], "--trailing needs --window"),
        (lambda data, folder: [data["reference"]], "Name the data to judge, CURRENT, or the servers"),
        (
            lambda data, folder: [data["reference"], "--served-by", "http://127.0.0.1:1", "--max-rows", "9"],
            "--max-rows goes without --served-by",
        ),
        (lambda data, folder: [data["reference"], data["quiet"], "--max-rows", "-1"], "max_rows: expected"),
        (lambda data, folder: [data["reference"], data["quiet"], "--time", "att"], "'att'.*Did you mean 'at'"),
        (
            lambda data, folder: [data["reference"], data["quiet"], "--window", "7", "--time", "at"],
            "'7' is no duration",
        ),
        (lambda data, folder: [data["reference"], data["quiet"], "--ignore-shift-below", "5"], "between 0 and 1"),
        (lambda data, folder: [data["reference"], data["quiet"], "--html", "/proc/nothing/x"], "cannot be written"),
        (lambda data, folder: [data["reference"], data["quiet"], "--columns", "amuont"], "amuont"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(data, capsys, tmp_path, arguments, message):
    code, out, err = call(capsys, *arguments(data, tmp_path))
    assert code == 2
    assert out == ""
    assert err.startswith("mlops: error: ")
    assert err.count("\n") == 1
    assert re.search(message, err), err


def test_a_missing_argument_is_told_with_the_usage(capsys):
    with pytest.raises(SystemExit) as left:
        drift([], prog="python -m airflow_provider_mlops.drift")
    assert left.value.code == 2
    assert "the following arguments are required: REFERENCE" in capsys.readouterr().err


HEAVY = {"scipy.stats", "pandas", "pydantic", "airflow", "mlflow", "sklearn", "sqlalchemy"}


def loaded(*arguments):
    """Run the module in a fresh process as a user starts it; return which heavy libraries it loaded and its code."""
    probe = (
        "import runpy, sys\n"
        "before = set(sys.modules)\n"
        f"sys.argv = ['drift', *{list(map(str, arguments))!r}]\n"
        "try:\n"
        "    runpy.run_module('airflow_provider_mlops.drift', run_name='__main__')\n"
        "except SystemExit as left:\n"
        "    code = left.code\n"
        f"heavy = {HEAVY | {'pyarrow.dataset', 'pyarrow.compute'}!r} & set(sys.modules) - before\n"
        "print('LOADED', code, *sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120)
    code, *heavy = done.stdout.splitlines()[-1].removeprefix("LOADED ").split()
    return set(heavy), int(code)


def test_as_a_module_it_loads_nothing_heavy(data, tmp_path):
    page = tmp_path / "r.html"
    heavy, code = loaded(data["reference"], data["moved"], "--time", "at", "--html", page, "--fail-on-drift")
    assert (heavy & HEAVY, code) == (set(), 1)


def test_a_stored_reference_needs_no_more_of_pyarrow_than_the_files_take(data, tmp_path):
    stored = tmp_path / "stored.json"
    assert loaded(data["reference"], data["quiet"], "--exclude", "at", "--save-profile", stored)[1] == 0
    assert loaded(stored, data["quiet"], "--json") == (set(), 0)
