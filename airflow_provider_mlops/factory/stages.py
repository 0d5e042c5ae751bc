"""
The stages of continuous training as task groups, also for a DAG that a person writes.

Each takes a `Pipeline` and the `Line` to grow, and returns the task that the next stage reads from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup, XComArg, chain

from airflow_provider_mlops.operators.data import SnapshotDataOperator
from airflow_provider_mlops.operators.deployment import DeployToLocalOperator
from airflow_provider_mlops.operators.drift import CheckDataDriftOperator
from airflow_provider_mlops.operators.evaluation import EvaluateModelOperator
from airflow_provider_mlops.operators.model import (
    PromoteModelOperator,
    RegisterModelOperator,
    SmokeTestModelOperator,
)
from airflow_provider_mlops.operators.prepare import PrepareDataOperator
from airflow_provider_mlops.operators.retraining import CloseRetrainingOperator, DecideRetrainingOperator
from airflow_provider_mlops.operators.training import TrainOperator
from airflow_provider_mlops.operators.validation import ValidateDataOperator
from airflow_provider_mlops.pipeline.schedules import times_per_30_days
from airflow_provider_mlops.pipeline.spec import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk import BaseOperator

    from airflow_provider_mlops.factory.steps import Line
    from airflow_provider_mlops.operators.approval import ApproveModelOperator
    from airflow_provider_mlops.pipeline.spec import PipelineSpec

__all__ = ["Pipeline", "data_stage", "monitor_stage", "release_stage", "serving_stage", "training_stage"]

_AS_OF = "{{ params.as_of or '' }}"
_TRIGGER = "{{ {'scheduled': 'schedule', 'asset_triggered': 'new_data'}.get(dag_run.run_type, 'manual') }}"
_KEY = "{{ (dag_run.conf or {}).get('request_key') or ti.xcom_pull(task_ids='training.decide', key='key') or '' }}"
_ATTEMPTS = 3  # of a task: the first and two retries
_DRIFT_WINDOW = timedelta(days=7)


@dataclass(frozen=True)
class Pipeline:
    """
    A specification in its place.

    :param spec: what the user wrote.
    :param locate: makes an absolute path of one that is relative to the pipeline file.
    """

    spec: PipelineSpec
    locate: Callable[[str], str]

    @property
    def data(self) -> dict[str, Any]:
        """The data reference, with the path that the trigger form may have changed."""
        data = self.spec.data
        found: dict[str, Any] = {"path": self.value("data.path", self.locate(data.path)), "label": data.label}
        if data.timestamp:
            found["timestamp"] = data.timestamp
        if data.entity:
            found["entity"] = data.entity
        if data.columns:
            found["columns"] = list(data.columns)
        return found

    def value(self, key: str, default: Any) -> Any:
        """Return *default*, or a template that reads *key* from the trigger form when the form offers it."""
        return f"{{{{ params[{key!r}] }}}}" if key in self.spec.trigger_form else default

    def hyperparameters(self, section: str, values: Mapping[str, Any]) -> str:
        """Return a JSON object in a string, in which the keys that the trigger form offers are templates."""
        prefix = f"{section}.hyperparameters."
        offered = {key.removeprefix(prefix) for key in self.spec.trigger_form if key.startswith(prefix)}
        texts = {
            name: f"{{{{ params[{prefix + name!r}] | tojson }}}}"
            if name in offered
            else json.dumps(value, sort_keys=True)
            for name, value in sorted(values.items())
        }
        return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in texts.items()) + "}"

    @property
    def window(self) -> timedelta | None:
        """Length of the monitored window, which is also the length of the blocks of the training data's profile."""
        if self.spec.data.timestamp is None:
            return None
        return (self.spec.monitor.window if self.spec.monitor else None) or _DRIFT_WINDOW

    @property
    def runs_on(self) -> dict[str, Any]:
        """Where the jobs run."""
        return self.spec.train.runs_on.model_dump(mode="json", exclude_defaults=True)

    @property
    def rules(self) -> list[dict[str, Any]]:
        """The rules of the gate."""
        return [rule.model_dump(exclude_defaults=True) for rule in self.spec.evaluate]


def _result(task: BaseOperator, key: str) -> Any:
    """Return a reference to one key of what *task* will have returned."""
    return XComArg(task, key)


