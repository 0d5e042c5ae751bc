"""What the MLflow adapter promises beyond its ports: credentials, short waits, errors of this package only, and races."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler

import pytest
from services_mlflow import basic, locked_door, served

from airflow_provider_mlops.adapters.mlflow import MlflowAddress, MlflowRegistry, MlflowTracking
from airflow_provider_mlops.errors import ConfigError, MlopsError, NotFoundError, ServiceError

pytestmark = pytest.mark.service("mlflow")

RUN = "a" * 32
SECONDS = 60  # MLflow by itself tries for minutes; on an idle machine it is five
LOG_MODEL = """
import sys, mlflow
from mlflow.models import infer_signature

class Double(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[float]) -> list[float]:
        return [2 * value for value in model_input]

with mlflow.start_run():
    info = mlflow.pyfunc.log_model(
        name="double", python_model=Double(), pip_requirements=["mlflow"], signature=infer_signature([1.0], [2.0])
    )
"""


def an_error_for_every_verb(tracking, registry, folder):
    """Yield the error of each verb; a verb that does not fail is a failure of the test."""
    for ask in (
        lambda: tracking.experiment("e"),
        lambda: tracking.create_run("1", name="r", tags={}),
        lambda: tracking.run(RUN),
        lambda: tracking.find_runs("1", tags={"a": "b"}),
        lambda: tracking.log(RUN, params={"a": "1"}),
        lambda: tracking.end_run(RUN, "FAILED"),
        lambda: tracking.models(RUN),
        lambda: tracking.log_text(RUN, "x", "x"),
        lambda: tracking.read_text(RUN, "x"),
        lambda: tracking.download_model("models:/m-1", folder / "model"),
        lambda: tracking.download_model("models:/churn@champion", folder / "model"),
        lambda: tracking.download_model("mlflow-artifacts:/1/x", folder / "model"),
        lambda: registry.create_version("m", run_id=RUN, source="s3://models/x", tags={"a": "1"}),
        lambda: registry.version("m", "1"),
        lambda: registry.versions("m"),
        lambda: registry.version_of("m", alias="champion"),
        lambda: registry.set_alias("m", alias="champion", version="1"),
        lambda: registry.delete_alias("m", alias="champion"),
    ):
        with pytest.raises(MlopsError) as caught:
            ask()
        yield caught.value


def answering(status, content_type, body):
    class Answer(BaseHTTPRequestHandler):
        def _reply(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _reply  # noqa: N815 - the names that http.server looks for

        def log_message(self, *_):
            """Be quiet."""

    return served(Answer)


PAGE = b"<!DOCTYPE html><html><body>Welcome to nginx!</body></html>"
REFUSAL = json.dumps({"error_code": "PERMISSION_DENIED", "message": "Permission denied"}).encode()
FAILURE = json.dumps({"error_code": "INTERNAL_ERROR", "message": "database is locked"}).encode()


@pytest.mark.parametrize(
    ("status", "content_type", "body", "kind", "words"),
    [
        pytest.param(200, "text/html", PAGE, ServiceError, "Is this the address of an MLflow server", id="HTML"),
        pytest.param(404, "text/html", PAGE, ServiceError, "answered 404.*nginx.*Is this the", id="HTML 404"),
        pytest.param(200, "application/json", b"[1]", ServiceError, "no answer of MLflow", id="JSON of another kind"),
        pytest.param(404, "application/json", b"{}", ServiceError, "no answer of MLflow", id="JSON without a code"),
        pytest.param(500, "text/plain", b"Internal Server Error", ServiceError, "answered 500", id="500"),
        pytest.param(500, "application/json", FAILURE, ServiceError, "database is locked.*Try again", id="500 JSON"),
        pytest.param(401, "text/plain", b"not authenticated", ConfigError, "login, password or token", id="401"),
        pytest.param(403, "application/json", REFUSAL, ConfigError, "login, password or token", id="403"),
        pytest.param(403, "text/plain", b"Invalid Host header", ConfigError, "--allowed-hosts", id="403 host"),
    ],
)
def test_a_strange_answer_becomes_an_error_that_names_the_address_and_the_next_step(
    tmp_path, status, content_type, body, kind, words
):
    with answering(status, content_type, body) as address:
        where = MlflowAddress(address, login="jo", password="s3cret")
        for error in an_error_for_every_verb(MlflowTracking(where), MlflowRegistry(where), tmp_path):
            assert type(error) is kind, error
            assert address in str(error)
            assert "s3cret" not in str(error)
            with pytest.raises(kind, match=words):
                raise error


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_an_empty_answer_is_not_taken_for_a_model_without_a_champion(body):
    with answering(200, "application/json", body) as address, pytest.raises(ServiceError) as caught:
        MlflowRegistry(address).version_of("m", alias="champion")
    assert f"MLflow at {address} answered nothing about model 'm'" in str(caught.value)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_for_seconds_only(status):
    with answering(status, "text/plain", b"busy") as address:
        started = time.monotonic()
        with pytest.raises(ServiceError, match=f"answered {status}"):
            MlflowRegistry(address).version_of("m", alias="champion")
        assert 3 < time.monotonic() - started < SECONDS


def test_a_server_that_is_down_fails_within_seconds(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ServiceError, match=f"{address} cannot be reached.*Check that it runs"):
            MlflowTracking(address).experiment("e")
        assert time.monotonic() - started < SECONDS


def test_a_name_that_does_not_resolve_fails_within_seconds():
    started = time.monotonic()
    with pytest.raises(ServiceError, match=r"http://mlflow\.invalid:5000 cannot be reached"):
        MlflowTracking("http://mlflow.invalid:5000").experiment("e")
    assert time.monotonic() - started < SECONDS


def test_a_server_that_never_answers_fails_after_the_timeout(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = MlflowAddress(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        for error in an_error_for_every_verb(MlflowTracking(where), MlflowRegistry(where), tmp_path):
            with pytest.raises(ServiceError, match="cannot be reached"):
                raise error


def test_a_database_that_is_no_database_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database" * 1000)
    where = f"sqlite:///{tmp_path}/mlflow.db"
    for error in an_error_for_every_verb(MlflowTracking(where), MlflowRegistry(where), tmp_path):
        assert isinstance(error, ServiceError | ConfigError), error
        assert str(tmp_path) in str(error)


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        ({"login": "jo", "password": "s3cret"}, basic("jo", "s3cret")),
        ({"token": "t0ken"}, "Bearer t0ken"),
    ],
)
def test_credentials_reach_the_server_and_never_the_environment(mlflow_server, tmp_path, credentials, header):
    before = dict(os.environ)
    with locked_door(mlflow_server, header) as door:
        where = MlflowAddress(door, **credentials)
        tracking, registry = MlflowTracking(where), MlflowRegistry(where)
        run = tracking.create_run(tracking.experiment(uuid.uuid4().hex), name="r", tags={})
        tracking.log_text(run.run_id, "größer", "reports/drift.txt")
        assert tracking.read_text(run.run_id, "reports/drift.txt") == "größer"
        copied = tracking.download_model(f"{run.artifact_uri}/reports", tmp_path / "copied")
        assert (copied / "drift.txt").read_text() == "größer"
        model = uuid.uuid4().hex
        registry.create_version(model, run_id=run.run_id, source="s3://models/x", tags={})
        registry.set_alias(model, alias="champion", version="1")
        with pytest.raises(ConfigError, match=r"denies access \(401\)"):
            MlflowTracking(door).run(run.run_id)
    assert dict(os.environ) == before
    assert "s3cret" not in repr(where)
    assert "t0ken" not in repr(where)


@pytest.fixture(params=["mlflow_server", "mlflow_file"])
def address(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def trained(address, tmp_path_factory):
    """A run into which an ordinary training script has logged a model, and its tracker."""
    tracking = MlflowTracking(address)
    experiment = tracking.experiment(uuid.uuid4().hex)
    run = tracking.create_run(experiment, name="train", tags={})
    environment = {"MLFLOW_TRACKING_URI": address, "MLFLOW_RUN_ID": run.run_id, "MLFLOW_EXPERIMENT_ID": experiment}
    script = tmp_path_factory.mktemp("train") / "train.py"
    script.write_text(LOG_MODEL)  # not `python -c`: PySpark, where it is installed, ends such a process when imported
    subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=200,
    )
    return tracking, run.run_id


def test_a_model_that_a_script_logged_is_found_registered_and_downloaded(address, trained, tmp_path):
    tracking, run_id = trained
    assert tracking.run(run_id).status == "FINISHED"
    (model,) = tracking.models(run_id)
    assert (model.uri, model.name, model.has_signature) == (f"models:/{model.model_id}", "double", True)

    registry, name = MlflowRegistry(address), uuid.uuid4().hex
    version = registry.create_version(name, run_id=run_id, source=model.uri, tags={"digest": "1"})
    registry.set_alias(name, alias="champion", version=version.version)
    for number, uri in enumerate((model.uri, f"models:/{name}/1", f"models:/{name}@champion", model.artifact_uri)):
        folder = tracking.download_model(uri, tmp_path / str(number))
        assert folder == tmp_path / str(number)
        assert {"MLmodel", "python_model.pkl"} <= {path.name for path in folder.iterdir()}
        assert tracking.read_model_text(uri, "MLmodel") == (folder / "MLmodel").read_text()
    with pytest.raises(NotFoundError, match="gone"):
        tracking.read_model_text(model.uri, "gone.txt")
    (folder / "MLmodel").unlink()
    assert not (tracking.download_model(model.uri, folder) / "MLmodel").exists()  # what is there is kept
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("uri", ["models:/churn", "models:/a/b/c", "models:/churn/latest", "models:/../x/1"])
def test_a_uri_that_names_no_version_is_refused(mlflow_server, tmp_path, uri):
    with pytest.raises(ConfigError, match="is no model"):
        MlflowTracking(mlflow_server).download_model(uri, tmp_path / "model")


def test_an_alias_that_points_nowhere_is_named(mlflow_server, tmp_path):
    name = uuid.uuid4().hex
    MlflowRegistry(mlflow_server).create_version(name, run_id=RUN, source="s3://models/x", tags={})
    for uri in (f"models:/{name}@champion", f"models:/{name}/7", f"models:/{uuid.uuid4().hex}/1"):
        with pytest.raises(NotFoundError, match="was not found"):
            MlflowTracking(mlflow_server).download_model(uri, tmp_path / "model")


def test_processes_that_register_one_run_at_once_agree_on_one_version(mlflow_server):
    name, answers, ready = uuid.uuid4().hex, [], threading.Barrier(4)

    def register():
        registry = MlflowRegistry(mlflow_server)
        registry.versions("warm up")
        ready.wait()
        answers.append(registry.create_version(name, run_id=RUN, source="s3://models/x", tags={"a": "1"}).version)

    threads = [threading.Thread(target=register) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry = MlflowRegistry(mlflow_server)
    assert len(answers) == 4
    assert len(set(answers)) == 1
    assert [version.version for version in registry.versions(name)] == [answers[0]]


def test_a_version_whose_maker_died_before_the_tags_is_adopted(mlflow_server):
    import mlflow

    client, name = mlflow.MlflowClient(mlflow_server), uuid.uuid4().hex
    client.create_registered_model(name)
    client.create_model_version(name, "s3://models/x", RUN)
    client.create_model_version(name, "s3://models/x", RUN)  # what a loser of a race left behind
    made = MlflowRegistry(mlflow_server).create_version(name, run_id=RUN, source="s3://models/x", tags={"digest": "1"})
    assert (made.version, made.tags) == ("1", {"digest": "1"})


def test_threads_that_ask_for_one_experiment_at_once_get_one(mlflow_server):
    name, answers, ready = uuid.uuid4().hex, [], threading.Barrier(4)

    def ask():
        tracking = MlflowTracking(mlflow_server)
        tracking.greeting()
        ready.wait()
        answers.append(tracking.experiment(name))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert len(set(answers)) == 1


def test_a_deleted_experiment_is_refused_with_the_ways_out(mlflow_server):
    import mlflow

    name = uuid.uuid4().hex
    tracking = MlflowTracking(mlflow_server)
    mlflow.MlflowClient(mlflow_server).delete_experiment(tracking.experiment(name))
    with pytest.raises(ConfigError, match=r"is deleted, and its name is still taken\. Restore it"):
        tracking.experiment(name)


def test_what_mlflow_finds_too_long_is_refused_in_its_words(mlflow_server):
    tracking = MlflowTracking(mlflow_server)
    run = tracking.create_run(tracking.experiment(uuid.uuid4().hex), name="r", tags={})
    with pytest.raises(ConfigError, match="refuses run"):
        tracking.log(run.run_id, params={"k" * 1000: "1"})


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "botocore", None)  # what makes its import fail
    with pytest.raises(ConfigError, match=r"store at s3://models/x needs a library: .*boto"):
        MlflowTracking("http://127.0.0.1:9").download_model("s3://models/x", tmp_path / "model")
    monkeypatch.setitem(sys.modules, "mlflow.store.tracking.sqlalchemy_store", None)
    with pytest.raises(ConfigError, match=r"needs more of MLflow than is installed .*pip install mlflow"):
        MlflowTracking(f"sqlite:///{tmp_path}/mlflow.db").experiment("e")


def test_a_store_of_an_unknown_kind_is_named(tmp_path):
    with pytest.raises(ServiceError, match="store at nowhere://x failed"):
        MlflowTracking("http://127.0.0.1:9").download_model("nowhere://x", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
