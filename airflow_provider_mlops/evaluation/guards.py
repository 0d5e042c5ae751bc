"""
Guards that look at the evaluation set before any rule. Pure: each takes values and returns a `Finding` or ``None``.

They answer whether the evaluation can be believed at all, so a finding refuses whatever the metrics say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_mlops.evaluation.metrics import METRICS
from airflow_provider_mlops.evaluation.samples import Sample, missing
from airflow_provider_mlops.evaluation.values import Finding, Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime, timedelta

__all__ = [
    "check_copies",
    "check_freshness",
    "check_labels",
    "check_leakage",
    "check_overlap",
    "check_signature",
    "check_slices",
    "check_time_order",
]


_ROWS_PER_TEXT = 20  # of evaluation rows to different texts
_NAMED = 5  # slices in a sentence


def check_overlap(
    training: np.ndarray, evaluation: np.ndarray, *, what: str = "rows", max_share: float = 0.0
) -> Finding | None:
    """
    Find evaluation rows (or entities) that were trained on.

    :param training: hashes of the training rows, or their entities; any shape ``(n,)`` of comparable values.
    :param evaluation: the same of the evaluation rows.
    :param what: ``rows`` or ``entities``, for the sentence.
    :param max_share: share of *evaluation* that may overlap, 0..1; exact duplicates happen in data of few columns.
    """
    shared = np.isin(evaluation, training)
    count, share = int(shared.sum()), float(shared.mean()) if len(shared) else 0.0
    if share <= max_share:
        return None
    return Finding(
        Reason.OVERLAP,
        f"{count} of {len(evaluation)} evaluation {what} ({share:.1%}) were trained on, {max_share:.1%} may be. "
        "Hold out newer data, or remove duplicates before the split.",
        {"overlapping": count, "share": share, "max_share": max_share},
    )


def check_copies(evaluation: np.ndarray, *, min_share: float = 0.8) -> Finding | None:
    """
    Find an evaluation set of which so many rows are copies of others that it knows less than its rows pretend.

    Intervals take every row for one more observation. Where row i is there c_i times, a mean over n rows is as sure as
    one over n^2 / sum(c_i^2) different ones (Kish's effective number). At a share of 0.8 a test at 5 % errs in 7 %.

    :param evaluation: hashes of the evaluation rows, all their columns; ``(n,)``.
    :param min_share: effective number over number of rows, 0..1, that is still believed.
    """
    rows = len(evaluation)
    if rows == 0:
        return None
    copies = np.unique(evaluation, return_counts=True)[1].astype(float)
    effective = rows**2 / float((copies**2).sum())
    if effective >= min_share * rows:
        return None
    return Finding(
        Reason.COPIES,
        f"Only {len(copies)} of {rows} evaluation rows are distinct; they know as much as {effective:.0f} rows without "
        f"copies, at least {min_share:.0%} of {rows} are needed. Remove duplicates before the split. Rows that are "
        "equal and yet several, of columns with few values, need what tells them apart: a time, or a key, or else a "
        "number for each row, named as entity.",
        {"rows": rows, "distinct": len(copies), "effective": effective, "min_share": min_share},
    )


def check_leakage(features: Mapping[str, np.ndarray], label: np.ndarray, *, max_auc: float = 0.99) -> Finding | None:
    """
    Find a single feature whose values alone order a binary label almost perfectly, either way round.

    :param features: columns, each ``(n,)``. Numbers; NaN takes the smallest place. Or texts of few different values,
        which stand in the order of how often the label is the greater one.
    :param label: ``(n,)``; two distinct values, else nothing is found.
    :param max_auc: ROC AUC of one feature that is still believed.
    """
    classes = np.unique(label[~missing(label)])
    if len(classes) != 2:
        return None
    known = ~missing(label)
    truth = (label[known] == classes[1]).astype(np.int64)
    aucs = {}
    for name, values in features.items():
        column = _in_order(values[known], truth)
        if column is None:
            continue
        one = Sample(truth, None, column, False, 2, truth, column)
        auc = METRICS["roc_auc"].value(one)
        aucs[name] = max(auc, 1 - auc)
    leaks = {name: auc for name, auc in sorted(aucs.items(), key=lambda item: -item[1]) if auc > max_auc}
    if not leaks:
        return None
    first, auc = next(iter(leaks.items()))
    return Finding(
        Reason.LEAKAGE,
        f"The column {first!r} alone predicts the label (ROC AUC {auc:.4f} > {max_auc:g}). It is probably known only "
        "after the fact: take it out of the features. On few rows it may be chance: hold out more.",
        {"columns": leaks},
    )


def _in_order(values: np.ndarray, truth: np.ndarray) -> np.ndarray | None:
    """Return numbers to order *values* by; ``None`` for texts so rare that each would explain its own few rows."""
    if values.dtype.kind != "O":
        column = values.astype(float)
        return np.where(np.isnan(column), -np.inf, column)
    codes, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)[1:]
    if len(counts) * _ROWS_PER_TEXT > len(values):
        return None
    return np.asarray((np.bincount(codes, weights=truth) / counts)[codes])


def check_labels(label: np.ndarray, *, max_missing: float) -> Finding | None:
    """
    Find an empty evaluation set, or one of which too many rows have no label.

    :param label: ``(n,)``, with NaN or None where the label is missing.
    :param max_missing: share of rows that may have no label, 0..1.
    """
    if len(label) == 0:
        return Finding(
            Reason.EMPTY_EVALUATION_SET,
            "The evaluation set has no rows. Widen hold_out, or wait for data.",
            {"rows": 0},
        )
    count = int(missing(label).sum())
    share = count / len(label)
    if share <= max_missing and count < len(label):
        return None
    return Finding(
        Reason.LABELS_MISSING,
        f"{count} of {len(label)} evaluation rows ({share:.1%}) have no label, {max_missing:.1%} may have none. "
        "Labels that arrive late need label_delay.",
        {"missing": count, "share": share, "max_missing": max_missing},
    )


def check_freshness(newest: datetime, *, now: datetime, max_age: timedelta) -> Finding | None:
    """
    Find an evaluation set that says nothing about today.

    :param newest: event time of the newest evaluation row.
    :param now: the time of the decision; both aware or both naive.
    """
    age = now - newest
    if age <= max_age:
        return None
    return Finding(
        Reason.STALE_EVALUATION_SET,
        f"The newest evaluation row is {age.days} days old ({newest.isoformat()}), {max_age.days} days are allowed. "
        "Snapshot newer data, or look why none arrives.",
        {"age_seconds": age.total_seconds(), "max_age_seconds": max_age.total_seconds()},
    )


def check_time_order(newest_training: datetime, oldest_evaluation: datetime) -> Finding | None:
    """Find training rows that are newer than the oldest evaluation row: the model would have seen the future."""
    if newest_training <= oldest_evaluation:
        return None
    return Finding(
        Reason.TIME_ORDER,
        f"The newest training row ({newest_training.isoformat()}) is younger than the oldest evaluation row "
        f"({oldest_evaluation.isoformat()}). Train on the time before hold_out only.",
        {"newest_training": newest_training.isoformat(), "oldest_evaluation": oldest_evaluation.isoformat()},
    )


def check_signature(candidate: Mapping[str, str], champion: Mapping[str, str]) -> Finding | None:
    """
    Find inputs that the candidate wants and the champion's clients do not send. Fewer inputs are fine.

    :param candidate: type of each required input column, as the model's signature names them.
    :param champion: the same of the champion; empty: it has no signature, so nothing can be found.
    """
    if not champion:
        return None
    added = sorted(set(candidate) - set(champion))
    retyped = sorted(name for name in set(candidate) & set(champion) if candidate[name] != champion[name])
    if not added and not retyped:
        return None
    parts = [f"wants the new column {name!r} ({candidate[name]})" for name in added]
    parts += [f"wants {name!r} as {candidate[name]} instead of {champion[name]}" for name in retyped]
    return Finding(
        Reason.SIGNATURE_CHANGED,
        f"The candidate {'; '.join(parts)}. Clients of the champion would be refused: change them first, or keep the "
        "inputs.",
        {"added": added, "retyped": retyped},
    )


def check_slices(training: Collection[Any], evaluation: Collection[Any], *, column: str) -> Finding | None:
    """
    Find protected slices that training rows have and no evaluation row: nothing can be shown of them.

    :param training: distinct values of *column* in the training rows.
    :param evaluation: the same of the evaluation rows.
    """
    gone = sorted(set(training) - set(evaluation), key=str)
    if not gone:
        return None
    more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
    return Finding(
        Reason.MISSING_SLICE,
        f"The protected slices {column}={', '.join(map(str, gone[:_NAMED]))}{more} have training rows and no "
        "evaluation row. Widen hold_out, or look where their rows went.",
        {"column": column, "slices": [str(value) for value in gone]},
    )
