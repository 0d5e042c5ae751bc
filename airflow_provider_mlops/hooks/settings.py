"""What the ``[mlops]`` section of the Airflow configuration says."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import conf, get_current_context
from airflow.sdk.exceptions import AirflowNotFoundException

from airflow_provider_mlops.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SECTION", "named_connection", "require_local_executor", "storage", "target"]

SECTION = "mlops"


def storage() -> Path:
    """
    Return the folder for data snapshots, job logs, reports, local serving and the default journal.

    ``[mlops] storage``; by default ``mlops`` below the Airflow home. Made by whoever writes first.
    """
    configured = conf.get(SECTION, "storage", fallback="")
    if not configured:
        return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser() / "mlops"
    folder = Path(configured).expanduser()
    if not folder.is_absolute():
        raise ConfigError(f"[mlops] storage must be an absolute path, got {configured!r}.")
    return folder


def target() -> str | None:
    """Return the name of the ``targets:`` entry that pipelines use here, ``[mlops] target``, or ``None``."""
    return conf.get(SECTION, "target", fallback="") or None


@contextmanager
def named_connection(conn_id: str, kind: str) -> Iterator[None]:
    """
    Say of a connection of type *kind* that is not there how to make it.

    :raises NotFoundError: no `ConfigError`, since Airflow says the same where it could not ask: a retry may help.
    """
    try:
        yield
    except AirflowNotFoundException as error:
        hint = (
            f"Add one of type {kind} in Airflow (Admin > Connections), or set AIRFLOW_CONN_{conn_id.upper()} in the "
            "environment."
        )
        raise NotFoundError("Connection", conn_id, hint=hint) from error


def require_local_executor(what: str) -> None:
    """
    Of several executors the one that the running task is assigned to counts, which has to be the LocalExecutor.

    :raises ConfigError: this task may run on several machines, and *what* works on one only.
    """
    configured = conf.get("core", "executor", fallback="LocalExecutor")
    executor = _executor(configured)
    if os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD"):
        # Airflow's Helm chart tells the pod that its executor is the LocalExecutor.
        configured = executor = "KubernetesExecutor"
    if executor.rpartition(".")[2] != "LocalExecutor":
        several = ' Assign the task to it: executor="LocalExecutor".' if "LocalExecutor" in configured else ""
        raise ConfigError(
            f"{what} works on one machine, so with LocalExecutor only; this deployment runs {configured}.{several}"
        )


def _executor(configured: str) -> str:
    """Return the entry of *configured* that runs this task; ``""`` where that cannot be known."""
    if any(mark in configured for mark in ";="):  # executors of teams
        return ""
    entries = [entry.strip() for entry in configured.split(",")]
    if len(entries) == 1:
        return entries[0]
    try:
        assigned = get_current_context()["task"].executor or entries[0]
    except RuntimeError:  # no task runs
        return ""
    names = {name: entry for entry in entries for name in (entry, *entry.split(":"), entry.rpartition(".")[2])}
    return names.get(assigned, "")
