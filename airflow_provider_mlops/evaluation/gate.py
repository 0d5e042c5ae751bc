"""
The gate: rules and predictions in, a `GateDecision` out. Pure: no clock, no network, seeded.

Every rule must hold, so no correction of alpha is needed between rules: asking more can only refuse more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from airflow_provider_mlops.errors import ConfigError, did_you_mean
from airflow_provider_mlops.evaluation.compare import MIN_UNITS, Estimate, Units, compare, estimate, rows_for
from airflow_provider_mlops.evaluation.fairness import GAPS, largest_gap
from airflow_provider_mlops.evaluation.guards import check_labels
from airflow_provider_mlops.evaluation.importance import IMPORTANCE_SHARE
from airflow_provider_mlops.evaluation.metrics import METRICS, find_metric, lacks
from airflow_provider_mlops.evaluation.samples import Sample, check_count, class_order, missing, nested, sample, settled
from airflow_provider_mlops.evaluation.values import (
    Finding,
    GateDecision,
    GatePolicy,
    GateVerdict,
    Predictions,
    Reason,
    Rule,
    RuleOutcome,
    Task,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_mlops.evaluation.importance import Importance
    from airflow_provider_mlops.evaluation.metrics import Metric

__all__ = ["BUDGETS", "check_rules", "decide", "primary_rule"]

BUDGETS = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms", "memory_mib", "model_size_mib")
"""Measurements that a rule may bound. They are measured elsewhere and handed to `decide`."""

_PASSED, _REFUSED, _UNDERPOWERED = GateVerdict.PASSED, GateVerdict.REFUSED, GateVerdict.UNDERPOWERED
_NO_POLICY = GatePolicy()
_NOTES = 50  # slices that are named as too small


def check_rules(rules: Sequence[Rule], *, task: Task, measurements: Sequence[str] = ()) -> None:
    """
    Check that every rule can be asked of *task*, before anything is trained.

    :param measurements: names of measurements that will be there beside `BUDGETS`.
    :raises ConfigError: an unknown task or metric, a metric of another task, a limit outside the metric's range, a
        fairness gap without groups or limit, a budget without ``at_most``, an importance without column or limit.
    """
    if task not in get_args(Task):
        raise ConfigError(
            f"task is {task!r}.{did_you_mean(str(task), get_args(Task))} Write one of {', '.join(get_args(Task))}."
        )
    for rule in rules:
        _check_rule(rule, task, measurements)


def _check_rule(rule: Rule, task: Task, measurements: Sequence[str]) -> None:
    name = rule.metric
    if (name == IMPORTANCE_SHARE) != (rule.column is not None):
        raise ConfigError(
            f"evaluate: {name}: {IMPORTANCE_SHARE} and column: COLUMN go together, and with nothing else."
        )
    if not _is_quality(name, measurements):
        _check_limit(rule, task)
        return
    if ":" not in name and name not in METRICS:
        known = [*METRICS, *GAPS, *BUDGETS, IMPORTANCE_SHARE, *measurements]
        raise ConfigError(
            f"evaluate: {name!r} is no metric.{did_you_mean(name, known)} Known: {', '.join(sorted(known))}; "
            "your own: package.module:function."
        )
    metric = find_metric(name, higher_is_better=rule.higher_is_better)
    if task not in metric.tasks:
        fitting = sorted(other for other, item in METRICS.items() if task in item.tasks)
        raise ConfigError(f"evaluate: {name} is not defined for task: {task}. Use one of {', '.join(fitting)}.")
    for key in ("at_least", "at_most"):
        limit = getattr(rule, key)
        if limit is not None and not metric.low <= limit <= metric.high:
            raise ConfigError(
                f"evaluate: {name}: {key} is {limit:g}, and {name} lies in {metric.low:g}..{metric.high:g}. "
                "Write it in the metric's own units."
            )


def _check_limit(rule: Rule, task: Task) -> None:
    """Check a rule about what the model costs, how fair it is or what drives it: these know ``at_most`` only."""
    name = rule.metric
    relative = rule.max_drop_vs_champion is not None or rule.min_gain_vs_champion is not None or rule.protected
    plain = rule.at_most is not None and rule.at_least is None and not relative
    if name in GAPS:
        if not plain or rule.per is None:
            raise ConfigError(f"evaluate: {name} is a gap between groups: give per: COLUMN and at_most, and no more.")
        if task != "binary":
            raise ConfigError(f"evaluate: {name} needs task: binary, this is {task}.")
    elif name == IMPORTANCE_SHARE:
        if not plain or rule.per is not None or not 0 <= (rule.at_most or 0.0) < 1:
            raise ConfigError(
                f"evaluate: {name} is a share of one column: give column: COLUMN and at_most, 0..1, and no more."
            )
    elif not plain or rule.per is not None:
        raise ConfigError(f"evaluate: {name} is a budget: give at_most, in {name.rpartition('_')[2]}, and no more.")


def primary_rule(rules: Sequence[Rule], measurements: Sequence[str] = ()) -> Rule | None:
    """Return the first rule about a metric of the whole set: the one that must beat the champion, or ``None``."""
    for rule in rules:
        if rule.per is None and _is_quality(rule.metric, measurements):
            return rule
    return None


def decide(
    rules: Sequence[Rule],
    predictions: Predictions,
    *,
    task: Task,
    anchor: np.ndarray | None = None,
    policy: GatePolicy = _NO_POLICY,
    measurements: Mapping[str, float] | None = None,
    importance: Importance | None = None,
    findings: Sequence[Finding] = (),
) -> GateDecision:
    """
    Decide whether the candidate may take the champion's place.

    The first rule's metric is primary: where it names neither ``max_drop_vs_champion`` nor ``min_gain_vs_champion``, a
    gain above 0 must be shown. Without a champion only limits on the value itself apply (``bootstrap`` is then set).

    :param anchor: predictions, as in `Predictions.candidate`, of the last version that won by superiority; rules with
        ``max_drop_vs_champion`` are tested against it as well, or small losses would add up unseen.
    :param measurements: what was measured elsewhere, for budgets: name -> number.
    :param importance: how much each input matters to the candidate, for ``importance_share``.
    :param findings: what the guards found; any of them refuses.
    :raises ConfigError: a rule that cannot be asked (see `check_rules`).
    """
    measured = dict(measurements or {})
    check_rules(rules, task=task, measurements=tuple(measured))
    first_model = predictions.champion is None and predictions.champion_error is None
    found = [*findings]
    coverage = check_labels(predictions.label, max_missing=policy.max_missing_labels)
    if coverage is not None:
        found.append(coverage)
    unasked = _nothing_asked(rules, tuple(measured), first_model=first_model)
    if unasked is not None:
        found.append(unasked)
    if found:
        return _stopped(found, predictions.rows, first_model=first_model)
    trial = _prepare(
        rules, predictions, task=task, anchor=anchor, policy=policy, measured=measured, importance=importance
    )
    if isinstance(trial, Finding):
        return _stopped([trial], predictions.rows, first_model=first_model)
    return _summary([_judge(rule, trial) for rule in rules], trial)


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Everything that a rule is judged on; rows without a label are gone."""

    candidate: Sample
    champion: Sample | None
    champion_problem: str
    anchor: Sample | None
    units: Units
    slices: Mapping[str, np.ndarray]
    newest: np.ndarray | None
    policy: GatePolicy
    measured: Mapping[str, float]
    importance: Importance | None
    primary: Rule | None

    @property
    def first_model(self) -> bool:
        return self.champion is None and not self.champion_problem

    def take(self, rows: np.ndarray) -> _Trial:
        return replace(
            self,
            candidate=self.candidate.take(rows),
            champion=None if self.champion is None else self.champion.take(rows),
            units=self.units.take(rows),
        )


