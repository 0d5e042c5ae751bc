"""From the fields of an Airflow connection to an address, and what importing the hook costs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from airflow_provider_mlops.adapters.mlflow import MlflowAddress, MlflowRegistry, MlflowTracking
from airflow_provider_mlops.errors import ConfigError, NotFoundError
from airflow_provider_mlops.hooks.mlflow import MlflowHook


@pytest.fixture
def connect(monkeypatch):
    """Define the default connection and return its hook."""

    def define(**fields):
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", **fields}))
        return MlflowHook()

    return define


@pytest.mark.parametrize(
    ("fields", "uri"),
    [
        ({"host": "mlflow"}, "http://mlflow"),
        ({"host": "mlflow", "port": 5000}, "http://mlflow:5000"),
        ({"host": "mlflow", "port": 443}, "https://mlflow:443"),
        ({"host": "mlflow", "schema": "https"}, "https://mlflow"),
        ({"host": "https://mlflow.example.com/prefix/"}, "https://mlflow.example.com/prefix"),
        ({"host": "http://mlflow:5000", "port": 5000, "schema": "http"}, "http://mlflow:5000"),
        ({"host": "sqlite:////data/mlflow.db"}, "sqlite:////data/mlflow.db"),
        ({"host": "[::1]", "port": 5000}, "http://[::1]:5000"),
        ({"conn_type": "https", "host": "mlflow.example.com"}, "https://mlflow.example.com"),
    ],
)
def test_the_fields_of_a_connection_make_an_address(connect, fields, uri):
    assert connect(**fields).tracking_uri == uri


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "has no host"),
        ({"host": ""}, "has no host"),
        ({"host": "mlflow", "schema": "ftp"}, "'ftp://mlflow' is no address of an MLflow"),
        ({"host": "postgresql://db/mlflow"}, "is no address of an MLflow"),
        ({"host": "databricks://"}, "is no address of an MLflow"),
        ({"host": "http://"}, "is no address of an MLflow"),
        ({"host": "http://mlflow:port"}, "is no address of an MLflow"),
        ({"host": "http://ml flow:5000"}, "is no address of an MLflow"),
        ({"host": "ml flow"}, "is no address of an MLflow"),
        ({"host": "http://mlflow:5000", "port": 6000}, "port 6000 says something else"),
        ({"host": "http://mlflow", "schema": "https"}, "schema 'https' or port None says something else"),
        ({"host": "mlflow", "login": "jo"}, "login and password together"),
        ({"host": "mlflow", "password": "s3cret"}, "login and password together"),
        ({"host": "mlflow", "login": "jo", "password": "s3cret", "extra": {"token": "t"}}, "not both"),
    ],
)
def test_a_connection_that_makes_no_address_says_what_to_mend(connect, fields, words):
    with pytest.raises(ConfigError, match=words) as caught:
        _ = connect(**fields).address
    assert "s3cret" not in str(caught.value)


def test_credentials_in_the_address_are_refused_and_not_shown():
    with pytest.raises(ConfigError, match="'http://mlflow:5000', must not hold credentials") as caught:
        MlflowAddress("http://jo:s3cret@mlflow:5000")
    assert "s3cret" not in str(caught.value)


def test_a_relative_database_file_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert MlflowAddress("sqlite:///mlflow.db").uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert MlflowAddress("sqlite:///mlflow.db").file == tmp_path / "mlflow.db"


@pytest.mark.parametrize(
    ("fields", "plain", "secret"),
    [
        ({}, {}, {}),
        (
            {"login": "jo", "password": "s3cret"},
            {"MLFLOW_TRACKING_USERNAME": "jo"},
            {"MLFLOW_TRACKING_PASSWORD": "s3cret"},
        ),
        ({"extra": {"token": "t0ken"}}, {}, {"MLFLOW_TRACKING_TOKEN": "t0ken"}),
        ({"extra": {"verify": False}}, {"MLFLOW_TRACKING_INSECURE_TLS": "true"}, {}),
        ({"extra": {"verify": "false"}}, {"MLFLOW_TRACKING_INSECURE_TLS": "true"}, {}),
        ({"extra": {"verify": "true", "token": ""}}, {}, {}),
        ({"extra": {"verify": "/etc/ca.pem"}}, {"MLFLOW_TRACKING_SERVER_CERT_PATH": "/etc/ca.pem"}, {}),
    ],
)
def test_a_job_is_told_where_mlflow_is_and_its_secrets_apart(connect, fields, plain, secret):
    hook = connect(host="mlflow", port=5000, **fields)
    assert hook.job_environment() == ({"MLFLOW_TRACKING_URI": "http://mlflow:5000", **plain}, secret)


def test_the_hook_gives_adapters_and_asks_nobody(connect):
    hook = connect(host="mlflow.invalid")
    assert isinstance(hook.registry, MlflowRegistry)
    assert isinstance(hook.tracking, MlflowTracking)
    assert hook.registry is hook.registry
    assert hook.get_conn() is hook.tracking


def test_a_connection_that_answers_says_so(connect, mlflow_server):
    assert connect(host=mlflow_server).test_connection() == (True, f"MLflow answers at {mlflow_server}.")


def test_a_connection_that_does_not_answer_says_why(connect):
    works, sentence = connect(host="http://127.0.0.1:9").test_connection()
    assert not works
    assert sentence.startswith("MLflow at http://127.0.0.1:9 cannot be reached: ")
    assert connect(host="").test_connection()[0] is False


def test_a_connection_that_is_not_there_is_named_with_how_to_make_it():
    words = (
        r"^Connection 'mlflow_defalt' was not found\. Add one of type MLflow in Airflow \(Admin > Connections\), or set "
        r"AIRFLOW_CONN_MLFLOW_DEFALT in the environment\.$"
    )
    with pytest.raises(NotFoundError, match=words):
        _ = MlflowHook("mlflow_defalt").address
    with pytest.raises(NotFoundError, match=words):
        asyncio.run(MlflowHook("mlflow_defalt").aget_address())


def test_importing_the_hook_loads_nothing_heavy():
    code = "import sys, airflow_provider_mlops.hooks.mlflow; print(*(name.split('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    heavy = {"mlflow", "pandas", "numpy", "pyarrow", "scipy", "sklearn", "requests", "kubernetes", "docker", "dvc"}
    assert not heavy & set(done.stdout.split())
