"""A running Airflow with small pipelines, and what a user can do with it and see of it."""

from __future__ import annotations

import json
import textwrap
import time
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from e2e.processes import Family

from airflow_provider_mlops.adapters.journal.sql import SqlJournal
from airflow_provider_mlops.cli.stack import AirflowClient, Stack
from airflow_provider_mlops.errors import NotFoundError
from airflow_provider_mlops.journal import model_stream

LOGIN, PASSWORD = "trainer", "correct-horse-battery-staple"

STUB = '''\
"""DAGs for Airflow."""

from airflow_provider_mlops.factory import load_dags

load_dags(__file__)
'''

SCRIPT = '''\
"""Train a small model."""

import json
import os
import time

import mlflow
import pandas as pd
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

label = os.environ["MLOPS_LABEL"]
rows = pd.read_parquet(os.environ["MLOPS_DATA_URI"])
features = rows.drop(columns=label)
hyperparameters = json.loads(os.environ["MLOPS_HYPERPARAMETERS"])
seconds, awaited = hyperparameters.pop("seconds", 0), hyperparameters.pop("awaited", None)
with mlflow.start_run():
    mlflow.log_params(hyperparameters)
    print(f"fitting for {seconds} s", flush=True)
    time.sleep(seconds)
    while awaited and not os.path.exists(awaited):
        time.sleep(0.1)
    model = LogisticRegression(**hyperparameters).fit(features, rows[label])
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(features, model.predict_proba(features)),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["scikit-learn", "pandas"],
    )
'''

PIPELINE = """\
mlops: 1
mode: enforce
data: {path: points.parquet, label: y}
train: {script: train.py, hyperparameters: {C: 1.0}}
evaluate:
  - {metric: roc_auc, at_least: 0.6, max_drop_vs_champion: 0.2}
"""

SENSOR = '''\
"""A hand-written DAG that waits for drift."""

from datetime import datetime

from airflow.sdk import DAG

from airflow_provider_mlops.sensors.drift import DataDriftSensor

with DAG("watch", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    DataDriftSensor(
        task_id="wait",
        model="watched_by_hand",
        data={{"path": {path!r}, "timestamp": "at"}},
        reference_profile={profile!r},
        poke_interval=5,
        timeout=600,
    )
'''


def points(rows=800, seed=0):
    """Two columns that tell something about a third."""
    random = np.random.default_rng(seed)
    first, second = random.normal(size=rows), random.normal(size=rows)
    y = (first - second + random.normal(size=rows) > 0).astype("int64")
    return pa.table({"first": first, "second": second, "y": y})


def readings(days, *, first=0, moved=0.0, seed=0):
    """A reading every quarter of an hour or so."""
    random = np.random.default_rng(seed)
    at = [datetime(2026, 1, 1) + timedelta(days=first, minutes=14 * i) for i in range(days * 100)]
    return pa.table({"at": at, "amount": random.normal(moved, 1, days * 100)})


def eventually(ask, within, what):
    """Ask until the answer is true; return it."""
    deadline = time.monotonic() + within
    while not (answer := ask()):
        assert time.monotonic() < deadline, f"{what() if callable(what) else what} within {within} s"
        time.sleep(0.5)
    return answer


def _question(dag_id, run_id):
    return f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/release.approve/-1/hitlDetails"


