"""Operators in a DAG that a person wrote: a function as a training, mapped trainings, prepared data, the way back."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import training_scripts
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import DownstreamTasksSkipped
from leftovers import users_of

from airflow_provider_mlops.errors import ConfigError, PromotionConflictError, RolloutFailedError
from airflow_provider_mlops.hooks.journal import JournalHook
from airflow_provider_mlops.hooks.mlflow import MlflowHook
from airflow_provider_mlops.hooks.serving import _usual_shift
from airflow_provider_mlops.journal import Record, append_next, kinds, model_stream, payloads, verify
from airflow_provider_mlops.operators.deployment import DeployToLocalOperator
from airflow_provider_mlops.operators.model import PromoteModelOperator, RollbackModelOperator
from airflow_provider_mlops.operators.retraining import DecideRetrainingOperator


def context(run_id="manual__1", task="task", **more):
    pushed = {}
    ti = SimpleNamespace(
        dag_id="by_hand", run_id=run_id, task_id=task, map_index=-1, max_tries=2, pushed=pushed,
        xcom_push=lambda key, value: pushed.update({key: value}),
    )  # fmt: skip
    return {"ti": ti, **more}


def told(model):
    entries = JournalHook().journal.read(model_stream(model))
    assert verify(entries) == []
    return [entry.record for entry in entries]


# In a DAG

BY_HAND = """\
from airflow.sdk import DAG, task

from airflow_provider_mlops.operators.model import RegisterModelOperator
from airflow_provider_mlops.operators.prepare import PrepareDataOperator
from airflow_provider_mlops.operators.training import TrainOperator

with DAG("by_hand", schedule=None, params={{"strength": 0.5}}, default_args={{"retries": 0}}):
    prepare = PrepareDataOperator(
        task_id="prepare", script={prepare!r}, data_uri={rows!r}, hyperparameters={{"keep": 300}}, run_timeout="1m"
    )

    @task.train_model(experiment="by_hand_function", data_uri=prepare.output["data_uri"], label_column="y", seed=3)
    def fit(strength, *, penalty="l2"):
        import os

        import mlflow
        import pandas as pd
        from mlflow.models import infer_signature
        from sklearn.linear_model import LogisticRegression

        frame = pd.read_parquet(os.environ["MLOPS_DATA_URI"])
        features = frame[["a", "b"]]
        with mlflow.start_run():
            mlflow.log_params({{"strength": strength, "penalty": penalty, "seed": os.environ["MLOPS_SEED"]}})
            model = LogisticRegression(C=float(strength)).fit(features, frame[os.environ["MLOPS_LABEL"]])
            mlflow.sklearn.log_model(
                model,
                name="model",
                signature=infer_signature(features, model.predict(features)),
                pip_requirements=["scikit-learn"],
                skops_trusted_types=[],
            )

    fitted = fit("{{{{ params.strength }}}}", penalty="none")

    many = TrainOperator.partial(
        task_id="many", experiment="by_hand_many", script={train!r}, data_uri=prepare.output["data_uri"],
        label_column="y", run_timeout="2m",
    ).expand(hyperparameters=[{{"C": 0.1}}, '{{"C": 10.0}}'])

    RegisterModelOperator(task_id="register", model="by_hand", run_id=fitted["run_id"], alias=None)
