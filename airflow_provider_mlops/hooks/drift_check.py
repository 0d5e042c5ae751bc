"""Checks the newest data of a model for drift: what `CheckDataDriftOperator` and `DataDriftSensor` share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_mlops.errors import ConfigError, NotFoundError
from airflow_provider_mlops.hooks.evaluation import importance_of
from airflow_provider_mlops.hooks.journal import JournalHook, record_once
from airflow_provider_mlops.hooks.settings import storage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from airflow.sdk import Context

    from airflow_provider_mlops.data.values import DataRef, Window
    from airflow_provider_mlops.drift.check import DriftPolicy, DriftReport
    from airflow_provider_mlops.drift.engine import Engine
    from airflow_provider_mlops.drift.profile import DataProfile
    from airflow_provider_mlops.hooks.log import Log

__all__ = ["REPORT_ARTIFACT", "DriftCheck", "check_drift"]

REPORT_ARTIFACT = "mlops/drift_report.html"
"""Where the champion's run keeps the latest report."""

_HISTORY = 60  # earlier checks that a report shows
_LONGEST_SENTENCE = 300  # characters of the verdict in XCom; all of it is in the report


@dataclass(frozen=True)
class DriftCheck:
    """What is compared with what, and how. The fields are those of `CheckDataDriftOperator`, rendered."""

    model: str
    data: Mapping[str, Any] | None = None
    served_by: str | Sequence[str] | None = None
    reference_profile: str | None = None
    window: str | None = None
    as_of: str | None = None
    trailing: str | None = None
    max_rows: int | None = None
    ignore_shift_below: float = 0.05
    false_alarms_per_30_days: float = 1.0
    checks_per_30_days: float = 30.0
    min_rows: int = 50
    exclude: Sequence[str] = ()
    report_folder: str | None = None
    mlflow_conn_id: str = "mlflow_default"


@dataclass(frozen=True)
class _Reference:
    profile: DataProfile
    version: str | None = None  # of the model that it belongs to
    run_id: str | None = None
    experiment_id: str | None = None
    importance: Mapping[str, float] | None = None  # weight per input; without it all columns count


def check_drift(check: DriftCheck, context: Context, log: Log) -> dict[str, Any]:
    """
    Compare, write the report, journal the verdict, and return what a downstream task needs to know.

    The same data, reference and policy give the same report at the same place, and one journal record.

    :returns: ``verdict``, ``reason``, ``sentence``, ``top_columns`` (five at most), ``report_uri``, ``data_digest``,
        ``window_end``, ``variation``, and the champion's ``run_id`` and ``experiment_id``. A model without champion is
        ``no_data`` / ``no_champion``, and no record.
    """
    from airflow_provider_mlops.adapters.text_files import uri_of, write_text
    from airflow_provider_mlops.drift.check import DriftPolicy
    from airflow_provider_mlops.drift.check import check as compare
    from airflow_provider_mlops.drift.report import html, lines

    reference = _reference(check)
    if reference is None:
        sentence = f"{check.model} has no champion yet, so there is nothing to compare with."
        log.info("%s", sentence)
        return _result("no_data", "no_champion", sentence)
    policy = DriftPolicy(
        ignore_shift_below=check.ignore_shift_below,
        false_alarms_per_30_days=check.false_alarms_per_30_days,
        checks_per_30_days=check.checks_per_30_days,
        min_rows=check.min_rows,
        importance=reference.importance,
    )
    current, window, trailing = _counted(check, reference, policy, context)
    report = compare(reference.profile, current, policy, trailing=trailing)
    _tell(report, lines(report), log)
    digest = f"sha256:{hashlib.sha256(current.to_json().encode()).hexdigest()}"
    folder = _report_folder(check, reference, digest)
    recorded = _payload(
        report,
        version=reference.version,
        span=_span(window, current),
        digest=digest,
        report_uri=uri_of(f"{folder}/report.html"),
    )
    page = html(
        report, reference.profile, current, title=_title(check, reference), history=_history(check.model, recorded)
    )
    write_text(f"{folder}/report.json", json.dumps(report.to_dict(), ensure_ascii=False, allow_nan=False))
    write_text(f"{folder}/report.html", page)
    log.info("The report is %s", recorded["report_uri"])
    _attach(check, reference, page)
    _journal(check.model, recorded, context)
    return _result(
        report.verdict.value,
        report.reason,
        report.sentence,
        top_columns=list(report.top_columns[:5]),
        report_uri=recorded["report_uri"],
        data_digest=digest,
        window_end=recorded["numbers"]["window_end"],
        variation=report.variation.value,
        run_id=reference.run_id,
        experiment_id=reference.experiment_id,
    )