def data_stage(pipeline: Pipeline, line: Line) -> BaseOperator:
    """Prepare (optional), freeze and validate the data. Returns the snapshot."""
    spec = pipeline.spec
    with TaskGroup("data", tooltip="Freeze and check the data"):
        data = pipeline.data
        if spec.prepare is not None:
            prepare = spec.prepare
            source = data["path"]
            prepared = line.add(
                "prepare",
                lambda name: PrepareDataOperator(
                    task_id=name,
                    script=pipeline.locate(prepare.script),
                    data_uri=source,
                    hyperparameters=pipeline.hyperparameters("prepare", prepare.hyperparameters),
                    run_timeout=pipeline.value("prepare.run_timeout", format_duration(prepare.run_timeout)),
                    runs_on=pipeline.runs_on,
                ),
            )
            data = {**data, "path": _result(prepared, "data_uri")}
        snapshot = line.add(
            "snapshot",
            lambda name: SnapshotDataOperator(
                task_id=name,
                data=data,
                as_of=_AS_OF,
                train_on=pipeline.value("data.train_on", _duration(spec.data.train_on)),
                hold_out=_hold_out(spec.data.hold_out),
                label_delay=_duration(spec.data.label_delay),
            ),
        )
        line.add(
            "validate",
            lambda name: ValidateDataOperator(
                task_id=name,
                data_uri=_result(snapshot, "data_uri"),
                data_digest=_result(snapshot, "train_digest"),
                model=spec.name,
                label_column=spec.data.label,
                timestamp_column=spec.data.timestamp,
                entity_column=spec.data.entity,
                as_of=_AS_OF,
                contract=_contract(pipeline),
                if_invalid=spec.validation.if_invalid,
            ),
        )
    return snapshot


def training_stage(pipeline: Pipeline, line: Line, snapshot: BaseOperator) -> tuple[BaseOperator, BaseOperator]:
    """Train a candidate and judge it. Returns both tasks."""
    spec = pipeline.spec
    with TaskGroup("training", tooltip="Train a candidate and judge it against the champion"):
        decide = line.add(
            "decide",
            lambda name: _decision(
                pipeline,
                name,
                data_digest=_result(snapshot, "train_digest"),
                hyperparameters=pipeline.hyperparameters("train", spec.train.hyperparameters),
                trigger=_TRIGGER,
                granted_key="{{ (dag_run.conf or {}).get('request_key', '') }}",
            ),
        )
        train = line.add(
            "train",
            lambda name: TrainOperator(
                task_id=name,
                experiment=spec.name,
                model=spec.name,
                script=pipeline.locate(spec.train.script),
                data_uri=_result(snapshot, "train_uri"),
                data_digest=_result(snapshot, "train_digest"),
                label_column=spec.data.label,
                timestamp_column=spec.data.timestamp,
                entity_column=spec.data.entity,
                hyperparameters=pipeline.hyperparameters("train", spec.train.hyperparameters),
                seed=pipeline.value("train.seed", spec.train.seed),
                runs_on=pipeline.runs_on,
                run_timeout=pipeline.value("train.run_timeout", format_duration(spec.train.run_timeout)),
                profile_block=_duration(pipeline.window),
                profile_segment=spec.monitor.drift.segment if spec.monitor else None,
                profile_text_columns=_listed(spec.monitor.drift.text_columns) if spec.monitor else None,
                request_key=_result(decide, "key"),
            ),
        )
        if spec.monitor is not None or spec.schedule is not None or "new_data" in spec.retrain.when:
            chain(train, CloseRetrainingOperator(task_id="close", model=spec.name, key=_KEY).as_teardown())
        evaluate = line.add(
            "evaluate",
            lambda name: EvaluateModelOperator(
                task_id=name,
                model=spec.name,
                run_id=_result(train, "run_id"),
                model_uri=_result(train, "model_uri"),
                data_uri=_result(snapshot, "evaluation_uri"),
                train_uri=_result(snapshot, "train_uri"),
                label_column=spec.data.label,
                timestamp_column=spec.data.timestamp,
                entity_column=spec.data.entity,
                rules=pipeline.rules,
                runs_on=pipeline.runs_on,
                newest=_duration(pipeline.window),
            ),
        )
    return train, evaluate


