"""From a pipeline file, or the same words in Python, to DAGs: which tasks, in which order, with which form."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace

import airflow.sdk
import jinja2
import pytest
import yaml
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.definitions._internal.dag_parsing_context import _airflow_parsing_context_manager
from airflow.serialization.serialized_objects import DagSerialization

from airflow_provider_mlops.errors import (
    ConfigError,
    DataError,
    GateRefused,
    JobFailedError,
    NotFoundError,
    PromotionConflictError,
    ServiceError,
)
from airflow_provider_mlops.factory import continuous_training_dags, load_dags

needs_retry_policies = pytest.mark.skipif(not hasattr(airflow.sdk, "RetryPolicy"), reason="Airflow below 3.3")
STUB = '"""DAGs for Airflow."""\nfrom airflow_provider_mlops.factory import load_dags\n\nload_dags(__file__)\n'
TRAIN = [
    "data.snapshot", "data.validate", "training.decide", "training.train", "training.evaluate", "release.register",
    "release.smoke_test",
]  # fmt: skip


def words(**changes):
    """A pipeline with most of its sections; a section that is changed to None is left out."""
    whole = {
        "mlops": 1,
        "name": "churn",
        "mode": "enforce",
        "schedule": "@weekly",
        "data": {
            "path": "data/rows.parquet",
            "label": "churned",
            "timestamp": "at",
            "train_on": "90d",
            "hold_out": "14d",
        },
        "train": {
            "script": "train.py",
            "hyperparameters": {"depth": 3, "rate": 0.1, "loss": "log", "balanced": True},
            "seed": 7,
            "run_timeout": "10m",
        },
        "evaluate": [{"metric": "roc_auc", "at_least": 0.6}],
        "deploy": {"local": {}, "canary": {"weights_percent": [10, 50]}, "bake": "1m"},
        "monitor": {"schedule": "@daily", "window": "7d"},
        "retrain": {"when": ["schedule", "drift"]},
        **changes,
    }
    return {key: value for key, value in whole.items() if value is not None}


@pytest.fixture
def write(dags_folder):
    """Write a pipeline file and its stub; return the stub."""
    (dags_folder / "train.py").write_text("")
    (dags_folder / "prepare.py").write_text("")

    def put(name="churn", **changes):
        (dags_folder / f"{name}.yaml").write_text(yaml.safe_dump(words(name=name, **changes)))
        stub = dags_folder / f"{name}.py"
        stub.write_text(STUB)
        return stub

    return put


def build(stub):
    """The DAGs of one stub, as a DAG processor gets them, by what comes after the pipeline's name."""
    bag = DagBag(dag_folder=stub)
    assert bag.import_errors == {}
    return {dag_id.partition("__")[2]: dag for dag_id, dag in bag.dags.items()}


def order(dag):
    """The task ids in the only order in which they can run: each waits for the one before it. Tear-downs left out."""
    tasks = [task.task_id for task in dag.topological_sort() if not task.is_teardown]
    for before, after in pairwise(tasks):
        assert after in dag.get_task(before).downstream_task_ids
    return tasks


def serialized(dag):
    """What goes into Airflow's database, without the place of the file."""
    whole = DagSerialization.to_dict(dag)
    return json.dumps(
        {k: v for k, v in whole["dag"].items() if k not in {"fileloc", "relative_fileloc"}}, sort_keys=True
    )


# Which DAGs, tasks and groups


def test_a_pipeline_becomes_a_training_dag_and_a_monitor(write):
    dags = build(write())
    assert {kind: dag.dag_id for kind, dag in dags.items()} == {"train": "churn__train", "monitor": "churn__monitor"}
    assert order(dags["train"]) == [*TRAIN, "release.promote", "serving.deploy"]
    assert order(dags["monitor"]) == ["check", "decide", "retrain"]
    assert set(dags["train"].task_group_dict) - {None} == {"data", "training", "release", "serving"}


def test_a_pipeline_without_monitor_or_deployment_has_none(write):
    dags = build(write(monitor=None, deploy=None, retrain=None))
    assert list(dags) == ["train"]
    assert order(dags["train"]) == [*TRAIN, "release.promote"]