class World:
    """Airflow, MLflow, and a user of both."""

    def __init__(self, folder: Path) -> None:
        self.family = Family(folder)
        connection = {"conn_type": "mlflow", "login": LOGIN, "password": PASSWORD}
        self.stack = Stack(folder, environment=self.family.environment)
        connection["host"] = self.stack.mlflow_url
        self.stack.environment = {
            **self.family.environment,
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(connection),
        }
        self.airflow: AirflowClient | None = None

    def start(self) -> None:
        self.stack.start()
        assert sorted(self.stack.wait_healthy()) == ["Airflow", "MLflow"]
        self.airflow = self.stack.client()

    # -- what a user puts into the DAGs folder --

    def drop(self, name, text=PIPELINE, **changes):
        """Put a pipeline file and its stub into the DAGs folder, with some lines changed or added."""
        for old, new in changes.pop("replace", {}).items():
            assert old in text
            text = text.replace(old, new)
        text += "".join(f"{key}: {value}\n" for key, value in changes.items())
        (self.stack.dags / f"{name}.yaml").write_text(text)
        (self.stack.dags / f"{name}.py").write_text(STUB)

    def drop_sensor(self, data: Path, profile: Path) -> None:
        text = SENSOR.format(path=str(data), profile=str(profile))
        (self.stack.dags / "watch.py").write_text(textwrap.dedent(text))

    def drop_data(self) -> None:
        pq.write_table(points(), self.stack.dags / "points.parquet")
        (self.stack.dags / "train.py").write_text(SCRIPT)

    def keeper_of(self, server):
        """The process that keeps a server of the stack; the server and all that it starts are its descendants."""
        folder = str(self.stack.log(server).parent)
        return next(p for p in self.family.members() if "keeper.py" in " ".join(p.cmdline()) and folder in p.cmdline())

    # -- what a user does --

    def unpause(self, dag_id, within=180):
        def ask():
            try:
                return self.airflow.patch(f"dags/{dag_id}", {"is_paused": False})
            except NotFoundError:
                return None

        eventually(ask, within, lambda: f"{dag_id} has not appeared; {self.import_errors()}")

    def trigger(self, dag_id, conf=None):
        self.unpause(dag_id)
        return self.airflow.trigger(dag_id, conf)

    def answer(self, dag_id, run_id, choice):
        """
        Answer the approval of a run; and answer again when asked again.

        Airflow drops an answer that comes before its scheduler has heard that the task waits, and asks anew.
        """
        self.until(dag_id, run_id, "release.approve", "awaiting_input")

        def answered():
            state = self.airflow.tasks(dag_id, run_id)["release.approve"]
            if state == "awaiting_input" and not self.question(dag_id, run_id)["response_received"]:
                self.airflow.patch(_question(dag_id, run_id), {"chosen_options": [choice], "params_input": {}})
            return state == "success"

        eventually(answered, 180, lambda: f"{self.airflow.tasks(dag_id, run_id)}; {self.tail()}")

    # -- what a user sees --

    def question(self, dag_id, run_id):
        """What the approval of a run asks, and what was answered."""
        return self.airflow.get(_question(dag_id, run_id))

    def import_errors(self):
        return {Path(e["filename"]).name: e["stack_trace"] for e in self.airflow.get("importErrors")["import_errors"]}

    def finish(self, dag_id, run_id, within=240):
        """Wait for the end of a run; return the states of its tasks."""
        eventually(
            lambda: self.airflow.state(dag_id, run_id) in {"success", "failed"},
            within,
            lambda: f"{run_id} of {dag_id} has not ended: {self.airflow.tasks(dag_id, run_id)}; {self.tail()}",
        )
        return self.airflow.tasks(dag_id, run_id)

    def until(self, dag_id, run_id, task_id, state, within=180):
        """Wait until a task is in a state."""
        eventually(
            lambda: self.airflow.tasks(dag_id, run_id).get(task_id) == state,
            within,
            lambda: f"{task_id} of {dag_id} is not {state}: {self.airflow.tasks(dag_id, run_id)}; {self.tail()}",
        )

    def succeed(self, dag_id, run_id, within=240):
        """Wait for the end of a run, which must be a good one; return the states of its tasks."""
        states = self.finish(dag_id, run_id, within)
        if self.airflow.state(dag_id, run_id) != "success":
            logs = [
                self.airflow.log(dag_id, run_id, task, self.tries(dag_id, run_id, task))[-3000:]
                for task, state in states.items()
                if state == "failed"
            ]
            raise AssertionError(f"{dag_id} failed: {states}\n" + "\n".join(logs))
        return states

    def task(self, dag_id, run_id, task_id):
        return self.airflow.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")

    def tries(self, dag_id, run_id, task_id):
        return self.task(dag_id, run_id, task_id)["try_number"]

    def tail(self):
        """The end of every component's log."""
        logs = sorted(self.stack.folder.glob("servers/*/log"))
        return "\n".join(f"--- {log.parent.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)

    # -- what MLflow and the journal say --

    def mlflow(self, method, path, **arguments):
        answer = httpx.request(method, f"{self.stack.mlflow_url}/api/2.0/mlflow/{path}", timeout=60, **arguments)
        return answer.json() if answer.is_success else {}

    def runs(self, experiment):
        """The runs of an experiment, oldest first: status and tags."""
        found = self.mlflow("GET", "experiments/get-by-name", params={"experiment_name": experiment})
        body = {"experiment_ids": [found["experiment"]["experiment_id"]], "order_by": ["start_time ASC"]}
        return self.mlflow("POST", "runs/search", json=body).get("runs", [])

    def versions(self, model):
        """The versions of a model with the runs that they come from, oldest first."""
        query = {"filter": f"name='{model}'"}
        found = self.mlflow("GET", "model-versions/search", params=query).get("model_versions", [])
        return sorted((int(version["version"]), version["run_id"]) for version in found)

    def champion(self, model):
        found = self.mlflow("GET", "registered-models/alias", params={"name": model, "alias": "champion"})
        return found.get("model_version", {}).get("version")

    def journal(self, model):
        """Kind and payload of every entry about a model."""
        entries = SqlJournal(f"sqlite:///{self.stack.storage / 'journal.db'}").read(model_stream(model))
        return [(entry.record.kind, entry.record.payload) for entry in entries]

    def answers(self, model):
        """What people answered when they were asked about a model."""
        return [payload for kind, payload in self.journal(model) if kind == "approval.answered"]

    def stop(self):
        try:
            if self.airflow is not None:
                self.airflow.close()
            self.stack.stop()
            assert self.family.gone() == []
        finally:
            self.family.end()


def parameters(run):
    return {item["key"]: item["value"] for item in run["data"].get("params", [])}


def tags(run):
    return {item["key"]: item["value"] for item in run["data"].get("tags", [])}
