"""A granted training that never starts is given back when its run ends, so that the next is not kept waiting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import training_scripts

from airflow_provider_mlops.hooks.journal import JournalHook
from airflow_provider_mlops.journal import model_stream
from airflow_provider_mlops.retraining import Outcome, RetrainPolicy, Trigger, history, request

PIPELINE = """
mlops: 1
mode: enforce
name: {name}
schedule: "@yearly"
data: {{path: rows, label: {label}}}
validate: {{if_invalid: skip, min_rows: {rows}}}
train: {{script: train.py, runs_on: {{process: {{python: {python}}}}}}}
evaluate: [{{metric: roc_auc, at_least: 0.5}}]
monitor: {{schedule: "@daily"}}
retrain: {{when: [schedule]}}
"""
STUB = "from airflow_provider_mlops.factory import load_dags  # airflow DAG\n\nload_dags(__file__)\n"


def grant(model, key):
    """What the monitor's decision leaves in the journal."""
    return request(
        JournalHook().journal,
        RetrainPolicy(),
        model,
        key=key,
        trigger=Trigger.SCHEDULE,
        owner=f"{model}__monitor scheduled",
        actor="monitor",
        clock=lambda: datetime.now(UTC),
    )


@pytest.mark.parametrize(
    ("name", "changed", "failing", "state"),
    [
        ("no_label", {"label": "nothing"}, "data.snapshot", "failed"),
        ("no_python", {"python": "/nowhere/python"}, "training.train", "failed"),
        ("bad_rows", {"rows": 1_000_000}, "data.validate", "success"),
    ],
)
def test_a_run_that_never_trains_gives_its_grant_back(run_dag, connection, storage, name, changed, failing, state):
    training_scripts.rows(run_dag.folder / "rows" / "rows.parquet")
    words = {"label": "y", "python": "null", "rows": 1, **changed}
    files = {"train.py": training_scripts.GOOD, "p.py": STUB, "p.yaml": PIPELINE.format(name=name, **words)}
    key = "a" * 64
    assert grant(name, key).verdict.is_yes
    assert grant(name, "b" * 64).reason == "running"

    ran = run_dag(f"{name}__train", files, {"request_key": key})
    assert ran.state == state, ran.tasks
    assert ran.tasks[failing] in {"failed", "skipped"}
    assert ran.tasks["training.close"] == "success"
    assert ran.results["training.close"] == {"closed": key}
    entry = JournalHook().journal.read(model_stream(name))[-1]
    assert (entry.record.kind, entry.record.payload["reason"]) == ("training.failed", "abandoned")
    assert ran.run_id in entry.record.payload["sentence"]
    entries = JournalHook().journal.read(model_stream(name))
    (attempt,) = history(entries, datetime.now(UTC), lease=timedelta(days=2)).attempts
    assert (attempt.key, attempt.outcome) == (key, Outcome.FAILED)
    assert grant(name, "b" * 64).reason == "cooldown"  # judged again, no longer waiting for what never comes


def test_a_run_that_trains_has_nothing_to_give_back(run_dag, connection, storage):
    training_scripts.rows(run_dag.folder / "rows" / "rows.parquet")
    text = PIPELINE.format(name="trains", label="y", python="null", rows=1)
    key = "c" * 64
    grant("trains", key)
    ran = run_dag(
        "trains__train", {"train.py": training_scripts.GOOD, "p.py": STUB, "p.yaml": text}, {"request_key": key}
    )
    assert ran.tasks["training.train"] == ran.tasks["training.close"] == "success", ran.tasks
    assert ran.results["training.close"] == {"closed": ""}
    kinds = [entry.record.kind for entry in JournalHook().journal.read(model_stream("trains"))]
    assert "training.failed" not in kinds
