"""
Tests and effects on counts. Pure functions; each returns a number, never a verdict.

Notation: the reference has ``n`` rows, the window ``m``; ``n_eff = n m / (n + m)``. A *variance factor* ``v`` is the
variance of the difference of two shares divided by ``p (1 - p)``: ``1/n + 1/m`` for independent rows, more where
blocks of time differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Array = npt.NDArray[np.float64]
    Counts = npt.NDArray[np.int64]

__all__ = [
    "BlockVariance",
    "adjust",
    "block_distances",
    "block_variance",
    "cells_p",
    "chi_square_p",
    "fisher_p",
    "frequent_cells",
    "kolmogorov_exact_p",
    "kolmogorov_p",
    "ks_distance",
    "moderate",
    "new_values_p",
    "others",
    "rank_p",
    "share_t_p",
    "shares_distance",
    "shares_f_p",
    "stability_index",
    "t_kolmogorov_limit",
    "t_kolmogorov_p",
    "tail_degrees",
    "tenths",
    "total_variation",
    "wasserstein",
]


# Numbers


def ks_distance(reference: Counts, current: Counts) -> float:
    """
    Return the largest gap between two distributions on the same bins, 0..1.

    :param reference: counts per bin, shape ``(bins,)``, sum > 0. *current* alike.

    >>> import numpy as np
    >>> ks_distance(np.array([50, 50, 0]), np.array([25, 50, 25]))
    0.25
    """
    return float(np.abs(reference.cumsum() / reference.sum() - current.cumsum() / current.sum()).max())


def kolmogorov_p(distance: float, n: int, m: int) -> float:
    """Return an upper bound of the p of a KS *distance* between binned samples: the asymptotic law of unbinned ones."""
    from scipy.special import kolmogorov  # noqa: PLC0415 - loads at use, never at parse time

    return float(kolmogorov(distance * math.sqrt(n * m / (n + m))))


def kolmogorov_exact_p(reference: Counts, current: Counts) -> float:
    """
    Return the exact p of the KS distance of two binned samples, given the pooled counts.

    Given the pooled count ``t_j`` of each bin, the window's counts are independent ``Binomial(t_j, m/N)`` conditioned
    on their sum ``m``. The law of the running sum is carried bin by bin; mass that reaches a gap as large as the one
    seen is cut off there, and counts with its chance of still ending at ``m``. Ties and unequal sizes are exact.

    :param reference: counts per bin, shape ``(bins,)``. *current* alike.
    """
    pooled = reference + current
    kept = pooled > 0
    pooled, window = pooled[kept].astype(np.int64), current[kept].astype(np.int64)
    m, total = int(window.sum()), int(pooled.sum())
    share, reached = m / total, pooled.cumsum()
    gap = int(np.abs(reached * m - window.cumsum() * total).max())
    if gap == 0:
        return 1.0
    at_end = _log_binomial(total, share, m)
    mass, low, p = np.ones(1), 0, 0.0
    for count, so_far in zip(pooled.tolist(), reached.tolist(), strict=True):
        reach = 9 * math.sqrt(count * share * (1 - share)) + 3  # beyond 9 standard deviations nothing is left
        first, last = max(0, int(count * share - reach)), min(count, int(count * share + reach) + 1)
        mass = np.convolve(mass, np.exp(_log_binomial(count, share, np.arange(first, last + 1))))
        low += first
        sums = np.arange(low, low + mass.size)
        possible = (m - sums >= 0) & (m - sums <= total - so_far)
        beyond = np.abs(sums * total - so_far * m) >= gap
        cut = beyond & possible & (mass > 0)
        if cut.any():
            rest = _log_binomial(total - so_far, share, m - sums[cut])
            p += float(np.exp(np.log(mass[cut]) + rest - at_end).sum())
        mass = np.where(beyond | ~possible, 0.0, mass)
        alive = np.flatnonzero(mass)
        if alive.size == 0:
            break
        mass = mass[alive[0] : alive[-1] + 1]
        low += int(alive[0])
    return min(1.0, p)


def _log_binomial(trials: Any, share: float, hits: Any) -> Any:
    from scipy.special import gammaln  # noqa: PLC0415 - loads at use, never at parse time

    ways = gammaln(trials + 1) - gammaln(hits + 1) - gammaln(trials - hits + 1)
    return ways + hits * math.log(share) + (trials - hits) * math.log1p(-share)


def t_kolmogorov_p(x: float, degrees: float) -> float:
    """
    Return the p of a KS distance that was divided by an *estimated* standard deviation.

    Kolmogorov's series with each normal tail replaced by its t-like counterpart:
    ``sum over j of 2 (-1)^(j-1) (1 + 4 j^2 x^2 / degrees)^(-degrees / 2)``; infinite degrees give Kolmogorov's law.

    :param x: ``D / sqrt(v)``. Under .4 the answer is 1.
    """
    if x < 0.4:
        return 1.0
    j = np.arange(1, 101, dtype=np.float64)
    squares = (j * x) ** 2
    terms = np.exp(-2 * squares) if math.isinf(degrees) else (1 + 4 * squares / degrees) ** (-degrees / 2)
    return float(np.clip((2 * np.where(j % 2 == 1, 1.0, -1.0) * terms).sum(), 0.0, 1.0))


def t_kolmogorov_limit(p: float, degrees: float) -> float:
    """Return the ``x`` at which `t_kolmogorov_p` falls to *p*, to 1e-9 of itself."""
    low, high = 0.4, 1.0
    while t_kolmogorov_p(high, degrees) > p:
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_kolmogorov_p(middle, degrees) > p else (low, middle)
    return high


# Natural variation


@dataclass(frozen=True, slots=True)
class BlockVariance:
    """
    How much the blocks of a reference differ.

    :param factor: variance between blocks divided by ``p (1 - p)``, pooled over the cells (``s^2``).
    :param degrees: its degrees of freedom, ``k - 1``, or more after `moderate`.
    :param blocks: number of blocks ``k`` whose mean the window is compared with.
    :param block_rows: mean rows per block.
    """

    factor: float
    degrees: float
    blocks: float
    block_rows: float

    def variance_factor(self, n: int, m: int) -> float:
        """Return ``v`` for a new window of *m* rows against the reference of *n*."""
        smaller = max(0.0, 1 / m - 1 / self.block_rows)  # a window smaller than the blocks varies more by chance
        return max(self.factor * (1 + 1 / self.blocks) + smaller, 1 / m + 1 / n)


def block_variance(shares: Array, block_rows: float) -> BlockVariance:
    """
    Return the pooled variance between blocks.

    :param shares: shares per block, shape ``(k, cells)``: of the cells, or cumulated for numbers.
    """
    mean = shares.mean(axis=0)
    spread = float((mean * (1 - mean)).sum())
    factor = float(shares.var(axis=0, ddof=1).sum()) / spread if spread > 0 else 0.0
    return BlockVariance(factor, shares.shape[0] - 1, shares.shape[0], block_rows)


def others(blocks: Array) -> Array:
    """Return, per block, the mean of the other blocks: shape ``(k, cells)``, as *blocks*."""
    mean: Array = (blocks.sum(axis=0) - blocks) / (blocks.shape[0] - 1)
    return mean


def block_distances(counts: Counts) -> Array:
    """Return the KS distance of each block from all others together, shape ``(k,)``; *counts* is ``(k, bins)``."""
    cumulated = counts.cumsum(axis=1)
    rest = cumulated.sum(axis=0) - cumulated
    gaps: Array = np.abs(cumulated / cumulated[:, -1:] - rest / rest[:, -1:]).max(axis=1)
    return gaps


def rank_p(distance: float, own: Array) -> float:
    """
    Return a lower bound of the p of *distance* when some block of the reference moved as far, else 0.

    Blocks and window are exchangeable without drift: with ``r`` of ``k`` blocks as far from the rest, the window's
    distance has a p of ``(1 + r) / (k + 1)``. It guards laws with thin tails against blocks that now and then jump (a
    sale, a holiday); where no block moved as far it says nothing.

    :param own: the same distance of each block from the others, shape ``(k,)``.

    >>> import numpy as np
    >>> rank_p(0.2, np.array([0.1, 0.3, 0.1])), rank_p(0.4, np.array([0.1, 0.3, 0.1]))
    (0.5, 0.0)
    """
    as_far = int((own >= distance * (1 - 1e-9)).sum())
    return (1 + as_far) / (own.size + 1) if as_far else 0.0


def moderate(factors: Array, degrees: int) -> tuple[Array, float]:
    """
    Return variances drawn towards their common value, and their degrees of freedom, by empirical Bayes.

    :param factors: estimated variances of many columns, shape ``(columns,)``, > 0, each with *degrees*.

    Source: Smyth (2004), Statistical Applications in Genetics and Molecular Biology 3(1).
    """
    from scipy.special import digamma, polygamma  # noqa: PLC0415 - loads at use, never at parse time

    half = degrees / 2
    logs = np.log(factors) - digamma(half) + math.log(half)
    excess = float(logs.var(ddof=1) - polygamma(1, half))
    if excess <= 1e-3:
        return np.full_like(factors, math.exp(float(logs.mean()))), math.inf
    prior = 2 * _trigamma_inverse(excess)
    common = math.exp(float(logs.mean()) + float(digamma(prior / 2)) - math.log(prior / 2))
    return (prior * common + degrees * factors) / (prior + degrees), prior + degrees


def tail_degrees(scores: Array) -> float:
    """
    Return the degrees of freedom of the t-law whose tails the blocks of many columns have together, infinite if normal.

    A t-law of ``d`` degrees has the excess kurtosis ``6 / (d - 4)``. The columns' mean excess kurtosis, unbiased under
    normality, less two of its standard errors, is set equal to that: blocks that now and then jump (a shock, a sale)
    need a limit far above that of normal ones, and only many columns together can show it.

    :param scores: one number per block and column, shape ``(k, columns)``, k >= 4; a column that never varies is left
        out.
    """
    k = scores.shape[0]
    centered = scores - scores.mean(axis=0)
    second = np.square(centered).mean(axis=0)
    varies = second > 1e-15
    if k < 4 or not varies.any():
        return math.inf
    plain = np.power(centered[:, varies], 4).mean(axis=0) / np.square(second[varies]) - 3
    excess = (k - 1) / ((k - 2) * (k - 3)) * ((k + 1) * plain + 6)
    shown = float(excess.mean()) - 2 * math.sqrt(24 / (k * excess.size))
    return 4 + 6 / shown if shown > 0 else math.inf


def _trigamma_inverse(value: float) -> float:
    from scipy.special import polygamma  # noqa: PLC0415 - loads at use, never at parse time

    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = float(polygamma(1, x))
        step = trigamma * (1 - trigamma / value) / float(polygamma(2, x))
        x = max(x + step, 1e-6)
        if abs(step) < 1e-10 * x:
            break
    return x


def share_t_p(difference: float, variance: float, degrees: float) -> float:
    """Return the two-sided p of a difference of shares whose *variance* was estimated with *degrees*."""
    from scipy.special import ndtr, stdtr  # noqa: PLC0415 - loads at use, never at parse time

    if difference == 0:
        return 1.0
    if variance <= 0:
        return 0.0
    t = -abs(difference) / math.sqrt(variance)
    return float(2 * (ndtr(t) if math.isinf(degrees) else stdtr(degrees, t)))


def shares_f_p(reference: Array, current: Array, blocks: Array, rows: tuple[int, int], block_rows: float) -> float:
    """
    Return the p of a squared distance between shares against its size between blocks.

    ``Q = sum (q - p)^2 / (p + q) * 2`` has, for a new block, about the expectation ``tr A`` and the degrees of freedom
    ``(tr A)^2 / tr A^2`` (Satterthwaite), ``A`` being the blocks' covariance in the scale of ``p``; ``Q / tr A`` is
    referred to F with those and ``k - 1``. Cells that move together thus count once, and a rare cell that comes in
    bursts does not alarm: its variance grows with it.

    :param reference: shares, shape ``(cells,)``. *current* alike.
    :param blocks: shares per block, shape ``(k, cells)``.
    :param rows: ``(n, m)``.
    """
    from scipy.special import fdtrc  # noqa: PLC0415 - loads at use, never at parse time

    kept = reference > 0
    p, q = reference[kept], current[kept]
    k, (n, m) = blocks.shape[0], rows
    scaled = (blocks[:, kept] - blocks[:, kept].mean(axis=0)) / np.sqrt(p)
    gram = scaled @ scaled.T / (k - 1)
    chance = float((1 - p).sum())  # tr A of independent rows, per unit of v
    between, squared = float(np.trace(gram)), float((gram**2).sum())
    expected = max(between * (1 + 1 / k) + chance * max(0.0, 1 / m - 1 / block_rows), chance * (1 / m + 1 / n))
    freedom = between**2 / squared if squared > 0 else 1.0
    distance = float(shares_distance(p, q))
    return float(fdtrc(freedom, k - 1, distance / expected)) if expected > 0 else float(distance == 0)


def shares_distance(p: Array, q: Array) -> Array:
    """Return ``sum 2 (q - p)^2 / (p + q)`` over the last axis, shape ``(..., cells)``; cells with no share count 0."""
    both = p + q
    distance: Array = np.divide(2 * np.square(q - p), both, out=np.zeros_like(both), where=both > 0).sum(axis=-1)
    return distance


# Categories and shares


def smallest_tail(pooled: Counts, hits: Counts, n: int, m: int, *, most: float = 1.0) -> float:
    """
    Return the smallest tail probability of any cell: *hits* window rows among *pooled* ones, both ``(cells,)``.

    :param most: what is returned when no tail is smaller.

    The tails are summed up in the order of a lower bound, a geometric sum, since the ratio of neighboring terms falls
    from the hits outwards; as soon as a bound is above the smallest tail found, no other can be. Exact up to the
    series' rounding.
    """
    pooled, hits = np.unique(np.stack([pooled, hits]), axis=1)
    upward = hits >= pooled * (m / (n + m))
    first = np.exp(_log_hypergeometric(hits, pooled, n, m))
    steps = np.floor(np.sqrt(pooled * (m / (n + m)) * (n / (n + m))) / 2)
    x = np.where(upward, hits + steps, hits - steps)
    with np.errstate(divide="ignore", invalid="ignore"):
        # The ratio of the terms *steps* + 1 and *steps* away from the hits; 0 beyond the last term.
        up = np.maximum(pooled - x, 0) * np.maximum(m - x, 0) / ((x + 1) * (n - pooled + x + 1))
        down = np.maximum(x, 0) * np.maximum(n - pooled + x, 0) / ((pooled - x + 1.0) * (m - x + 1))
        ratio = np.nan_to_num(np.clip(np.where(upward, up, down), 0.0, 1.0))
        least = np.where(ratio < 1, first * (1 - ratio ** (steps + 1)) / (1 - ratio), first * (steps + 1))
    smallest = most
    for cell in np.argsort(least):
        if least[cell] > smallest * (1 + 1e-6):
            break
        smallest = min(smallest, _smaller_tail(int(pooled[cell]), int(hits[cell]), n, m))
    return smallest


def _smaller_tail(pooled: int, hits: int, n: int, m: int) -> float:
    """Return ``min(P(X <= hits), P(X >= hits))``, X hypergeometric: *pooled* of ``n + m`` rows, *m* drawn."""
    first, last = max(0, pooled - n), min(pooled, m)
    mean = pooled * (m / (n + m))
    spread = 40 * math.sqrt(max(mean, 1.0)) + 200
    if hits >= mean:
        values = np.arange(hits, min(last, int(hits + spread)) + 1)
    else:
        values = np.arange(max(first, int(hits - spread)), hits + 1)
    return min(1.0, float(np.exp(_log_hypergeometric(values, pooled, n, m)).sum()))


def _log_hypergeometric(hits: Any, pooled: Any, n: int, m: int) -> Any:
    from scipy.special import gammaln  # noqa: PLC0415 - loads at use, never at parse time

    def ways(total: Any, chosen: Any) -> Any:
        return gammaln(total + 1) - gammaln(chosen + 1) - gammaln(total - chosen + 1)

    return ways(m, hits) + ways(n, pooled - hits) - ways(n + m, pooled)


def fisher_p(x: int, n: int, y: int, m: int) -> float:
    """
    Return the two-sided (doubled) p of Fisher's exact test of ``x`` of ``n`` against ``y`` of ``m``.

    >>> round(fisher_p(0, 10, 5, 10), 4)
    0.0325
    """
    return min(1.0, 2 * _smaller_tail(x + y, y, n, m))


def cells_p(reference: Counts, current: Counts) -> float:
    """
    Return the p of the most unlikely cell: its doubled hypergeometric tail times the number of cells with two rows.

    :param reference: counts per cell, shape ``(cells,)``. *current* alike.
    """
    pooled = reference + current
    kept = pooled >= 2
    if not kept.any():
        return 1.0
    times = 2 * int(kept.sum())
    tail = smallest_tail(pooled[kept], current[kept], int(reference.sum()), int(current.sum()), most=1 / times)
    return 1.0 if tail == 1 / times else times * tail


def chi_square_p(reference: Counts, current: Counts) -> float:
    """
    Return the p of the contingency chi-square, on cells pooled until the smaller sample expects five rows in each.

    Cells are pooled from the largest down; a short remainder joins the smallest cell kept.
    """
    from scipy.special import chdtrc  # noqa: PLC0415 - loads at use, never at parse time

    n, m = int(reference.sum()), int(current.sum())
    share = min(n, m) / (n + m)
    order = np.argsort(-(reference + current), kind="stable")
    ref, cur = pool_cells(reference[order], current[order], least=5 / share)
    if ref.size < 2:
        return 1.0
    pooled = ref + cur
    expected = pooled * (m / (n + m))
    statistic = float((np.square(cur - expected) / (expected * (n / (n + m)))).sum())
    return float(chdtrc(ref.size - 1, statistic))


def pool_cells(reference: Counts, current: Counts, *, least: float) -> tuple[Counts, Counts]:
    """Return cells joined in their order until each holds *least* pooled rows; a short rest joins the last one."""
    pooled = reference + current
    large = pooled >= least
    if large.all():
        return reference, current
    groups = np.empty(pooled.size, dtype=np.int64)
    group, held = 0, 0.0
    for place, count in enumerate(pooled.tolist()):
        groups[place] = group
        held += count
        if held >= least:
            group, held = group + 1, 0.0
    groups[groups == group] = max(group - 1, 0)
    size = max(group, 1)
    return (
        np.bincount(groups, weights=reference, minlength=size).astype(np.int64),
        np.bincount(groups, weights=current, minlength=size).astype(np.int64),
    )


def new_values_p(new_rows: int, *, n: int, m: int, once: int, twice: int) -> float:
    """
    Return the p of *new_rows* window rows with values that the reference never held.

    The unseen mass has the mean ``(f1 + 1) / n`` and a variance by ``f1`` and ``f2`` (Good-Turing); a gamma law with
    both makes the new rows negative binomial: ``v = (f1 + 2 f2 + 1) / (f1 + 1)`` and
    ``p = I(x; (f1 + 1) / v, q)`` with ``q = m / (m + n / v)``.
    """
    from scipy.special import betainc  # noqa: PLC0415 - loads at use, never at parse time

    if new_rows == 0:
        return 1.0
    v = (once + 2 * twice + 1) / (once + 1)
    return float(betainc(new_rows, (once + 1) / v, m / (m + n / v)))


def total_variation(reference: Counts, current: Counts, factor: float) -> float:
    """
    Return the share of rows that moved between cells, less what chance alone moves, at least 0.

    :param factor: variance factor ``v``. Chance moves ``1/2 sum sqrt(2/pi p (1 - p) v)``.
    """
    p, q = reference / reference.sum(), current / current.sum()
    pooled = (reference + current) / (reference.sum() + current.sum())
    chance = 0.5 * float(np.sqrt(2 / math.pi * pooled * (1 - pooled) * factor).sum())
    return max(0.0, 0.5 * float(np.abs(p - q).sum()) - chance)


# Numbers that readers know from elsewhere; no verdict depends on them


def stability_index(reference: Counts, current: Counts, *, least: float = 1e-4) -> float:
    """
    Return the population stability index, ``sum (q - p) ln(q / p)``, in nats; 0 when the shares agree.

    :param reference: counts per cell, shape ``(cells,)``, sum > 0. *current* alike.
    :param least: the share that a cell has at least, so that an empty one does not make it infinite.

    >>> round(stability_index(np.array([50, 50]), np.array([80, 20])), 4)
    0.4159
    """
    p, q = (np.maximum(counts / counts.sum(), least) for counts in (reference, current))
    return float(((q - p) * np.log(q / p)).sum())


def tenths(reference: Counts, current: Counts) -> tuple[Counts, Counts]:
    """
    Return ordered bins joined to about ten that each hold a tenth of *reference*, as the index is usually taken.

    What lies below and above all of *reference* is a bin each.
    """
    reached = reference.cumsum()
    group = -(-10 * reached // reached[-1])
    group[np.flatnonzero(reference)[-1] + 1 :] += 1
    return _joined(reference, group), _joined(current, group)


def frequent_cells(reference: Counts, current: Counts, *, share: float = 0.01) -> tuple[Counts, Counts]:
    """Return the cells that hold at least *share* of *reference*, and one with all others."""
    frequent = reference >= share * reference.sum()
    group = np.where(frequent, frequent.cumsum(), 0)
    return _joined(reference, group), _joined(current, group)


def _joined(counts: Counts, group: Counts) -> Counts:
    joined: Counts = np.bincount(group, weights=counts).astype(np.int64)
    return joined


def wasserstein(edges: Array, reference: Counts, current: Counts, *, lowest: float, highest: float) -> float:
    """
    Return how far the values moved on average (Wasserstein-1), in their unit, as far as bins can tell.

    The area between the two cumulated distributions, each value taken to be at the upper end of its bin: exact where
    every value is an edge. What lies outside the edges is taken to be at the ends.

    :param edges: ascending, shape ``(e,)``; *reference* and *current* are counts, shape ``(e + 1,)``.
    :param lowest: smallest finite value of both sides; *highest* the largest.
    """
    gaps = np.abs(reference.cumsum() / reference.sum() - current.cumsum() / current.sum())[:-1]
    places = np.clip(np.array([lowest, *edges, highest]), lowest, highest)
    with np.errstate(over="ignore"):
        return float((np.array([*gaps[:1], *gaps]) * np.diff(places)).sum())


# Many tests


def adjust(values: Sequence[float], *, tests: int, method: Literal["holm", "bh"]) -> list[float]:
    """
    Return p adjusted for *tests* tests, in the order given; a test that was not run counts as p = 1.

    :param method: ``holm`` (chance of any false alarm) or ``bh`` (share of false ones).

    >>> adjust([0.01, 0.04], tests=2, method="holm")
    [0.02, 0.04]
    """
    p = np.asarray(values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    rank = np.arange(p.size)
    if method == "holm":
        sorted_p = np.maximum.accumulate(p[order] * (tests - rank))
    else:
        sorted_p = np.minimum.accumulate((p[order] * tests / (rank + 1))[::-1])[::-1]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(sorted_p, 1.0)
    return [float(value) for value in adjusted]
