"""
Metrics, each able to say its value, its value under row weights, and how each row moves it. Pure; numpy only.

A metric ``T`` is a function of row weights ``w`` that does not change when all weights are multiplied by the same
number. The paired bootstrap needs ``T(w)`` for many ``w`` at once (`Metric.weighted`); intervals on many rows need
the derivative at ``w = 1`` (`Metric.influence`), the infinitesimal jackknife, which for ROC AUC is DeLong's variance.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from airflow_provider_mlops.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_mlops.evaluation.samples import Sample
    from airflow_provider_mlops.evaluation.values import Task

__all__ = ["METRICS", "Metric", "MomentMetric", "RankMetric", "UserMetric", "find_metric", "lacks"]

Floats = npt.NDArray[np.float64]
Needs = Literal["label", "score", "probabilities", "value"]

_CLASSES: tuple[Task, ...] = ("binary", "multiclass")
_VALUES: tuple[Task, ...] = ("regression", "forecasting")
_RANKING: tuple[Task, ...] = ("ranking",)
_ECE_BINS = 10


class Metric(Protocol):
    """What the comparison needs of a metric. *low* and *high* bound its admissible values."""

    @property
    def name(self) -> str:
        """Name in a rule."""

    @property
    def higher_is_better(self) -> bool:
        """Direction."""

    @property
    def needs(self) -> Needs:
        """What must be predicted: labels, scores that rank, probabilities, or values."""

    @property
    def low(self) -> float:
        """Smallest admissible value."""

    @property
    def high(self) -> float:
        """Largest admissible value."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks it is defined for."""

    def value(self, sample: Sample) -> float:
        """Return the metric; NaN where it is not defined."""

    def weighted(self, sample: Sample, weights: Floats) -> Floats:
        """Return the metric under each row of *weights*, shape ``(draws, n)``; shape ``(draws,)``."""

    def influence(self, sample: Sample) -> Floats | None:
        """Return the derivative by each row's weight, shape ``(n,)``, which sums to 0; ``None``: not known."""


