"""The port to an experiment tracker: runs, what is logged on them, and the models that they made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from airflow_provider_mlops.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "FINAL_STATUSES",
    "LoggedModel",
    "Run",
    "Tracking",
    "check_artifact_path",
    "check_experiment_name",
    "check_final_status",
]

FINAL_STATUSES = ("FINISHED", "FAILED", "KILLED")
"""What a run can end as."""

_PATH_PART = re.compile(r"[^/\\#?%\x00-\x1f\x7f]+")


@dataclass(frozen=True, slots=True)
class Run:
    """
    One run of an experiment.

    :param run_id: the tracker's own identifier.
    :param experiment_id: the experiment it belongs to.
    :param name: what a person calls it.
    :param status: ``SCHEDULED``, ``RUNNING`` or one of `FINAL_STATUSES`.
    :param tags: what is written on the run, the tracker's own tags included.
    :param metrics: the latest value of every metric.
    :param params: every parameter; a parameter never changes once logged.
    :param artifact_uri: where the run's files lie.
    """

    run_id: str
    experiment_id: str
    name: str
    status: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    params: Mapping[str, str]
    artifact_uri: str


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """
    A complete model that a run has logged.

    :param model_id: ``m-`` and the tracker's identifier.
    :param uri: ``models:/`` and the identifier: what serving, scoring and the registry take.
    :param name: the name it was logged under.
    :param has_signature: whether the model says which columns it takes and gives.
    :param artifact_uri: the folder with its files.
    """

    model_id: str
    uri: str
    name: str
    has_signature: bool
    artifact_uri: str


class Tracking(Protocol):
    """
    Experiments, runs and their files.

    Every method may raise `ServiceError` when the tracker cannot be reached or refuses, `NotFoundError` for a run that
    does not exist, and `ConfigError` for a value that no tracker could hold. Only `create_run` makes something new
    each time; every other write may be repeated.
    """

    def experiment(self, name: str) -> str:
        """Return the identifier of the experiment *name*; create it when missing. Safe when two ask at once."""

    def create_run(self, experiment_id: str, *, name: str, tags: Mapping[str, str]) -> Run:
        """Start a run and return it. :raises NotFoundError: no such experiment."""

    def run(self, run_id: str) -> Run:
        """Return one run as it is now."""

    def find_runs(self, experiment_id: str, *, tags: Mapping[str, str]) -> list[Run]:
        """Return the runs of an experiment that carry all of *tags*, newest first. Deleted runs are left out."""

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """
        Write on a run, whether it has ended or not.

        :raises ConfigError: a parameter is there already with another value; parameters never change.
        """

    def end_run(self, run_id: str, status: str) -> None:
        """End a run as one of `FINAL_STATUSES`."""

    def models(self, run_id: str) -> list[LoggedModel]:
        """Return the complete models that a run has logged, newest first. Half-logged ones are left out."""

    def log_text(self, run_id: str, text: str, path: str) -> None:
        """Store *text* as UTF-8 under *path* of the run's files; what was there is replaced."""

    def read_text(self, run_id: str, path: str) -> str:
        """Return a file of the run as text. :raises NotFoundError: no such file."""

    def read_model_text(self, uri: str, path: str) -> str:
        """
        Return one file of a model as text, without copying the others.

        :param uri: as `download_model` takes it.
        :raises NotFoundError: no such model or file.
        """

    def download_model(self, uri: str, destination: Path) -> Path:
        """
        Copy a model's files to *destination*, a folder, and return it.

        *destination* appears at once and complete. When it is there already it is returned as it is.

        :param uri: ``models:/m-...``, ``models:/NAME/VERSION``, ``models:/NAME@ALIAS`` or where the files lie.
        :raises NotFoundError: no such model.
        """


def check_artifact_path(path: str) -> str:
    """
    Return *path* when it stays below a run's folder.

    :raises ConfigError: empty, absolute, with ``.`` or ``..`` as a part, with ``# ? %``, a back-slash or a control
        character: a tracker reads paths as parts of URLs.

    >>> check_artifact_path("reports/drift.json")
    'reports/drift.json'
    """
    parts = path.split("/") if isinstance(path, str) else [""]
    if not all(_PATH_PART.fullmatch(part) and part not in {".", ".."} for part in parts):
        raise ConfigError(
            f"{path!r} is no path of a run's file. Write it relative to the run, with '/' between its parts and "
            "without '.', '..', '#', '?' or '%', for instance 'reports/drift.json'."
        )
    return path


def check_experiment_name(name: str) -> str:
    """Return *name* when it can name an experiment. :raises ConfigError: it is blank or longer than 500 characters."""
    if not isinstance(name, str) or not name.strip() or len(name) > 500:
        raise ConfigError(f"{name!r} is no name for an experiment. Use 1 to 500 characters that are not all blank.")
    return name


def check_final_status(status: str) -> str:
    """Return *status* when a run can end as that. :raises ConfigError: it cannot."""
    if status not in FINAL_STATUSES:
        raise ConfigError(f"A run cannot end as {status!r}. Use one of {', '.join(FINAL_STATUSES)}.")
    return status
