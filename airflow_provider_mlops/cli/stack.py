"""An MLflow server and an Airflow on this machine, in one folder, on free ports."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from airflow_provider_mlops.errors import ConfigError, NotFoundError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import httpx
    import psutil

__all__ = ["AirflowClient", "Stack", "free_port"]

_MARKER = ".mlops-stack"
_HEALTHY_WITHIN = 240.0  # seconds; 25 on an idle machine with two cores
_STOP_WITHIN = 5.0  # seconds
# What `airflow standalone` runs, without its log servers: those listen on every address of the machine.
_COMPONENTS = {
    "api-server": (),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}


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

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

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
    MLflow (SQLite) and Airflow (SQLite, LocalExecutor) below one folder, listening on the loopback address alone.

    As a context manager it starts both, and leaves no process behind.

    :param folder: holds all state; must be new, empty, or left by an earlier stack (which is then removed).
    :param environment: more environment variables for Airflow.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    airflow_port: int = field(default_factory=free_port)
    mlflow_port: int = field(default_factory=free_port)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, repr=False)
    _ports: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()), repr=False)
    _marker: IO[bytes] | None = field(default=None, repr=False)

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
        """The password of the user ``admin``, made up at the start."""
        return str(json.loads(self._password_file.read_text())["admin"])

    @property
    def _password_file(self) -> Path:
        return self.folder / "airflow" / "simple_auth_manager_passwords.json.generated"

    def airflow_environment(self) -> dict[str, str]:
        """Return the environment of every Airflow process of this stack."""
        return {
            **self._plain_environment(),
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.airflow_port),
            "AIRFLOW__API__BASE_URL": self.airflow_url,
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            # Nobody listens there, and no other Airflow of this machine is asked: logs are read from the disk.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self._ports[0]),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(self._ports[1]),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__MLOPS__STORAGE": str(self.storage),
            "AIRFLOW__MLOPS__TARGET": "demo",
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": self.mlflow_url}),
            **self.environment,
        }

    def _plain_environment(self) -> dict[str, str]:
        """Return this process's environment without what configures other installations."""
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW", "MLOPS"))},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }

    def start(self) -> None:
        """
        Start all servers; return when Airflow's database is made, a few seconds later.

        :raises ConfigError: the folder holds something else, or another stack uses it.
        :raises ServiceError: the database cannot be made.
        """
        self.folder = self.folder.resolve()
        self._take_folder()
        self._spawn(
            "mlflow",
            [
                *("mlflow", "server", "--host", "127.0.0.1", "--port", str(self.mlflow_port)),
                *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
                *("--artifacts-destination", str(self.folder / "artifacts"), "--workers", "1"),
            ],
            {**self._plain_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        log = self.folder / "database.log"
        with log.open("wb") as output:
            made = subprocess.run(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                env=self.airflow_environment(),
                stdout=output,
                stderr=output,
                check=False,
            )
        if made.returncode:
            raise ServiceError(f"Airflow's database could not be made. See {log}.")
        for component in _COMPONENTS:
            self.spawn_airflow(component)

    def spawn_airflow(self, component: str) -> subprocess.Popen[bytes]:
        """Start ``scheduler``, ``triggerer``, ``api-server`` or ``dag-processor``, again when it has ended."""
        return self._spawn(component, ["airflow", component, *_COMPONENTS[component]], self.airflow_environment())

    def _take_folder(self) -> None:
        marker = self.folder / _MARKER
        if self.folder.exists() and any(self.folder.iterdir()) and not marker.exists():
            raise ConfigError(f"{self.folder} is not empty and not of an earlier demo. Name another folder.")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._marker = marker.open("ab")
        try:
            fcntl.flock(self._marker, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends, in whatever way
        except BlockingIOError:
            raise ConfigError(f"Another demo runs in {self.folder}. Stop it, or name another folder.") from None
        for left in self.folder.iterdir():
            if left != marker:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        self.dags.mkdir()
        # Airflow makes up a password too, and prints it into its log.
        self._password_file.parent.mkdir()
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(json.dumps({"admin": secrets.token_urlsafe(12)}) + "\n")

    def _spawn(self, name: str, module: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            # A process group of their own, so that Ctrl-C reaches the teller of the story alone, who ends the rest.
            leader = next((process.pid for process in self._processes.values() if process.poll() is None), 0)
            self._processes[name] = started = subprocess.Popen(
                [sys.executable, "-m", *module],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                process_group=leader,
            )
        return started

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
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise ServiceError(f"{name} ended with {process.returncode}. See {self.folder / name}.log.")
            if time.monotonic() > deadline:
                raise ServiceError(f"{', '.join(waiting)} did not become healthy. See the logs in {self.folder}.")
            time.sleep(0.5)

    def client(self) -> AirflowClient:
        """Return a client logged in as ``admin``."""
        return AirflowClient(self.airflow_url, "admin", self.password)

    def stop(self) -> None:
        """Stop everything that was started here: servers, tasks, jobs, and the local model servers."""
        from airflow_provider_mlops.serving import local

        _end(list(self._processes.values()))
        self._processes.clear()
        local.stop(self.storage / "serving")
        if self._marker is not None:
            self._marker.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _all_healthy(answer: httpx.Response) -> bool:
    parts = answer.json()
    return all(
        parts[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "triggerer", "dag_processor")
    )


def _end(started: list[subprocess.Popen[bytes]]) -> None:
    """
    End processes with all that descends from them.

    They are asked first: whoever is asked ends its own children. What is left is killed. One signal to one process
    group is not enough for that: Airflow runs each task in a group of its own, and a job leads a session.
    """
    import psutil

    family: set[psutil.Process] = set()
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            family.add(psutil.Process(process.pid))
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    patience = time.monotonic() + _STOP_WITHIN
    while True:
        _grow(family)
        family = {member for member in family if _is_alive(member)}
        if not family:
            break
        if time.monotonic() > patience:
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        time.sleep(0.1)
    for process in started:
        process.wait()  # has ended; this clears it away


def _grow(family: set[psutil.Process]) -> None:
    """Add all descendants."""
    import psutil

    everyone = list(psutil.process_iter(["ppid"]))
    pids = {member.pid for member in family}
    while more := [process for process in everyone if process.info["ppid"] in pids and process.pid not in pids]:
        family.update(more)
        pids |= {process.pid for process in more}


def _is_alive(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