@dataclass(frozen=True, slots=True)
class MomentMetric:
    """A smooth function of sums over rows: ``T(w) = of_sums(w @ rows)``."""

    name: str
    higher_is_better: bool
    needs: Needs
    low: float
    high: float
    tasks: tuple[Task, ...]
    columns: Callable[[Sample], Floats]
    of_sums: Callable[[Floats], Floats]

    def value(self, sample: Sample) -> float:
        """Return the metric; NaN where it is not defined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(self.of_sums(self.columns(sample).sum(axis=0)))

    def weighted(self, sample: Sample, weights: Floats) -> Floats:
        """Return the metric under each row of *weights*, shape ``(draws,)``."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.of_sums(weights @ self.columns(sample))

    def influence(self, sample: Sample) -> Floats:
        """Return the chain rule through the sums; their gradient by central differences."""
        columns = self.columns(sample)
        sums = columns.sum(axis=0)
        size = np.abs(columns).sum(axis=0)
        steps = np.diag(1e-5 * np.where(size > 0, size, 1.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            change = self.of_sums(sums + steps) - self.of_sums(sums - steps)
            return np.asarray(columns @ (change / (2 * np.diag(steps))))


@dataclass(frozen=True, slots=True)
class RankMetric:
    """A metric of the order of the scores; several classes: the mean over one class against the rest."""

    name: str
    ranking: Literal["roc_auc", "average_precision"]
    higher_is_better: bool = True
    needs: Needs = "score"
    low: float = 0.0
    high: float = 1.0
    tasks: tuple[Task, ...] = _CLASSES

    def value(self, sample: Sample) -> float:
        """Return the metric; NaN when a class has no rows or all rows."""
        return float(self.weighted(sample, np.ones((1, sample.rows)))[0])

    def weighted(self, sample: Sample, weights: Floats) -> Floats:
        """Return the metric under each row of *weights*, shape ``(draws,)``."""
        one = _weighted_auc if self.ranking == "roc_auc" else _weighted_average_precision
        return np.asarray(np.mean([one(truth, score, weights) for truth, score in _against_rest(sample)], axis=0))

    def influence(self, sample: Sample) -> Floats:
        """Return the derivative by each row's weight, shape ``(n,)``."""
        one = _auc_influence if self.ranking == "roc_auc" else _average_precision_influence
        return np.asarray(np.mean([one(truth, score) for truth, score in _against_rest(sample)], axis=0))


@dataclass(frozen=True, slots=True)
class UserMetric:
    """A metric of the user's own: ``function(label, prediction) -> float`` on plain arrays."""

    name: str
    higher_is_better: bool
    function: Callable[[Floats, Floats], float]
    needs: Needs = "value"
    low: float = -math.inf
    high: float = math.inf
    tasks: tuple[Task, ...] = _CLASSES + _VALUES

    def value(self, sample: Sample) -> float:
        """Return what the function says. :raises ConfigError: it fails, or says no number."""
        # Copies: a function that sorts what it is given would spoil the next model's comparison.
        return self._ask(sample.raw_truth.copy(), sample.raw.copy())

    def weighted(self, sample: Sample, weights: Floats) -> Floats:
        """Return the function on the resampled rows, one call per row of whole-numbered *weights*."""
        rows = np.arange(sample.rows)
        draws = (np.repeat(rows, weight.astype(np.int64)) for weight in weights)
        return np.array([self._ask(sample.raw_truth[rows], sample.raw[rows]) for rows in draws])

    def _ask(self, truth: Floats, predicted: Floats) -> float:
        try:
            return float(self.function(truth, predicted))
        except Exception as error:  # it is foreign code: it may raise anything
            raise ConfigError(
                f"evaluate: {self.name} must return one number for labels and predictions, and failed: "
                f"{type(error).__name__}: {error!s:.200}"
            ) from error

    def influence(self, sample: Sample) -> None:
        """Return ``None``: nothing is known about the function but its values."""


def find_metric(name: str, *, higher_is_better: bool | None = None) -> Metric:
    """
    Return the metric called *name*, or the user's own at ``package.module:function``.

    :raises ConfigError: an unknown name, a path that cannot be imported, or a direction that is missing or not needed.
    """
    if ":" not in name:
        if name not in METRICS:
            raise ConfigError(
                f"evaluate: {name!r} is no metric.{did_you_mean(name, METRICS)} "
                f"Known: {', '.join(sorted(METRICS))}; your own: package.module:function."
            )
        if higher_is_better is not None:
            raise ConfigError(f"evaluate: {name}: higher_is_better is known. Leave it out.")
        return METRICS[name]
    if higher_is_better is None:
        raise ConfigError(f"evaluate: {name}: say higher_is_better: true or false; a function does not tell.")
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"evaluate: {name}: cannot be imported ({error}). Write package.module:function.") from error
    if not callable(function):
        raise ConfigError(f"evaluate: {name}: is no function. Write package.module:function.")
    return UserMetric(name, higher_is_better, function)


def lacks(metric: Metric, sample: Sample) -> str:
    """Return why *metric* cannot be computed from what the model predicts, in words; empty when it can."""
    if metric.needs == "label" and sample.label is None:
        return "needs labels, and the scores are no probabilities that a threshold could cut"
    if metric.needs in ("score", "probabilities") and sample.score is None:
        return "needs scores, and the model predicts labels only; log it with pyfunc_predict_fn='predict_proba'"
    if metric.needs == "probabilities" and not sample.calibrated:
        return "needs probabilities, and the scores do not lie in 0..1"
    return ""


# -- columns and functions of sums ------------------------------------------------------------------------------------


def _ones(sample: Sample) -> Floats:
    return np.ones(sample.rows)


def _labels(sample: Sample) -> Floats:
    if sample.label is None:  # `lacks` is asked first
        raise TypeError("labels are needed")
    return sample.label


def _scores(sample: Sample) -> Floats:
    if sample.score is None:  # `lacks` is asked first
        raise TypeError("scores are needed")
    return sample.score


def _one_hot(codes: np.ndarray, classes: int) -> Floats:
    return np.asarray((codes[:, None] == np.arange(classes)).astype(float))


def _mean_of(columns: Callable[[Sample], Floats]) -> Callable[[Sample], Floats]:
    return lambda sample: np.column_stack([_ones(sample), columns(sample)])


def _ratio(sums: Floats) -> Floats:
    return sums[..., 1] / sums[..., 0]


def _root(sums: Floats) -> Floats:
    return np.sqrt(np.maximum(_ratio(sums), 0.0))


def _correct(sample: Sample) -> Floats:
    return np.asarray((_labels(sample) == sample.truth).astype(float))


def _confusion(sample: Sample) -> Floats:
    """Return per class: hits, predicted, true; the positive class alone when there are two."""
    return _confusion_of(sample, np.arange(1, 2) if sample.classes == 2 else np.arange(sample.classes))


def _confusion_of_all(sample: Sample) -> Floats:
    return _confusion_of(sample, np.arange(sample.classes))


def _confusion_of(sample: Sample, classes: np.ndarray) -> Floats:
    predicted = (_labels(sample)[:, None] == classes).astype(float)
    true = (sample.truth[:, None] == classes).astype(float)
    return np.concatenate([predicted * true, predicted, true], axis=1)


def _thirds(sums: Floats) -> tuple[Floats, Floats, Floats]:
    k = sums.shape[-1] // 3
    return sums[..., :k], sums[..., k : 2 * k], sums[..., 2 * k :]


def _macro(above: Floats, below: Floats, seen: np.ndarray) -> Floats:
    """Return the mean of ``above / below`` over the classes that occur; a class without a denominator counts 0."""
    each = np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)
    return np.asarray((each * seen).sum(axis=-1) / np.maximum(seen.sum(axis=-1), 1))


