"""A task that is killed at any step and run again comes to the same end, once."""

from __future__ import annotations

import itertools
import json
import re
import time
from datetime import UTC, datetime

import httpx
import pytest
import training_scripts
from airflow.sdk.exceptions import AirflowTaskTimeout
from dying_tasks import Worker
from leftovers import half_written, users_of

from airflow_provider_mlops.adapters.mlflow import MlflowRegistry, MlflowTracking
from airflow_provider_mlops.adapters.rollout.local import LocalTarget
from airflow_provider_mlops.hooks.journal import JournalHook
from airflow_provider_mlops.jobs.identity import identity_tags
from airflow_provider_mlops.jobs.record import ENVIRONMENT_PATH
from airflow_provider_mlops.journal import Record, append_next, kinds, model_stream, payloads, verify
from airflow_provider_mlops.operators.training import TrainOperator
from airflow_provider_mlops.promotion.state import state

OPERATORS = "airflow_provider_mlops.operators"
SIGKILL = 9


class World:
    """One storage, one MLflow server, one journal; every case has a task instance and a model of its own."""

    def __init__(self, folder, address):
        self.storage = folder / "storage"
        self.rows = training_scripts.rows(folder / "rows" / "rows.parquet")
        self.judging = training_scripts.rows(folder / "judging" / "rows.parquet", seed=1)
        self.script = folder / "train.py"
        self.script.write_text(training_scripts.GOOD)
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.tracking, self.registry = MlflowTracking(address), MlflowRegistry(address)
        self.worker = Worker(
            {
                "AIRFLOW__MLOPS__STORAGE": str(self.storage),
                "AIRFLOW_CONN_MLFLOW_DEFAULT": json.dumps({"conn_type": "mlflow", "host": address}),
                "TMPDIR": str(self.temporary),
            }
        )

    def train(self, case, *, max_tries=2, **more):
        arguments = {
            "experiment": case,
            "script": str(self.script),
            "data_uri": self.rows,
            "data_digest": "sha256:0",
            "label_column": "y",
            "timestamp_column": "at",
        }
        return self.worker.attempt(
            f"{OPERATORS}.training.TrainOperator", arguments, **self.ti(case, "train", max_tries), **more
        )

    def run(self, operator, case, arguments, **more):
        return self.worker.attempt(f"{OPERATORS}.{operator}", arguments, **self.ti(case, "task", 2), **more)

    def ti(self, case, task, max_tries):
        return {"dag_id": case, "run_id": "manual__1", "task_id": task, "max_tries": max_tries}

    def runs(self, case):
        found = self.tracking.find_runs(
            self.tracking.experiment(case), tags=identity_tags(case, "manual__1", "train", -1)
        )
        return sorted(found, key=lambda run: int(run.tags["mlops.attempt"]))

    def journal(self, model):
        entries = JournalHook().journal.read(model_stream(model))
        assert verify(entries) == []
        return [entry.record for entry in entries]

    def kinds(self, model):
        return [record.kind for record in self.journal(model)]

    def nothing_is_left(self, *, servers=False):
        until(lambda: [line for line in users_of(self.storage) if not (servers and "serving" in line)] == [])
        assert half_written(self.storage) == []


def until(holds):
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def world(tmp_path_factory, mlflow_server):
    world = World(tmp_path_factory.mktemp("kills"), mlflow_server)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__MLOPS__STORAGE", str(world.storage))
        yield world
    world.worker.close()
    LocalTarget(world.storage / "serving").stop()
    world.nothing_is_left()


@pytest.fixture(scope="module")
def trained(world):
    """A run with a model, for the tasks that come after training."""
    ended = world.train("kills_trained")
    assert ended.error is None, ended
    world.steps = ended.steps
    return ended.result


def kill_at_every_step(attempt):
    """
    Call *attempt* with a new case, and kill it after its first step; the next case after its second step, and so on.

    Yields each case with the steps that it had made, when it is to be run again; at last the one that none is killed in.
    """
    for k in itertools.count(1):
        ended = attempt(k)
        assert ended.error is None, ended.error
        yield k, ended
        if ended.signal is None:
            return
        assert ended.signal == SIGKILL
        assert len(ended.steps) == k


