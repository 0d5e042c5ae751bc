"""
Embeddings as sums: random Fourier features of each vector, added up, so that parts of the data merge exactly.

The mean of the features stands for the whole distribution (of a Gaussian kernel), and the sums of their products, kept
in two halves of the rows, suffice to train a linear classifier on one half and to try it on the other. No vector is
kept. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_mlops.drift.counts import within
from airflow_provider_mlops.drift.statistics import others

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import pyarrow as pa

    from airflow_provider_mlops.drift.counts import Counts, Spread
    from airflow_provider_mlops.drift.fields import Fields

    Floats = npt.NDArray[np.float64]

__all__ = ["FEATURES", "VectorCounter", "VectorCounts", "block_p", "classifier", "layout_of", "mmd_p"]

FEATURES = 64
_STEP = 1024  # features are whole multiples of 1/1024: sums of whole numbers do not depend on their order
_CHUNK = 2048  # vectors looked at together
_PAIRS = 500  # vectors of the sample that give the scale
_ROUNDED = 1e-9  # of a covariance of features, whose variances are at most 1
MOST_DIMENSIONS = 1_000_000  # of a vector in a profile's JSON: a counter needs 256 bytes for each
_RIDGE = 0.05  # of the mean variance, added to every direction of the classifier


@dataclass(frozen=True, slots=True, eq=False)
class VectorCounts:
    """
    The vectors of a column, as sums of their features in steps of 1/1024.

    :param dimension: length of a vector.
    :param scale: median distance between two vectors of the reference's sample; the width of the kernel.
    :param halves: rows in each half, shape ``(2,)``; a row's half follows from its features.
    :param sums: sums of the features, shape ``(2, FEATURES)``.
    :param products: sums of the products of two features, shape ``(2, FEATURES, FEATURES)``.
    :param blocks: per time block the rows and the sums of the features, shape ``(blocks, 1 + FEATURES)``.
    """

    dimension: int
    scale: float
    halves: Counts
    sums: Counts
    products: Counts
    blocks: Counts

    @property
    def rows(self) -> int:
        """Rows that hold a vector."""
        return int(self.halves.sum())

    @property
    def mean(self) -> Floats:
        """Mean of the features over all rows, shape ``(FEATURES,)``."""
        found: Floats = self.sums.sum(axis=0) / (max(self.rows, 1) * _STEP)
        return found

    def moments(self, half: int | None = None) -> tuple[int, Floats, Floats]:
        """Return rows, mean and covariance of the features of one half, or of all rows."""
        chosen = slice(None) if half is None else slice(half, half + 1)
        rows = int(self.halves[chosen].sum())
        mean = self.sums[chosen].sum(axis=0) / (max(rows, 1) * _STEP)
        second = self.products[chosen].sum(axis=0) / (max(rows, 1) * _STEP**2)
        return rows, mean, (second - np.outer(mean, mean)) * (rows / max(rows - 1, 1))

    def block_means(self, chosen: Counts) -> tuple[Floats, Floats]:
        """Return the mean features per block that holds rows, shape ``(k, FEATURES)``, and its rows."""
        blocks = self.blocks[chosen]
        blocks = blocks[blocks[:, 0] > 0]
        rows = blocks[:, :1].astype(np.float64)
        return blocks[:, 1:] / (np.maximum(rows, 1) * _STEP), rows[:, 0]

    def same_layout(self, other: VectorCounts) -> bool:
        """Return whether both have the same features."""
        return (self.dimension, self.scale) == (other.dimension, other.scale)

    def empty(self) -> VectorCounts:
        """Return the same features without sums."""
        return _empty(self.dimension, self.scale)

    def merge(self, other: VectorCounts, spread: Spread) -> VectorCounts:
        """Return the sum of both; *spread* lays both sides' blocks on common rows."""
        return VectorCounts(
            self.dimension,
            self.scale,
            self.halves + other.halves,
            self.sums + other.sums,
            self.products + other.products,
            spread(self.blocks, other.blocks),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; of the products the upper triangle, row by row."""
        above = np.triu_indices(FEATURES)
        return {
            "dimension": self.dimension,
            "scale": self.scale,
            "halves": self.halves.tolist(),
            "sums": self.sums.tolist(),
            "products": [half[above].tolist() for half in self.products],
            "blocks": self.blocks.tolist(),
        }

    @classmethod
    def from_fields(cls, fields: Fields, *, rows: int, block_rows: Counts) -> VectorCounts:
        """
        Return what `to_dict` wrote.

        :param rows: of the column, which its counts do not exceed; *block_rows* alike, per time block.
        :raises DataError: a field lacks, is of another form, or does not fit the others.
        """
        scale = fields.number("scale")
        if scale <= 0:
            raise fields.error("scale", "is not above 0, and it is a distance")
        found = _empty(fields.whole("dimension", least=1, most=MOST_DIMENSIONS), scale)
        above = np.triu_indices(FEATURES)
        most = rows * _STEP**2
        for half, upper in enumerate(fields.counts("products", 2, above[0].size, least=-most, most=most)):
            found.products[half][above] = upper
            found.products[half].T[above] = upper
        halves = fields.counts("halves", 2, most=rows)
        sums = fields.counts("sums", 2, FEATURES, least=-rows * _STEP, most=rows * _STEP)
        blocks = fields.counts("blocks", block_rows.size, 1 + FEATURES, least=-rows * _STEP, most=rows * _STEP)
        if (blocks[:, 0] < 0).any() or (np.abs(blocks[:, 1:]) > blocks[:, :1] * _STEP).any():
            raise fields.error("blocks", "hold larger sums than their rows allow")
        within(fields, blocks[:, :1], block_rows)
        counts = cls(found.dimension, found.scale, halves, sums, found.products, blocks)
        if (np.abs(sums) > halves[:, None] * _STEP).any() or not all(map(counts.possible, (0, 1))):
            raise fields.error("products", "do not fit 'sums' and 'halves': no vectors have them")
        return counts

    def possible(self, half: int) -> bool:
        """Return whether the features of one half have a covariance, as those of any vectors have."""
        rows, _, covariance = self.moments(half)
        if rows == 0:
            return not self.sums[half].any() and not self.products[half].any()
        return bool(np.linalg.eigvalsh(covariance)[0] > -_ROUNDED)


def _empty(dimension: int, scale: float) -> VectorCounts:
    def zeros(*shape: int) -> Counts:
        return np.zeros(shape, dtype=np.int64)

    products = zeros(2, FEATURES, FEATURES)
    return VectorCounts(dimension, scale, zeros(2), zeros(2, FEATURES), products, zeros(0, 1 + FEATURES))


def layout_of(array: pa.Array) -> VectorCounts | None:
    """Return the features that fit the vectors of *array*, a random part of the reference; ``None`` without any."""
    import pyarrow.compute as pc  # noqa: PLC0415 - loads at use, never at parse time

    lengths = pc.value_counts(pc.list_value_length(array.drop_null()))
    ranked = sorted(
        zip(lengths.field("values").to_pylist(), lengths.field("counts").to_pylist(), strict=True),
        key=lambda item: (-item[1], item[0]),
    )
    if not ranked or not ranked[0][0]:
        return None
    dimension = int(ranked[0][0])
    some = _matrix(array, dimension)[:_PAIRS].astype(np.float64)
    if len(some) < 2:
        return None
    squares = np.square(some).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares[None, :] - 2 * some @ some.T, 0.0)
    scale = math.sqrt(float(np.median(apart[np.triu_indices(len(some), 1)])))
    return _empty(dimension, float(f"{scale:.6g}") or 1.0)


def _matrix(array: pa.Array, dimension: int) -> npt.NDArray[np.float32]:
    """Return the finite vectors of that length, shape ``(vectors, dimension)``."""
    import pyarrow.compute as pc  # noqa: PLC0415 - loads at use, never at parse time

    array = array.drop_null()
    fits = pc.equal(pc.list_value_length(array), dimension)
    array = array if pc.all(fits).as_py() else array.filter(fits)
    flat = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    rows: npt.NDArray[np.float32] = flat.reshape(-1, dimension)
    return rows[np.isfinite(rows).all(axis=1)]


@lru_cache(maxsize=8)
def _frequencies(dimension: int) -> Floats:
    """Return the frequencies for vectors at scale 1, shape ``(dimension, FEATURES / 2)``: the same for ever."""
    # RandomState, since NumPy promises to keep its numbers as they are; a generator's may change.
    fixed = np.random.RandomState(20_260_101)
    return fixed.standard_normal((FEATURES // 2, dimension)).T.copy()


class VectorCounter:
    """Adds up the features of one column of vectors."""

    def __init__(self, layout: VectorCounts) -> None:
        self._layout = layout.empty()
        self._blocks: dict[int, Counts] = {}
        self._odd = 0

    def add(self, array: pa.Array, block: int | None) -> int:
        """Count *array*, whose rows all lie in *block* (``None``: in no block); return its missing rows."""
        layout = self._layout
        found = 0
        for start in range(0, len(array), _CHUNK):
            vectors = _matrix(array.slice(start, _CHUNK), layout.dimension)
            found += len(vectors)
            angles = vectors.astype(np.float64) @ _frequencies(layout.dimension) / layout.scale
            features = np.rint(np.concatenate([np.cos(angles), np.sin(angles)], axis=1) * _STEP)
            odd = features.sum(axis=1) % 2 == 1
            for half, rows in enumerate((features[~odd], features[odd])):
                layout.halves[half] += len(rows)
                layout.sums[half] += rows.sum(axis=0).astype(np.int64)
                layout.products[half] += (rows.T @ rows).astype(np.int64)  # whole numbers below 2**53: exact
            if block is not None:
                summed = np.concatenate([[len(features)], features.sum(axis=0)]).astype(np.int64)
                self._blocks[block] = self._blocks.get(block, np.zeros_like(summed)) + summed
        self._odd += len(array) - int(array.null_count) - found
        return int(array.null_count)

    @property
    def odd(self) -> int:
        """Rows whose vector has another length, or a number that is not finite."""
        return self._odd

    def result(self, blocks: Sequence[int]) -> VectorCounts:
        """Return the sums, with one row per block of *blocks*."""
        layout, zeros = self._layout, np.zeros(1 + FEATURES, dtype=np.int64)
        rows = [self._blocks.get(block, zeros) for block in blocks]
        return VectorCounts(
            layout.dimension,
            layout.scale,
            layout.halves.copy(),
            layout.sums.copy(),
            layout.products.copy(),
            np.stack(rows) if rows else layout.blocks,
        )


# Statistics


def distances(before: VectorCounts, now: VectorCounts, full: Counts) -> tuple[list[float], float, float]:
    """
    Return the distances of the mean features that a reader compares.

    :param full: positions of the reference's full time blocks.
    :returns: of each of these blocks from the others together; of both sides; and the one that chance alone makes of
        both sides' rows, on average.
    """
    means, _ = before.block_means(full)
    usual = np.sqrt(np.square(means - others(means)).sum(axis=1)).tolist() if len(means) > 1 else []
    spread = float(np.trace(_pooled(before.moments(), now.moments())))
    chance = math.sqrt(max(spread, 0.0) * (1 / before.rows + 1 / now.rows))
    return usual, math.sqrt(float(np.square(before.mean - now.mean).sum())), chance


def mmd_p(before: VectorCounts, now: VectorCounts) -> tuple[float, float]:
    """
    Return the squared distance of the mean features and its p, rows taken as independent.

    That distance is the maximum mean discrepancy of the Gaussian kernel, as far as 64 random features tell. Without
    drift it is a weighted sum of chi-squares, whose weights are the eigenvalues of the features' covariance; the law is
    matched in mean, variance and skewness.

    Sources: Gretton et al. (2012), JMLR 13; Rahimi & Recht (2007), NIPS; Pearson (1959), Biometrika 46.
    """
    from scipy.special import chdtrc  # noqa: PLC0415 - loads at use, never at parse time

    distance = float(np.square(before.mean - now.mean).sum())
    covariance = _pooled(before.moments(), now.moments())
    factor = 1 / before.rows + 1 / now.rows
    weights = np.maximum(np.linalg.eigvalsh(covariance), 0.0) * factor
    first, second, third = (float((weights**power).sum()) for power in (1, 2, 3))
    if second <= 0:
        return distance, 1.0 if distance <= 1e-12 else 0.0
    degrees = second**3 / third**2
    z = (distance - first) / math.sqrt(2 * second)
    return distance, float(chdtrc(degrees, max(0.0, degrees + z * math.sqrt(2 * degrees))))


def _pooled(one: tuple[int, Floats, Floats], other: tuple[int, Floats, Floats]) -> Floats:
    (n, _, left), (m, _, right) = one, other
    found: Floats = (left * max(n - 1, 1) + right * max(m - 1, 1)) / max(n + m - 2, 1)
    return found


def classifier(before: VectorCounts, now: VectorCounts) -> tuple[float, float]:
    """
    Return how far apart a classifier sets both sides, in standard deviations, and the p of that.

    A linear discriminant of the features is trained on one half of the rows and tried on the other, and the other way
    round: the distance is their mean, below 0 when it fails, and p is twice the smaller one.

    Source: Lopez-Paz & Oquab (2017), ICLR.
    """
    from scipy.special import stdtr  # noqa: PLC0415 - loads at use, never at parse time

    apart, values = [], []
    for half in (0, 1):
        trained = [side.moments(half) for side in (before, now)]
        tried = [side.moments(1 - half) for side in (before, now)]
        if min(rows for rows, _, _ in (*trained, *tried)) < 2:
            return 0.0, 1.0
        covariance = _pooled(*trained)
        ridge = _RIDGE * float(np.trace(covariance)) / FEATURES + 1e-9
        direction = np.linalg.solve(covariance + ridge * np.eye(FEATURES), trained[1][1] - trained[0][1])
        gap = float(direction @ (tried[1][1] - tried[0][1]))
        (n, _, left), (m, _, right) = tried
        spread = [max(float(direction @ side @ direction), 0.0) for side in (left, right)]
        error = math.sqrt(spread[0] / n + spread[1] / m)
        within = math.sqrt((spread[0] * (n - 1) + spread[1] * (m - 1)) / max(n + m - 2, 1))
        apart.append(gap / within if within > 0 else 0.0)
        values.append(float(stdtr(min(n, m) - 1, -gap / error)) if error > 0 else 1.0)
    return sum(apart) / 2, min(1.0, 2 * min(values))


def block_p(
    before: Floats, now: Floats, blocks: Floats, *, chance: float, rows: tuple[int, int], usual: tuple[float, float]
) -> tuple[float, float, float]:
    """
    Return the p of the squared distance of two mean features against its size between blocks, and that size's law.

    The distance over its expectation is referred to F, with the blocks' effective number of directions (Satterthwaite)
    and ``k - 1`` degrees of freedom.

    :param blocks: mean features per block, shape ``(k, FEATURES)``.
    :param chance: trace of the features' covariance within.
    :param rows: ``(n, m)``.
    :param usual: in how many blocks *before* was seen, and the mean rows of a block.
    :returns: p, the expected squared distance, and the numerator's degrees of freedom.
    """
    from scipy.special import fdtrc  # noqa: PLC0415 - loads at use, never at parse time

    (n, m), (seen, block_rows), k = rows, usual, len(blocks)
    centered = blocks - blocks.mean(axis=0)
    gram = centered @ centered.T / (k - 1)
    between, squared = float(np.trace(gram)), float(np.square(gram).sum())
    expected = max(between * (1 + 1 / seen) + chance * max(0.0, 1 / m - 1 / block_rows), chance * (1 / n + 1 / m))
    freedom = between**2 / squared if squared > 0 else 1.0
    distance = float(np.square(before - now).sum())
    return float(fdtrc(freedom, k - 1, distance / expected)) if expected > 0 else 1.0, expected, freedom