def _precision(sums: Floats) -> Floats:
    hits, predicted, true = _thirds(sums)
    return _macro(hits, predicted, predicted + true > 0)


def _recall(sums: Floats) -> Floats:
    hits, predicted, true = _thirds(sums)
    return _macro(hits, true, predicted + true > 0)


def _f1(sums: Floats) -> Floats:
    hits, predicted, true = _thirds(sums)
    return _macro(2 * hits, predicted + true, predicted + true > 0)


def _balanced(sums: Floats) -> Floats:
    hits, _, true = _thirds(sums)
    return _macro(hits, true, true > 0)


def _surprise(sample: Sample) -> Floats:
    score = _scores(sample)
    chance = (
        np.where(sample.truth == 1, score, 1 - score)
        if score.ndim == 1
        else score[np.arange(sample.rows), sample.truth]
    )
    return np.asarray(-np.log(np.clip(chance, np.finfo(float).eps, 1.0)))


def _squared_probability_error(sample: Sample) -> Floats:
    score = _scores(sample)
    if score.ndim == 1:
        return np.asarray((score - sample.truth) ** 2)
    return np.asarray(((score - _one_hot(sample.truth, sample.classes)) ** 2).sum(axis=1))


def _calibration(sample: Sample) -> Floats:
    score = _scores(sample)
    confidence, hit = (score, sample.truth) if score.ndim == 1 else (score.max(axis=1), _correct(sample))
    bins = np.clip((confidence * _ECE_BINS).astype(np.int64), 0, _ECE_BINS - 1)
    return np.column_stack([_ones(sample), _one_hot(bins, _ECE_BINS) * (hit - confidence)[:, None]])


def _calibration_error(sums: Floats) -> Floats:
    return np.asarray(np.abs(sums[..., 1:]).sum(axis=-1) / sums[..., 0])


def _absolute_error(sample: Sample) -> Floats:
    return np.abs(sample.truth - _labels(sample))


def _squared_error(sample: Sample) -> Floats:
    return (sample.truth - _labels(sample)) ** 2


def _relative_error(sample: Sample) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.abs((sample.truth - _labels(sample)) / sample.truth))


def _pinball(percent: int) -> Callable[[Sample], Floats]:
    def loss(sample: Sample) -> Floats:
        error = sample.truth - _labels(sample)
        return np.maximum(percent / 100 * error, (percent / 100 - 1) * error)

    return loss


def _explained(sample: Sample) -> Floats:
    centered = sample.truth - sample.truth.mean()
    return np.column_stack([_ones(sample), centered, centered**2, _squared_error(sample)])


def _r2(sums: Floats) -> Floats:
    spread = sums[..., 2] - sums[..., 1] ** 2 / sums[..., 0]
    return np.where(spread > 0, 1 - sums[..., 3] / np.where(spread > 0, spread, 1.0), np.nan)


# -- rankings of queries ----------------------------------------------------------------------------------------------


def _mean_of_queries(per_query: Callable[[_Ranked], Floats]) -> Callable[[Sample], Floats]:
    """
    Return columns whose ratio of sums is the mean over queries: each query has weight 1, spread over its rows.

    A query without a relevant row has no best order, so it does not count.
    """

    def columns(sample: Sample) -> Floats:
        ranked = _ranked(sample)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = per_query(ranked)
        share = ranked.judged / ranked.sizes
        return np.column_stack([share, share * np.nan_to_num(values)])[ranked.group]

    return columns


