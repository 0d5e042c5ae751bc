"""CheckDataDriftOperator with what the champion's run says of its inputs."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.errors import DataError
from airflow_provider_mlops.hooks.mlflow import MlflowHook
from airflow_provider_mlops.operators.drift import CheckDataDriftOperator
from fakes.registry import MemoryRegistry
from fakes.tracking import MemoryTracking


def table(shift, seed):
    rng = np.random.default_rng(seed)
    return pa.table({"driver": rng.normal(size=20_000), "ignored": rng.normal(shift, 1, 20_000)})


def importance(ignored_high):
    columns = {
        "driver": {"drop": 0.1, "drop_low": 0.09, "drop_high": 0.11},
        "ignored": {"drop": 0.0, "drop_low": -ignored_high, "drop_high": ignored_high},
    }
    known = {"loss": "brier", "base": 0.2, "rows": 400, "repeats": 10, "slices": {}, "not_inputs": []}
    return json.dumps({**known, "columns": columns})


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Check data in which a column has moved, against a champion whose run holds the given importance."""
    monkeypatch.setenv("AIRFLOW__MLOPS__STORAGE", str(tmp_path / "storage"))
    tracking, registry = MemoryTracking(), MemoryRegistry()
    monkeypatch.setattr(MlflowHook, "tracking", tracking)
    monkeypatch.setattr(MlflowHook, "registry", registry)
    pq.write_table(table(0.0, 1), tmp_path / "reference.parquet")
    pq.write_table(table(0.6, 2), tmp_path / "moved.parquet")
    profile = EmbeddedEngine().reference(DataRef(str(tmp_path / "reference.parquet")))

    def run(text):
        run_id = tracking.create_run(tracking.experiment("churn"), name="train", tags={}).run_id
        tracking.log_text(run_id, profile.to_json(), "mlops/profile.json")
        if text is not None:
            tracking.log_text(run_id, text, "mlops/importance.json")
        version = registry.create_version("churn", run_id=run_id, source="s3://m", tags={})
        registry.set_alias("churn", alias="champion", version=version.version)
        operator = CheckDataDriftOperator(
            task_id="check", model="churn", data={"path": str(tmp_path / "moved.parquet")}
        )
        ti = SimpleNamespace(dag_id="d", run_id="r", task_id="check", map_index=-1, xcom_push=lambda key, value: None)
        return operator.execute({"ti": ti})

    return run


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        pytest.param(None, "drift", id="nothing is known of the inputs: all columns count"),
        pytest.param('{"error": "too slow"}', "drift", id="it could not be measured: all columns count"),
        pytest.param(importance(0.001), "no_drift", id="the moved column is shown to matter little"),
        pytest.param(importance(0.05), "drift", id="the moved column is not shown to matter little"),
    ],
)
def test_a_column_that_is_shown_to_matter_little_does_not_count(check, text, verdict):
    assert check(text)["verdict"] == verdict


def test_an_importance_that_is_damaged_is_said(check):
    with pytest.raises(DataError, match=r"mlops/importance\.json of MLflow run .* is no JSON"):
        check("{")
