"""Builds the DAGs of a pipeline: a pure function of its specification, so that nothing churns."""

from __future__ import annotations

import inspect
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import (
    DAG,
    Asset,
    AssetOrTimeSchedule,
    AssetWatcher,
    CronTriggerTimetable,
    Param,
    conf,
    get_parsing_context,
)

from airflow_provider_mlops.errors import (
    ConfigError,
    DataError,
    GateRefused,
    JobFailedError,
    RolloutFailedError,
    did_you_mean,
)
from airflow_provider_mlops.factory.stages import (
    Pipeline,
    data_stage,
    monitor_stage,
    release_stage,
    serving_stage,
    training_stage,
)
from airflow_provider_mlops.factory.steps import Line
from airflow_provider_mlops.hooks.settings import target as configured_target
from airflow_provider_mlops.pipeline import from_dict, load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_mlops.pipeline import PipelineSpec

__all__ = ["continuous_training_dags", "load_dags"]

_HOPELESS = (ConfigError, DataError, GateRefused, JobFailedError, RolloutFailedError)
"""Errors that a retry cannot mend."""


def load_dags(stub: str) -> list[DAG]:
    """
    Return the DAGs of the pipeline file beside *stub*: ``rain.yaml`` beside ``rain.py``. The only act of a stub.

    The entry of ``targets:`` that ``[mlops] target`` names is laid upon the file; a file without targets is the same
    everywhere.

    :param stub: the stub's ``__file__``.
    :raises ConfigError: the file is missing or wrong; every mistake with its line.
    """
    file = Path(stub).with_suffix(".yaml")
    if not file.exists():
        others = sorted(path.name for path in file.parent.glob("*.yaml"))
        raise ConfigError(
            f"{stub} loads {file.name}, which is not beside it.{did_you_mean(file.name, others)} "
            "A stub and its pipeline file share one name."
        )
    folder = Path(conf.get("core", "dags_folder")).expanduser()
    # A bundle other than the DAGs folder has no boundary that could be known here.
    loaded = load(file, target=configured_target(), root=folder if file.is_relative_to(folder) else None)
    try:
        return _build(loaded.spec, loaded.locate)
    except ConfigError as error:  # of a step of the user's own: only making it shows what is wrong with it
        origin = loaded.origins.get(str(error).partition(": ")[0])
        if origin is None:
            raise
        raise ConfigError(f"{origin.file}:{origin.line}: {error}") from error


def continuous_training_dags(folder: str | Path | None = None, /, **words: Any) -> list[DAG]:
    """
    Return the DAGs of a pipeline that is written in Python, with the words of a pipeline file as keyword arguments.

    ``mlops=1`` may be left out.

    :param folder: where relative paths start; the folder of the calling file without it.
    :raises ConfigError: every mistake with its key.
    """
    start = Path(folder or Path(inspect.stack()[1].filename).parent).resolve()
    spec = from_dict({"mlops": 1, **words})

    def locate(path: str) -> str:
        return path if "://" in path else str((start / path).resolve())

    return _build(spec, locate)


def _build(spec: PipelineSpec, locate: Callable[[str], str]) -> list[DAG]:
    pipeline = Pipeline(spec, locate)
    makers: dict[str, Callable[[Pipeline, str], DAG]] = {f"{spec.name}__train": _training_dag}
    if spec.monitor is not None:
        makers[f"{spec.name}__monitor"] = _monitor_dag
    wanted = get_parsing_context().dag_id  # set in a task's process, which needs this DAG alone
    return [make(pipeline, dag_id) for dag_id, make in makers.items() if wanted in {None, dag_id}]


def _training_dag(pipeline: Pipeline, dag_id: str) -> DAG:
    spec = pipeline.spec
    form = {key: Param(default, **schema) for key, (default, schema) in _form(pipeline).items()}
    with _dag(
        pipeline,
        dag_id,
        schedule=_training_schedule(pipeline),
        what="Continuous training",
        form=form,
    ) as dag:
        line = Line(spec.steps)
        snapshot = data_stage(pipeline, line)
        train, evaluate = training_stage(pipeline, line, snapshot)
        register = release_stage(pipeline, line, snapshot, train, evaluate)
        serving_stage(pipeline, line, register, evaluate)
    return dag


