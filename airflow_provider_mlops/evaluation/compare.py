"""
How sure is a metric, and how sure is the gain of one model over another on the same rows? Pure; seeded.

Up to ``policy.bootstrap_rows`` rows: paired bootstrap. Above: influence functions and the normal law, which for ROC AUC
is DeLong's test. What is resampled is a *unit*: a row, all rows of an entity, or a block of rows that follow each other
in time (overlapping blocks).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from airflow_provider_mlops.evaluation.samples import missing, settled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_mlops.evaluation.metrics import Metric
    from airflow_provider_mlops.evaluation.samples import Sample
    from airflow_provider_mlops.evaluation.values import GatePolicy

__all__ = ["MIN_UNITS", "Estimate", "Units", "compare", "estimate", "rows_for"]

MIN_UNITS = 10
"""Independent units below which no bound is believed: the lower bound is minus infinity, the upper infinity."""

_CHUNK = 4_000_000  # weights held at once: 32 MiB
_GROUPS = 100  # groups of the jackknife, for metrics whose influence is not known


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """
    What is independent of what.

    :param rows: number of rows.
    :param entity: ``(rows,)`` code of the entity of each row, or ``None``.
    :param order: ``(rows,)`` positions of the rows in the order of time, or ``None``.
    :param block: rows per block of time; ``None``: chosen from the data (`_block_length`).
    """

    rows: int
    entity: np.ndarray | None = None
    order: np.ndarray | None = None
    block: int | None = None

    @classmethod
    def of(cls, rows: int, *, time: np.ndarray | None, entity: np.ndarray | None, block: int | None) -> Units:
        """Return the units: entities when given and repeated, else blocks of time when given, else rows."""
        if entity is not None:
            codes = np.unique(entity.astype(str) if entity.dtype.kind == "O" else entity, return_inverse=True)[1]
            if codes.max(initial=-1) + 1 < rows:
                return cls(rows, entity=codes)
        if time is not None:
            # Rows without a time come last, whatever type the others have.
            gone = missing(time)
            known = np.flatnonzero(~gone)
            order = known[np.argsort(settled(time[known]), kind="stable")]
            return cls(rows, order=np.concatenate([order, np.flatnonzero(gone)]), block=block)
        return cls(rows)

    @property
    def kind(self) -> str:
        """What a unit is: ``rows``, ``entities`` or ``blocks``."""
        return "entities" if self.entity is not None else "blocks" if self.order is not None else "rows"

    def take(self, rows: np.ndarray) -> Units:
        """Return the units of *rows*: a mask, or positions in ascending order."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        entity = None if self.entity is None else np.unique(self.entity[rows], return_inverse=True)[1]
        order = None
        if self.order is not None:
            place = np.full(self.rows, -1)
            place[rows] = np.arange(len(rows))
            order = place[self.order]
            order = order[order >= 0]
        return replace(self, rows=len(rows), entity=entity, order=order)


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    A value and its uncertainty.

    :param value: the point estimate.
    :param low: one-sided lower bound at confidence ``1 - alpha``.
    :param high: one-sided upper bound at confidence ``1 - alpha``.
    :param standard_error: from influence functions; NaN where it is not defined.
    :param method: how the bounds were found, for the report.
    :param units: independent units behind it.
    :param disagreement: share of rows on which the two models' predicted labels differ; ``None`` where it says nothing.
    """

    value: float
    low: float
    high: float
    standard_error: float
    method: str
    units: int
    disagreement: float | None = None


def estimate(metric: Metric, sample: Sample, units: Units, policy: GatePolicy, *, quick: bool = False) -> Estimate:
    """Return *metric* of one model with its bounds; *quick*: never by bootstrap where influences are known."""
    return _bounds(metric, sample, None, units, policy, quick=quick)


def compare(
    metric: Metric, candidate: Sample, champion: Sample, units: Units, policy: GatePolicy, *, quick: bool = False
) -> Estimate:
    """
    Return the gain of *candidate* over *champion* on the same rows: positive when the candidate is better.

    :param quick: never by bootstrap where influences are known (for many slices).
    """
    return _bounds(metric, candidate, champion, units, policy, quick=quick)


def rows_for(rows: int, standard_error: float, gain: float, policy: GatePolicy) -> int:
    """
    Return the rows that show a true *gain* with chance ``policy.power``, when *rows* rows give *standard_error*.

    ``n (z SE / gain)^2`` with ``z = z_alpha + z_power``, 2.49 for the defaults. For accuracy on independent rows
    ``n SE^2`` is the disagreement ``d``, and this is ``z^2 d / gain^2``.
    """
    return math.ceil(rows * (power_factor(policy) * standard_error / gain) ** 2)


def power_factor(policy: GatePolicy) -> float:
    """Return how many standard errors a gain must measure to be shown with chance ``policy.power``."""
    normal = NormalDist()
    return normal.inv_cdf(1 - policy.alpha) + normal.inv_cdf(policy.power)


def _bounds(
    metric: Metric, candidate: Sample, champion: Sample | None, units: Units, policy: GatePolicy, *, quick: bool
) -> Estimate:
    sign = 1.0 if champion is None or metric.higher_is_better else -1.0
    value = metric.value(candidate)
    influence = metric.influence(candidate)
    disagreement = None
    if champion is not None:
        value = sign * (value - metric.value(champion))
        other = metric.influence(champion)
        influence = None if influence is None or other is None else sign * (influence - other)
        if candidate.classes and candidate.label is not None and champion.label is not None:
            disagreement = float(np.mean(candidate.label != champion.label))
    bootstrap = candidate.rows <= policy.bootstrap_rows and not (quick and influence is not None)
    block = _block_length(units, influence) if units.order is not None else 1
    count = _unit_count(units, block)
    error = math.nan
    if influence is not None:
        error = _standard_error(units, influence, block)
    elif not bootstrap:
        error = _jackknife_error(metric, candidate, champion, units)
    if metric.name == "accuracy" and units.kind == "rows" and disagreement is not None:
        # Rows on which both are wrong in different ways do not count: they move neither accuracy.
        changed = float(np.mean(_hits(candidate) != _hits(champion))) if champion is not None else 0.0
        disagreement, error = changed, math.sqrt(changed / candidate.rows)
    if not math.isfinite(value):
        return Estimate(value, math.nan, math.nan, error, "undefined", count, disagreement)
    if bootstrap:
        pair = [candidate] if champion is None else [candidate, champion]
        draws = sign * _draws(metric, pair, units, block, policy)
        draws = draws[np.isfinite(draws)]
        method = f"paired bootstrap of {units.kind}" if champion is not None else f"bootstrap of {units.kind}"
        if influence is None:
            error = float(np.std(draws)) if len(draws) else math.nan
        low, high = np.quantile(draws, [policy.alpha, 1 - policy.alpha]) if len(draws) else (-math.inf, math.inf)
    else:
        method = "DeLong" if metric.name == "roc_auc" and units.kind == "rows" else f"influence of {units.kind}"
        z = NormalDist().inv_cdf(1 - policy.alpha)
        low, high = value - z * error, value + z * error
    if champion is not None and metric.needs == "label" and candidate.classes:
        worse, better = _sides(metric, candidate, champion, policy)
        low, high = (low if better else min(low, 0.0)), (high if worse else max(high, 0.0))
    if count < MIN_UNITS:
        low, high = -math.inf, math.inf
    return Estimate(value, float(low), float(high), error, method, count, disagreement)


def _sides(metric: Metric, candidate: Sample, champion: Sample, policy: GatePolicy) -> tuple[bool, bool]:
    """
    Return whether so few changed labels can show a loss, and a gain, at all: resampling three rows shows nothing.

    Accuracy: McNemar's exact test on the rows that one model has right and the other wrong. Other metrics of labels:
    at least `MIN_UNITS` rows whose label changed.
    """
    if metric.name != "accuracy":
        enough = int(np.sum(candidate.label != champion.label)) >= MIN_UNITS
        return enough, enough
    from scipy.special import bdtr  # noqa: PLC0415 - loads at use

    won = int(np.sum(_hits(candidate) & ~_hits(champion)))
    lost = int(np.sum(_hits(champion) & ~_hits(candidate)))
    if won + lost == 0:
        return False, False
    return bool(bdtr(won, won + lost, 0.5) <= policy.alpha), bool(bdtr(lost, won + lost, 0.5) <= policy.alpha)


def _hits(sample: Sample | None) -> np.ndarray:
    if sample is None or sample.label is None:
        return np.zeros(0, dtype=bool)
    return np.asarray(sample.label == sample.truth)


# -- influence --------------------------------------------------------------------------------------------------------


def _unit_count(units: Units, block: int) -> int:
    if units.entity is not None:
        return int(units.entity.max(initial=-1)) + 1
    return units.rows // block


def _standard_error(units: Units, influence: np.ndarray, block: int) -> float:
    if units.entity is not None:
        sums = np.bincount(units.entity, weights=influence)
        correction = len(sums) / max(len(sums) - 1, 1)
        return math.sqrt(float(sums @ sums) * correction)
    if units.order is not None and block > 1:
        sums = _block_sums(influence[units.order], block)
        return math.sqrt(float(np.var(sums)) * units.rows / block)
    correction = units.rows / max(units.rows - 1, 1)
    return math.sqrt(float(influence @ influence) * correction)


def _block_sums(values: np.ndarray, block: int) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray(total[block:] - total[:-block])


def _block_length(units: Units, influence: np.ndarray | None) -> int:
    """
    Return the rows per block: as asked, else for an AR(1) with the influences' own first autocorrelation.

    Source: Carlstein (1986), Annals of Statistics 14(3): ``(sqrt(6) r / (1 - r^2))^(2/3) n^(1/3)``, here never under
    the cube root of n nor over a twentieth of n.
    """
    n = units.rows
    if units.block is not None:
        return max(1, min(units.block, n))
    length = n ** (1 / 3)
    if influence is not None and units.order is not None and n > 2:
        x = influence[units.order] - influence.mean()
        spread = float(x @ x)
        r = min(max(float(x[1:] @ x[:-1]) / spread, 0.0), 0.97) if spread > 0 else 0.0
        length *= max((math.sqrt(6) * r / (1 - r * r)) ** (2 / 3), 1.0)
    return int(max(1, min(math.ceil(length), n // 20)))


def _jackknife_error(metric: Metric, candidate: Sample, champion: Sample | None, units: Units) -> float:
    """Return the standard error from leaving out each of 100 groups of neighboring units."""
    if units.entity is not None:
        group = units.entity * _GROUPS // (int(units.entity.max()) + 1)
    else:
        group = np.arange(units.rows) * _GROUPS // units.rows
        if units.order is not None:
            group[units.order] = group.copy()
    without = np.empty(_GROUPS)
    for g in range(_GROUPS):
        keep = group != g
        without[g] = metric.value(candidate.take(keep))
        if champion is not None:
            without[g] -= metric.value(champion.take(keep))
    return float(np.std(without)) * math.sqrt(_GROUPS - 1)


# -- bootstrap --------------------------------------------------------------------------------------------------------


def _draws(metric: Metric, pair: list[Sample], units: Units, block: int, policy: GatePolicy) -> np.ndarray:
    """Return *metric* (or its paired difference) on ``policy.bootstrap_draws`` resamples, not yet signed."""
    rng = np.random.default_rng(policy.seed)
    if units.kind == "rows":
        cells = _cells(metric, pair)
        if cells is not None:
            first, counts = cells
            weights = rng.multinomial(units.rows, counts / units.rows, size=policy.bootstrap_draws)
            return _difference(metric, [sample.take(first) for sample in pair], weights.astype(float))
        # In an order of their own, so that the order of the rows says nothing.
        order = np.lexsort([key for sample in reversed(pair) for key in reversed(sample.keys())])
        pair = [sample.take(order) for sample in pair]
    parts = [_difference(metric, pair, weights) for weights in _weights(units, block, policy.bootstrap_draws, rng)]
    return np.concatenate(parts)


def _difference(metric: Metric, pair: list[Sample], weights: np.ndarray) -> np.ndarray:
    values = metric.weighted(pair[0], weights)
    return values if len(pair) == 1 else values - metric.weighted(pair[1], weights)


def _cells(metric: Metric, pair: list[Sample]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the first row and the count of each combination of truth and labels, when nothing else matters."""
    if metric.needs != "label" or not pair[0].classes:
        return None
    code = pair[0].truth.copy()
    for sample in pair:
        code = code * (sample.classes + 1) + sample.label
    _, first, counts = np.unique(code, return_index=True, return_counts=True)
    return first, counts


def _weights(units: Units, block: int, draws: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield row weights, shape ``(some draws, rows)``, until there are *draws*."""
    n = units.rows
    for start in range(0, draws, step := max(1, _CHUNK // max(n, 1))):
        size = min(step, draws - start)
        if units.entity is not None:
            count = int(units.entity.max()) + 1
            yield _counts(rng.integers(0, count, (size, count)), count)[:, units.entity]
        elif units.order is not None:
            yield _block_weights(units.order, block, size, rng)
        else:
            yield _counts(rng.integers(0, n, (size, n)), n)


def _counts(drawn: np.ndarray, count: int) -> np.ndarray:
    size = len(drawn)
    flat = (drawn + np.arange(size)[:, None] * count).ravel()
    return np.bincount(flat, minlength=size * count).reshape(size, count).astype(float)


def _block_weights(order: np.ndarray, block: int, size: int, rng: np.random.Generator) -> np.ndarray:
    n = len(order)
    starts = rng.integers(0, n - block + 1, (size, math.ceil(n / block)))
    edges = _counts(starts, n + 1)
    edges[:, block:] -= edges[:, : n + 1 - block].copy()
    weights = np.empty((size, n))
    weights[:, order] = np.cumsum(edges, axis=1)[:, :n]
    return weights
