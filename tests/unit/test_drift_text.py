"""Text that is no category: what is counted of it, which columns it is, and when it drifts."""

from __future__ import annotations

import string
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_mlops.drift import texts
from airflow_provider_mlops.drift.check import Verdict, check
from airflow_provider_mlops.drift.layout import choose_layout, without_identifiers
from airflow_provider_mlops.drift.profile import DataProfile, ProfileBuilder
from airflow_provider_mlops.errors import ConfigError

WORDS = ("the", "rain", "fell", "on", "42", "Oslo,", "again", "and", "nobody", "minded.", "2026", "OK")


def comments(count, *, seed=0, words=8, shout=0.0):
    """Return texts of about so many words; a share *shout* of them in capitals."""
    random = np.random.default_rng(seed)
    made = [" ".join(random.choice(WORDS, 1 + random.poisson(words - 1))) for _ in range(count)]
    return [text.upper() if random.random() < shout else text for text in made]


def profile_of(values, *, layout=None, text=None, at=None):
    columns = {"note": pa.array(values, pa.string())}
    timed = {}
    if at is not None:
        columns["at"] = pa.array(at)
        timed = {"timestamp": "at", "block": timedelta(days=7), "origin": at[0]}
    batch = pa.RecordBatch.from_pydict(columns)
    builder = ProfileBuilder(layout or choose_layout(batch, text=text, **timed))
    builder.add(batch)
    return builder.profile() if layout else without_identifiers(builder.profile())


def slow(text):
    """Count as the definition says, character by character."""
    found = {name: sum(character in characters for character in text) for name, characters in texts.CLASSES.items()}
    found["length"], found["other"] = len(text), len(text) - sum(found.values())
    return [found[name] for name in texts.MEASURES]


@settings(deadline=None)
@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=20), st.booleans())
def test_measures_count_code_points_by_class(values, encoded):
    array = pa.array(values, pa.string())
    found = texts.measure(array.dictionary_encode() if encoded else array)
    assert np.stack(list(found.values())).T.tolist() == [slow(text) for text in values if text is not None]


def test_a_slice_and_texts_longer_than_a_chunk_are_measured_whole(monkeypatch):
    monkeypatch.setattr(texts, "_CHUNK", 5)
    values = ["é" * 7, "", "ab 1", "🌧!", "x" * 20, "", "end"]
    found = texts.measure(pa.array(values).slice(1, 5))
    assert np.stack(list(found.values())).T.tolist() == [slow(text) for text in values[1:6]]


def test_the_classes_are_ascii_and_do_not_overlap():
    every = "".join(texts.CLASSES.values())
    assert len(set(every)) == len(every)
    assert set(every) == set(string.printable)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        pytest.param(comments(900), "text", id="comments"),
        pytest.param([f"天気は{i}晴れ" for i in range(900)], "text", id="text without spaces"),
        pytest.param([f"order-{i:05}" for i in range(900)], "identifier", id="identifiers"),
        pytest.param(["new york", "são paulo", "oslo"] * 300, "category", id="categories with spaces"),
        pytest.param([f"street {i // 2}" for i in range(900)], "category", id="every value twice"),
        pytest.param(
            [f"street {i}" for i in range(440)] + ["main street"] * 460, "category", id="under half are unique"
        ),
        pytest.param([None] * 900, "category", id="nothing"),
    ],
)
def test_the_values_decide_what_a_column_is(values, kind):
    column = profile_of(values).columns["note"]
    found = "identifier" if column.identifier else "text" if column.texts else "category"
    assert found == kind
    assert (column.categories is not None) is (kind == "category")


def test_named_columns_are_text_and_no_others_are():
    assert profile_of(["a", "b"] * 50, text=["note"]).columns["note"].texts
    assert profile_of(comments(900), text=[]).columns["note"].identifier


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (["nota"], r"text_columns: 'nota' is no column of the reference\. Did you mean 'note'\?"),
        (["x"], r"text_columns: 'x' holds number, not text\. Take it out\."),
    ],
)
def test_only_strings_can_be_text(text, message):
    with pytest.raises(ConfigError, match=message):
        choose_layout(pa.record_batch({"note": ["a"], "x": [1]}), text=text)


def test_it_merges_and_is_read_back_as_it_was_written():
    whole = profile_of(comments(900))
    parts = [profile_of(comments(900)[cut], layout=whole) for cut in (slice(300), slice(300, None))]
    merged = parts[0].merge(parts[1])
    for name, counts in merged.columns["note"].texts.items():
        assert counts.counts.tolist() == whole.columns["note"].texts[name].counts.tolist()
    assert DataProfile.from_json(whole.to_json()) == whole
    assert merged.columns["note"].same_layout(whole.columns["note"])
    assert not merged.columns["note"].same_layout(profile_of(comments(900, words=20)).columns["note"])


@pytest.mark.parametrize(
    ("now", "measure", "sentence"),
    [
        ({"words": 11}, "spaces", "'note', by its number of spaces, moved by 0."),
        ({"shout": 0.6}, "capitals", "'note', by its number of capital letters, moved by 0."),
    ],
)
def test_longer_and_louder_texts_drift_and_the_measure_that_moved_most_is_named(now, measure, sentence):
    reference = profile_of(comments(6000))
    report = check(reference, profile_of(comments(6000, seed=1, **now), layout=reference))
    column = report.columns["note"]
    assert (report.verdict, column.reason) == (Verdict.DRIFT, "distribution")
    assert column.numbers["measure"] == measure
    assert column.sentence.startswith(sentence)
    assert report.tests == 7
    assert {f"{measure}_mean_before", f"{measure}_mean_now"} <= set(column.numbers)


def test_the_same_kind_of_text_does_not_drift_and_few_texts_say_nothing():
    reference = profile_of(comments(8000))
    quiet = check(reference, profile_of(comments(8000, seed=1), layout=reference))
    assert (quiet.verdict, quiet.columns["note"].sentence[:12]) == (Verdict.NO_DRIFT, "'note', by i")
    few = check(reference, profile_of(comments(100, seed=1), layout=reference))
    assert (few.verdict, few.reason) == (Verdict.INSUFFICIENT, "too_few_rows")


def test_false_alarms_of_text_stay_below_what_is_allowed():
    """The measures of a text depend on each other; 60 quiet windows at an allowed share of 1/30."""
    pool = comments(40_000)
    reference = profile_of(pool[:8000])
    random = np.random.default_rng(7)
    alarms = sum(
        check(reference, profile_of(random.choice(pool[8000:], 4000).tolist(), layout=reference)).drifted
        for _ in range(60)
    )
    assert alarms <= 4


def test_natural_variation_is_learnt_from_the_blocks_of_the_reference():
    """Weeks in which people write more or less: what a plain test would cry over is usual."""
    random = np.random.default_rng(3)

    def weeks(first, count):
        at = [
            datetime(2026, 1, 5) + timedelta(days=7 * w, minutes=25 * i)
            for w in range(first, first + count)
            for i in range(400)
        ]
        values = [
            text
            for _ in range(count)
            for text in comments(400, seed=int(random.integers(1e9)), words=random.choice([6, 8, 10]))
        ]
        return {"values": values, "at": at}

    reference = profile_of(**weeks(0, 20))
    report = check(reference, profile_of(**weeks(20, 1), layout=reference))
    assert report.variation.value == "known"
    assert report.verdict is not Verdict.DRIFT