@pytest.mark.parametrize(
    ("changes", "closed"),
    [
        ({}, True),
        ({"monitor": None, "retrain": None}, True),
        ({"monitor": None, "retrain": None, "schedule": None}, False),
        ({"monitor": None, "schedule": None, "retrain": {"when": ["new_data"]}}, True),
    ],
)
def test_a_training_that_others_than_a_person_start_gives_back_what_it_was_granted(write, changes, closed):
    dag = build(write(**changes))["train"]
    tear_downs = [task for task in dag.tasks if task.is_teardown]
    assert [task.task_id for task in tear_downs] == (["training.close"] if closed else [])
    assert all(task.upstream_task_ids == {"training.train"} for task in tear_downs)


def test_prepare_comes_first_and_hands_its_folder_to_the_snapshot(write):
    dag = build(write(prepare={"script": "prepare.py", "hyperparameters": {"fill": 0}}))["train"]
    assert order(dag)[:2] == ["data.prepare", "data.snapshot"]
    source = dag.get_task("data.snapshot").data["path"]
    assert (source.operator.task_id, source.key) == ("data.prepare", "data_uri")


@pytest.mark.parametrize(
    ("changes", "train", "monitor"),
    [
        ({"mode": "observe"}, TRAIN, ["check", "decide"]),
        (
            {"mode": "suggest"},
            [*TRAIN, "release.approve", "release.promote", "serving.deploy"],
            ["check", "decide", "retrain"],
        ),
        ({"mode": "enforce"}, [*TRAIN, "release.promote", "serving.deploy"], ["check", "decide", "retrain"]),
        (
            {"mode": "enforce", "approve": {"response_timeout": "1d", "assigned_users": ["ann"]}},
            [*TRAIN, "release.approve", "release.promote", "serving.deploy"],
            ["check", "decide", "retrain"],
        ),
    ],
    ids=["observe", "suggest", "enforce", "enforce and approve"],
)
def test_the_mode_decides_what_may_be_changed(write, changes, train, monitor):
    dags = build(write(**changes))
    assert order(dags["train"]) == train
    assert order(dags["monitor"]) == monitor


def test_in_observe_the_monitor_only_notes_what_it_would_decide(write):
    assert build(write(mode="observe"))["monitor"].get_task("decide").binding is False
    assert build(write(mode="enforce"))["monitor"].get_task("decide").binding is True


@pytest.mark.parametrize(
    ("probe", "told"),
    [
        (
            {"version": "2", "ready_seconds": 2.3, "requests": 20, "latency_p95_ms": 5.5},
            "ready after 2.3 s, 20 answers as offline, 95 % within 5.5 ms",
        ),
        ("a step of the user's own", "a step of the user's own"),
    ],
    ids=["ours", "the user's own"],
)
def test_the_evidence_for_an_approval_is_a_table_of_words(write, probe, told):
    body = build(write(mode="suggest"))["train"].get_task("release.approve").body
    results = {
        "training.evaluate": {
            "champion": "1", "verdict": "passed", "reason": "holds", "sentence": "It holds.", "rules": ["A gain."],
            "judged_before": 3, "digest": "sha256:1",
        },
        "release.register": {"model": "churn", "version": "2", "run_id": "r2"},
        "release.smoke_test": probe,
    }  # fmt: skip
    ti = SimpleNamespace(xcom_pull=lambda task_ids: results[task_ids])
    lines = jinja2.Template(body).render(ti=ti).strip().splitlines()
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines[2:])
    assert f"| Smoke test | {told} |" in lines
    assert "| Candidates judged by the same rows before | 3 |" in lines
    assert "| Model card | `mlops/model_card.html` of MLflow run `r2` |" in lines


def test_the_person_who_approves_is_asked_for_as_long_as_the_file_says(write):
    task = build(write(approve={"response_timeout": "1d", "assigned_users": ["ann"]}))["train"].get_task(
        "release.approve"
    )
    assert task.response_timeout == timedelta(days=1)
    assert [user["id"] for user in task.assigned_users] == ["ann"]
    assert task.defaults == ["Reject"]


def test_a_dag_runs_once_at_a_time_and_never_makes_up_for_the_past(write):
    for dag in build(write(start_date="2026-05-01", owner="ann", tags=["money"])).values():
        assert dag.max_active_runs == 1
        assert dag.catchup is False
        assert dag.start_date == datetime(2026, 5, 1, tzinfo=UTC)
        assert {"mlops", "churn", "money"} == set(dag.tags)
        assert {task.owner for task in dag.tasks} == {"ann"}


