"""ModelVersionSensor and its trigger, against a real MLflow server."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
import threading
import uuid
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import pytest
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred
from airflow.sdk.module_loading import import_string
from services_mlflow import basic, locked_door, served

from airflow_provider_mlops.adapters.mlflow import MlflowAddress, MlflowRegistry
from airflow_provider_mlops.adapters.mlflow_async import alias_reader
from airflow_provider_mlops.errors import ConfigError, ServiceError
from airflow_provider_mlops.sensors.model import ModelVersionSensor
from airflow_provider_mlops.triggers.model import ModelVersionTrigger

pytestmark = pytest.mark.service("mlflow")


def connect(monkeypatch, host, **fields):
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": host, **fields}))


@pytest.fixture
def registry(mlflow_server, monkeypatch):
    connect(monkeypatch, mlflow_server)
    return MlflowRegistry(mlflow_server)


@pytest.fixture
def model():
    return f"churn größe {uuid.uuid4().hex}"


def add_version(registry, model, alias="champion"):
    version = registry.create_version(model, run_id=uuid.uuid4().hex, source="s3://models/x", tags={}).version
    registry.set_alias(model, alias=alias, version=version)
    return version


def sensor(model, **options):
    return ModelVersionSensor(**{"task_id": "wait", "model": model, "timeout": 1000, "poke_interval": 30, **options})


def deferral(task):
    with pytest.raises(TaskDeferred) as deferred:
        task.execute({})
    return deferred.value


def impatient(trigger):
    """The trigger as the triggerer makes it, from its written form, without the waiting."""
    path, arguments = trigger.serialize()
    return import_string(path)(**{**arguments, "poll_interval": 0.05, "minimum_wait": 0.0})


PATIENCE = 60  # seconds


async def events_of(trigger):
    return [event.payload async for event in trigger.run()]


def fired(trigger):
    (event,) = asyncio.run(asyncio.wait_for(events_of(impatient(trigger)), PATIENCE))
    return event


@pytest.mark.parametrize("deferrable", [True, False])
def test_what_is_true_already_is_not_waited_for(registry, model, deferrable):
    add_version(registry, model)
    outcome = sensor(model, deferrable=deferrable).execute({})
    assert outcome == {"model": model, "alias": "champion", "version": "1"}


def test_it_defers_once_and_hands_on_the_version_that_came(registry, model):
    task = sensor(model)
    left = deferral(task)
    assert left.timeout == timedelta(seconds=1000)
    assert (left.trigger.minimum_wait, left.trigger.poll_interval) == (15.0, 30)

    async def scenario():
        waiting = asyncio.create_task(events_of(impatient(left.trigger)))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await asyncio.to_thread(add_version, registry, model)
        return await asyncio.wait_for(waiting, PATIENCE)

    (event,) = asyncio.run(scenario())
    assert event == {"model": model, "alias": "champion", "version": "1"}
    assert task.resume_execution(left.method_name, {"event": event}, {}) == event


def test_a_version_that_is_known_or_older_does_not_end_the_wait(registry, model):
    for _ in range(10):
        add_version(registry, model)
    registry.set_alias(model, alias="champion", version="9")
    assert deferral(sensor(model, newer_than="9")).trigger.newer_than == "9"
    assert sensor(model, newer_than="8").execute({})["version"] == "9"
    registry.set_alias(model, alias="champion", version="10")
    assert sensor(model, newer_than="9").execute({})["version"] == "10"
    assert sensor(model, newer_than="").execute({})["version"] == "10"


def test_another_alias_is_another_wait(registry, model):
    add_version(registry, model, alias="challenger")
    deferral(sensor(model))
    assert sensor(model, alias="challenger").execute({})["version"] == "1"


@pytest.mark.parametrize("known", ["v1", "one"])
def test_what_is_no_version_is_refused_at_once(registry, model, known):
    with pytest.raises(ConfigError, match=f"'{known}' is no version"):
        sensor(model, newer_than=known).execute({})


def test_a_name_that_no_registry_could_hold_is_refused_at_once(registry):
    with pytest.raises(ConfigError, match="no name for a registered model"):
        sensor("x' or '1'='1").execute({})


def test_a_server_that_is_away_is_borne_a_while_and_then_told(monkeypatch, model):
    connect(monkeypatch, "http://127.0.0.1:9")
    event = fired(ModelVersionTrigger(model=model, patience=3))
    assert list(event) == ["error"]
    assert "http://127.0.0.1:9 cannot be reached" in event["error"]
    with pytest.raises(ServiceError, match="cannot be reached"):
        sensor(model).execute_complete({}, event)
    with pytest.raises(AirflowSkipException):
        sensor(model, never_fail=True).execute_complete({}, event)


def test_a_server_that_stumbles_and_recovers_is_no_failure(monkeypatch, model):
    good = {"registered_model": {"name": model, "aliases": [{"alias": "champion", "version": "1"}]}}
    answers = [(500, b"oops"), (502, b"<html>"), (200, b'{"registered_model": {}}'), (500, b"oops")]
    answers.append((200, json.dumps(good).encode()))

    class Stumbling(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers.pop(0)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Be quiet."""

    with served(Stumbling) as address:
        connect(monkeypatch, address)
        assert fired(ModelVersionTrigger(model=model, patience=3))["version"] == "1"
    assert answers == []