def _result(verdict: str, reason: str, sentence: str, **more: Any) -> dict[str, Any]:
    short = sentence if len(sentence) <= _LONGEST_SENTENCE else sentence[: _LONGEST_SENTENCE - 1] + "…"
    missing: dict[str, Any] = {
        "top_columns": [],
        "report_uri": None,
        "data_digest": None,
        "window_end": None,
        "variation": "unknown",
        "run_id": None,
        "experiment_id": None,
    }
    return {"verdict": verdict, "reason": reason, "sentence": short, **missing, **more}


def _reference(check: DriftCheck) -> _Reference | None:
    """Return the profile to compare with; ``None`` when the model has no champion."""
    from airflow_provider_mlops.adapters.text_files import read_text
    from airflow_provider_mlops.data.values import DataRef
    from airflow_provider_mlops.drift.profile import DataProfile
    from airflow_provider_mlops.drift.selection import select_columns

    if check.reference_profile:
        found = _Reference(DataProfile.from_json(read_text(check.reference_profile), source=check.reference_profile))
    else:
        champion = _champion(check)
        if champion is None:
            return None
        found = champion
    data = None if check.data is None else DataRef.from_dict(check.data, tables=True)
    columns = data.columns if data else None
    never = [name for name in (data.label, data.entity) if name] if data else []
    return replace(found, profile=select_columns(found.profile, columns=columns, exclude=[*check.exclude, *never]))


def _champion(check: DriftCheck) -> _Reference | None:
    from airflow_provider_mlops.drift.profile import DataProfile
    from airflow_provider_mlops.hooks.mlflow import MlflowHook
    from airflow_provider_mlops.hooks.training import PROFILE_PATH

    hook = MlflowHook(check.mlflow_conn_id)
    number = hook.registry.version_of(check.model, alias="champion")
    if number is None:
        return None
    version = hook.registry.version(check.model, number)
    advice = "Train it with TrainOperator, or pass reference_profile=FILE (`mlops drift ... --save-profile FILE`)."
    if version.run_id is None:
        raise NotFoundError("Reference profile of", f"{check.model} {number}", hint=f"It has no run. {advice}")
    try:
        text = hook.tracking.read_text(version.run_id, PROFILE_PATH)
    except NotFoundError as error:
        raise NotFoundError(
            "Reference profile of",
            f"{check.model} {number}",
            hint=f"Its MLflow run {version.run_id} has no file {PROFILE_PATH}. {advice}",
        ) from error
    importance = importance_of(hook.tracking, version.run_id)
    return _Reference(
        DataProfile.from_json(text, source=f"{PROFILE_PATH} of run {version.run_id}"),
        version=number,
        run_id=version.run_id,
        experiment_id=hook.tracking.run(version.run_id).experiment_id,
        importance=importance.weights if importance is not None else None,
    )


def _counted(
    check: DriftCheck, reference: _Reference, policy: DriftPolicy, context: Context
) -> tuple[DataProfile, Window | None, DataProfile | None]:
    """Return the profile to judge, the window that it is of, and the profile of the time before that if asked for."""
    from airflow_provider_mlops.data.values import DataRef, parse_duration

    if check.served_by is not None:
        return _served(check, reference), None, None
    if check.data is None:
        raise ConfigError("data: say where the data to judge is, or name the model's servers in served_by.")
    data = DataRef.from_dict(check.data, tables=True)
    data = data if data.timestamp else replace(data, timestamp=reference.profile.timestamp)
    engine, look = _engine(check, data, reference.profile, policy, context)
    window = _window(check, data, look)
    current = engine.window(data, layout=reference.profile, window=window)
    if check.trailing is None:
        return current, window, None
    if window is None:
        raise ConfigError("trailing: is the time before the window, and there is none. Set window, for example '7d'.")
    if window.start is None:  # no row has a time, so nothing lies before
        return current, window, None
    before = window.before(parse_duration(check.trailing))
    return current, window, engine.window(data, layout=reference.profile, window=before)


def _served(check: DriftCheck, reference: _Reference) -> DataProfile:
    """Return what the servers of the reference's version were asked."""
    from airflow_provider_mlops.adapters.engines.serving import served_profile

    for name in ("data", "window", "as_of", "trailing", "max_rows"):
        if getattr(check, name):
            raise ConfigError(
                f"{name}: goes without served_by, whose servers count all that they were asked since they started."
            )
    urls = [check.served_by] if isinstance(check.served_by, str) else list(check.served_by or ())
    return served_profile(urls, layout=reference.profile, version=reference.version)


def _engine(
    check: DriftCheck, data: DataRef, reference: DataProfile, policy: DriftPolicy, context: Context
) -> tuple[Engine, Callable[[DataRef], datetime | None]]:
    """Return what counts *data* where it lies, and what finds its newest row."""
    if data.conn_id is not None:
        from airflow_provider_mlops.hooks.sql import sql_engine

        if check.max_rows is not None:
            raise ConfigError("max_rows: a database counts all rows of the window. Leave it out with conn_id.")
        database = sql_engine(data.conn_id, timeout=getattr(context.get("task"), "execution_timeout", None))
        return database, database.newest
    from airflow_provider_mlops.adapters.engines.embedded import EmbeddedEngine
    from airflow_provider_mlops.adapters.newest import newest
    from airflow_provider_mlops.drift.check import rows_needed

    most = check.max_rows if check.max_rows is None else max(check.max_rows, rows_needed(reference, policy))
    return EmbeddedEngine(max_rows=most), newest