@pytest.mark.parametrize(
    ("changes", "summary"),
    [
        ({}, "0 0 * * 0"),
        ({"schedule": None, "retrain": {"when": ["drift"]}}, None),
        ({"schedule": "30 6 * * 1"}, "30 6 * * 1"),
    ],
)
def test_a_schedule_starts_the_training_when_the_file_says_so(write, changes, summary):
    dag = build(write(**changes))["train"]
    found = getattr(dag.timetable, "expression", None) or None
    assert {"@weekly": "0 0 * * 0"}.get(found, found) == summary  # Airflow 3.2 keeps the word


def test_new_data_starts_the_training_by_an_asset_that_is_watched(write):
    dag = build(write(schedule=None, retrain={"when": ["new_data"]}, monitor=None))["train"]
    (asset,) = dag.timetable.asset_condition.objects
    assert asset.uri == "mlops-data://churn/"
    (watcher,) = asset.watchers
    assert watcher.trigger.path.endswith("/dags/data/rows.parquet")


# Steps of the user's own

EMPTY = "airflow.providers.standard.operators.empty.EmptyOperator"
BASH = "airflow.providers.standard.operators.bash.BashOperator"


def test_a_step_is_replaced_or_has_something_before_and_after_it(write):
    dag = build(
        write(
            steps={
                "validate": {"operator": BASH, "bash_command": "echo fine"},
                "before_train": {"operator": EMPTY},
                "after_evaluate": {"operator": EMPTY},
            }
        )
    )["train"]
    assert order(dag) == [
        "data.snapshot", "data.validate", "training.decide", "training.before_train", "training.train",
        "training.evaluate", "training.after_evaluate", "release.register", "release.smoke_test", "release.promote",
        "serving.deploy",
    ]  # fmt: skip
    assert dag.get_task("data.validate").bash_command == "echo fine"
    assert dag.get_task("data.validate").task_type == "BashOperator"


@pytest.mark.parametrize(("changes", "expected"), [({}, "mlflow_default"), ({"mlflow_conn_id": "risk"}, "risk")])
def test_every_task_that_speaks_to_mlflow_uses_the_connection_of_the_file(write, changes, expected):
    used = {
        task.task_id: task.mlflow_conn_id
        for dag in build(write(**changes)).values()
        for task in dag.tasks
        if hasattr(task, "mlflow_conn_id")
    }
    assert used == dict.fromkeys(
        ["data.validate", *TRAIN[3:], "release.promote", "serving.deploy", "check"],
        expected,
    )


@pytest.mark.parametrize(
    ("deploy", "runs_on", "expected"),
    [
        (None, "process", "current"),
        (None, {"process": {"python": "/opt/venvs/churn/bin/python"}}, "model"),
        ({"local": {}}, {"process": {"python": "/opt/venvs/churn/bin/python"}}, "current"),
        ({"local": {"model_environment": "model"}}, "process", "model"),
    ],
)
def test_a_version_is_smoke_tested_where_it_will_serve_or_by_what_it_was_trained_with(write, deploy, runs_on, expected):
    dag = build(write(deploy=deploy, train={"script": "train.py", "runs_on": runs_on}))["train"]
    assert dag.get_task("release.smoke_test").model_environment == expected


def test_what_becomes_of_an_alias_that_was_moved_by_hand_is_said_in_the_file(write):
    for changes, expected in (({}, "fail"), ({"promote": {"on_foreign_change": "adopt"}}, "adopt")):
        assert build(write(**changes))["train"].get_task("release.promote").on_foreign_change == expected


def test_the_deployment_knows_the_promotion_and_what_the_gate_saw(write):
    assert build(write())["train"].get_task("serving.deploy").restore_alias is True
    deploy = build(write())["train"].get_task("serving.deploy")
    assert (deploy.predictions_uri.operator.task_id, deploy.predictions_uri.key) == (
        "training.evaluate", "predictions_uri",
    )  # fmt: skip
    assert deploy.plan["max_prediction_shift"] == 0.2
    own = build(write(steps={"promote": {"operator": EMPTY}}))["train"]
    assert own.get_task("serving.deploy").restore_alias is False


