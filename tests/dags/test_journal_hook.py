"""The journal that the configuration names: a connection of Airflow, of any database."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from airflow_provider_mlops.cli.main import main
from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.hooks.journal import JournalHook, record_once


def sqlite(request):
    return {"conn_type": "sqlite", "host": str(request.getfixturevalue("tmp_path") / "elsewhere.db")}


def postgres(request):
    url = sa.make_url(request.getfixturevalue("postgres_database"))
    return {"conn_type": "postgres", "login": url.username, "schema": url.database, "extra": dict(url.query)}


@pytest.fixture(
    params=[
        pytest.param(sqlite, id="sqlite"),
        pytest.param(postgres, id="postgres", marks=pytest.mark.service("postgres")),
    ]
)
def configured(request, monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__MLOPS__STORAGE", str(tmp_path / "storage"))
    monkeypatch.setenv("AIRFLOW__MLOPS__JOURNAL_CONN_ID", "mlops_journal")
    monkeypatch.setenv("AIRFLOW_CONN_MLOPS_JOURNAL", json.dumps(request.param(request)))
    return request.param


def test_a_connection_holds_the_journal_once_it_is_migrated(configured, tmp_path, capsys):
    context = {"ti": SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1)}
    if configured is postgres:
        with pytest.raises(ConfigError, match="Run `mlops journal migrate` once"):
            record_once("rain", "drift.checked", {"window": "w"}, context)
    assert main(["journal", "migrate"]) == 0
    for _ in range(2):
        record_once("rain", "drift.checked", {"window": "w"}, context, once=("window",))
    (entry,) = JournalHook().journal.read("model/rain")
    assert (entry.record.actor, entry.record.payload) == ("airflow: d r t", {"window": "w"})
    assert main(["journal", "verify"]) == 0
    assert "1 entries of 1 model: intact." in capsys.readouterr().out
    assert not (tmp_path / "storage").exists()