def _window(check: DriftCheck, data: DataRef, look: Callable[[DataRef], datetime | None]) -> Window | None:
    from airflow_provider_mlops.adapters.newest import newest_window
    from airflow_provider_mlops.data import parse_duration, parse_time

    if not check.window:
        if check.as_of:
            raise ConfigError("as_of: says where the window ends, and there is none. Set window, for example '7d'.")
        return None
    return newest_window(data, parse_duration(check.window), parse_time("as_of", check.as_of), look=look)


def _span(window: Window | None, current: DataProfile) -> tuple[str | None, str | None]:
    """Return the ends of what was looked at: as asked for, else as found in the rows."""
    start = window.start.isoformat() if window is not None and window.start is not None else current.start
    end = window.end.isoformat() if window is not None and window.end is not None else current.end
    return start, end


def _tell(report: DriftReport, table: Sequence[str], log: Log) -> None:
    log.info("%s", report.sentence)
    for line in table:
        log.info("%s", line)
    if report.plain_columns:
        log.info(
            "A test per column at 0.05 that takes rows as independent would have alarmed over %s of %s columns: %s",
            len(report.plain_columns),
            len(report.columns),
            ", ".join(report.plain_columns[:10]),
        )


def _title(check: DriftCheck, reference: _Reference) -> str:
    return f"{check.model}, version {reference.version}" if reference.version else check.model


def _report_folder(check: DriftCheck, reference: _Reference, digest: str) -> str:
    """Return where the report goes: the same for the same reference, data and policy."""
    question = json.dumps(
        [
            digest,
            hashlib.sha256(reference.profile.to_json().encode()).hexdigest(),
            check.ignore_shift_below,
            check.false_alarms_per_30_days,
            check.checks_per_30_days,
            check.min_rows,
            check.trailing,
            reference.importance,
        ]
    )
    base = check.report_folder.rstrip("/") if check.report_folder else str(storage() / "reports")
    name = quote(check.model, safe=" ")
    return f"{base}/{name if name.strip('.') else '_'}/{hashlib.sha256(question.encode()).hexdigest()[:16]}"


def _payload(
    report: DriftReport,
    *,
    version: str | None,
    span: tuple[str | None, str | None],
    digest: str,
    report_uri: str,
) -> dict[str, Any]:
    from airflow_provider_mlops.journal.payloads import drift_checked

    effects = {name: report.columns[name].effect for name in report.top_columns[:10] if name in report.columns}
    return drift_checked(
        window=digest,
        verdict=report.verdict.value,
        reason=report.reason,
        sentence=report.sentence,
        columns=report.top_columns[:50],
        variation=report.variation.value,
        report_uri=report_uri,
        numbers={
            "data_digest": digest,
            "window_start": span[0],
            "window_end": span[1],
            "model_version": version,
            "rows": dict(report.rows),
            "effects": effects,
            "alpha": report.alpha,
            "tests": report.tests,
            "segments": [value for value, part in report.segments.items() if part.drifted],
        },
    )


def _history(model: str, recorded: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the journal says of earlier checks, oldest first, and this one."""
    from airflow_provider_mlops.journal import kinds, model_stream

    entries = JournalHook().journal.read(model_stream(model))
    earlier = [entry.record.payload for entry in entries if entry.record.kind == kinds.DRIFT_CHECKED]
    if recorded in earlier:  # a retry, or the same data again: shown as it was seen then
        earlier = earlier[: earlier.index(recorded)]
    return [*earlier[-_HISTORY + 1 :], recorded]


def _attach(check: DriftCheck, reference: _Reference, page: str) -> None:
    """Put the report on the champion's MLflow run, in place of the one before."""
    if reference.run_id is not None:
        from airflow_provider_mlops.hooks.mlflow import MlflowHook

        MlflowHook(check.mlflow_conn_id).tracking.log_text(reference.run_id, page, REPORT_ARTIFACT)


def _journal(model: str, recorded: Mapping[str, Any], context: Context) -> None:
    from airflow_provider_mlops.journal import kinds, payloads

    record_once(model, kinds.DRIFT_CHECKED, recorded, context, once=tuple(recorded))
    if recorded["verdict"] == "bad_data":
        quarantined = payloads.data_quarantined(
            data_digest=recorded["window"],
            reason=recorded["reason"],
            sentence=recorded["sentence"],
            columns=recorded["columns"],
        )
        record_once(model, kinds.DATA_QUARANTINED, quarantined, context, once=("data_digest",))
