"""What a job is called, what it is told, and which jobs cannot be."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_mlops.data import DataRef, DataVersion
from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.jobs import JobSpec, job_name, training_environment
from airflow_provider_mlops.jobs.backend import check_job_name

DATA = DataVersion("file:///data/1", "sha256:" + "0" * 64, 10)
FIXED = {"tracking_uri": "http://mlflow:5000", "run_id": "r", "experiment_id": "7", "data": DATA}

ids = st.text(max_size=260)
instances = st.tuples(ids, ids, ids, st.integers(-1, 10_000))


@given(instances, st.integers(1, 999_999))
def test_a_name_can_always_name_a_job(instance, n):
    assert check_job_name(job_name(*instance, n)) == job_name(*instance, n)


@given(instances, instances)
def test_different_task_instances_have_different_names(one, other):
    assert (one == other) == (job_name(*one, 1) == job_name(*other, 1))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a_b", "r", "t", -1), ("a-b", "r", "t", -1)),
        (("a", "b-r", "t", -1), ("a-b", "r", "t", -1)),
        (("d" * 80 + "1", "r", "t", -1), ("d" * 80 + "2", "r", "t", -1)),
        (("d", "r", "t", -1), ("d", "r", "t", 1)),
    ],
)
def test_what_reads_alike_is_kept_apart(one, other):
    assert job_name(*one, 1) != job_name(*other, 1)


def test_a_name_can_be_read_and_ends_with_its_number():
    name = job_name("fraud__train", "scheduled__2026-01-01T00:00:00+00:00", "stage.train", 3, 12)
    assert re.fullmatch(r"fraud-train-stage-train-[0-9a-f]{10}-12", name)
    assert len(job_name("d" * 250, "r" * 250, "t" * 250, 9999, 999_999)) == 63


@pytest.mark.parametrize("n", [0, -1, 1_000_000])
def test_a_number_out_of_range_is_refused(n):
    with pytest.raises(ConfigError, match=rf"1\.\.999999, got {n}"):
        job_name("d", "r", "t", -1, n)


def test_a_training_job_is_told_all_that_the_contract_names():
    columns = DataRef("x.parquet", label="will_rain", timestamp="at")
    assert training_environment(**FIXED, columns=columns, hyperparameters={"b": [1, None], "a": "ü"}, seed=3) == {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "MLFLOW_RUN_ID": "r",
        "MLFLOW_EXPERIMENT_ID": "7",
        "MLOPS_DATA_URI": "file:///data/1",
        "MLOPS_DATA_DIGEST": DATA.digest,
        "MLOPS_HYPERPARAMETERS": '{"a": "\\u00fc", "b": [1, null]}',
        "MLOPS_SEED": "3",
        "MLOPS_LABEL": "will_rain",
        "MLOPS_TIMESTAMP": "at",
    }


def test_columns_that_do_not_exist_are_not_told():
    told = training_environment(**FIXED, columns=DataRef("x.parquet"), hyperparameters={}, seed=0)
    assert not {"MLOPS_LABEL", "MLOPS_TIMESTAMP"} & told.keys()
    assert told["MLOPS_HYPERPARAMETERS"] == "{}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_a_hyperparameter_that_is_no_json_is_refused(value):
    with pytest.raises(ConfigError, match=r"'depth'.*cannot be written as JSON"):
        training_environment(**FIXED, columns=DataRef("x"), hyperparameters={"depth": value}, seed=0)


@pytest.mark.parametrize("seed", [-1, 2**32, True, 1.0, "1", None])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ConfigError, match=r"whole number in 0\.\.4294967295"):
        training_environment(**FIXED, columns=DataRef("x"), hyperparameters={}, seed=seed)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"command": ()}, "the command must be one or more strings"),
        ({"command": ("a\0b",)}, "without NUL"),
        ({"command": (1,)}, "must be one or more strings"),
        ({"run_timeout": timedelta(0)}, "run_timeout must be longer than 0"),
        ({"environment": {"A=B": "1"}}, "'A=B' is no environment variable"),
        ({"environment": {"": "1"}}, "'' is no environment variable"),
        ({"environment": {"A": 1}}, "'A' is no environment variable"),
        ({"secret_environment": {"A": "s3cret\0"}}, "'A' is no environment variable"),
        ({"environment": {"A": "1"}, "secret_environment": {"A": "s3cret"}}, r"\['A'\] are both plain and secret"),
    ],
)
def test_a_job_that_cannot_be_is_refused_without_showing_a_secret(change, words):
    with pytest.raises(ConfigError, match=f"Job 'j': .*{words}") as caught:
        JobSpec(**{"name": "j", "command": ("true",), **change})
    assert "s3cret" not in str(caught.value)
