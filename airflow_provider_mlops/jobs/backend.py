"""A job as values, and the port to what runs it: a child process, a container, a Kubernetes Job."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from airflow_provider_mlops.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["JobBackend", "JobPhase", "JobSpec", "JobStatus", "check_job_name"]

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class JobPhase(StrEnum):
    """Where a job is in its life."""

    PENDING = "pending"
    """Accepted, but its code does not run yet."""
    RUNNING = "running"
    """Its code runs."""
    SUCCEEDED = "succeeded"
    """Its code ended with exit code 0."""
    FAILED = "failed"
    """Its code ended with another exit code, could not be started, or was canceled."""
    TIMED_OUT = "timed_out"
    """It ran longer than it was allowed to, and was ended."""
    LOST = "lost"
    """It ended without leaving an outcome: what kept it alive died. Nothing of it runs any more."""
    UNKNOWN = "unknown"
    """The backend has never heard of it."""

    @property
    def is_final(self) -> bool:
        """Whether a job in this phase stays in it."""
        return self in {JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.TIMED_OUT, JobPhase.LOST}


@dataclass(frozen=True)
class JobSpec:
    """
    What to run, and with what.

    :param name: the job's identity: 1 to 63 of ``a-z 0-9 -``, with a letter or digit at either end.
    :param command: program and arguments; no shell reads it.
    :param environment: variables that may be seen by anybody who may see the job.
    :param secret_environment: variables that must not be written anywhere; kept out of ``repr``.
    :param files: local folder that the job starts in; ``None`` gives it an empty one.
    :param run_timeout: how long its code may run.
    :raises ConfigError: a name, a variable, a command or a timeout that cannot be.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    secret_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Path | None = None
    run_timeout: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        check_job_name(self.name)
        if not self.command or not all(isinstance(word, str) and "\0" not in word for word in self.command):
            raise ConfigError(f"Job {self.name!r}: the command must be one or more strings without NUL.")
        if self.run_timeout <= timedelta(0):
            raise ConfigError(f"Job {self.name!r}: run_timeout must be longer than 0, got {self.run_timeout}.")
        for key, value in (*self.environment.items(), *self.secret_environment.items()):
            # The value is not shown: it may be a secret.
            if _VARIABLE.fullmatch(key) is None or not isinstance(value, str) or "\0" in value:
                raise ConfigError(
                    f"Job {self.name!r}: {key!r} is no environment variable: a name of letters, digits and '_', and a "
                    "string without NUL."
                )
        if twice := sorted(self.environment.keys() & self.secret_environment.keys()):
            raise ConfigError(f"Job {self.name!r}: {twice} are both plain and secret. Give each variable once.")


@dataclass(frozen=True, slots=True)
class JobStatus:
    """
    What a backend knows about a job.

    :param exit_code: of its code, when that ended; negative when a signal ended it.
    :param reason: a sentence; empty while there is nothing to explain.
    """

    phase: JobPhase
    exit_code: int | None = None
    reason: str = ""


class JobBackend(Protocol):
    """
    Runs jobs that are told apart by name alone.

    Every method may raise `ServiceError`, and `ConfigError` for a name that is none. Logs are read by offset, so that
    a reader which was interrupted goes on where it stopped.
    """

    def submit(self, spec: JobSpec) -> None:
        """Start the job, unless a job of this name was ever submitted: then nothing happens."""

    def status(self, name: str) -> JobStatus:
        """Return what is known; ``UNKNOWN`` for a name that was never submitted."""

    def logs(self, name: str, after: int = 0) -> tuple[str, int]:
        """
        Return text that the job has written after the offset *after*, and the offset to ask with next.

        One call returns a page; ask again until the text is empty. Bytes that are no UTF-8 become U+FFFD.
        """

    def cancel(self, name: str) -> None:
        """Ask for the job's end; it becomes ``FAILED`` soon. Nothing happens when it has ended or is unknown."""

    def kill(self, name: str) -> None:
        """
        End the job at once, with what runs it: for one that outlived its ``run_timeout``, and becomes ``TIMED_OUT``.

        Nothing happens when it has ended or is unknown.
        """


def check_job_name(name: str) -> str:
    """Return *name* when it can name a job. :raises ConfigError: it cannot."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"{name!r} is no job name. Use 1 to 63 of a-z, 0-9 and '-', with a letter or digit at either end."
        )
    return name
