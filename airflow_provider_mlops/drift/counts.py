"""What a column's values look like as counts on fixed bins, and how two such counts add up. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_mlops.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from airflow_provider_mlops.drift.fields import Fields

    Counts = npt.NDArray[np.int64]
    Edges = npt.NDArray[np.float64]

__all__ = [
    "CATEGORY_CAP",
    "CategoryCounts",
    "Family",
    "NumberCounts",
    "Spread",
    "cap_counts",
    "counts_array",
    "merge_moments",
    "no_counts",
    "within",
]

CATEGORY_CAP = 50_000  # distinct values of a text column that are counted one by one


def no_counts(width: int) -> Counts:
    """Return no time blocks of *width* bins, shape ``(0, width)``."""
    return np.zeros((0, width), dtype=np.int64)


def counts_array(values: Any, width: int | None = None) -> Counts:
    """Return counts as an array, two-dimensional when *width* is given. :raises DataError: a negative count."""
    array = np.asarray(values, dtype=np.int64)
    if width is not None:
        array = array.reshape(-1, width) if array.size else no_counts(width)
    if (array < 0).any():
        raise DataError("Counts are never negative.")
    return array


class Family(StrEnum):
    """What kind of values a column holds. Only a change of family makes a column *retyped*."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"
    TIME = "time"
    VECTOR = "vector"
    OTHER = "other"


