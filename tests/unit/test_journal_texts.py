"""A journal is read by people: in sentences, and in files that an auditor can check without us."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from datetime import UTC, datetime

import pytest

from airflow_provider_mlops.errors import ConfigError, DataError
from airflow_provider_mlops.journal import Head, Record, append_next, kinds, payloads, verify
from airflow_provider_mlops.journal.export import export, heads_of
from airflow_provider_mlops.journal.narrative import explain, tell
from fakes.journal import MemoryJournal

AT = datetime(2026, 3, 1, 6, 0, 12, tzinfo=UTC)
MOVE = {"alias": "champion", "version": "7", "previous": "6", "token": 4, "rollback": False}

SENTENCES = [
    (
        kinds.DRIFT_CHECKED,
        payloads.drift_checked(
            window="w1",
            verdict="drift",
            reason="shift",
            sentence="2 of 9 columns moved.",
            columns=["rain", "wind"],
            realized_performance="ok",
        ),
        "window w1 was judged drift (shift). 2 of 9 columns moved. Moved most: rain, wind. Realized performance: ok.",
    ),
    (
        kinds.DATA_QUARANTINED,
        payloads.data_quarantined(data_digest="sha256:a", reason="null_share", sentence="rain is 40 % null."),
        "data sha256:a was quarantined (null_share). rain is 40 % null.",
    ),
    (
        kinds.RETRAINING_DECIDED,
        payloads.retraining_decided(
            verdict="wait", reason="cooldown", sentence="Too soon.", numbers={}, key="k", trigger="monitor", owner="o"
        ),
        "retraining on monitor: wait (cooldown). Too soon.",
    ),
    (
        kinds.TRAINING_STARTED,
        payloads.training_started(key="k", run_id="r1", data_digest="sha256:a"),
        "training run r1 started on data sha256:a.",
    ),
    (kinds.TRAINING_FINISHED, payloads.training_finished(key="k", run_id="r1"), "training run r1 finished."),
    (
        kinds.TRAINING_FAILED,
        payloads.training_failed(key="k", run_id="r1", reason="failed", sentence="Exit code 1."),
        "run r1 failed (failed). Exit code 1.",
    ),
    (
        kinds.TRAINING_FAILED,
        payloads.training_failed(key="k", run_id=None, reason="lost", sentence=""),
        "a training without a run failed (lost).",
    ),
    (
        kinds.GATE_DECIDED,
        payloads.gate_decided(
            verdict="refused", reason="worse", sentence="AUC fell by 0.02.", digest="d", run_id="r1", champion="6"
        ),
        "the candidate of run r1 was judged against champion 6: refused (worse). AUC fell by 0.02.",
    ),
    (
        kinds.MODEL_REGISTERED,
        payloads.model_registered(version="7", run_id="r1", source="s"),
        "run r1 was registered as version 7.",
    ),
    (
        kinds.MODEL_SMOKE_TESTED,
        payloads.model_smoke_tested(version="7", passed=True, reason="ok", sentence="p95 8 ms."),
        "version 7 was started and answered as it should. p95 8 ms.",
    ),
    (
        kinds.MODEL_SMOKE_TESTED,
        payloads.model_smoke_tested(version="7", passed=False, reason="crashed", sentence="Exit code 3."),
        "version 7 failed its probe (crashed). Exit code 3.",
    ),
    (
        kinds.APPROVAL_ANSWERED,
        payloads.approval_answered(
            version="7",
            approved=True,
            chosen=["Approve"],
            responded_by={"id": "3", "name": "ann"},
            at="2026-03-01T06:00:00+00:00",
            gate_digest="d",
        ),
        "the promotion of version 7 was approved by ann (id 3) at 2026-03-01T06:00:00+00:00: Approve, on gate decision d.",
    ),
    (
        kinds.APPROVAL_ANSWERED,
        payloads.approval_answered(
            version="7", approved=False, chosen=["Reject"], responded_by=None, at=None, gate_digest=None
        ),
        "the promotion of version 7 was rejected by nobody in time, so by default: Reject.",
    ),
    (
        kinds.PROMOTION_LEASED,
        payloads.promotion_leased(owner="o", token=4, until=AT),
        "took the promotion lease 4 until 2026-03-01T06:00:12+00:00.",
    ),
    (
        kinds.PROMOTION_PENDING,
        payloads.promotion_pending(**MOVE, gate_digest="sha256:d"),
        "is about to promote champion from 6 to 7, on gate decision sha256:d.",
    ),
    (
        kinds.PROMOTION_PENDING,
        payloads.promotion_pending(**{**MOVE, "rollback": True}, gate_digest=None),
        "is about to roll back champion from 6 to 7.",
    ),
    (kinds.PROMOTION_DONE, payloads.promotion_done(**MOVE), "promoted: champion is version 7, it was 6."),
    (
        kinds.PROMOTION_DONE,
        payloads.promotion_done(**{**MOVE, "rollback": True}),
        "rolled back: champion is version 7, it was 6.",
    ),
    (
        kinds.PROMOTION_DONE,
        payloads.promotion_done(**MOVE, adopted=True),
        "champion had been moved from 6 to 7 from outside; this was accepted.",
    ),
    (
        kinds.PROMOTION_ABANDONED,
        payloads.promotion_abandoned(alias="champion", version="7", token=4, reason="interrupted", sentence="It died."),
        "did not move champion to 7 (interrupted). It died.",
    ),
    (
        kinds.PROMOTION_ABANDONED,
        payloads.promotion_abandoned(alias="champion", version="", token=4, reason="busy", sentence="It was held."),
        "did not move champion (busy). It was held.",
    ),
    (
        kinds.ROLLOUT_STARTED,
        payloads.rollout_started(name="api", version="7", stable_version="6", strategy="canary"),
        "canary rollout of version 7 to api started.",
    ),
    (
        kinds.ROLLOUT_ADVANCED,
        payloads.rollout_advanced(name="api", version="7", phase="stepping", step=1, weight=30, sentence="No errors."),
        "rollout to api: stepping, 30 % of traffic. No errors.",
    ),
    (
        kinds.ROLLOUT_FINISHED,
        payloads.rollout_finished(name="api", version="7", phase="promoted", reason="healthy", sentence=""),
        "rollout of version 7 to api ended promoted (healthy).",
    ),
    (
        kinds.OVERRIDE_USED,
        payloads.override_used(what="gate", why="the old one leaks data", version="7"),
        "switched off the safety 'gate' for version 7. Reason given: the old one leaks data",
    ),
]


def journal_of(*records, stream="model/m"):
    journal = MemoryJournal()
    for kind, payload in records:
        append_next(journal, stream, Record(kind, AT, "ada: dag run task", payload))
    return journal.read(stream)


@pytest.mark.parametrize(("kind", "payload", "sentence"), SENTENCES)
def test_each_kind_of_record_is_a_sentence(kind, payload, sentence):
    assert tell(Record(kind, AT, "ada", payload)) == sentence


def test_every_kind_has_a_sentence():
    assert {kind for kind, *_ in SENTENCES} == set(kinds.KINDS)


def test_an_explanation_says_who_what_and_when_of_one_model():
    entries = journal_of((kinds.PROMOTION_DONE, payloads.promotion_done(**MOVE)))
    others = journal_of((kinds.PROMOTION_DONE, payloads.promotion_done(**MOVE)), stream="model/other")
    assert explain([*entries, *others], "m") == [
        "1. 2026-03-01 06:00:12 UTC, ada: dag run task: promoted: champion is version 7, it was 6."
    ]


@pytest.mark.parametrize("payload", [{}, {"version": "7"}, {"columns": None, "window": "w"}])
@pytest.mark.parametrize("kind", ["something.else", *kinds.KINDS])
def test_a_payload_that_nobody_expected_is_shown_as_it_is(kind, payload):
    assert tell(Record(kind, AT, "ada", payload)).startswith(f"{kind}: {{")


def test_a_sentence_is_one_line_and_cannot_drive_a_terminal():
    told = tell(Record(kinds.OVERRIDE_USED, AT, "ada", payloads.override_used(what="gate", why="a\nb\x1b[31m\ud800")))
    assert told.endswith("Reason given: a b [31m ")


def test_a_json_export_can_be_checked_by_a_stranger():
    exported = json.loads(export(journal_of(*[row[:2] for row in SENTENCES]), "json"))
    previous = "0" * 64
    for entry in exported["entries"]:
        body = {
            "stream": entry["stream"],
            "sequence": entry["sequence"],
            "record": {key: entry[key] for key in ("kind", "at", "actor", "payload")},
            "previous_hash": previous,
        }
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest() == entry["hash"]
        previous = entry["hash"]


def test_an_export_anchors_the_journal_against_a_cut_tail():
    entries = journal_of(*[row[:2] for row in SENTENCES])
    heads = heads_of(export(entries, "json"))
    assert heads == {"model/m": Head(len(entries), entries[-1].hash)}
    assert verify(entries, heads) == []
    (cut,) = verify(entries[:-2], heads)
    assert (cut.code, cut.sequence) == ("removed", len(entries) - 1)
    assert "the tail was cut off" in cut.sentence


def test_a_csv_export_holds_every_entry_and_runs_no_formula():
    journal = MemoryJournal()
    append_next(journal, "=model", Record("k", AT, '@ada, "the" first', {"a": "x\ny"}))
    rows = list(csv.DictReader(io.StringIO(export(journal.read("=model"), "csv"))))
    assert rows[0]["stream"] == "'=model"
    assert rows[0]["actor"] == '\'@ada, "the" first'
    assert json.loads(rows[0]["payload"]) == {"a": "x\ny"}


def test_an_html_export_shows_what_is_written_and_runs_nothing():
    journal = MemoryJournal()
    append_next(journal, "model/<script>", Record("k", AT, "<b>ada</b>", {"a": "<img src=x onerror=alert(1)>\ud800"}))
    page = export(journal.read("model/<script>"), "html")
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;b&gt;ada&lt;/b&gt;" in page
    assert page.encode()


def test_an_html_export_has_a_table_for_each_stream():
    journal = MemoryJournal()
    for stream in ("model/a", "model/a", "model/b"):
        append_next(journal, stream, Record("k", AT, "ada", {"a": 1}))
    page = export([*journal.read("model/a"), *journal.read("model/b")], "html")
    assert re.findall("<h2>(.*?)</h2>|<tr><td", page) == ["model/a", "", "", "model/b", ""]


@pytest.mark.parametrize("name", ["json", "csv", "html"])
def test_an_empty_journal_exports(name):
    assert export([], name)


def test_an_unknown_format_is_named_with_its_neighbors():
    with pytest.raises(
        ConfigError, match=r"'jsn' is no format of an export; use json, csv, html\. Did you mean 'json'"
    ):
        export([], "jsn")


@pytest.mark.parametrize("text", ["", "no json", "[]", "{}", '{"heads": {"a": 1}}'])
def test_what_is_no_export_is_a_data_error(text):
    with pytest.raises(DataError, match="no journal export in JSON"):
        heads_of(text)
