"""Truth and one model's predictions, encoded once so that every metric reads the same arrays. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_mlops.evaluation.values import Finding, GatePolicy, Reason

if TYPE_CHECKING:
    from airflow_provider_mlops.evaluation.values import Task

__all__ = ["Sample", "check_count", "class_order", "encode", "missing", "nested", "sample", "settled"]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """
    What a metric sees of one model on ``n`` rows.

    :param truth: ``(n,)`` class codes ``0..classes-1`` (binary: 1 is positive), or values as floats.
    :param label: ``(n,)`` predicted codes (``classes`` stands for a label that the truth never holds) or values;
        ``None`` when scores cannot be cut at a threshold because they are no probabilities.
    :param score: binary: ``(n,)`` score of the positive class; multiclass: ``(n, classes)``; ``None``: labels only.
    :param calibrated: the scores lie in 0..1, and those of several classes add up to 1.
    :param classes: number of classes; 0 for regression.
    :param raw_truth: the truth as given, for metrics of the user's own.
    :param raw: the predictions as given.
    :param group: ``(n,)`` code of the query of each row, for rankings; ``None`` for all others.
    """

    truth: np.ndarray
    label: np.ndarray | None
    score: np.ndarray | None
    calibrated: bool
    classes: int
    raw_truth: np.ndarray
    raw: np.ndarray
    group: np.ndarray | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.truth)

    def take(self, index: np.ndarray) -> Sample:
        """Return the sample of the rows in *index* (positions or a mask)."""
        return replace(
            self,
            truth=self.truth[index],
            label=None if self.label is None else self.label[index],
            score=None if self.score is None else self.score[index],
            raw_truth=self.raw_truth[index],
            raw=self.raw[index],
            group=None if self.group is None else self.group[index],
        )

    def keys(self) -> list[np.ndarray]:
        """Return the columns whose order makes a row's position irrelevant."""
        values = self.label if self.score is None else self.score
        if values is None:
            return [self.truth]
        return [self.truth, *(values.T if values.ndim == 2 else [values])]


def missing(values: np.ndarray) -> np.ndarray:
    """
    Return which of *values*, shape ``(n,)``, are NaN, NaT or None.

    >>> missing(np.array([1.0, float("nan")])).tolist()
    [False, True]
    """
    if values.dtype.kind in "fc":
        return np.asarray(np.isnan(values))
    if values.dtype.kind in "mM":
        return np.asarray(np.isnat(values))
    if values.dtype.kind == "O":
        return np.array([value is None or _differs(value) for value in values], dtype=bool)
    return np.zeros(len(values), dtype=bool)


def _differs(value: Any) -> bool:
    """Return whether *value* is not even equal to itself, as NaN and NaT are; a list or an array always is."""
    differs = value != value  # noqa: PLR0124
    return isinstance(differs, bool | np.bool_) and bool(differs)


def nested(values: np.ndarray) -> bool:
    """Return whether any of *values*, shape ``(n,)``, is itself a list, an array or a mapping."""
    return values.dtype.kind == "O" and any(isinstance(value, list | tuple | dict | np.ndarray) for value in values)


def settled(values: np.ndarray) -> np.ndarray:
    """Return *values*, without missing ones, in the type that fits them all: objects become numbers or texts."""
    return np.array(values.tolist()) if values.dtype.kind == "O" and len(values) else values


