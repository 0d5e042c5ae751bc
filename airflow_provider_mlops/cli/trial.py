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
    from collections.abc import Callable

__all__ = ["run", "words"]

_BROKE_OFF = 2
_LEFT_OUT = frozenset({"schedule", "deploy", "approve", "monitor", "retrain", "trigger_form", "tags", "mlflow_conn_id"})

_STUB = '''\
"""DAGs of {name} for Airflow, as `mlops try` runs them."""

import json
import sys

from airflow_provider_mlops.factory import continuous_training_dags

FOLDER = {folder!r}
if FOLDER not in sys.path:
    sys.path.append(FOLDER)  # as Airflow does with the DAGs folder
DAGS = continuous_training_dags(FOLDER, **json.loads({words!r}))
'''


def run(arguments: Namespace) -> int:
    """
    Run every step of the training DAG in this terminal. Returns 0 when a candidate passed the gate, 1 when it
    did not or a step failed, 2 when the trial broke off.

    Airflow's and MLflow's databases are SQLite files in a folder of their own, which the next trial uses again: its
    candidate meets the champion of this one. Nothing is deployed, and nobody is asked for approval.

    :raises ConfigError: the pipeline file, the target or an assignment is wrong.
    """
    from airflow_provider_mlops.pipeline import from_dict, load, target_names

    began = time.monotonic()
    file = Path(arguments.file)
    target = arguments.target
    if target is not None and target not in (known := target_names(file)):
        raise ConfigError(
            f"{file}: there is no target {target!r}.{did_you_mean(target, known)} "
            f"{'Known: ' + ', '.join(known) if known else 'It has no targets: try it without --target'}."
        )
    loaded = load(file, target=target)
    told = loaded.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for assignment in arguments.set or ():
        _assign(told, assignment)
    start, tried = words(told, loaded.locate)
    name = from_dict(tried).name
    folder = Path(arguments.folder).resolve()
    dags = folder / "dags"
    dags.mkdir(parents=True, exist_ok=True)
    for ignored in (".airflowignore", ".gitignore"):  # the folder often lies inside a DAG folder and a repository
        (folder / ignored).write_text("*\n")
    stub = dags / f"{name}.py"
    stub.write_text(_STUB.format(name=name, folder=str(start), words=json.dumps(tried, sort_keys=True)))
    environment = _environment(folder, dags)
    if not (folder / "airflow" / "airflow.db").exists():
        print(f"Making a database for trials in {folder}. This happens once.", flush=True)
        _make_database(environment)
    outcome = folder / f"{name}.json"
    outcome.unlink(missing_ok=True)
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "airflow_provider_mlops.cli.trial_run", str(stub), f"{name}__train", str(outcome)]
    print(f"Trying {file}", flush=True)
    try:
        ended = subprocess.run([*command, *([] if arguments.verbose else [str(log)])], env=environment, check=False)
    except KeyboardInterrupt:
        print("\nStopped.")
        raise
    seconds = time.monotonic() - began
    where = "" if arguments.verbose else f" Airflow's own log is {log}."
    if ended.returncode or not outcome.exists():
        print(f"\nThe trial broke off after {seconds:.0f} s.{where}")
        return _BROKE_OFF
    return _report(json.loads(outcome.read_text()), folder, seconds, where)


def words(told: dict[str, Any], locate: Callable[[str], str]) -> tuple[Path, dict[str, Any]]:
    """
    Return the folder at which a pipeline's relative paths start, and its words as a trial runs it.

    There is no schedule, no deployment, no monitor and no approval, and MLflow is the trial's own. The data's path is
    absolute.

    :param told: a specification as plain values, without its defaults.
    :param locate: makes an absolute path of one that is relative to the pipeline file.
    """
    tried = {key: value for key, value in told.items() if key not in _LEFT_OUT}
    tried["mode"] = "enforce"
    tried["data"] = {**told["data"], "path": locate(told["data"]["path"])}
    scripts = {job: locate(told[job]["script"]) for job in ("prepare", "train") if told.get(job)}
    # A script may lie above the pipeline file, and a path in words leads downwards only.
    start = Path(os.path.commonpath([locate("."), *(Path(script).parent for script in scripts.values())]))
    for job, script in scripts.items():
        tried[job] = {**told[job], "script": Path(script).relative_to(start).as_posix()}
    return start, tried


def _assign(told: dict[str, Any], assignment: str) -> None:
    """Apply ``key.of.value=VALUE``; the value is JSON, or else text. A number in the key counts in a list, from 0."""
    key, equals, text = assignment.partition("=")
    path = key.split(".")
    if not equals or not all(path):
        raise ConfigError(f"--set {assignment!r}: write KEY=VALUE, for example train.hyperparameters.depth=3.")
    if path[0] in _LEFT_OUT:
        raise ConfigError(f"--set {assignment!r}: a trial has no {path[0]!r}; it trains, judges and registers once.")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    node: Any = told
    for position, part in enumerate(path):
        index: Any = part
        if isinstance(node, list):
            if not part.isdecimal() or int(part) >= len(node):
                here = ".".join(path[:position])
                raise ConfigError(f"--set {assignment!r}: {here} is a list of {len(node)}; count in it from 0.")
            index = int(part)
        elif not isinstance(node, dict):
            raise ConfigError(f"--set {assignment!r}: {'.'.join(path[:position])} holds no keys.")
        if position == len(path) - 1:
            node[index] = value
        elif isinstance(node, dict):
            node = node.setdefault(index, {})
        else:
            node = node[index]


def _make_database(environment: dict[str, str]) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        raise ConfigError(f"The database of the trial cannot be made:\n{made.stderr[-2000:]}")


def _environment(folder: Path, dags: Path) -> dict[str, str]:
    home = folder / "airflow"
    (folder / "mlflow").mkdir(exist_ok=True)
    connection = {"conn_type": "mlflow", "host": f"sqlite:///{folder / 'mlflow.db'}"}
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW", "MLOPS"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW__MLOPS__STORAGE": str(folder / "storage"),
        "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps(connection),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def _report(outcome: dict[str, Any], folder: Path, seconds: float, where: str) -> int:
    """Print what came out. Returns the exit code."""
    gate = outcome["results"].get("training.evaluate") or {}
    register = outcome["results"].get("release.register") or {}
    passed = outcome["state"] == "success" and gate.get("verdict") == "passed"
    failed = sorted(task for task, state in outcome["tasks"].items() if state == "failed")
    if failed:
        print(f"\nFAILED at {failed[0]} after {seconds:.0f} s.{where}")
    else:
        print(f"\n{str(gate.get('verdict', 'Not judged')).upper()} in {seconds:.0f} s")
    if gate:
        print(f"  gate      {gate['reason']}: {gate['sentence']}")
        if gate.get("champion"):
            print(
                f"            Version {gate['champion']} comes from an earlier trial; remove {folder} to start afresh."
            )
    if register:
        print(f"  version   {register['version']} of {register['model']}, run {register['run_id']}")
    print(f"  look      mlflow ui --backend-store-uri sqlite:///{folder / 'mlflow.db'}")
    return 0 if passed else 1
