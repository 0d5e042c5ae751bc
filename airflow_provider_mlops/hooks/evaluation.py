"""Scores candidate and champion on the same frozen rows, and asks the gate."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from airflow_provider_mlops.errors import ConfigError, DataError, JobFailedError, MlopsError, NotFoundError
from airflow_provider_mlops.hooks.jobs import (
    fresh_number,
    identity,
    job_backend,
    python_of,
    run_job,
    variables_of,
    with_variables,
)
from airflow_provider_mlops.hooks.mlflow import MlflowHook
from airflow_provider_mlops.hooks.settings import storage

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    import numpy as np
    from airflow.sdk import Context

    from airflow_provider_mlops.evaluation import Finding, GateDecision, Importance, Rule, Task
    from airflow_provider_mlops.hooks.log import Log
    from airflow_provider_mlops.jobs.tracking import Tracking

__all__ = [
    "EVALUATION_PATH",
    "GATE_PATH",
    "IMPORTANCE_PATH",
    "Evaluation",
    "Judgment",
    "check_candidate",
    "evaluate",
    "importance_of",
    "score",
]

GATE_PATH = "mlops/gate.json"
"""Where a run keeps the gate's decision on its model."""

IMPORTANCE_PATH = "mlops/importance.json"
"""Where a run keeps how much each input matters to its model."""

EVALUATION_PATH = "mlops/evaluation.json"
"""Where a run keeps what its model was judged on."""

_LEAK_ROWS = 100_000


@dataclass(frozen=True)
class Evaluation:
    """What is judged. The fields are those of `EvaluateModelOperator`, rendered."""

    model: str
    run_id: str
    candidate_uri: str
    champion: str | None
    champion_uri: str | None
    anchor_uri: str | None
    data_uri: str
    train_uri: str | None
    label: str
    timestamp: str | None
    entity: str | None
    rules: Sequence[Rule]
    task: str | None
    runs_on: str | Mapping[str, Any]
    run_timeout: timedelta
    mlflow_conn_id: str
    newest: timedelta | None = None
    max_age: timedelta | None = None
    now: datetime | None = None
    shap: bool = False


@dataclass(frozen=True)
class Judgment:
    """
    What came of it.

    :param predictions: file with what the models predicted.
    :param rows_digest: names the set of evaluation rows, in whatever order and files they lie.
    :param judged_before: how many other candidates of the model these rows have judged.
    """

    decision: GateDecision
    predictions: Path
    rows_digest: str
    judged_before: int


def check_candidate(hook: MlflowHook, run_id: str, model_uri: str) -> None:
    """
    Refuse to judge one run's model in the name of another run, whose model could then be promoted.

    :raises ConfigError: *model_uri* is a logged model or a version, and none of the run's.
    """
    if model_uri.startswith("models:/m-"):
        is_its = model_uri in [model.uri for model in hook.tracking.models(run_id)]
    elif named := re.fullmatch(r"models:/([^/@]+)/(\d+)", model_uri):
        is_its = hook.registry.version(*named.groups()).run_id == run_id
    else:
        return  # a path says nothing of its run
    if not is_its:
        raise ConfigError(
            f"model_uri: {model_uri} is no model of MLflow run {run_id}. What is judged must be what can be promoted: "
            "pass both as TrainOperator returns them."
        )


def score(evaluation: Evaluation, context: Context, log: Log) -> Path:
    """
    Let both models predict the evaluation rows in a job; return the Parquet file with what they said.

    :raises JobFailedError: the candidate cannot be scored.
    """
    from airflow_provider_mlops.jobs import JobSpec, job_name

    hook = MlflowHook(evaluation.mlflow_conn_id)
    backend = job_backend(evaluation.runs_on)
    task = identity(context)
    job = job_name(*task, fresh_number(backend, task))
    output = storage() / "predictions" / evaluation.model / f"{uuid4().hex}.parquet"
    output.parent.mkdir(parents=True, exist_ok=True)
    keep = {column for column in (evaluation.timestamp, evaluation.entity) if column}
    command = [
        *(python_of(evaluation.runs_on), "-u", str(_score_script())),
        *("--data", evaluation.data_uri, f"--label={evaluation.label}", "--output", str(output)),
        *("--model", f"candidate={evaluation.candidate_uri}"),
    ]
    for name, uri in (("champion", evaluation.champion_uri), ("anchor", evaluation.anchor_uri)):
        if uri:
            command += ["--model", f"{name}={uri}"]
    for column in sorted(keep):
        command += [f"--keep={column}"]  # a name may begin with a dash
    command += ["--importance", *(["--shap"] if evaluation.shap else [])]
    for column in sorted({rule.per for rule in evaluation.rules if rule.per}):
        command += [f"--per={column}"]
    if evaluation.entity and _ranks(evaluation):
        command += [f"--group={evaluation.entity}"]
    plain, secret = hook.job_environment()
    spec = JobSpec(
        name=job,
        command=tuple(command),
        environment={
            **plain,
            "MLFLOW_TRACKING_URI": hook.tracking_uri,
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # the log is no terminal
        },
        secret_environment=secret,
        run_timeout=evaluation.run_timeout,
    )
    status, tail = run_job(backend, with_variables(spec, variables_of(evaluation.runs_on)), log)
    if status.phase.value != "succeeded":
        raise JobFailedError(
            f"The candidate could not be scored; the job ended as {status.phase.value}: {status.reason}", tail=tail
        )
    return output