def test_a_step_that_replaces_ours_is_read_by_the_next_as_ours_is(write):
    dag = build(write(steps={"train": {"operator": BASH, "bash_command": "true"}}))["train"]
    reference = dag.get_task("release.register").run_id
    assert (reference.operator.task_id, reference.key) == ("training.train", "run_id")
    assert dag.get_task("training.train").multiple_outputs is True


def test_the_monitor_takes_steps_too(write):
    dag = build(write(steps={"before_check": {"operator": EMPTY}}))["monitor"]
    assert order(dag) == ["before_check", "check", "decide", "retrain"]


def test_the_monitor_looks_where_and_how_the_file_says(write):
    drift = {"trailing": "28d", "max_rows": 5000, "min_rows": 80}
    check = build(write(monitor={"drift": drift}))["monitor"].get_task("check")
    assert (check.trailing, check.max_rows, check.min_rows, check.served_by) == ("28d", 5000, 80, None)
    drift = {"served_by": ["http://127.0.0.1:8100"], "exclude": ["age"]}
    check = build(write(monitor={"drift": drift}))["monitor"].get_task("check")
    assert (check.served_by, check.data, check.window, check.as_of) == (["http://127.0.0.1:8100"], None, None, None)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"operator": "no_such_package.Thing"}, r"steps\.validate\.operator: no_such_package cannot be imported"),
        (
            {"operator": "airflow.providers.standard.operators.empty.EmtyOperator"},
            r"operators\.empty has no 'EmtyOperator'\. Did you mean 'EmptyOperator'",
        ),
        ({"operator": "pathlib.Path"}, r"steps\.validate\.operator: pathlib\.Path is no Airflow operator"),
        (
            {"operator": EMPTY, "colour": "red"},
            r"steps\.validate\.operator: .*EmptyOperator does not take the arguments colour: [\s\S]*colour",
        ),
    ],
)
def test_a_step_that_cannot_be_made_is_named(write, step, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_dags(str(write(steps={"validate": step})))
    assert re.match(r"/.*/churn\.yaml:\d+: steps\.validate\.operator: ", str(caught.value))


# The form


def test_the_form_is_typed_and_its_values_reach_the_tasks(write):
    keys = [
        "data.path", "data.train_on", "train.seed", "train.run_timeout", "train.hyperparameters.depth",
        "train.hyperparameters.rate", "train.hyperparameters.loss", "train.hyperparameters.balanced",
    ]  # fmt: skip
    dag = build(write(trigger_form=keys))["train"]
    form = {key: dag.params.get_param(key) for key in dag.params}
    assert {key: param.schema["type"] for key, param in form.items()} == {
        "data.path": "string",
        "data.train_on": "string",
        "train.seed": "integer",
        "train.run_timeout": "string",
        "train.hyperparameters.depth": "integer",
        "train.hyperparameters.rate": "number",
        "train.hyperparameters.loss": "string",
        "train.hyperparameters.balanced": "boolean",
        "as_of": ["null", "string"],
    }
    assert form["train.hyperparameters.rate"].value == 0.1
    assert form["data.path"].value.endswith("/dags/data/rows.parquet")
    given = {
        **{key: param.value for key, param in form.items()},
        "train.hyperparameters.depth": 9,
        "train.hyperparameters.loss": 'a "quoted" \\ text',
        "train.hyperparameters.balanced": False,
        "train.seed": 4,
        "train.run_timeout": "2m",
        "data.path": "/else/where",
        "data.train_on": "30d",
        "as_of": "2026-01-31T00:00:00Z",
    }
    train, snapshot = dag.get_task("training.train"), dag.get_task("data.snapshot")
    train.template_fields = ("hyperparameters", "seed", "run_timeout")  # the rest refers to other tasks
    train.render_template_fields({"params": given})
    snapshot.render_template_fields({"params": given})
    assert json.loads(train.hyperparameters) == {
        "depth": 9, "rate": 0.1, "loss": 'a "quoted" \\ text', "balanced": False,
    }  # fmt: skip
    assert (train.seed, train.run_timeout) == ("4", "2m")
    assert (snapshot.data["path"], snapshot.train_on) == ("/else/where", "30d")
    assert snapshot.as_of == "2026-01-31T00:00:00Z"


def test_without_a_form_only_the_moment_can_be_chosen(write):
    for dag in build(write()).values():
        assert list(dag.params) == ["as_of"]
        as_of = dag.params.get_param("as_of")
        assert (as_of.value, as_of.schema["format"]) == (None, "date-time")


def test_an_empty_moment_renders_to_nothing(write):
    snapshot = build(write())["train"].get_task("data.snapshot")
    snapshot.render_template_fields({"params": {"as_of": None}})
    assert snapshot.as_of == ""


@pytest.mark.parametrize(
    "key",
    [
        "evaluate",
        "evaluate[0].at_least",
        "validate.min_rows",
        "mode",
        "retrain.cooldown",
        "approve",
        "promote.on_foreign_change",
        "deploy.bake",
    ],
)
def test_a_gate_is_never_in_the_form(write, key):
    stub = write(trigger_form=[key])
    with pytest.raises(ConfigError, match="can never be changed per run: who starts a run must not move the gate"):
        load_dags(str(stub))


@pytest.mark.parametrize("key", ["data.hold_out", "data.label"])
def test_what_chooses_the_judging_rows_is_never_in_the_form(write, key):
    stub = write(trigger_form=[key])
    with pytest.raises(ConfigError, match="can never be changed per run: it decides which rows judge"):
        load_dags(str(stub))


# Targets

TARGETS = {
    "dev": {"mode": "observe", "monitor": {"schedule": None}},
    "prod": {"data": {"path": "s3://lake/rows/"}, "retrain": {"cooldown": "9d"}},
}


def test_the_configuration_chooses_the_target(write, monkeypatch):
    stub = write(targets=TARGETS)
    monkeypatch.setenv("AIRFLOW__MLOPS__TARGET", "dev")
    dags = build(stub)
    assert order(dags["train"]) == TRAIN
    assert not getattr(dags["monitor"].timetable, "expression", None)
    monkeypatch.setenv("AIRFLOW__MLOPS__TARGET", "prod")
    dags = build(stub)
    assert "release.promote" in order(dags["train"])
    assert dags["train"].get_task("data.snapshot").data["path"] == "s3://lake/rows/"
    assert dags["train"].get_task("training.decide").cooldown == "9d"


def test_a_target_that_is_not_there_is_named_with_its_neighbors(write, monkeypatch):
    stub = write(targets=TARGETS)
    monkeypatch.setenv("AIRFLOW__MLOPS__TARGET", "prd")
    with pytest.raises(ConfigError, match=r"'prd'.*Did you mean 'prod'"):
        load_dags(str(stub))


def test_a_file_without_targets_is_the_same_everywhere(write, monkeypatch):
    stub = write()
    before = serialized(build(stub)["train"])
    monkeypatch.setenv("AIRFLOW__MLOPS__TARGET", "prod")
    assert serialized(build(stub)["train"]) == before


# Retries


@needs_retry_policies
@pytest.mark.parametrize(
    ("error", "action"),
    [
        (ConfigError("x"), "fail"),
        (DataError("x"), "fail"),
        (GateRefused("x"), "fail"),
        (JobFailedError("x"), "fail"),
        (ServiceError("x"), "default"),
        (NotFoundError("Model", "x"), "default"),
        (PromotionConflictError("x"), "default"),
        (OSError("x"), "default"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_retries_end_at_once_where_they_are_hopeless(write, error, action):
    for dag in build(write()).values():
        for task in dag.tasks:
            assert task.retries == 2
            assert task.retry_delay == timedelta(seconds=10)
            assert task.retry_policy.evaluate(error, 1, 2).action.value == action


@needs_retry_policies
def test_the_scheduler_knows_that_there_is_a_policy(write):
    written = DagSerialization.to_dict(build(write())["train"])
    assert all(task["__var"]["has_retry_policy"] for task in written["dag"]["tasks"])


# The same words in Python


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "suggest", "trigger_form": ["train.seed", "data.path"]},
        {"prepare": {"script": "prepare.py"}, "steps": {"after_train": {"operator": EMPTY}}},
        {"schedule": None, "retrain": {"when": ["new_data"]}, "monitor": None, "deploy": None},
    ],
    ids=["all", "form", "steps", "new data"],
)
def test_python_and_yaml_give_the_same_dags(write, dags_folder, changes):
    stub = write(**changes)
    program = dags_folder / "in_python.py"
    program.write_text(
        '"""DAGs for Airflow."""\nfrom airflow_provider_mlops.factory import continuous_training_dags\n\n'
        f"continuous_training_dags(**{words(**changes)!r})\n"
    )
    ours, theirs = build(stub), build(program)
    assert ours.keys() == theirs.keys()
    assert {kind: serialized(dag) for kind, dag in ours.items()} == {k: serialized(dag) for k, dag in theirs.items()}


def test_python_tells_every_mistake_with_its_key():
    with pytest.raises(ConfigError) as caught:
        continuous_training_dags(**words(mode="enforced", data={"path": "x", "lable": "y"}))
    text = str(caught.value)
    assert "mode: " in text
    assert "data.lable" in text
    assert "Did you mean" in text


# Stable, and no more than is asked for

DUMP = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

bag = DagBag(dag_folder=sys.argv[1])
assert not bag.import_errors, bag.import_errors
print(json.dumps({dag_id: DagSerialization.to_dict(dag) for dag_id, dag in sorted(bag.dags.items())}, sort_keys=True))
"""


def test_the_serialized_dags_are_the_same_in_every_process(write, dags_folder):
    write(
        prepare={"script": "prepare.py", "hyperparameters": {"b": 1, "a": 2}},
        mode="suggest",
        tags=["z", "a", "m"],
        trigger_form=["train.hyperparameters.rate", "train.seed"],
        validate={
            "unique": ["id", "at"],
            "ranges": {"age": [0, 120], "income": [0, None]},
            "domains": {"land": ["NO", "SE"]},
        },
        steps={"after_train": {"operator": EMPTY}, "before_register": {"operator": EMPTY}},
    )
    write("other", retrain={"when": ["new_data", "drift"]}, schedule=None)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", DUMP, str(dags_folder)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "4242")
    ]
    first, second = (process.communicate(timeout=120)[0].splitlines()[-1] for process in running)
    assert first == second
    assert set(json.loads(first)) == {"churn__train", "churn__monitor", "other__train", "other__monitor"}


def test_a_task_process_builds_the_dag_it_needs_and_no_other(write):
    stub = write()
    with _airflow_parsing_context_manager(dag_id="churn__train"):
        try:
            assert [dag.dag_id for dag in load_dags(str(stub))] == ["churn__train"]
        finally:
            os.environ.pop("_AIRFLOW_PARSING_CONTEXT_DAG_ID")
    assert [dag.dag_id for dag in load_dags(str(stub))] == ["churn__train", "churn__monitor"]


# Mistakes


def test_a_stub_without_its_file_says_which_it_looked_for(write, dags_folder):
    write("rain")
    stub = dags_folder / "rian.py"
    stub.write_text(STUB)
    with pytest.raises(
        ConfigError, match=r"rian\.py loads rian\.yaml, which is not beside it\. Did you mean 'rain\.yaml'"
    ):
        load_dags(str(stub))


def test_a_script_outside_of_the_dags_folder_is_named_with_its_line(write):
    with pytest.raises(ConfigError, match=r"churn\.yaml:\d+: train\.script: '\.\./train\.py' leaves the DAG folder"):
        load_dags(str(write(train={"script": "../train.py"})))


def test_one_bad_file_is_one_import_error_and_the_others_live(write, dags_folder):
    for name in ("first", "second", "third"):
        write(name)
    (dags_folder / "second.yaml").write_text(yaml.safe_dump(words(name="second", mode="enforced")))
    bag = DagBag(dag_folder=dags_folder)
    assert sorted(bag.dags) == ["first__monitor", "first__train", "third__monitor", "third__train"]
    ((file, error),) = bag.import_errors.items()
    assert file.endswith("second.py")
    assert "second.yaml:" in error
    assert "mode: " in error
    assert "enforce" in error


def test_two_files_with_the_same_name_of_a_pipeline_are_one_error(write, dags_folder):
    write("first")
    write("second")
    (dags_folder / "second.yaml").write_text(yaml.safe_dump(words(name="first")))
    bag = DagBag(dag_folder=dags_folder)
    assert sorted(bag.dags) == ["first__monitor", "first__train"]
    assert len(bag.import_errors) == 1
    assert "second.py - also found in" in next(iter(bag.import_errors.values()))


def test_decide_is_a_step_of_the_training_too_and_needs_no_monitor(write):
    dag = build(write(monitor=None, retrain=None, steps={"before_decide": {"operator": EMPTY}}))["train"]
    assert dag.get_task("training.before_decide").downstream_task_ids == {"training.decide"}
