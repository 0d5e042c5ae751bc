"""
The one statement that counts a table on given bins, and what its rows mean.

Every arm of it counts one column: ``SELECT column, block, code, value, rows, ... GROUP BY block, code``. A code >= 0 is
a bin; below zero it says why a row is in none. No row of the data leaves the database. Text in, text out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_mlops.drift.counts import (
    CATEGORY_CAP,
    CategoryCounts,
    Family,
    NumberCounts,
    merge_moments,
)
from airflow_provider_mlops.drift.texts import CLASSES, LENGTH, OTHER
from airflow_provider_mlops.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_mlops.adapters.engines.dialects import Dialect
    from airflow_provider_mlops.drift.counts import Edges
    from airflow_provider_mlops.drift.profile import ColumnProfile, DataProfile

__all__ = ["Arm", "Blocks", "Source", "fold", "moment", "odd_code", "statements"]

ARMS = 400  # columns per statement; SQLite joins 500 selects at most
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NULL, _NAN, _NEGATIVE, _POSITIVE = -1, -2, -3, -4
_TAIL = 1  # of a text column: values beyond the cap, or in a block, values that are no cell
_ODD = {family: -11 - position for position, family in enumerate(Family)}
_FAMILY = {code: family for family, code in _ODD.items()}
_DIGITS = 10  # of the moments
_TOTALS = -1  # in place of a column's number
_LARGEST, _SMALLEST = 1e150, 1e-150  # whose squares are still numbers


@dataclass(frozen=True, slots=True)
class Source:
    """
    Where the rows come from.

    :param head: what stands before the first ``SELECT``: nothing, or a query by name.
    :param body: ``FROM ... WHERE ...``.
    """

    head: str
    body: str

    def where(self, condition: str) -> Source:
        """Return the source with one more condition."""
        return replace(self, body=f"{self.body} AND {condition}")


@dataclass(frozen=True, slots=True)
class Blocks:
    """Time blocks of *length* microseconds from *origin* on, which is not after the first row."""

    origin: int
    length: int


@dataclass(frozen=True, slots=True)
class Arm:
    """
    One column to count, or one measure of a text column.

    :param name: the column.
    :param layout: its bins.
    :param odd: expression that is null for a value of the layout's family, else the code of its own; ``None`` when
        every value is of that family.
    :param mixed: whether *odd* differs from row to row.
    :param measure: one of `texts.MEASURES`; without it the column's rows, nulls, and values unless they are text.
    """

    name: str
    layout: ColumnProfile
    odd: str | None = None
    mixed: bool = False
    measure: str = ""


def moment(microseconds: int) -> datetime:
    """Return the instant so long after 1970. :raises DataError: outside the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError as error:
        raise DataError(
            "The timestamp column holds a time outside the years 1 to 9999. Is its unit right (seconds, milliseconds)?"
        ) from error


def odd_code(family: Family) -> int:
    """Return the code of rows that hold a value of another family than the layout's, namely *family*."""
    return _ODD[family]


def statements(
    source: Source, arms: Sequence[Arm], dialect: Dialect, *, time: str | None, blocks: Blocks | None
) -> Iterator[str]:
    """
    Yield what counts all *arms*: one statement for up to 400 columns.

    :param time: expression for the event time in microseconds since 1970.
    """
    writer = _Writer(source, dialect, time, blocks)
    parts = [writer.totals()]
    for number, arm in enumerate(arms):
        parts += writer.arm(number, arm)
    for start in range(0, len(parts), ARMS):
        yield source.head + "\nUNION ALL\n".join(parts[start : start + ARMS])


