"""
A contract written by hand: what must hold for rows, columns and their values. Pure.

What the champion's data was like is another contract, see `drift.contract`; this one knows only what it was told.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from airflow_provider_mlops.data import parse_duration
from airflow_provider_mlops.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["Contract", "ContractCheck", "Violation"]

_SHOWN = 5  # values outside a domain that a sentence names
_KEPT = 1_000  # distinct values outside a domain that are counted one by one

Bounds = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Violation:
    """
    One broken promise.

    :param column: the column, or ``""`` where it is about the rows.
    :param code: ``missing_column``, ``min_rows``, ``null_share``, ``wrong_type``, ``out_of_range``, ``domain``,
        ``duplicates`` or ``stale``; from a suite the type of the expectation.
    :param sentence: what was expected and what was found.
    :param numbers: the numbers behind the sentence.
    """

    column: str
    code: str
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contract:
    """
    What must hold.

    :param min_rows: fewest rows.
    :param unique: columns that together identify a row; a null is a value like any other.
    :param ranges: smallest and largest value per column, both allowed; ``None`` leaves a side open. NaN and null do
        not count here, see *null_share*.
    :param domains: allowed values per column; NaN and null do not count here either.
    :param null_share: largest share of null or NaN per column, 0..1.
    :param fresh_within: largest age of the newest row.
    """

    min_rows: int = 0
    unique: tuple[str, ...] = ()
    ranges: Mapping[str, Bounds] = field(default_factory=dict)
    domains: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    null_share: Mapping[str, float] = field(default_factory=dict)
    fresh_within: timedelta | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Contract:
        """
        Return the contract that a plain mapping describes, durations as ``2d``.

        :raises ConfigError: a key that does not exist, or a value that makes no sense, with its path.
        """
        known = [item.name for item in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(
                    f"contract: {key!r} is no key of a contract.{did_you_mean(key, known)} "
                    f"The keys are {', '.join(known)}."
                )
        given = {key: value for key, value in values.items() if value is not None}
        fresh = given.get("fresh_within")
        return cls(
            min_rows=_whole("min_rows", given.get("min_rows", 0)),
            unique=_names("unique", given.get("unique", ())),
            ranges={name: _bounds(name, pair) for name, pair in _mapping("ranges", given).items()},
            domains={name: _domain(name, allowed) for name, allowed in _mapping("domains", given).items()},
            null_share={name: _share(name, share) for name, share in _mapping("null_share", given).items()},
            fresh_within=fresh if isinstance(fresh, timedelta) or fresh is None else parse_duration(fresh),
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the contract speaks of."""
        return tuple(dict.fromkeys([*self.unique, *self.ranges, *self.domains, *self.null_share]))


