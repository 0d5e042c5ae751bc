"""
The counting kernel: arrow arrays in, counts on fixed bins out. One pass, bounded memory.

Numbers: sort the batch and search the *edges in the batch*, an order of magnitude cheaper than searching each value
in the edges. Categories: count dictionary indices, and look at the values once per dictionary.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_mlops.drift.counts import (
    CATEGORY_CAP,
    CategoryCounts,
    Family,
    NumberCounts,
    cap_counts,
    counts_array,
    merge_moments,
    no_counts,
)
from airflow_provider_mlops.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    import pyarrow as pa

    from airflow_provider_mlops.drift.counts import Counts

__all__ = ["CategoryCounter", "NumberCounter", "Scratch", "family_of", "microseconds", "parse_text", "plain"]

_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
_MOMENTS = tuple(  # the earliest and the latest time that a datetime can hold, microseconds since 1970
    (datetime(year, month, day, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for year, month, day in ((1, 1, 1), (9999, 12, 31))
)
_PENDING = 4 * CATEGORY_CAP  # values held before they are summed up


class Scratch:
    """Memory that the counters of one builder overwrite in turn: new pages for every batch cost more than counting."""

    def __init__(self) -> None:
        self._bytes = {place: np.empty(0, np.uint8) for place in ("values", "wide")}

    def array(self, place: str, size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return room for *size* values of *dtype* in *place*, ``values`` or ``wide``, until it is asked for again."""
        needed = size * np.dtype(dtype).itemsize
        if self._bytes[place].size < needed:
            self._bytes[place] = np.empty(needed, np.uint8)
        return self._bytes[place][:needed].view(dtype)


class NumberCounter:
    """Counts the numbers of one column on the bins of *layout*."""

    def __init__(self, layout: NumberCounts, scratch: Scratch | None = None) -> None:
        self._layout = layout
        self._scratch = scratch or Scratch()
        self._reached = np.zeros(layout.edges.size + 1, dtype=np.int64)  # rows up to each edge, and all rows
        self._blocks: dict[int, Counts] = {}
        self._nan = self._negative = self._positive = 0
        self._minimum, self._maximum = math.inf, -math.inf
        self._moments = (0, math.nan, math.nan)

    def add(self, array: pa.Array, block: int | None) -> int:
        """Count *array*, whose rows all lie in *block* (``None``: in no block); return its missing rows."""
        import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

        nulls = int(array.null_count)
        values = _slots(array)
        if nulls:
            values = values[_valid(array)]
        if pa.types.is_floating(array.type):
            nan = self._add_sorted(values, block)
            self._nan += nan
            return nulls + nan
        if values.size and int(values.max()) - int(values.min()) < values.size:
            self._add_close(values, block)
        else:
            self._add_sorted(values, block)
        return nulls

    def _add_close(self, values: npt.NDArray[Any], block: int | None) -> None:
        """Count integers that lie so close together that a count per integer takes less room than they do."""
        lowest = values.min()
        steps = self._scratch.array("values", values.size, np.int64)
        np.subtract(values, lowest, out=steps, dtype=np.int64, casting="unsafe")
        rows = np.bincount(steps)
        seen = np.flatnonzero(rows)
        rows = rows[seen]
        numbers = (seen.astype(values.dtype) + lowest).astype(np.float64)
        below = np.searchsorted(numbers, self._layout.edges, side="right")
        self._add_reached(np.concatenate([[0], rows.cumsum()])[below], values.size, block)
        mean = float((rows * numbers).sum() / values.size)
        m2 = float((rows * np.square(numbers - mean)).sum())
        self._add_moments(values.size, float(numbers[0]), float(numbers[-1]), mean, m2)

    def _add_sorted(self, values: npt.NDArray[Any], block: int | None) -> int:
        """Count numbers of any type and return how many are NaN."""
        ordered = self._scratch.array("values", values.size, values.dtype)
        np.copyto(ordered, values)
        ordered.sort()
        nan = 0
        if ordered.size and ordered[-1] != ordered[-1]:  # NaN is sorted to the end
            nan = ordered.size - int(np.searchsorted(ordered, ordered[-1]))
            ordered = ordered[: ordered.size - nan]
        if ordered.size == 0:
            return nan
        if ordered.dtype != np.float64:
            narrow, ordered = ordered, self._scratch.array("wide", ordered.size, np.float64)
            np.copyto(ordered, narrow)
        self._add_reached(np.searchsorted(ordered, self._layout.edges, side="right"), ordered.size, block)
        low, high = 0, ordered.size
        if ordered[0] == -np.inf:
            low = int(np.searchsorted(ordered, -np.inf, side="right"))
            self._negative += low
        if ordered[-1] == np.inf:
            high = int(np.searchsorted(ordered, np.inf))
            self._positive += ordered.size - high
        if low < high:
            finite = ordered[low:high]
            first, last = float(finite[0]), float(finite[-1])
            with np.errstate(over="ignore", invalid="ignore"):
                mean = float(finite.sum() / finite.size)
                finite -= mean
                m2 = float(np.square(finite, out=finite).sum())
            self._add_moments(finite.size, first, last, mean, m2)
        return nan

    def _add_reached(self, below: Counts, size: int, block: int | None) -> None:
        reached = np.empty_like(self._reached)
        reached[:-1], reached[-1] = below, size
        self._reached += reached
        if block in self._blocks:
            self._blocks[block] += reached
        elif block is not None:
            self._blocks[block] = reached

    def _add_moments(self, size: int, first: float, last: float, mean: float, m2: float) -> None:
        self._minimum, self._maximum = min(self._minimum, first), max(self._maximum, last)
        self._moments = (self._moments[0] + size, *merge_moments(self._moments, (size, mean, m2)))

    def result(self, blocks: Sequence[int]) -> NumberCounts:
        """Return the counts, with one row per block of *blocks*."""
        width = self._reached.size
        zeros = np.zeros(width, dtype=np.int64)
        rows = [self._blocks.get(block, zeros) for block in blocks]
        finite, mean, m2 = self._moments
        return NumberCounts(
            edges=self._layout.edges,
            counts=np.diff(self._reached, prepend=0),
            blocks=counts_array(np.diff(np.stack(rows), prepend=0)) if rows else no_counts(width),
            nan=self._nan,
            negative_infinity=self._negative,
            positive_infinity=self._positive,
            minimum=self._minimum if finite else None,
            maximum=self._maximum if finite else None,
            mean=mean,
            m2=m2,
        )


