"""What is found before any rule is looked at."""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from airflow_provider_mlops.evaluation.guards import (
    check_copies,
    check_freshness,
    check_labels,
    check_leakage,
    check_overlap,
    check_signature,
    check_slices,
    check_time_order,
)
from airflow_provider_mlops.evaluation.values import Reason

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("training", "evaluation", "share", "text"),
    [
        ([1, 2, 3], [4, 5], 0.0, None),
        ([1, 2, 3], [3, 4, 5, 6], 0.0, r"1 of 4 evaluation rows \(25.0%\) were trained on"),
        ([1, 2, 3], [3, 4, 5, 6], 0.25, None),
        ([1, 2, 3], [], 0.0, None),
    ],
)
def test_rows_that_were_trained_on_are_found(training, evaluation, share, text):
    found = check_overlap(np.array(training), np.array(evaluation), max_share=share)
    assert (found is None) is (text is None)
    if found:
        assert found.reason is Reason.OVERLAP
        assert re.search(text, found.sentence)


def test_entities_overlap_too():
    found = check_overlap(np.array(["ann", "bob"]), np.array(["bob", "cid"]), what="entities")
    assert "1 of 2 evaluation entities" in found.sentence


@pytest.mark.parametrize(
    ("copies", "effective"),
    [
        ([1] * 1000, None),
        ([], None),
        ([1] * 900 + [2] * 50, None),  # 909 of 1000
        ([1] * 740 + [2] * 130, 794),
        ([500, 500], 2),
        ([1] * 500 + [500], 4),
    ],
)
def test_an_evaluation_set_of_copies_counts_as_the_rows_it_is_worth(copies, effective):
    found = check_copies(np.repeat(np.arange(len(copies)), copies))
    assert (found is None) is (effective is None)
    if found:
        assert found.reason is Reason.COPIES
        assert (
            f"Only {len(copies)} of 1000 evaluation rows are distinct; they know as much as {effective}"
            in found.sentence
        )
        assert round(found.numbers["effective"]) == effective


def test_a_test_errs_no_more_than_is_said_at_the_limit_of_copies():
    rng = np.random.default_rng(0)
    copies = np.repeat([1, 2], [740, 125])  # 0.8 of 990
    gains = rng.normal(size=(4000, len(copies)))
    rows = np.repeat(gains, copies, axis=1)
    z = rows.mean(axis=1) / (rows.std(axis=1) / np.sqrt(rows.shape[1]))
    assert 0.055 < (z > 1.645).mean() < 0.085


def test_a_column_that_gives_the_label_away_is_named():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 500)
    honest = label + rng.normal(size=500)
    gone = np.where(label == 1, np.nan, 5.0)  # missing exactly where the label is 1
    assert check_leakage({"honest": honest}, label) is None
    found = check_leakage({"honest": honest, "paid_back": -label * 3.0, "gone": gone}, label)
    assert found.reason is Reason.LEAKAGE
    assert set(found.numbers["columns"]) == {"paid_back", "gone"}
    assert "'paid_back' alone predicts the label" in found.sentence or "'gone' alone" in found.sentence


def test_a_text_that_gives_the_label_away_is_named_too():
    label = np.arange(400) % 2
    leak = np.array(["paid", "open"], dtype=object)[label]
    city = np.array(["Ulm", "Bonn", None], dtype=object)[np.arange(400) % 3]
    each = np.arange(400).astype(str).astype(object)  # explains every row, and no other
    assert check_leakage({"city": city, "id": each}, label) is None
    found = check_leakage({"city": city, "state": leak}, label)
    assert list(found.numbers["columns"]) == ["state"]


def test_leakage_is_looked_for_in_binary_labels_only():
    label = np.arange(30) % 3
    assert check_leakage({"same": label.astype(float)}, label) is None


@pytest.mark.parametrize(
    ("label", "limit", "reason"),
    [
        ([1.0, 0.0], 0.0, None),
        ([1.0, np.nan, 0.0, 1.0], 0.25, None),
        ([1.0, np.nan, 0.0], 0.25, Reason.LABELS_MISSING),
        ([np.nan, np.nan], 0.99, Reason.LABELS_MISSING),
        ([], 0.25, Reason.EMPTY_EVALUATION_SET),
    ],
)
def test_labels_must_be_there(label, limit, reason):
    found = check_labels(np.array(label), max_missing=limit)
    assert (found.reason if found else None) is reason


def test_an_old_evaluation_set_is_stale():
    assert check_freshness(NOW - timedelta(days=5), now=NOW, max_age=timedelta(days=7)) is None
    found = check_freshness(NOW - timedelta(days=40), now=NOW, max_age=timedelta(days=7))
    assert found.reason is Reason.STALE_EVALUATION_SET
    assert "40 days old" in found.sentence
    assert "7 days are allowed" in found.sentence


def test_training_may_not_see_the_time_it_is_judged_on():
    assert check_time_order(NOW, NOW) is None
    found = check_time_order(NOW, NOW - timedelta(hours=1))
    assert found.reason is Reason.TIME_ORDER
    assert "Train on the time before hold_out only" in found.sentence


@pytest.mark.parametrize(
    ("candidate", "champion", "text"),
    [
        ({"a": "double"}, {"a": "double", "b": "long"}, None),
        ({"a": "double"}, {}, None),
        ({"a": "double", "c": "long"}, {"a": "double"}, "wants the new column 'c' (long)"),
        ({"a": "string"}, {"a": "double"}, "wants 'a' as string instead of double"),
    ],
)
def test_inputs_that_clients_do_not_send_are_found(candidate, champion, text):
    found = check_signature(candidate, champion)
    assert (found is None) is (text is None)
    if found:
        assert found.reason is Reason.SIGNATURE_CHANGED
        assert text in found.sentence


def test_a_protected_slice_without_a_single_evaluation_row_is_named():
    assert check_slices({"DE", "FR"}, {"DE", "FR", "IT"}, column="country") is None
    found = check_slices({"DE", "FR", None}, {"FR"}, column="country")
    assert found.reason is Reason.MISSING_SLICE
    assert "protected slices country=DE, None have training rows and no evaluation row" in found.sentence
    many = check_slices(set(range(9)), set(), column="shop")
    assert "shop=0, 1, 2, 3, 4 and 4 more have" in many.sentence
