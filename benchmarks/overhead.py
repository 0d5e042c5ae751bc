"""
What does a task of this package cost in CPU, next to an empty task?

    python benchmarks/overhead.py

Each task runs alone in a new process against a real MLflow server and a real journal, as it would under Airflow's
supervisor: import Airflow, make the operator, execute it. Counted are the CPU seconds of that process over those of
one whose operator does nothing. Child processes (training, scoring, serving) are the user's work and are not counted.
Every task runs once per round, three rounds on one model, so from the second round on there is a champion to meet.
Writes ``benchmarks/results/overhead.json``.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent))

from common import cpu_seconds, goal, load, table, write

ROOT = Path(__file__).parents[1]
SEED = 20_260_103
ROUNDS = 3
ROWS = 4_000
LIMIT = 3.5
OPERATORS = {
    "snapshot": "data.SnapshotDataOperator",
    "train": "training.TrainOperator",
    "evaluate": "evaluation.EvaluateModelOperator",
    "register": "model.RegisterModelOperator",
    "smoke_test": "model.SmokeTestModelOperator",
    "promote": "model.PromoteModelOperator",
    "deploy": "deployment.DeployToLocalOperator",
    "validate": "validation.ValidateDataOperator",
    "check_drift": "drift.CheckDataDriftOperator",
}


def child(step, arguments, run):
    """Be the process of one task. The last line says what it used and returned."""
    from airflow.sdk import BaseOperator

    result, client = None, 0.0
    if step == "empty":

        class Empty(BaseOperator):
            def execute(self, context):  # noqa: ARG002 - it does nothing
                return None

        Empty(task_id="empty").execute({})
    elif step == "client":
        before = cpu_seconds()
        importlib.import_module("mlflow").MlflowClient(arguments["uri"]).search_experiments()
        client = cpu_seconds() - before
    else:
        module, _, name = OPERATORS[step].partition(".")
        operator = getattr(importlib.import_module(f"airflow_provider_mlops.operators.{module}"), name)
        ti = SimpleNamespace(dag_id="board", run_id=run, task_id=step, map_index=-1, max_tries=2, try_number=1)
        result = operator(task_id=step, **arguments).execute({"ti": ti})
    used = {"cpu": cpu_seconds(), "client": client, "client_loaded": "mlflow" in sys.modules, "result": result}
    print("\n" + json.dumps(used, default=str))


def task(step, arguments, run, environment):
    command = [sys.executable, __file__, "--task", step, json.dumps(arguments), run]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{step} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def steps(folder, round_, results):
    """Yield each step of a round with its arguments; *results* holds what the steps before returned."""
    model, data = "board", {"path": str(folder / "rows.parquet"), "label": "label", "timestamp": "at"}
    columns = {"label_column": "label", "timestamp_column": "at"}
    champion = str(round_) if round_ else ""
    yield "snapshot", {"data": data, "hold_out": "20%"}
    frozen = results["snapshot"]
    given = {"data_uri": frozen["train_uri"], "data_digest": frozen["train_digest"], **columns}
    script = {"experiment": model, "script": str(ROOT / "dags" / "rain_forecast_train.py"), "profile_block": "7d"}
    # More iterations per round, so that each round trains a model of its own.
    yield "train", {**script, **given, "hyperparameters": {"max_iter": 20 + round_}}
    trained = {key: results["train"][key] for key in ("run_id", "model_uri")}
    rule = {"metric": "roc_auc", "at_least": 0.5, "max_drop_vs_champion": 0.1}
    judged = {"data_uri": frozen["evaluation_uri"], "train_uri": frozen["train_uri"], **columns}
    yield "evaluate", {"model": model, **trained, **judged, "rules": [rule], "if_refused": "fail"}
    digest = results["evaluate"]["digest"]
    yield "register", {"model": model, **trained, "gate_digest": digest}
    version = {"model": model, "version": results["register"]["version"]}
    scored = {"predictions_uri": results["evaluate"]["predictions_uri"], "data_uri": frozen["evaluation_uri"]}
    yield "smoke_test", {**version, **scored}
    yield "promote", {**version, "expected_champion": champion, "gate_digest": digest}
    yield "deploy", version
    yield "validate", {"model": model, **given, "contract": {"min_rows": 100}}
    yield "check_drift", {"model": model, "data": data, "window": "7d"}


def make_rows(path):
    """Write hourly rows of ten numbers and a category of which a label can be told."""
    from datetime import UTC, datetime, timedelta

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(SEED)
    values = rng.normal(size=(ROWS, 10))
    label = (values[:, 0] + values[:, 1] + rng.normal(size=ROWS) > 0).astype(np.int64)
    times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(ROWS)]
    columns = {f"x{number}": values[:, number] for number in range(10)}
    pq.write_table(pa.table({"at": times, **columns, "label": label}), path)


@contextmanager
def world():
    """Give a folder with rows, and the environment in which a task finds storage and an MLflow server."""
    sys.path.insert(0, str(ROOT / "tests"))
    from services_mlflow import mlflow_server

    from airflow_provider_mlops.serving import local

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "mlflow").mkdir()
        make_rows(folder / "rows.parquet")
        with mlflow_server(folder / "mlflow") as address:
            kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW"))}
            environment = {
                **kept,
                "AIRFLOW_HOME": str(folder / "home"),
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__MLOPS__STORAGE": str(folder / "storage"),
                "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": address}),
                "MLFLOW_DISABLE_TELEMETRY": "true",
            }
            try:
                yield folder, address, environment
            finally:
                local.stop(folder / "storage" / "serving")


def main():
    before, measured = load(), {}
    with world() as (folder, address, environment):
        task("empty", {}, "warm up", environment)
        empty = [task("empty", {}, "none", environment)["cpu"] for _ in range(2 * ROUNDS)]
        client = [task("client", {"uri": address}, "none", environment)["client"] for _ in range(ROUNDS)]
        for round_ in range(ROUNDS):
            results = {}
            for step, arguments in steps(folder, round_, results):
                used = task(step, arguments, f"run {round_}", environment)
                results[step] = used["result"]
                measured.setdefault(step, []).append(used)
                print(f"round {round_ + 1}: {step} {used['cpu']:.2f} CPU s", flush=True)
        empty += [task("empty", {}, "none", environment)["cpu"] for _ in range(ROUNDS)]
    nothing, share = statistics.median(empty), statistics.median(client)
    rows = [
        {
            "task": step,
            "cpu_seconds": round(statistics.median(run["cpu"] for run in runs), 2),
            "over_empty": round(statistics.median(run["cpu"] for run in runs) - nothing, 2),
            "over_empty_most": round(max(run["cpu"] for run in runs) - nothing, 2),
            "mlflow_loaded": runs[-1]["client_loaded"],
        }
        for step, runs in measured.items()
    ]
    rows += [
        {"task": "MLflow's own client: import, one call", "over_empty": round(share, 2), "mlflow_loaded": True},
        {"task": "an empty task", "cpu_seconds": round(nothing, 2), "over_empty": 0.0, "mlflow_loaded": False},
    ]
    table(rows, ["task", "cpu_seconds", "over_empty", "over_empty_most", "mlflow_loaded"])
    print(f"load average at the start {before}\n")
    goals = [
        goal(f"{row['task']}: CPU s over an empty task", f"<= {LIMIT}", row["over_empty"], row["over_empty"] <= LIMIT)
        for row in rows
        if row["task"] in measured
    ]
    return write("overhead", goals, [{**row, "load_average": before} for row in rows])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--task"]:
        child(sys.argv[2], json.loads(sys.argv[3]), sys.argv[4])
    else:
        sys.exit(main())