def evaluate(evaluation: Evaluation, context: Context, log: Log) -> Judgment:
    """
    Score both models, look for leaks between training and evaluation rows, and return the gate's decision.

    What was judged (``mlops/evaluation.json``) and how much each input matters (``mlops/importance.json``) are stored
    in the candidate's run.
    """
    import hashlib
    import json

    import numpy as np

    from airflow_provider_mlops.adapters.predictions import (
        read_anchor,
        read_importance,
        read_predictions,
        read_summary,
    )
    from airflow_provider_mlops.evaluation import decide
    from airflow_provider_mlops.evaluation.reuse import judged_before
    from airflow_provider_mlops.hooks.journal import JournalHook
    from airflow_provider_mlops.journal import model_stream

    _check_rules(evaluation)
    tracking = MlflowHook(evaluation.mlflow_conn_id).tracking
    if evaluation.train_uri is None:
        evaluation = replace(evaluation, train_uri=_trained_on(tracking, evaluation.run_id, log))
    output = score(evaluation, context, log)
    predictions = read_predictions(
        output, time=evaluation.timestamp, entity=evaluation.entity, newest=evaluation.newest
    )
    summary = read_summary(output)
    if evaluation.champion is not None and "champion" not in summary["models"]:  # or it would pass for a first model
        predictions = replace(predictions, champion_error=f"version {evaluation.champion} has no source to score")
    hashes = _hashes(evaluation.data_uri)
    task = _task(evaluation, predictions.label, summary)
    decision = decide(
        evaluation.rules,
        predictions,
        task=task,
        anchor=read_anchor(output),
        measurements=_measurements(summary["models"]["candidate"]),
        importance=read_importance(output),
        findings=list(_findings(evaluation, summary, hashes)),
    )
    rows_digest = f"sha256:{hashlib.sha256(np.sort(hashes).tobytes()).hexdigest()}"
    history = JournalHook().journal.read(model_stream(evaluation.model))
    before = judged_before(history, rows_digest, evaluation.run_id)
    judged = {
        "task": task,
        "label": evaluation.label,
        "timestamp": evaluation.timestamp,
        "entity": evaluation.entity,
        "data_uri": evaluation.data_uri,
        "train_uri": evaluation.train_uri,
        "champion": evaluation.champion,
        "inputs": summary["models"]["candidate"]["inputs"],
        "rows_digest": rows_digest,
        "judged_before": before,
    }
    tracking.log_text(evaluation.run_id, json.dumps(judged, indent=2), EVALUATION_PATH)
    if "importance" in summary:
        tracking.log_text(evaluation.run_id, json.dumps(summary["importance"], indent=2), IMPORTANCE_PATH)
    return Judgment(decision, output, rows_digest, before)


def _trained_on(tracking: Tracking, run_id: str, log: Log) -> str | None:
    """Return where the rows are that a run has recorded as those it was trained on, if they are there."""
    from airflow_provider_mlops.adapters.files import schema
    from airflow_provider_mlops.jobs.record import DATA_TAG

    uri = tracking.run(run_id).tags.get(DATA_TAG)
    try:
        if uri is not None:
            schema(uri)
            return uri
        why = "the run does not say what it was trained on"
    except MlopsError as error:
        why = str(error)
    log.warning("Nobody looks for evaluation rows that were trained on: train_uri is not given, and %s", why)
    return None


