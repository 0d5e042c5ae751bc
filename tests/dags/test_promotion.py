"""PromoteModelOperator after a person was asked: who answered is journalled, and only an approval moves the alias."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from airflow.providers.standard.exceptions import HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG

from airflow_provider_mlops.adapters.journal.sql import SqlJournal
from airflow_provider_mlops.adapters.mlflow import MlflowRegistry
from airflow_provider_mlops.cli.main import main
from airflow_provider_mlops.errors import ConfigError, GateRefused
from airflow_provider_mlops.journal import Record, append_next, kinds, payloads
from airflow_provider_mlops.operators.approval import ApproveModelOperator
from airflow_provider_mlops.operators.model import PromoteModelOperator

RUN = "a" * 32
AT = datetime(2026, 3, 1, 6, tzinfo=UTC)
ANSWER = {
    "chosen_options": ["Approve"],
    "params_input": {},
    "responded_at": AT,
    "responded_by_user": {"id": "3", "name": "ann"},
}


@pytest.fixture
def model():
    return f"churn {uuid.uuid4().hex}"


@pytest.fixture
def registry(tmp_path, monkeypatch, mlflow_file, model):
    """The registry, and a journal of this test, with a model that passed its gate as version 1."""
    monkeypatch.setenv("AIRFLOW__MLOPS__STORAGE", str(tmp_path / "storage"))
    monkeypatch.setenv("AIRFLOW_CONN_MLFLOW_DEFAULT", f'{{"conn_type": "mlflow", "host": "{mlflow_file}"}}')
    registry = MlflowRegistry(mlflow_file)
    registry.create_version(model, run_id=RUN, source="s3://models/churn", tags={})
    gate = payloads.gate_decided(
        verdict="passed", reason="holds", sentence="", digest="sha256:d", run_id=RUN, champion=None, version="1"
    )
    append_next(journal(tmp_path), f"model/{model}", Record(kinds.GATE_DECIDED, AT, "me", gate))
    return registry


def journal(tmp_path):
    return SqlJournal(f"sqlite:///{tmp_path / 'storage' / 'journal.db'}")


def promote(model, approval):
    task = PromoteModelOperator(task_id="promote", model=model, version="1", gate_digest="sha256:d", approval=approval)
    ti = SimpleNamespace(dag_id="churn__train", run_id="r1", task_id="promote", map_index=-1)
    return task.execute({"ti": ti})


def answers(tmp_path, model):
    entries = journal(tmp_path).read(f"model/{model}")
    return [entry.record.payload for entry in entries if entry.record.kind == kinds.APPROVAL_ANSWERED]


def test_who_approved_is_journalled_once_and_before_the_alias_moves(registry, model, tmp_path, capsys):
    assert promote(model, ANSWER)["changed"]
    promote(model, ANSWER)
    assert registry.version_of(model, alias="champion") == "1"
    assert answers(tmp_path, model) == [
        {
            "version": "1",
            "approved": True,
            "chosen": ["Approve"],
            "responded_by": {"id": "3", "name": "ann"},
            "at": "2026-03-01T06:00:00+00:00",
            "gate_digest": "sha256:d",
        }
    ]
    order = [entry.record.kind for entry in journal(tmp_path).read(f"model/{model}")]
    assert order.index(kinds.APPROVAL_ANSWERED) < order.index(kinds.PROMOTION_PENDING)
    assert main(["journal", "why", model]) == 0
    assert "approved by ann (id 3) at 2026-03-01T06:00:00+00:00" in capsys.readouterr().out


def test_a_rejection_is_journalled_and_refused(registry, model, tmp_path):
    with pytest.raises(GateRefused, match=r"churn \w+ version 1 is not promoted: .*rejected by ann"):
        promote(model, {**ANSWER, "chosen_options": ["Reject"]})
    assert registry.version_of(model, alias="champion") is None
    assert [answer["approved"] for answer in answers(tmp_path, model)] == [False]


@pytest.mark.parametrize(("chosen", "says"), [("Approve", "approved"), ("Reject", "rejected")])
def test_the_operator_that_asks_journals_a_no_as_well_as_a_yes(registry, model, tmp_path, chosen, says, capsys):
    with DAG("d", schedule=None):
        ask = ApproveModelOperator(
            task_id="approve", model=model, version="1", subject="Promote?", gate_digest="sha256:d"
        )
    ti = SimpleNamespace(dag_id="churn__train", run_id="r1", task_id="approve", map_index=-1)
    answer = {**ANSWER, "chosen_options": [chosen]}
    returned = dict(ask.execute_complete({"ti": ti}, answer))
    assert main(["journal", "show", model]) == 0
    assert f"{says} by ann (id 3) at 2026-03-01T06:00:00+00:00: {chosen}, on gate decision sha256:d." in (
        capsys.readouterr().out
    )
    if chosen == "Approve":
        assert promote(model, returned)["changed"]
    assert [answer["approved"] for answer in answers(tmp_path, model)] == [chosen == "Approve"]


def test_a_question_that_nobody_answered_fails_and_is_no_answer(registry, model, tmp_path):
    with DAG("d", schedule=None):
        ask = ApproveModelOperator(task_id="approve", model=model, version="1", subject="Promote?")
    with pytest.raises(HITLTimeoutError):
        ask.execute_complete({"ti": None}, {"error": "Too late.", "error_type": "timeout"})
    assert answers(tmp_path, model) == []


def test_an_answer_that_nobody_gave_in_time_says_so(registry, model, tmp_path):
    promote(model, {**ANSWER, "responded_by_user": None, "responded_at": AT.isoformat()})
    assert answers(tmp_path, model)[0]["responded_by"] is None


@pytest.mark.parametrize("approval", [{}, {"chosen_options": None}, {**ANSWER, "responded_by_user": "ann"}])
def test_what_is_no_answer_is_refused_by_name_and_moves_nothing(registry, model, approval):
    with pytest.raises(ConfigError, match="is not what an ApprovalOperator returns"):
        promote(model, approval)
    assert registry.version_of(model, alias="champion") is None


def test_the_answer_is_what_airflows_operator_returns(registry, model, tmp_path):
    with DAG("d", schedule=None):
        approve = ApprovalOperator(task_id="approve", subject="Promote?")
    assert promote(model, dict(approve.execute_complete({"ti": None}, ANSWER)))["changed"]
    assert answers(tmp_path, model)[0]["responded_by"] == {"id": "3", "name": "ann"}
