"""DataDriftSensor: looks once per version of the data, waits in the triggerer, and gives up when it said it would."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import (
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferralTimeout,
    TaskDeferred,
)
from airflow.sdk.module_loading import import_string
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.adapters.fingerprint import fingerprint
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.errors import DataError, ServiceError
from airflow_provider_mlops.hooks.journal import JournalHook
from airflow_provider_mlops.operators.drift import CheckDataDriftOperator
from airflow_provider_mlops.sensors.drift import DataDriftSensor
from airflow_provider_mlops.triggers.data import NewDataTrigger

START = datetime(2026, 1, 1)


def write(file, days, *, first=0, moved=False, drop=(), seed=0):
    random = np.random.default_rng(seed)
    count = days * 100
    table = pa.table(
        {
            "at": [START + timedelta(days=first, minutes=14 * i) for i in range(count)],
            "amount": random.normal(0.6 if moved else 0, 1, count),
            "steady": random.normal(0, 1, count),
        }
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.drop_columns(list(drop)), file)


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    write(folder / "reference.parquet", 100)
    data = DataRef(str(folder / "reference.parquet"), timestamp="at")
    (folder / "profile.json").write_text(EmbeddedEngine().reference(data, block=timedelta(days=10)).to_json())
    return str(folder / "profile.json")


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """A folder to which new data comes; quiet at first."""
    monkeypatch.setenv("AIRFLOW__MLOPS__STORAGE", str(tmp_path / "storage"))
    write(tmp_path / "lake" / "1.parquet", 70, first=100, seed=1)
    return tmp_path / "lake"


def drift_arrives(lake):
    write(lake / "2.parquet", 70, first=170, moved=True, seed=2)


def sensor(profile, lake, **options):
    arguments = {
        "task_id": "wait",
        "model": "churn",
        "reference_profile": profile,
        "data": {"path": str(lake), "timestamp": "at"},
        "window": "60d",
        "false_alarms_per_30_days": 0.3,
        "timeout": 1000,
        "poke_interval": 30,
    }
    return DataDriftSensor(**{**arguments, **options})


def context():
    return {"ti": SimpleNamespace(dag_id="watch", run_id="run1", task_id="wait", map_index=-1)}


def defer(act):
    with pytest.raises(TaskDeferred) as deferred:
        act()
    return deferred.value


def resume(task, deferral, event):
    """As a new worker process does, with what the deferral kept and what the trigger said."""
    return task.resume_execution(deferral.method_name, {**deferral.kwargs, "event": event}, context())


def fired(deferral):
    """Run the trigger as the triggerer does, from its written form, without the waiting, and return its event."""
    path, arguments = deferral.trigger.serialize()
    trigger = import_string(path)(**{**arguments, "poll_interval": 0.01, "minimum_wait": 0.0})
    trigger.task_instance = SimpleNamespace(task_id="wait")

    async def run():
        return [event.payload async for event in trigger.run()]

    (event,) = asyncio.run(asyncio.wait_for(run(), 60))
    return event


def kinds():
    return [entry.record.kind for entry in JournalHook().journal.read("model/churn")]


def test_drift_at_the_first_look_ends_the_wait_at_once(profile, lake):
    drift_arrives(lake)
    found = sensor(profile, lake).execute(context())
    assert (found["verdict"], found["top_columns"]) == ("drift", ["amount"])
    assert kinds() == ["drift.checked"]


def test_without_drift_it_waits_for_other_files_in_the_triggerer(profile, lake):
    begin = time.time()
    deferral = defer(lambda: sensor(profile, lake).execute(context()))
    trigger = deferral.trigger
    assert isinstance(trigger, NewDataTrigger)
    assert (trigger.path, trigger.seen, trigger.poll_interval) == (str(lake), fingerprint(str(lake)), 30)
    assert trigger.minimum_wait >= 15
    assert deferral.method_name == "execute_complete"
    assert deferral.kwargs["checked"] == trigger.seen
    assert deferral.kwargs["deadline"] == pytest.approx(begin + 1000, abs=30)
    assert kinds() == ["drift.checked"]


def test_new_data_with_drift_ends_the_wait(profile, lake):
    deferral = defer(lambda: sensor(profile, lake).execute(context()))
    drift_arrives(lake)
    found = resume(sensor(profile, lake), deferral, fired(deferral))
    assert found["verdict"] == "drift"


def test_new_data_without_drift_is_checked_once_and_waited_on(profile, lake):
    first = defer(lambda: sensor(profile, lake).execute(context()))
    write(lake / "2.parquet", 70, first=170, seed=5)
    second = defer(lambda: resume(sensor(profile, lake), first, fired(first)))
    assert second.trigger.seen != first.trigger.seen
    assert second.kwargs["deadline"] == first.kwargs["deadline"]
    assert kinds() == ["drift.checked"] * 2


def test_a_false_call_checks_nothing_again(profile, lake):
    first = defer(lambda: sensor(profile, lake).execute(context()))
    event = {"path": str(lake), "fingerprint": "something that has gone again"}
    second = defer(lambda: resume(sensor(profile, lake), first, event))
    assert second.kwargs == first.kwargs
    assert kinds() == ["drift.checked"]


def test_the_deadline_holds_over_deferrals(profile, lake):
    first = defer(lambda: sensor(profile, lake, timeout=1000).execute(context()))
    late = {**first.kwargs, "deadline": time.time() + 100}
    write(lake / "2.parquet", 70, first=170, seed=5)
    event = fired(first)
    second = defer(
        lambda: sensor(profile, lake, timeout=1000).resume_execution(
            "execute_complete", {**late, "event": event}, context()
        )
    )
    assert timedelta(seconds=60) < second.timeout <= timedelta(seconds=100)
    assert second.kwargs["deadline"] == late["deadline"]


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ({}, AirflowSensorTimeout),
        ({"soft_fail": True}, AirflowSkipException),
        ({"never_fail": True}, AirflowSkipException),
    ],
    ids=["fails", "soft_fail", "never_fail"],
)
def test_at_the_deadline_it_gives_up(profile, lake, options, outcome):
    first = defer(lambda: sensor(profile, lake).execute(context()))
    write(lake / "2.parquet", 70, first=170, seed=5)
    past = {**first.kwargs, "deadline": time.time() - 1, "event": fired(first)}
    with pytest.raises(outcome):
        sensor(profile, lake, **options).resume_execution("execute_complete", past, context())


def test_drift_found_after_the_deadline_is_still_drift(profile, lake):
    first = defer(lambda: sensor(profile, lake).execute(context()))
    drift_arrives(lake)
    past = {**first.kwargs, "deadline": time.time() - 1, "event": fired(first)}
    assert sensor(profile, lake).resume_execution("execute_complete", past, context())["verdict"] == "drift"


@pytest.mark.parametrize(
    ("options", "outcome"), [({}, AirflowSensorTimeout), ({"soft_fail": True}, AirflowSkipException)]
)
def test_a_timeout_in_the_triggerer_is_a_sensors_timeout(profile, lake, options, outcome):
    kept = {"error": "Trigger timeout"}  # what the scheduler leaves when the deferral's own time is over
    with pytest.raises((outcome, TaskDeferralTimeout)) as ended:
        sensor(profile, lake, **options).resume_execution("__fail__", kept, context())
    assert ended.type is outcome


def test_without_time_the_first_look_is_the_last(profile, lake):
    with pytest.raises(AirflowSensorTimeout, match="No drift of churn within 0:00:00"):
        sensor(profile, lake, timeout=0).execute(context())
    with pytest.raises(AirflowSkipException):
        sensor(profile, lake, timeout=0, soft_fail=True).execute(context())


def test_bad_data_is_quarantined_and_never_ends_the_wait(profile, lake):
    write(lake / "1.parquet", 70, first=100, moved=True, drop=["steady"])
    defer(lambda: sensor(profile, lake).execute(context()))
    assert kinds() == ["drift.checked", "data.quarantined"]


def test_nothing_there_yet_is_waited_for(profile, lake):
    deferral = defer(lambda: sensor(profile, lake / "later").execute(context()))
    assert deferral.trigger.seen == ""
    assert kinds() == []
    write(lake / "later" / "1.parquet", 70, first=100, moved=True)
    assert resume(sensor(profile, lake / "later"), deferral, fired(deferral))["verdict"] == "drift"


def test_a_model_without_champion_is_waited_for(mlflow_server, lake, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_SENSOR", f'{{"conn_type": "mlflow", "host": "{mlflow_server}"}}')
    watch = sensor(None, lake, model="sensor_nobody", mlflow_conn_id="mlflow_sensor")
    defer(lambda: watch.execute(context()))


@pytest.mark.parametrize(("options", "outcome"), [({}, ServiceError), ({"never_fail": True}, AirflowSkipException)])
def test_a_store_that_cannot_be_listed_fails_the_attempt(profile, lake, options, outcome):
    event = {"path": str(lake), "error": "s3://lake could not be listed"}
    kept = {"deadline": time.time() + 100, "checked": "x", "event": event}
    with pytest.raises(outcome) as ended:
        sensor(profile, lake, **options).resume_execution("execute_complete", kept, context())
    told = ended.value if outcome is ServiceError else ended.value.__cause__
    assert "could not be listed" in str(told)


@pytest.mark.parametrize(("options", "outcome"), [({}, DataError), ({"never_fail": True}, AirflowSkipException)])
def test_data_that_cannot_be_read_fails_the_attempt(profile, lake, options, outcome):
    (lake / "1.parquet").write_text("no parquet")
    with pytest.raises(outcome, match=r"1\.parquet"):
        sensor(profile, lake, **options).execute(context())


def test_it_resumes_without_what_the_deferral_kept(profile, lake):
    """``dag.test`` hands on the event alone."""
    drift_arrives(lake)
    event = {"path": str(lake), "fingerprint": "x"}
    assert sensor(profile, lake).resume_execution("execute_complete", {"event": event}, context())["verdict"] == "drift"


# In the worker


def test_it_looks_at_the_time_before_the_window_and_at_a_part_of_the_rows(profile, lake):
    drift_arrives(lake)
    found = sensor(profile, lake, window="100d", trailing="30d", max_rows=1000, ignore_shift_below=0.2).execute(
        context()
    )
    assert found["verdict"] == "drift"
    report = json.loads(Path(unquote(urlsplit(found["report_uri"]).path)).with_name("report.json").read_text())
    assert report["columns"]["amount"]["numbers"]["change"] in {"sudden", "gradual"}
    assert "sampled" in report["notes"]


def test_in_the_worker_it_pokes_until_drift(profile, lake):
    task = sensor(profile, lake, deferrable=False, poke_interval=0.05, timeout=60)
    assert not task.poke(context()).is_done
    assert not task.poke(context()).is_done
    assert kinds() == ["drift.checked"]
    drift_arrives(lake)
    assert task.execute(context())["verdict"] == "drift"


def test_in_the_worker_it_gives_up_as_every_sensor_does(profile, lake):
    with pytest.raises(AirflowSensorTimeout):
        sensor(profile, lake, deferrable=False, poke_interval=0.05, timeout=0.1).execute(context())
    with pytest.raises(AirflowSkipException):
        sensor(profile, lake, deferrable=False, poke_interval=0.05, timeout=0.1, soft_fail=True).execute(context())


# As a citizen of Airflow


def test_by_default_it_defers_and_is_retried(profile, lake):
    assert sensor(profile, lake).deferrable
    assert sensor(profile, lake).retries == 2
    assert sensor(profile, lake, retries=5).retries == 5


def test_it_asks_for_the_same_things_as_the_operator():
    def arguments(kind):
        return {name: p.default for name, p in inspect.signature(kind.__init__).parameters.items()}

    ours, theirs = arguments(DataDriftSensor), arguments(CheckDataDriftOperator)
    assert set(theirs) - set(ours) == {"as_of", "asset", "served_by", "short_circuit"}
    assert set(ours) - set(theirs) == {"deferrable", "retries"}
    # The operator may be told where a model is served instead of where its data is; a sensor waits for files.
    assert all(ours[name] == theirs[name] for name in set(ours) & set(theirs) - {"data"})


def test_the_dag_can_be_serialized(profile, lake):
    with DAG("watch", schedule=None) as dag:
        sensor(profile, lake)
    assert DagSerialization.to_dict(dag)
