"""Runs a training script as a job, however often the task that wants it is killed and run again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowTaskTimeout

from airflow_provider_mlops.errors import ConfigError, JobFailedError
from airflow_provider_mlops.hooks.jobs import identity, job_backend, python_of, run_job, variables_of, with_variables
from airflow_provider_mlops.hooks.journal import record_once
from airflow_provider_mlops.hooks.mlflow import MlflowHook
from airflow_provider_mlops.hooks.settings import storage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta
    from pathlib import Path

    from airflow.sdk import Context

    from airflow_provider_mlops.adapters.code import FrozenScript
    from airflow_provider_mlops.adapters.interpreter import Interpreter
    from airflow_provider_mlops.data.values import DataRef, DataVersion
    from airflow_provider_mlops.hooks.log import Log
    from airflow_provider_mlops.jobs import JobBackend, JobSpec, LoggedModel, Run

__all__ = ["PROFILE_PATH", "Training", "hyperparameters_of", "train", "training_job"]

PROFILE_PATH = "mlops/profile.json"
"""Where a run keeps the profile of its training data."""


@dataclass(frozen=True)
class Training:
    """What is trained, on what and where. The fields are those of `TrainOperator`, rendered."""

    experiment: str
    model: str
    script: Path
    data: DataVersion
    columns: DataRef
    hyperparameters: Mapping[str, Any]
    seed: int
    runs_on: str | Mapping[str, Any]
    run_timeout: timedelta
    profile_block: timedelta | None
    profile_segment: str | None
    profile_text_columns: Sequence[str] | None
    request_key: str
    mlflow_conn_id: str


def hyperparameters_of(value: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the hyperparameters that a mapping, or a JSON object in a string, holds. :raises ConfigError: neither."""
    if value is None:
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ConfigError(f"hyperparameters: {value!r} is no JSON object: {error}.") from error
    if not isinstance(value, dict):
        raise ConfigError(f"hyperparameters: expected a mapping, got {value!r}.")
    return dict(value)


def train(training: Training, context: Context, log: Log) -> tuple[Run, LoggedModel]:
    """
    Bring *training* to its end and return the MLflow run with the one model that it logged.

    Adopts what an earlier attempt of the same task instance left: see `airflow_provider_mlops.jobs.identity`.

    :raises JobFailedError: the script failed, ran too long, or did not log exactly one model with a signature.
    """
    from airflow_provider_mlops.adapters.code import freeze_script
    from airflow_provider_mlops.adapters.interpreter import describe
    from airflow_provider_mlops.jobs import Outcome, job_name
    from airflow_provider_mlops.jobs.identity import OUTCOME_TAG, Step, next_step
    from airflow_provider_mlops.journal import kinds, payloads
    from airflow_provider_mlops.retraining import request_key

    hook = MlflowHook(training.mlflow_conn_id)
    tracking = hook.tracking
    experiment_id = tracking.experiment(training.experiment)
    backend = job_backend(training.runs_on)
    code = freeze_script(training.script, storage())
    interpreter = describe(python_of(training.runs_on))
    key = training.request_key or request_key(
        training.model, training.data.digest, code.digest, training.hyperparameters
    )
    task = identity(context)
    while True:
        run, n = _run_to_work_on(training, context, experiment_id)
        name = job_name(*task, n)
        step = next_step(backend.status(name).phase)
        if step is not Step.REPLACE:
            break
        log.warning("Job %s was lost together with the task attempt that started it. It is run again.", name)
        tracking.end_run(run.run_id, "KILLED")  # the tag comes last: without it the next attempt does this again
        tracking.log(run.run_id, tags={OUTCOME_TAG: Outcome.LOST.value})
    if step is Step.SUBMIT:
        _record(training, code, interpreter, run)
    log.info("Training in MLflow run %s as job %s.", run.run_id, name)
    started = payloads.training_started(key=key, run_id=run.run_id, data_digest=training.data.digest, job=name)
    record_once(training.model, kinds.TRAINING_STARTED, started, context, once=("run_id",))
    spec = training_job(
        hook,
        name=name,
        run=run,
        code=code,
        python=python_of(training.runs_on),
        data=training.data,
        columns=training.columns,
        hyperparameters=training.hyperparameters,
        seed=training.seed,
        run_timeout=training.run_timeout,
        variables=variables_of(training.runs_on),
    )
    try:
        model = _finish(training, backend, spec, run, log)
    except JobFailedError as error:
        outcome = Outcome.TIMED_OUT if backend.status(name).phase.value == "timed_out" else Outcome.FAILED
        failed = payloads.training_failed(key=key, run_id=run.run_id, reason=outcome.value, sentence=error.sentence)
        record_once(training.model, kinds.TRAINING_FAILED, failed, context, once=("run_id",))
        tracking.end_run(run.run_id, "FAILED")
        tracking.log(run.run_id, tags={OUTCOME_TAG: outcome.value})
        raise
    except (SystemExit, AirflowTaskTimeout):
        tracking.end_run(run.run_id, "KILLED")  # without an outcome, so a retry looks at what became of the job
        raise
    finished = payloads.training_finished(
        key=key, run_id=run.run_id, metrics=tracking.run(run.run_id).metrics, model_uri=model.uri
    )
    record_once(training.model, kinds.TRAINING_FINISHED, finished, context, once=("run_id",))
    tracking.end_run(run.run_id, "FINISHED")
    tracking.log(run.run_id, tags={OUTCOME_TAG: Outcome.SUCCEEDED.value})
    return run, model


