"""
Does this data keep the promises of the reference? Asked before drift, which has no meaning on broken data. Pure.

Types come from the reference and are never inferred anew. A missing column is a violation, not a column less.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.drift.statistics import fisher_p
from airflow_provider_mlops.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow_provider_mlops.drift.profile import ColumnProfile, DataProfile, NumberCounts

__all__ = ["ContractPolicy", "Violation", "check_contract"]

_NULLS_MORE = 0.2  # a null share may rise by this much,
_NULLS_TIMES = 3.0  # or by this many times the reference's share
_NULLS_MOST = 0.5  # up to this share, before it is a defect and no drift
_CHANCE = 1e-6  # how unlikely a constant column, or values far outside, must be under the reference


@dataclass(frozen=True, slots=True)
class ContractPolicy:
    """
    What is held against the data beyond columns, types and nulls.

    :param allow_extra_columns: whether columns that the reference does not know are no violation.
    :param max_out_of_range: largest share of values outside the reference's range widened by its own span on both
        sides, 0..1. A column that comes in other units exceeds it.
    :param max_unparsed: largest share of CSV values that cannot be read in the reference's type, 0..1.
    :param domains: per column, the values it may hold.
    """

    allow_extra_columns: bool = False
    max_out_of_range: float = 0.3
    max_unparsed: float = 0.01
    domains: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("max_out_of_range", "max_unparsed"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: expected a share between 0 and 1, got {getattr(self, name)!r}.")


@dataclass(frozen=True, slots=True)
class Violation:
    """
    One broken promise.

    :param code: ``missing_column``, ``extra_column``, ``retyped``, ``unparsed_values``, ``all_null``, ``null_share``,
        ``constant``, ``out_of_range`` or ``domain``.
    :param numbers: the numbers behind the sentence.
    """

    column: str
    code: str
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


def check_contract(
    reference: DataProfile, current: DataProfile, policy: ContractPolicy | None = None
) -> tuple[Violation, ...]:
    """
    Return what is broken, in the reference's order of columns; at most one violation per column, the gravest.

    A window without rows breaks nothing.

    :raises ConfigError: a domain is given for a column that the reference does not have.
    """
    policy = policy or ContractPolicy()
    for name in policy.domains:
        if name not in reference.columns:
            raise ConfigError(
                f"domains: the reference has no column {name!r}.{did_you_mean(name, reference.columns)} "
                "Name one of its columns."
            )
    if current.rows == 0:
        return ()
    found = []
    for name, column in reference.columns.items():
        broken = next(_violations(name, column, current, policy), None)
        if broken is not None:
            found.append(broken)
    if not policy.allow_extra_columns:
        found += [
            Violation(name, "extra_column", f"{name!r} ({family}) is not in the reference.", {"family": family})
            for name, family in current.extra.items()
        ]
    return tuple(found)


def _violations(
    name: str, reference: ColumnProfile, current: DataProfile, policy: ContractPolicy
) -> Iterator[Violation]:
    column = current.columns.get(name)
    if column is None or column.rows == 0:
        yield Violation(name, "missing_column", f"{name!r} is missing from the data.{_renamed(name, current)}")
        return
    if reference.missing < reference.rows:  # without a single value its type is unknown
        yield from _type_violations(name, column, policy)
    yield from _null_violations(name, reference, column, current.rows)
    yield from _value_violations(name, reference, column, policy)


def _renamed(name: str, current: DataProfile) -> str:
    return did_you_mean(name, current.extra)


def _type_violations(name: str, column: ColumnProfile, policy: ContractPolicy) -> Iterator[Violation]:
    if column.retyped:
        came = " and ".join(column.retyped)
        rows = sum(column.retyped.values())
        yield Violation(
            name,
            "retyped",
            f"{name!r} came as {came} in {rows} of {column.rows} rows; the reference has {column.family.value}.",
            {"expected": column.family.value, "rows": dict(column.retyped)},
        )
    held = column.rows - column.null
    if held and column.unparsed / held > policy.max_unparsed:
        yield Violation(
            name,
            "unparsed_values",
            f"{column.unparsed} of {held} values of {name!r} are no {column.family.value}, as the reference has.",
            {"unparsed": column.unparsed, "values": held, "limit": policy.max_unparsed},
        )


def _null_violations(name: str, reference: ColumnProfile, column: ColumnProfile, rows: int) -> Iterator[Violation]:
    lacking = column.missing + rows - column.rows
    share, was = lacking / rows, reference.missing / reference.rows if reference.rows else 0.0
    if was >= 1:
        return
    if share >= 1:
        yield Violation(name, "all_null", f"All {rows} values of {name!r} are null.", {"share": 1.0, "reference": was})
    limit = max(min(_NULLS_MOST, was + _NULLS_TIMES * was), was + _NULLS_MORE)
    if share > limit:
        yield Violation(
            name,
            "null_share",
            f"{share:.1%} of {name!r} are null; in the reference {was:.1%}, and {limit:.1%} is the limit.",
            {"share": share, "reference": was, "limit": limit},
        )


def _value_violations(
    name: str, reference: ColumnProfile, column: ColumnProfile, policy: ContractPolicy
) -> Iterator[Violation]:
    if not column.values or not reference.values:
        return
    if (
        _constant(column)
        and not _constant(reference)
        and _largest_share(reference) ** column.values < _CHANCE
        and not _has_constant_block(reference)
    ):
        yield Violation(
            name,
            "constant",
            f"All {column.values} values of {name!r} are the same; in the reference they vary.",
            {"values": column.values},
        )
    if column.numbers is not None and reference.numbers is not None:
        yield from _range_violations(name, reference.numbers, column.numbers, policy)
    domain = policy.domains.get(name)
    if domain is not None and column.categories is not None:
        strange = {value: count for value, count in column.categories.counts.items() if value not in domain}
        if strange:
            shown = ", ".join(repr(value) for value in sorted(strange, key=lambda value: (-strange[value], value))[:5])
            rows = sum(strange.values())
            yield Violation(
                name,
                "domain",
                f"{rows} rows of {name!r} hold values outside its domain: {shown}.",
                {"rows": rows, "values": len(strange)},
            )


def _range_violations(
    name: str, reference: NumberCounts, numbers: NumberCounts, policy: ContractPolicy
) -> Iterator[Violation]:
    outside, before = numbers.far_outside, reference.far_outside
    share = outside / numbers.rows
    chance = fisher_p(before, reference.rows, outside, numbers.rows)
    if share > policy.max_out_of_range and share > before / reference.rows and chance < _CHANCE:
        low, high = reference.minimum, reference.maximum
        yield Violation(
            name,
            "out_of_range",
            f"{share:.1%} of {name!r} lie far outside the reference's {low:g} .. {high:g}. Has its unit changed?",
            {"share": share, "minimum": low, "maximum": high, "limit": policy.max_out_of_range},
        )


def _constant(column: ColumnProfile) -> bool:
    """Return whether all values are one and the same."""
    if column.numbers is not None:
        return column.numbers.finite == column.numbers.rows and column.numbers.minimum == column.numbers.maximum
    return column.categories is not None and not column.categories.tail_rows and len(column.categories.counts) == 1


def _has_constant_block(column: ColumnProfile) -> bool:
    """Return whether a time block of the reference held one value only, as a holiday's flag does for most weeks."""
    counts = column.numbers or column.categories
    if counts is None or not counts.blocks.size:
        return False
    rows = counts.blocks.sum(axis=1)
    return bool(((counts.blocks.max(axis=1) == rows) & (rows > 1)).any())


def _largest_share(column: ColumnProfile) -> float:
    """Return the share of the most frequent bin or value."""
    if column.numbers is not None:
        return float(column.numbers.counts.max()) / column.numbers.rows
    if column.categories is not None and column.categories.counts:
        return max(column.categories.counts.values()) / column.categories.rows
    return 1.0
