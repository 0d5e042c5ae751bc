"""An MLflow server and an Airflow on this machine, in one folder, on free ports."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend
from airflow_provider_mlops.errors import ConfigError, NotFoundError, ServiceError
from airflow_provider_mlops.jobs import JobPhase, JobSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import httpx

__all__ = ["AirflowClient", "Stack"]

_MARKER = ".mlops-stack"
_HEALTHY_WITHIN = 240.0  # seconds; 25 on an idle machine with two cores
_GRACE = timedelta(seconds=5)  # that a server gets to end by itself
_GONE_WITHIN = 30.0  # seconds
_RUN_TIMEOUT = timedelta(days=3650)  # until somebody stops it
# What `airflow standalone` runs, without its log servers: those listen on every address of the machine.
_COMPONENTS = {
    "api-server": (),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}


def _hold_port() -> tuple[int, socket.socket]:
    """
    Return a TCP port of the loopback address that nobody listens on, and what keeps other stacks away from it.

    A server starts seconds after its port was chosen. Until then the UDP port of the same number is held: the kernel
    gives it to one process of the machine, frees it with that process, and it is in no server's way.
    """
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        holder = socket.socket(type=socket.SOCK_DGRAM)
        try:
            holder.bind(("127.0.0.1", port))
        except OSError:
            holder.close()
        else:
            return port, holder


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
            # A request that fails is rolled back: of writers to SQLite that meet, one may be told that it is locked.
            if answer.status_code >= 500 and attempt < 4:
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

    As a context manager it starts both, and leaves no process behind. Each server is a job, `ProcessBackend`: it and
    all that it started end within moments of this process, also when that is killed.

    :param folder: holds all state; must be new, empty, or left by an earlier stack (which is then removed).
    :param environment: more environment variables for Airflow.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    _servers: list[str] = field(default_factory=list, repr=False)
    _held: list[socket.socket] = field(default_factory=list, repr=False)
    _marker: IO[bytes] | None = field(default=None, repr=False)

    @property
    def dags(self) -> Path:
        """The DAGs folder."""
        return self.folder / "dags"

    @property
    def storage(self) -> Path:
        """``[mlops] storage`` of this Airflow."""
        return self.folder / "mlops"

    def log(self, name: str) -> Path:
        """Return the log of the server *name*."""
        return self.folder / "servers" / name / "log"

    @cached_property
    def _jobs(self) -> ProcessBackend:
        return ProcessBackend(self.folder / "servers", grace=_GRACE)

    @cached_property
    def _ports(self) -> dict[str, int]:
        ports = {}
        for name in ("airflow", "mlflow", "worker logs", "trigger logs"):
            ports[name], holder = _hold_port()
            self._held.append(holder)
        return ports

    @property
    def airflow_url(self) -> str:
        """Address of Airflow's UI and API."""
        return f"http://localhost:{self._ports['airflow']}"

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow server."""
        return f"http://127.0.0.1:{self._ports['mlflow']}"

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
            "AIRFLOW__API__PORT": str(self._ports["airflow"]),
            "AIRFLOW__API__BASE_URL": self.airflow_url,
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
            # Nobody listens there, and no other Airflow of this machine is asked: logs are read from the disk.
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(self._ports["worker logs"]),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(self._ports["trigger logs"]),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW__MLOPS__STORAGE": str(self.storage),
            "AIRFLOW__MLOPS__TARGET": "demo",
            "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": self.mlflow_url}),
            **self.environment,
        }

    def _plain_environment(self) -> dict[str, str]:
        """Return this process's environment without what configures other installations; TMPDIR is the job's own."""
        others = ("AIRFLOW", "MLFLOW", "MLOPS", "TMPDIR")
        return {
            **{key: value for key, value in os.environ.items() if key.isidentifier() and not key.startswith(others)},
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
        self._start(
            "mlflow",
            (
                *("mlflow", "server", "--host", "127.0.0.1", "--port", str(self._ports["mlflow"])),
                *("--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"),
                *("--artifacts-destination", str(self.folder / "artifacts"), "--workers", "1"),
            ),
            {**self._plain_environment(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
        self._start("database", ("airflow", "db", "migrate"), self.airflow_environment())
        while not (made := self._jobs.status("database").phase).is_final:
            time.sleep(0.1)
        if made is not JobPhase.SUCCEEDED:
            raise ServiceError(f"Airflow's database could not be made. See {self.log('database')}.")
        self._servers.remove("database")
        for component in _COMPONENTS:
            self.start_airflow(component)

    def start_airflow(self, component: str, *, again: int = 0) -> str:
        """
        Start ``scheduler``, ``triggerer``, ``api-server`` or ``dag-processor``; return the server's name.

        :param again: how often it has ended.
        """
        name = f"{component}-{again}" if again else component
        self._start(name, ("airflow", component, *_COMPONENTS[component]), self.airflow_environment())
        return name

    def _take_folder(self) -> None:
        marker = self.folder / _MARKER
        if self.folder.exists() and any(self.folder.iterdir()) and not marker.exists():
            raise ConfigError(f"{self.folder} is not empty and not of an earlier demo. Name another folder.")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = marker.open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends, in whatever way
        except BlockingIOError:
            lock.close()
            raise ConfigError(f"Another demo runs in {self.folder}. Stop it, or name another folder.") from None
        self._marker = lock
        self._wait_until_gone(path.name for path in (self.folder / "servers").glob("*"))  # of one that was killed
        for left in self.folder.iterdir():
            if left != marker:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        self.dags.mkdir()
        # Airflow makes up a password too, and prints it into its log.
        self._password_file.parent.mkdir()
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(json.dumps({"admin": secrets.token_urlsafe(12)}) + "\n")

    def _start(self, name: str, module: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._servers.append(name)
        command = (sys.executable, "-m", *module)
        self._jobs.submit(JobSpec(name, command, environment, files=self.folder, run_timeout=_RUN_TIMEOUT))

    def _wait_until_gone(self, names: Iterable[str]) -> None:
        """:raises ServiceError: one of the servers *names* is still there after half a minute."""
        deadline = time.monotonic() + _GONE_WITHIN
        for name in names:
            while self._jobs.status(name).phase is JobPhase.RUNNING:
                if time.monotonic() > deadline:
                    raise ServiceError(f"{name} of the stack in {self.folder} does not end. See {self.log(name)}.")
                time.sleep(0.1)

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
            for name in self._servers:
                if (status := self._jobs.status(name)).phase.is_final:
                    raise ServiceError(f"{name} has ended. {status.reason} See {self.log(name)}.")
            if time.monotonic() > deadline:
                raise ServiceError(f"{', '.join(waiting)} did not become healthy. See {self.log('*')}.")
            time.sleep(0.5)

    def client(self) -> AirflowClient:
        """Return a client logged in as ``admin``."""
        return AirflowClient(self.airflow_url, "admin", self.password)

    def stop(self) -> None:
        """Stop everything that was started here: servers, tasks, jobs, and the local model servers."""
        from airflow_provider_mlops.serving import local

        try:
            if self._marker is not None:  # else it is another stack's
                local.stop(self.storage / "serving")  # first, so that it answers what it was asked
        finally:
            for name in self._servers:
                self._jobs.cancel(name)
            self._wait_until_gone(self._servers)
            self._servers.clear()
            for holder in self._held:
                holder.close()
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
