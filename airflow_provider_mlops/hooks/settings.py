"""What the ``[mlops]`` section of the Airflow configuration says."""

from __future__ import annotations

import os
from pathlib import Path

from airflow.sdk import conf

from airflow_provider_mlops.errors import ConfigError

__all__ = ["SECTION", "require_local_executor", "storage", "target"]

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


def require_local_executor(what: str) -> None:
    """:raises ConfigError: tasks of this deployment may run on several machines, and *what* works on one only."""
    executor = conf.get("core", "executor", fallback="LocalExecutor")
    if os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD"):
        # Airflow's Helm chart tells the pod that its executor is the LocalExecutor.
        executor = "KubernetesExecutor"
    if "," in executor or executor.rpartition(".")[2] != "LocalExecutor":
        raise ConfigError(f"{what} works on one machine, so with LocalExecutor only; this deployment runs {executor}.")
