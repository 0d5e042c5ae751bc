"""What the tests of DAGs share: a folder with DAG files that Airflow reads, and a database for their runs."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.fixture
def dags_folder(tmp_path, monkeypatch):
    """An empty DAGs folder for one test."""
    folder = tmp_path / "dags"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(folder))
    return folder


@pytest.fixture(scope="session")
def airflow_database():
    """The database of this process's Airflow home, as `dag.test` needs it."""
    made = subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