# Training


def test_a_training_that_is_killed_at_any_step_becomes_one_finished_run(world, trained):
    killed_after = []
    for k, first in kill_at_every_step(lambda k: world.train(f"kills_train_{k}", kill_after=k)):
        case = f"kills_train_{k}"
        killed_after.append(first.steps[-1])
        again = world.train(case) if first.signal else first
        assert again.error is None, (first.steps, again)
        runs = world.runs(case)
        (finished,) = [run for run in runs if run.status == "FINISHED"]
        assert finished.run_id == again.result["run_id"]
        assert {run.status for run in runs} <= {"FINISHED", "KILLED"}
        # Only a job that went down with its task is run once more.
        lost = first.signal is not None and first.steps[-1] == "job"
        assert [run.tags["mlops.outcome"] for run in runs] == (["lost", "succeeded"] if lost else ["succeeded"])
        (model,) = world.tracking.models(finished.run_id)
        assert model.uri == again.result["model_uri"]
        assert json.loads(world.tracking.read_text(finished.run_id, "mlops/profile.json"))["rows"] == 400
        assert "scikit-learn==" in world.tracking.read_text(finished.run_id, ENVIRONMENT_PATH)
        assert finished.tags["mlops.code_digest"] == world.runs("kills_trained")[0].tags["mlops.code_digest"]
        told = world.kinds(case)
        assert told.count("training.finished") == 1
        assert told.count("training.started") == len(runs)
    assert "job" in killed_after
    assert "journal training.started" in killed_after
    assert "journal training.finished" in killed_after
    assert len(killed_after) >= 8
    world.nothing_is_left()


@pytest.mark.parametrize("again", [1, 2, 3, 4])
def test_a_training_that_is_killed_again_while_it_recovers_becomes_one_finished_run(world, trained, again):
    case = f"kills_twice_{again}"
    assert world.train(case, kill_after=world.steps.index("job") + 1).signal == SIGKILL
    second = world.train(case, kill_after=again)  # ends the run of the lost job, makes another, ...
    assert (second.signal, len(second.steps)) == (SIGKILL, again)
    assert world.train(case).error is None
    runs = world.runs(case)
    assert [run.status for run in runs].count("FINISHED") == 1
    assert {run.status for run in runs} <= {"FINISHED", "KILLED"}
    assert world.kinds(case).count("training.finished") == 1
    world.nothing_is_left()


def test_a_script_that_changed_before_its_job_began_is_the_one_that_is_recorded(world, trained):
    first = world.train("kills_changed", kill_after=world.steps.index("job"))
    assert first.signal == SIGKILL
    world.script.write_text(training_scripts.GOOD + "# changed")
    try:
        again = world.train("kills_changed")
    finally:
        world.script.write_text(training_scripts.GOOD)
    (run,) = world.runs("kills_changed")
    assert run.run_id == again.result["run_id"]
    assert run.tags["mlops.code_digest"] != world.runs("kills_trained")[0].tags["mlops.code_digest"]


def test_a_training_that_ended_and_is_asked_again_is_not_run_again(world, trained):
    assert world.train("kills_trained").result == trained
    assert len(world.runs("kills_trained")) == 1


def test_a_cleared_training_trains_anew_and_its_model_becomes_a_second_version(world):
    first, model = world.train("kills_cleared"), "kills_cleared"
    register = lambda ended, task: world.worker.attempt(  # noqa: E731 - used twice, here
        f"{OPERATORS}.model.RegisterModelOperator",
        {"model": model, "run_id": ended.result["run_id"]},
        **world.ti(model, task, 2),
    )
    assert register(first, "register").result["version"] == "1"
    second = world.train("kills_cleared", max_tries=5)  # Airflow raises it by the number of tries when one clears
    assert second.result["run_id"] != first.result["run_id"]
    assert [run.status for run in world.runs("kills_cleared")] == ["FINISHED", "FINISHED"]
    assert register(second, "register").result["version"] == "2"
    assert register(first, "register").result["version"] == "1"
    assert [version.version for version in world.registry.versions(model)] == ["2", "1"]