class CategoryCounter:
    """Counts the values of one text or boolean column, and the cells of *layout* per block."""

    def __init__(self, layout: CategoryCounts) -> None:
        self._layout = layout
        self._blocks: dict[int, Counts] = {}
        self._dictionary: Any = None
        self._open: dict[int | None, Counts] = {}  # counts on the dictionary in use, per block
        self._pending: list[tuple[Any, Counts]] = []
        self._pending_values = 0
        self._tail_rows = 0

    def add(self, array: pa.Array, block: int | None) -> int:
        """Count *array*, whose rows all lie in *block* (``None``: in no block); return its missing rows."""
        import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

        nulls = array.null_count
        if pa.types.is_boolean(array.type):
            indices = array.cast(pa.int8())
            dictionary = pa.array(["false", "true"], pa.large_string())
        else:
            if not pa.types.is_dictionary(array.type):
                array = array.cast(pa.large_string()).dictionary_encode()
            indices, dictionary = array.indices, array.dictionary
        places = _slots(indices)[_valid(indices)] if nulls else _slots(indices)
        if self._dictionary is None or not self._dictionary.equals(dictionary):
            self._flush()
            self._dictionary = dictionary
        counts = np.bincount(places, minlength=len(dictionary))
        if block in self._open:
            self._open[block] += counts
        else:
            self._open[block] = counts
        return int(nulls)

    def _flush(self) -> None:
        """Look at the values of the dictionary in use, once."""
        import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

        if not self._open:
            return
        total = np.stack(list(self._open.values())).sum(axis=0)
        cells = self._layout.cells
        if any(block is not None for block in self._open):
            import pyarrow.compute as pc  # noqa: PLC0415 - loads at use, and takes as long as to count a million rows

            values = self._dictionary.cast(pa.large_string())
            place = pc.index_in(values, value_set=pa.array(cells, pa.large_string()))
            place = place.fill_null(len(cells)).to_numpy(zero_copy_only=False)
            for block, counts in self._open.items():
                if block is not None:
                    summed = np.bincount(place, weights=counts, minlength=len(cells) + 1).astype(np.int64)
                    self._blocks[block] = self._blocks.get(block, np.zeros_like(summed)) + summed
        self._pending.append((self._dictionary, total))
        self._pending_values += total.size
        self._open = {}
        if self._pending_values > _PENDING:
            self._compact(2 * CATEGORY_CAP)

    def _compact(self, keep: int) -> None:
        """Sum up what is pending, and let go of all but the *keep* most frequent values."""
        import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

        if len(self._pending) < 2 and self._pending_values <= keep:
            return
        parts = [
            pa.table({"value": values.cast(pa.large_string()), "count": counts}).filter(pa.array(counts > 0))
            for values, counts in self._pending
        ]
        table = pa.concat_tables(parts).group_by("value", use_threads=False).aggregate([("count", "sum")])
        table = table.rename_columns(["value", "count"])
        if table.num_rows > keep:
            table = table.sort_by([("count", "descending"), ("value", "ascending")])
            self._tail_rows += int(np.sum(table["count"].to_numpy()[keep:]))
            table = table.slice(0, keep)
        self._pending = [(table["value"].combine_chunks(), table["count"].to_numpy())]
        self._pending_values = table.num_rows

    def result(self, blocks: Sequence[int]) -> CategoryCounts:
        """Return the counts, with one row per block of *blocks*."""
        self._flush()
        self._compact(2 * CATEGORY_CAP)
        counts: dict[str, int] = {}
        for values, numbers in self._pending:
            for value, number in zip(values.to_pylist(), numbers.tolist(), strict=True):
                if number:
                    counts[value] = counts.get(value, 0) + number
        counts, dropped = cap_counts(counts)
        width = len(self._layout.cells) + 1
        zeros = np.zeros(width, dtype=np.int64)
        rows = [self._blocks.get(block, zeros) for block in blocks]
        return CategoryCounts(
            cells=self._layout.cells,
            counts=counts,
            blocks=np.stack(rows) if rows else no_counts(width),
            tail_rows=self._tail_rows + dropped,
        )


