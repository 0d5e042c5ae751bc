"""Gaps between groups in how often a binary model says yes. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from airflow_provider_mlops.evaluation.compare import estimate
from airflow_provider_mlops.evaluation.metrics import MomentMetric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_mlops.evaluation.compare import Units
    from airflow_provider_mlops.evaluation.samples import Sample
    from airflow_provider_mlops.evaluation.values import GatePolicy

__all__ = ["GAPS", "Gap", "largest_gap"]


def _yes_rate(among: Callable[[Sample], np.ndarray]) -> MomentMetric:
    """Return the share of predicted positives among the rows where *among* is 1."""

    def columns(sample: Sample) -> np.ndarray:
        chosen = among(sample).astype(float)
        return np.column_stack([chosen, chosen * (sample.label == 1)])

    return MomentMetric("rate", True, "label", 0, 1, ("binary",), columns, lambda sums: sums[..., 1] / sums[..., 0])


_SELECTED = _yes_rate(lambda sample: np.ones(sample.rows))
_TRUE_POSITIVE = _yes_rate(lambda sample: sample.truth == 1)
_FALSE_POSITIVE = _yes_rate(lambda sample: sample.truth == 0)

GAPS: Mapping[str, tuple[MomentMetric, ...]] = {
    "demographic_parity_difference": (_SELECTED,),
    "equal_opportunity_difference": (_TRUE_POSITIVE,),
    "equalized_odds_difference": (_TRUE_POSITIVE, _FALSE_POSITIVE),
}
"""The rates whose largest difference between two groups is the gap."""


@dataclass(frozen=True, slots=True)
class Gap:
    """
    The largest gap of a rate between two groups.

    :param value: difference of the two rates, 0..1.
    :param low: lower bound, one-sided at ``1 - alpha``, of the difference of these two groups.
    :param high: upper bound.
    :param between: the group with the largest rate and the one with the smallest.
    :param rates: rate per group.
    """

    value: float
    low: float
    high: float
    between: tuple[str, str]
    rates: Mapping[str, float]


def largest_gap(
    name: str, sample: Sample, units: Units, groups: Mapping[str, np.ndarray], policy: GatePolicy
) -> Gap | None:
    """
    Return the largest gap called *name* between *groups* (name -> rows), or ``None`` when it is not defined.

    Not defined: fewer than two groups with the rows that the rate is about (positives, for equal opportunity).
    The bounds take the two groups as independent of each other.
    """
    z = NormalDist().inv_cdf(1 - policy.alpha)
    worst = None
    for rate in GAPS[name]:
        found = {}
        for group, rows in groups.items():
            one = estimate(rate, sample.take(rows), units.take(rows), policy, quick=True)
            if math.isfinite(one.value):
                found[group] = one
        if len(found) < 2:
            return None
        top = max(found, key=lambda group: found[group].value)
        bottom = min(found, key=lambda group: found[group].value)
        value = found[top].value - found[bottom].value
        spread = z * math.hypot(found[top].standard_error, found[bottom].standard_error)
        if worst is None or value > worst.value:
            rates = {group: one.value for group, one in found.items()}
            worst = Gap(value, max(value - spread, 0.0), min(value + spread, 1.0), (top, bottom), rates)
    return worst