def test_credentials_are_sent_and_their_lack_is_told_at_once(registry, mlflow_server, monkeypatch, model):
    add_version(registry, model)
    with locked_door(mlflow_server, basic("jo", "s3cret")) as door:
        connect(monkeypatch, door, login="jo", password="s3cret")
        assert fired(ModelVersionTrigger(model=model))["version"] == "1"
        connect(monkeypatch, door, login="jo", password="wrong")
        event = fired(ModelVersionTrigger(model=model, patience=1000))
    assert "denies access" in event["error"]
    assert "wrong" not in event["error"]
    with locked_door(mlflow_server, "Bearer t0ken") as door:
        connect(monkeypatch, door, extra='{"token": "t0ken"}')
        assert fired(ModelVersionTrigger(model=model))["version"] == "1"


def test_a_file_is_for_the_worker_only(monkeypatch, mlflow_file, model):
    connect(monkeypatch, mlflow_file)
    assert "deferrable=False" in fired(ModelVersionTrigger(model=model))["error"]
    add_version(MlflowRegistry(mlflow_file), model)
    assert sensor(model, deferrable=False).execute({})["version"] == "1"


def test_authorities_that_cannot_be_read_are_named():
    async def read():
        async with alias_reader(MlflowAddress("https://mlflow.example.com", verify="/no/such/file.pem")):
            pass

    with pytest.raises(ConfigError, match=r"certificate authorities in '/no/such/file\.pem'"):
        asyncio.run(read())


def test_the_event_loop_stays_free_while_a_server_takes_its_time(monkeypatch, model):
    good = {"registered_model": {"name": model, "aliases": [{"alias": "champion", "version": "1"}]}}
    asked, over = threading.Event(), threading.Event()

    class Slow(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.set()
            self.send_response(200 if over.wait(PATIENCE / 2) else 503)
            self.end_headers()
            self.wfile.write(json.dumps(good).encode())

        def log_message(self, *_):
            """Be quiet."""

    async def scenario():
        waiting = asyncio.create_task(events_of(impatient(ModelVersionTrigger(model=model, patience=1))))
        await asyncio.to_thread(asked.wait, PATIENCE)
        over.set()  # by the event loop, which the request therefore must not hold
        return await waiting

    with served(Slow) as address:
        connect(monkeypatch, address)
        (event,) = asyncio.run(scenario())
    assert event["version"] == "1"


ASK = """
import asyncio, sys
from airflow_provider_mlops.triggers.model import ModelVersionTrigger

async def ask():
    trigger = ModelVersionTrigger(model=sys.argv[1], minimum_wait=0.0)
    return [event.payload async for event in trigger.run()]

print(asyncio.run(ask())[0]["version"], "mlflow" in sys.modules)
"""


def test_a_trigger_never_imports_mlflow(registry, model):
    add_version(registry, model)
    asked = subprocess.run([sys.executable, "-c", ASK, model], capture_output=True, text=True)
    assert asked.stdout.splitlines()[-1:] == ["1 False"], asked.stderr


def test_it_survives_being_written_down_and_made_anew():
    trigger = ModelVersionTrigger(
        model="m", alias="a", newer_than="3", mlflow_conn_id="c", poll_interval=7.0, minimum_wait=20.0, patience=4
    )
    path, arguments = trigger.serialize()
    again = import_string(path)(**arguments)
    assert again.serialize() == (path, arguments)
    assert set(arguments) == set(inspect.signature(ModelVersionTrigger.__init__).parameters) - {"self"}
