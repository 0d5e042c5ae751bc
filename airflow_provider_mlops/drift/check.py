"""
Has this data moved, and does it matter? Pure: two profiles and a policy in, a `DriftReport` out.

A column drifts when two keys turn: the change is *significant*, against chance and against how much the reference's
own time blocks differ, corrected over all tests; and it is *large*, at least ``ignore_shift_below``.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from airflow_provider_mlops.drift import statistics, vectors
from airflow_provider_mlops.drift.contract import check_contract
from airflow_provider_mlops.drift.profile import MIN_BLOCKS, Family
from airflow_provider_mlops.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from airflow_provider_mlops.drift.contract import ContractPolicy, Violation
    from airflow_provider_mlops.drift.profile import CategoryCounts, ColumnProfile, DataProfile, NumberCounts

__all__ = [
    "MEASURED",
    "ColumnReport",
    "DriftPolicy",
    "DriftReport",
    "Variation",
    "Verdict",
    "check",
    "counted",
    "rows_needed",
]

MAX_ALPHA = 0.2
EXACT_BELOW = 50_000  # effective rows under which the exact law is worth its cost near the limit
MODERATE_FROM = 20  # numeric columns from which their variances are moderated together
MOST_VARIATION = 0.5  # a column that cannot show a smaller change than this has told nothing
MINOR_IMPORTANCE = 0.05  # columns that together hold less importance do not count
PLAIN_ALPHA = 0.05
NAMED = 5  # columns that are not compared and named in a sentence


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
    :param min_rows: a window with fewer rows, or one that is compared with fewer, is `Verdict.NO_DATA`.
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

    :param reason: code, such as ``distribution``, ``too_small``, ``usual`` (moved, as blocks of the reference do) or
        ``natural_variation``.
    :param effect: size of the change, 0..1; ``None`` when it was not measured.
    :param effect_low: lower end of its 95 % interval.
    :param effect_high: upper end of its 95 % interval.
    :param limit: smallest effect that would have been called drift here.
    :param p: smallest p of the column's tests, not adjusted.
    :param p_adjusted: the same after the correction over all tests of the window.
    :param importance: share of the model's importance, 0..1, or ``None``.
    :param counts: whether the column counts for the window's verdict.
    :param rows_needed: rows the window needs before `Verdict.NO_DRIFT` can be said, or ``None``.
    :param numbers: further numbers behind the sentence, and some that decide nothing: ``psi``, the population stability
        index over tenths of the reference (of categories: over those with at least 1 % of its rows); ``wasserstein``,
        how far the values moved on average, in their unit; ``distinct_before`` and ``distinct_now``, how many
        categories were seen (at least, with ``distinct_at_least``: beyond 50,000 they are not counted one by one).
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
    :param rows: ``{"reference": n, "current": m, "needed": k or None}``; of a sampled side also how many rows there
        are, ``reference_of`` and ``current_of``.
    :param columns: one report per column of the reference, and per extra column.
    :param top_columns: the drifted (or bad) columns, the most important change first.
    :param plain_alarm: what a test per column at .05 that takes rows as independent would have said; for the log.
    :param plain_columns: the columns that test would have named.
    :param variation: whether natural variation was known.
    :param alpha: chance of a false alarm that this window was allowed.
    :param tests: number of tests corrected for, fixed by the reference.
    :param notes: codes of what a reader should know: ``variation_unknown``, ``reference_small``, ``sampled``.
    :param segment: the column by which the rows were judged apart as well, or ``None``.
    :param segments: what was found in the rows of each of its values; under ``None`` in all other rows.
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
    segment: str | None = None
    segments: Mapping[str | None, DriftReport] = field(default_factory=dict)

    @property
    def drifted(self) -> bool:
        """Whether the verdict is `Verdict.DRIFT`."""
        return self.verdict is Verdict.DRIFT

    @property
    def not_compared(self) -> tuple[str, ...]:
        """The columns whose values were not compared; only their missing values were counted."""
        return tuple(name for name, column in self.columns.items() if column.reason in _NOT_COMPARED)

    def to_dict(self) -> dict[str, Any]:
        """Return plain, JSON-able values."""
        return {
            "verdict": self.verdict.value,
            "reason": self.reason,
            "sentence": self.sentence,
            "rows": dict(self.rows),
            "columns": {name: column.to_dict() for name, column in self.columns.items()},
            "top_columns": list(self.top_columns),
            "not_compared": list(self.not_compared),
            "plain_alarm": self.plain_alarm,
            "plain_columns": list(self.plain_columns),
            "variation": self.variation.value,
            "alpha": self.alpha,
            "tests": self.tests,
            "notes": list(self.notes),
            "segment": self.segment,
            "segments": [{"value": value, **report.to_dict()} for value, report in self.segments.items()],
        }


def check(
    reference: DataProfile,
    current: DataProfile,
    policy: DriftPolicy | None = None,
    *,
    contract: ContractPolicy | None = None,
    trailing: DataProfile | None = None,
) -> DriftReport:
    """
    Compare *current* with *reference*.

    In this order: fewer than ``policy.min_rows`` rows on either side are ``no_data``; broken promises are ``bad_data``;
    a column that moved makes ``drift``; a column in which a change could have been missed makes ``insufficient``;
    only then ``no_drift``. Segments of the reference are judged alike, each on its own rows; drift in one of them is
    drift of the window, and one that holds too few rows is said to, and changes nothing. All tests of all segments are
    corrected together with those of the whole.

    :param current: counted on the layout of *reference*.
    :param contract: what is held against the data before drift is asked.
    :param trailing: the time just before the window, on the same layout. A column also drifts when it moved against
        that; ``numbers["change"]`` tells ``sudden`` (against both), ``gradual`` (against *reference* only) and
        ``recent`` (against *trailing* only). The number of tests doubles. How much windows vary is still learnt from
        *reference*.
    :raises ConfigError: *current* or *trailing* was counted on other bins.
    """
    policy = policy or DriftPolicy()
    _require_bins(reference, current, "window")
    if trailing is not None:
        _require_bins(reference, trailing, "trailing window")
    rows = {"reference": reference.rows, "current": current.rows, "needed": None}
    if min(current.rows, reference.rows) < policy.min_rows:
        return _no_data(reference, policy, rows, _count_tests(reference) * (2 if trailing else 1))
    violations = check_contract(reference, current, contract)
    broken = {violation.column: _broken(violation) for violation in violations}
    parts = _parts(reference, current, policy, trailing=trailing, skip=set(broken))
    judged, *others = _judge([_Part(reference, current, trailing, set(broken)), *parts.values()], policy)
    columns = {name: broken.get(name) or judged.columns[name] for name in reference.columns}
    columns |= {name: report for name, report in broken.items() if name not in columns}
    rows["needed"] = _needed(columns)
    verdict, reason, sentence, top = _conclude(columns, judged, violations)
    variation = judged.variation
    segments = _segments(reference, current, policy, dict(zip(parts, others, strict=True)))
    drifted = {value: part for value, part in segments.items() if part.drifted}
    if reference.segments is not None and verdict not in {Verdict.BAD_DATA, Verdict.DRIFT} and drifted:
        whole = "drift could have been missed" if verdict is Verdict.INSUFFICIENT else "the data did not drift"
        verdict, reason = Verdict.DRIFT, "segment"
        top = tuple(dict.fromkeys(name for part in drifted.values() for name in part.top_columns))
        if all(part.variation is Variation.UNKNOWN for part in drifted.values()):
            variation, reason = Variation.UNKNOWN, "variation_unknown"
        sentence = f"As a whole {whole}. {_in_segments(reference.segments.column, segments, drifted)}"
    elif verdict is Verdict.DRIFT and reference.segments is not None and segments:
        sentence += f" So did {len(drifted)} of {counted(len(segments), 'segment')} by {reference.segments.column!r}."
    elif reference.segments is not None and segments:
        sentence += f" {_in_segments(reference.segments.column, segments, drifted)}"
    notes = ["variation_unknown"] * (variation is Variation.UNKNOWN)
    notes += ["reference_small"] * (reference.rows < 5 * current.rows)
    if current.sampled_of or reference.sampled_of:
        notes.append("sampled")
        rows |= {"reference_of": reference.sampled_of, "current_of": current.sampled_of}
        if current.sampled_of:
            sentence += f" {current.rows:,} of {current.sampled_of:,} rows were read."
    return DriftReport(
        verdict=verdict,
        reason=reason,
        sentence=sentence,
        rows=rows,
        columns=columns,
        top_columns=top,
        plain_alarm=bool(judged.plain),
        plain_columns=judged.plain,
        variation=variation,
        alpha=policy.alpha,
        tests=judged.tests,
        notes=tuple(notes),
        segment=reference.segments.column if reference.segments else None,
        segments=segments,
    )


def _needed(columns: Mapping[str, ColumnReport]) -> int | None:
    return max((c.rows_needed for c in columns.values() if c.rows_needed and c.counts), default=None)


def _parts(
    reference: DataProfile,
    current: DataProfile,
    policy: DriftPolicy,
    *,
    trailing: DataProfile | None,
    skip: set[str],
) -> dict[str | None, _Part]:
    """Return the segments that hold enough rows to be judged."""
    if reference.segments is None or current.segments is None:
        return {}
    before = trailing.segments.profiles if trailing is not None and trailing.segments is not None else {}
    now = current.segments.profiles
    return {
        value: _Part(part, now[value], before.get(value), skip)
        for value, part in reference.segments.profiles.items()
        if min(part.rows, now[value].rows) >= policy.min_rows
    }


def _segments(
    reference: DataProfile, current: DataProfile, policy: DriftPolicy, judged: Mapping[str | None, _Judged]
) -> dict[str | None, DriftReport]:
    """Return a report per segment."""
    if reference.segments is None or current.segments is None:
        return {}
    found: dict[str | None, DriftReport] = {}
    for value, part in reference.segments.profiles.items():
        window = current.segments.profiles[value]
        rows: dict[str, int | None] = {"reference": part.rows, "current": window.rows, "needed": None}
        if value not in judged:
            found[value] = _no_data(part, policy, rows, _count_tests(part))
            continue
        of = judged[value]
        verdict, reason, sentence, top = _conclude(of.columns, of, ())
        found[value] = DriftReport(
            verdict=verdict,
            reason=reason,
            sentence=sentence,
            rows={**rows, "needed": _needed(of.columns)},
            columns=of.columns,
            top_columns=top,
            plain_alarm=bool(of.plain),
            plain_columns=of.plain,
            variation=of.variation,
            alpha=policy.alpha,
            tests=of.tests,
        )
    return found


def _in_segments(
    column: str, segments: Mapping[str | None, DriftReport], drifted: Mapping[str | None, DriftReport]
) -> str:
    """Return what was found in the segments, in a sentence."""
    vague = sum(part.verdict in {Verdict.INSUFFICIENT, Verdict.NO_DATA} for part in segments.values())
    rest = f" {vague} of them hold too few rows to tell." if vague else ""
    if not drifted:
        return f"Nor did any of {counted(len(segments), 'segment')} by {column!r}.{rest}"
    value, first = next(iter(drifted.items()))
    named = repr(value) if value is not None else "other rows"
    return (
        f"{len(drifted)} of {counted(len(segments), 'segment')} by {column!r} drifted; {named}: {first.sentence}{rest}"
    )


def _require_bins(reference: DataProfile, profile: DataProfile, side: str) -> None:
    for name, column in reference.columns.items():
        if name in profile.columns and not column.same_layout(profile.columns[name]):
            raise ConfigError(
                f"Column {name!r} of the {side} was not counted on the reference's bins. "
                f"Profile the {side} with layout=reference."
            )
    if reference.segments is None or profile.segments is None:
        return
    if not reference.segments.same_layout(profile.segments):
        raise ConfigError(
            f"The {side} has other segments than the reference. Profile the {side} with layout=reference."
        )
    for value, part in reference.segments.profiles.items():
        of = profile.segments.profiles[value]
        if missing := [name for name in part.columns if name not in of.columns]:
            raise ConfigError(
                f"Segment {value!r} of the {side} has no column {missing[0]!r}. "
                f"Profile the {side} with layout=reference."
            )
        _require_bins(part, of, side)


@dataclass(frozen=True, slots=True)
class _Judged:
    columns: Mapping[str, ColumnReport]
    plain: tuple[str, ...]
    variation: Variation
    tests: int


@dataclass(frozen=True, slots=True)
class _Test:
    """One test of one column, before the correction."""

    column: str
    reason: str  # the code when it fires
    p: float
    effect: float
    half_width: float  # of the 95 % interval
    limit: float
    natural_limit: float  # smallest effect beyond natural variation; 0 when that is unknown
    rows_needed: int | None  # when the window is too small for this test; None when it is not
    plain_p: float = 1.0
    trailing: bool = False  # against the trailing window
    measure: str = ""  # of a text: what was compared
    numbers: Mapping[str, Any] = field(default_factory=dict)


def _no_data(reference: DataProfile, policy: DriftPolicy, rows: Mapping[str, int | None], tests: int) -> DriftReport:
    current = rows["current"] or 0
    if reference.rows == 0:
        reason, sentence = "empty_reference", "The reference has no rows, so nothing can be compared with it."
    elif current == 0:
        reason, sentence = "empty_window", "The window has no rows."
    elif reference.rows < policy.min_rows:
        reason = "few_reference_rows"
        sentence = (
            f"The reference has {counted(reference.rows, 'row')}; with under {policy.min_rows} nothing is compared. "
            "Take a longer one."
        )
    else:
        reason = "few_rows"
        sentence = f"The window has {counted(current, 'row')}; under {policy.min_rows} nothing is asked of it."
    columns = {name: ColumnReport(name, Verdict.NO_DATA, reason, sentence) for name in reference.columns}
    known = len(reference.full_blocks()) >= MIN_BLOCKS
    return DriftReport(
        verdict=Verdict.NO_DATA,
        reason=reason,
        sentence=sentence,
        rows={**rows, "needed": policy.min_rows},
        columns=columns,
        top_columns=(),
        plain_alarm=False,
        plain_columns=(),
        variation=Variation.KNOWN if known else Variation.UNKNOWN,
        alpha=policy.alpha,
        tests=tests,
        notes=(),
    )


def _broken(violation: Violation) -> ColumnReport:
    return ColumnReport(
        violation.column, Verdict.BAD_DATA, violation.code, violation.sentence, numbers=violation.numbers
    )


def _conclude(
    columns: Mapping[str, ColumnReport], judged: _Judged, violations: Sequence[Violation]
) -> tuple[Verdict, str, str, tuple[str, ...]]:
    """Return verdict, reason code, sentence and top columns of the window."""
    if violations:
        top = tuple(violation.column for violation in violations)
        rest = ", ".join(repr(name) for name in top[1:4]) + (", ..." if len(top) > 4 else "")
        more = f" Also broken: {rest}." if len(top) > 1 else ""
        return Verdict.BAD_DATA, violations[0].code, violations[0].sentence + more, top
    counting = [column for column in columns.values() if column.counts]
    drifted = [column for column in counting if column.verdict is Verdict.DRIFT]
    if drifted:
        drifted.sort(key=_rank)
        top = tuple(column.name for column in drifted)
        unknown = judged.variation is Variation.UNKNOWN
        sentence = f"{len(top)} of {counted(len(counting), 'column')} drifted. {drifted[0].sentence}"
        if unknown:
            sentence += " How much the data varies by itself is unknown (fewer than 6 full time blocks)."
        return Verdict.DRIFT, "variation_unknown" if unknown else drifted[0].reason, sentence, top
    lacking = [column for column in counting if column.verdict is Verdict.INSUFFICIENT]
    if lacking:
        first = lacking[0]
        names = ", ".join(repr(column.name) for column in lacking[:3]) + (", ..." if len(lacking) > 3 else "")
        sentence = f"In {len(lacking)} of {counted(len(counting), 'column')} drift could have been missed: {names}."
        return Verdict.INSUFFICIENT, first.reason, f"{sentence} {first.sentence}", ()
    uncompared = [column for column in columns.values() if column.reason in _NOT_COMPARED]
    if not counting:
        return Verdict.INSUFFICIENT, "nothing_compared", _nothing_compared(uncompared), ()
    bound = max(column.effect_high or 0.0 for column in counting)
    sentence = f"None of {counted(len(counting), 'column')} drifted; no shift exceeds {bound:.3f} (95%)."
    if uncompared:
        sentence += f" Not compared: {_named(uncompared)}."
    return Verdict.NO_DRIFT, "steady", sentence, ()


def _named(columns: Sequence[ColumnReport]) -> str:
    return ", ".join(repr(column.name) for column in columns[:NAMED]) + (", ..." if len(columns) > NAMED else "")


def _nothing_compared(columns: Sequence[ColumnReport]) -> str:
    """Return why none of *columns* was compared, and what to do, in a sentence per cause."""
    if not columns:
        return "No column that matters was left to compare. Give the check columns of numbers, categories or text."
    causes = dict.fromkeys(column.reason for column in columns)
    alike = {reason: [column for column in columns if column.reason == reason] for reason in causes}
    said = (
        found[0].sentence if len(found) == 1 else f"{_named(found)}: {_NOT_COMPARED[reason]}"
        for reason, found in alike.items()
    )
    return f"No column could be compared, so drift of any size could have been missed. {' '.join(said)}"


def counted(number: int, noun: str) -> str:
    """
    Return how many there are, in words.

    >>> counted(1, "column"), counted(1200, "row")
    ('1 column', '1,200 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _rank(column: ColumnReport) -> tuple[float, float]:
    weight = 1.0 if column.importance is None else column.importance
    return -(column.effect or 0.0) / (column.limit or 1.0) * weight, column.p or 0.0


# Judging the columns


@dataclass(frozen=True, slots=True)
class _Part:
    """All rows, or those of a segment: what is compared with what."""

    reference: DataProfile
    current: DataProfile
    trailing: DataProfile | None
    skip: set[str]  # columns that are broken


def _judge(parts: Sequence[_Part], policy: DriftPolicy) -> list[_Judged]:
    """Judge every part, the first of which is the whole; all their tests are corrected together."""
    tests = _count_tests(parts[0].reference) * (2 if parts[0].trailing else 1)
    asked = [_tests_of(part, policy, tests) for part in parts]
    flat = [test for _, found in asked for several in found.values() for test in several]
    adjusted = dict(
        zip(
            map(id, flat),
            statistics.adjust([test.p for test in flat], tests=tests, method=policy.correction),
            strict=True,
        )
    )
    return [_judged(ask, found, adjusted, tests) for ask, found in asked]


def _tests_of(part: _Part, policy: DriftPolicy, tests: int) -> tuple[_Ask, dict[str, list[_Test]]]:
    """Return what was asked of the columns of *part*, before the correction."""
    reference, current, trailing = part.reference, part.current, part.trailing
    blocks = reference.full_blocks()
    level = policy.alpha / max(tests, 1)
    blocks = blocks if blocks.size >= MIN_BLOCKS else blocks[:0]
    tails = _tail_degrees(reference, blocks)
    ask = _Ask(reference, reference, current, policy, blocks, level, tails)
    enough = trailing is not None and trailing.rows >= policy.min_rows
    sudden = _Ask(trailing, reference, current, policy, blocks, level, tails) if trailing and enough else None
    names = [name for name in reference.columns if name not in part.skip]
    variances = _number_variances(reference, names, ask.blocks)
    found: dict[str, list[_Test]] = {}
    for name in names:
        found[name] = [test for test in _column_tests(name, ask, variances) if test is not None]
        if sudden is not None and name in sudden.before.columns:
            more = _column_tests(name, sudden, variances)
            found[name] += [replace(test, trailing=True) for test in more if test is not None]
    return ask, found


def _judged(ask: _Ask, found: Mapping[str, Sequence[_Test]], adjusted: Mapping[int, float], tests: int) -> _Judged:
    shares = _importance(ask.reference, ask.policy)
    minor = _minor(shares)
    columns = {
        name: _column_report(name, several, ask, adjusted, shares.get(name), counts=name not in minor)
        for name, several in found.items()
    }
    plain = tuple(
        name for name, several in found.items() if any(t.plain_p <= PLAIN_ALPHA for t in several if not t.trailing)
    )
    return _Judged(columns, plain, Variation.KNOWN if ask.blocks.size else Variation.UNKNOWN, tests)


_Variances = dict[tuple[str, str], statistics.BlockVariance]
"""By column, and by the measure of a text."""


@dataclass(frozen=True, slots=True)
class _Ask:
    """What every test of one window needs."""

    before: DataProfile  # what the window is compared with: the reference, or the trailing window
    reference: DataProfile  # whose blocks show how much windows vary
    current: DataProfile
    policy: DriftPolicy
    blocks: npt.NDArray[np.int64]  # positions of the reference's full blocks; none when they are too few
    level: float  # alpha over the number of tests
    tails: float  # degrees of freedom that the tails of all columns' blocks have together

    @property
    def floor(self) -> float:
        return self.policy.ignore_shift_below

    def variance(self, found: statistics.BlockVariance, n: int) -> statistics.BlockVariance:
        """Return *found* for a comparison with *n* rows: a trailing window is the mean of fewer blocks."""
        blocks = found.blocks if self.before is self.reference else n / found.block_rows
        return replace(found, blocks=blocks, degrees=min(found.degrees, self.tails))


def _count_tests(reference: DataProfile) -> int:
    """
    Return the number of tests, which the reference alone fixes: the distribution, the missing, the new values.

    Of a text each measure is a test of its own, and the same is asked of every segment.
    """
    parts = reference.segments.profiles.values() if reference.segments else ()
    per_column = {
        Family.NUMBER: 2,
        Family.BOOLEAN: 2,
        Family.TEXT: 3,
        Family.TIME: 1,
        Family.OTHER: 1,
        Family.VECTOR: 2,
    }
    return sum(
        1 + len(column.texts) if column.texts else 1 if column.identifier else per_column[column.family]
        for column in reference.columns.values()
    ) + sum(map(_count_tests, parts))


def _column_tests(name: str, ask: _Ask, variances: _Variances) -> list[_Test | None]:
    column, window = ask.before.columns[name], ask.current.columns[name]
    tests: list[_Test | None] = [_missing_test(name, ask)]
    if not column.values or not window.values:
        return tests
    tests += [_number_test(name, measure, ask, variances.get((name, measure))) for measure in column.measures]
    if column.categories is not None and window.categories is not None:
        tests.append(_category_test(name, ask))
        if column.family is Family.TEXT:
            tests.append(_new_values_test(name, ask))
    if column.vectors is not None and window.vectors is not None:
        tests.append(_vector_test(name, ask))
    return tests


def _number_variances(reference: DataProfile, names: Sequence[str], blocks: npt.NDArray[np.int64]) -> _Variances:
    """Return the variance between blocks per numeric column that has values in enough blocks, moderated if many."""
    found: _Variances = {}
    for name in names:
        for measure, numbers in reference.columns[name].measures.items():
            if (counts := _filled(numbers.blocks[blocks])).shape[0] >= MIN_BLOCKS:
                rows = counts.sum(axis=1)
                shares = counts.cumsum(axis=1) / rows[:, None]
                found[name, measure] = statistics.block_variance(shares, float(rows.mean()))
    alike = [
        key
        for key, variance in found.items()
        if variance.blocks == blocks.size and variance.factor > 0 and not key[1]  # measures of a text move together
    ]
    if len(alike) >= MODERATE_FROM:
        factors = np.array([found[key].factor for key in alike])
        moderated, degrees = statistics.moderate(factors, blocks.size - 1)
        for key, factor in zip(alike, moderated.tolist(), strict=True):
            found[key] = replace(found[key], factor=factor, degrees=degrees)
    return found


def _tail_degrees(reference: DataProfile, blocks: npt.NDArray[np.int64]) -> float:
    """Return how heavy the tails of the blocks are, from one number per block and column: where its middle lies."""
    scores = []
    for column in reference.columns.values():
        counts = column.numbers or column.categories
        if counts is not None and blocks.size and (rows := counts.blocks[blocks].sum(axis=1)).all():
            shares = counts.blocks[blocks] / rows[:, None]
            scores.append(shares.cumsum(axis=1).mean(axis=1) if column.numbers else shares[:, 0])
    return statistics.tail_degrees(np.stack(scores, axis=1)) if scores else math.inf


def _filled(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the blocks that hold a value."""
    filled: npt.NDArray[np.int64] = counts[counts.sum(axis=1) > 0]
    return filled


def _number_test(name: str, measure: str, ask: _Ask, variance: statistics.BlockVariance | None) -> _Test:
    before, now, usual = (side.columns[name].measures[measure] for side in (ask.before, ask.current, ask.reference))
    n, m = before.rows, now.rows
    effective = n * m / (n + m)
    distance = statistics.ks_distance(before.counts, now.counts)
    p = plain = statistics.kolmogorov_p(distance, n, m)
    if ask.level < p < 30 * ask.level and effective < EXACT_BELOW:
        p = statistics.kolmogorov_exact_p(before.counts, now.counts)
    reach = math.sqrt(-math.log(ask.level / 2) / 2)
    factor, natural = 1 / n + 1 / m, 0.0
    if variance is not None:
        variance = ask.variance(variance, n)
        factor = variance.variance_factor(n, m)
        p = max(p, statistics.t_kolmogorov_p(distance / math.sqrt(factor), variance.degrees))
        if p <= ask.policy.alpha:
            p = max(p, statistics.rank_p(distance, statistics.block_distances(_filled(usual.blocks[ask.blocks]))))
        natural = statistics.t_kolmogorov_limit(ask.level, variance.degrees) * math.sqrt(factor)
    return _Test(
        column=name,
        reason="distribution",
        p=p,
        effect=distance,
        half_width=1.36 * math.sqrt(factor),
        limit=max(ask.floor, reach / math.sqrt(effective), natural),
        natural_limit=natural,
        rows_needed=_rows_needed(((reach + 0.42) / ask.floor) ** 2, n, m),
        plain_p=plain,
        measure=measure,
        numbers={
            f"{measure}_{key}".lstrip("_"): value
            for key, value in {
                "mean_before": before.rounded_mean(),
                "mean_now": now.rounded_mean(),
                "psi": statistics.stability_index(*statistics.tenths(before.counts, now.counts)),
                "wasserstein": _wasserstein(before, now),
            }.items()
        },
    )


def _wasserstein(before: NumberCounts, now: NumberCounts) -> float | None:
    """Return how far the values moved on average, or ``None`` when a side has no finite value, or none of its size."""
    lows, highs = [before.minimum, now.minimum], [before.maximum, now.maximum]
    if before.edges.size == 0 or None in lows:
        return None
    lowest, highest = min(low for low in lows if low is not None), max(high for high in highs if high is not None)
    moved = statistics.wasserstein(before.edges, before.counts, now.counts, lowest=lowest, highest=highest)
    return moved if math.isfinite(moved) else None


def _rows_needed(effective: float, n: int, m: int) -> int | None:
    """Return the window's rows at which ``n_eff`` reaches *effective*; of both sides when the reference is short."""
    if n * m / (n + m) >= effective:
        return None
    return math.ceil(effective * n / (n - effective)) if n > 2 * effective else math.ceil(2 * effective)


def rows_needed(reference: DataProfile, policy: DriftPolicy) -> int:
    """
    Return how many rows a window needs before a shift of the policy's size can be missed in no column.

    As many as it takes if rows are independent, whatever the reference's own variation.
    """
    level = policy.alpha / max(_count_tests(reference), 1)
    most = 0
    for column in reference.columns.values():
        if column.measures and column.values:
            reach = math.sqrt(-math.log(level / 2) / 2)
            effective, n = ((reach + 0.42) / policy.ignore_shift_below) ** 2, column.values
        elif column.vectors is not None and column.vectors.rows:
            effective, n = _vectors_needed(level, policy.ignore_shift_below), column.vectors.rows
        elif column.categories is not None and column.categories.rows:
            n = column.categories.rows
            shares = np.array([*column.categories.counts.values(), column.categories.tail_rows]) / n
            widest = float((shares * (1 - shares)).max())
            effective = (_reach_of_cells(level, shares.size) + 0.84) ** 2 * widest / policy.ignore_shift_below**2
        else:
            continue
        share = max(column.values / column.rows, 0.01)  # rows without a value do not count
        most = max(most, math.ceil((_rows_needed(effective, n, 1) or 1) / share))
    return most


def _reach_of_cells(level: float, cells: int) -> float:
    """Return how many standard deviations a share must move before one of *cells* is significant."""
    from scipy.special import ndtri  # noqa: PLC0415 - loads at use, never at parse time

    return -float(ndtri(level / (4 * cells)))


def _category_test(name: str, ask: _Ask) -> _Test:
    from scipy.special import stdtrit  # noqa: PLC0415 - loads at use, never at parse time

    before, now = ask.before.columns[name].categories, ask.current.columns[name].categories
    reference = ask.reference.columns[name].categories
    if before is None or now is None or reference is None:
        raise TypeError(f"{name!r} has no categories")
    values = sorted({*before.counts, *now.counts})
    old = np.array([*(before.counts.get(value, 0) for value in values), before.tail_rows], dtype=np.int64)
    new = np.array([*(now.counts.get(value, 0) for value in values), now.tail_rows], dtype=np.int64)
    n, m = before.rows, now.rows
    plain = statistics.chi_square_p(old, new)
    p = min(1.0, 2 * min(statistics.cells_p(old, new), plain))
    pooled = (old + new) / (n + m)
    widest = float((pooled * (1 - pooled)).max())
    cells = max(int((old + new >= 2).sum()), 1)
    z = _reach_of_cells(ask.level, cells)
    factor, natural = 1 / n + 1 / m, 0.0
    counts = _filled(reference.blocks[ask.blocks])
    if counts.shape[0] >= MIN_BLOCKS:
        rows = counts.sum(axis=1)
        shares = counts / rows[:, None]
        between = ask.variance(statistics.block_variance(shares, float(rows.mean())), n)
        factor = between.variance_factor(n, m)
        cell_p, variance = _cells_between_blocks(before, now, shares, between)
        p = max(p, cell_p)
        t = -float(stdtrit(between.degrees, ask.level / (4 * shares.shape[1])))
        natural = t * math.sqrt(variance)
    gap = np.abs(old / n - new / m)
    effect = max(float(gap.max()), statistics.total_variation(old, new, factor))
    moved = int(gap.argmax())
    return _Test(
        column=name,
        reason="distribution",
        p=p,
        effect=effect,
        half_width=1.96 * math.sqrt(float(pooled[moved] * (1 - pooled[moved])) * factor),
        limit=max(ask.floor, z * math.sqrt(widest * (1 / n + 1 / m)), natural),
        natural_limit=natural,
        rows_needed=_rows_needed((z + 0.84) ** 2 * widest / ask.floor**2, n, m),
        plain_p=plain,
        numbers={
            "most_moved": values[moved] if moved < len(values) else None,
            "share_before": float(old[moved] / n),
            "share_now": float(new[moved] / m),
            "psi": statistics.stability_index(*statistics.frequent_cells(old, new)),
            "distinct_before": len(before.counts),
            "distinct_now": len(now.counts),
            "distinct_at_least": bool(before.tail_rows or now.tail_rows),
        },
    )


def _cells_between_blocks(
    before: CategoryCounts,
    now: CategoryCounts,
    shares: npt.NDArray[np.float64],
    between: statistics.BlockVariance,
) -> tuple[float, float]:
    """Return the p of the shares against their variance between blocks, and the largest variance of a cell."""
    n, m = before.rows, now.rows

    def on_cells(counts: CategoryCounts) -> npt.NDArray[np.float64]:
        inside = [counts.counts.get(cell, 0) for cell in before.cells]
        return np.array([*inside, counts.rows - sum(inside)], dtype=np.float64)

    old, new = on_cells(before), on_cells(now)
    middle, usual = (old / n + new / m) / 2, shares.mean(axis=0)
    scale, spread = middle * (1 - middle), usual * (1 - usual)
    factor = np.divide(shares.var(axis=0, ddof=1), spread, out=np.zeros_like(spread), where=spread > 0)
    needed = factor * (1 + 1 / between.blocks) + max(0.0, 1 / m - 1 / between.block_rows)
    variance = scale * np.maximum(needed, between.variance_factor(n, m))  # a cell that bursts varies more as it grows
    gaps = new / m - old / n
    rest = statistics.others(shares)
    own = np.abs(shares - rest)
    smallest = min(
        max(statistics.share_t_p(float(gap), float(spread), between.degrees), statistics.rank_p(abs(float(gap)), far))
        for gap, spread, far in zip(gaps, variance, own.T, strict=True)
    )
    overall = statistics.shares_f_p(old / n, new / m, shares, (n, m), between.block_rows)
    distance = float(statistics.shares_distance(old / n, new / m))
    overall = max(overall, statistics.rank_p(distance, statistics.shares_distance(rest, shares)))
    return min(1.0, 2 * min(smallest * int((old + new > 0).sum()), overall)), float(variance.max())


def _vector_test(name: str, ask: _Ask) -> _Test:
    before, now = ask.before.columns[name].vectors, ask.current.columns[name].vectors
    usual = ask.reference.columns[name].vectors
    if before is None or now is None or usual is None:
        raise TypeError(f"{name!r} has no vectors")
    n, m = before.rows, now.rows
    distance, mmd = vectors.mmd_p(before, now)
    apart, told = vectors.classifier(before, now)
    p = plain = min(1.0, 2 * min(mmd, told))
    factor, natural = 1 / n + 1 / m, 0.0
    means, rows = usual.block_means(ask.blocks)
    if len(means) >= MIN_BLOCKS:
        from scipy.special import fdtri  # noqa: PLC0415 - loads at use, never at parse time

        covariance = usual.moments()[2]
        chance, block_rows = float(np.trace(covariance)), float(rows.mean())
        seen = len(means) if ask.before is ask.reference else n / block_rows
        between, expected, freedom = vectors.block_p(
            before.mean, now.mean, means, chance=chance, rows=(n, m), usual=(seen, block_rows)
        )
        own = np.square(means - statistics.others(means)).sum(axis=1)
        p = max(p, between, statistics.rank_p(distance, own))
        least = expected * float(fdtri(freedom, len(means) - 1, 1 - ask.level))
        natural = _gap(math.sqrt(least / (float(np.square(covariance).sum()) / chance))) if chance > 0 else 0.0
    z = _reach_of_cells(ask.level, 1)
    return _Test(
        column=name,
        reason="distribution",
        p=p,
        effect=_gap(max(apart, 0.0)),
        half_width=1.96 * math.sqrt(factor / math.pi),
        limit=max(ask.floor, _gap(z * math.sqrt(2 * factor)), natural),
        natural_limit=natural,
        rows_needed=_rows_needed(_vectors_needed(ask.level, ask.floor), n, m),
        plain_p=plain,
        numbers={"auc": _auc(apart), "mmd": math.sqrt(distance)},
    )


def _gap(apart: float) -> float:
    """Return the largest gap between two normal distributions that many standard deviations apart."""
    from scipy.special import ndtr  # noqa: PLC0415 - loads at use, never at parse time

    return float(2 * ndtr(apart / 2) - 1)


def _auc(apart: float) -> float:
    from scipy.special import ndtr  # noqa: PLC0415 - loads at use, never at parse time

    return float(ndtr(apart / math.sqrt(2)))


def _vectors_needed(level: float, floor: float) -> float:
    """Return the effective rows at which a classifier would show a gap of *floor*: to find its direction costs most."""
    from scipy.special import ndtri  # noqa: PLC0415 - loads at use, never at parse time

    apart = 2 * float(ndtri((1 + floor) / 2))
    return 2 * ((_reach_of_cells(level, 1) + 0.84) ** 2 + vectors.FEATURES) / apart**2


def _missing_test(name: str, ask: _Ask) -> _Test:
    before, now = ask.before.columns[name], ask.current.columns[name]
    n, m = ask.before.rows, ask.current.rows
    x, y = before.missing + n - before.rows, now.missing + m - now.rows
    pooled = (x + y) / (n + m)
    scale = pooled * (1 - pooled)
    p, variance, natural = statistics.fisher_p(x, n, y, m), scale * (1 / n + 1 / m), 0.0
    if ask.blocks.size:
        from scipy.special import stdtrit  # noqa: PLC0415 - loads at use, never at parse time

        rows = np.asarray(ask.reference.block_rows)[ask.blocks]
        shares = ask.reference.columns[name].block_missing[ask.blocks] / rows
        blocks = rows.size if ask.before is ask.reference else n / float(rows.mean())
        own = float(shares.var(ddof=1)) * (1 + 1 / blocks) + scale * max(0.0, 1 / m - 1 / float(rows.mean()))
        variance = max(variance, own)
        moved = np.abs(shares - statistics.others(shares[:, None])[:, 0])
        p = max(p, statistics.share_t_p(y / m - x / n, variance, rows.size - 1))
        p = max(p, statistics.rank_p(abs(y / m - x / n), moved))
        natural = -float(stdtrit(rows.size - 1, ask.level / 2)) * math.sqrt(variance)
    return _Test(
        column=name,
        reason="missing_share",
        p=p,
        effect=abs(y / m - x / n),
        half_width=1.96 * math.sqrt(variance),
        limit=max(ask.floor, natural),
        natural_limit=natural,
        rows_needed=None,
        numbers={"missing_before": x / n, "missing_now": y / m},
    )


def _new_values_test(name: str, ask: _Ask) -> _Test | None:
    """Return the test of values that the reference never held; ``None`` when it does not know all it held."""
    before, now = ask.before.columns[name].categories, ask.current.columns[name].categories
    if before is None or now is None or before.tail_rows or now.tail_rows:
        return None
    new = {value: count for value, count in now.counts.items() if value not in before.counts}
    rows, m = sum(new.values()), now.rows
    share = rows / m
    ranked = sorted(new, key=lambda value: (-new[value], value))
    return _Test(
        column=name,
        reason="new_values",
        p=statistics.new_values_p(rows, n=before.rows, m=m, once=before.once, twice=before.twice),
        effect=share,
        half_width=1.96 * math.sqrt(share * (1 - share) / m),
        limit=ask.floor,
        natural_limit=0.0,
        rows_needed=None,
        numbers={"new_rows": rows, "new_values": len(new), "most_frequent": ranked[:5]},
    )


# From tests to a column's verdict


def _column_report(
    name: str,
    tests: Sequence[_Test],
    ask: _Ask,
    adjusted: Mapping[int, float],
    importance: float | None,
    *,
    counts: bool,
) -> ColumnReport:
    alpha, floor = ask.policy.alpha, ask.floor
    significant = [test for test in tests if adjusted[id(test)] <= alpha]
    fired = [test for test in significant if test.effect >= floor]
    untested = _untested(ask.reference.columns[name], ask.current.columns[name])
    compared = [test for test in tests if test.reason == "distribution" and not test.trailing]
    main = max(compared, key=lambda test: test.effect / test.limit, default=tests[0])
    vague = max(compared, key=lambda test: test.natural_limit, default=tests[0])
    verdict, reason, needed = Verdict.NO_DRIFT, "steady", None
    if fired:
        main = min(fired, key=lambda test: (test.trailing, -test.effect / test.limit, test.p))
        verdict, reason = Verdict.DRIFT, main.reason
    elif untested:
        verdict, reason, counts = Verdict.INSUFFICIENT, untested, False
    elif vague.natural_limit > MOST_VARIATION:
        main, verdict, reason = vague, Verdict.INSUFFICIENT, "natural_variation"
    elif main.rows_needed is not None:
        verdict, reason, needed = Verdict.INSUFFICIENT, "too_few_rows", main.rows_needed
    elif significant:
        main, reason = significant[0], "too_small"
    elif main.effect >= floor and main.natural_limit >= floor:
        reason = "usual"
    numbers = {key: value for test in tests if not test.trailing for key, value in test.numbers.items()}
    if main.measure:
        numbers["measure"] = main.measure
    sentence = _sentence(reason, main, floor)
    if any(test.trailing for test in tests):
        numbers |= _since(tests, fired, adjusted)
        sentence += _CHANGES[numbers["change"]]
    return ColumnReport(
        name=name,
        verdict=verdict,
        reason=reason,
        sentence=sentence,
        effect=main.effect,
        effect_low=max(0.0, main.effect - main.half_width),
        effect_high=min(1.0, main.effect + main.half_width),
        limit=min(1.0, main.limit, main.effect) if fired else min(1.0, main.limit),
        p=main.p,
        p_adjusted=adjusted[id(main)],
        importance=importance,
        counts=counts,
        rows_needed=needed,
        numbers=numbers,
    )


_CHANGES = {
    None: "",
    "sudden": " It came suddenly: until just before the window it was otherwise.",
    "gradual": " It came gradually: just before the window it was not otherwise.",
    "recent": " This is against the time just before the window; against the reference it is no drift.",
}


def _since(tests: Sequence[_Test], fired: Sequence[_Test], adjusted: Mapping[int, float]) -> dict[str, Any]:
    """Return how a change came about, and what the test against the trailing window measured."""
    last = max((test for test in tests if test.trailing), key=lambda test: (test in fired, test.effect / test.limit))
    now, ever = any(test.trailing for test in fired), any(not test.trailing for test in fired)
    change = ("sudden" if ever else "recent") if now else ("gradual" if ever else None)
    return {"change": change, "trailing_effect": last.effect, "trailing_p_adjusted": adjusted[id(last)]}


def _untested(column: ColumnProfile, window: ColumnProfile) -> str | None:
    """Return why the distribution of a column has no test, or ``None``."""
    if column.identifier:
        return "identifier"
    if column.family in (Family.TIME, Family.OTHER):
        return f"{column.family.value}_column"
    if column.family is Family.VECTOR and column.vectors is None:
        return "no_values"
    without_bins = column.numbers is not None and not column.numbers.edges.size
    return None if column.values and window.values and not without_bins else "no_values"


def _sentence(reason: str, test: _Test, floor: float) -> str:
    name, numbers = repr(test.column), test.numbers
    low, high = max(0.0, test.effect - test.half_width), min(1.0, test.effect + test.half_width)
    size = f"{test.effect:.3f} (95% {low:.3f} .. {high:.3f})"
    most = numbers.get("most_moved")
    where = f"; {most!r} went from {numbers['share_before']:.1%} to {numbers['share_now']:.1%}" if most else ""
    if "auc" in numbers:
        where = f"; a classifier tells the two sides apart with an area under the curve of {numbers['auc']:.2f}"
    what = f"{name}, by its {MEASURED[test.measure]}," if test.measure else name
    missing = ""
    if test.reason == "missing_share":
        missing = f"{numbers['missing_before']:.1%} before, {numbers['missing_now']:.1%} now"
    return {
        "distribution": f"{what} moved by {size}, and {test.limit:.3f} is the limit here{where}.",
        "missing_share": f"The share of missing values of {name} changed: {missing}.",
        "new_values": f"{numbers.get('new_rows')} rows of {name} ({test.effect:.1%}) hold "
        f"{numbers.get('new_values')} values that the reference never held.",
        "steady": f"{what} did not move: {size}.",
        "usual": f"{what} moved by {size}, as the reference's own time blocks do; {test.limit:.3f} is the limit here.",
        "too_small": f"{what} moved, but only by {size}; less than {floor:g} is ignored.",
        "natural_variation": f"{what} varies so much between the reference's own time blocks that only a move of over "
        f"{min(1.0, test.limit):.2f} could be told from it. A longer reference helps.",
        "too_few_rows": f"{name} needs {test.rows_needed} rows in the window (and as many in the reference) to show a "
        f"move of {floor:g}; seen: {size}.",
        **{code: f"{name} is not compared: {why}" for code, why in _NOT_COMPARED.items()},
    }[reason]


_NOT_COMPARED = {
    "identifier": "most values occur once, as names of rows do. If it is text, name it in text_columns.",
    "time_column": "times always move on. Make a number of it, such as an age or an hour.",
    "other_column": "its type is none that is compared (embeddings are, in files). Make numbers or categories of it.",
    "no_values": "one side, or the sample that its bins were chosen from, has no value. Ask its source, or exclude it.",
}
"""Why the values of a column are not compared, and what to do."""

MEASURED = {
    "length": "length",
    "digits": "number of digits",
    "spaces": "number of spaces",
    "punctuation": "number of punctuation marks",
    "capitals": "number of capital letters",
    "other": "number of characters beyond ASCII",
}
"""What is compared of a text, in words."""


def _importance(reference: DataProfile, policy: DriftPolicy) -> dict[str, float]:
    """Return each column's share of the importance, or nothing when none was given."""
    given = {name: (policy.importance or {}).get(name, 0.0) for name in reference.columns}
    total = sum(given.values())
    return {name: value / total for name, value in given.items()} if total > 0 else {}


def _minor(shares: Mapping[str, float]) -> set[str]:
    """Return the least important columns that together hold under 5 % of the importance."""
    minor, held = set(), 0.0
    for name in sorted(shares, key=lambda column: (shares[column], column)):
        held += shares[name]
        if held >= MINOR_IMPORTANCE:
            break
        minor.add(name)
    return minor
