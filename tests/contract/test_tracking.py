"""What every experiment tracker must do. A new tracker joins by one line in TRACKERS."""

from __future__ import annotations

import uuid

import pytest

from airflow_provider_mlops.adapters.mlflow import MlflowTracking
from airflow_provider_mlops.errors import ConfigError, NotFoundError
from fakes.tracking import MemoryTracking

TRACKERS = [
    pytest.param(lambda request: MemoryTracking(), id="memory"),
    pytest.param(
        lambda request: MlflowTracking(request.getfixturevalue("mlflow_server")),
        id="mlflow",
        marks=pytest.mark.service("mlflow"),
    ),
    pytest.param(
        lambda request: MlflowTracking(request.getfixturevalue("mlflow_guarded")),
        id="mlflow with authentication",
        marks=pytest.mark.service("mlflow"),
    ),
    pytest.param(lambda request: MlflowTracking(request.getfixturevalue("mlflow_file")), id="sqlite"),
]
NOBODY = "0" * 32


@pytest.fixture(params=TRACKERS)
def tracking(request):
    return request.param(request)


@pytest.fixture
def experiment(tracking):
    return tracking.experiment(f'it\'s "größe" {uuid.uuid4().hex}')


def test_an_experiment_is_made_once(tracking):
    name = uuid.uuid4().hex
    assert tracking.experiment(name) == tracking.experiment(name)


@pytest.mark.parametrize("name", ["", "  "])
def test_an_experiment_needs_a_name(tracking, name):
    with pytest.raises(ConfigError, match="name"):
        tracking.experiment(name)


def test_a_run_starts_and_is_found_again(tracking, experiment):
    made = tracking.create_run(experiment, name="train 1", tags={"mlops.attempt": "1"})
    assert (made.experiment_id, made.name, made.status) == (experiment, "train 1", "RUNNING")
    assert made.tags["mlops.attempt"] == "1"
    assert (made.metrics, made.params) == ({}, {})
    assert tracking.run(made.run_id) == made


def test_what_is_logged_is_on_the_run(tracking, experiment):
    run_id = tracking.create_run(experiment, name="r", tags={}).run_id
    tracking.log(run_id, params={"depth": "6"}, metrics={"auc": 0.5}, tags={"a": "1"})
    tracking.log(run_id, params={"depth": "6"}, metrics={"auc": 0.75}, tags={"a": "2", "b": 'it\'s "x"'})
    run = tracking.run(run_id)
    assert (run.params, run.metrics) == ({"depth": "6"}, {"auc": 0.75})
    assert {"a": "2", "b": 'it\'s "x"'}.items() <= run.tags.items()


def test_a_lot_is_logged_at_once(tracking, experiment):
    run_id = tracking.create_run(experiment, name="r", tags={}).run_id
    many = {f"k{number}": str(number) for number in range(250)}
    tracking.log(run_id, params=many, tags=many, metrics={key: float(value) for key, value in many.items()})
    run = tracking.run(run_id)
    assert run.params == many
    assert many.items() <= run.tags.items()
    assert len(run.metrics) == 250


def test_a_parameter_never_changes(tracking, experiment):
    run_id = tracking.create_run(experiment, name="r", tags={}).run_id
    tracking.log(run_id, params={"depth": "6"})
    with pytest.raises(ConfigError, match="depth"):
        tracking.log(run_id, params={"depth": "7"})
    assert tracking.run(run_id).params == {"depth": "6"}


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_and_can_still_be_written_on(tracking, experiment, status):
    run_id = tracking.create_run(experiment, name="r", tags={}).run_id
    tracking.end_run(run_id, status)
    tracking.end_run(run_id, status)
    tracking.log(run_id, tags={"mlops.outcome": "lost"})
    run = tracking.run(run_id)
    assert (run.status, run.name, run.tags["mlops.outcome"]) == (status, "r", "lost")


def test_a_run_cannot_end_as_something_else(tracking, experiment):
    run_id = tracking.create_run(experiment, name="r", tags={}).run_id
    with pytest.raises(ConfigError, match=r"'DONE'.*FINISHED, FAILED, KILLED"):
        tracking.end_run(run_id, "DONE")


def test_runs_are_found_by_all_of_their_tags_newest_first(tracking, experiment):
    tags = {"task": 'it\'s "train"', "plain": "x"}
    other = tracking.create_run(experiment, name="other", tags={"plain": "x"})
    old = tracking.create_run(experiment, name="old", tags=tags)
    new = tracking.create_run(experiment, name="new", tags=tags)
    elsewhere = tracking.experiment(uuid.uuid4().hex)
    tracking.create_run(elsewhere, name="elsewhere", tags=tags)
    assert [run.run_id for run in tracking.find_runs(experiment, tags=tags)] == [new.run_id, old.run_id]
    assert [run.run_id for run in tracking.find_runs(experiment, tags={})] == [new.run_id, old.run_id, other.run_id]
    assert tracking.find_runs(experiment, tags={"task": "x' or 1=1"}) == []
    assert tracking.find_runs(experiment, tags={"a`b": "x"}) == []


def test_text_is_stored_and_replaced(tracking, experiment):
    run_id = tracking.create_run(experiment, name="r", tags={}).run_id
    tracking.log_text(run_id, "old", "reports/drift + & 1.json")
    tracking.log_text(run_id, "größer", "reports/drift + & 1.json")
    assert tracking.read_text(run_id, "reports/drift + & 1.json") == "größer"


def test_a_file_that_is_not_there_is_named(tracking, experiment):
    run_id = tracking.create_run(experiment, name="r", tags={}).run_id
    for path in ("gone.txt", "reports/gone.txt"):
        with pytest.raises(NotFoundError, match=r"gone\.txt"):
            tracking.read_text(run_id, path)


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "a\\..\\b", "a/", "a\nb", "a/./b", "a#b", "a?b", "a%2e"],
)
def test_a_path_that_leaves_the_run_is_refused(tracking, experiment, path):
    run_id = tracking.create_run(experiment, name="r", tags={}).run_id
    for ask in (
        lambda: tracking.log_text(run_id, "x", path),
        lambda: tracking.read_text(run_id, path),
    ):
        with pytest.raises(ConfigError, match="no path of a run's file"):
            ask()


def test_an_unknown_run_is_named(tracking):
    for ask in (
        lambda: tracking.run(NOBODY),
        lambda: tracking.log(NOBODY, tags={"a": "1"}),
        lambda: tracking.end_run(NOBODY, "FAILED"),
        lambda: tracking.models(NOBODY),
        lambda: tracking.log_text(NOBODY, "x", "x"),
        lambda: tracking.read_text(NOBODY, "x"),
    ):
        with pytest.raises(NotFoundError, match=f"Run '{NOBODY}' was not found"):
            ask()


def test_an_unknown_experiment_is_named(tracking):
    with pytest.raises(NotFoundError, match="Experiment '987654321' was not found"):
        tracking.create_run("987654321", name="r", tags={})


def test_a_run_without_a_model_has_none(tracking, experiment):
    assert tracking.models(tracking.create_run(experiment, name="r", tags={}).run_id) == []


def test_a_model_that_is_not_there_is_named(tracking, tmp_path):
    with pytest.raises(NotFoundError, match="models:/m-0"):
        tracking.download_model("models:/m-0", tmp_path / "model")
    with pytest.raises(NotFoundError, match="models:/m-0"):
        tracking.read_model_text("models:/m-0", "MLmodel")
    assert list(tmp_path.iterdir()) == []