SLOW = """\
import pathlib, sys, time
pathlib.Path({marker!r}).write_text("")
time.sleep(600)
"""


def test_a_training_that_is_told_to_end_ends_with_its_job_and_its_run(world, tmp_path):
    marker = tmp_path / "it runs"
    fast, world.script = world.script, tmp_path / "slow.py"
    world.script.write_text(SLOW.format(marker=str(marker)))
    try:
        before = time.monotonic()
        ended = world.train("kills_terminated", terminate_when=marker.exists)
    finally:
        world.script = fast
    assert time.monotonic() - before < 120  # the script sleeps for 600
    assert ended.error.startswith("SystemExit: "), ended
    (run,) = world.runs("kills_terminated")
    assert run.status == "KILLED"
    world.nothing_is_left()
    again = world.train("kills_terminated")
    assert again.error is None, again
    assert [run.status for run in world.runs("kills_terminated")] == ["KILLED", "FINISHED"]


def test_a_task_that_took_too_long_ends_with_that_error():
    operator = TrainOperator(task_id="train", experiment="x", script="/x.py", data_uri="/x")
    try:
        raise AirflowTaskTimeout
    except AirflowTaskTimeout:
        operator.on_kill()  # as Airflow does then, before it goes on with the error
    with pytest.raises(SystemExit, match="The task was told to end"):
        operator.on_kill()


# Judging


def test_a_judgment_that_is_killed_at_any_step_is_one_decision(world, trained):
    def judge(case, **more):
        arguments = {
            "model": case,
            "run_id": trained["run_id"],
            "model_uri": trained["model_uri"],
            "data_uri": world.judging,
            "label_column": "y",
            "rules": [{"metric": "roc_auc", "at_least": 0.6}],
        }
        return world.run("evaluation.EvaluateModelOperator", case, arguments, **more)

    for k, first in kill_at_every_step(lambda k: judge(f"kills_judge_{k}", kill_after=k)):
        case = f"kills_judge_{k}"
        again = judge(case) if first.signal else first
        assert again.error is None, (first.steps, again)
        assert again.result["verdict"] == "passed"
        (decided,) = [record for record in world.journal(case) if record.kind == "gate.decided"]
        assert decided.payload["digest"] == again.result["digest"]
        stored = json.loads(world.tracking.read_text(trained["run_id"], "mlops/gate.json"))
        assert stored["verdict"] == "passed"
        assert world.tracking.run(trained["run_id"]).tags["mlops.gate_digest"] == again.result["digest"]
    world.nothing_is_left()


# Registering


def test_a_registration_that_is_killed_at_any_step_is_one_version(world, trained):
    def register(case, **more):
        return world.run(
            "model.RegisterModelOperator",
            case,
            {"model": case, "run_id": trained["run_id"], "data_digest": "sha256:0", "gate_digest": "sha256:1"},
            **more,
        )

    steps = 0
    for k, first in kill_at_every_step(lambda k: register(f"kills_register_{k}", kill_after=k)):
        case = f"kills_register_{k}"
        again = register(case) if first.signal else first
        assert again.error is None, (first.steps, again)
        (version,) = world.registry.versions(case)
        assert version.run_id == trained["run_id"]
        assert version.aliases == ("challenger",)
        assert version.tags["mlops.data_digest"] == "sha256:0"
        assert version.tags["mlops.gate_digest"] == "sha256:1"
        assert version.tags["mlops.code_digest"].startswith("sha256:")
        assert again.result["version"] == version.version == "1"
        assert world.kinds(case) == ["model.registered"]
        steps = k
    assert steps >= 4


# Promoting


def registered(world, case, run):
    """Version 1 of the model *case*, which the gate has passed."""
    world.registry.create_version(case, run_id=run["run_id"], source=run["model_uri"], tags={})
    payload = payloads.gate_decided(
        verdict="passed", reason="good", sentence="It is.", digest="sha256:1", run_id=run["run_id"], champion=None
    )
    record = Record(kind=kinds.GATE_DECIDED, at=datetime.now(UTC), actor="test", payload=payload)
    append_next(JournalHook().journal, model_stream(case), record)