def _monitor_dag(pipeline: Pipeline, dag_id: str) -> DAG:
    spec = pipeline.spec
    schedule = spec.monitor.schedule if spec.monitor else None
    with _dag(pipeline, dag_id, schedule=schedule, what="Monitoring", form={}) as dag:
        monitor_stage(pipeline, Line(spec.steps))
    return dag


def _training_schedule(pipeline: Pipeline) -> Any:
    """Return what starts the training DAG: time, new data at the path, either, or only a person and the monitor."""
    spec = pipeline.spec
    time = spec.schedule if "schedule" in spec.retrain.when else None
    if "new_data" not in spec.retrain.when:
        return time
    from airflow_provider_mlops.triggers.data import NewDataTrigger

    watcher = AssetWatcher(
        name=f"{spec.name} data", trigger=NewDataTrigger(path=pipeline.locate(spec.data.path), seen="")
    )
    data = Asset(name=f"mlops data of {spec.name}", uri=f"mlops-data://{spec.name}", watchers=[watcher])
    if time is None:
        return [data]
    return AssetOrTimeSchedule(timetable=CronTriggerTimetable(time, timezone="UTC"), assets=[data])


def _dag(pipeline: Pipeline, dag_id: str, *, schedule: Any, what: str, form: Mapping[str, Param]) -> DAG:
    spec = pipeline.spec
    as_of = Param(
        None,
        type=["null", "string"],
        format="date-time",
        title="As of",
        description="Use the data as it was at this event time; empty: all of it.",
    )
    return DAG(
        dag_id,
        description=f"{what} of {spec.name}" + (f": {spec.description}" if spec.description else ""),
        doc_md=_doc(spec),
        schedule=schedule,
        start_date=spec.start_date,
        catchup=False,
        max_active_runs=1,
        tags=sorted({"mlops", spec.name, *spec.tags}),
        params={**form, "as_of": as_of},
        default_args={
            **({"owner": spec.owner} if spec.owner else {}),
            "mlflow_conn_id": spec.mlflow_conn_id,  # for the operators that take it
            "retries": 2,
            "retry_delay": timedelta(seconds=10),
            **_retry_policy(),
        },
        render_template_as_native_obj=False,
    )


def _retry_policy() -> dict[str, Any]:
    """Return the argument that ends retries at once where they are hopeless; Airflow 3.2 has no such policy."""
    try:
        from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
    except ImportError:
        return {}
    rules = [
        RetryRule(exception=kind, action=RetryAction.FAIL, reason="A retry cannot mend this.") for kind in _HOPELESS
    ]
    return {"retry_policy": ExceptionRetryPolicy(rules=rules)}


def _form(pipeline: Pipeline) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Return what the trigger form offers: by key the default and its JSON schema."""
    spec = pipeline.spec
    values = spec.model_dump(mode="json", by_alias=True)
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    for key in spec.trigger_form:
        section, _, rest = key.partition(".")
        node = values[section]
        if rest.startswith("hyperparameters."):
            default = node["hyperparameters"][rest.removeprefix("hyperparameters.")]
        else:
            default = node[rest]
        if key == "data.path":
            default = pipeline.locate(default)
        found[key] = (default, {"type": _json_type(default), "title": key})
    return found


def _json_type(value: Any) -> str:
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(value, kind):
            return name
    raise ConfigError(f"trigger_form: {value!r} is no text, number or truth value and cannot be asked for in a form.")


def _doc(spec: PipelineSpec) -> str:
    """Return what Airflow shows about the DAG."""
    rows = [
        ("Mode", spec.mode),
        ("Data", f"`{spec.data.path}`, label `{spec.data.label}`"),
        ("Training", f"`{spec.train.script}`"),
        ("Gate", "; ".join(_rule(rule.model_dump(exclude_defaults=True)) for rule in spec.evaluate)),
        ("Retrains on", ", ".join(spec.retrain.when)),
    ]
    table = "\n".join(f"| {name} | {text} |" for name, text in rows)
    return f"{spec.description or spec.name}\n\n| | |\n|---|---|\n{table}\n"


def _rule(rule: Mapping[str, Any]) -> str:
    limits = ", ".join(f"{key} {value}" for key, value in rule.items() if key != "metric")
    return f"`{rule['metric']}`" + (f" {limits}" if limits else "")
