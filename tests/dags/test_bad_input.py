"""Whatever is wrong ends in its own clear error, soon, with nothing half-written, no orphan and no secret told."""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import training_scripts
from airflow.executors import executor_loader
from airflow.models.connection import Connection
from airflow.sdk import DAG
from leftovers import users_of
from services_mlflow import basic, held_port, locked_door

from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend
from airflow_provider_mlops.adapters.journal.sql import SqlJournal
from airflow_provider_mlops.errors import (
    ConfigError,
    DataError,
    GateRefused,
    JobFailedError,
    PromotionConflictError,
    ServiceError,
)
from airflow_provider_mlops.hooks.jobs import run_job
from airflow_provider_mlops.hooks.journal import JournalHook, record_once
from airflow_provider_mlops.hooks.mlflow import MlflowHook
from airflow_provider_mlops.jobs import JobSpec
from airflow_provider_mlops.jobs.identity import identity_tags
from airflow_provider_mlops.journal import Record, append_next, model_stream, payloads, verify
from airflow_provider_mlops.operators.data import SnapshotDataOperator
from airflow_provider_mlops.operators.deployment import DeployToLocalOperator
from airflow_provider_mlops.operators.evaluation import EvaluateModelOperator
from airflow_provider_mlops.operators.model import PromoteModelOperator, RegisterModelOperator, RollbackModelOperator
from airflow_provider_mlops.operators.prepare import PrepareDataOperator
from airflow_provider_mlops.operators.training import TrainOperator

SECRET = "s3cr3t-passw0rd-of-ann"


def context(case, task="train"):
    ti = SimpleNamespace(
        dag_id=case, run_id="manual__1", task_id=task, map_index=-1, max_tries=2, xcom_push=lambda key, value: None
    )
    return {"ti": ti}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return training_scripts.rows(tmp_path_factory.mktemp("rows") / "rows.parquet")


def train(case, text, tmp_path, rows, **arguments):
    """Train with the script *text*."""
    file = tmp_path / "train.py"
    file.write_text(text)
    operator = TrainOperator(
        **{
            "task_id": "train",
            "experiment": case,
            "script": str(file),
            "data_uri": rows,
            "label_column": "y",
            "run_timeout": "2m",
            **arguments,
        }
    )
    return operator.execute(context(case))


# Training scripts

