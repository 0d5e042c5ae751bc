"""Trains a registered version once more from its record, to see whether the same comes out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from airflow_provider_mlops.errors import ConfigError, DataError, JobFailedError, NotFoundError
from airflow_provider_mlops.hooks.jobs import run_job
from airflow_provider_mlops.hooks.mlflow import MlflowHook
from airflow_provider_mlops.hooks.settings import storage
from airflow_provider_mlops.hooks.training import training_job
from airflow_provider_mlops.jobs.record import (
    ENVIRONMENT_PATH,
    REPLAY_TAG,
    MetricPair,
    TrainingRecord,
    compare_metrics,
    differing_packages,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from airflow_provider_mlops.adapters.code import FrozenScript
    from airflow_provider_mlops.hooks.log import Log
    from airflow_provider_mlops.jobs import LoggedModel, Run

__all__ = ["Replay", "replay"]


@dataclass(frozen=True)
class Replay:
    """
    How a replay came out.

    :param run_id: run that made the version.
    :param replayed_run_id: run that repeated it.
    :param environment: what differs between the packages then and now, a phrase for each; none when nothing does.
    :param metrics: every metric of both runs.
    :param files: for each file of the model whether its bytes are the same; ``None``: only one of the two has it.
    """

    run_id: str
    replayed_run_id: str
    environment: Sequence[str]
    metrics: Sequence[MetricPair]
    files: Mapping[str, bool | None]


def replay(
    model: str,
    version: str,
    *,
    python: str | None = None,
    tolerance: float = 1e-6,
    ignore: Sequence[str] = (),
    run_timeout: timedelta,
    mlflow_conn_id: str = "mlflow_default",
    log: Log,
) -> Replay:
    """
    Train *version* of *model* again from what its run recorded, in a new run that is never registered.

    Data and code are those that were frozen, checked by their digests. The packages are those of the interpreter now;
    what has changed in them is told.

    :param python: interpreter to use instead of the recorded one.
    :param tolerance: see `compare_metrics`.
    :param ignore: metrics that are not compared.
    :raises DataError: the record is incomplete, or the frozen data or the script is not there or was changed.
    :raises ConfigError: the interpreter is not there.
    :raises JobFailedError: the script fails now.
    """
    from airflow_provider_mlops.adapters.interpreter import describe
    from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend
    from airflow_provider_mlops.adapters.snapshots import verify
    from airflow_provider_mlops.data.values import DataRef, DataVersion

    hook = MlflowHook(mlflow_conn_id)
    tracking = hook.tracking
    what = f"{model} version {version}"
    found = hook.registry.version(model, version)
    if found.run_id is None:
        raise DataError(f"{what} was registered by hand, from no run: there is nothing to replay.")
    run = tracking.run(found.run_id)
    record = TrainingRecord.of(run.tags, f"MLflow run {run.run_id} of {what}")
    data = DataVersion(record.data_uri, record.data_digest, rows=0)
    verify(data)
    code = _frozen_script(record, what)
    interpreter = python or record.python
    if not Path(interpreter).is_file():
        raise ConfigError(
            f"The interpreter {interpreter!r} that trained {what} (Python {record.python_version}) is not there. "
            "Make it again from the list of packages in the run's mlops/environment.txt, or name another by --python."
        )
    now = describe(interpreter)
    again = tracking.create_run(
        run.experiment_id,
        name=f"replay of {what}",
        tags={
            **record.tags(),
            "mlops.python": interpreter,
            "mlops.python_version": now.version,
            "mlops.environment_digest": now.digest,
            REPLAY_TAG: run.run_id,
        },
    )
    status = "KILLED"
    try:
        tracking.log_text(again.run_id, now.packages, ENVIRONMENT_PATH)
        spec = training_job(
            hook,
            name=f"replay-{again.run_id}",
            run=again,
            code=code,
            python=interpreter,
            data=data,
            columns=DataRef(record.data_uri, label=record.label, timestamp=record.timestamp),
            hyperparameters=record.hyperparameters_of(),
            seed=int(record.seed),
            run_timeout=run_timeout,
            variables=(record.variables or "").split(),
        )
        outcome, tail = run_job(ProcessBackend(storage() / "jobs"), spec, log)
        models = tracking.models(again.run_id)
        if outcome.phase.value != "succeeded" or len(models) != 1:
            status = "FAILED"
            raise JobFailedError(
                f"The replay of {what}, MLflow run {again.run_id}, ended as {outcome.phase.value} with {len(models)} "
                f"models: {outcome.reason}",
                tail=tail,
            )
        status = "FINISHED"
    finally:
        tracking.end_run(again.run_id, status)
    return Replay(
        run_id=run.run_id,
        replayed_run_id=again.run_id,
        environment=_environment(hook, run, record, now.version, now.packages),
        metrics=compare_metrics(run.metrics, tracking.run(again.run_id).metrics, tolerance, ignore),
        files=_compare_files(hook, found.source, models[0]),
    )


def _frozen_script(record: TrainingRecord, what: str) -> FrozenScript:
    """Return the script's copy. :raises DataError: it is not there, or is not what ran."""
    from airflow_provider_mlops.adapters.code import FrozenScript, code_digest, frozen_folder, read_code

    folder = frozen_folder(record.code_digest, storage())
    file = folder / record.script
    if not file.is_file():
        commit = f" It is {record.script} of git commit {record.commit}." if record.commit else ""
        raise DataError(
            f"The script that trained {what} is not at {file}.{commit} Put it there, or restore the storage folder."
        )
    digest = code_digest(read_code(file), record.script)
    if digest != record.code_digest:
        raise DataError(
            f"The script {file}, or a module beside it, was changed: the digest is {digest}, and {record.code_digest} "
            f"trained {what}. Restore it; find out who writes there."
        )
    return FrozenScript(folder, record.script, record.code_digest, record.commit)


def _environment(hook: MlflowHook, run: Run, record: TrainingRecord, version: str, packages: str) -> list[str]:
    changed = [f"Python {record.python_version} -> {version}"] if version != record.python_version else []
    try:
        return changed + differing_packages(hook.tracking.read_text(run.run_id, ENVIRONMENT_PATH), packages)
    except NotFoundError:
        return [*changed, "the run's list of packages is gone"]


def _compare_files(hook: MlflowHook, source: str, again: LoggedModel) -> dict[str, bool | None]:
    from airflow_provider_mlops.adapters.model_files import file_digests

    with TemporaryDirectory() as folder:
        before = file_digests(hook.tracking.download_model(source, Path(folder, "before")))
        after = file_digests(hook.tracking.download_model(again.uri, Path(folder, "after")))
    return {
        name: before[name] == after[name] if name in before and name in after else None
        for name in sorted({*before, *after})
    }