class _Writer:
    def __init__(self, source: Source, dialect: Dialect, time: str | None, blocks: Blocks | None) -> None:
        self._source = source
        self._dialect = dialect
        self._time = time
        self._blocks = blocks if time is not None else None

    def totals(self) -> str:
        d = self._dialect
        time = self._time or f"CAST(NULL AS {d.integer})"
        group = "" if self._blocks is None else " GROUP BY b"
        block = f"CAST(NULL AS {d.integer})" if self._blocks is None else "b"
        empty = ", ".join(f"CAST(NULL AS {d.double}) AS {name}" for name in ("low", "high", "s1", "s2"))
        return (
            f"SELECT {_TOTALS} AS c, {block} AS b, 0 AS k, CAST(NULL AS {d.text}) AS v, COUNT(*) AS n, "
            f"MIN(t) AS t1, MAX(t) AS t2, {empty} FROM (SELECT {self._block('t')} AS b, t FROM "
            f"(SELECT {time} AS t {self._source.body}) AS q0) AS q1{group}"
        )

    def arm(self, number: int, arm: Arm) -> list[str]:
        retyped = arm.odd is not None and not arm.mixed
        if arm.measure:
            counted = (arm.layout.texts or {})[arm.measure]
            return [] if retyped else [self._numbers(number, arm, counted.edges)]
        if arm.layout.numbers is not None and not retyped:
            return [self._numbers(number, arm, arm.layout.numbers.edges)]
        if arm.layout.categories is not None and not retyped:
            parts = [self._values(number, arm)]
            return parts if self._blocks is None else [*parts, self._cells(number, arm, arm.layout.categories.cells)]
        return [self._nulls(number, arm)]

    def _block(self, time: str) -> str:
        """Return the number of the block of *time*. The remainder is subtracted first, so any division is exact."""
        if self._blocks is None:
            return "0"
        since = f"({time} - {self._blocks.origin})"
        rest = self._dialect.modulo.format(since, self._blocks.length)
        return f"CAST(({since} - {rest}) / {self._blocks.length} AS {self._dialect.integer})"

    def _rows(self, columns: str) -> str:
        """Return a subquery of *columns* and the block ``b``."""
        if self._blocks is None:
            return f"(SELECT NULL AS b, {columns} {self._source.body}) AS q0"
        return (
            f"(SELECT {self._block('t')} AS b, q0.* FROM (SELECT {self._time} AS t, {columns} {self._source.body}) "
            "AS q0) AS q1"
        )

    def _code(self, arm: Arm, cases: str) -> str:
        odd = "WHEN o IS NOT NULL THEN o " if arm.odd else ""
        return f"CASE {odd}{cases} END"

    def _odd(self, arm: Arm) -> str:
        return f", {arm.odd} AS o" if arm.odd else ""

    def _group(self, *names: str) -> str:
        return f"GROUP BY {', '.join(names if self._blocks is None else ('b', *names))}"

    @property
    def _b(self) -> str:
        return "NULL" if self._blocks is None else "b"

    def _numbers(self, number: int, arm: Arm, edges: Edges) -> str:
        d = self._dialect
        value = f"CAST({self._measure(arm)} AS {d.double})"
        if arm.odd:
            value = f"CASE WHEN ({arm.odd}) IS NULL THEN {value} END"
        nan = f"WHEN {d.is_nan.format('x')} THEN {_NAN} " if d.is_nan else ""
        cases = (
            f"WHEN x IS NULL THEN {_NULL} {nan}WHEN x = -{d.infinity} THEN {_NEGATIVE} "
            f"WHEN x = {d.infinity} THEN {_POSITIVE} ELSE {self._bin(edges.tolist())}"
        )
        shifted = f"CASE WHEN ABS(x) < {d.number(_LARGEST)} THEN x - ({d.number(_center(edges))}) END"
        square = f"CASE WHEN ABS(d) > {d.number(_SMALLEST)} THEN d * d ELSE 0E0 END"
        return (
            f"SELECT {number}, {self._b}, k, NULL, COUNT(*), NULL, NULL, MIN(x), MAX(x), "
            f"CASE WHEN COUNT(d) = COUNT(*) THEN SUM(d) END, SUM({square}) FROM "
            f"(SELECT b, x, {self._code(arm, cases)} AS k, {shifted} AS d "
            f"FROM {self._rows(f'{value} AS x{self._odd(arm)}')}) AS q2 {self._group('k')}"
        )

    def _bin(self, edges: Sequence[float]) -> str:
        """Return how many of *edges* are below ``x``: by the database's own function, or by halving."""
        d = self._dialect
        if d.bucket is not None and edges:
            negated = ",".join(repr(-edge) for edge in reversed(edges))
            return d.bucket.format("x", len(edges), negated)

        def halve(low: int, high: int) -> str:
            if low == high:
                return str(low)
            middle = (low + high) // 2
            edge = d.number(edges[middle])
            return f"CASE WHEN x <= {edge} THEN {halve(low, middle)} ELSE {halve(middle + 1, high)} END"

        return halve(0, len(edges))

    def _measure(self, arm: Arm) -> str:
        """Return the number, or the measure of the text."""
        d = self._dialect
        column = d.identifier(arm.name)
        if not arm.measure:
            return column
        text = f"({d.exact_text.format(column)})"
        if arm.measure == LENGTH:
            return f"LENGTH({text})"
        if arm.measure == OTHER:
            return f"LENGTH({text}) - {d.holds(text, ''.join(CLASSES.values()))}"
        return d.holds(text, CLASSES[arm.measure])

    def _value(self, arm: Arm) -> str:
        d = self._dialect
        column = d.identifier(arm.name)
        if arm.layout.family is Family.BOOLEAN:
            text = f"CASE WHEN {column} THEN 'true' WHEN NOT {column} THEN 'false' END"
        else:
            text = d.exact_text.format(column)
        return f"CASE WHEN ({arm.odd}) IS NULL THEN {text} END" if arm.odd else text

    def _values(self, number: int, arm: Arm) -> str:
        """Count every value; beyond the cap of the most frequent ones, only their rows."""
        odd = ("o", ", o") if arm.odd else ("NULL", "")
        kept = f"r <= {CATEGORY_CAP}"
        code = self._code(arm, f"WHEN v IS NULL THEN {_NULL} WHEN {kept} THEN 0 ELSE {_TAIL}")
        return (
            f"SELECT {number}, NULL, k, v, SUM(n), NULL, NULL, NULL, NULL, NULL, NULL FROM "
            f"(SELECT {code} AS k, CASE WHEN {kept} THEN v END AS v, n FROM "
            f"(SELECT v, n, {odd[0]} AS o, ROW_NUMBER() OVER (PARTITION BY CASE WHEN v IS NULL THEN 1 ELSE 0 END "
            f"ORDER BY n DESC, v) AS r FROM "
            f"(SELECT v{odd[1]}, COUNT(*) AS n FROM (SELECT {self._value(arm)} AS v{self._odd(arm)} "
            f"{self._source.body}) AS q0 GROUP BY v{odd[1]}) AS q1) AS q2) AS q3 GROUP BY k, v"
        )

    def _cells(self, number: int, arm: Arm, cells: Sequence[str]) -> str:
        """Count the cells per block, and all other values together."""
        listed = ", ".join(map(self._dialect.string, cells))
        known = f"WHEN v IN ({listed}) THEN 0 " if cells else ""
        code = self._code(arm, f"WHEN v IS NULL THEN {_NULL} {known}ELSE {_TAIL}")
        return (
            f"SELECT {number}, b, k, v, COUNT(*), NULL, NULL, NULL, NULL, NULL, NULL FROM "
            f"(SELECT b, k, CASE WHEN k = 0 THEN v END AS v FROM (SELECT b, v, {code} AS k FROM "
            f"{self._rows(f'{self._value(arm)} AS v{self._odd(arm)}')}) AS q2 WHERE b IS NOT NULL) AS q3 "
            "GROUP BY b, k, v"
        )

    def _nulls(self, number: int, arm: Arm) -> str:
        column = self._dialect.identifier(arm.name)
        code = self._code(arm, f"WHEN x IS NULL THEN {_NULL} ELSE 0")
        there = f"CASE WHEN {column} IS NULL THEN NULL ELSE 0 END AS x"
        return (
            f"SELECT {number}, {self._b}, k, NULL, COUNT(*), NULL, NULL, NULL, NULL, NULL, NULL FROM "
            f"(SELECT b, {code} AS k FROM {self._rows(f'{there}{self._odd(arm)}')}) AS q2 {self._group('k')}"
        )