def release_stage(
    pipeline: Pipeline, line: Line, snapshot: BaseOperator, train: BaseOperator, evaluate: BaseOperator
) -> BaseOperator:
    """Register, smoke-test, let a person approve, promote; up to the smoke test in ``mode: observe``."""
    spec = pipeline.spec
    with TaskGroup("release", tooltip="Register the candidate and make it the champion"):
        register = line.add(
            "register",
            lambda name: RegisterModelOperator(
                task_id=name,
                model=spec.name,
                run_id=_result(train, "run_id"),
                model_uri=_result(train, "model_uri"),
                data_digest=_result(snapshot, "data_digest"),
                gate_digest=_result(evaluate, "digest"),
            ),
        )
        line.add(
            "smoke_test",
            lambda name: SmokeTestModelOperator(
                task_id=name,
                model=spec.name,
                version=_result(register, "version"),
                predictions_uri=_result(evaluate, "predictions_uri"),
                data_uri=_result(snapshot, "evaluation_uri"),
                model_environment=_probed_environment(pipeline),
            ),
        )
        if spec.mode == "observe":
            return register
        answer = None
        if spec.mode == "suggest" or spec.approve is not None:
            answer = _answer(line.add("approve", lambda name: _approval(pipeline, name, register, evaluate)))
        line.add(
            "promote",
            lambda name: PromoteModelOperator(
                task_id=name,
                model=spec.name,
                version=_result(register, "version"),
                expected_champion=_result(evaluate, "champion"),
                gate_digest=_result(evaluate, "digest"),
                approval=answer,
                on_foreign_change=spec.promote.on_foreign_change,
            ),
        )
    return register


def serving_stage(pipeline: Pipeline, line: Line, register: BaseOperator, evaluate: BaseOperator) -> None:
    """Let the promoted version take over the traffic."""
    deploy = pipeline.spec.deploy
    if deploy is None or pipeline.spec.mode == "observe":
        return
    plan: dict[str, Any] = {"strategy": "blue_green", "bake": deploy.bake.total_seconds()}
    if deploy.canary is not None:
        plan |= {
            "strategy": "canary",
            "weights_percent": list(deploy.canary.weights_percent),
            "min_requests_per_step": deploy.canary.min_requests_per_step,
            "step_timeout": deploy.canary.step_timeout.total_seconds(),
            "if_inconclusive": deploy.canary.if_inconclusive,
            "max_error_rate": deploy.canary.max_error_rate,
            "max_prediction_shift": deploy.canary.max_prediction_shift,
        }
    with TaskGroup("serving", tooltip="The new version takes over the traffic"):
        line.add(
            "deploy",
            lambda name: DeployToLocalOperator(
                task_id=name,
                model=pipeline.spec.name,
                version=_result(register, "version"),
                restore_alias="promote" not in pipeline.spec.steps,  # what a step of the user's moves is not known
                plan=plan,
                predictions_uri=_result(evaluate, "predictions_uri") if deploy.canary is not None else None,
                port=deploy.local.port,
                model_environment=deploy.local.model_environment,
            ),
        )


def monitor_stage(pipeline: Pipeline, line: Line) -> None:
    """Check the newest window for drift, decide about retraining, and ask for it."""
    # Imported here: it loads Airflow's models, which a task of the training DAG has no need of.
    from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator

    spec = pipeline.spec
    if spec.monitor is None:
        return
    drift = spec.monitor.drift
    data = pipeline.data
    judged: dict[str, Any] = {
        "data": {**data, "columns": list(drift.columns)} if drift.columns else data,
        "window": _duration(pipeline.window),
        "as_of": _AS_OF,
        "trailing": _duration(drift.trailing),
        "max_rows": drift.max_rows,
    }
    if drift.served_by:
        judged = {"served_by": list(drift.served_by)}
    check = line.add(
        "check",
        lambda name: CheckDataDriftOperator(
            task_id=name,
            model=spec.name,
            **judged,
            ignore_shift_below=drift.ignore_shift_below,
            false_alarms_per_30_days=drift.false_alarms_per_30_days,
            checks_per_30_days=_checks_per_30_days(spec.monitor.schedule if spec.monitor else None),
            min_rows=drift.min_rows,
            exclude=list(drift.exclude),
        ),
    )
    decide = line.add(
        "decide",
        lambda name: _decision(
            pipeline,
            name,
            data_digest=_result(check, "data_digest"),
            hyperparameters=json.dumps(dict(spec.train.hyperparameters), sort_keys=True),
            trigger="monitor",
        ),
    )
    if spec.mode != "observe":
        line.add(
            "retrain",
            lambda name: TriggerDagRunOperator(
                task_id=name,
                trigger_dag_id=f"{spec.name}__train",
                trigger_run_id=_result(decide, "run_id"),
                logical_date=None,  # Airflow 3.2 writes its default with an address in memory, anew at each parse
                conf={"request_key": _result(decide, "key")},
                skip_when_already_exists=True,
            ),
        )


