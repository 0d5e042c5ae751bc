"""The whole training DAG of the first template in Airflow's own test runner, on made weather of a few years."""

from __future__ import annotations

import datetime as dt
import re
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
from leftovers import users_of
from pyarrow import parquet

from airflow_provider_mlops.hooks.journal import JournalHook
from airflow_provider_mlops.hooks.mlflow import MlflowHook
from airflow_provider_mlops.journal import model_stream, verify

TEMPLATES = Path(__file__).parents[2] / "dags"
START = dt.date(2020, 1, 1)
DAYS = 4 * 365
TURN = 2 * 365  # from here on another reading tells of rain
COLUMNS = ("dew point", "humidity", "pressure")


def weather():
    """
    Four years of five readings a day.

    At first humidity tells whether it rains, after the turn pressure does. All else stays the same.
    """
    random = np.random.default_rng(3)
    day = np.repeat(np.arange(DAYS), 5)
    readings = {name: random.normal(0, 1, len(day)) for name in COLUMNS}
    tells = np.where(day < TURN, readings["humidity"], readings["pressure"])
    days = pa.array([START + dt.timedelta(days=int(number)) for number in day], pa.date32())
    return pa.table({"day": days, **readings, "rain": (tells + random.normal(0, 0.5, len(day)) > 0).astype(int)})


def template(**replaced):
    """The template's file, with the spans that four years need, and a shorter canary."""
    text = (TEMPLATES / "rain_forecast.yaml").read_text()
    for before, after in {
        "train_on: 3650d": "train_on: 365d",
        "window: 365d": "window: 120d",
        "exclude: [visibility, average wind speed, max sustained wind-speed]": "exclude: []",
        "max_iter: 100": "max_iter: 30",
        "weights_percent: [10, 50]": "weights_percent: [50]",
        "min_requests_per_step: 150": "min_requests_per_step: 50",
        **replaced,
    }.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def on(day):
    return {"as_of": f"{START + dt.timedelta(days=day)}T00:00:00Z"}


class Client:
    """Somebody who keeps asking, as fast as it is answered, and notes what came back."""

    def __init__(self, endpoint):
        self.versions, self.failed = [], 0
        self._endpoint = endpoint
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self):
        row = {"dataframe_records": [dict.fromkeys(COLUMNS, 0.5)]}
        with httpx.Client(trust_env=False, timeout=30) as client:
            number = 0
            while not self._ended.is_set():
                number += 1
                answer = client.post(self._endpoint, json=row, headers={"X-Client-Id": str(number % 500)})
                self.failed += answer.status_code != 200
                self.versions.append(answer.headers.get("x-model-version"))
                time.sleep(0.005)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()


def until(holds):
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)


def test_the_template_trains_promotes_serves_refuses_and_replaces(run_dag, connection, storage, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__TARGET", "demo")
    (run_dag.folder / "data" / "rain").mkdir(parents=True)
    parquet.write_table(weather(), run_dag.folder / "data" / "rain" / "days.parquet")
    files = {name: (TEMPLATES / name).read_text() for name in ("rain_forecast.py", "rain_forecast_train.py")}
    registry = MlflowHook().registry

    # The first model is judged on absolute rules only, promoted and served.
    first = run_dag("rain_forecast__train", {**files, "rain_forecast.yaml": template()}, on(TURN - 1))
    assert first.state == "success", first.tasks
    assert set(first.tasks.values()) == {"success"}
    assert len(first.tasks) == 10
    assert first.results["data.snapshot"]["evaluation_rows"] == 5 * 121  # both ends of 120 days
    gate = first.results["training.evaluate"]
    assert (gate["verdict"], gate["champion"]) == ("passed", None)
    assert first.results["release.promote"] == {
        "model": "rain_forecast", "version": "1", "previous": None, "changed": True,
    }  # fmt: skip
    assert registry.version_of("rain_forecast", alias="champion") == "1"
    endpoint = first.results["serving.deploy"]["endpoint"]
    answer = httpx.post(
        endpoint, json={"dataframe_records": [dict.fromkeys(COLUMNS, 1.0)]}, timeout=30, trust_env=False
    )
    assert answer.status_code == 200
    assert answer.json()["predictions"][0][1] > 0.5  # much humidity: rain
    assert answer.headers["x-model-version"] == "1"

    # A window like those of the training: nothing to do.
    quiet = run_dag("rain_forecast__monitor", conf=on(TURN - 1))
    assert quiet.results["check"]["verdict"] == "no_drift", quiet.results
    assert quiet.results["decide"]["verdict"] == "wait"
    assert quiet.tasks == {"check": "success", "decide": "success", "retrain": "skipped"}

    # A silly hyperparameter, from the form: refused, and everything stays as it is.
    key = "train.hyperparameters.learning_rate"
    silly = run_dag("rain_forecast__train", conf={**on(TURN - 1), key: 25.0})
    gate = silly.results["training.evaluate"]
    assert (silly.state, gate["verdict"], gate["champion"]) == ("success", "refused", "1")
    assert gate["reason"] == "below_absolute", gate
    assert re.search(r"roc_auc is 0\.[0-5]", gate["sentence"]), gate["sentence"]  # by the release of scikit-learn
    assert {task for task, state in silly.tasks.items() if state == "skipped"} == {
        "release.register", "release.smoke_test", "release.promote", "serving.deploy",
    }  # fmt: skip
    assert registry.version_of("rain_forecast", alias="champion") == "1"
    assert [version.version for version in registry.versions("rain_forecast")] == ["1"]

    # After the turn the champion is worth nothing; a better one takes over while a client keeps asking.
    with Client(endpoint) as client:
        better = run_dag("rain_forecast__train", conf=on(DAYS - 1))
        asked = len(client.versions)
        until(lambda: len(client.versions) > asked + 1)
    gate = better.results["training.evaluate"]
    assert (better.state, gate["verdict"], gate["champion"]) == ("success", "passed", "1"), better
    assert better.results["release.promote"]["previous"] == "1"
    assert better.results["serving.deploy"]["endpoint"] == endpoint
    assert registry.version_of("rain_forecast", alias="champion") == "2"
    assert client.failed == 0
    assert client.versions[0] == "1"
    assert client.versions[-1] == "2"

    entries = JournalHook().journal.read(model_stream("rain_forecast"))
    assert verify(entries) == []
    told = [entry.record.kind for entry in entries]
    assert told.count("training.finished") == 3
    assert told.count("gate.decided") == 3
    assert told.count("promotion.done") == 2

    def servers():
        return [one for one in users_of(storage) if "airflow_provider_mlops.serving " in one]

    until(lambda: len(servers()) == 1)  # the old version finishes its answers before it ends
    assert "--version 2" in servers()[0]


def test_mlops_try_runs_the_smallest_example_within_a_minute(tmp_path):
    from sklearn.datasets import load_breast_cancer

    for name in ("minimal.yaml", "minimal_train.py"):
        (tmp_path / name).write_text((TEMPLATES / name).read_text())
    (tmp_path / "data").mkdir()
    load_breast_cancer(as_frame=True).frame.to_parquet(tmp_path / "data" / "tumors.parquet")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    tried = subprocess.run(
        [sys.executable, "-m", "airflow_provider_mlops.cli.main", "try", "minimal.yaml", "--folder", "trial"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert tried.returncode == 0, tried.stdout + tried.stderr
    assert "PASSED in " in tried.stdout
    assert re.search(r"version   1 of minimal, run [0-9a-f]{32}", tried.stdout)
    # Of the processor's, which other programs on the machine do not stretch: on an idle one it ends sooner.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60
    assert users_of(tmp_path) == []