def _nothing_asked(rules: Sequence[Rule], measured: Sequence[str], *, first_model: bool) -> Finding | None:
    quality = [rule for rule in rules if _is_quality(rule.metric, measured)]
    absolute = [rule for rule in quality if rule.at_least is not None or rule.at_most is not None]
    primary = primary_rule(rules, measured)
    if not rules:
        sentence = "No rule was given, so nothing can be passed. Write at least one under evaluate."
    elif first_model and not absolute:
        sentence = (
            "This is the first model and no rule limits a metric itself, so there is nothing to hold it to. "
            "Give a rule at_least or at_most."
        )
    elif not first_model and primary is None:
        sentence = (
            "No rule looks at a metric of the whole evaluation set, so the candidate is not compared with the "
            "champion. Write one without per."
        )
    elif primary is not None and primary.unsafe_ignore_champion and not absolute:
        sentence = "The champion is ignored and no rule limits a metric itself. Give a rule at_least or at_most."
    else:
        return None
    return Finding(Reason.NO_RULE, sentence)


def _prepare(
    rules: Sequence[Rule],
    predictions: Predictions,
    *,
    task: Task,
    anchor: np.ndarray | None,
    policy: GatePolicy,
    measured: Mapping[str, float],
    importance: Importance | None,
) -> _Trial | Finding:
    rows = predictions.rows
    others = {
        "time": predictions.time,
        "entity": predictions.entity,
        "newest": predictions.newest,
        **predictions.slices,
    }
    for name, column in others.items():
        if column is not None and len(column) != rows:
            return Finding(Reason.BAD_PREDICTIONS, f"{name} has {len(column)} values for {rows} labels.")
    kept = ~missing(predictions.label)
    if nested(predictions.label):
        return Finding(Reason.BAD_PREDICTIONS, "The labels are lists or mappings. One value per row is needed.")
    label = settled(predictions.label[kept])
    order = _order(predictions, label, kept, task=task, policy=policy)
    if isinstance(order, Finding):
        return order
    classes, query = order

    def encoded(values: np.ndarray, who: str) -> Sample | Finding:
        # As many predictions as labels could be those of other rows than the labeled ones.
        miscounted = check_count(values, rows, who)
        if miscounted is not None:
            return miscounted
        return sample(
            label, values[kept], policy=policy, classes=classes, columns=predictions.classes, who=who, group=query
        )

    candidate = encoded(predictions.candidate, "candidate")
    if isinstance(candidate, Finding):
        return candidate
    error = predictions.champion_error
    champion, problem = None, "" if error is None else error or "it is not said why"
    if predictions.champion is not None:
        scored = encoded(predictions.champion, "champion")
        champion, problem = (None, scored.sentence) if isinstance(scored, Finding) else (scored, "")
    base = None if anchor is None else encoded(anchor, "anchor")
    if isinstance(base, Finding):
        return replace(base, reason=Reason.CHAMPION_UNSCORABLE)
    return _Trial(
        candidate=candidate,
        champion=champion,
        champion_problem=problem,
        anchor=base,
        units=Units.of(
            len(label),
            time=None if predictions.time is None else predictions.time[kept],
            entity=None if predictions.entity is None else predictions.entity[kept],
            block=policy.block_rows,
        ),
        slices={name: column[kept] for name, column in predictions.slices.items()},
        newest=None if predictions.newest is None else predictions.newest[kept],
        policy=policy,
        measured=measured,
        importance=importance,
        primary=primary_rule(rules, tuple(measured)),
    )


