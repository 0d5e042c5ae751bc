"""Training as a job outside of the task process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.links import MlflowRunLink
from airflow_provider_mlops.operators.base import MlopsOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

__all__ = ["TrainOperator"]


class TrainOperator(MlopsOperator):
    """
    Run a training script and hand on the model that it logged to MLflow.

    The MLflow run is made first and given to the script by ``MLFLOW_RUN_ID``, so a plain ``mlflow.start_run()``
    continues it; what else the script is told, see `airflow_provider_mlops.jobs.contract`. A killed attempt is picked
    up where it was; a cleared task trains anew. When it ends well the run also holds the profile of the training
    data, ``mlops/profile.json``: the reference of later drift checks.

    Returns ``{"run_id", "experiment_id", "model_uri", "model_id"}``.

    :param experiment: name of the MLflow experiment. (templated)
    :param script: path of the Python file. (templated)
    :param data_uri: frozen data, as `SnapshotDataOperator` returns it. (templated)
    :param data_digest: its digest. (templated)
    :param label_column: column to predict. (templated)
    :param timestamp_column: column with the event time. (templated)
    :param entity_column: column whose rows belong together. (templated)
    :param hyperparameters: a mapping, or a JSON object in a string. (templated)
    :param seed: a whole number >= 0. (templated)
    :param runs_on: ``"process"``, or ``{"process": {"python": PATH, "environment": [NAME]}}``: an interpreter, and the
        names of variables of the worker that the job gets too. (templated)
    :param run_timeout: the job is stopped after this time, ``30m`` or ``12h``. (templated)
    :param profile_block: length of the windows that will be checked for drift (``7d``): the profile then keeps counts
        per such span. (templated)
    :param profile_segment: column by whose values the rows are counted apart as well, so that checks judge each of
        its 10 most frequent values, and all others together. (templated)
    :param profile_text_columns: columns whose values are text, compared by length and kinds of characters, rather than
        categories, and no others; without it their values decide. (templated)
    :param model: registered model whose journal records this training; the experiment's name without it. (templated)
    :param request_key: key of the decision that asked for this training. (templated)
    :param mlflow_conn_id: the MLflow connection.
    :raises JobFailedError: the script failed, ran too long, or logged not exactly one model with a signature.
    """

    template_fields: Sequence[str] = (
        "experiment",
        "script",
        "data_uri",
        "data_digest",
        "label_column",
        "timestamp_column",
        "entity_column",
        "hyperparameters",
        "seed",
        "runs_on",
        "run_timeout",
        "profile_block",
        "profile_segment",
        "profile_text_columns",
        "model",
        "request_key",
    )
    operator_extra_links = (MlflowRunLink(),)

    def __init__(
        self,
        *,
        experiment: str,
        script: str,
        data_uri: str,
        data_digest: str = "",
        label_column: str | None = None,
        timestamp_column: str | None = None,
        entity_column: str | None = None,
        hyperparameters: str | Mapping[str, Any] | None = None,
        seed: int | str = 0,
        runs_on: str | Mapping[str, Any] = "process",
        run_timeout: str = "1h",
        profile_block: str | None = None,
        profile_segment: str | None = None,
        profile_text_columns: Sequence[str] | None = None,
        model: str | None = None,
        request_key: str = "",
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.experiment = experiment
        self.script = script
        self.data_uri = data_uri
        self.data_digest = data_digest
        self.label_column = label_column
        self.timestamp_column = timestamp_column
        self.entity_column = entity_column
        self.hyperparameters = hyperparameters
        self.seed = seed
        self.runs_on = runs_on
        self.run_timeout = run_timeout
        self.profile_block = profile_block
        self.profile_segment = profile_segment
        self.profile_text_columns = profile_text_columns
        self.model = model
        self.request_key = request_key
        self.mlflow_conn_id = mlflow_conn_id

    def execute(self, context: Context) -> dict[str, str]:
        """Train, or pick up the training that an earlier attempt left."""
        from pathlib import Path

        from airflow_provider_mlops.data.values import DataRef, DataVersion, parse_duration
        from airflow_provider_mlops.errors import ConfigError
        from airflow_provider_mlops.hooks.training import Training, hyperparameters_of, train

        if not str(self.seed).isdecimal():
            raise ConfigError(f"seed: expected a whole number >= 0, got {self.seed!r}.")
        run, model = train(
            Training(
                experiment=self.experiment,
                model=self.model or self.experiment,
                script=Path(self.script),
                data=DataVersion(uri=self.data_uri, digest=self.data_digest, rows=0),
                columns=DataRef(
                    self.data_uri, label=self.label_column, timestamp=self.timestamp_column, entity=self.entity_column
                ),
                hyperparameters=hyperparameters_of(self.hyperparameters),
                seed=int(self.seed),
                runs_on=self.runs_on,
                run_timeout=parse_duration(self.run_timeout),
                profile_block=parse_duration(self.profile_block) if self.profile_block else None,
                profile_segment=self.profile_segment or None,
                profile_text_columns=self.profile_text_columns,
                request_key=self.request_key,
                mlflow_conn_id=self.mlflow_conn_id,
            ),
            context,
            self.log,
        )
        return {
            "run_id": run.run_id,
            "experiment_id": run.experiment_id,
            "model_uri": model.uri,
            "model_id": model.model_id,
        }
