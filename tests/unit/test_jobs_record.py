"""The record of a training, and what is compared when it is repeated."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from airflow_provider_mlops.adapters.interpreter import describe
from airflow_provider_mlops.adapters.model_files import file_digests
from airflow_provider_mlops.errors import ConfigError, DataError
from airflow_provider_mlops.jobs.record import TrainingRecord, compare_metrics, differing_packages

RECORD = TrainingRecord(
    data_uri="/d",
    data_digest="sha256:1",
    code_digest="sha256:2",
    script="train.py",
    hyperparameters='{"depth": 3}',
    seed="7",
    python="/usr/bin/python3",
    python_version="3.11.7",
    environment_digest="sha256:3",
    label="y",
)


def test_a_record_comes_back_from_its_tags():
    assert TrainingRecord.of(RECORD.tags(), "run r") == RECORD
    full = replace(RECORD, timestamp="at", commit="abc+", variables="AWS_PROFILE HTTPS_PROXY")
    assert TrainingRecord.of({**full.tags(), "other": "1"}, "run r") == full


@pytest.mark.parametrize("tag", ["mlops.data_uri", "mlops.seed", "mlops.environment_digest"])
@pytest.mark.parametrize("value", [None, ""])
def test_what_is_missing_is_named(tag, value):
    tags = {key: text for key, text in RECORD.tags().items() if key != tag}
    with pytest.raises(DataError, match=f"run r does not say what it was made from: {tag} missing"):
        TrainingRecord.of(tags if value is None else {**tags, tag: value}, "run r")


def test_hyperparameters_that_are_no_json_object_are_refused():
    assert RECORD.hyperparameters_of() == {"depth": 3}
    with pytest.raises(DataError, match="are no JSON object"):
        replace(RECORD, hyperparameters="{").hyperparameters_of()


@pytest.mark.parametrize(
    ("before", "after", "equal"),
    [
        (1.0, 1.0 + 5e-7, True),
        (1.0, 1.0 + 5e-6, False),
        (1e9, 1e9 + 100, True),
        (1e-9, -1e-9, True),
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        (math.inf, math.inf, True),
    ],
)
def test_a_difference_is_relative_to_one_or_to_the_value(before, after, equal):
    (pair,) = compare_metrics({"m": before}, {"m": after}, 1e-6)
    assert pair.equal is equal


def test_a_metric_that_only_one_run_has_is_not_equal_and_an_ignored_one_is_not_there():
    pairs = compare_metrics({"a": 1.0, "b": 1.0, "t": 3.0}, {"b": 1.0, "c": 1.0, "t": 4.0}, 0.0, ignore=["t"])
    assert [(pair.name, pair.before, pair.after, pair.equal) for pair in pairs] == [
        ("a", 1.0, None, False),
        ("b", 1.0, 1.0, True),
        ("c", None, 1.0, False),
    ]


def test_equal_packages_do_not_differ():
    assert differing_packages("a==1\nb==2\n", "b==2\na==1") == []


def test_an_interpreter_says_its_version_and_its_packages():
    import platform
    import sys

    found = describe(sys.executable)
    assert found.version == platform.python_version()
    assert any(line.startswith("pytest==") for line in found.packages.splitlines())
    assert describe(sys.executable) == found


def test_an_interpreter_that_cannot_be_run_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"'/no/such/python' cannot be asked"):
        describe("/no/such/python")
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    broken.chmod(0o700)
    with pytest.raises(ConfigError, match="packages: broken"):
        describe(str(broken))


def test_a_models_description_is_compared_without_its_ids_and_its_time(tmp_path):
    for name, number in (("before", 1), ("after", 2)):
        folder = tmp_path / name
        (folder / "below").mkdir(parents=True)
        (folder / "below" / "model.pkl").write_bytes(b"same")
        (folder / "MLmodel").write_text(f"run_id: r{number}\nmodel_id: m-{number}\nflavors: {{sklearn: {{}}}}\n")
    assert file_digests(tmp_path / "before") == file_digests(tmp_path / "after")
    assert sorted(file_digests(tmp_path / "after")) == ["MLmodel", "below/model.pkl"]
    (tmp_path / "after" / "MLmodel").write_text("flavors: {}\n")
    assert file_digests(tmp_path / "before")["MLmodel"] != file_digests(tmp_path / "after")["MLmodel"]