def _order(
    predictions: Predictions, label: np.ndarray, kept: np.ndarray, *, task: Task, policy: GatePolicy
) -> tuple[np.ndarray | None, np.ndarray | None] | Finding:
    """Return the classes of a classification and the query of each row of a ranking, or why the labels do not fit."""
    if task in ("binary", "multiclass"):
        classes = class_order(label, task, predictions.classes, policy)
        return classes if isinstance(classes, Finding) else (classes, None)
    if label.dtype.kind not in "biuf" or not np.isfinite(label).all():
        return Finding(Reason.NOT_A_NUMBER, f"The labels of a {task} must be finite numbers; they are {label.dtype}.")
    if task != "ranking":
        return None, None
    query = _queries(predictions.entity, label, kept)
    return query if isinstance(query, Finding) else (None, query)


def _queries(entity: np.ndarray | None, label: np.ndarray, kept: np.ndarray) -> np.ndarray | Finding:
    """Return the code of each labeled row's query, or why the rows are no ranking."""
    if entity is None:
        return Finding(
            Reason.NO_GROUPS,
            "A ranking needs to know which rows compete with each other. Name the column of the query as entity.",
        )
    lost = int(missing(entity[kept]).sum())
    if lost:
        return Finding(
            Reason.NO_GROUPS, f"{lost} of {len(label)} rows have no query (entity). Leave them out of the data."
        )
    if (label < 0).any():
        return Finding(
            Reason.BAD_PREDICTIONS,
            f"The labels of a ranking say how relevant a row is, 0 or more; the smallest is {label.min():g}.",
        )
    if not (label > 0).any():
        return Finding(Reason.ONE_CLASS, "No evaluation row is relevant (label > 0), so no query has a best order.")
    return np.unique(entity[kept].astype(str), return_inverse=True)[1]


# -- one rule ---------------------------------------------------------------------------------------------------------


def _judge(rule: Rule, trial: _Trial) -> RuleOutcome:
    if _is_budget(rule.metric, tuple(trial.measured)):
        return _judge_budget(rule, trial)
    if rule.metric in GAPS:
        return _judge_gap(rule, trial)
    if rule.metric == IMPORTANCE_SHARE:
        return _judge_driver(rule, trial.importance)
    metric = find_metric(rule.metric, higher_is_better=rule.higher_is_better)
    lack = lacks(metric, trial.candidate)
    if lack:
        return RuleOutcome(rule, _REFUSED, Reason.MISSING_METRIC, f"{rule.metric} {lack} (candidate).")
    return _judge_whole(rule, metric, trial) if rule.per is None else _judge_slices(rule, metric, trial)