@dataclass(frozen=True, slots=True, eq=False)
class _Ranked:
    """The rows by query, and within each in the order of their scores."""

    group: npt.NDArray[np.int64]  # (rows,) code of the query, 0..queries-1, of the rows as they came
    sizes: Floats  # (queries,) rows per query
    judged: npt.NDArray[np.bool_]  # (queries,) whether any row is relevant
    query: npt.NDArray[np.int64]  # (rows,) code of the query, of the ranked rows
    place: npt.NDArray[np.int64]  # (rows,) place within the query, 0 first
    relevance: Floats  # (rows,) of the ranked rows


def _ranked(sample: Sample) -> _Ranked:
    """
    Return the ranking that the scores give. Of equal scores the less relevant row comes first: ties never help.

    So a model that says the same of every row ranks as badly as can be, and not as well as the rows happen to lie.
    """
    if sample.group is None:  # the gate refuses a ranking without queries first
        raise TypeError("queries are needed")
    _, group = np.unique(sample.group, return_inverse=True)
    sizes = np.bincount(group)
    order = np.lexsort((sample.truth, -_labels(sample), group))
    place = np.arange(sample.rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    judged = np.bincount(group, sample.truth > 0) > 0
    return _Ranked(group, sizes.astype(float), judged, group[order], place, sample.truth[order])


def _ndcg(cut: int | None) -> Callable[[_Ranked], Floats]:
    """Return the discounted sum of the labels of the first *cut* rows, as a share of the largest possible one."""

    def per_query(ranked: _Ranked) -> Floats:
        weight = 1 / np.log2(ranked.place + 2.0) * (ranked.place < (math.inf if cut is None else cut))
        best = ranked.relevance[np.lexsort((-ranked.relevance, ranked.query))]
        return np.asarray(
            np.bincount(ranked.query, ranked.relevance * weight) / np.bincount(ranked.query, best * weight)
        )

    return per_query


def _first_hit(ranked: _Ranked) -> Floats:
    """Return the place of the first relevant row per query, 0 first; infinity when there is none."""
    first = np.full(len(ranked.sizes), np.inf)
    np.minimum.at(first, ranked.query, np.where(ranked.relevance > 0, ranked.place, np.inf))
    return first


def _reciprocal_rank(ranked: _Ranked) -> Floats:
    return 1.0 / (1.0 + _first_hit(ranked))


def _hit_in_ten(ranked: _Ranked) -> Floats:
    return (_first_hit(ranked) < 10).astype(float)


# -- ranking of all rows ----------------------------------------------------------------------------------------------


def _against_rest(sample: Sample) -> Iterable[tuple[Floats, Floats]]:
    score = _scores(sample)
    if score.ndim == 1:
        return [((sample.truth == 1).astype(float), score)]
    return [((sample.truth == k).astype(float), score[:, k]) for k in range(sample.classes)]


def _tie_starts(ordered: Floats) -> npt.NDArray[np.intp]:
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))


def _grouped(truth: Floats, score: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Return the weight of positives and of negatives per distinct score, ascending; shapes ``(draws, scores)``."""
    order = np.argsort(score, kind="stable")
    starts = _tie_starts(score[order])
    weights = weights[:, order]
    positive = weights * truth[order]
    if len(starts) == len(order):
        return positive, weights - positive
    positive = np.add.reduceat(positive, starts, axis=1)
    return positive, np.add.reduceat(weights, starts, axis=1) - positive


def _weighted_auc(truth: Floats, score: Floats, weights: Floats) -> Floats:
    positive, negative = _grouped(truth, score, weights)
    below = np.cumsum(negative, axis=1) - negative / 2
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    wins = np.einsum("ij,ij->i", positive, below)
    return np.where(pairs > 0, wins / np.where(pairs > 0, pairs, 1.0), np.nan)


def _auc_influence(truth: Floats, score: Floats) -> Floats:
    """Return DeLong's placements as influences. Source: DeLong et al. (1988), Biometrics 44(3)."""
    order = np.argsort(score, kind="stable")
    starts = _tie_starts(score[order])
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(order))))
    positive = np.add.reduceat(truth[order], starts)
    negative = np.add.reduceat(1 - truth[order], starts)
    m, n = positive.sum(), negative.sum()
    if m == 0 or n == 0:
        return np.full(len(truth), np.nan)
    below = (np.cumsum(negative) - negative / 2) / n  # per score: share of negatives under it
    above = 1 - (np.cumsum(positive) - positive / 2) / m  # per score: share of positives over it
    auc = float(positive @ below) / m
    small_m, small_n = math.sqrt(m / max(m - 1, 1)), math.sqrt(n / max(n - 1, 1))  # variances with ddof 1
    result = np.empty(len(truth))
    result[order] = np.where(truth[order] == 1, (below[group] - auc) / m * small_m, (above[group] - auc) / n * small_n)
    return result


