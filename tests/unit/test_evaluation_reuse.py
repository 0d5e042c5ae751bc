"""Evaluation rows that have judged many candidates say so."""

import re
from datetime import UTC, datetime

import pytest

from airflow_provider_mlops.evaluation.reuse import judged_before, warning
from airflow_provider_mlops.journal import Record, append_next, kinds, payloads
from airflow_provider_mlops.journal.narrative import tell
from fakes.journal import MemoryJournal

AT = datetime(2026, 3, 1, tzinfo=UTC)


def judged(run, rows, before=0):
    payload = payloads.gate_decided(
        verdict="refused",
        reason="not_better",
        sentence="",
        digest="d",
        run_id=run,
        champion="1",
        rows_digest=rows,
        judged_before=before,
    )
    return Record(kinds.GATE_DECIDED, AT, "me", payload)


def test_other_candidates_of_the_same_rows_count_each_once():
    journal = MemoryJournal()
    for run, rows in (("r1", "a"), ("r2", "a"), ("r2", "a"), ("r3", "b"), ("r4", "a")):
        append_next(journal, "model/m", judged(run, rows))
    entries = journal.read("model/m")
    assert [judged_before(entries, rows, "r4") for rows in ("a", "b", "c")] == [2, 1, 0]
    assert judged_before(entries, "a", "r5") == 3


def test_decisions_of_earlier_releases_name_no_rows():
    journal = MemoryJournal()
    record = judged("r1", "a")
    old = {key: value for key, value in record.payload.items() if key not in {"rows_digest", "judged_before"}}
    append_next(journal, "model/m", Record(record.kind, AT, "me", old))
    assert judged_before(journal.read("model/m"), "a", "r2") == 0
    assert "judged against champion 1" in tell(journal.read("model/m")[0].record)


@pytest.mark.parametrize(
    ("before", "text"),
    [
        (0, r"^$"),
        (18, r"^$"),
        (19, r"now judged 20 candidates.* chance of 64%.*Judge on rows that are new"),
        (44, "90%"),
    ],
)
def test_from_twenty_candidates_on_there_is_a_warning_with_what_to_do(before, text):
    assert re.search(text, warning(before, alpha=0.05))
    assert ("It was candidate" in tell(judged("r", "a", before))) is (before >= 19)