def _judge_budget(rule: Rule, trial: _Trial) -> RuleOutcome:
    value = trial.measured.get(rule.metric)
    if value is None:
        return RuleOutcome(
            rule,
            _REFUSED,
            Reason.MISSING_METRIC,
            f"{rule.metric} was not measured. Measured: {', '.join(sorted(trial.measured)) or 'nothing'}.",
        )
    if not math.isfinite(value):
        return RuleOutcome(rule, _REFUSED, Reason.NOT_A_NUMBER, f"{rule.metric} was measured as {value}.")
    limit = rule.at_most if rule.at_most is not None else math.inf
    numbers = {"value": value}
    if value > limit:
        sentence = f"{rule.metric} is {value:g}, the budget is {limit:g}."
        return RuleOutcome(rule, _REFUSED, Reason.BUDGET_EXCEEDED, sentence, numbers)
    return RuleOutcome(
        rule, _PASSED, Reason.HOLDS, f"{rule.metric} is {value:g}, within the budget of {limit:g}.", numbers
    )


def _judge_driver(rule: Rule, importance: Importance | None) -> RuleOutcome:
    column = rule.column or ""
    if importance is None:
        sentence = f"{rule.metric} of {column!r} was not measured. Look at the scoring job's log."
        return RuleOutcome(rule, _REFUSED, Reason.MISSING_METRIC, sentence)
    if column in importance.not_inputs:
        sentence = f"{column!r} is no input of the model."
        return RuleOutcome(rule, _PASSED, Reason.HOLDS, sentence, {"value": 0.0})
    if column not in importance.columns:
        near = did_you_mean(column, [*importance.columns, *importance.not_inputs])
        sentence = f"{rule.metric}: the data has no column {column!r}.{near}"
        return RuleOutcome(rule, _REFUSED, Reason.MISSING_METRIC, sentence)
    share, drop = importance.shares[column], importance.columns[column]
    limit = rule.at_most if rule.at_most is not None else 1.0
    numbers = {"value": share, "drop": drop.drop, "drop_low": drop.low, "drop_high": drop.high, "rows": importance.rows}
    sentence = f"{column!r} holds {share:.1%} of the model's importance, at most {limit:.1%} is allowed."
    if share > limit:
        more = " Train without it, and look for columns that stand in for it."
        return RuleOutcome(rule, _REFUSED, Reason.FORBIDDEN_DRIVER, sentence + more, numbers)
    return RuleOutcome(rule, _PASSED, Reason.HOLDS, sentence, numbers)


def _judge_gap(rule: Rule, trial: _Trial) -> RuleOutcome:
    groups = _groups(rule, trial)
    if isinstance(groups, RuleOutcome):
        return groups
    if trial.candidate.label is None:
        sentence = f"{rule.metric} needs labels, and the scores are no probabilities that a threshold could cut."
        return RuleOutcome(rule, _REFUSED, Reason.MISSING_METRIC, sentence)
    need = rule.min_rows or trial.policy.min_slice_rows
    judged = {name: rows for name, rows in groups.items() if len(rows) >= need}
    small = [f"{name}: {len(rows)} rows < {need}, left out" for name, rows in groups.items() if name not in judged]
    notes = _first(small)
    gap = largest_gap(rule.metric, trial.candidate, trial.units, judged, trial.policy)
    if gap is None:
        sentence = (
            f"{rule.metric} compares groups of {rule.per}, and fewer than two of them have {need} rows and the labels "
            "that the rate is about."
        )
        return RuleOutcome(rule, _REFUSED, Reason.SLICE_UNDERFILLED, sentence, {"notes": notes})
    numbers = {"value": gap.value, "low": gap.low, "high": gap.high, "rates": gap.rates, "between": gap.between}
    numbers |= {"notes": notes} if notes else {}
    limit = rule.at_most if rule.at_most is not None else math.inf
    sentence = (
        f"{rule.metric} is {gap.value:.4f} [{gap.low:.4f}, {gap.high:.4f}] between {gap.between[0]} and "
        f"{gap.between[1]}, at most {limit:g} is allowed."
    )
    if gap.value > limit:
        return RuleOutcome(rule, _REFUSED, Reason.UNFAIR, sentence, numbers)
    return RuleOutcome(rule, _PASSED, Reason.HOLDS, sentence, numbers)


def _judge_whole(rule: Rule, metric: Metric, trial: _Trial) -> RuleOutcome:
    own = estimate(metric, trial.candidate, trial.units, trial.policy)
    numbers: dict[str, Any] = {"rows": trial.candidate.rows, **_described(own)}
    absolute = _absolute(rule, own, numbers) or _handful(rule, own, numbers, trial)
    if absolute is not None:
        return absolute
    value = f"{rule.metric} is {_interval(own.value, own.low, own.high)}"
    compared = rule.max_drop_vs_champion is not None or rule.min_gain_vs_champion is not None or rule is trial.primary
    if rule.unsafe_ignore_champion:
        sentence = f"{value}; unsafe_ignore_champion: it was not compared with the champion."
        return RuleOutcome(rule, _PASSED, Reason.CHAMPION_IGNORED, sentence, numbers)
    if not compared:
        return RuleOutcome(rule, _PASSED, Reason.HOLDS, f"{value}.", numbers)
    if trial.first_model:
        sentence = f"{value}; there is no champion to compare with."
        return RuleOutcome(rule, _PASSED, Reason.FIRST_MODEL, sentence, numbers)
    problem = trial.champion_problem or (lacks(metric, trial.champion) if trial.champion is not None else "")
    if problem or trial.champion is None:
        return _unscorable(rule, problem, numbers)
    return _judge_gain(rule, metric, trial, trial.champion, numbers)