"""
PREPARE = """\
import json, os, pandas as pd
keep = json.loads(os.environ["MLOPS_HYPERPARAMETERS"])["keep"]
frame = pd.read_parquet(os.environ["MLOPS_DATA_URI"]).head(keep)
frame.to_parquet(os.environ["MLOPS_OUTPUT_URI"] + "/part.parquet")
print("kept", len(frame))
"""


def test_functions_and_scripts_are_trained_in_a_dag_that_a_person_wrote(run_dag, connection, storage, tmp_path):
    rows = training_scripts.rows(tmp_path / "rows" / "rows.parquet")
    (tmp_path / "prepare.py").write_text(PREPARE)
    (tmp_path / "train.py").write_text(training_scripts.GOOD)
    text = BY_HAND.format(prepare=str(tmp_path / "prepare.py"), train=str(tmp_path / "train.py"), rows=rows)
    ran = run_dag("by_hand", {"by_hand.py": text})
    assert ran.state == "success", ran
    assert set(ran.tasks) == {"prepare", "fit", "many[0]", "many[1]", "register"}

    tracking = MlflowHook().tracking
    fitted = tracking.run(ran.results["fit"]["run_id"])
    assert fitted.params == {"strength": "0.5", "penalty": "none", "seed": "3"}
    assert fitted.status == "FINISHED"
    profile = json.loads(tracking.read_text(fitted.run_id, "mlops/profile.json"))
    assert profile["rows"] == 300  # of the prepared data
    assert {"a", "b"} <= set(profile["columns"])
    assert "y" not in profile["columns"]

    many = [tracking.run(ran.results[f"many[{index}]"]["run_id"]) for index in range(2)]
    assert [json.loads(run.tags["mlops.hyperparameters"]) for run in many] == [{"C": 0.1}, {"C": 10.0}]
    assert len({run.run_id for run in many}) == 2
    assert all(run.metrics["accuracy"] > 0.8 for run in many)

    (version,) = MlflowHook().registry.versions("by_hand")
    assert (version.run_id, version.aliases) == (fitted.run_id, ())
    assert version.tags["mlops.dag_run"] == f"by_hand {ran.run_id}"
    assert users_of(storage) == []
    for result in ran.results.values():
        assert len(json.dumps(result)) < 1024


def test_a_function_whose_arguments_are_no_json_is_refused_by_name(connection, storage):
    from airflow.sdk import task

    with DAG("refused", schedule=None) as dag:

        @task.train_model(experiment="by_hand_refused", data_uri="/rows")
        def fit(strength):
            """Do nothing."""

        fit({1, 2})
    with pytest.raises(ConfigError, match=r"@task\.train_model: arguments of fit must be plain JSON values: .*set"):
        dag.get_task("fit").execute(context())


# The way back


def version_of(model, run, rows):
    """A version whose model was logged by another run of the same training."""
    return MlflowHook().registry.create_version(model, run_id=run["run_id"], source=run["model_uri"], tags={}).version


@pytest.fixture
def two_versions(connection, storage, tmp_path):
    """Versions 1 and 2 of a model that was never judged."""
    from airflow_provider_mlops.operators.training import TrainOperator

    model = f"by_hand_{uuid.uuid4().hex[:8]}"
    rows = training_scripts.rows(tmp_path / "rows" / "rows.parquet")
    (tmp_path / "train.py").write_text(training_scripts.GOOD)
    for number in (1, 2):
        trained = TrainOperator(
            task_id="train",
            experiment=model,
            script=str(tmp_path / "train.py"),
            data_uri=rows,
            label_column="y",
        ).execute(context(f"manual__{number}"))
        assert version_of(model, trained, rows) == str(number)
    return model


def test_a_rollback_moves_the_alias_and_the_traffic_once(two_versions):
    model = two_versions

    def promote(version, expected):
        operator = PromoteModelOperator(
            task_id="promote", model=model, version=version, expected_champion=expected, unsafe_override="a test"
        )
        return operator.execute(context(task="promote"))

    def deploy():
        operator = DeployToLocalOperator(task_id="deploy", model=model, poll_interval=0.2)
        return operator.execute(
            context(run_id=f"manual__{registry.version_of(model, alias='champion')}", task="deploy")
        )

    def rollback(task="rollback", **arguments):
        return RollbackModelOperator(task_id=task, model=model, **arguments).execute(context(task=task))

    def answering():
        answer = httpx.post(endpoint, json={"dataframe_records": [{"a": 1.0, "b": 0.0}]}, timeout=30, trust_env=False)
        assert answer.status_code == 200
        return answer.headers["x-model-version"]

    registry = MlflowHook().registry
    assert promote("1", None)["changed"]
    endpoint = deploy()["endpoint"]
    assert answering() == "1"
    assert promote("2", "1") == {"model": model, "version": "2", "previous": "1", "changed": True}
    assert deploy()["endpoint"] == endpoint
    assert answering() == "2"

    assert rollback() == {"model": model, "version": "1", "previous": "2", "changed": True}
    assert registry.version_of(model, alias="champion") == "1"
    assert answering() == "1"
    # The same task again, and a second alarm about the same version: nothing more happens.
    assert rollback()["changed"] is False
    assert rollback("other", away_from="2")["changed"] is False
    assert answering() == "1"
    with pytest.raises(PromotionConflictError, match=r"no healthy version before 1 to roll back to"):
        rollback("third")
    # What was rolled back from does not come back by itself.
    with pytest.raises(PromotionConflictError, match=r"version 2 was rolled back from"):
        promote("2", "1")
    assert [record.payload["version"] for record in told(model) if record.kind == "promotion.done"] == ["1", "2", "1"]


GIVES_UP = {"strategy": "canary", "weights_percent": [10], "step_timeout": 1, "bake": 0}
"""Nobody asks, so the first step proves nothing in its time."""

PROMOTED_AND_DEPLOYED = """\
from airflow.sdk import DAG

