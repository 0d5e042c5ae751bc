"""
Has this data moved, and does it matter? Pure: two profiles and a policy in, a `DriftReport` out.

A column drifts when two keys turn: the change is *significant*, against chance and against how much the reference's
own time blocks differ, corrected over all tests; and it is *large*, at least ``ignore_shift_below``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_mlops.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ColumnReport", "DriftPolicy", "DriftReport", "Variation", "Verdict"]

MAX_ALPHA = 0.2


class Verdict(StrEnum):
    """What a check of one column, or of a window, found."""

    DRIFT = "drift"  # moved, beyond chance and natural variation, by an amount that matters
    NO_DRIFT = "no_drift"  # a shift worth reporting would very probably have been seen; none was
    INSUFFICIENT = "insufficient"  # a shift worth reporting could have been missed
    BAD_DATA = "bad_data"  # the data breaks the reference's contract; drift was not asked
    NO_DATA = "no_data"  # nothing, or next to nothing, to look at


class Variation(StrEnum):
    """Whether the reference showed how much its own time blocks differ."""

    KNOWN = "known"
    UNKNOWN = "unknown"  # fewer than 6 full blocks: rows were taken as independent; never retrain on such a verdict


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """
    When a change is called drift.

    :param ignore_shift_below: smallest change that matters, a share 0..1: the largest gap between two distributions,
        or the share of rows that moved between categories.
    :param false_alarms_per_30_days: expected number of false alarms that is accepted.
    :param checks_per_30_days: how many windows are checked in that time.
    :param min_rows: a window with fewer rows is `Verdict.NO_DATA`.
    :param correction: over all tests of a window: ``holm`` bounds the chance of any false alarm, ``bh`` (Benjamini-
        Hochberg) the share of false ones among the columns named.
    :param importance: how much each column matters to the model, any unit >= 0. Columns that together hold under 5 %
        of the sum are reported but do not make the window drift. ``None``: all columns count alike.
    """

    ignore_shift_below: float = 0.05
    false_alarms_per_30_days: float = 1.0
    checks_per_30_days: float = 30.0
    min_rows: int = 50
    correction: Literal["holm", "bh"] = "holm"
    importance: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.ignore_shift_below < 1:
            raise ConfigError(
                f"ignore_shift_below: expected a share between 0 and 1, got {self.ignore_shift_below!r}. "
                "0.05 ignores shifts of less than 5 % of the rows."
            )
        for name in ("false_alarms_per_30_days", "checks_per_30_days"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name}: expected a number > 0, got {value!r}.")
        if self.min_rows < 1:
            raise ConfigError(f"min_rows: expected a whole number >= 1, got {self.min_rows!r}.")
        if self.correction not in ("holm", "bh"):
            raise ConfigError(f"correction: expected 'holm' or 'bh', got {self.correction!r}.")
        if any(not (math.isfinite(value) and value >= 0) for value in (self.importance or {}).values()):
            raise ConfigError("importance: every value must be a finite number >= 0.")

    @property
    def alpha(self) -> float:
        """Chance of a false alarm that one window is allowed: accepted alarms over checks, at most 0.2."""
        return min(self.false_alarms_per_30_days / self.checks_per_30_days, MAX_ALPHA)


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """
    What was found in one column.

    :param reason: code, such as ``distribution``, ``too_small`` or ``natural_variation``.
    :param effect: size of the change, 0..1; ``None`` when it was not measured.
    :param effect_low: lower end of its 95 % interval.
    :param effect_high: upper end of its 95 % interval.
    :param limit: smallest effect that would have been called drift here.
    :param p: smallest p of the column's tests, not adjusted.
    :param p_adjusted: the same after the correction over all tests of the window.
    :param importance: share of the model's importance, 0..1, or ``None``.
    :param counts: whether the column counts for the window's verdict.
    :param rows_needed: rows the window needs before `Verdict.NO_DRIFT` can be said, or ``None``.
    :param numbers: further numbers behind the sentence.
    """

    name: str
    verdict: Verdict
    reason: str
    sentence: str
    effect: float | None = None
    effect_low: float | None = None
    effect_high: float | None = None
    limit: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    importance: float | None = None
    counts: bool = True
    rows_needed: int | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values without the name."""
        values = asdict(self)
        del values["name"]
        return {**values, "verdict": self.verdict.value, "numbers": dict(self.numbers)}


@dataclass(frozen=True, slots=True)
class DriftReport:
    """
    What was found in a window.

    :param reason: code of the verdict.
    :param sentence: the verdict in words, with its numbers.
    :param rows: ``{"reference": n, "current": m, "needed": k or None}``.
    :param columns: one report per column of the reference, and per extra column.
    :param top_columns: the drifted (or bad) columns, the most important change first.
    :param plain_alarm: what a test per column at .05 that takes rows as independent would have said; for the log.
    :param plain_columns: the columns that test would have named.
    :param variation: whether natural variation was known.
    :param alpha: chance of a false alarm that this window was allowed.
    :param tests: number of tests corrected for, fixed by the reference.
    :param notes: codes of what a reader should know: ``variation_unknown``, ``reference_small``.
    """

    verdict: Verdict
    reason: str
    sentence: str
    rows: Mapping[str, int | None]
    columns: Mapping[str, ColumnReport]
    top_columns: tuple[str, ...]
    plain_alarm: bool
    plain_columns: tuple[str, ...]
    variation: Variation
    alpha: float
    tests: int
    notes: tuple[str, ...] = ()

    @property
    def drifted(self) -> bool:
        """Whether the verdict is `Verdict.DRIFT`."""
        return self.verdict is Verdict.DRIFT

    def to_dict(self) -> dict[str, Any]:
        """Return plain, JSON-able values."""
        return {
            "verdict": self.verdict.value,
            "reason": self.reason,
            "sentence": self.sentence,
            "rows": dict(self.rows),
            "columns": {name: column.to_dict() for name, column in self.columns.items()},
            "top_columns": list(self.top_columns),
            "plain_alarm": self.plain_alarm,
            "plain_columns": list(self.plain_columns),
            "variation": self.variation.value,
            "alpha": self.alpha,
            "tests": self.tests,
            "notes": list(self.notes),
        }
