"""What all tests share: an Airflow home of their own, and one MLflow server for those that ask for it."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from services import postgres, postgres_database  # noqa: F401 - fixtures of every suite
from services_mlflow import mlflow_server as start_mlflow_server

if TYPE_CHECKING:
    from airflow_provider_mlops.adapters.mlflow import MlflowAddress

# Airflow reads these while it is imported, so they stand before every test module.
_HOME = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ["AIRFLOW_HOME"] = _HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "false"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
_UNASKED = ("mlflow.db", "mlruns", "mlartifacts", "artifacts", "spark-warehouse", "metastore_db", "derby.log")

# A shell ignores Ctrl-C for what it starts in the background, and children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples in every run, so that a failure is there again tomorrow; `--hypothesis-profile default` looks for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    # MLflow 3.17's own queries on SQLAlchemy 2.1.
    config.addinivalue_line("filterwarnings", "ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture(autouse=True)
def current_folder() -> Iterator[None]:
    """Fail the test that leaves behind what libraries write into the current folder when nobody names another."""
    folder = Path.cwd()
    before = {name for name in _UNASKED if (folder / name).exists()}
    yield
    left = {name for name in _UNASKED if (folder / name).exists()} - before
    assert not left, f"{sorted(left)} in {folder}"


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server that all tests of this process share: use names of your own in it."""
    with start_mlflow_server(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture(scope="session")
def mlflow_guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowAddress]:
    """A real MLflow server with its own basic authentication, and the credentials of its administrator."""
    from airflow_provider_mlops.adapters.mlflow import MlflowAddress

    admin = ("keeper", "a pass:word of 24 signs")
    with start_mlflow_server(tmp_path_factory.mktemp("guarded"), admin=admin) as address:
        yield MlflowAddress(address, login=admin[0], password=admin[1])


@pytest.fixture(scope="session")
def mlflow_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of an MLflow without a server, which all tests of this process share."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
