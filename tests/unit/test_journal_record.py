"""A record is plain JSON with a time and an author, and its chain shows every change."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.errors import ConfigError, DataError
from airflow_provider_mlops.journal import Record, append_next, read_intact, verify
from airflow_provider_mlops.journal.record import Entry, canonical
from fakes.journal import MemoryJournal

AT = datetime(2026, 3, 1, tzinfo=UTC)


class Word(StrEnum):
    YES = "yes"


def entries_of(*payloads):
    journal = MemoryJournal()
    for payload in payloads:
        append_next(journal, "s", Record("k", AT, "me", payload))
    return journal.read("s")


def test_a_payload_is_copied_into_plain_json():
    inner = [1, 2]
    record = Record("k", AT, "me", {"list": inner, "tuple": (1, "a"), "word": Word.YES, "float": np.float64(0.5)})
    inner.append(3)
    assert record.payload == {"list": [1, 2], "tuple": [1, "a"], "word": "yes", "float": 0.5}
    assert [type(record.payload[key]) for key in ("word", "float")] == [str, float]


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"a": {"b": [1, math.nan]}}, r"k: payload\.a\.b\[1\] is nan, which JSON cannot hold"),
        ({"a": -math.inf}, r"payload\.a is -inf"),
        ({"a": {1: 2}}, r"payload\.a has the key 1; JSON keys are strings"),
        ({"a": np.int64(1)}, r"payload\.a is a int64, which JSON cannot hold"),
        ({"a": AT}, r"payload\.a is a datetime"),
        ({"a": {1, 2}}, r"payload\.a is a set"),
        ([1], "The payload of 'k' must be a mapping, got list"),
    ],
)
def test_what_is_no_json_is_refused_with_its_path(payload, says):
    with pytest.raises(ConfigError, match=says):
        Record("k", AT, "me", payload)


def test_a_payload_that_holds_itself_is_refused():
    payload = {}
    payload["self"] = payload
    with pytest.raises(ConfigError, match="nested deeper than 50 levels"):
        Record("k", AT, "me", payload)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 501, None, 3])
@pytest.mark.parametrize("field", ["kind", "actor"])
def test_a_record_needs_names_that_print(field, name):
    fields = {"kind": "k", "at": AT, "actor": "me", "payload": {}, field: name}
    with pytest.raises(ConfigError, match=f"cannot be the {field} of a journal record"):
        Record(**fields)


@pytest.mark.parametrize("at", [datetime(2026, 3, 1), "2026-03-01", None])
def test_a_record_needs_a_time_with_a_zone(at):
    with pytest.raises(ConfigError, match="needs a time with a zone"):
        Record("k", at, "me", {})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=5))
def test_what_was_written_is_intact(payloads):
    assert verify(entries_of(*payloads)) == []


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_equal_payloads_have_one_text(payload):
    assert canonical(payload) == canonical(dict(reversed(payload.items())))


@settings(max_examples=200, deadline=None)
@given(st.text(), st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_hashed_is_the_canonical_json_of_the_whole_entry(name, payload):
    entry = Entry.following(name, 7, Record("k", AT, "me", payload), "0" * 64)
    record = {"kind": "k", "at": "2026-03-01T00:00:00.000000+00:00", "actor": "me", "payload": payload}
    whole = {"stream": name, "sequence": 7, "record": record, "previous_hash": "0" * 64}
    assert entry.hash == hashlib.sha256(canonical(whole).encode()).hexdigest()


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_stored_record_is_the_one_that_was_written(payload):
    written = Record("k", AT, "me", payload)
    read = Record.stored("k", AT, "me", written.text)
    assert (read, read.text) == (written, written.text)


@pytest.mark.parametrize("text", ["", "no json", "[1]", "1", '{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}'])
def test_a_stored_text_that_is_no_payload_is_refused(text):
    with pytest.raises(ValueError, match=r"Expecting value|must be a mapping|is no JSON number"):
        Record.stored("k", AT, "me", text)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_edit_removal_or_move_but_of_the_tail_is_found(data):
    entries = entries_of(*({"n": n} for n in range(data.draw(st.integers(2, 8)))))
    at = data.draw(st.integers(0, len(entries) - 2))
    match data.draw(st.sampled_from(["edit", "remove", "swap", "double", "rehash", "author", "time"])):
        case "edit":
            entries[at] = replace(entries[at], record=Record("k", AT, "me", {"n": -1}))
        case "author":
            entries[at] = replace(entries[at], record=replace(entries[at].record, actor="you"))
        case "time":
            entries[at] = replace(entries[at], record=replace(entries[at].record, at=AT.replace(year=2027)))
        case "remove":
            del entries[at]
        case "swap":
            entries[at], entries[at + 1] = entries[at + 1], entries[at]
        case "double":
            entries.insert(at, entries[at])
        case "rehash":
            entries[at] = Entry.following("s", at + 1, Record("k", AT, "me", {"n": -1}), entries[at].previous_hash)
    breaks = verify(entries)
    assert breaks
    assert {fault.sequence for fault in breaks} & {at, at + 1, at + 2}


def test_streams_are_verified_apart_and_in_any_mixture():
    journal = MemoryJournal()
    for stream in ("a", "b", "a", "b"):
        append_next(journal, stream, Record("k", AT, "me", {}))
    a, b = journal.read("a"), journal.read("b")
    assert verify([a[0], b[0], b[1], a[1]]) == []
    (fault,) = verify([*a, replace(b[0], hash="0" * 64)])
    assert (fault.stream, fault.sequence, fault.code) == ("b", 1, "edited")


def test_a_broken_stream_is_no_ground_for_a_decision():
    journal = MemoryJournal()
    for n in range(3):
        append_next(journal, "s", Record("k", AT, "me", {"n": n}))
    assert len(read_intact(journal, "s")) == 3
    del journal.entries["s"][1]
    with pytest.raises(DataError, match=r"s was changed from outside: Entry 2 is missing before entry 3\. Nothing"):
        read_intact(journal, "s")