def encode(values: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """
    Return the position of each of *values* in *classes*, ``len(classes)`` for those that are not among them.

    Numbers and booleans compare as numbers, everything else as text.

    >>> encode(np.array(["b", "a", "z"]), np.array(["a", "b"])).tolist()
    [1, 0, 2]
    """
    if values.dtype.kind in "biuf" and classes.dtype.kind in "biuf":
        common = np.result_type(values, classes)  # not always float: it would make neighbors above 2**53 equal
        values, known = values.astype(common), classes.astype(common)
    else:
        values, known = values.astype(str), classes.astype(str)
    order = np.argsort(known, kind="stable")
    ordered = known[order]
    found = np.minimum(np.searchsorted(ordered, values), len(known) - 1)
    return np.where(ordered[found] == values, order[found], len(known)).astype(np.int64)


def class_order(
    label: np.ndarray, task: Task, given: tuple[Any, ...] | None, policy: GatePolicy
) -> np.ndarray | Finding:
    """Return the classes in the order of their codes (binary: negative, positive), or why there is none."""
    present = np.unique(label)
    known = present if given is None else np.unique(np.array(given))
    if len(present) < 2:
        only = f"the one class {present[0]!s}" if len(present) else "no class"
        return Finding(
            Reason.ONE_CLASS,
            f"The evaluation labels hold {only}, so nothing can be told apart. Evaluate on rows of every class.",
            {"classes": [str(value) for value in present]},
        )
    if (encode(present, known) == len(known)).any():
        new = [str(value) for value, code in zip(present, encode(present, known), strict=True) if code == len(known)]
        return Finding(
            Reason.BAD_PREDICTIONS,
            f"The evaluation labels hold {', '.join(map(repr, new[:5]))}, which the model does not know. It knows "
            f"{', '.join(map(repr, map(str, known[:5])))}.",
        )
    return _positive_last(known, policy) if task == "binary" else known


def _positive_last(known: np.ndarray, policy: GatePolicy) -> np.ndarray | Finding:
    if len(known) != 2:
        return Finding(
            Reason.BAD_PREDICTIONS,
            f"The task is binary and the labels hold {len(known)} values: {', '.join(map(str, known[:5]))}. "
            "Say task: multiclass, or make the label binary.",
        )
    positive = 1 if policy.positive_label is None else encode(np.array([policy.positive_label]), known)[0]
    if positive == 2:
        return Finding(
            Reason.BAD_PREDICTIONS,
            f"The positive label {policy.positive_label!r} is not among the labels {known[0]!s} and {known[1]!s}.",
        )
    return known if positive == 1 else known[::-1]


def check_count(predicted: np.ndarray, rows: int, who: str) -> Finding | None:
    """Return what is wrong with the number of predictions of *who* for *rows* rows, if anything."""
    if len(predicted) == rows:
        return None
    return Finding(
        Reason.BAD_PREDICTIONS,
        f"The {who} has {len(predicted)} predictions for {rows} rows. A model must predict every row once.",
    )


def sample(
    label: np.ndarray,
    predicted: np.ndarray,
    *,
    policy: GatePolicy,
    classes: np.ndarray | None,
    columns: tuple[Any, ...] | None,
    who: str,
    group: np.ndarray | None = None,
) -> Sample | Finding:
    """
    Return *predicted* encoded against *label*, or a `Finding` that says why that cannot be done.

    :param classes: labels in the order of their codes; ``None`` for values: regression, forecasting, ranking.
    :param columns: label of each probability column; ``None``: the sorted labels.
    :param who: ``candidate``, ``champion`` or ``anchor``, for the sentences.
    :param group: ``(n,)`` code of the query of each row, for rankings.
    """
    miscounted = check_count(predicted, len(label), who)
    if miscounted is not None:
        return miscounted
    if predicted.ndim == 2 and predicted.shape[1] == 1:
        predicted = predicted[:, 0]
    if predicted.ndim not in (1, 2) or nested(predicted.reshape(-1)):
        return Finding(
            Reason.BAD_PREDICTIONS,
            f"The {who} predicts something nested for each row, of shape {predicted.shape}. One value per row, or one "
            "probability per class, is needed.",
        )
    if not missing(predicted.reshape(-1)).any():
        predicted = settled(predicted)
    numeric = predicted.dtype.kind in "biuf"
    bad = ~np.isfinite(predicted) if numeric else missing(predicted.reshape(-1)).reshape(predicted.shape)
    if bad.any():
        count = int(bad.reshape(len(label), -1).any(axis=1).sum())
        return Finding(
            Reason.NOT_A_NUMBER,
            f"The {who} predicts NaN, infinity or nothing for {count} of {len(label)} rows. "
            "Look at those rows: usually a feature is missing that the training data always had.",
            {"rows": count},
        )
    if classes is None:
        return _values(label, predicted, numeric=numeric, who=who, group=group)
    return _classes(label, predicted, numeric=numeric, policy=policy, classes=classes, columns=columns, who=who)


def _values(
    label: np.ndarray,
    predicted: np.ndarray,
    *,
    numeric: bool,
    who: str,
    group: np.ndarray | None,
) -> Sample | Finding:
    if not numeric or predicted.ndim != 1:
        return Finding(
            Reason.BAD_PREDICTIONS,
            f"The task needs one number per row; the {who} predicts {predicted.dtype} of shape {predicted.shape} "
            f"for labels of {label.dtype}.",
        )
    values = predicted.astype(float)
    return Sample(label.astype(float), values, None, False, 0, label, predicted, group)


def _classes(
    label: np.ndarray,
    predicted: np.ndarray,
    *,
    numeric: bool,
    policy: GatePolicy,
    classes: np.ndarray,
    columns: tuple[Any, ...] | None,
    who: str,
) -> Sample | Finding:
    truth = encode(label, classes)
    k = len(classes)
    if predicted.ndim == 2:
        names = np.array(columns) if columns is not None else np.sort(classes)
        order = encode(classes, names)
        if not numeric or predicted.shape[1] != len(names) or (order == len(names)).any():
            return Finding(
                Reason.BAD_PREDICTIONS,
                f"The {who} predicts {predicted.shape[1]} columns for the {len(names)} classes "
                f"{', '.join(map(str, names[:5]))}. Write one probability column per class, in sorted order.",
            )
        score = predicted.astype(float)[:, order]
        calibrated = bool((score >= -1e-6).all() and np.allclose(score.sum(axis=1), 1.0, atol=1e-3))
        if k == 2:
            score = score[:, 1]
            hard = (score >= policy.threshold).astype(np.int64) if calibrated else None
        else:
            hard = score.argmax(axis=1)
        return Sample(truth, hard, score, calibrated, k, label, predicted)
    codes = encode(predicted, classes)
    if k > 2 or not numeric or (codes < k).all():
        return Sample(truth, codes, None, False, k, label, predicted)
    score = predicted.astype(float)
    calibrated = bool(((score >= 0) & (score <= 1)).all())
    hard = (score >= policy.threshold).astype(np.int64) if calibrated else None
    return Sample(truth, hard, score, calibrated, k, label, predicted)