RAISES = 'raise ValueError("there is no column y2")'
HANGS = """\
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", {mark!r}])
print("it begins", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("case", "script", "outcome", "message"),
    [
        (
            "bad_raises",
            RAISES,
            "failed",
            (
                r"train\.py ended as failed: It ended with exit code 1\.\nIts last lines:\n[\s\S]*"
                r"ValueError: there is no column y2$"
            ),
        ),
        (
            "bad_crash",
            "import os, signal; print('so far', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
            "failed",
            r"It was ended by SIGKILL\. The machine may have run out of memory\.\nIts last lines:\nso far$",
        ),
        (
            "bad_syntax",
            "def train(:\n",
            "failed",
            r"exit code 1\.[\s\S]*SyntaxError",
        ),
        (
            "bad_early",
            "import sys; sys.exit(0)",
            "failed",
            (
                r"train\.py ended well but logged 0 models \(none\) to MLflow run [0-9a-f]{32}; one is expected\. "
                r"Call mlflow\.<flavor>\.log_model\(\.\.\.\) once inside `with mlflow\.start_run\(\):`\."
            ),
        ),
        ("bad_two", training_scripts.TWO, "failed", r"ended well but logged 2 models \((model, spare|spare, model)\)"),
        (
            "bad_unsigned",
            training_scripts.UNSIGNED,
            "failed",
            (
                r"train\.py logged its model without a signature, so nobody can check what it is asked\. "
                r"Pass signature=mlflow\.models\.infer_signature"
            ),
        ),
        (
            "bad_one_class",
            training_scripts.GOOD.replace(".fit(features, rows[label])", ".fit(features, rows[label] * 0)"),
            "failed",
            r"exit code 1\.[\s\S]*at least 2 classes",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("bad_") else "",
)
def test_a_script_that_owes_something_is_told_what(connection, storage, tmp_path, rows, case, script, outcome, message):
    with pytest.raises(JobFailedError, match=message):
        train(case, script, tmp_path, rows)
    tracking = MlflowHook().tracking
    (run,) = tracking.find_runs(tracking.experiment(case), tags=identity_tags(case, "manual__1", "train", -1))
    assert (run.status, run.tags["mlops.outcome"]) == ("FAILED", outcome)
    entries = JournalHook().journal.read(model_stream(case))
    assert verify(entries) == []
    assert [entry.record.kind for entry in entries] == ["training.started", "training.failed"]
    assert entries[1].record.payload["sentence"].startswith("train.py ")
    assert users_of(storage) == []


def test_a_script_that_hangs_is_ended_with_all_that_it_started(connection, storage, tmp_path, rows):
    mark = str(tmp_path / "grandchild")
    before = time.monotonic()
    with pytest.raises(
        JobFailedError, match=r"ended as timed_out: It ran longer than its run_timeout of 5 s\.[\s\S]*it begins"
    ):
        train("bad_hangs", HANGS.format(mark=mark), tmp_path, rows, run_timeout="5s")
    assert time.monotonic() - before < 120  # the script hangs for 600
    assert users_of(mark) == users_of(storage) == []
    tracking = MlflowHook().tracking
    (run,) = tracking.find_runs(tracking.experiment("bad_hangs"), tags={})
    assert (run.status, run.tags["mlops.outcome"]) == ("FAILED", "timed_out")
    assert JournalHook().journal.read(model_stream("bad_hangs"))[-1].record.payload["reason"] == "timed_out"


def test_a_retry_of_a_failed_training_is_a_run_of_its_own(connection, storage, tmp_path, rows):
    for _ in range(2):
        with pytest.raises(JobFailedError):
            train("bad_retried", RAISES, tmp_path, rows)
    tracking = MlflowHook().tracking
    assert [run.status for run in tracking.find_runs(tracking.experiment("bad_retried"), tags={})] == ["FAILED"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"script": "/no/such/train.py"}, r"The script /no/such/train\.py cannot be read: No such file or directory\. Check"),
        ({"hyperparameters": "{depth: 3}"}, r"hyperparameters: '\{depth: 3\}' is no JSON object"),
        ({"hyperparameters": "[1]"}, r"hyperparameters: expected a mapping, got \[1\]"),
        ({"seed": "-1"}, r"seed: expected a whole number >= 0, got '-1'"),
        ({"seed": "seven"}, r"seed: expected a whole number >= 0, got 'seven'"),
        ({"run_timeout": "soon"}, r"'soon' is no duration"),
        ({"runs_on": "proces"}, r"runs_on: 'proces' is unknown\. Did you mean 'process'"),
        ({"runs_on": {"process": {}, "docker": {}}}, r"runs_on names one place to run, got \['docker', 'process'\]"),
        ({"experiment": ""}, r"experiment"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_an_argument_that_cannot_be_meant_starts_no_training(connection, storage, tmp_path, rows, arguments, message):
    with pytest.raises(ConfigError, match=message):
        train("bad_arguments", RAISES, tmp_path, rows, **arguments)
    tracking = MlflowHook().tracking
    assert tracking.find_runs(tracking.experiment("bad_arguments"), tags={}) == []
    assert not (storage / "jobs").exists()


def test_an_interpreter_that_is_not_there_is_named_before_a_run_is_made(connection, storage, tmp_path, rows):
    with pytest.raises(
        ConfigError, match=r"'/no/python' cannot be asked for its packages: .*No such file or directory"
    ):
        train("bad_python", RAISES, tmp_path, rows, runs_on={"process": {"python": "/no/python"}})
    tracking = MlflowHook().tracking
    assert tracking.find_runs(tracking.experiment("bad_python"), tags={}) == []


@pytest.mark.parametrize(
    "executor",
    [
        "CeleryExecutor",
        "airflow.executors.some.KubernetesExecutor",
        "CeleryExecutor,airflow.executors.local_executor.LocalExecutor",
        "CeleryExecutor;team=airflow.executors.local_executor.LocalExecutor",
    ],
)
def test_jobs_of_this_machine_need_the_executor_of_this_machine(
    connection, storage, tmp_path, rows, monkeypatch, executor
):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    with pytest.raises(ConfigError, match=r"runs_on: process works on one machine, so with LocalExecutor only"):
        train("bad_executor", RAISES, tmp_path, rows)


ASSIGNED = """
from airflow.sdk import DAG

from airflow_provider_mlops.operators.prepare import PrepareDataOperator

with DAG("assigned", schedule=None, default_args={{"retries": 0}}):
    for name, executor in (("local", {local!r}), ("default", None)):
        PrepareDataOperator(task_id=name, script={script!r}, data_uri="none", executor=executor)
