"""What the tests of DAGs share: DAG files that Airflow reads, a database for their runs, and a look at what is left."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from leftovers import half_written, users_of


@pytest.fixture
def dags_folder(tmp_path, monkeypatch):
    """An empty DAGs folder for one test."""
    folder = tmp_path / "dags"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(folder))
    return folder


@pytest.fixture
def connection(mlflow_server, monkeypatch):
    """The default connection to a real MLflow server."""
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))
    return mlflow_server


@pytest.fixture(scope="session")
def airflow_database():
    """The database of this process's Airflow home, as `dag.test` needs it."""
    made = subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr


@dataclass(frozen=True)
class Ran:
    """How a DAG run ended: state of the run, state by task (``id[3]`` when mapped) and what each returned."""

    run_id: str
    state: str
    tasks: dict[str, str]
    results: dict[str, Any]


@pytest.fixture
def run_dag(airflow_database):
    """
    Run a DAG by `dag.test`: ``run_dag(dag_id, {"file.py": text, ...}, conf={...})``.

    The files stay in a folder of the DAGs folder until the test ends, so a DAG can run again without naming them.
    """
    from airflow import settings
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    folder = Path(settings.DAGS_FOLDER) / f"test_{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)

    def run(dag_id, files=None, conf=None):
        for name, content in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        bag = DagBag(dag_folder=folder)
        assert bag.import_errors == {}
        with warnings.catch_warnings():
            # All of Airflow runs here: its own warnings are not ours to mend.
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", module=r"airflow_provider_mlops\.")
            try:
                ended = bag.dags[dag_id].test(run_conf=conf)
            finally:  # Airflow 3.2 leaves the DAG's name there, and whatever is parsed later in this process obeys
                os.environ.pop("_AIRFLOW_PARSING_CONTEXT_DAG_ID", None)
        with create_session() as session:
            rows = list(session.scalars(XComModel.get_many(run_id=ended.run_id, dag_ids=dag_id, key="return_value")))
            results = {_instance(row): XComModel.deserialize_value(row) for row in rows}
            tasks = {_instance(ti): str(ti.state) for ti in ended.get_task_instances(session=session)}
        return Ran(ended.run_id, str(ended.state), tasks, results)

    run.folder = folder
    yield run
    shutil.rmtree(folder)


def _instance(row):
    return row.task_id if row.map_index < 0 else f"{row.task_id}[{row.map_index}]"


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """The folder that ``[mlops] storage`` names. At the end nothing half-written lies there and nobody uses it."""
    from airflow_provider_mlops.serving import local

    folder = tmp_path / "storage"
    monkeypatch.setenv("AIRFLOW__MLOPS__STORAGE", str(folder))
    yield folder
    local.stop(folder / "serving")
    assert users_of(folder) == []
    assert half_written(folder) == []