class ContractCheck:
    """
    One pass over the rows. Memory: 8 bytes a row where the contract names *unique* columns, else a constant.

    :param contract: what must hold.
    """

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        self._rows = 0
        self._missing_columns: dict[str, None] = {}
        self._nulls: Counter[str] = Counter()
        self._types: dict[str, str] = {}
        self._outside: Counter[str] = Counter()
        self._extremes: dict[str, tuple[float, float]] = {}
        self._strange: dict[str, Counter[Any]] = {name: Counter() for name in contract.domains}
        self._keys: list[NDArray[np.uint64]] = []

    def add(self, batch: pa.RecordBatch, keys: NDArray[np.uint64] | None = None) -> None:
        """
        Count the rows of *batch*.

        :param keys: a hash per row of the contract's *unique* columns, shape ``(rows,)``; equal rows, equal hashes.
        """
        contract = self._contract
        self._rows += batch.num_rows
        names = set(batch.schema.names)
        self._missing_columns.update(dict.fromkeys(name for name in contract.columns if name not in names))
        for name in contract.null_share.keys() & names:
            self._nulls[name] += batch.column(name).is_null(nan_is_null=True).true_count
        for name in contract.ranges.keys() & names:
            self._add_range(name, batch.column(name))
        for name in contract.domains.keys() & names:
            self._add_domain(name, batch.column(name))
        if keys is not None:
            self._keys.append(keys)

    def violations(self, *, newest: datetime | None = None, as_of: datetime | None = None) -> tuple[Violation, ...]:
        """
        Return what is broken: the rows first, then the columns in the contract's order.

        :param newest: event time of the newest row, ``None`` when no row has one.
        :param as_of: the moment that *fresh_within* counts back from; naive is UTC.
        """
        contract = self._contract
        found = []
        if self._rows < contract.min_rows:
            found.append(
                _about(
                    "", "min_rows", f"{self._rows:,} rows; at least {contract.min_rows:,} are needed.", rows=self._rows
                )
            )
        found += self._stale(newest, as_of)
        found += [
            _about(name, "missing_column", f"{name!r} is missing from the data; the contract speaks of it.")
            for name in self._missing_columns
        ]
        found += self._duplicates()
        found += [violation for name in contract.columns for violation in self._of_column(name)]
        return tuple(found)

    def _add_range(self, name: str, column: pa.Array) -> None:
        import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
            if not pa.types.is_null(kind):
                self._types[name] = str(kind)
            return
        values = column.drop_null().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        values = values[~np.isnan(values)]
        if not len(values):
            return
        low, high = self._contract.ranges[name]
        outside = np.zeros(len(values), dtype=bool)
        if low is not None:
            outside |= values < low
        if high is not None:
            outside |= values > high
        self._outside[name] += int(outside.sum())
        least, most = self._extremes.get(name, (math.inf, -math.inf))
        self._extremes[name] = min(least, float(values.min())), max(most, float(values.max()))

    def _add_domain(self, name: str, column: pa.Array) -> None:
        import pyarrow as pa  # noqa: PLC0415 - loads at use, never at parse time

        if pa.types.is_nested(column.type):
            self._types[name] = str(column.type)
            return
        allowed, strange = set(self._contract.domains[name]), self._strange[name]
        for entry in column.drop_null().value_counts().to_pylist():
            value = entry["values"]
            if value == value and value not in allowed:  # noqa: PLR0124 - NaN is no value
                strange[value if value in strange or len(strange) < _KEPT else "..."] += entry["counts"]

    def _stale(self, newest: datetime | None, as_of: datetime | None) -> list[Violation]:
        limit = self._contract.fresh_within
        if limit is None or as_of is None:
            return []
        if newest is None:
            return [_about("", "stale", f"No row has an event time, so none is younger than {limit}.")]
        age = _utc(as_of) - _utc(newest)
        if age <= limit:
            return []
        sentence = f"The newest row is from {_utc(newest).isoformat()}, {age} before {_utc(as_of).isoformat()}; "
        return [_about("", "stale", f"{sentence}{limit} is the limit.", age_seconds=age.total_seconds())]

    def _duplicates(self) -> list[Violation]:
        keys = np.concatenate(self._keys) if self._keys else np.empty(0, np.uint64)
        double = len(keys) - len(np.unique(keys))
        if not double:
            return []
        names = ", ".join(map(repr, self._contract.unique))
        return [
            _about(
                ", ".join(self._contract.unique),
                "duplicates",
                f"{double:,} of {self._rows:,} rows repeat the {names} of another row.",
                rows=double,
            )
        ]

    def _of_column(self, name: str) -> Iterable[Violation]:
        contract = self._contract
        limit = contract.null_share.get(name)
        share = self._nulls[name] / self._rows if self._rows else 0.0
        if limit is not None and share > limit:
            yield _about(
                name, "null_share", f"{share:.2%} of {name!r} are null; {limit:.2%} is the limit.", share=share
            )
        if name in self._types:
            needed = "numbers" if name in contract.ranges else "single values"
            sentence = f"{name!r} holds {self._types[name]}; the contract needs {needed}."
            yield _about(name, "wrong_type", sentence, type=self._types[name])
        if self._outside[name]:
            low, high = contract.ranges[name]
            least, most = self._extremes[name]
            yield _about(
                name,
                "out_of_range",
                f"{self._outside[name]:,} of {self._rows:,} values of {name!r} are outside {_span(low, high)}; "
                f"they reach from {least:g} to {most:g}.",
                rows=self._outside[name],
                minimum=least,
                maximum=most,
            )
        strange = self._strange.get(name)
        if strange:
            shown = ", ".join(repr(value)[:60] for value, _ in strange.most_common(_SHOWN))
            more = ", ..." if len(strange) > _SHOWN else ""
            yield _about(
                name,
                "domain",
                f"{sum(strange.values()):,} rows of {name!r} hold a value outside its domain: {shown}{more}.",
                rows=sum(strange.values()),
            )


def _about(column: str, code: str, sentence: str, **numbers: Any) -> Violation:
    return Violation(column, code, sentence, numbers)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _span(low: float | None, high: float | None) -> str:
    return f"{'' if low is None else f'{low:g} '}..{'' if high is None else f' {high:g}'}"


def _mapping(key: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    found = values.get(key, {})
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"contract.{key}: expected a mapping from columns, got {found!r}.")
    return found


def _whole(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"contract.{key}: expected a whole number >= 0, got {value!r}.")
    return value


def _names(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)) or not all(isinstance(x, str) for x in value):
        raise ConfigError(f"contract.{key}: expected a list of columns, got {value!r}.")
    return tuple(value)


def _bounds(name: str, pair: Any) -> Bounds:
    numbers = (int, float, type(None))
    fits = isinstance(pair, (list, tuple)) and len(pair) == 2
    if not fits or any(isinstance(end, bool) or not isinstance(end, numbers) or end != end for end in pair):  # noqa: PLR0124 - NaN
        raise ConfigError(f"contract.ranges.{name}: expected [smallest, largest], null for an open side, got {pair!r}.")
    low, high = pair
    if low is not None and high is not None and low > high:
        raise ConfigError(f"contract.ranges.{name}: {low!r} is above {high!r}.")
    return low, high


def _domain(name: str, allowed: Any) -> tuple[Any, ...]:
    if (
        not isinstance(allowed, (list, tuple))
        or not allowed
        or not all(isinstance(value, (str, int, float)) for value in allowed)
    ):
        raise ConfigError(f"contract.domains.{name}: expected a list of allowed values, got {allowed!r}.")
    return tuple(allowed)


def _share(name: str, share: Any) -> float:
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise ConfigError(f"contract.null_share.{name}: expected a share between 0 and 1, got {share!r}.")
    return float(share)