"""


@pytest.mark.parametrize(
    ("executor", "local", "default"),
    [
        ("CeleryExecutor,LocalExecutor", "LocalExecutor", "failed"),
        ("CeleryExecutor,here:airflow.executors.local_executor.LocalExecutor", "here", "failed"),
        ("LocalExecutor,CeleryExecutor", "LocalExecutor", "success"),
    ],
)
def test_of_several_executors_the_one_that_the_task_is_assigned_to_counts(
    run_dag, storage, tmp_path, monkeypatch, capsys, executor, local, default
):
    for kind in ("alias", "module", "classname"):  # Airflow reads its executors once in a process
        monkeypatch.setattr(executor_loader, f"_{kind}_to_executors_per_team", defaultdict(dict))
    monkeypatch.setattr(executor_loader, "_team_name_to_executors", defaultdict(list))
    monkeypatch.setattr(executor_loader, "_executor_names", [])
    script = tmp_path / "writes.py"
    script.write_text("import os; open(os.environ['MLOPS_OUTPUT_URI'] + '/x', 'w').close()")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    ran = run_dag("assigned", {"assigned.py": ASSIGNED.format(local=local, script=str(script))})
    assert ran.tasks == {"local": "success", "default": default}
    if default == "failed":
        assert f'this deployment runs {executor}. Assign the task to it: executor="LocalExecutor".' in (
            capsys.readouterr().out
        )


def test_a_pod_of_the_kubernetes_executor_is_known_whatever_its_environment_says(
    connection, storage, tmp_path, rows, monkeypatch
):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")  # as in the pod template of Airflow's Helm chart
    monkeypatch.setenv("AIRFLOW_IS_K8S_EXECUTOR_POD", "True")
    with pytest.raises(ConfigError, match="this deployment runs KubernetesExecutor"):
        train("bad_pod", RAISES, tmp_path, rows)


# Data


def snapshot(path, **arguments):
    data = {"path": path, "label": "y", "timestamp": "at"}
    return SnapshotDataOperator(task_id="snapshot", data=data, **arguments).execute(context("bad_data"))


def test_data_that_is_not_there_is_named(storage):
    with pytest.raises(DataError, match=r"/no/such/data"):
        snapshot("/no/such/data")
    assert not storage.exists()


def test_a_window_without_rows_is_told_with_what_to_change(storage, rows):
    with pytest.raises(DataError, match=r"None of the 400 rows of .* has an event time in 'at'.*Choose a later as_of"):
        snapshot(rows, as_of="2001-01-01T00:00:00Z")
    with pytest.raises(DataError, match=r"No labeled row of .* is left for train"):
        snapshot(rows, hold_out="900d")


def test_a_label_with_one_class_is_nothing_to_learn(storage, tmp_path):
    only = training_scripts.rows(tmp_path / "only" / "rows.parquet", seed=8, y=[1] * 400)
    with pytest.raises(DataError, match=r"have the label y = 1; there is nothing to learn\. Train on a longer span"):
        snapshot(only)


def test_a_preparation_that_writes_nothing_or_fails_is_told(storage, tmp_path, rows):
    def prepare(script):
        (tmp_path / "prepare.py").write_text(script)
        operator = PrepareDataOperator(task_id="prepare", script=str(tmp_path / "prepare.py"), data_uri=rows)
        return operator.execute(context("bad_prepare", "prepare"))

    with pytest.raises(
        JobFailedError, match=r"prepare\.py ended well but wrote nothing into the folder MLOPS_OUTPUT_URI"
    ):
        prepare("pass")
    with pytest.raises(JobFailedError, match=r"prepare\.py ended as failed: It ended with exit code 3\."):
        prepare("import sys; sys.exit(3)")


TELLS = """
import json, os, pathlib
print("it is", os.environ["OPEN_TOKEN"])
(pathlib.Path(os.environ["MLOPS_OUTPUT_URI"]) / "seen.json").write_text(json.dumps(dict(os.environ)))
"""


def test_a_job_gets_the_variables_that_are_named_and_no_others(storage, tmp_path, rows, monkeypatch, capsys):
    worker = {"OPEN_TOKEN": SECRET, "SHORT": "1", "HIDDEN": "h", "AIRFLOW__CORE__FERNET_KEY": "f", "MLFLOW_X": "m"}
    for name, value in worker.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "tells.py").write_text(TELLS)

    def prepare(*names):
        operator = PrepareDataOperator(
            task_id="prepare",
            script=str(tmp_path / "tells.py"),
            data_uri=rows,
            runs_on={"process": {"environment": [*names]}},
        )
        return operator.execute(context("bad_variables", "prepare"))["data_uri"]

    seen = json.loads((Path(prepare("OPEN_TOKEN", "SHORT", "NOT_THERE")) / "seen.json").read_text())
    assert (seen["OPEN_TOKEN"], seen["SHORT"]) == (SECRET, "1")
    assert seen.keys() <= {
        "OPEN_TOKEN", "SHORT", "MLOPS_DATA_URI", "MLOPS_OUTPUT_URI", "MLOPS_HYPERPARAMETERS",
        "PATH", "HOME", "LANG", "TZ", "TMPDIR", "LC_CTYPE",
    }  # fmt: skip
    told = capsys.readouterr().out
    assert "it is ***" in told
    assert SECRET not in told
    with pytest.raises(ConfigError, match=r"runs_on.process.environment: 'AIRFLOW__CORE__FERNET_KEY' is Airflow's own"):
        prepare("AIRFLOW__CORE__FERNET_KEY")


# Judging


@pytest.fixture(scope="module")
def trained(mlflow_server, tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__MLOPS__STORAGE", str(folder / "storage"))
        patch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps({"conn_type": "mlflow", "host": mlflow_server}))
        return train("bad_trained", training_scripts.GOOD, folder, rows)


def evaluate(case, trained, data_uri, **arguments):
    with DAG(case, schedule=None):
        operator = EvaluateModelOperator(
            **{
                "task_id": "evaluate",
                "model": case,
                "run_id": trained["run_id"],
                "model_uri": trained["model_uri"],
                "data_uri": data_uri,
                "label_column": "y",
                "rules": [{"metric": "roc_auc", "at_least": 0.6}],
                **arguments,
            }
        )
    return operator.execute(context(case, "evaluate"))


def test_judging_rows_of_one_class_are_told_and_pass_nothing(connection, storage, tmp_path, trained):
    only = training_scripts.rows(tmp_path / "only" / "rows.parquet", seed=8, y=[1] * 400)
    judged = evaluate("bad_judge_class", trained, only)
    assert (judged["verdict"], judged["reason"]) == ("refused", "one_class")
    assert judged["sentence"] == (
        "The evaluation labels hold the one class 1, so nothing can be told apart. Evaluate on rows of every class."
    )


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data_uri": "/no/such/rows"}, JobFailedError, r"The candidate could not be scored; .*\nIts last lines:\n[\s\S]*/no/such/rows"),
        ({"label_column": "--z"}, JobFailedError, r"could not be scored; [\s\S]*'--z'"),
        ({"model_uri": "models:/m-nobody"}, ConfigError, r"model_uri: models:/m-nobody is no model of MLflow run \w+\."),
        ({"run_timeout": "1s"}, JobFailedError, r"ended as timed_out: It ran longer than its run_timeout of 1 s"),
        ({"if_refused": "cry"}, ConfigError, r"if_refused: expected 'skip' or 'fail', got 'cry'"),
        ({"rules": [{"metric": "roc_ac"}]}, ConfigError, r"'roc_ac'.*Did you mean 'roc_auc'"),
        ({"rules": [{"metric": "roc_auc", "at_lest": 1}]}, ConfigError, r"'at_lest'.*Did you mean 'at_least'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_cannot_be_judged_is_told_and_decides_nothing(
    connection, storage, tmp_path, rows, trained, arguments, error, message
):
    with pytest.raises(error, match=message):
        evaluate("bad_judge", trained, **{"data_uri": rows, **arguments})
    assert JournalHook().journal.read(model_stream("bad_judge")) == []
    predictions = storage / "predictions"
    assert [file for file in predictions.rglob("*") if file.is_file()] == []


def test_rows_that_the_run_says_it_was_trained_on_judge_nobody(connection, storage, rows, trained):
    judged = evaluate("bad_judge_trained", trained, rows)
    assert (judged["verdict"], judged["reason"]) == ("refused", "overlap")
    assert "400 of 400 evaluation rows (100.0%) were trained on" in judged["sentence"]


def test_rows_of_the_wrong_time_and_rows_that_judge_again_and_again_are_told(
    connection, storage, tmp_path, trained, capsys
):
    def said():
        return [entry.record.payload for entry in JournalHook().journal.read(model_stream(case))]

    case = "bad_judge_time"
    old = training_scripts.rows(tmp_path / "old" / "rows.parquet", seed=5, shop=["b"] * 400, n=[1] * 400)
    # The same rows as another program wrote them: with a column of its own, and floats because of a missing value.
    others = {"part": ["train"] * 400, "n": [1.0] * 399 + [None], "shop": ["b"] * 300 + ["a"] * 100}
    train = training_scripts.rows(tmp_path / "train" / "rows.parquet", seed=5, **others)
    rules = [{"metric": "roc_auc", "at_least": 0.6}, {"metric": "accuracy", "per": "shop", "protected": True}]
    judged = evaluate(case, trained, old, train_uri=train, timestamp_column="at", rules=rules)
    assert (judged["verdict"], judged["reason"]) == ("refused", "overlap")
    assert "300 of 400 evaluation rows" in judged["sentence"]
    assert "2 more findings" in judged["sentence"]
    found = json.loads(MlflowHook().tracking.read_text(trained["run_id"], "mlops/gate.json"))["findings"]
    assert [finding["reason"] for finding in found] == ["overlap", "missing_slice", "time_order"]
    assert "The protected slices shop=a have training rows and no evaluation row" in found[1]["sentence"]
    assert "Train on the time before hold_out only" in found[2]["sentence"]
    (decided,) = said()
    for number in range(19):
        other = Record("gate.decided", datetime.now(UTC), "me", {**decided, "run_id": f"other {number}"})
        append_next(JournalHook().journal, model_stream(case), other)
    early = training_scripts.rows(
        tmp_path / "early" / "rows.parquet", seed=9, at=[datetime(2025, 1, 1, tzinfo=UTC)] * 400
    )
    arguments = {"train_uri": early, "timestamp_column": "at", "max_age": "10d", "as_of": "2026-06-01"}
    judged = evaluate(case, trained, old, **arguments)
    assert (judged["verdict"], judged["reason"], judged["judged_before"]) == ("refused", "stale_evaluation_set", 19)
    assert judged["sentence"].startswith(
        "The newest evaluation row is 134 days old (2026-01-17T15:00:00+00:00), 10 days"
    )
    assert "These evaluation rows have now judged 20 candidates" in capsys.readouterr().out
    assert (said()[-1]["rows_digest"], said()[-1]["judged_before"]) == (decided["rows_digest"], 19)


def test_what_a_model_costs_is_measured_and_a_champion_that_is_ignored_is_journalled(
    connection, storage, tmp_path, trained
):
    case = "bad_judge_cost"
    registry = MlflowHook().registry
    registry.create_version(case, run_id=trained["run_id"], source=trained["model_uri"], tags={})
    registry.set_alias(case, alias="champion", version="1")
    rows = training_scripts.rows(tmp_path / "new" / "rows.parquet", seed=6)
    rules = [
        {"metric": "roc_auc", "at_least": 0.6, "unsafe_ignore_champion": True},
        {"metric": "latency_p95_ms", "at_most": 60_000},
        {"metric": "memory_mib", "at_most": 1},
    ]
    judged = evaluate(case, trained, rows, rules=rules)
    assert (judged["verdict"], judged["reason"]) == ("refused", "budget_exceeded")
    assert "within the budget of 60000" in judged["rules"][1]
    assert "the budget is 1." in judged["rules"][2]
    used, decided = [entry.record for entry in JournalHook().journal.read(model_stream(case))]
    assert (used.kind, decided.kind) == ("override.used", "gate.decided")
    assert used.payload["what"] == "comparison with the champion"
    assert used.payload["run_id"] == trained["run_id"]


# Models


def test_a_run_without_a_model_is_not_registered(connection, storage):
    tracking = MlflowHook().tracking
    run = tracking.create_run(tracking.experiment("bad_register"), name="empty", tags={})
    operator = RegisterModelOperator(task_id="register", model="bad_register", run_id=run.run_id)
    with pytest.raises(DataError, match=rf"MLflow run {run.run_id} holds 0 models; one is needed\. Log one model"):
        operator.execute(context("bad_register"))
    assert MlflowHook().registry.versions("bad_register") == []


def test_a_version_that_the_journal_knows_of_another_mlflow_gets_no_alias_and_no_record(connection, storage, trained):
    case = "bad_rebuilt"
    elsewhere = payloads.model_registered(version="1", run_id="of-another-mlflow", source="models:/m-0")
    stream = model_stream(case)
    append_next(JournalHook().journal, stream, Record("model.registered", datetime.now(UTC), "me", elsewhere))
    operator = RegisterModelOperator(task_id="register", model=case, run_id=trained["run_id"])
    told = rf"version 1 is run {trained['run_id']} in this registry, but run of-another-mlflow in the journal"
    with pytest.raises(PromotionConflictError, match=told):
        operator.execute(context(case))
    assert MlflowHook().registry.version_of(case, alias="challenger") is None
    assert len(JournalHook().journal.read(stream)) == 1


def test_an_old_run_that_is_registered_again_moves_no_alias_back(connection, storage, trained):
    case, hook = "bad_cleared", MlflowHook()
    operator = RegisterModelOperator(task_id="register", model=case, run_id=trained["run_id"])
    assert operator.execute(context(case))["version"] == "1"
    newer = hook.tracking.create_run(hook.tracking.experiment(case), name="newer", tags={})
    hook.registry.create_version(case, run_id=newer.run_id, source=trained["model_uri"], tags={})
    hook.registry.set_alias(case, alias="challenger", version="2")
    assert operator.execute(context(case))["version"] == "1"
    assert hook.registry.version_of(case, alias="challenger") == "2"


def test_a_version_that_was_made_champion_by_hand_can_be_rolled_back_from(connection, storage, trained):
    case, registry = "bad_by_hand", MlflowHook().registry
    RegisterModelOperator(task_id="register", model=case, run_id=trained["run_id"]).execute(context(case))
    promote = PromoteModelOperator(task_id="promote", model=case, version="1", unsafe_override="first")
    promote.execute(context(case, "promote"))
    other = MlflowHook().tracking.create_run(MlflowHook().tracking.experiment(case), name="other", tags={})
    registry.create_version(case, run_id=other.run_id, source=trained["model_uri"], tags={})
    registry.set_alias(case, alias="champion", version="2")
    back = {"task_id": "back", "model": case, "away_from": "2"}
    with pytest.raises(PromotionConflictError, match="it was moved from outside"):
        RollbackModelOperator(**back).execute(context(case, "back"))
    done = RollbackModelOperator(**back, on_foreign_change="adopt").execute(context(case, "back"))
    assert (done["version"], done["previous"], registry.version_of(case, alias="champion")) == ("1", "2", "1")


def test_a_version_that_was_refused_serves_only_by_an_override(connection, storage, trained):
    case, stream = "bad_refused", model_stream("bad_refused")
    RegisterModelOperator(task_id="register", model=case, run_id=trained["run_id"]).execute(context(case))
    no = {"verdict": "refused", "reason": "not_better", "sentence": "No gain.", "digest": "d", "champion": None}
    told = payloads.gate_decided(**no, run_id=trained["run_id"])
    append_next(JournalHook().journal, stream, Record("gate.decided", datetime.now(UTC), "me", told))
    # A plan that cannot be tells that a deployment has begun.
    deploy = {"task_id": "deploy", "model": case, "version": "1", "plan": {"strategy": "none"}}

    def begins(**arguments):
        with pytest.raises(ConfigError, match="strategy"):
            DeployToLocalOperator(**deploy, **arguments).execute(context(case, "deploy"))

    with pytest.raises(GateRefused, match=r"bad_refused version 1 is not deployed: the gate said refused \(not_better"):
        DeployToLocalOperator(**deploy).execute(context(case, "deploy"))
    begins(unsafe_override="a trial")
    begins(unsafe_override="a trial")
    used = [e.record.payload for e in JournalHook().journal.read(stream) if e.record.kind == "override.used"]
    assert [(payload["why"], payload["version"]) for payload in used] == [("a trial", "1")]
    MlflowHook().registry.set_alias(case, alias="champion", version="1")
    begins()  # what the alias points at is meant to serve


def test_a_version_is_judged_in_the_name_of_its_own_run_only(connection, storage, rows, trained):
    case, hook = "bad_in_the_name", MlflowHook()
    other = hook.tracking.create_run(hook.tracking.experiment(case), name="other", tags={})
    hook.registry.create_version(case, run_id=other.run_id, source=trained["model_uri"], tags={})
    with pytest.raises(ConfigError, match=rf"models:/{case}/1 is no model of MLflow run {trained['run_id']}"):
        evaluate(case, trained, rows, model_uri=f"models:/{case}/1")


def test_rows_that_are_mostly_copies_judge_nobody(connection, storage, tmp_path, trained):
    rows = training_scripts.rows(tmp_path / "new" / "rows.parquet", seed=7)
    few = pq.read_table(rows).slice(0, 2)
    pq.write_table(pa.concat_tables([few] * 500), f"{rows}/rows.parquet")
    judged = evaluate("bad_judge_copies", trained, rows)
    assert (judged["verdict"], judged["reason"]) == ("refused", "copies")
    assert "Only 2 of 1000 evaluation rows are distinct; they know as much as 2 rows" in judged["sentence"]


@pytest.mark.parametrize(
    ("operator", "arguments", "message"),
    [
        (RegisterModelOperator, {"run_id": "nobody"}, r"Run 'nobody' was not found\. MLflow at http"),
        (PromoteModelOperator, {"version": "7"}, r"Version '7' was not found\. No version of a model 'bad_nobody'"),
        (DeployToLocalOperator, {"version": "7"}, r"Version '7' was not found\. No version of a model 'bad_nobody'"),
        (DeployToLocalOperator, {}, r"Alias 'champion' was not found\. bad_nobody has no such alias: promote"),
        (RollbackModelOperator, {}, r"bad_nobody@champion points at no version, so there is nothing to roll back from"),
    ],
    ids=["register", "promote", "deploy", "deploy alias", "roll back"],
)
def test_a_model_that_is_not_there_is_named(connection, storage, operator, arguments, message):
    with pytest.raises(Exception, match=message) as caught:
        operator(task_id="task", model="bad_nobody", **arguments).execute(context("bad_nobody"))
    assert type(caught.value).__module__ == "airflow_provider_mlops.errors"
    assert users_of(storage) == []


def test_the_default_journal_needs_the_executor_of_this_machine(connection, storage, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    with pytest.raises(ConfigError, match=r"The default journal, a SQLite file, works on one machine.*journal_conn_id"):
        _ = JournalHook().journal


# An MLflow that does not answer, and what is never told

UNREACHABLE = [
    (TrainOperator, {"experiment": "x", "data_uri": "/rows"}),
    (EvaluateModelOperator, {"model": "x", "run_id": "r", "model_uri": "m", "data_uri": "/d", "label_column": "y", "rules": []}),
    (RegisterModelOperator, {"model": "x", "run_id": "r"}),
    (PromoteModelOperator, {"model": "x", "version": "1"}),
    (DeployToLocalOperator, {"model": "x", "version": "1"}),
    (RollbackModelOperator, {"model": "x"}),
]  # fmt: skip


@pytest.fixture
def silent_port():
    with held_port() as port:
        yield port


def test_an_mlflow_that_cannot_be_reached_fails_soon_and_tells_no_secret(
    storage, silent_port, monkeypatch, tmp_path, capfd
):
    port = silent_port
    address = {"conn_type": "mlflow", "host": "127.0.0.1", "port": port, "login": "ann", "password": SECRET}
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(address))
    (tmp_path / "train.py").write_text("")

    def run(operator, arguments):
        if operator is TrainOperator:
            arguments = {**arguments, "script": str(tmp_path / "train.py")}
        began = time.monotonic()
        with pytest.raises(ServiceError) as caught:
            operator(task_id="task", **arguments).execute(context("bad_reach"))
        return caught.value, time.monotonic() - began

    import mlflow.store.model_registry.rest_store
    import mlflow.store.tracking.rest_store  # noqa: F401 - it does not stand being imported by two threads

    with ThreadPoolExecutor(len(UNREACHABLE)) as threads:  # each waits a moment between its tries
        ended = [threads.submit(run, *case).result for case in UNREACHABLE]
        for error, seconds in (result() for result in ended):
            assert seconds < 60  # MLflow by itself tries for minutes
            assert str(error).startswith(f"MLflow at http://127.0.0.1:{port} cannot be reached: ")
            assert "Check that it runs" in str(error)
            cause = error
            while cause is not None:  # Airflow logs the causes too
                assert SECRET not in str(cause)
                cause = cause.__cause__ or cause.__context__
    assert SECRET not in "".join(capfd.readouterr())


def test_a_wrong_password_is_told_without_it(mlflow_server, storage, monkeypatch, tmp_path, rows):
    with locked_door(mlflow_server, basic("ann", "right")) as door:
        address = {"conn_type": "mlflow", "host": door, "login": "ann", "password": SECRET}
        monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", json.dumps(address))
        with pytest.raises(
            ConfigError, match=r"denies access \(401\): You are not authenticated\. Check login"
        ) as caught:
            train("bad_password", RAISES, tmp_path, rows)
    assert SECRET not in str(caught.value)


def test_a_job_does_not_show_its_secrets():
    spec = JobSpec(name="x", command=("python",), environment={}, secret_environment={"TOKEN": SECRET})
    assert SECRET not in repr(spec)
    assert SECRET not in str(spec)


class Telltale:
    def __reduce__(self):
        told = "import os; print(dict(os.environ)); raise ValueError(os.environ['MLFLOW_TRACKING_PASSWORD'])"
        return exec, (told,)


def test_a_pickle_that_prints_its_environment_tells_no_secret(tmp_path):
    lines = []
    model = tmp_path / "model.pkl"
    model.write_bytes(pickle.dumps(Telltale()))
    spec = JobSpec(
        name="loads",
        command=(sys.executable, "-c", "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))", str(model)),
        environment={"MLFLOW_TRACKING_USERNAME": "ann"},
        secret_environment={"MLFLOW_TRACKING_PASSWORD": SECRET, "MLFLOW_TRACKING_TOKEN": ""},
    )
    log = SimpleNamespace(info=lambda text, *values: lines.append(text % values))
    status, tail = run_job(ProcessBackend(tmp_path / "jobs"), spec, log)
    assert status.phase.value == "failed"
    assert "'MLFLOW_TRACKING_USERNAME': 'ann'" in "".join(lines)
    assert "'MLFLOW_TRACKING_PASSWORD': '***'" in "".join(lines)
    assert "ValueError: ***" in tail
    assert SECRET not in "".join(lines) + tail


def test_the_last_word_on_a_run_is_written_also_when_it_was_said_before(tmp_path, monkeypatch):
    journal = SqlJournal(f"sqlite:///{tmp_path}/journal.db")
    monkeypatch.setattr(JournalHook, "journal", journal)
    for digest in ("refused", "refused", "passed", "refused", "refused"):
        payload = {"run_id": "r", "digest": digest}
        record_once("again", "gate.decided", payload, context("again"), once=("run_id", "digest"), of="run_id")
    assert [entry.record.payload["digest"] for entry in journal.read(model_stream("again"))] == [
        "refused",
        "passed",
        "refused",
    ]


def test_a_job_that_deletes_its_own_folder_is_lost_and_not_waited_for(tmp_path):
    code = "import os, shutil; shutil.rmtree(os.path.dirname(os.getcwd()))"
    spec = JobSpec("vandal", (sys.executable, "-c", code), {})
    log = SimpleNamespace(info=lambda text, *values: None)
    status, _ = run_job(ProcessBackend(tmp_path / "jobs"), spec, log)
    assert (status.phase.value, status.reason) == ("lost", "Its state was removed while it ran.")


NO_SECRET = """\
import os