def _judge_gain(rule: Rule, metric: Metric, trial: _Trial, champion: Sample, numbers: dict[str, Any]) -> RuleOutcome:
    gain = compare(metric, trial.candidate, champion, trial.units, trial.policy)
    reference = metric.value(champion)
    numbers |= {"champion": reference, **_gained(gain)}
    margin = rule.max_drop_vs_champion
    if not math.isfinite(gain.value) or not math.isfinite(gain.standard_error):
        sentence = f"{rule.metric} of the champion or its gain is not a number ({reference})."
        return RuleOutcome(rule, _REFUSED, Reason.NOT_A_NUMBER, sentence, numbers)
    if margin is None:
        least = rule.min_gain_vs_champion or 0.0
        worth = trial.policy.smallest_gain * (1.0 if math.isfinite(metric.high) else abs(reference))
        asked = _Asked(
            least, worth, f"a gain above {least:g}", f"a true gain {worth:.4g} above that", Reason.NOT_BETTER
        )
    else:
        wanted = f"a loss under {margin:g}"
        asked = _Asked(
            -margin, margin, wanted, f"that of an equal model (margin {margin:g})", Reason.WORSE_THAN_CHAMPION
        )
    outcome = _shown(rule, gain, asked, trial, numbers)
    if outcome.verdict is _PASSED:
        outcome = _on_newest(outcome, metric, trial, champion, numbers)
    if outcome.verdict is not _PASSED or margin is None or trial.anchor is None:
        return outcome
    base = compare(metric, trial.candidate, trial.anchor, trial.units, trial.policy)
    numbers |= {"anchor": metric.value(trial.anchor), **{f"anchor_{key}": item for key, item in _gained(base).items()}}
    if base.low > -margin:
        sentence = f"{outcome.sentence} Against the anchor: gain {_interval(base.value, base.low, base.high)}."
        return replace(outcome, sentence=sentence, numbers=numbers)
    sentence = (
        f"{rule.metric}: against the anchor, the last version that won by superiority, the gain is "
        f"{_interval(base.value, base.low, base.high)}; a loss of {margin:g} is not excluded. "
        "Small losses have added up: a better model is needed, not another equal one."
    )
    return RuleOutcome(rule, _REFUSED, Reason.WORSE_THAN_ANCHOR, sentence, numbers)


