"""An MLflow server and a standalone Airflow on this machine, in one folder, on free ports."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from airflow_provider_mlops.errors import ConfigError, NotFoundError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import httpx

__all__ = ["AirflowClient", "Stack", "free_port"]

_MARKER = ".mlops-stack"
_HEALTHY_WITHIN = 240.0  # seconds; 25 on an idle machine with two cores
_STOP_WITHIN = 10.0  # seconds


def free_port() -> int:
    """Return a TCP port of the loopback address that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class AirflowClient:
    """The few calls of Airflow's public REST API that a person's clicks amount to."""

    def __init__(self, url: str, user: str, password: str) -> None:
        import httpx

        self._http: httpx.Client = httpx.Client(base_url=url, timeout=30)
        self._credentials = {"username": user, "password": password}
        self._login()

    def _login(self) -> None:
        answer = self._http.post("/auth/token", json=self._credentials)
        answer.raise_for_status()
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON answer of ``GET /api/v2/PATH``. :raises NotFoundError, ServiceError:"""
        return self._call("GET", path, params=query)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON answer of ``POST /api/v2/PATH``. :raises NotFoundError, ServiceError:"""
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON answer of ``PATCH /api/v2/PATH``. :raises NotFoundError, ServiceError:"""
        return self._call("PATCH", path, json=body)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        import httpx

        for attempt in range(5):
            try:
                answer = self._http.request(method, f"/api/v2/{path}", **arguments)
            except httpx.TransportError as error:
                if attempt == 4 or method == "POST":
                    raise ServiceError(f"Airflow does not answer {method} {path}: {error!r}") from error
                time.sleep(1)
                continue
            if answer.status_code == 404:
                raise NotFoundError("Airflow's", path, hint=answer.text[:200])
            if answer.status_code >= 500 and method == "GET" and attempt < 4:
                time.sleep(1)
                continue
            if answer.is_error:
                raise ServiceError(f"Airflow answers {answer.status_code} to {method} {path}: {answer.text[:300]}")
            return answer.json() if answer.content else None
        raise ServiceError(f"Airflow does not answer {method} {path}.")

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run of *dag_id* as the UI's button does; return its run id."""
        run = self.post(f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": dict(conf or {})})
        return str(run["dag_run_id"])

    def tasks(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Return the state of each task of a run."""
        found = self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=200)["task_instances"]
        return {task["task_id"]: task["state"] for task in found}

    def state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run: ``queued``, ``running``, ``success`` or ``failed``."""
        return str(self.get(f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what a task returned, or ``None`` when it returned nothing."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        try:
            return self.get(path, deserialize="false")["value"]
        except NotFoundError:
            return None

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> str:
        """Return the log of one try of a task as text."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        lines = self.get(path, full_content="true")["content"]
        return "\n".join(line if isinstance(line, str) else str(line.get("event", "")) for line in lines)

    def follow(self, dag_id: str, run_id: str, *, within: float) -> Iterator[tuple[str, str]]:
        """
        Yield ``(task id, state)`` whenever a task of the run ends, until the run ends.

        :raises ServiceError: the run has not ended within *within* seconds.
        """
        told: set[tuple[str, str]] = set()
        deadline = time.monotonic() + within
        while True:
            ended = self.state(dag_id, run_id) in {"success", "failed"}
            for task_id, state in self.tasks(dag_id, run_id).items():
                known = (task_id, state or "")
                final = state in {"success", "failed", "skipped", "upstream_failed", "awaiting_input", "deferred"}
                if final and known not in told:
                    told.add(known)
                    yield known
            if ended:
                return
            if time.monotonic() > deadline:
                raise ServiceError(f"Run {run_id} of {dag_id} has not ended within {within:.0f} s.")
            time.sleep(0.5)


@dataclass
class Stack:
    """
    MLflow (SQLite) and Airflow standalone (SQLite, LocalExecutor) below one folder.

    As a context manager it starts both, waits until they are healthy, and leaves no process behind.

    :param folder: holds all state; must be new, empty, or left by an earlier stack (which is then removed).
    :param environment: more environment variables for Airflow.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    airflow_port: int = field(default_factory=free_port)
    mlflow_port: int = field(default_factory=free_port)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    @property
    def dags(self) -> Path:
        """The DAGs folder."""
        return self.folder / "dags"

    @property
    def storage(self) -> Path:
        """``[mlops] storage`` of this Airflow."""
        return self.folder / "mlops"

    @property
    def airflow_url(self) -> str:
        """Address of Airflow's UI and API."""
        return f"http://localhost:{self.airflow_port}"

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow server."""
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def password(self) -> str:
        """The password of the user ``admin``, which Airflow makes up at its first start."""
        found = json.loads((self.folder / "airflow" / "simple_auth_manager_passwords.json.generated").read_text())
        return str(found["admin"])

    def airflow_environment(self) -> dict[str, str]:
        """Return the environment of every Airflow process of this stack."""
        home = self.folder / "airflow"
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW", "MLOPS"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.airflow_port),
            "AIRFLOW__API__BASE_URL": self.airflow_url,
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__MLOPS__STORAGE": str(self.storage),
            "AIRFLOW__MLOPS__TARGET": "demo",
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": self.mlflow_url}),
            **self.environment,
        }

    def start(self) -> None:
        """Start both servers; return at once. :raises ConfigError: the folder holds something else."""
        self.folder = self.folder.resolve()
        self._take_folder()
        self._spawn(
            "mlflow",
            [
                *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.mlflow_port)),
                *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
                *("--artifacts-destination", str(self.folder / "artifacts"), "--workers", "1"),
            ],
            {
                **os.environ,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "DO_NOT_TRACK": "true",
            },
        )
        self._spawn("airflow", [sys.executable, "-m", "airflow", "standalone"], self.airflow_environment())

    def _take_folder(self) -> None:
        if self.folder.exists() and any(self.folder.iterdir()):
            if not (self.folder / _MARKER).exists():
                raise ConfigError(f"{self.folder} is not empty and not of an earlier demo. Name another folder.")
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _MARKER).touch()
        self.dags.mkdir()

    def _spawn(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            # One process group for all, led by the first, so that one signal reaches every part.
            group = self._processes[0].pid if self._processes else 0
            self._processes.append(
                subprocess.Popen(
                    command,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    process_group=group,
                )
            )

    def wait_healthy(self) -> Iterator[str]:
        """
        Yield ``"MLflow"`` and ``"Airflow"``, each as soon as it is healthy.

        :raises ServiceError: one of them ended or is not healthy after four minutes; its log is named.
        """
        import httpx

        waiting: dict[str, tuple[str, Callable[[httpx.Response], bool]]] = {
            "MLflow": (f"{self.mlflow_url}/health", lambda answer: answer.text == "OK"),
            "Airflow": (f"{self.airflow_url}/api/v2/monitor/health", _all_healthy),
        }
        deadline = time.monotonic() + _HEALTHY_WITHIN
        while waiting:
            for name, (url, healthy) in list(waiting.items()):
                with contextlib.suppress(httpx.HTTPError, ValueError):
                    answer = httpx.get(url, timeout=5)
                    if answer.is_success and healthy(answer):
                        del waiting[name]
                        yield name
            for name, process in zip(("mlflow", "airflow"), self._processes, strict=True):
                if process.poll() is not None:
                    raise ServiceError(f"{name} ended with {process.returncode}. See {self.folder / name}.log.")
            if time.monotonic() > deadline:
                raise ServiceError(f"{', '.join(waiting)} did not become healthy. See the logs in {self.folder}.")
            time.sleep(0.5)

    def client(self) -> AirflowClient:
        """Return a client logged in as ``admin``."""
        return AirflowClient(self.airflow_url, "admin", self.password)

    def stop(self) -> None:
        """Stop everything that was started here, the local model servers included."""
        from airflow_provider_mlops.serving import local

        if self._processes:
            group = self._processes[0].pid
            for number, patience in ((signal.SIGTERM, _STOP_WITHIN), (signal.SIGKILL, 2.0)):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, number)
                deadline = time.monotonic() + patience
                while time.monotonic() < deadline and _alive(group, self._processes):
                    time.sleep(0.1)
            self._processes.clear()
        local.stop(self.storage / "serving")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _all_healthy(answer: httpx.Response) -> bool:
    parts = answer.json()
    return all(
        parts[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")
    )


def _alive(group: int, processes: list[subprocess.Popen[bytes]]) -> bool:
    for process in processes:
        process.poll()  # reaps it
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
