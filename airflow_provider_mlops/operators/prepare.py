"""Preparing data as a job outside of the task process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.operators.base import MlopsOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

__all__ = ["PrepareDataOperator"]


class PrepareDataOperator(MlopsOperator):
    """
    Run a script that makes data ready for training, and hand on the folder that it wrote.

    The script reads ``MLOPS_DATA_URI`` and writes Parquet files into the empty folder ``MLOPS_OUTPUT_URI``; it may
    read ``MLOPS_HYPERPARAMETERS`` (JSON). Returns ``{"data_uri"}``. Each run of the script has a folder of its own.

    :param script: path of the Python file. (templated)
    :param data_uri: what it reads. (templated)
    :param hyperparameters: a mapping, or a JSON object in a string. (templated)
    :param runs_on: where the job runs, see `TrainOperator`. (templated)
    :param run_timeout: the job is stopped after this time, ``30m`` or ``12h``. (templated)
    :raises JobFailedError: the script failed, ran too long, or wrote nothing.
    """

    template_fields: Sequence[str] = ("script", "data_uri", "hyperparameters", "runs_on", "run_timeout")

    def __init__(
        self,
        *,
        script: str,
        data_uri: str,
        hyperparameters: str | Mapping[str, Any] | None = None,
        runs_on: str | Mapping[str, Any] = "process",
        run_timeout: str = "1h",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.script = script
        self.data_uri = data_uri
        self.hyperparameters = hyperparameters
        self.runs_on = runs_on
        self.run_timeout = run_timeout

    def execute(self, context: Context) -> dict[str, str]:
        """Run the script."""
        import json
        from pathlib import Path

        from airflow_provider_mlops.adapters.code import freeze_script
        from airflow_provider_mlops.data.values import parse_duration
        from airflow_provider_mlops.errors import JobFailedError
        from airflow_provider_mlops.hooks.jobs import (
            fresh_number,
            identity,
            job_backend,
            python_of,
            run_job,
            variables_of,
            with_variables,
        )
        from airflow_provider_mlops.hooks.settings import storage
        from airflow_provider_mlops.hooks.training import hyperparameters_of
        from airflow_provider_mlops.jobs import JobSpec, job_name

        backend = job_backend(self.runs_on)
        code = freeze_script(Path(self.script), storage())
        task = identity(context)
        name = job_name(*task, fresh_number(backend, task))
        output = storage() / "prepared" / name
        output.mkdir(parents=True)
        spec = JobSpec(
            name=name,
            command=(python_of(self.runs_on), "-u", str(code.folder / code.name)),
            environment={
                "MLOPS_DATA_URI": self.data_uri,
                "MLOPS_OUTPUT_URI": str(output),
                "MLOPS_HYPERPARAMETERS": json.dumps(hyperparameters_of(self.hyperparameters), sort_keys=True),
            },
            run_timeout=parse_duration(self.run_timeout),
        )
        status, tail = run_job(backend, with_variables(spec, variables_of(self.runs_on)), self.log)
        if status.phase.value != "succeeded":
            raise JobFailedError(f"{code.name} ended as {status.phase.value}: {status.reason}", tail=tail)
        if not any(output.iterdir()):
            raise JobFailedError(f"{code.name} ended well but wrote nothing into the folder MLOPS_OUTPUT_URI.")
        return {"data_uri": str(output)}
