"""The values of the gate: what is asked (`Rule`), what is judged (`Predictions`), what was decided (`GateDecision`)."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_mlops.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

__all__ = [
    "Finding",
    "GateDecision",
    "GatePolicy",
    "GateVerdict",
    "Predictions",
    "Reason",
    "Rule",
    "RuleOutcome",
    "Task",
]

Task = Literal["binary", "multiclass", "regression", "forecasting", "ranking"]


class GateVerdict(StrEnum):
    """What the gate, or one of its rules, says."""

    PASSED = "passed"
    """Every rule holds, and what had to be shown was shown."""

    REFUSED = "refused"
    """At least one rule does not hold, or could not be evaluated. More rows would not change that by themselves."""

    UNDERPOWERED = "underpowered"
    """Not shown, and the evaluation set is too small to show it: ``rows_needed`` says how many rows would do."""


class Reason(StrEnum):
    """Why: one code per way to pass or to fail. The codes are part of the API."""

    HOLDS = "holds"
    """The rule holds."""
    FIRST_MODEL = "first_model"
    """The rule compares with a champion and there is none yet: nothing was compared."""
    CHAMPION_IGNORED = "champion_ignored"
    """``unsafe_ignore_champion`` switched the comparison off."""

    NO_RULE = "no_rule"
    """Nothing was asked that could be judged."""
    MISSING_METRIC = "missing_metric"
    """The metric cannot be computed from what the model predicts, or the measurement was not taken."""
    MISSING_SLICE = "missing_slice"
    """The column of the slices was not scored or holds no value, or a protected slice lost all its rows."""
    NOT_A_NUMBER = "not_a_number"
    """A prediction or a metric is NaN or infinite."""
    BAD_PREDICTIONS = "bad_predictions"
    """The predictions have another length or shape than the task asks for, or are no probabilities."""
    ONE_CLASS = "one_class"
    """The evaluation labels, or those of a protected slice, hold one class only."""
    NO_GROUPS = "no_groups"
    """A ranking does not say which rows compete with each other."""
    EMPTY_EVALUATION_SET = "empty_evaluation_set"
    """There are no rows to judge on."""
    LABELS_MISSING = "labels_missing"
    """Too many evaluation rows have no label."""
    STALE_EVALUATION_SET = "stale_evaluation_set"
    """The newest evaluation row is too old."""
    OVERLAP = "overlap"
    """Rows or entities of the evaluation set were trained on."""
    COPIES = "copies"
    """So many evaluation rows are copies of others that every interval would be too narrow."""
    LEAKAGE = "leakage"
    """One feature alone predicts the label almost perfectly."""
    TIME_ORDER = "time_order"
    """Training rows are newer than the oldest evaluation row."""
    CHAMPION_UNSCORABLE = "champion_unscorable"
    """There is a champion, and it could not be scored on the evaluation rows."""
    SIGNATURE_CHANGED = "signature_changed"
    """The candidate wants inputs that the champion's clients do not send."""
    BELOW_ABSOLUTE = "below_absolute"
    """The metric is on the wrong side of ``at_least`` or ``at_most``."""
    NOT_BETTER = "not_better"
    """The candidate is not shown to be better than the champion, though the data could have shown it."""
    WORSE_THAN_CHAMPION = "worse_than_champion"
    """A loss above the margin is not excluded, though the data could have excluded it."""
    WORSE_THAN_ANCHOR = "worse_than_anchor"
    """The loss against the last version that won by superiority is not shown to stay within the margin."""
    NEWEST_WORSE = "newest_worse"
    """On the newest window alone the candidate is shown to be worse than the champion."""
    UNDERPOWERED = "underpowered"
    """Not shown, and the evaluation set is too small to show it."""
    SLICE_WORSE = "slice_worse"
    """A slice is shown worse than under the champion, or a protected slice is not shown to be as good."""
    SLICE_UNDERFILLED = "slice_underfilled"
    """A protected slice, or every slice, has fewer rows than ``min_rows``."""
    UNFAIR = "unfair"
    """The gap between groups is larger than ``at_most``."""
    BUDGET_EXCEEDED = "budget_exceeded"
    """A measured size, latency or memory is over its budget."""
    FORBIDDEN_DRIVER = "forbidden_driver"
    """A column that must not drive the model holds more of its importance than ``at_most``."""


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One line of ``evaluate:``. All limits are in the metric's own units; every limit that is named must hold.

    ``at_least`` and ``at_most`` compare the *point estimate* on the evaluation rows; its interval is reported
    beside it. ``max_drop_vs_champion`` and ``min_gain_vs_champion`` compare the one-sided lower confidence bound of the
    paired gain, where a gain is positive when the candidate is better, whichever way the metric points.

    :param metric: a name of `metrics.METRICS`, a fairness gap, a measurement, ``importance_share``, or
        ``package.module:function``.
    :param at_least: smallest value that is allowed.
    :param at_most: largest value that is allowed.
    :param max_drop_vs_champion: non-inferiority margin, > 0: a loss of this size or more must be excluded.
    :param min_gain_vs_champion: superiority: a gain above this (>= 0) must be shown.
    :param per: column whose values are slices (for a fairness gap: groups), each judged on its own.
    :param min_rows: rows a slice needs to be judged; ``None``: the policy's ``min_slice_rows``.
    :param protected: slices must be shown not worse (by more than ``max_drop_vs_champion``, default 0); without it
        a slice vetoes only when it is shown worse.
    :param unsafe_ignore_champion: do not compare this rule with the champion.
    :param higher_is_better: direction of a metric given by import path; ``None`` for all others.
    :param column: input of the model whose share of the importance, 0..1, ``importance_share`` limits by ``at_most``.
    """

    metric: str
    at_least: float | None = None
    at_most: float | None = None
    max_drop_vs_champion: float | None = None
    min_gain_vs_champion: float | None = None
    per: str | None = None
    min_rows: int | None = None
    protected: bool = False
    unsafe_ignore_champion: bool = False
    higher_is_better: bool | None = None
    column: str | None = None

    def __post_init__(self) -> None:
        for name in ("at_least", "at_most", "max_drop_vs_champion", "min_gain_vs_champion"):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
            ):
                raise ConfigError(
                    f"evaluate: {self.metric}: {name} is {value!r}. Write a number in the metric's units."
                )
        self._check_margins()
        if self.min_rows is not None and (not isinstance(self.min_rows, int) or self.min_rows < 1):
            raise ConfigError(f"evaluate: {self.metric}: min_rows is {self.min_rows!r}. Write a whole number >= 1.")
        if self.per is None and (self.protected or self.min_rows is not None):
            raise ConfigError(
                f"evaluate: {self.metric}: protected and min_rows are about slices. Name the column: per: COLUMN."
            )

    def _check_margins(self) -> None:
        if self.max_drop_vs_champion is not None and self.max_drop_vs_champion <= 0:
            raise ConfigError(
                f"evaluate: {self.metric}: max_drop_vs_champion is {self.max_drop_vs_champion}. The margin is the loss "
                "you fear, > 0; leave the key out to ask for superiority."
            )
        if self.min_gain_vs_champion is not None and self.min_gain_vs_champion < 0:
            raise ConfigError(
                f"evaluate: {self.metric}: min_gain_vs_champion is {self.min_gain_vs_champion}. Write a gain >= 0; "
                "a loss that is tolerated is max_drop_vs_champion."
            )
        if self.max_drop_vs_champion is not None and self.min_gain_vs_champion is not None:
            raise ConfigError(
                f"evaluate: {self.metric}: max_drop_vs_champion contradicts min_gain_vs_champion. Keep one."
            )
        if self.per is not None and self.min_gain_vs_champion is not None:
            raise ConfigError(
                f"evaluate: {self.metric}: min_gain_vs_champion cannot be asked of slices (per: {self.per}). They veto "
                "when they are shown worse; protected: true asks that they be shown not worse."
            )
        ignored = self.max_drop_vs_champion is not None or self.min_gain_vs_champion is not None or self.protected
        if self.unsafe_ignore_champion and ignored:
            raise ConfigError(
                f"evaluate: {self.metric}: unsafe_ignore_champion contradicts a limit that compares with the champion. "
                "Keep one of them."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rule:
        """Return the rule that a plain mapping describes. :raises ConfigError: unknown key, no metric, bad limit."""
        known = [item.name for item in fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"evaluate: {key!r} is no key of a rule.{did_you_mean(str(key), known)}")
        if not isinstance(values.get("metric"), str) or not values["metric"]:
            raise ConfigError("evaluate: 'metric' is missing: the name of what is measured, for example roc_auc.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain mapping without the keys that are not set."""
        return {key: value for key, value in asdict(self).items() if value is not None and value is not False}


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """
    What both models say about the same frozen rows. All arrays share their first axis, in the same order.

    :param label: shape ``(n,)``: the truth; numbers, texts or booleans. Missing (NaN, None) is allowed, few.
    :param candidate: ``(n,)`` predicted labels, scores of the positive class or values; or ``(n, k)`` probabilities.
    :param champion: the same for the champion; ``None``: there is none, or see *champion_error*.
    :param slices: columns that rules name in ``per``, each ``(n,)``.
    :param time: ``(n,)`` event times; when given, neighbors in time are resampled together, in blocks.
    :param entity: ``(n,)`` whose rows belong together; when given, they are resampled together. In a ranking: the
        query whose rows compete for the first place.
    :param newest: ``(n,)`` truth values: the rows of the newest window; a rule that compares with the champion then
        refuses a candidate that is shown worse on these alone, by more than the rule's margin.
    :param champion_error: why a champion that exists has no predictions.
    :param classes: label of each probability column; ``None``: the sorted labels of the evaluation rows.
    """

    label: np.ndarray
    candidate: np.ndarray
    champion: np.ndarray | None = None
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)
    time: np.ndarray | None = None
    entity: np.ndarray | None = None
    newest: np.ndarray | None = None
    champion_error: str | None = None
    classes: tuple[Any, ...] | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.label)


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """
    How sure the gate wants to be. The defaults are the ones that the boards measure.

    :param alpha: one-sided error of showing a gain, 0..0.5.
    :param power: chance of showing ``smallest_gain`` below which the data counts as underpowered.
    :param smallest_gain: the gain worth finding: absolute for metrics on 0..1, else a share of the champion's value.
    :param slice_alpha: error over all slices of a rule together (Holm).
    :param min_slice_rows: rows that a slice needs where its rule does not say.
    :param max_missing_labels: share of rows without a label, 0..1, above which the gate refuses.
    :param bootstrap_draws: resamples of the paired bootstrap.
    :param bootstrap_rows: rows up to which the bootstrap is used; above, influence functions (DeLong for ROC AUC).
    :param seed: seed of the bootstrap.
    :param block_rows: rows per block of time-ordered data; ``None``: the cube root of n, at least 2.
    :param positive_label: which of two labels is positive; ``None``: the greater one.
    :param threshold: score from which a row is predicted positive.
    """

    alpha: float = 0.05
    power: float = 0.8
    smallest_gain: float = 0.01
    slice_alpha: float = 0.05
    min_slice_rows: int = 100
    max_missing_labels: float = 0.05
    bootstrap_draws: int = 2000
    bootstrap_rows: int = 20_000
    seed: int = 0
    block_rows: int | None = None
    positive_label: Any = None
    threshold: float = 0.5

    def __post_init__(self) -> None:
        for name, low, high in (
            ("alpha", 0.0, 0.5),
            ("power", 0.5, 1.0),
            ("slice_alpha", 0.0, 0.5),
            ("threshold", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low < value < high:
                raise ConfigError(f"{name} is {value!r}. Write a number between {low:g} and {high:g}, ends excluded.")
        if not 0 <= self.max_missing_labels < 1:
            raise ConfigError(f"max_missing_labels is {self.max_missing_labels!r}. Write a share, 0 <= share < 1.")
        if not self.smallest_gain > 0:
            raise ConfigError(f"smallest_gain is {self.smallest_gain!r}. Write the gain worth finding, > 0.")
        if self.bootstrap_draws < 100:
            raise ConfigError(
                f"bootstrap_draws is {self.bootstrap_draws!r}. Fewer than 100 give no bound; 2000 is usual."
            )
        if self.min_slice_rows < 1 or (self.block_rows is not None and self.block_rows < 1):
            raise ConfigError("min_slice_rows and block_rows count rows: write whole numbers >= 1.")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a guard found before any rule was looked at. A finding refuses the candidate."""

    reason: Reason
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """
    What became of one rule.

    *numbers* holds, as far as they apply: ``value``, ``low``, ``high`` (two-sided interval of the candidate's metric at
    ``1 - 2 alpha``), ``champion``, ``gain``, ``gain_low``, ``gain_high`` (one-sided bounds), ``standard_error``,
    ``rows``, ``rows_needed``, ``disagreement``, ``method``, ``slices`` (the same per slice), ``notes``.
    """

    rule: Rule
    verdict: GateVerdict
    reason: Reason
    sentence: str
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain mapping that JSON can hold."""
        return {
            "rule": self.rule.to_dict(),
            "verdict": self.verdict.value,
            "reason": self.reason.value,
            "sentence": self.sentence,
            "numbers": _plain(self.numbers),
        }


@dataclass(frozen=True, slots=True)
class GateDecision:
    """
    The gate's decision and all that it rests on.

    :param verdict: ``passed`` only when every rule passed and every guard was silent.
    :param reason: code of the first thing that stood in the way, or ``holds``.
    :param sentence: the decision in words.
    :param rules: one outcome per rule, in the order of the rules.
    :param findings: what the guards found; with a finding no rule is evaluated.
    :param bootstrap: there was no champion: absolute rules only.
    :param champion_ignored: ``unsafe_ignore_champion`` switched the comparison of the primary metric off.
    :param rows: labeled evaluation rows that were judged.
    :param rows_needed: rows that would have shown what was not shown, when underpowered.
    """

    verdict: GateVerdict
    reason: Reason
    sentence: str
    rules: tuple[RuleOutcome, ...] = ()
    findings: tuple[Finding, ...] = ()
    bootstrap: bool = False
    champion_ignored: bool = False
    rows: int = 0
    rows_needed: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the candidate may be promoted."""
        return self.verdict is GateVerdict.PASSED

    def to_dict(self) -> dict[str, Any]:
        """Return a plain mapping that JSON can hold."""
        return {
            "verdict": self.verdict.value,
            "reason": self.reason.value,
            "sentence": self.sentence,
            "rules": [outcome.to_dict() for outcome in self.rules],
            "findings": [
                {"reason": found.reason.value, "sentence": found.sentence, "numbers": _plain(found.numbers)}
                for found in self.findings
            ],
            "bootstrap": self.bootstrap,
            "champion_ignored": self.champion_ignored,
            "rows": self.rows,
            "rows_needed": self.rows_needed,
        }

    @property
    def digest(self) -> str:
        """``sha256:`` and 64 hexadecimal digits over the canonical JSON of the whole decision."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _plain(value: Any) -> Any:
    """Return *value* as JSON can hold it: numpy scalars as Python's, NaN and infinities as ``None``, keys as text."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