def _decision(
    pipeline: Pipeline,
    task_id: str,
    *,
    data_digest: Any,
    hyperparameters: str,
    trigger: str,
    granted_key: str = "",
) -> DecideRetrainingOperator:
    spec = pipeline.spec
    retrain = spec.retrain
    return DecideRetrainingOperator(
        task_id=task_id,
        model=spec.name,
        data_digest=data_digest,
        script=pipeline.locate(spec.train.script),
        hyperparameters=hyperparameters,
        trigger=trigger,
        granted_key=granted_key,
        when=list(retrain.when),
        violating_windows=retrain.violating_windows,
        of_last=retrain.of_last,
        cooldown=format_duration(retrain.cooldown),
        max_runs_per_30_days=retrain.max_runs_per_30_days,
        breaker_after=retrain.breaker_after,
        lease=format_duration(_ATTEMPTS * spec.train.run_timeout + timedelta(hours=1)),
        binding=spec.mode != "observe" or trigger != "monitor",
    )


def _approval(pipeline: Pipeline, task_id: str, register: BaseOperator, evaluate: BaseOperator) -> ApproveModelOperator:
    from airflow_provider_mlops.operators.approval import ApproveModelOperator

    approve = pipeline.spec.approve
    users: Any = [{"id": user, "name": user} for user in approve.assigned_users] if approve else []
    return ApproveModelOperator(
        task_id=task_id,
        model=pipeline.spec.name,
        version=_result(register, "version"),
        gate_digest=_result(evaluate, "digest"),
        subject=f"Promote the new version of {pipeline.spec.name}?",
        body=_EVIDENCE,
        defaults="Reject",
        response_timeout=approve.response_timeout if approve else timedelta(days=2),
        assigned_users=users or None,
    )


def _answer(approve: BaseOperator) -> Any:
    """Return a reference to who answered what; ``None`` for a step of the user's own, which may return anything."""
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    return XComArg(approve) if isinstance(approve, ApprovalOperator) else None


_EVIDENCE = """\
{% set gate = ti.xcom_pull(task_ids='training.evaluate') %}
{% set model = ti.xcom_pull(task_ids='release.register') %}
{% set probe = ti.xcom_pull(task_ids='release.smoke_test') %}
| | |
|---|---|
| Candidate | {{ model['model'] }} version {{ model['version'] }} |
| Champion | {{ 'version ' ~ gate['champion'] if gate['champion'] else 'none yet' }} |
| Gate | **{{ gate['verdict'] }}** ({{ gate['reason'] }}) |
| Why | {{ gate['sentence'] }} {{ gate['rules'] | join(' ') }} |
| Candidates judged by the same rows before | {{ gate.get('judged_before', 0) }} |
| Smoke test | {% if probe is mapping and 'ready_seconds' in probe -%}
ready after {{ probe['ready_seconds'] }} s, {{ probe['requests'] }} answers as offline, \
95 % within {{ probe['latency_p95_ms'] }} ms
{%- else %}{{ probe }}{% endif %} |
| Model card | `mlops/model_card.html` of MLflow run `{{ model['run_id'] }}` |
| Decision digest | `{{ gate['digest'] }}` |
"""


def _checks_per_30_days(schedule: str | None) -> float:
    """Return how often *schedule* comes round in 30 days; checks by hand count as daily ones."""
    return 30.0 if schedule is None else times_per_30_days(schedule)


def _probed_environment(pipeline: Pipeline) -> str:
    """Return where the smoke test loads a model: where it will serve, or else by what it was trained with."""
    if pipeline.spec.deploy is not None:
        return pipeline.spec.deploy.local.model_environment
    return "model" if pipeline.spec.train.runs_on.process.python else "current"


def _contract(pipeline: Pipeline) -> dict[str, Any]:
    validation = pipeline.spec.validation
    found = validation.model_dump(exclude={"if_invalid"}, exclude_defaults=True, mode="json")
    return {key: value for key, value in sorted(found.items()) if value}


def _listed(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)


def _duration(value: timedelta | None) -> str | None:
    return format_duration(value) if value is not None else None


def _hold_out(value: timedelta | float | None) -> str:
    if value is None:
        return "20%"
    return format_duration(value) if isinstance(value, timedelta) else f"{value * 100:.12g}%"