def test_a_promotion_that_is_killed_at_any_step_moves_the_alias_once(world, trained):
    def promote(case, **more):
        return world.run("model.PromoteModelOperator", case, {"model": case, "version": "1"}, **more)

    def first_try(k):
        registered(world, f"kills_promote_{k}", trained)
        return promote(f"kills_promote_{k}", kill_after=k)

    killed_after = []
    for k, first in kill_at_every_step(first_try):
        case = f"kills_promote_{k}"
        killed_after.append(first.steps[-1])
        again = promote(case) if first.signal else first
        assert again.error is None, (first.steps, again)
        assert again.result["version"] == "1"
        assert world.registry.version_of(case, alias="champion") == "1"
        assert world.kinds(case).count("promotion.done") == 1
        folded = state(JournalHook().journal.read(model_stream(case)))
        assert (folded.champion("champion"), folded.pending) == ("1", None)
    assert [step for step in killed_after if step.startswith("journal")][:2] == [
        "journal promotion.leased", "journal promotion.pending",
    ]  # fmt: skip
    assert len(killed_after) >= 4


# Smoke-testing


@pytest.fixture(scope="module")
def probed(world, trained):
    """What a smoke test of version 1 of the model ``kills_smoke`` is asked."""
    case = "kills_smoke"
    judged = world.run(
        "evaluation.EvaluateModelOperator",
        "kills_smoke_judge",
        {
            "model": case,
            "run_id": trained["run_id"],
            "model_uri": trained["model_uri"],
            "data_uri": world.judging,
            "label_column": "y",
            "rules": [{"metric": "roc_auc", "at_least": 0.6}],
        },
    )
    assert judged.error is None, judged
    world.registry.create_version(case, run_id=trained["run_id"], source=trained["model_uri"], tags={})
    return {
        "model": case,
        "version": "1",
        "predictions_uri": judged.result["predictions_uri"],
        "data_uri": world.judging,
    }


def probe(world, case, arguments, **more):
    return world.run("model.SmokeTestModelOperator", case, arguments, **more)


def test_a_smoke_test_that_is_told_to_end_takes_its_server_with_it(world, probed):
    def serves():
        return [line for line in users_of(world.storage) if "airflow_provider_mlops.serving" in line]

    ended = probe(world, "kills_smoke_terminated", probed, terminate_when=serves)
    assert ended.error.startswith("SystemExit: "), ended
    world.nothing_is_left()
    assert "model.smoke_tested" not in world.kinds("kills_smoke")


def test_a_smoke_test_that_is_killed_at_any_step_leaves_no_server_and_one_result(world, probed):
    for k, first in kill_at_every_step(lambda k: probe(world, f"kills_smoke_{k}", probed, kill_after=k)):
        world.nothing_is_left()
        again = probe(world, f"kills_smoke_{k}", probed) if first.signal else first
        assert again.error is None, (first.steps, again)
        world.nothing_is_left()
    assert world.kinds("kills_smoke").count("model.smoke_tested") == 1


def test_a_smoke_test_tells_what_the_server_costs_and_a_failed_one_is_on_record(world, probed):
    measured = probe(world, "kills_smoke_measured", probed)
    assert measured.result["peak_memory_mib"] > 16
    assert 0 < measured.result["latency_p50_ms"] <= measured.result["latency_p95_ms"]
    slow = probe(world, "kills_smoke_slow", {**probed, "max_latency_p95_ms": 0.001})
    assert re.match(r"SmokeTestFailedError: The 95th percentile of the latency is [\d.]+ ms; 0\.001 ms are", slow.error)
    world.nothing_is_left()
    last = JournalHook().journal.read(model_stream("kills_smoke"))[-1].record
    assert (last.kind, last.payload["version"], last.payload["passed"]) == ("model.smoke_tested", "1", False)
    assert last.payload["sentence"].startswith("The 95th percentile of the latency is")


# Deploying


