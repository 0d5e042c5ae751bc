"""What the sections of a specification must agree on. Pure: a specification in, problems out."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.errors import did_you_mean
from airflow_provider_mlops.pipeline.problems import Path, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_mlops.pipeline.spec import DriftSpec, PipelineSpec, RuleSpec

__all__ = ["FORM_KEYS", "check", "variable_problem"]

FORM_KEYS = ("data.path", "data.train_on", "train.seed", "train.run_timeout", "prepare.run_timeout")
"""Keys that a run may change, beside the hyperparameters of ``train`` and ``prepare``."""

_HYPERPARAMETER = re.compile(r"(train|prepare)\.hyperparameters\.(.+)", re.DOTALL)
_GATES = ("evaluate", "validate", "approve", "promote", "mode", "retrain", "deploy")
_JUDGES = ("data.hold_out", "data.label_delay", "data.label", "data.timestamp", "data.entity")
_OWNED = ("task_id", "task_group", "dag")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check(spec: PipelineSpec) -> list[Problem]:
    """Return what is wrong between the keys of *spec*, each of which is valid by itself."""
    return [
        *_time(spec),
        *_columns(spec),
        *(problem for i, rule in enumerate(spec.evaluate) for problem in _rule(rule, ("evaluate", i))),
        *_ranges(spec),
        *_rollout(spec),
        *_monitor(spec),
        *_steps(spec),
        *(problem for i, key in enumerate(spec.trigger_form) for problem in _form(spec, key, ("trigger_form", i))),
    ]


def variable_problem(name: str) -> str | None:
    """Return why a job may not be given the worker's variable *name*, or ``None``."""
    if _VARIABLE.fullmatch(name) is None:
        return (
            f"{name!r} is no name of a variable. List names only (AWS_PROFILE); their values are the worker's, and "
            "stand in no file."
        )
    if name.upper().lstrip("_").startswith("AIRFLOW"):
        return f"{name!r} is Airflow's own, its connections and keys are no job's business. Take it out."
    if name.startswith("MLOPS_"):
        return f"{name!r} is set for the job by this package. Take it out."
    return None


def _time(spec: PipelineSpec) -> Iterator[Problem]:
    data = spec.data
    if data.timestamp is None:
        needs: dict[Path, Any] = {
            ("data", "label_delay"): data.label_delay,
            ("data", "train_on"): data.train_on,
            ("validate", "fresh_within"): spec.validation.fresh_within,
            ("monitor", "window"): spec.monitor.window if spec.monitor else None,
            ("monitor", "drift", "trailing"): spec.monitor.drift.trailing if spec.monitor else None,
        }
        for path, value in needs.items():
            if value is not None:
                yield Problem(path, "needs the time of a row. Name its column: data.timestamp: COLUMN.")
        if not isinstance(data.hold_out, float):
            yield Problem(
                ("data", "hold_out"),
                "a duration needs the time of a row. Name its column (data.timestamp: COLUMN), or write a share: 20%.",
            )


def _columns(spec: PipelineSpec) -> Iterator[Problem]:
    data = spec.data
    for key in ("timestamp", "entity"):
        if getattr(data, key) == data.label:
            yield Problem(("data", key), f"{data.label!r} is the label already; the model would see what it predicts.")
    if data.timestamp is not None and data.timestamp == data.entity:
        yield Problem(("data", "entity"), f"{data.entity!r} is the timestamp already.")


def _rule(rule: RuleSpec, path: Path) -> Iterator[Problem]:
    relative = rule.max_drop_vs_champion is not None or rule.min_gain_vs_champion is not None
    if rule.max_drop_vs_champion is not None and rule.min_gain_vs_champion is not None:
        yield Problem((*path, "max_drop_vs_champion"), "contradicts min_gain_vs_champion. Keep one of them.")
    if rule.unsafe_ignore_champion and (relative or rule.protected):
        yield Problem(
            (*path, "unsafe_ignore_champion"), "contradicts a limit that compares with the champion. Keep one of them."
        )
    if rule.at_least is not None and rule.at_most is not None and rule.at_least > rule.at_most:
        yield Problem((*path, "at_least"), f"{rule.at_least} is above at_most ({rule.at_most}): nothing can pass.")
    if rule.per is None:
        for key, value in (("min_rows", rule.min_rows), ("protected", rule.protected or None)):
            if value is not None:
                yield Problem((*path, key), "is about slices. Name the column: per: COLUMN.")
    elif rule.min_gain_vs_champion is not None:
        yield Problem(
            (*path, "min_gain_vs_champion"),
            "cannot be asked of slices. They veto when they are shown worse; protected: true asks that they be shown "
            "not worse.",
        )
    if (rule.metric == "importance_share") != (rule.column is not None):
        yield Problem(
            (*path, "metric"),
            "importance_share and column go together: {metric: importance_share, column: COLUMN, at_most: 0.05}.",
        )
    if rule.higher_is_better is None and ":" in rule.metric:
        yield Problem((*path, "metric"), "a function does not tell its direction. Add higher_is_better: true or false.")
    if rule.higher_is_better is not None and ":" not in rule.metric:
        yield Problem(
            (*path, "higher_is_better"),
            f"the direction of {rule.metric!r} is known. Write it only for a metric of your own "
            "(package.module:function).",
        )


