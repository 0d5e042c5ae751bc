"""
Runs operators in processes that die: after a persisted step, the k-th or one of that name, by SIGKILL, or by a signal.

As a script it imports everything once and then forks a child per task attempt. It reads a JSON object per line,
``{"operator", "arguments", "ti", "kill_after"}``, and answers with one, see `Attempt`. Steps are what others can see:
requests that change something in MLflow, entries in the journal, jobs, rollout states and files made for good.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace


@dataclass(frozen=True)
class Attempt:
    """How one attempt ended: what it returned, the error that it raised, or the signal that it died by."""

    steps: list[str]
    result: dict | None = None
    error: str | None = None
    signal: int | None = None


class Worker:
    """The script as a child process, for tests."""

    def __init__(self, environment):
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, "PYTHONWARNINGS": "ignore"},
        )
        assert self._process.stdout.readline() == "ready\n"

    def attempt(self, operator, arguments, *, kill_after=None, terminate_when=None, **ti):
        """Run one attempt. *terminate_when* is a callable: SIGTERM is sent as soon as it says true."""
        request = {"operator": operator, "arguments": arguments, "ti": ti, "kill_after": kill_after}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        if terminate_when is not None:
            child = int(self._process.stdout.readline())
            while not terminate_when():
                time.sleep(0.05)
            os.kill(child, signal.SIGTERM)
        else:
            self._process.stdout.readline()
        return Attempt(**json.loads(self._process.stdout.readline()))

    def close(self):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class TaskInstance(SimpleNamespace):
    """What operators use of a running task instance."""

    def xcom_push(self, key, value):
        """Keep nothing."""


def main():
    _import_everything()
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "steps")
            report.touch()
            outcome = Path(folder, "outcome")
            child = os.fork()
            if child == 0:
                _run(request, report, outcome)
            print(child, flush=True)
            _, status = os.waitpid(child, 0)
            answer = {"steps": report.read_text().splitlines()}
            if os.WIFSIGNALED(status):
                answer["signal"] = os.WTERMSIG(status)
            else:
                answer |= json.loads(outcome.read_text())
        print(json.dumps(answer), flush=True)


def _import_everything():
    """Import what an attempt imports anyway, so that forked children need not."""
    for name in (
        *("mlflow.entities.model_registry", "mlflow.store.model_registry.rest_store"),
        *("mlflow.store.tracking.rest_store", "pyarrow.parquet", "requests", "sqlalchemy.dialects.sqlite"),
    ):
        importlib.import_module(name)
    for name in ("training", "evaluation", "model", "deployment"):
        importlib.import_module(f"airflow_provider_mlops.operators.{name}")
    for name in ("training", "evaluation", "serving", "journal", "mlflow", "jobs"):
        importlib.import_module(f"airflow_provider_mlops.hooks.{name}")


def _run(request, report, outcome):
    """Be a task process: end by a signal, or with the outcome in a file."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # logs go there, answers do not
    steps = 0

    def step(what):
        nonlocal steps
        steps += 1
        with report.open("a") as file:
            file.write(f"{what}\n")
        if request["kill_after"] in (steps, what):
            os.kill(os.getpid(), signal.SIGKILL)

    _watch(step)
    module, _, name = request["operator"].rpartition(".")
    operator = getattr(importlib.import_module(module), name)(task_id=request["ti"]["task_id"], **request["arguments"])
    # As Airflow's task process does: it tells the operator, and goes on.
    signal.signal(signal.SIGTERM, lambda *_: operator.on_kill())
    try:
        answer = {"result": operator.execute({"ti": TaskInstance(map_index=-1, **request["ti"])})}
    except BaseException as error:  # noqa: BLE001 - as in a task process, which tells any error and ends
        traceback.print_exc()
        answer = {"error": f"{type(error).__name__}: {error}"}
    outcome.write_text(json.dumps(answer))
    sys.stderr.flush()
    os._exit(0)


def _watch(step):
    """Have every persisted step reported after it was done."""
    from requests import Session

    from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend
    from airflow_provider_mlops.adapters.journal.sql import SqlJournal
    from airflow_provider_mlops.adapters.mlflow import MlflowTracking
    from airflow_provider_mlops.adapters.rollout.local import LocalTarget

    asks = True  # the next wish is a new one

    def wrap(kind, method, tell):
        original = getattr(kind, method)

        def watched(self, *args, **kwargs):
            answer = original(self, *args, **kwargs)
            if text := tell(*args):
                step(text)
            return answer

        setattr(kind, method, watched)

    def request(prepared, *_):
        path = prepared.path_url.partition("?")[0]
        reads = prepared.method == "GET" or path.endswith("/search")
        return "" if reads else f"{prepared.method} {path}"

    def write_state(name, state, token):
        nonlocal asks
        asks = True
        return f"rollout state {state.phase.value}"

    def act(*_):
        nonlocal asks
        asked, asks = asks, False
        return "rollout wish" if asked else ""

    wrap(Session, "send", request)
    wrap(SqlJournal, "append", lambda stream, sequence, record: f"journal {record.kind}")
    wrap(ProcessBackend, "submit", lambda spec: "job")
    wrap(MlflowTracking, "download_model", lambda *_: "download")
    wrap(LocalTarget, "write_state", write_state)
    wrap(LocalTarget, "act", act)


if __name__ == "__main__":
    main()
