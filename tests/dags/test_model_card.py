"""RegisterModelOperator: what the version carries, and its card, against the fakes that hold the ports' contracts."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest

from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
from airflow_provider_mlops.data import DataRef
from airflow_provider_mlops.errors import DataError
from airflow_provider_mlops.hooks.card import environment_of
from airflow_provider_mlops.hooks.mlflow import MlflowHook
from airflow_provider_mlops.operators.model import RegisterModelOperator
from fakes.registry import MemoryRegistry
from fakes.tracking import MemoryTracking

LOCK = {"requirements.txt": "mlflow==3.17.2\npandas\n", "python_env.yaml": "python: 3.12.1\n"}


@pytest.fixture
def hook(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__MLOPS__STORAGE", str(tmp_path))
    tracking, registry = MemoryTracking(), MemoryRegistry()
    monkeypatch.setattr(MlflowHook, "tracking", tracking)
    monkeypatch.setattr(MlflowHook, "registry", registry)
    return SimpleNamespace(tracking=tracking, registry=registry)


@pytest.fixture
def run(hook):
    tags = {"mlops.data_digest": "sha256:1", "mlops.hyperparameters": '{"depth": 6}', "mlops.seed": "7"}
    return hook.tracking.create_run(hook.tracking.experiment("rain"), name="train", tags=tags).run_id


def register(run, **options):
    operator = RegisterModelOperator(task_id="register", model="rain", run_id=run, **options)
    ti = SimpleNamespace(dag_id="rain__train", run_id="r1", task_id="register", map_index=-1)
    return operator.execute({"ti": ti})


def test_a_model_that_nobody_judged_has_a_card_that_says_so(hook, run):
    hook.tracking.add_model(run)
    assert register(run)["version"] == "1"
    text = hook.tracking.read_text(run, "mlops/model_card.md")
    assert text.startswith("# rain, version 1\n\n**Not judged.** A model.")
    assert "its environment cannot be made again" in text
    assert "mlops.environment" not in hook.registry.version("rain", "1").tags


def test_the_version_carries_its_environment_and_the_first_paragraph_of_its_card(hook, run, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"humidity": [0.1 * i for i in range(60)]}), tmp_path / "train.parquet")
    profile = EmbeddedEngine().reference(DataRef(str(tmp_path / "train.parquet")))
    judged = {"task": "binary", "label": "rain", "inputs": {"humidity": "double", "<b>wind</b>": "double"}}
    drops = {"drop": 0.1, "drop_low": 0.05, "drop_high": 0.15}
    importance = {
        "loss": "brier",
        "base": 0.2,
        "rows": 60,
        "repeats": 10,
        "slices": {},
        "not_inputs": [],
        "columns": {"humidity": drops},
    }
    hook.tracking.log_text(run, profile.to_json(), "mlops/profile.json")
    hook.tracking.log_text(run, json.dumps(judged), "mlops/evaluation.json")
    hook.tracking.log_text(run, json.dumps(importance), "mlops/importance.json")
    hook.tracking.add_model(run, files=LOCK)
    register(run, gate_digest="sha256:2")
    register(run, gate_digest="sha256:2")  # asking twice is asking once
    version = hook.registry.version("rain", "1")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", version.tags["mlops.environment"])
    assert version.description == "A binary classifier of rain, trained on 60 rows. Driven most by humidity (100%)."
    text = hook.tracking.read_text(run, "mlops/model_card.md")
    page = hook.tracking.read_text(run, "mlops/model_card.html")
    for said in (
        "sha256:1",
        "sha256:2",
        version.tags["mlops.environment"],
        "rain__train r1",
        "3.12.1",
        "pandas",
        "depth",
    ):
        assert said in page
    assert "Not watched for drift: &lt;b&gt;wind&lt;/b&gt;." in text
    assert "<b>wind" not in page


def test_the_lock_of_an_environment_covers_python_and_every_requirement(hook, run):
    def digest(**files):
        return environment_of(hook.tracking, hook.tracking.add_model(run, files=files)).digest

    lock = digest(**LOCK)
    assert digest(**{**LOCK, "requirements.txt": "mlflow==3.17.2\n\n  pandas\n"}) == lock
    assert digest(**{**LOCK, "requirements.txt": "mlflow==3.17.2\npandas==2\n"}) != lock
    assert digest(**{**LOCK, "python_env.yaml": "python: 3.11.1\n"}) != lock
    assert digest() is None


def test_a_model_without_a_signature_is_refused(hook, run):
    hook.tracking.add_model(run, has_signature=False)
    with pytest.raises(DataError, match=r"has no signature.*infer_signature"):
        register(run)
    assert hook.registry.versions("rain") == []