@dataclass(frozen=True, slots=True, eq=False)
class NumberCounts:
    """
    The numbers of a column, on fixed bins.

    :param edges: ascending, shape ``(e,)``. Bin ``i`` holds ``edges[i-1] < x <= edges[i]``; the last bin holds what
        lies above all edges. Of four edges or more the outermost two are guards, one span of the reference away.
    :param counts: rows per bin, shape ``(e + 1,)``. An infinity counts in the bin at its end; NaN in none.
    :param blocks: rows per time block and bin, shape ``(blocks, e + 1)``.
    :param minimum: smallest finite value, or ``None`` when there is none.
    :param mean: mean of the finite values; NaN when there is none or the sum overflows.
    :param m2: sum of squared deviations from the mean, merged by Chan's formula.
    """

    edges: Edges
    counts: Counts
    blocks: Counts
    nan: int = 0
    negative_infinity: int = 0
    positive_infinity: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float = math.nan
    m2: float = math.nan

    @property
    def rows(self) -> int:
        """Rows that hold a number, infinities included."""
        return int(self.counts.sum())

    @property
    def finite(self) -> int:
        """Rows that hold a finite number."""
        return self.rows - self.negative_infinity - self.positive_infinity

    @property
    def far_outside(self) -> int:
        """Rows beyond the guards: outside the reference's range widened by its own span on both sides."""
        return int(self.counts[0] + self.counts[-1]) if self.edges.size >= 4 else 0

    def rounded_mean(self, digits: int = 6) -> float | None:
        """
        Return the mean, or ``None`` when it is unknown, to so many digits of the largest magnitude.

        The digits after them depend on the order in which rows were added up, so on the engine.
        """
        if not math.isfinite(self.mean) or self.minimum is None or self.maximum is None:
            return None
        largest = max(abs(self.minimum), abs(self.maximum))
        return round(self.mean, digits - math.frexp(largest)[1] * 3 // 10) if largest else self.mean

    def empty(self) -> NumberCounts:
        """Return the same bins without counts."""
        width = self.edges.size + 1
        return NumberCounts(edges=self.edges, counts=np.zeros(width, dtype=np.int64), blocks=no_counts(width))

    def merge(self, other: NumberCounts, spread: Spread) -> NumberCounts:
        """Return the sum of both; *spread* lays both sides' blocks on common rows."""
        mean, m2 = merge_moments((self.finite, self.mean, self.m2), (other.finite, other.mean, other.m2))
        lows = [side.minimum for side in (self, other) if side.minimum is not None]
        highs = [side.maximum for side in (self, other) if side.maximum is not None]
        return NumberCounts(
            edges=self.edges,
            counts=self.counts + other.counts,
            blocks=spread(self.blocks, other.blocks),
            nan=self.nan + other.nan,
            negative_infinity=self.negative_infinity + other.negative_infinity,
            positive_infinity=self.positive_infinity + other.positive_infinity,
            minimum=min(lows, default=None),
            maximum=max(highs, default=None),
            mean=mean,
            m2=m2,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; what is not finite becomes ``None``."""
        return {
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "blocks": self.blocks.tolist(),
            "nan": self.nan,
            "negative_infinity": self.negative_infinity,
            "positive_infinity": self.positive_infinity,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "mean": self.mean if math.isfinite(self.mean) else None,
            "m2": self.m2 if math.isfinite(self.m2) else None,
        }

    @classmethod
    def from_fields(cls, fields: Fields, *, rows: int, block_rows: Counts) -> NumberCounts:
        """
        Return what `to_dict` wrote.

        :param rows: of the column, which none of its counts exceeds; *block_rows* alike, per time block.
        :raises DataError: a field lacks, is of another form, or does not fit the others.
        """
        edges = fields.numbers("edges")
        if not (edges[1:] > edges[:-1]).all():
            raise fields.error("edges", "do not ascend")
        found = cls(
            edges=edges,
            counts=fields.counts("counts", edges.size + 1, most=rows),
            blocks=fields.counts("blocks", block_rows.size, edges.size + 1, most=rows),
            nan=fields.whole("nan", most=rows),
            negative_infinity=fields.whole("negative_infinity", most=rows),
            positive_infinity=fields.whole("positive_infinity", most=rows),
            minimum=fields.optional_number("minimum"),
            maximum=fields.optional_number("maximum"),
            mean=_or_nan(fields.optional_number("mean")),
            m2=_or_nan(fields.optional_number("m2")),
        )
        within(fields, found.blocks, block_rows)
        ends = found.counts[0] + (found.counts[-1] if edges.size else 0)
        if (
            found.negative_infinity > found.counts[0]
            or found.positive_infinity > found.counts[-1]
            or found.negative_infinity + found.positive_infinity > ends
        ):
            raise fields.error("counts", "hold fewer rows in the outer bins than there are infinities")
        if (found.finite > 0, found.finite > 0) != (found.minimum is not None, found.maximum is not None):
            raise fields.error("minimum", "and 'maximum' do not fit the number of finite values")
        if found.minimum is not None and found.maximum is not None and found.minimum > found.maximum:
            raise fields.error("minimum", "is above 'maximum'")
        if found.m2 < 0:
            raise fields.error("m2", "is negative, and it is a sum of squares")
        return found


@dataclass(frozen=True, slots=True, eq=False)
class CategoryCounts:
    """
    The values of a text or boolean column.

    :param cells: the values that are counted per time block, the most frequent of the reference.
    :param counts: rows per value; up to `CATEGORY_CAP` values, beyond it only the most frequent.
    :param blocks: rows per time block and cell, shape ``(blocks, cells + 1)``; the last column counts all other values.
    :param tail_rows: rows whose values were beyond the cap; 0 while *counts* is complete. Beyond the cap counts are
        lower bounds, and merging in another order may differ in the tail.
    """

    cells: tuple[str, ...]
    counts: Mapping[str, int]
    blocks: Counts
    tail_rows: int = 0

    @property
    def rows(self) -> int:
        """Rows that hold a value."""
        return sum(self.counts.values()) + self.tail_rows

    @property
    def once(self) -> int:
        """Values seen in exactly one row (``f1``)."""
        return sum(1 for count in self.counts.values() if count == 1)

    @property
    def twice(self) -> int:
        """Values seen in exactly two rows (``f2``)."""
        return sum(1 for count in self.counts.values() if count == 2)

    def empty(self) -> CategoryCounts:
        """Return the same cells without counts."""
        return CategoryCounts(cells=self.cells, counts={}, blocks=no_counts(len(self.cells) + 1))

    def merge(self, other: CategoryCounts, spread: Spread) -> CategoryCounts:
        """Return the sum of both; *spread* lays both sides' blocks on common rows."""
        counts = dict(self.counts)
        for value, count in other.counts.items():
            counts[value] = counts.get(value, 0) + count
        counts, dropped = cap_counts(counts)
        return CategoryCounts(
            cells=self.cells,
            counts=counts,
            blocks=spread(self.blocks, other.blocks),
            tail_rows=self.tail_rows + other.tail_rows + dropped,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, the most frequent value first."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return {
            "cells": list(self.cells),
            "counts": dict(ranked),
            "blocks": self.blocks.tolist(),
            "tail_rows": self.tail_rows,
        }

    @classmethod
    def from_fields(cls, fields: Fields, *, rows: int, block_rows: Counts) -> CategoryCounts:
        """Return what `to_dict` wrote; as `NumberCounts.from_fields`."""
        cells = fields.texts("cells")
        blocks = fields.counts("blocks", block_rows.size, len(cells) + 1, most=rows)
        within(fields, blocks, block_rows)
        return cls(
            cells=cells,
            counts=fields.numbered("counts", most=rows),
            blocks=blocks,
            tail_rows=fields.whole("tail_rows", most=rows),
        )


def within(fields: Fields, blocks: Counts, block_rows: Counts) -> None:
    """:raises DataError: a time block counts more values than it has rows."""
    if (blocks.sum(axis=1) > block_rows).any():
        raise fields.error("blocks", "hold more values than 'block_rows' has rows")


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


class Spread:
    """Lays the block arrays of two profiles on the blocks of their union, and adds them."""

    def __init__(self, left: Sequence[int], right: Sequence[int], union: Sequence[int]) -> None:
        place = {block: position for position, block in enumerate(union)}
        self._left = [place[block] for block in left]
        self._right = [place[block] for block in right]
        self._size = len(union)

    def __call__(self, left: Counts, right: Counts) -> Counts:
        """Return the sum, shape ``(blocks of the union, ...)``."""
        total = np.zeros((self._size, *left.shape[1:]), dtype=np.int64)
        total[self._left] += left
        total[self._right] += right
        return total


def merge_moments(left: tuple[int, float, float], right: tuple[int, float, float]) -> tuple[float, float]:
    """Return mean and M2 of two parts given as ``(rows, mean, m2)``; source: Chan, Golub & LeVeque (1983)."""
    (n, mean_n, m2_n), (m, mean_m, m2_m) = left, right
    if n == 0:
        return mean_m, m2_m
    if m == 0:
        return mean_n, m2_n
    with np.errstate(over="ignore", invalid="ignore"):
        delta = np.float64(mean_m) - mean_n
        mean = (mean_n * n + mean_m * m) / (n + m) if n == m else mean_n + delta * m / (n + m)
        return float(mean), float(m2_n + m2_m + delta * delta * n * m / (n + m))


def cap_counts(counts: Mapping[str, int], cap: int = CATEGORY_CAP) -> tuple[dict[str, int], int]:
    """Return the *cap* most frequent values (ties by value) and the rows of the others."""
    if len(counts) <= cap:
        return dict(counts), 0
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return dict(ranked[:cap]), sum(count for _, count in ranked[cap:])