def _ranges(spec: PipelineSpec) -> Iterator[Problem]:
    for column, (low, high) in spec.validation.ranges.items():
        path: Path = ("validate", "ranges", column)
        if low is None and high is None:
            yield Problem(path, "both sides are open, which allows every value. Write [lowest, highest].")
        elif low is not None and high is not None and low > high:
            yield Problem(path, f"the lowest value ({low:g}) is above the highest ({high:g}). Swap them.")


def _rollout(spec: PipelineSpec) -> Iterator[Problem]:
    canary = spec.deploy.canary if spec.deploy else None
    if canary is not None:
        weights = canary.weights_percent
        if any(later <= earlier for earlier, later in itertools.pairwise(weights)):
            yield Problem(
                ("deploy", "canary", "weights_percent"),
                f"every step needs more traffic than the one before, got {list(weights)}. Write for example [10, 50]; "
                "100 follows by itself.",
            )


def _monitor(spec: PipelineSpec) -> Iterator[Problem]:
    retrain, monitor = spec.retrain, spec.monitor
    if "drift" in retrain.when and monitor is None:
        yield Problem(
            ("retrain", "when"),
            "'drift' needs a monitor, and this pipeline has none. Add monitor: {schedule: \"@daily\"}, or take 'drift' "
            "out.",
        )
    if spec.schedule is not None and "schedule" not in retrain.when:
        yield Problem(
            ("schedule",),
            f"{spec.schedule!r} starts nothing, because retrain.when does not hold 'schedule'. Add it there, or take "
            "the schedule out.",
        )
    if retrain.violating_windows > retrain.of_last:
        yield Problem(
            ("retrain", "violating_windows"),
            f"{retrain.violating_windows} of the last {retrain.of_last} windows can never be. Write at most "
            f"{retrain.of_last}, or raise of_last.",
        )
    if monitor is not None:
        yield from _drift(monitor.drift)


def _drift(drift: DriftSpec) -> Iterator[Problem]:
    section: Path = ("monitor", "drift")
    if drift.columns is not None and drift.exclude:
        yield Problem((*section, "exclude"), "contradicts columns, which names what is watched. Keep one.")
    for name in ("trailing", "max_rows", "columns"):
        if drift.served_by is not None and getattr(drift, name) is not None:
            yield Problem(
                (*section, name),
                "goes without served_by, whose servers count all inputs of all that they were asked since they "
                "started. Take one of the two out.",
            )


def _steps(spec: PipelineSpec) -> Iterator[Problem]:
    for name, step in spec.steps.items():
        stage = name.removeprefix("before_").removeprefix("after_")
        if stage == "check" and spec.monitor is None:
            yield Problem(("steps", name), f"the step {stage!r} is part of the monitor, and this pipeline has none.")
        if stage == "deploy" and spec.deploy is None:
            yield Problem(("steps", name), "there is no step 'deploy': this pipeline deploys nowhere.")
        for key in _OWNED:
            if key in step.arguments:
                yield Problem(("steps", name, key), "is given by the pipeline. Take it out.")


def _form(spec: PipelineSpec, key: str, path: Path) -> Iterator[Problem]:
    section = re.split(r"[.\[]", key, maxsplit=1)[0]
    match = _HYPERPARAMETER.fullmatch(key)
    job = getattr(spec, match[1]) if match else None
    if section in _GATES:
        yield Problem(
            path, f"{key!r} can never be changed per run: who starts a run must not move the gate it must pass."
        )
    elif key in _JUDGES:
        yield Problem(path, f"{key!r} can never be changed per run: it decides which rows judge the candidate.")
    elif match and job is not None:
        yield from _form_hyperparameter(dict(job.hyperparameters), match, path)
    elif key not in FORM_KEYS:
        known = [*FORM_KEYS, *(f"train.hyperparameters.{name}" for name in spec.train.hyperparameters)]
        yield Problem(
            path,
            f"{key!r} cannot be changed per run.{did_you_mean(key, known)} A run may change: {', '.join(FORM_KEYS)} "
            "and train.hyperparameters.NAME.",
        )
    elif _value(spec, key) is None:
        yield Problem(path, f"{key!r} has no value in this pipeline, so the form has nothing to show. Give it one.")


def _form_hyperparameter(hyperparameters: dict[str, Any], match: re.Match[str], path: Path) -> Iterator[Problem]:
    key, name = match[0], match[2]
    if name not in hyperparameters:
        yield Problem(
            path,
            f"{key!r} is not in this pipeline.{did_you_mean(name, hyperparameters)} Give it a value under "
            f"{match[1]}.hyperparameters.",
        )
    elif not isinstance(hyperparameters[name], str | int | float | bool):
        yield Problem(path, f"{key!r} is a list or a map; a form changes one number, text or true/false.")


def _value(spec: PipelineSpec, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(spec, section), name, None)