def _on_newest(
    outcome: RuleOutcome, metric: Metric, trial: _Trial, champion: Sample, numbers: dict[str, Any]
) -> RuleOutcome:
    """Let the newest window veto, as a slice does: it rarely has the rows to show more than that it is worse."""
    if trial.newest is None or not trial.policy.min_slice_rows <= trial.newest.sum() < len(trial.newest):
        return outcome
    rule, part = outcome.rule, replace(trial, champion=champion).take(trial.newest)
    gain = compare(metric, part.candidate, part.champion or champion, part.units, trial.policy, quick=True)
    margin = rule.max_drop_vs_champion or 0.0
    numbers |= {"newest": {"rows": part.candidate.rows, **_gained(gain)}}
    if _chance_of_loss(gain, margin) > trial.policy.slice_alpha:
        return replace(outcome, numbers=numbers)
    sentence = (
        f"{outcome.sentence} But on the newest {part.candidate.rows} rows alone the gain is "
        f"{_interval(gain.value, gain.low, gain.high)}: it is shown worse there, and what is new is what it will meet. "
        "Train on newer rows."
    )
    return RuleOutcome(rule, _REFUSED, Reason.NEWEST_WORSE, sentence, numbers)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A gain above *least* must be shown; *worth* more than that is what the rows should be able to show."""

    least: float
    worth: float
    wanted: str
    power: str
    failed: Reason


def _shown(rule: Rule, gain: Estimate, asked: _Asked, trial: _Trial, numbers: dict[str, Any]) -> RuleOutcome:
    """Return whether the gain is shown, not shown although it could have been, or beyond these rows."""
    said = f"{rule.metric}: gain over the champion {_interval(gain.value, gain.low, gain.high)}"
    if gain.low > asked.least:
        return RuleOutcome(rule, _PASSED, Reason.HOLDS, f"{said}: {asked.wanted} is shown.", numbers)
    rows = trial.candidate.rows
    needed = rows_for(rows, gain.standard_error, asked.worth, trial.policy) if asked.worth > 0 else rows
    if gain.units < MIN_UNITS:
        needed = max(needed, math.ceil(rows * MIN_UNITS / max(gain.units, 1)))
    if needed > rows and not gain.high < asked.least:
        numbers |= {"rows_needed": needed}
        sentence = (
            f"{said}: {asked.wanted} is not shown, and {rows} rows could not have shown {asked.power}. "
            f"About {needed} rows would ({gain.method}, power {trial.policy.power:g})."
        )
        return RuleOutcome(rule, _UNDERPOWERED, Reason.UNDERPOWERED, sentence, numbers)
    excuse = "the two models do equally well on every row" if gain.standard_error == 0 else f"{rows} rows are enough"
    return RuleOutcome(rule, _REFUSED, asked.failed, f"{said}: {asked.wanted} is not shown, and {excuse}.", numbers)


# -- slices -----------------------------------------------------------------------------------------------------------


def _judge_slices(rule: Rule, metric: Metric, trial: _Trial) -> RuleOutcome:
    groups = _groups(rule, trial)
    if isinstance(groups, RuleOutcome):
        return groups
    against = None if rule.unsafe_ignore_champion else trial.champion
    problem = "" if rule.unsafe_ignore_champion else trial.champion_problem
    problem = problem or ("" if against is None else lacks(metric, against))
    if problem:
        return _unscorable(rule, problem, {})
    numbers: dict[str, Any] = {"slices": {}, "notes": []}
    gains = _slice_gains(rule, metric, replace(trial, champion=against), groups, numbers)
    if isinstance(gains, RuleOutcome):
        return gains
    if against is None:
        reason = Reason.FIRST_MODEL if trial.first_model else Reason.CHAMPION_IGNORED
        sentence = f"{rule.metric}: {len(numbers['slices'])} slices of {rule.per}, not compared with a champion."
        return RuleOutcome(rule, _PASSED, reason, sentence, numbers)
    return _protected(rule, gains, trial, numbers) if rule.protected else _veto(rule, gains, trial, numbers)


def _slice_gains(
    rule: Rule, metric: Metric, trial: _Trial, groups: Mapping[str, np.ndarray], numbers: dict[str, Any]
) -> dict[str, Estimate] | RuleOutcome:
    """Fill in *numbers* per slice; return the gain per slice, or the refusal that one slice alone asks for."""
    need = rule.min_rows or trial.policy.min_slice_rows
    gains: dict[str, Estimate] = {}
    small = [
        f"{rule.per}={name}: {len(rows)} rows < {need}, not judged" for name, rows in groups.items() if len(rows) < need
    ]
    numbers["notes"] = _first(small)
    for name, rows in groups.items():
        where = f"{rule.per}={name}"
        count = len(rows)
        if count < need:
            if rule.protected:
                sentence = f"{rule.metric}: the protected slice {where} has {count} rows, {need} are needed."
                return RuleOutcome(rule, _REFUSED, Reason.SLICE_UNDERFILLED, sentence, numbers)
            continue
        part = trial.take(rows)
        own = estimate(metric, part.candidate, part.units, trial.policy, quick=True)
        numbers["slices"][name] = {"rows": count, **_described(own)}
        failed = _absolute(rule, own, numbers, where=where, one_class=_one_class(part.candidate))
        if failed is not None:
            return failed
        if part.champion is not None:
            gains[name] = compare(metric, part.candidate, part.champion, part.units, trial.policy, quick=True)
            numbers["slices"][name] |= _gained(gains[name])
    if not numbers["slices"]:
        sentence = f"{rule.metric}: none of the {len(groups)} slices of {rule.per} has {need} rows. Lower min_rows."
        return RuleOutcome(rule, _REFUSED, Reason.SLICE_UNDERFILLED, sentence, numbers)
    return gains


def _veto(rule: Rule, gains: Mapping[str, Estimate], trial: _Trial, numbers: dict[str, Any]) -> RuleOutcome:
    """Refuse when Holm's procedure shows a slice worse (by more than the rule's margin, when it has one)."""
    margin = rule.max_drop_vs_champion or 0.0
    chances = {name: _chance_of_loss(gain, margin) for name, gain in gains.items()}
    worse = _holm(chances, trial.policy.slice_alpha)
    numbers |= {"shown_worse": worse}
    count = f"{len(gains)} slices of {rule.per}"
    if worse:
        gain = gains[worse[0]]
        sentence = (
            f"{rule.metric}: {len(worse)} of {count} shown worse than under the champion, first {rule.per}={worse[0]} "
            f"with a gain of {_interval(gain.value, gain.low, gain.high)} (Holm {trial.policy.slice_alpha:g})."
        )
        return RuleOutcome(rule, _REFUSED, Reason.SLICE_WORSE, sentence, numbers)
    sentence = f"{rule.metric}: none of {count} is shown worse than under the champion."
    return RuleOutcome(rule, _PASSED, Reason.HOLDS, sentence, numbers)


def _protected(rule: Rule, gains: Mapping[str, Estimate], trial: _Trial, numbers: dict[str, Any]) -> RuleOutcome:
    """Refuse unless every slice is shown not worse than the margin (0 unless the rule names one)."""
    margin = rule.max_drop_vs_champion or 0.0
    failed = {name: gain for name, gain in gains.items() if not gain.low >= -margin}
    if not failed:
        sentence = f"{rule.metric}: all {len(gains)} protected slices of {rule.per} are shown not worse."
        return RuleOutcome(rule, _PASSED, Reason.HOLDS, sentence, numbers)
    name = min(failed, key=lambda item: failed[item].low)
    gain, rows = failed[name], numbers["slices"][name]["rows"]
    said = (
        f"{rule.metric}: the protected slice {rule.per}={name} has a gain of "
        f"{_interval(gain.value, gain.low, gain.high)}; a loss above {margin:g} is not excluded"
    )
    worth = margin or trial.policy.smallest_gain
    needed = rows_for(rows, gain.standard_error, worth, trial.policy) if math.isfinite(gain.standard_error) else rows
    if needed <= rows or gain.high < -margin:
        return RuleOutcome(rule, _REFUSED, Reason.SLICE_WORSE, f"{said}.", numbers)
    total = math.ceil(trial.candidate.rows * needed / rows)
    numbers |= {"rows_needed": total}
    sentence = f"{said}. The slice has {rows} rows and would need about {needed}: {total} in all."
    return RuleOutcome(rule, _UNDERPOWERED, Reason.UNDERPOWERED, sentence, numbers)


def _groups(rule: Rule, trial: _Trial) -> dict[str, np.ndarray] | RuleOutcome:
    """Return the rows of each slice by its name, in sorted order; those without a value are a slice of their own."""
    column = trial.slices.get(rule.per or "")
    if column is None:
        sentence = (
            f"{rule.metric}: the column {rule.per!r} was not scored.{did_you_mean(rule.per or '', trial.slices)} "
            f"Scored: {', '.join(sorted(trial.slices)) or 'none'}."
        )
        return RuleOutcome(rule, _REFUSED, Reason.MISSING_SLICE, sentence)
    gone = missing(column)
    if gone.all() or nested(column):
        holds = "no value" if gone.all() else "lists or mappings"
        sentence = f"{rule.metric}: the column {rule.per!r} holds {holds} on the evaluation rows."
        return RuleOutcome(rule, _REFUSED, Reason.MISSING_SLICE, sentence)
    names, codes = np.unique(column[~gone].astype(str), return_inverse=True)
    # Positions and no masks: with a slice per customer those would hold rows times customers.
    ordered = np.flatnonzero(~gone)[np.argsort(codes, kind="stable")]
    parts = np.split(ordered, np.cumsum(np.bincount(codes))[:-1])
    groups = {str(name): rows for name, rows in zip(names, parts, strict=True)}
    if gone.any():
        nameless = "(missing)"
        while nameless in groups:
            nameless = f"({nameless})"
        groups[nameless] = np.flatnonzero(gone)
    return groups


def _chance_of_loss(gain: Estimate, margin: float) -> float:
    """Return the p-value of "the slice is not worse than the margin"; 1 where nothing can be shown."""
    if gain.units < MIN_UNITS or not math.isfinite(gain.value) or not math.isfinite(gain.standard_error):
        return 1.0
    if gain.high >= -margin:
        return 1.0
    if gain.standard_error == 0:
        return 0.0
    # A count moves in steps of one row won or lost; half of that step keeps the normal law honest in small slices.
    return NormalDist().cdf((gain.value + margin + 1 / gain.units) / gain.standard_error)


def _holm(chances: Mapping[str, float], alpha: float) -> list[str]:
    """Return the names that Holm's step-down procedure rejects at *alpha*, most certain first."""
    rejected = []
    for step, name in enumerate(sorted(chances, key=lambda item: (chances[item], item))):
        if chances[name] > alpha / (len(chances) - step):
            break
        rejected.append(name)
    return rejected