from airflow_provider_mlops.operators.deployment import DeployToLocalOperator
from airflow_provider_mlops.operators.model import PromoteModelOperator

with DAG("promoted_and_deployed", schedule=None, default_args={{"retries": 0}}):
    promote = PromoteModelOperator(
        task_id="promote", model={model!r}, version="2", expected_champion="1", unsafe_override="a test"
    )
    deploy = DeployToLocalOperator(
        task_id="deploy", model={model!r}, version="2", plan={plan}, restore_alias=True, poll_interval=0.2
    )
    promote >> deploy
"""


def test_when_a_version_does_not_take_over_the_alias_returns_to_the_one_that_serves(two_versions, run_dag, storage):
    model, registry = two_versions, MlflowHook().registry

    def promote(version, expected, **more):
        operator = PromoteModelOperator(
            task_id="promote",
            model=model,
            version=version,
            expected_champion=expected,
            unsafe_override="a test",
            **more,
        )
        operator.execute(context(task="promote"))

    def deploy(version, task="deploy", **changes):
        operator = DeployToLocalOperator(
            task_id=task, model=model, version=version, plan=GIVES_UP, restore_alias=True, poll_interval=0.2
        )
        ran = context(task=task)
        vars(ran["ti"]).update(changes)
        return operator.execute(ran)

    promote("1", None)
    deploy("1")
    ran = run_dag("promoted_and_deployed", {"it.py": PROMOTED_AND_DEPLOYED.format(model=model, plan=GIVES_UP)})
    assert (ran.state, ran.tasks) == ("failed", {"promote": "success", "deploy": "failed"})
    assert registry.version_of(model, alias="champion") == "1"
    pending = [record.payload for record in told(model) if record.kind == "promotion.pending"][-1]
    assert (pending["previous"], pending["version"], pending["rollback"]) == ("2", "1", True)
    assert pending["sentence"].startswith(f"Version 2 of {model} does not serve: rolled_back, inconclusive: ")
    before = len(told(model))

    # The same task, cleared: what was rolled back from is not rolled out again.
    with pytest.raises(RolloutFailedError, match=r"Version 2 of \w+ is not rolled out: \w+@champion is version 1\."):
        deploy("2", max_tries=5)
    assert len(told(model)) == before

    # Somebody promotes another version while a rollout is on its way to its end: that is left alone.
    promote("2", "1", allow_downgrade=True)
    with pytest.raises(
        RolloutFailedError, match=r"Version 1 serves\. \w+@champion was rolled back from 2 to version 1"
    ):
        deploy("2", "again")
    registry.create_version(model, run_id="f" * 32, source=registry.version(model, "1").source, tags={})
    promote("3", "1")
    with pytest.raises(RolloutFailedError, match=r"Version 1 serves\. \w+@champion is version 3 already\."):
        deploy("2", "again")
    assert registry.version_of(model, alias="champion") == "3"


def test_an_alias_that_cannot_return_to_what_serves_is_said_and_left(two_versions):
    """What serves was put there by hand and never was the champion."""
    model = two_versions
    DeployToLocalOperator(task_id="by_hand", model=model, version="1", poll_interval=0.2).execute(context(task="a"))
    PromoteModelOperator(task_id="promote", model=model, version="2", unsafe_override="a test").execute(context())
    deploy = DeployToLocalOperator(
        task_id="deploy", model=model, version="2", plan=GIVES_UP, restore_alias=True, poll_interval=0.2
    )
    with pytest.raises(
        RolloutFailedError, match=r"Version 1 serves\. \w+@champion was not returned to it: .*never the"
    ):
        deploy.execute(context(task="deploy"))
    assert MlflowHook().registry.version_of(model, alias="champion") == "2"


def scores(file, **columns):
    """What a scoring job writes: scores of rows by model; two-dimensional ones become a column per class."""
    table, models = {"y": [0] * 400}, {}
    for name, values in columns.items():
        models[name] = {"type": "values" if values.ndim == 1 else "probabilities", "inputs": [], "classes": [0, 1]}
        table |= {name: values} if values.ndim == 1 else {f"{name}_{k}": values[:, k] for k in range(values.shape[1])}
    pq.write_table(pa.table(table), file)
    file.with_suffix(".json").write_text(json.dumps({"label": "y", "keep": [], "models": models}))
    return str(file)


def test_versions_may_differ_in_service_by_as_much_as_on_the_evaluation_rows(tmp_path):
    even = np.linspace(0.05, 0.95, 400)
    assert _usual_shift(scores(tmp_path / "alone.parquet", candidate=even)) == 0
    assert _usual_shift(scores(tmp_path / "same.parquet", candidate=even, champion=even)) == 0
    assert _usual_shift(scores(tmp_path / "other.parquet", candidate=even, champion=even / 10)) > 0.8
    # A server may answer the likeliest class: scores that differ little can differ much in these.
    low, high = np.full(400, 0.48), np.full(400, 0.52)
    two = {"candidate": np.column_stack([1 - high, high]), "champion": np.column_stack([1 - low, low])}
    assert _usual_shift(scores(tmp_path / "classes.parquet", **two)) == 1


# Deciding


def decide(script, run_id="scheduled__1", **arguments):
    given = {
        "task_id": "decide",
        "model": "by_hand_decide",
        "data_digest": "sha256:a",
        "script": str(script),
        "when": ["drift"],
        "violating_windows": 1,
        "of_last": 1,
        "cooldown": "1s",
        **arguments,
    }
    with DAG("monitor", schedule=None):
        operator = DecideRetrainingOperator(**given)
        operator >> BaseOperator(task_id="retrain")
    ran = context(run_id)
    pushed = ran["ti"].pushed
    skipped = []
    try:
        result = operator.execute(ran)
    except DownstreamTasksSkipped as error:
        skipped = list(error.tasks)
        result = pushed.pop("return_value")
    assert skipped == ([] if result["verdict"] == "train" else ["retrain"])
    assert {key: pushed[key] for key in result if skipped} == (
        result if skipped else {}
    )  # each key is an XCom of its own as well
    return result


def drifted(window="sha256:a"):
    payload = payloads.drift_checked(
        window=window, verdict="drift", reason="shifted", sentence="'a' moved.", columns=["a"]
    )
    _append(kinds.DRIFT_CHECKED, payload)


def _append(kind, payload):
    record = Record(kind=kind, at=datetime.now(UTC), actor="test", payload=payload)
    append_next(JournalHook().journal, model_stream("by_hand_decide"), record)


@pytest.fixture
def script(storage, tmp_path):
    (tmp_path / "train.py").write_text("")
    return tmp_path / "train.py"


def test_drift_is_trained_on_once(script):
    assert decide(script)["verdict"] == "wait"  # nothing was judged yet
    drifted()
    first = decide(script, "scheduled__2")
    assert (first["verdict"], first["reason"]) == ("train", "drift")
    assert first["run_id"] == f"retrain__{first['key'][:24]}"
    # A retry of the same request is told the same; another one has to wait.
    assert decide(script, "scheduled__2") == {
        **first, "reason": "granted_before", "sentence": "This training was granted to the same request before.",
    }  # fmt: skip
    running = decide(script, "scheduled__3")
    assert (running["verdict"], running["reason"]) == ("wait", "running")
    # It ends, and the same data asks again.
    _append(
        kinds.TRAINING_STARTED, payloads.training_started(key=first["key"], run_id="r", data_digest="sha256:a", job="j")
    )
    _append(kinds.TRAINING_FINISHED, payloads.training_finished(key=first["key"], run_id="r"))
    again = decide(script, "scheduled__4")
    assert (again["verdict"], again["reason"]) == ("blocked", "already_trained")
    assert again["key"] == first["key"]


def test_the_training_that_was_granted_is_not_judged_again(script):
    drifted()
    key = decide(script, "scheduled__2")["key"]
    granted = decide(script, "manual__9", granted_key=key, trigger="schedule")
    assert (granted["verdict"], granted["reason"], granted["key"]) == ("train", "granted_before", key)


def test_a_person_is_not_judged(script):
    assert decide(script, trigger="manual")["reason"] == "manual"


def test_what_is_only_noted_grants_nothing(script):
    drifted()
    assert decide(script, "scheduled__2", binding=False)["verdict"] == "train"
    assert decide(script, "scheduled__3", binding=False)["verdict"] == "train"
    record = told("by_hand_decide")[-1]
    assert (record.kind, record.payload["binding"]) == ("retraining.decided", False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trigger": "moniter"}, r"trigger: 'moniter' is none of .*Did you mean 'monitor'"),
        ({"script": "/no/train.py"}, r"The script /no/train\.py cannot be read"),
        ({"cooldown": "a while"}, r"'a while' is no duration"),
        ({"when": ["drfit"]}, r"retrain\.when: 'drfit' starts no training.*Did you mean 'drift'"),
        ({"violating_windows": 4, "of_last": 3}, r"4 violating windows of the last 3 cannot be"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(script, arguments, message):
    with pytest.raises(ConfigError, match=message):
        decide(**{"script": script, **arguments})
    assert told("by_hand_decide") == []