def _measurements(candidate: Mapping[str, Any]) -> dict[str, float]:
    """Return what the scoring job measured of the candidate, by the names of `BUDGETS`."""
    latency = {f"latency_{name}_ms": value for name, value in candidate.get("latency_ms", {}).items()}
    memory = {"memory_mib": candidate["memory_mib"]} if "memory_mib" in candidate else {}
    return {**latency, **memory, "model_size_mib": candidate["size_bytes"] / 2**20}


def importance_of(tracking: Tracking, run_id: str) -> Importance | None:
    """Return how much each input matters to a run's model; ``None`` when that could not be, or never was, measured."""
    import json

    from airflow_provider_mlops.evaluation import Importance

    try:
        found = json.loads(tracking.read_text(run_id, IMPORTANCE_PATH))
    except NotFoundError:
        return None
    except ValueError as error:
        raise DataError(
            f"{IMPORTANCE_PATH} of MLflow run {run_id} is no JSON ({error}). Evaluate the run anew."
        ) from error
    return None if "error" in found else Importance.from_dict(found)


def _check_rules(evaluation: Evaluation) -> None:
    """Refuse rules that cannot be asked before a job is spent on them; of what task they are may be known only then."""
    from airflow_provider_mlops.evaluation import check_rules
    from airflow_provider_mlops.evaluation.metrics import METRICS

    for rule in evaluation.rules:
        possible = METRICS[rule.metric].tasks if rule.metric in METRICS else ("binary",)
        check_rules([rule], task=cast("Task", evaluation.task or possible[0]))


def _task(evaluation: Evaluation, label: np.ndarray, summary: Mapping[str, Any]) -> Task:
    """Return the task that was named, or the one that the first rule's metric and the labels speak of."""
    import numpy as np

    from airflow_provider_mlops.evaluation.metrics import METRICS

    if evaluation.task is not None:
        return cast("Task", evaluation.task)
    metric = METRICS.get(evaluation.rules[0].metric) if evaluation.rules else None
    tasks = metric.tasks if metric is not None else ("binary", "multiclass", "regression", "forecasting")
    if tasks == ("ranking",):
        return "ranking"
    if "regression" in tasks and not ("binary" in tasks and _is_class(label)):
        return "forecasting" if evaluation.timestamp else "regression"
    classes = summary["models"]["candidate"].get("classes") or np.unique(label[label == label])  # noqa: PLR0124 - drops NaN
    return "binary" if len(classes) <= 2 else "multiclass"


def _ranks(evaluation: Evaluation) -> bool:
    from airflow_provider_mlops.evaluation.metrics import METRICS

    named = [METRICS[rule.metric].tasks for rule in evaluation.rules[:1] if rule.metric in METRICS]
    return evaluation.task == "ranking" or (evaluation.task is None and named == [("ranking",)])


def _is_class(label: np.ndarray) -> bool:
    """Return whether a column looks like classes: text, truth values, or no more than two numbers."""
    import numpy as np

    return label.dtype.kind in "OUSb" or len(np.unique(label)) <= 2


def _findings(evaluation: Evaluation, summary: Mapping[str, Any], hashes: np.ndarray) -> Iterator[Finding]:
    """Look at the rows and at what the models want before any metric is believed."""
    from airflow_provider_mlops.evaluation.guards import (
        check_copies,
        check_leakage,
        check_overlap,
        check_signature,
        check_slices,
    )

    candidate, champion = summary["models"]["candidate"], summary["models"].get("champion")
    found = [] if evaluation.entity else [check_copies(hashes)]  # copies are of one entity, which counts once
    found.append(check_leakage(*_features(evaluation, list(candidate["inputs"]))))
    if champion is not None and "error" not in champion:
        found.append(check_signature(candidate["inputs"], champion["inputs"]))
    if evaluation.train_uri is not None:
        train, judge = evaluation.train_uri, evaluation.data_uri
        found.append(check_overlap(*_comparable_hashes(train, judge, hashes)))
        protected = sorted({rule.per for rule in evaluation.rules if rule.per and rule.protected})
        found += [check_slices(_distinct(train, name), _distinct(judge, name), column=name) for name in protected]
        # A split by time may well have one customer on both sides; one without time must not.
        if evaluation.entity and not evaluation.timestamp:
            entity = [evaluation.entity]
            found.append(check_overlap(_hashes(train, entity), _hashes(judge, entity), what="entities"))
    if evaluation.timestamp is not None:
        found += _findings_in_time(evaluation, evaluation.timestamp)
    return (finding for finding in found if finding is not None)


