"""
Do two versions predict alike? Pure: how often which prediction was given, and how far two such spreads are apart.

Predictions are counted in bins that need no knowledge of the model. Numbers: a bin is 10 % of the value from 1 on, and
0.4 of the log-odds below, which is fine where probabilities are near 0 or 1; below zero the same mirrored. Anything
else is a class; its name is hashed into one of 50. An answer has the weight 1 however many rows it holds, since the
rows of one request belong together.

The distance is 0..1. Numbers: the largest gap between the two distributions, where a prediction that moved by less than
a bin has not moved; otherwise a model that repeats few values, each a little other than before, would seem another
one. Classes: the share of answers that would have to change class.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["distance", "margin", "spread"]

_CLASSES = 50
_ODDS = 0.4  # width of a bin below 1, in log-odds; they end at +-7, so there are 35 on each side of zero
_ODDS_END = 7.0
_FROM_ONE = 36  # bin that begins at 1
_LAST = 636  # bin of 1e26 and beyond
_NO_NUMBER = 1000  # bin of NaN and the infinities: beside no other


def spread(predictions: Any) -> dict[str, float]:
    """
    Return the share of *predictions* in each bin; the shares add up to 1, and there are none without predictions.

    :param predictions: shape ``(n,)``, or ``(n, k)``, of which the last column counts.

    >>> spread([0.0, 2.0, 2.0, 3.0])
    {'0': 0.25, '42': 0.5, '46': 0.25}
    """
    values = np.atleast_1d(np.asarray(predictions))
    if values.ndim > 1:
        values = values[:, -1]
    if values.dtype.kind in "iuf":
        names = [str(number) for number in _bins(values.astype(float)).tolist()]
    else:
        names = [f"={zlib.crc32(str(value).encode()) % _CLASSES}" for value in values.tolist()]
    return {name: count / len(names) for name, count in Counter(names).items()}


def _bins(values: np.ndarray) -> np.ndarray:
    size = np.abs(np.where(np.isfinite(values), values, 0.0))
    inner = np.clip(size, 1e-9, 1 - 1e-9)
    odds = np.clip(np.log(inner / (1 - inner)), -_ODDS_END, _ODDS_END - _ODDS / 2)
    small = 1 + np.floor((odds + _ODDS_END) / _ODDS)
    large = np.minimum(_FROM_ONE + np.floor(np.log(np.maximum(size, 1.0)) * 10), _LAST)
    bins = np.where(size == 0, 0, np.where(size < 1, small, large)) * np.where(values < 0, -1, 1)
    return np.where(np.isfinite(values), bins, _NO_NUMBER).astype(int)


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """
    Return how far two spreads are apart, 0..1; weights of any sum. 0 when either is empty.

    >>> distance({"40": 9, "80": 1}, {"41": 5, "80": 5})
    0.4
    >>> distance({"=1": 9, "=2": 1}, {"=1": 5, "=2": 5})
    0.4
    """
    first, second = _shares(one), _shares(other)
    if not first or not second:
        return 0.0
    names = first.keys() | second.keys()
    if _has_classes(names):
        return round(sum(abs(first.get(name, 0.0) - second.get(name, 0.0)) for name in names) / 2, 9)
    a = {int(name): share for name, share in first.items()}
    b = {int(name): share for name, share in second.items()}
    ends = np.array(sorted(a.keys() | b.keys()))
    gaps = (_below(a, ends) - _below(b, ends + 1), _below(b, ends) - _below(a, ends + 1))
    return round(max(0.0, *(float(gap.max()) for gap in gaps)), 9)


def margin(one: Mapping[str, float], other: Mapping[str, float], alpha: float) -> float:
    """
    Return by how much their distance may exceed the true one, but for the probability *alpha*.

    The weights are the numbers of answers, taken as independent. Numbers: Dvoretzky, Kiefer and Wolfowitz with
    Massart's constant. Classes: Bretagnolle, Huber and Carol. An answer of several rows is a mean of one-row answers,
    which varies less. ``inf`` when either is empty.
    """
    answers = [sum(spread.values()) for spread in (one, other)]
    if not all(answers):
        return math.inf
    names = one.keys() | other.keys()
    kinds = len(names) * math.log(2) if _has_classes(names) else math.log(2)
    return sum(math.sqrt((kinds + math.log(2 / alpha)) / (2 * count)) for count in answers)


def _has_classes(names: Any) -> bool:
    return any(name.startswith("=") for name in names)


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()} if total else {}


def _below(shares: Mapping[int, float], ends: np.ndarray) -> np.ndarray:
    """Return the share at or below each of *ends*."""
    bins = np.array(sorted(shares))
    sums = np.concatenate([[0.0], np.cumsum([shares[bin_] for bin_ in bins.tolist()])])
    return sums[np.searchsorted(bins, ends, side="right")]
