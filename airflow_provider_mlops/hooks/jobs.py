"""Runs a job of user code and waits for it in this task; the job's log is the task's log."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import ConfigError, did_you_mean
from airflow_provider_mlops.hooks.settings import require_local_executor, storage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_mlops.hooks.log import Log
    from airflow_provider_mlops.jobs import JobBackend, JobSpec, JobStatus

__all__ = [
    "end_job",
    "fresh_number",
    "identity",
    "job_backend",
    "python_of",
    "run_job",
    "variables_of",
    "with_variables",
]

_POLL = 0.2  # seconds
_KINDS = ("process",)
_SECRET = 8  # characters from which on the value of a variable may be a secret; "1" in a log is none
_PATIENCE = 60.0  # seconds; more than a backend needs to end a job that ran too long
_TAIL = 20  # lines of the log that an error repeats


def _kind_and_options(runs_on: str | Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return ``("process", {"python": ...})`` for what a user writes: ``process`` or ``{process: {...}}``."""
    options: Mapping[str, Any] = {}
    if isinstance(runs_on, str):
        kind = runs_on
    elif len(runs_on) == 1:
        kind, options = next((key, value or {}) for key, value in runs_on.items())
    else:
        raise ConfigError(f"runs_on names one place to run, got {sorted(runs_on)}.")
    if kind not in _KINDS:
        raise ConfigError(f"runs_on: {kind!r} is unknown.{did_you_mean(kind, _KINDS)} Known: {', '.join(_KINDS)}.")
    return kind, options


def python_of(runs_on: str | Mapping[str, Any]) -> str:
    """Return the Python interpreter that the job uses; by default the one of this worker."""
    return str(_kind_and_options(runs_on)[1].get("python") or sys.executable)


def variables_of(runs_on: str | Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the worker's variables that the job gets. :raises ConfigError: one that no job may get."""
    from airflow_provider_mlops.pipeline.checks import variable_problem

    names = tuple(_kind_and_options(runs_on)[1].get("environment") or ())
    for name in names:
        if problem := variable_problem(name):
            raise ConfigError(f"runs_on.process.environment: {problem}")
    return names


def with_variables(spec: JobSpec, names: Sequence[str]) -> JobSpec:
    """
    Return *spec* with the variables *names* of this worker, those aside that it lacks or that *spec* sets itself.

    Their values are hidden in the job's log as secrets are, unless they are too short to be any.
    """
    known = {*spec.environment, *spec.secret_environment}
    passed = {name: os.environ[name] for name in names if name in os.environ and name not in known}
    secret = {name: value for name, value in passed.items() if len(value) >= _SECRET}
    plain = {name: value for name, value in passed.items() if name not in secret}
    return replace(
        spec,
        environment={**plain, **spec.environment},
        secret_environment={**secret, **spec.secret_environment},
    )


def job_backend(runs_on: str | Mapping[str, Any]) -> JobBackend:
    """Return the backend that *runs_on* names. :raises ConfigError: an unknown one, or one unfit for the executor."""
    _kind_and_options(runs_on)
    from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend

    require_local_executor("runs_on: process")
    return ProcessBackend(storage() / "jobs")


def identity(context: Context) -> tuple[str, str, str, int]:
    """Return what names a task instance over all its attempts: DAG, run, task, and map index (-1: not mapped)."""
    ti = context["ti"]
    return ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index


def fresh_number(backend: JobBackend, task: tuple[str, str, str, int]) -> int:
    """Return the lowest number of a job of this task instance that was never submitted: for jobs cheap to repeat."""
    from airflow_provider_mlops.jobs import JobPhase, job_name

    n = 1
    while backend.status(job_name(*task, n)).phase is not JobPhase.UNKNOWN:
        n += 1
    return n


def run_job(backend: JobBackend, spec: JobSpec, log: Log, *, patience: float = _PATIENCE) -> tuple[JobStatus, str]:
    """
    Submit *spec* if it is not there yet, copy its log line by line to *log*, wait for its end.

    Returns the final status and the last lines of the log. The values of *spec*'s secrets are hidden in all of them: a
    script, or a pickle that it loads, may print its environment.

    :param patience: seconds beyond *spec*'s ``run_timeout`` after which the job is killed by this process: what runs it
        should have ended it by then, but the job may have stopped that.
    """
    from airflow_provider_mlops.jobs import JobPhase, JobStatus

    secrets = sorted(filter(None, spec.secret_environment.values()), key=len, reverse=True)

    def shown(line: str) -> str:
        for secret in secrets:
            line = line.replace(secret, "***")
        return line

    backend.submit(spec)
    offset, rest, tail = 0, "", [""]
    deadline: float | None = None
    while True:
        status = backend.status(spec.name)
        if status.phase is JobPhase.UNKNOWN:  # it was submitted, so what was kept of it is gone: do not wait for ever
            status = JobStatus(JobPhase.LOST, None, "Its state was removed while it ran.")
        if status.phase is JobPhase.RUNNING:
            deadline = deadline or time.monotonic() + spec.run_timeout.total_seconds() + patience
            if time.monotonic() >= deadline:
                backend.kill(spec.name)
                reason = f"It ran longer than its run_timeout of {spec.run_timeout}, and what runs it did not end it."
                status = JobStatus(JobPhase.TIMED_OUT, None, reason)
        final = status.phase.is_final
        text, offset = backend.logs(spec.name, offset)
        while text:
            *lines, rest = (rest + text).split("\n")
            lines = [shown(line) for line in lines]
            for line in lines:
                log.info("%s", line)
            tail = [*tail, *lines][-_TAIL:]
            text, offset = backend.logs(spec.name, offset)
        if final:
            break
        time.sleep(_POLL)
    if rest := shown(rest):
        log.info("%s", rest)
    return status, "\n".join(line for line in [*tail, rest] if line.strip())


def end_job(backend: JobBackend, name: str, *, patience: float = _PATIENCE) -> None:
    """
    End a job and wait until it is over.

    :param patience: seconds after which a job that was asked to end is killed.
    """
    from airflow_provider_mlops.jobs import JobPhase

    backend.cancel(name)
    deadline = time.monotonic() + patience
    while (phase := backend.status(name).phase) is not JobPhase.UNKNOWN and not phase.is_final:
        if time.monotonic() >= deadline:
            backend.kill(name)
            return
        time.sleep(_POLL)