def training_job(
    hook: MlflowHook,
    *,
    name: str,
    run: Run,
    code: FrozenScript,
    python: str,
    data: DataVersion,
    columns: DataRef,
    hyperparameters: Mapping[str, Any],
    seed: int,
    run_timeout: timedelta,
    variables: Sequence[str],
) -> JobSpec:
    """Return the job that runs a frozen script for *run*: the same for a training and for its replay."""
    from airflow_provider_mlops.jobs import JobSpec, training_environment

    plain, secret = hook.job_environment()
    environment = training_environment(
        tracking_uri=hook.tracking_uri,
        run_id=run.run_id,
        experiment_id=run.experiment_id,
        data=data,
        columns=columns,
        hyperparameters=hyperparameters,
        seed=seed,
    )
    spec = JobSpec(
        name=name,
        command=(python, "-u", str(code.folder / code.name)),
        # The order of a set, and with it the bytes of a model, would else be another each time.
        environment={**plain, **environment, "PYTHONHASHSEED": str(seed)},
        secret_environment=secret,
        run_timeout=run_timeout,
    )
    return with_variables(spec, variables)


def _run_to_work_on(training: Training, context: Context, experiment_id: str) -> tuple[Run, int]:
    """Return the MLflow run that this attempt works on and its number; make the run when there is none."""
    from airflow_provider_mlops.jobs.identity import GENERATION_TAG, Adopt, identity_tags, next_attempt

    tracking = MlflowHook(training.mlflow_conn_id).tracking
    task = identity(context)
    # Airflow raises max_tries when a task is cleared, and leaves it alone when it retries.
    generation = str(context["ti"].max_tries)
    while True:
        step = next_attempt(tracking.find_runs(experiment_id, tags=identity_tags(*task)), generation)
        if isinstance(step, Adopt):
            return step.run, step.n
        tags = {**identity_tags(*task, step.n), GENERATION_TAG: generation}
        tracking.create_run(experiment_id, name=f"{task[0]} {task[1]}", tags=tags)


def _record(training: Training, code: FrozenScript, interpreter: Interpreter, run: Run) -> None:
    """
    Write down what the job is about to be, for its replay.

    Before every submission: the attempt that made the run may have ended too soon, and the script was changed since.
    """
    from airflow_provider_mlops.jobs.record import ENVIRONMENT_PATH, TrainingRecord

    record = TrainingRecord(
        data_uri=training.data.uri,
        data_digest=training.data.digest,
        code_digest=code.digest,
        script=code.name,
        hyperparameters=json.dumps(dict(training.hyperparameters), sort_keys=True),
        seed=str(training.seed),
        python=python_of(training.runs_on),
        python_version=interpreter.version,
        environment_digest=interpreter.digest,
        label=training.columns.label,
        timestamp=training.columns.timestamp,
        commit=code.commit,
        variables=" ".join(variables_of(training.runs_on)) or None,
    )
    tracking = MlflowHook(training.mlflow_conn_id).tracking
    tracking.log_text(run.run_id, interpreter.packages, ENVIRONMENT_PATH)
    tracking.log(run.run_id, tags=record.tags())


def _finish(training: Training, backend: JobBackend, spec: JobSpec, run: Run, log: Log) -> LoggedModel:
    """Wait for the job, check what it owes, and add the profile of its data to the run."""
    tracking = MlflowHook(training.mlflow_conn_id).tracking
    status, tail = run_job(backend, spec, log)
    if status.phase.value != "succeeded":
        raise JobFailedError(f"{training.script.name} ended as {status.phase.value}: {status.reason}", tail=tail)
    models = tracking.models(run.run_id)
    if len(models) != 1:
        found = ", ".join(model.name for model in models) or "none"
        raise JobFailedError(
            f"{training.script.name} ended well but logged {len(models)} models ({found}) to MLflow run {run.run_id}; "
            "one is expected. Call mlflow.<flavor>.log_model(...) once inside `with mlflow.start_run():`."
        )
    if not models[0].has_signature:
        raise JobFailedError(
            f"{training.script.name} logged its model without a signature, so nobody can check what it is asked. "
            "Pass signature=mlflow.models.infer_signature(features, predictions) or input_example=... to log_model."
        )
    _log_profile(training, run)
    return models[0]


def _log_profile(training: Training, run: Run) -> None:
    """Write the profile of the training data, the reference of later drift checks, into the run."""
    from dataclasses import replace

    from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine

    columns = training.columns
    profile = EmbeddedEngine().reference(
        replace(columns, path=training.data.uri),
        block=training.profile_block,
        exclude=[column for column in (columns.label, columns.timestamp, columns.entity) if column],
        text=training.profile_text_columns,
        segment=training.profile_segment,
    )
    MlflowHook(training.mlflow_conn_id).tracking.log_text(run.run_id, profile.to_json(), PROFILE_PATH)
