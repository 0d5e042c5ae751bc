"""A running Airflow, driven as its users do: files in the DAGs folder, clicks as REST calls, and kills."""

from __future__ import annotations

import base64
import contextlib
import json
import signal
from datetime import datetime, timedelta

import psutil
import pyarrow.parquet as pq
import pytest
from e2e.world import LOGIN, PASSWORD, PIPELINE, World, eventually, parameters, points, readings, tags

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.cli.main import main
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.errors import ServiceError

MOMENTS = 180  # seconds for what takes a few on an idle machine


def go_on(world):
    """The file without which the pipeline ``killed`` does not end its training."""
    return world.stack.folder / "go on"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Airflow and MLflow; the files are dropped in while they run."""
    world = World(tmp_path_factory.mktemp("standalone"))
    try:
        world.start()
        world.drop_data()
        world.drop("tuned", trigger_form="[train.hyperparameters.C]")
        world.drop("killed", replace={"C: 1.0": f'C: 1.0, awaited: "{go_on(world)}"'})
        world.drop("observed", replace={"mode: enforce": "mode: observe"}, deploy="{local: {}}")
        world.drop("asked", replace={"mode: enforce": "mode: suggest"})
        pq.write_table(points(), world.stack.dags / "minutely.parquet")
        mine = {"points.parquet": "minutely.parquet"}
        world.drop("minutely", replace=mine, schedule='"* * * * *"', retrain="{cooldown: 1d}", monitor="{}")
        data, profile = world.stack.folder / "readings", world.stack.folder / "profile.json"
        data.mkdir()
        pq.write_table(readings(100), reference := world.stack.folder / "reference.parquet")
        block = EmbeddedEngine().reference(DataRef(str(reference), timestamp="at"), block=timedelta(days=10))
        profile.write_text(block.to_json())
        pq.write_table(readings(10, first=100, seed=1), data / "quiet.parquet")
        world.drop_sensor(data, profile)
        yield world
    finally:
        world.stop()


@pytest.fixture(scope="module")
def first_runs(world):
    """One run of each pipeline, at the same time."""
    runs = {
        "tuned": world.trigger("tuned__train", {"train.hyperparameters.C": 0.25}),
        "watch": world.trigger("watch"),
        "observed": world.trigger("observed__train"),
        "asked": world.trigger("asked__train"),
    }
    world.unpause("minutely__train")
    return runs


@pytest.fixture(scope="module")
def more_runs(world, first_runs):
    """After these: a second run to be answered, a cleared task, and one to be killed."""
    world.succeed("tuned__train", first_runs["tuned"])
    world.until("asked__train", first_runs["asked"], "release.approve", "awaiting_input")
    before = world.runs("tuned")
    body = {
        "dry_run": False,
        "dag_run_id": first_runs["tuned"],
        "task_ids": ["training.train"],
        "include_downstream": True,
        "only_failed": False,
        "reset_dag_runs": True,
    }
    runs = {"killed": world.trigger("killed__train")}
    world.airflow.post("dags/tuned__train/clearTaskInstances", body)
    return {**runs, "before": before}


def test_files_dropped_in_while_airflow_runs_become_two_dags_each(world, first_runs):
    def ids():
        return {dag["dag_id"] for dag in world.airflow.get("dags", limit=100)["dags"]}

    training = {f"{name}__train" for name in ("tuned", "observed", "asked", "killed", "minutely")}
    eventually(lambda: ids() == {*training, "minutely__monitor", "watch"}, MOMENTS, ids)
    assert world.import_errors() == {}


def test_a_bad_file_is_one_import_error_and_the_others_live(world, first_runs):
    world.drop("broken", replace={"at_least": "at_leest"})
    errors = eventually(world.import_errors, MOMENTS, "no import error")
    assert list(errors) == ["broken.py"]
    line = PIPELINE.splitlines().index("  - {metric: roc_auc, at_least: 0.6, max_drop_vs_champion: 0.2}") + 1
    assert f"broken.yaml:{line}: evaluate[0].at_leest: unknown key. Did you mean 'at_least'" in errors["broken.py"]
    details = world.airflow.get("dags/tuned__train/details")
    assert not details["is_stale"]
    assert not details["has_import_errors"]

    world.drop("broken")
    eventually(lambda: not world.import_errors(), MOMENTS, world.import_errors)
    world.unpause("broken__train")


def test_the_forms_parameter_reaches_the_training(world, first_runs):
    with pytest.raises(ServiceError, match=r"Airflow answers 4\d\d"):
        world.airflow.trigger("tuned__train", {"train.hyperparameters.C": "much"})
    states = world.succeed("tuned__train", first_runs["tuned"])
    assert set(states.values()) == {"success"}
    (run,) = world.runs("tuned")[:1]
    assert parameters(run) == {"C": "0.25"}
    assert json.loads(tags(run)["mlops.hyperparameters"]) == {"C": 0.25}
    assert world.airflow.get("dags/tuned__train/details")["params"]["train.hyperparameters.C"]["value"] == 1.0


def test_observing_changes_nothing_but_journal_and_mlflow(world, first_runs):
    states = world.succeed("observed__train", first_runs["observed"])
    assert not {"release.promote", "serving.deploy"} & set(states)
    kinds = [kind for kind, _ in world.journal("observed")]
    assert {"training.finished", "gate.decided", "model.registered", "model.smoke_tested"} <= set(kinds)
    assert not [kind for kind in kinds if kind.startswith(("promotion.", "rollout."))]
    assert [version for version, _ in world.versions("observed")] == [1]
    assert world.champion("observed") is None
    assert not (world.stack.storage / "serving").exists()


def test_a_sensor_that_waits_holds_no_worker(world, first_runs):
    world.until("watch", first_runs["watch"], "wait", "deferred")
    pool = world.airflow.get("pools/default_pool")
    assert pool["deferred_slots"] == 1
    eventually(
        lambda: not psutil.pid_exists(world.task("watch", first_runs["watch"], "wait")["pid"]),
        MOMENTS,
        "the worker's process has not ended",
    )


def test_a_killed_training_runs_again_and_leaves_one_of_everything(world, more_runs):
    run_id = more_runs["killed"]
    jobs = world.stack.storage / "jobs"

    def fitting():
        return [log for log in jobs.glob("killed-train-training-train-*/log") if "fitting" in log.read_text()]

    eventually(fitting, MOMENTS, lambda: f"the training has not begun; {world.tail()}")
    worker = psutil.Process(world.task("killed__train", run_id, "training.train")["pid"])
    job = [process for process in worker.children(recursive=True) if "train.py" in " ".join(process.cmdline())]
    assert len(job) >= 2  # the keeper and the script
    worker.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(job, timeout=MOMENTS)
    assert alive == []
    go_on(world).touch()

    states = world.succeed("killed__train", run_id)
    assert set(states.values()) == {"success"}
    assert world.tries("killed__train", run_id, "training.train") == 2
    assert [run["info"]["status"] for run in world.runs("killed")] == ["KILLED", "FINISHED"]
    ((_, source),) = world.versions("killed")
    assert source == world.runs("killed")[1]["info"]["run_id"]
    assert world.champion("killed") == "1"
    finished = [payload for kind, payload in world.journal("killed") if kind == "training.finished"]
    assert len(finished) == 1


def test_a_cleared_training_trains_anew(world, first_runs, more_runs):
    states = world.succeed("tuned__train", first_runs["tuned"])
    assert set(states.values()) == {"success"}
    assert len(more_runs["before"]) == 1
    runs = world.runs("tuned")
    assert [run["info"]["status"] for run in runs] == ["FINISHED", "FINISHED"]
    assert world.versions("tuned") == [(1, runs[0]["info"]["run_id"]), (2, runs[1]["info"]["run_id"])]
    assert world.champion("tuned") == "2"


def test_a_suggestion_waits_for_a_yes(world, first_runs, more_runs):
    asked = world.question("asked__train", first_runs["asked"])
    assert asked["subject"] == "Promote the new version of asked?"
    for word in ("asked version 1", "none yet", "**passed**", "roc_auc is"):
        assert word in asked["body"]
    assert world.champion("asked") is None

    world.answer("asked__train", first_runs["asked"], "Approve")
    states = world.succeed("asked__train", first_runs["asked"])
    assert set(states.values()) == {"success"}
    assert world.champion("asked") == "1"
    (answer,) = world.answers("asked")
    assert (answer["version"], answer["approved"]) == ("1", True)


def test_a_no_keeps_the_champion_and_is_journalled(world, first_runs, more_runs, capsys):
    run_id = world.trigger("asked__train")
    world.answer("asked__train", run_id, "Reject")
    states = world.succeed("asked__train", run_id)
    assert states["release.promote"] == "skipped"
    assert [version for version, _ in world.versions("asked")] == [1, 2]
    assert world.champion("asked") == "1"
    _, answer = world.answers("asked")
    details = world.question("asked__train", run_id)
    assert (answer["version"], answer["approved"], answer["chosen"]) == ("2", False, ["Reject"])
    assert answer["responded_by"] == details["responded_by_user"]
    assert datetime.fromisoformat(answer["at"]) == datetime.fromisoformat(details["responded_at"])
    judged = [payload for kind, payload in world.journal("asked") if kind == "gate.decided"]
    assert answer["gate_digest"] == judged[-1]["digest"]
    assert main(["journal", "why", "asked", "--url", f"sqlite:///{world.stack.storage / 'journal.db'}"]) == 0
    assert f"version 2 was rejected by {answer['responded_by']['name']}" in capsys.readouterr().out


def test_a_schedule_trains_once_and_then_rests(world, first_runs):
    def decisions():
        return [(p["verdict"], p["reason"]) for kind, p in world.journal("minutely") if kind == "retraining.decided"]

    eventually(decisions, 200, world.tail)
    pq.write_table(points(seed=1), half := world.stack.dags / ".minutely.parquet")
    half.replace(world.stack.dags / "minutely.parquet")
    eventually(lambda: ("wait", "cooldown") in decisions(), 150, lambda: f"{decisions()}; {world.tail()}")
    world.airflow.patch("dags/minutely__train", {"is_paused": True})
    assert decisions()[0][0] == "train"
    assert set(decisions()[1:]) <= {("blocked", "already_trained"), ("wait", "cooldown")}
    assert len(world.runs("minutely")) == 1


def test_drift_is_noticed_after_the_triggerer_was_killed(world, first_runs):
    world.until("watch", first_runs["watch"], "wait", "deferred")
    keeper = world.keeper_of("triggerer")
    for process in keeper.children(recursive=True):
        process.kill()
    keeper.wait()
    world.stack.start_airflow("triggerer", again=1)
    data = world.stack.folder / "readings"
    pq.write_table(readings(10, first=110, moved=1.0, seed=2), data / ".moved.parquet")
    (data / ".moved.parquet").replace(data / "moved.parquet")
    world.succeed("watch", first_runs["watch"])
    result = world.airflow.result("watch", first_runs["watch"], "wait")
    assert (result["verdict"], result["top_columns"]) == ("drift", ["amount"])


def test_dags_keep_their_version_however_often_they_are_parsed(world, more_runs):
    for dag in world.airflow.get("dags", limit=100)["dags"]:
        assert world.airflow.get(f"dags/{dag['dag_id']}/dagVersions")["total_entries"] == 1, dag["dag_id"]


def test_no_secret_is_where_it_can_be_read(world, more_runs):
    secrets = [PASSWORD, base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()]
    for folder in (world.stack.folder / "airflow" / "logs", world.stack.storage, world.stack.folder / "artifacts"):
        files = [file for file in folder.rglob("*") if file.is_file()]
        assert files
        for file in files:
            content = b""
            with contextlib.suppress(FileNotFoundError):  # a database that nobody has open any more puts files away
                content = file.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], file
    for log in world.stack.folder.glob("servers/*/log"):
        assert PASSWORD not in log.read_text(errors="replace"), log
    for dag in world.airflow.get("dags", limit=100)["dags"]:
        for run in world.airflow.get(f"dags/{dag['dag_id']}/dagRuns", limit=100)["dag_runs"]:
            path = f"dags/{dag['dag_id']}/dagRuns/{run['dag_run_id']}/taskInstances"
            seen = json.dumps(world.airflow.get(path, limit=100))
            entries = world.airflow.get(f"{path}/~/xcomEntries", limit=100)["xcom_entries"]
            for entry in entries:
                value = f"{path}/{entry['task_id']}/xcomEntries/{entry['key']}"
                seen += json.dumps(world.airflow.get(value, deserialize="false"))
            assert PASSWORD not in seen