def _center(edges: Edges) -> float:
    """Return a number in the middle of the data, from which deviations are summed."""
    middle = float(edges[edges.size // 2]) if edges.size else 0.0
    return middle if abs(middle) < _LARGEST else 0.0


def fold(rows: Iterable[Sequence[Any]], layout: DataProfile, arms: Sequence[Arm], *, blocked: bool) -> DataProfile:
    """Return the profile that *rows*, the answer to `statements`, describe."""
    total, first, last = 0, None, None
    block_rows: dict[int, int] = {}
    parts: dict[int, list[Sequence[Any]]] = {number: [] for number in range(len(arms))}
    for row in rows:
        number, block, _, _, count, low, high = row[:7]
        if int(number) != _TOTALS:
            parts[int(number)].append(row)
            continue
        total += int(count)
        if blocked and block is not None:
            block_rows[int(block)] = int(count)
        if low is not None:
            first = int(low) if first is None else min(first, int(low))
            last = int(high) if last is None else max(last, int(high))
    blocks = sorted(block_rows)
    place = {block: position for position, block in enumerate(blocks)}
    columns = {name: _empty(column, len(blocks)) for name, column in layout.columns.items()}
    for number, arm in enumerate(arms):
        found = columns[arm.name]
        if arm.measure:
            texts = found.texts or {}
            counted = _numbers(texts[arm.measure], parts[number], place)
            columns[arm.name] = replace(found, texts={**texts, arm.measure: counted})
        else:
            columns[arm.name] = _column(found, parts[number], place, rows_total=total)
    return replace(
        layout,
        rows=total,
        columns=columns,
        start=None if first is None else moment(first).isoformat(),
        end=None if last is None else moment(last).isoformat(),
        blocks=tuple(blocks),
        block_rows=tuple(block_rows[block] for block in blocks),
    )


def _empty(column: ColumnProfile, blocks: int) -> ColumnProfile:
    """Return *column* with zeros, for so many blocks too."""
    column = column.empty()
    categories = column.categories

    def spread(numbers: NumberCounts) -> NumberCounts:
        return replace(numbers, blocks=np.zeros((blocks, numbers.counts.size), dtype=np.int64))

    numbers = spread(column.numbers) if column.numbers else None
    texts = {name: spread(counts) for name, counts in column.texts.items()} if column.texts else None
    if categories is not None:
        categories = replace(categories, blocks=np.zeros((blocks, len(categories.cells) + 1), dtype=np.int64))
    missing = np.zeros(blocks, dtype=np.int64)
    return replace(column, block_missing=missing, numbers=numbers, categories=categories, texts=texts)


def _column(
    column: ColumnProfile, rows: Sequence[Sequence[Any]], place: Mapping[int, int], *, rows_total: int
) -> ColumnProfile:
    """Return *column*, which holds zeros, with the counts of its *rows*."""
    null, retyped, missing = 0, dict[str, int](), column.block_missing
    whole = column.categories is not None  # then what is counted per block is counted once more
    for _, block, code, _, count, *_ in rows:
        if code in (_NULL, _NAN) and block is not None:
            missing[place[int(block)]] += int(count)
        if whole and block is not None:
            continue
        if code == _NULL:
            null += int(count)
        elif code in _FAMILY:
            family = _FAMILY[code].value
            retyped[family] = retyped.get(family, 0) + int(count)
    return replace(
        column,
        rows=rows_total,
        null=null,
        retyped=dict(sorted(retyped.items())),
        block_missing=missing,
        numbers=_numbers(column.numbers, rows, place) if column.numbers else None,
        categories=_categories(column.categories, rows, place) if column.categories else None,
    )


def _numbers(empty: NumberCounts, rows: Iterable[Sequence[Any]], place: Mapping[int, int]) -> NumberCounts:
    counts, blocks, center = empty.counts, empty.blocks, _center(empty.edges)
    apart = {_NAN: 0, _NEGATIVE: 0, _POSITIVE: 0}
    lows, highs, moments = [], [], (0, math.nan, math.nan)
    for _, block, code, _, found, _, _, low, high, first, second in rows:
        count = int(found)
        if code in apart:
            apart[code] += count
        bins = {_NEGATIVE: 0, _POSITIVE: counts.size - 1}.get(code, code)
        if bins < 0:
            continue
        counts[bins] += count
        if block is not None:
            blocks[place[int(block)], bins] += count
        if code >= 0:
            lows.append(float(low))
            highs.append(float(high))
            mean = math.nan if first is None else float(first) / count
            m2 = math.nan if first is None else max(0.0, float(second) - mean * float(first))
            moments = (moments[0] + count, *merge_moments(moments, (count, center + mean, m2)))
    result = replace(
        empty,
        counts=counts,
        blocks=blocks,
        nan=apart[_NAN],
        negative_infinity=apart[_NEGATIVE],
        positive_infinity=apart[_POSITIVE],
        minimum=min(lows, default=None),
        maximum=max(highs, default=None),
        mean=moments[1],
        m2=moments[2],
    )
    # A database adds rows up in an order of its own, another one each time; the same rows shall give the same profile.
    rounded = result.rounded_mean(_DIGITS)
    return replace(
        result,
        mean=math.nan if rounded is None else rounded,
        m2=float(f"{moments[2]:.{_DIGITS}g}"),
    )


def _categories(empty: CategoryCounts, rows: Iterable[Sequence[Any]], place: Mapping[int, int]) -> CategoryCounts:
    cells = {value: position for position, value in enumerate(empty.cells)}
    counts: dict[str, int] = {}
    blocks, tail = empty.blocks, 0
    for _, block, code, value, count, *_ in rows:
        if code not in (0, _TAIL):
            continue
        if block is not None:
            blocks[place[int(block)], cells[value] if code == 0 else len(cells)] += int(count)
        elif code == _TAIL:
            tail += int(count)
        else:
            counts[value] = int(count)
    return replace(empty, counts=counts, blocks=blocks, tail_rows=tail)
