"""What `mlops try` makes of a pipeline file before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_mlops.cli.main import main
from airflow_provider_mlops.cli.trial import words
from airflow_provider_mlops.pipeline import from_dict, load

PIPELINE = """\
mlops: 1
name: small
mode: observe
schedule: "@daily"
mlflow_conn_id: mlflow_risk
data: {path: points.parquet, label: y, timestamp: at, hold_out: 7d}
prepare: {script: ../shared/prepare.py}
train: {script: train.py, hyperparameters: {depth: 3}, run_timeout: 5m}
validate: {min_rows: 10}
evaluate:
  - {metric: roc_auc, at_least: 0.6}
deploy: {local: {}}
monitor: {schedule: "@daily"}
retrain: {cooldown: 2d}
trigger_form: [train.hyperparameters.depth]
"""


@pytest.fixture
def tried(tmp_path):
    file = tmp_path / "team" / "small.yaml"
    file.parent.mkdir()
    file.write_text(PIPELINE)
    loaded = load(file, root=tmp_path)
    return words(loaded.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True), loaded.locate)


def test_a_trial_keeps_what_trains_and_judges_and_leaves_out_what_lasts(tried, tmp_path):
    _start, told = tried
    assert set(told) == {"mlops", "name", "mode", "data", "prepare", "train", "validate", "evaluate"}
    assert told["mode"] == "enforce"
    assert told["data"]["path"] == str(tmp_path / "team" / "points.parquet")
    assert told["train"] == {"script": "team/train.py", "hyperparameters": {"depth": 3}, "run_timeout": "5m"}
    assert from_dict(told).data.label == "y"


def test_a_script_above_the_file_moves_the_start_of_relative_paths(tried, tmp_path):
    start, told = tried
    assert start == tmp_path
    assert [Path(start, told[job]["script"]) for job in ("prepare", "train")] == [
        tmp_path / "shared" / "prepare.py",
        tmp_path / "team" / "train.py",
    ]


def test_data_at_a_url_stays_there(tmp_path):
    told = {"data": {"path": "s3://lake/points/", "label": "y"}, "train": {"script": "train.py"}}
    assert words(told, lambda path: path if "://" in path else str(tmp_path / path))[1]["data"] == told["data"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("", "there is no target 'prd'. It has no targets: try it without --target."),
        ("targets: {dev: {}, prod: {}}\n", "there is no target 'prd'. Did you mean 'prod'? Known: dev, prod."),
    ],
)
def test_a_target_that_is_not_there_is_told_with_those_that_are(tmp_path, capsys, targets, message):
    file = tmp_path / "small.yaml"
    file.write_text(PIPELINE + targets)
    assert main(["try", str(file), "--target", "prd"]) == 2
    assert capsys.readouterr().err == f"mlops: error: {file}: {message}\n"