def _first(notes: list[str]) -> list[str]:
    """Return as many of *notes* as somebody reads, and how many more there are."""
    more = len(notes) - _NOTES
    return notes if more <= 0 else [*notes[:_NOTES], f"and {more} more"]


# -- words ------------------------------------------------------------------------------------------------------------


def _absolute(
    rule: Rule, own: Estimate, numbers: dict[str, Any], *, where: str = "", one_class: bool = False
) -> RuleOutcome | None:
    """Return the refusal that the point estimate alone asks for, if any."""
    place = f" on {where}" if where else ""
    if not math.isfinite(own.value) and one_class:
        sentence = (
            f"{rule.metric}{place} is not defined: its labels hold one class only. Raise min_rows, or use a metric "
            "that one class can have."
        )
        return RuleOutcome(rule, _REFUSED, Reason.ONE_CLASS, sentence, numbers)
    if not math.isfinite(own.value):
        sentence = f"{rule.metric}{place} is not a number ({own.value})."
        return RuleOutcome(rule, _REFUSED, Reason.NOT_A_NUMBER, sentence, numbers)
    low = rule.at_least is not None and own.value < rule.at_least
    if low or (rule.at_most is not None and own.value > rule.at_most):
        limit = f"at least {rule.at_least:g}" if low else f"at most {rule.at_most:g}"
        sentence = f"{rule.metric}{place} is {_interval(own.value, own.low, own.high)}, {limit} is asked."
        return RuleOutcome(rule, _REFUSED, Reason.BELOW_ABSOLUTE, sentence, numbers)
    return None