def _findings_in_time(evaluation: Evaluation, timestamp: str) -> list[Finding | None]:
    """Look whether training comes before evaluation, and evaluation not long before now."""
    from datetime import UTC, datetime

    from airflow_provider_mlops.evaluation.guards import check_freshness, check_time_order

    judged = _span(evaluation.data_uri, timestamp)
    if judged is None:
        return []
    found = []
    if evaluation.train_uri is not None and (trained := _span(evaluation.train_uri, timestamp)) is not None:
        found.append(check_time_order(trained[1], judged[0]))
    if evaluation.max_age is not None:
        now = evaluation.now or datetime.now(UTC)
        found.append(check_freshness(judged[1], now=now, max_age=evaluation.max_age))
    return found


def _span(uri: str, timestamp: str) -> tuple[datetime, datetime] | None:
    """Return the oldest and the newest time of the rows; ``None`` where the column holds none."""
    from pyarrow import types

    from airflow_provider_mlops.adapters.files import scan, schema
    from airflow_provider_mlops.adapters.snapshots import moment
    from airflow_provider_mlops.drift.counting import microseconds

    kind = schema(uri).field(timestamp).type
    if not (types.is_timestamp(kind) or types.is_date(kind)):
        return None
    ends = []
    for batch in scan(uri, columns=[timestamp]):
        times, known = microseconds(batch.column(timestamp), name=timestamp)
        if known.any():
            ends += [int(times[known].min()), int(times[known].max())]
    return (moment(min(ends)), moment(max(ends))) if ends else None


def _hashes(uri: str, columns: Sequence[str] | None = None, as_floats: Collection[str] = ()) -> np.ndarray:
    """Return a hash per row."""
    import numpy as np
    import pyarrow as pa

    from airflow_provider_mlops.adapters.files import scan
    from airflow_provider_mlops.adapters.row_hash import row_hashes

    found = []
    for batch in scan(uri, columns=columns):
        for name in as_floats:
            values = batch.column(name).cast(pa.float64(), safe=False)
            batch = batch.set_column(batch.schema.get_field_index(name), name, values)  # noqa: PLW2901
        found.append(row_hashes(batch, columns))
    return np.concatenate(found) if found else np.empty(0, np.uint64)


def _comparable_hashes(train: str, judge: str, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    Return a hash per row of both data, over the columns that they share; *hashes* are those of *judge* as it is.

    A column that only one of them has, such as the name of the part, or whole numbers that a missing value made floats
    in one, would else make every row differ.
    """
    from airflow_provider_mlops.adapters.files import schema

    here, there = schema(judge), schema(train)
    shared = [name for name in here.names if name in there.names]
    types = {name: (here.field(name).type, there.field(name).type) for name in shared}
    mixed = [name for name, (a, b) in types.items() if a != b and _is_number(a) and _is_number(b)]
    if len(shared) < len(here.names) or mixed:
        hashes = _hashes(judge, shared, mixed)
    return _hashes(train, shared, mixed), hashes


def _distinct(uri: str, column: str) -> set[Any]:
    """Return the distinct values of a column; none when there is no such column."""
    from airflow_provider_mlops.adapters.files import scan, schema

    if column not in schema(uri).names:
        return set()
    return {value for batch in scan(uri, columns=[column]) for value in batch.column(column).unique().to_pylist()}


def _features(evaluation: Evaluation, inputs: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the inputs that a leak can be seen in, and the label, of the first evaluation rows, which are enough."""
    import numpy as np
    import pyarrow as pa

    from airflow_provider_mlops.adapters.files import scan, schema

    types = schema(evaluation.data_uri)
    numeric = [name for name in inputs if name in types.names and _is_number(types.field(name).type)]
    named = [name for name in inputs if name in types.names and _is_category(types.field(name).type)]
    columns = [*numeric, *named, evaluation.label]
    batches, rows = [], 0
    for batch in scan(evaluation.data_uri, columns=columns):
        batches.append(batch)
        rows += batch.num_rows
        if rows >= _LEAK_ROWS:
            break
    if not batches:
        return {}, np.empty(0)
    table = pa.Table.from_batches(batches)
    values = {name: table[name].cast(pa.float64(), safe=False).to_numpy() for name in numeric}
    values |= {name: table[name].cast(pa.string()).to_numpy() for name in named}
    return values, table[evaluation.label].to_numpy()


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind))


def _is_category(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind))


def _score_script() -> Path:
    return Path(__file__).parents[1] / "serving" / "score.py"
