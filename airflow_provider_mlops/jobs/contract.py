"""What a job is called and what a training job is told. Pure, and the same for every backend and language."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_mlops.data.values import DataRef, DataVersion

__all__ = ["job_name", "task_instance_name", "training_environment"]

_READABLE = 22  # characters that dag and task may each keep: 22 + 22 + 10 + 6 digits of n + 3 dashes = 63


def job_name(dag_id: str, run_id: str, task_id: str, map_index: int, n: int) -> str:
    """
    Return the name of the *n*-th job of a task instance: the same for the same arguments, 63 characters at most.

    Dag and task are readable in it; ten digits of a hash keep apart what shortening or spelling would make equal.

    :param map_index: -1 for a task that is not mapped.
    :param n: 1 for the first job of this task instance.
    :raises ConfigError: *n* is not in 1..999999.

    >>> job_name("fraud__train", "manual__2026-01-01", "train", -1, 1)
    'fraud-train-train-07d4d683db-1'
    """
    if not 1 <= n <= 999_999:
        raise ConfigError(f"The number of a job must be in 1..999999, got {n}.")
    return f"{task_instance_name(dag_id, run_id, task_id, map_index)}-{n}"


def task_instance_name(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """
    Return the part of `job_name` that all jobs of a task instance share, 56 characters at most.

    >>> task_instance_name("fraud__train", "manual__2026-01-01", "train", -1)
    'fraud-train-train-07d4d683db'
    """
    identity = json.dumps([dag_id, run_id, task_id, map_index])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:10]
    return "-".join(word for word in (_slug(dag_id), _slug(task_id), digest) if word)


def training_environment(
    *,
    tracking_uri: str,
    run_id: str,
    experiment_id: str,
    data: DataVersion,
    columns: DataRef,
    hyperparameters: Mapping[str, Any],
    seed: int,
) -> dict[str, str]:
    """
    Return the environment variables that are the whole contract with a training script.

    A plain ``mlflow.start_run()`` in the script continues the run that was made for it; its model is what it owes.

    ==========================  =================================================================
    ``MLFLOW_TRACKING_URI``     where to log
    ``MLFLOW_RUN_ID``           the run to log into
    ``MLFLOW_EXPERIMENT_ID``    the experiment of that run
    ``MLOPS_DATA_URI``          the frozen data
    ``MLOPS_DATA_DIGEST``       its digest, ``sha256:...``
    ``MLOPS_HYPERPARAMETERS``   a JSON object
    ``MLOPS_SEED``              a whole number in 0..2**32-1
    ``MLOPS_LABEL``             the column to predict; not set when there is none
    ``MLOPS_TIMESTAMP``         the column with the event time; not set when there is none
    ==========================  =================================================================

    :param data: the frozen version of the data.
    :param columns: what its columns mean: only label and timestamp are read.
    :raises ConfigError: a hyperparameter is no JSON value, or the seed is out of range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ConfigError(f"The seed must be a whole number in 0..{2**32 - 1}, got {seed!r}.")
    try:
        parameters = json.dumps(dict(hyperparameters), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"The hyperparameters {dict(hyperparameters)!r} cannot be written as JSON: {error}."
        ) from error
    environment = {
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_RUN_ID": run_id,
        "MLFLOW_EXPERIMENT_ID": experiment_id,
        "MLOPS_DATA_URI": data.uri,
        "MLOPS_DATA_DIGEST": data.digest,
        "MLOPS_HYPERPARAMETERS": parameters,
        "MLOPS_SEED": str(seed),
    }
    if columns.label is not None:
        environment["MLOPS_LABEL"] = columns.label
    if columns.timestamp is not None:
        environment["MLOPS_TIMESTAMP"] = columns.timestamp
    return environment


def _slug(text: str) -> str:
    """Return the letters and digits of *text* with single dashes between them, shortened."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_READABLE].strip("-")