from airflow.sdk import DAG, task

from airflow_provider_mlops.operators.evaluation import EvaluateModelOperator
from airflow_provider_mlops.operators.model import RegisterModelOperator
from airflow_provider_mlops.operators.training import TrainOperator

LOCKED = {{"mlflow_conn_id": "mlflow_locked"}}
with DAG("no_secret", schedule=None, default_args={{"retries": 0}}):
    train = TrainOperator(
        task_id="train", experiment="no_secret", script={script!r}, data_uri={rows!r}, label_column="y", **LOCKED
    )
    evaluate = EvaluateModelOperator(
        task_id="evaluate", model="no_secret", run_id=train.output["run_id"], model_uri=train.output["model_uri"],
        data_uri={others!r}, label_column="y", rules=[{{"metric": "roc_auc", "at_least": 0.6}}], **LOCKED,
    )
    register = RegisterModelOperator(task_id="register", model="no_secret", run_id=train.output["run_id"], **LOCKED)

    @task
    def look(text):
        return [key for key, value in os.environ.items() if value == text]

    train >> evaluate >> register >> look({secret!r}[::-1])
"""
# The script tells what others on the machine can see of it, and that it was let in by the variables that it was given.
LOOKS = """\
import os, pathlib, sys
line = pathlib.Path("/proc/self/cmdline").read_text()
print("arguments", [part for part in line.split(chr(0)) if os.environ["MLFLOW_TRACKING_PASSWORD"] in part])
"""


def test_no_secret_is_in_logs_results_templates_environment_or_files(
    mlflow_server, run_dag, storage, tmp_path, rows, monkeypatch, capfd, caplog
):
    from airflow.models.renderedtifields import RenderedTaskInstanceFields
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    script = tmp_path / "train.py"
    script.write_text(LOOKS + training_scripts.GOOD)
    others = training_scripts.rows(tmp_path / "others" / "rows.parquet", seed=10)
    before = dict(os.environ)
    connection = Connection(conn_id="mlflow_locked", conn_type="mlflow", login="ann", password=SECRET)
    with locked_door(mlflow_server, basic("ann", SECRET)) as door, create_session() as session:
        connection.host = door
        session.add(connection)
        session.commit()
        try:
            text = NO_SECRET.format(script=str(script), rows=rows, others=others, secret=SECRET[::-1])
            ran = run_dag("no_secret", {"no_secret.py": text})
        finally:
            session.delete(connection)
    assert ran.state == "success", ran
    assert ran.results["look"] == []
    new = {key: value for key, value in os.environ.items() if before.get(key) != value}
    airflows = ("AIRFLOW_CTX_", "_AIRFLOW_PARSING_CONTEXT_")  # the second is left behind by Airflow 3.2
    assert [key for key, value in new.items() if SECRET in value or not key.startswith(airflows)] == []
    out, err = capfd.readouterr()
    assert "arguments []" in out
    with create_session() as session:
        kept = [str(row.value) for row in session.query(XComModel)]
        kept += [json.dumps(row.rendered_fields) for row in session.query(RenderedTaskInstanceFields)]
    assert len(kept) > 5
    texts = {"standard output": out, "standard error": err, "log": caplog.text, "database": "\n".join(kept)}
    for folder in (storage, tmp_path, run_dag.folder.parent.parent / "logs"):
        texts |= {str(file): file.read_bytes().decode("latin-1") for file in folder.rglob("*") if file.is_file()}
    assert [where for where, text in texts.items() if SECRET in text] == []
    assert any(where.endswith("/log") for where in texts)
    assert psutil.Process().environ().get("MLFLOW_TRACKING_PASSWORD") is None