def test_a_deployment_that_is_killed_after_every_step_serves_once(world, trained):
    """What serves lives on when the task is killed, so all attempts are about one and the same rollout."""
    case = "kills_deploy"
    registered(world, case, trained)
    arguments = {"model": case, "version": "1", "poll_interval": 0.2}
    for step in (
        "download", "rollout state starting", "rollout wish", "rollout state settling", "rollout state promoted",
        "journal rollout.started", "journal rollout.finished",
    ):  # fmt: skip
        ended = world.run("deployment.DeployToLocalOperator", case, arguments, kill_after=step)
        assert (ended.signal, ended.steps[-1]) == (SIGKILL, step), ended
    ended = world.run("deployment.DeployToLocalOperator", case, arguments)
    assert ended.error is None, ended.error
    assert ended.result["phase"] == "promoted"
    row = {"dataframe_records": [{"a": 3.0, "b": 0.0}]}
    answer = httpx.post(ended.result["endpoint"], json=row, trust_env=False, timeout=30)
    assert answer.json()["predictions"][0][1] > 0.5
    assert answer.headers["x-model-version"] == "1"
    told = world.kinds(case)
    assert told.count("rollout.started") == 1, told
    assert told.count("rollout.finished") == 1, told
    (server,) = (line for line in users_of(world.storage) if f"--name {case} " in line)
    LocalTarget(world.storage / "serving").act(case, ())
    until(lambda: server not in users_of(world.storage))
    world.nothing_is_left(servers=True)


def test_a_rollout_that_ends_badly_and_is_killed_after_every_step_returns_the_alias_once(world, trained):
    case = "kills_restore"
    registered(world, case, trained)
    world.registry.create_version(case, run_id="f" * 32, source=trained["model_uri"], tags={})

    def run(operator, task, arguments, **more):
        arguments = {"model": case, **arguments}
        return world.worker.attempt(f"{OPERATORS}.{operator}", arguments, **world.ti(case, task, 2), **more)

    for operator, task, arguments in (
        ("model.PromoteModelOperator", "promote", {"version": "1"}),
        ("deployment.DeployToLocalOperator", "deploy", {"version": "1", "poll_interval": 0.2}),
        (
            "model.PromoteModelOperator",
            "promote_2",
            {"version": "2", "expected_champion": "1", "unsafe_override": "a test"},
        ),
    ):
        assert run(operator, task, arguments).error is None
    plan = {"strategy": "canary", "weights_percent": [10], "step_timeout": 1, "bake": 0}
    arguments = {"version": "2", "plan": plan, "restore_alias": True, "poll_interval": 0.2}
    for step in (
        "rollout state rolled_back", "rollout wish", "journal rollout.finished", "journal promotion.leased",
        "journal promotion.pending", "POST /api/2.0/mlflow/registered-models/alias", "journal promotion.done",
    ):  # fmt: skip
        ended = run("deployment.DeployToLocalOperator", "deploy_2", arguments, kill_after=step)
        assert (ended.signal, ended.steps[-1]) == (SIGKILL, step), ended
    ended = run("deployment.DeployToLocalOperator", "deploy_2", arguments)
    assert "RolloutFailedError: Version 2 of kills_restore does not serve: rolled_back, inconclusive" in ended.error
    assert "Version 1 serves. kills_restore@champion is version 1 already." in ended.error
    assert world.registry.version_of(case, alias="champion") == "1"
    moves = [record.payload for record in world.journal(case) if record.kind == "promotion.done"]
    assert [(move["version"], move["rollback"]) for move in moves] == [("1", False), ("2", False), ("1", True)]
    folded = state(JournalHook().journal.read(model_stream(case)))
    assert (folded.champion("champion"), folded.pending) == ("1", None)
    assert world.kinds(case).count("rollout.finished") == 2
    servers = [line for line in users_of(world.storage) if f"--name {case} " in line]
    LocalTarget(world.storage / "serving").act(case, ())
    until(lambda: not set(servers) & set(users_of(world.storage)))
    world.nothing_is_left(servers=True)


def test_what_tasks_wrote_for_a_moment_is_gone(world):
    """All other tests of this module have run by now."""
    assert [file.name for file in world.temporary.iterdir()] == []