def _slots(array: pa.Array) -> npt.NDArray[Any]:
    """Return the memory of an array of numbers; nulls hold anything. Arrow's `to_numpy` would load pandas."""
    import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

    types, width = pa.types, array.type.bit_width // 8
    kind = "f" if types.is_floating(array.type) else "i" if types.is_signed_integer(array.type) else "u"
    dtype = np.dtype(f"{kind}{width}")
    if len(array) == 0:
        return np.empty(0, dtype)
    return np.frombuffer(array.buffers()[1], dtype, count=len(array), offset=array.offset * dtype.itemsize)


def _valid(array: pa.Array) -> npt.NDArray[np.bool_]:
    """Return which values of an array that has nulls are none."""
    bits = np.frombuffer(array.buffers()[0], np.uint8)
    return np.unpackbits(bits, count=array.offset + len(array), bitorder="little")[array.offset :].view(np.bool_)


def family_of(type_: pa.DataType) -> Family:
    """Return the family of an arrow type; of a dictionary's values for a dictionary."""
    import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

    types = pa.types
    if types.is_dictionary(type_):
        type_ = type_.value_type
    if types.is_boolean(type_):
        return Family.BOOLEAN
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return Family.NUMBER
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return Family.TEXT
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    if any(is_list(type_) for is_list in lists) and types.is_floating(type_.value_type):
        return Family.VECTOR
    if types.is_temporal(type_) and not types.is_duration(type_):
        return Family.TIME
    return Family.OTHER


def parse_text(array: pa.Array, family: Family) -> pa.Array:
    """Return text read as numbers or booleans; what cannot be read becomes null."""
    import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time
    import pyarrow.compute as pc  # noqa: PLC0415 - loads at use, never at parse time

    text = pc.utf8_trim_whitespace(array.cast(pa.large_string()))
    if family is Family.BOOLEAN:
        lower = pc.utf8_lower(text)
        known = pc.is_in(lower, value_set=pa.array(["true", "false", "1", "0"], pa.large_string()))
        yes = pc.is_in(lower, value_set=pa.array(["true", "1"], pa.large_string()))
        return pc.if_else(known, yes, None)
    if family is not Family.NUMBER:
        return pa.nulls(len(array))
    number = pc.match_substring_regex(text, _NUMBER)
    return pc.if_else(number, text, None).cast(pa.float64())


def microseconds(array: pa.Array, *, name: str, calendar: bool = False) -> tuple[Counts, npt.NDArray[np.bool_]]:
    """
    Return event times as microseconds since 1970 UTC, and which rows have one. Naive times are UTC.

    :param calendar: refuse times that no `datetime` can hold.
    """
    import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

    if not (pa.types.is_timestamp(array.type) or pa.types.is_date(array.type)):
        raise DataError(
            f"The timestamp column {name!r} holds {array.type}, which is no time. Name a column of dates or "
            "timestamps, or convert it."
        )
    zone = array.type.tz if pa.types.is_timestamp(array.type) else None
    whole = array.cast(pa.timestamp("us", tz=zone), safe=False).cast(pa.int64())
    valid = np.ones(len(whole), dtype=bool) if whole.null_count == 0 else whole.is_valid().to_numpy(False)
    times = whole.fill_null(0).to_numpy(zero_copy_only=False)
    if calendar and times.size and not _MOMENTS[0] <= times.min() <= times.max() <= _MOMENTS[1]:
        raise DataError(
            f"The timestamp column {name!r} holds a time outside the years 1 to 9999. Is its unit right (seconds, "
            "milliseconds), and the file whole?"
        )
    return times, valid


def plain(array: pa.Array) -> pa.Array:
    """Return *array* without dictionaries (but for dictionaries of text) and without decimals."""
    import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

    if pa.types.is_dictionary(array.type) and (family_of(array.type) is not Family.TEXT or array.dictionary.null_count):
        array = array.dictionary_decode()
    return array.cast(pa.float64()) if pa.types.is_decimal(array.type) else array