def _weighted_average_precision(truth: Floats, score: Floats, weights: Floats) -> Floats:
    positive, negative = _grouped(truth, -score, weights)
    hits = np.cumsum(positive, axis=1)
    flagged = hits + np.cumsum(negative, axis=1)
    precision = hits / np.where(flagged > 0, flagged, 1.0)
    total = hits[:, -1]
    return np.where(total > 0, (positive * precision).sum(axis=1) / np.where(total > 0, total, 1.0), np.nan)


def _average_precision_influence(truth: Floats, score: Floats) -> Floats:
    order = np.argsort(-score, kind="stable")
    starts = _tie_starts(score[order])
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(order))))
    positive = np.add.reduceat(truth[order], starts)
    hits = np.cumsum(positive)
    flagged = np.append(starts[1:], len(order)).astype(float)
    total = hits[-1]
    if total == 0:
        return np.full(len(truth), np.nan)
    precision = hits / flagged
    value = float(positive @ precision) / total
    # A row at score g enters the precision at g and at every lower score.
    as_hit = np.cumsum((positive / flagged)[::-1])[::-1]
    as_flag = np.cumsum((positive * hits / flagged**2)[::-1])[::-1]
    y = truth[order]
    result = np.empty(len(truth))
    result[order] = (y * (precision[group] - value + as_hit[group]) - as_flag[group]) / total
    return result


def _pinball_metric(percent: int) -> MomentMetric:
    columns = _mean_of(_pinball(percent))
    return MomentMetric(f"pinball_p{percent:02}", False, "value", 0, math.inf, _VALUES, columns, _ratio)


_ALL: tuple[Metric, ...] = (
    MomentMetric("accuracy", True, "label", 0, 1, _CLASSES, _mean_of(_correct), _ratio),
    MomentMetric("balanced_accuracy", True, "label", 0, 1, _CLASSES, _confusion_of_all, _balanced),
    MomentMetric("precision", True, "label", 0, 1, _CLASSES, _confusion, _precision),
    MomentMetric("recall", True, "label", 0, 1, _CLASSES, _confusion, _recall),
    MomentMetric("f1", True, "label", 0, 1, _CLASSES, _confusion, _f1),
    MomentMetric("precision_macro", True, "label", 0, 1, _CLASSES, _confusion_of_all, _precision),
    MomentMetric("recall_macro", True, "label", 0, 1, _CLASSES, _confusion_of_all, _recall),
    MomentMetric("f1_macro", True, "label", 0, 1, _CLASSES, _confusion_of_all, _f1),
    RankMetric("roc_auc", "roc_auc"),
    RankMetric("average_precision", "average_precision"),
    MomentMetric("log_loss", False, "probabilities", 0, math.inf, _CLASSES, _mean_of(_surprise), _ratio),
    MomentMetric("brier", False, "probabilities", 0, 2, _CLASSES, _mean_of(_squared_probability_error), _ratio),
    MomentMetric("ece", False, "probabilities", 0, 1, _CLASSES, _calibration, _calibration_error),
    MomentMetric("mae", False, "value", 0, math.inf, _VALUES, _mean_of(_absolute_error), _ratio),
    MomentMetric("rmse", False, "value", 0, math.inf, _VALUES, _mean_of(_squared_error), _root),
    MomentMetric("mape", False, "value", 0, math.inf, _VALUES, _mean_of(_relative_error), _ratio),
    MomentMetric("r2", True, "value", -math.inf, 1, _VALUES, _explained, _r2),
    *map(_pinball_metric, (1, 5, 10, 25, 50, 75, 90, 95, 99)),
    MomentMetric("ndcg", True, "value", 0, 1, _RANKING, _mean_of_queries(_ndcg(None)), _ratio),
    MomentMetric("ndcg_at_10", True, "value", 0, 1, _RANKING, _mean_of_queries(_ndcg(10)), _ratio),
    MomentMetric("mrr", True, "value", 0, 1, _RANKING, _mean_of_queries(_reciprocal_rank), _ratio),
    MomentMetric("hit_rate_at_10", True, "value", 0, 1, _RANKING, _mean_of_queries(_hit_in_ten), _ratio),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name: direction, what must be predicted, admissible range, tasks."""