def _handful(rule: Rule, own: Estimate, numbers: dict[str, Any], trial: _Trial) -> RuleOutcome | None:
    """Return what there is to say of so few rows that even the first model cannot be held to a limit on them."""
    if own.units >= MIN_UNITS:
        return None
    needed = math.ceil(trial.candidate.rows * MIN_UNITS / max(own.units, 1))
    sentence = f"{rule.metric} is {own.value:.4f} on {own.units} {trial.units.kind}; {MIN_UNITS} are the least."
    return RuleOutcome(rule, _UNDERPOWERED, Reason.UNDERPOWERED, sentence, numbers | {"rows_needed": needed})


def _unscorable(rule: Rule, problem: str, numbers: dict[str, Any]) -> RuleOutcome:
    sentence = (
        f"{rule.metric}: the champion could not be scored on the evaluation rows ({problem.rstrip('.')}). "
        "Mend its scoring; unsafe_ignore_champion: true is the only way round the comparison."
    )
    return RuleOutcome(rule, _REFUSED, Reason.CHAMPION_UNSCORABLE, sentence, numbers)


def _one_class(one: Sample) -> bool:
    return bool(one.classes) and len(np.unique(one.truth)) < 2


def _described(own: Estimate) -> dict[str, Any]:
    return {"value": own.value, "low": own.low, "high": own.high, "method": own.method}


def _gained(gain: Estimate) -> dict[str, Any]:
    return {
        "gain": gain.value,
        "gain_low": gain.low,
        "gain_high": gain.high,
        "standard_error": gain.standard_error,
        "disagreement": gain.disagreement,
        "gain_method": gain.method,
        "units": gain.units,
    }


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"


def _is_quality(name: str, measured: Sequence[str]) -> bool:
    """Return whether *name* says how well the model predicts, not what it costs or is made of."""
    return name not in GAPS and name != IMPORTANCE_SHARE and not _is_budget(name, measured)


def _is_budget(name: str, measured: Sequence[str]) -> bool:
    return name in BUDGETS or (name in measured and name not in METRICS and name not in GAPS)


def _stopped(found: Sequence[Finding], rows: int, *, first_model: bool) -> GateDecision:
    more = f" ({len(found) - 1} more findings.)" if len(found) > 1 else ""
    return GateDecision(
        _REFUSED, found[0].reason, found[0].sentence + more, findings=tuple(found), bootstrap=first_model, rows=rows
    )


def _summary(outcomes: Sequence[RuleOutcome], trial: _Trial) -> GateDecision:
    ignored = trial.primary is not None and trial.primary.unsafe_ignore_champion and not trial.first_model
    refused = [outcome for outcome in outcomes if outcome.verdict is _REFUSED]
    open_ = [outcome for outcome in outcomes if outcome.verdict is _UNDERPOWERED]
    needed = max((outcome.numbers["rows_needed"] for outcome in open_), default=None)
    first = next(iter([*refused, *open_]), None)
    count = f"{len(outcomes)} rule{'s' if len(outcomes) > 1 else ''}"
    if first is None:
        held = f"All {count} hold" if len(outcomes) > 1 else "The rule holds"
        held += f" on {trial.candidate.rows} rows."
        note = " First model: nothing was compared." if trial.first_model else ""
        note += " The champion was ignored by unsafe_ignore_champion." if ignored else ""
        verdict, reason, sentence = _PASSED, Reason.HOLDS, held + note
    else:
        failed = f"{len(refused) + len(open_)} of {count} not met. "
        verdict, reason, sentence = first.verdict, first.reason, failed + first.sentence
    return GateDecision(
        verdict,
        reason,
        sentence,
        rules=tuple(outcomes),
        bootstrap=trial.first_model,
        champion_ignored=ignored,
        rows=trial.candidate.rows,
        rows_needed=needed,
    )
