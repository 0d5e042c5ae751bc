"""Runs a job of user code and waits for it in this task, with its log as the task's log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import ConfigError, JobFailedError, did_you_mean
from airflow_provider_mlops.hooks.settings import require_local_executor, storage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from logging import Logger

    from airflow_provider_mlops.jobs.backend import JobBackend, JobSpec, JobStatus

__all__ = ["job_backend", "python_of", "run_job"]

_POLL = 0.2  # seconds
_KINDS = ("process",)


def _kind_and_options(runs_on: str | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return ``("process", {"python": ...})`` for what a user writes: ``process`` or ``{process: {...}}``."""
    if isinstance(runs_on, str):
        kind, options = runs_on, {}
    elif len(runs_on) == 1:
        kind, options = next((key, value or {}) for key, value in runs_on.items())
    else:
        raise ConfigError(f"runs_on names one place to run, got {sorted(runs_on)}.")
    if kind not in _KINDS:
        raise ConfigError(f"runs_on: {kind!r} is unknown.{did_you_mean(kind, _KINDS)} Known: {', '.join(_KINDS)}.")
    return kind, options


def python_of(runs_on: str | Mapping[str, Any]) -> str:
    """Return the Python interpreter that the job uses; by default the one of this worker."""
    import sys

    return str(_kind_and_options(runs_on)[1].get("python") or sys.executable)


def job_backend(runs_on: str | Mapping[str, Any]) -> JobBackend:
    """Return the backend that *runs_on* names. :raises ConfigError: an unknown one, or one unfit for the executor."""
    _kind_and_options(runs_on)
    from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend

    require_local_executor("runs_on: process")
    return ProcessBackend(storage() / "jobs")


def run_job(backend: JobBackend, spec: JobSpec, log: Logger) -> JobStatus:
    """
    Submit *spec* if it is not there yet, copy its log line by line to *log*, return its final status.

    :raises JobFailedError: it ended in any other way than well; the message carries the end of its log.
    """
    backend.submit(spec)
    offset, rest, tail = 0, "", []
    while True:
        status = backend.status(spec.name)
        while True:
            text, following = backend.logs(spec.name, offset)
            if following == offset:
                break
            offset = following
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                log.info("%s", line)
            tail = (tail + lines)[-20:]
        if status.phase.is_final:
            break
        time.sleep(_POLL)
    if rest:
        log.info("%s", rest)
        tail.append(rest)
    if status.phase.value != "succeeded":
        end = "\n".join(line for line in tail if line.strip())
        raise JobFailedError(f"Job {spec.name} ended as {status.phase.value}: {status.reason}\nIts last lines:\n{end}")
    return status
