"""MLflow's own authentication, on a real server: who is not let in is told so at once, whatever is asked."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import replace

import pytest

from airflow_provider_mlops.adapters.mlflow import MlflowRegistry, MlflowTracking
from airflow_provider_mlops.adapters.mlflow_async import alias_reader
from airflow_provider_mlops.errors import ConfigError

pytestmark = pytest.mark.service("mlflow")


async def read(address, model):
    async with alias_reader(address) as reader:
        return await reader.version_of(model, alias="champion")


STRANGERS = {
    "nobody": {"login": None, "password": None},
    "wrong password": {"password": "guess"},
    "unknown user": {"login": "nobody"},
    "bearer token": {"login": None, "password": None, "token": "t"},
}


@pytest.mark.parametrize("change", STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_is_refused_at_once_and_with_words(mlflow_guarded, tmp_path, change):
    stranger = replace(mlflow_guarded, **change)
    tracking, registry = MlflowTracking(stranger), MlflowRegistry(stranger)
    (tmp_path / "file").write_text("x")
    for ask in (
        tracking.greeting,
        lambda: tracking.experiment("e"),
        lambda: tracking.run("a" * 32),
        lambda: tracking.find_runs("0", tags={"a": "b"}),
        lambda: tracking.log("a" * 32, params={"a": "1"}),
        lambda: tracking.download_model("mlflow-artifacts:/1/x", tmp_path / "model"),
        lambda: registry.create_version("m", run_id="a" * 32, source="s3://models/x", tags={}),
        lambda: registry.versions("m"),
        lambda: registry.version_of("m", alias="champion"),
        lambda: registry.set_alias("m", alias="champion", version="1"),
        lambda: asyncio.run(read(stranger, "m")),
    ):
        began = time.monotonic()
        with pytest.raises(ConfigError, match=r"denies access.*401.*Check login, password or token"):
            ask()
        assert time.monotonic() - began < 120  # MLflow by itself tries for longer, where it tries again


def test_an_alias_is_read_with_the_credentials(mlflow_guarded):
    model = f"churn {uuid.uuid4().hex}"
    assert asyncio.run(read(mlflow_guarded, model)) is None
    registry = MlflowRegistry(mlflow_guarded)
    registry.create_version(model, run_id="a" * 32, source="s3://models/x", tags={})
    registry.set_alias(model, alias="champion", version="1")
    assert asyncio.run(read(mlflow_guarded, model)) == "1"
    assert str(mlflow_guarded.password) not in repr(mlflow_guarded)
