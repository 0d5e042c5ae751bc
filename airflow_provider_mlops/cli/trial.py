"""``mlops try``: the whole pipeline once, in this terminal, without a scheduler or a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = ["run", "words"]

_STUB = '''\
"""DAGs of {name} for Airflow, as `mlops try` runs them."""

import json

from airflow_provider_mlops.factory import continuous_training_dags

DAGS = continuous_training_dags(**json.loads({words!r}))
'''


def run(arguments: Namespace) -> int:
    """
    Run every step of the training DAG in this terminal. Returns 0 when a candidate passed the gate, 1 otherwise.

    Airflow's and MLflow's databases are SQLite files in a folder of their own, which the next trial uses again: its
    candidate meets the champion of this one. Nothing is deployed, and nobody is asked for approval.
    """
    from airflow_provider_mlops.pipeline import load, target_names

    began = time.monotonic()
    file = Path(arguments.file)
    target = arguments.target
    if target is not None and target not in (known := target_names(file)):
        raise ConfigError(f"{file}: there is no target {target!r}.{did_you_mean(target, known)}")
    loaded = load(file, target=target)
    tried = words(loaded.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True), loaded.locate)
    for assignment in arguments.set or ():
        _assign(tried, assignment)
    folder = Path(arguments.folder).resolve()
    dags = folder / "dags"
    dags.mkdir(parents=True, exist_ok=True)
    name = tried["name"]
    stub = dags / f"{name}.py"
    stub.write_text(_STUB.format(name=name, words=json.dumps(tried, sort_keys=True)))
    environment = _environment(folder, dags)
    if not (folder / "airflow" / "airflow.db").exists():
        print("Making a database for trials; this happens once.", flush=True)
        made = subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise ConfigError(f"The database of the trial cannot be made:\n{made.stderr[-2000:]}")
    result = folder / f"{name}.result.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "airflow_provider_mlops.cli.trial_run", str(stub), f"{name}__train", str(result)]
    ended = subprocess.run([*command, *(["--verbose"] if arguments.verbose else [])], env=environment, check=False)
    if ended.returncode or not result.exists():
        print(f"\nThe trial failed after {time.monotonic() - began:.0f} s. See the error above.")
        return 1
    return _report(json.loads(result.read_text()), folder, time.monotonic() - began)


def words(spec: dict[str, Any], locate: Any) -> dict[str, Any]:
    """
    Return the words of a pipeline as a trial runs it: absolute paths, no schedule, no deployment, no approval.

    :param spec: a specification as plain values, without its defaults.
    """
    tried = {
        key: value
        for key, value in spec.items()
        if key not in {"schedule", "deploy", "approve", "monitor", "retrain", "trigger_form", "tags"}
    }
    tried["mode"] = "enforce"
    tried["data"] = {**spec["data"], "path": locate(spec["data"]["path"])}
    for job in ("prepare", "train"):
        if spec.get(job):
            tried[job] = {**spec[job], "script": locate(spec[job]["script"])}
    return tried


def _assign(tried: dict[str, Any], assignment: str) -> None:
    """Apply ``--set key.of.value=VALUE``; the value is JSON, or else text."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {assignment!r}: write KEY=VALUE, for example train.hyperparameters.depth=3.")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    *path, last = key.split(".")
    node = tried
    for part in path:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {assignment!r}: {part!r} holds no keys.")
    node[last] = value


def _environment(folder: Path, dags: Path) -> dict[str, str]:
    home = folder / "airflow"
    artifacts = folder / "mlflow"
    artifacts.mkdir(exist_ok=True)
    connection = {"conn_type": "mlflow", "host": f"sqlite:///{folder / 'mlflow.db'}"}
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW", "MLOPS"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__MLOPS__STORAGE": str(folder / "storage"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(connection),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def _report(result: dict[str, Any], folder: Path, seconds: float) -> int:
    """Print what came out. Returns the exit code."""
    gate = result["results"].get("training.evaluate") or {}
    register = result["results"].get("release.register") or {}
    print(f"\n{result['state']} in {seconds:.0f} s")
    if gate:
        print(f"  gate      {gate['verdict']} ({gate['reason']})")
        print(f"            {gate['sentence']}")
    if register:
        print(f"  version   {register['version']} of {register['model']}, run {register['run_id']}")
    print(f"  look      mlflow ui --backend-store-uri sqlite:///{folder / 'mlflow.db'}")
    return 0 if result["state"] == "success" and gate.get("verdict") == "passed" else 1
