"""What in the storage folder nobody needs any more."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_provider_mlops.errors import ConfigError, NotFoundError
from airflow_provider_mlops.hooks.journal import JournalHook
from airflow_provider_mlops.hooks.mlflow import MlflowHook
from airflow_provider_mlops.hooks.settings import storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_mlops.journal import Entry
    from airflow_provider_mlops.promotion.registry import ModelVersion

__all__ = ["Item", "clean", "survey"]

# What is kept below the storage folder, by the depth at which its parts lie. Not among them, and never removed: the
# journal, and all about serving.
_KINDS = {
    "data": 1,
    "code": 1,
    "functions": 1,
    "prepared": 1,
    "dvc": 1,
    "jobs": 1,
    "predictions": 2,
    "reports": 2,
    "models": 2,
}
_LEAST = timedelta(days=1)  # what a run of today has made and not yet used is safe


@dataclass(frozen=True, slots=True)
class Item:
    """
    One part of the storage folder that was not used for long.

    :param kind: folder that it lies in: ``data``, ``code``, ``models``.
    :param size: in bytes.
    :param used_at: when it was last written, or frozen again.
    :param needed_by: who still needs it; empty: nobody.
    """

    kind: str
    path: Path
    size: int
    used_at: datetime
    needed_by: str


def clean(older_than: str = "30d", *, delete: bool = False, mlflow_conn_id: str = "mlflow_default") -> list[Item]:
    """
    Return what was not used for *older_than*; remove what of it nobody needs, if *delete*.

    :param older_than: at least ``1d``.
    :raises ConfigError: a shorter time, or an MLflow that does not know the champions of the journal.
    :raises ServiceError: MLflow does not answer; then nothing is removed.
    """
    from airflow_provider_mlops.adapters.folders import remove
    from airflow_provider_mlops.data import parse_duration

    length = parse_duration(older_than)
    if length < _LEAST:
        raise ConfigError(f"older_than: {older_than!r} could remove what a run of today still needs. Write 1d or more.")
    items = survey(datetime.now(UTC) - length, mlflow_conn_id=mlflow_conn_id)
    if delete:
        for item in items:
            if not item.needed_by:
                remove(item.path)
    return items


def survey(before: datetime, *, mlflow_conn_id: str = "mlflow_default") -> list[Item]:
    """Return every part of the storage folder that was last used before *before*, with who still needs it."""
    from airflow_provider_mlops.adapters.jobs.subprocess import ProcessBackend
    from airflow_provider_mlops.jobs import JobPhase

    root = storage()
    backend = ProcessBackend(root / "jobs")
    needed = _needed(mlflow_conn_id)
    found = []
    for kind, depth in _KINDS.items():
        for path in sorted((root / kind).glob("/".join("*" * depth))):
            size, used_at = _measure(path)
            if path.name.startswith(".") or used_at >= before:
                continue
            by = needed.get(path.resolve(), "")
            if kind == "jobs" and backend.status(path.name).phase is JobPhase.RUNNING:
                by = "it runs"
            found.append(Item(kind, path, size, used_at, by))
    return found


def _measure(path: Path) -> tuple[int, datetime]:
    """Return the size of a file or of all in a folder, and when something there was last written."""
    size, newest = 0, 0.0
    for part in (path, *path.rglob("*")) if path.is_dir() else (path,):
        status = part.lstat()
        newest = max(newest, status.st_mtime)
        size += status.st_size if not part.is_dir() else 0
    return size, datetime.fromtimestamp(newest, UTC)


def _needed(mlflow_conn_id: str) -> dict[Path, str]:
    """Return what is needed, with who needs it: versions in use and trainings under way."""
    from airflow_provider_mlops.journal import read_intact

    hook = MlflowHook(mlflow_conn_id)
    journal = JournalHook().journal
    served = dict(_served())
    models = {stream.removeprefix("model/"): stream for stream in journal.streams()}
    needed: dict[Path, str] = {}
    for model in sorted({*models, *served}):
        entries = read_intact(journal, models[model]) if model in models else []
        versions = hook.registry.versions(model)
        _check_champion(model, versions, entries, hook)
        for run_id in _under_way(entries):
            _add(needed, hook, run_id, f"a training of {model} that has not ended")
        for version in versions:
            uses = [*version.aliases, *(["served"] if version.version in served.get(model, ()) else [])]
            if not uses:
                continue
            who = f"{model} version {version.version} ({', '.join(uses)})"
            needed[(storage() / "models" / quote(model, safe="") / version.version).resolve()] = who
            if version.run_id:
                _add(needed, hook, version.run_id, who)
    return needed


def _check_champion(model: str, versions: list[ModelVersion], entries: list[Entry], hook: MlflowHook) -> None:
    """:raises ConfigError: the journal knows a champion that this MLflow does not, so it may be another's."""
    from airflow_provider_mlops.journal import kinds

    promoted = [e.record.payload["version"] for e in entries if e.record.kind == kinds.PROMOTION_DONE]
    if promoted and promoted[-1] not in {version.version for version in versions}:
        raise ConfigError(
            f"The journal says that version {promoted[-1]} of {model} was promoted, and MLflow at {hook.tracking_uri} "
            "has no such version: nothing is removed, since nobody can say what is needed. Is this the right "
            "connection and the right storage folder?"
        )


def _under_way(entries: list[Entry]) -> list[str]:
    """Return the MLflow runs of trainings without an end."""
    from airflow_provider_mlops.retraining import history

    attempts = history(entries, datetime.now(UTC), lease=timedelta(days=36500)).attempts
    return [attempt.run_id for attempt in attempts if attempt.in_flight and attempt.run_id]


def _add(needed: dict[Path, str], hook: MlflowHook, run_id: str, who: str) -> None:
    """Add the data and the code of an MLflow run, and the rows that it was judged by."""
    from airflow_provider_mlops.adapters.code import frozen_folder
    from airflow_provider_mlops.hooks.evaluation import EVALUATION_PATH

    tags = hook.tracking.run(run_id).tags
    try:
        judged = json.loads(hook.tracking.read_text(run_id, EVALUATION_PATH))
    except NotFoundError:
        judged = {}
    uris = [tags.get("mlops.data_uri"), judged.get("data_uri"), judged.get("train_uri")]
    for uri in filter(None, uris):
        for folder in (Path(uri), Path(uri).parent):  # of a snapshot both sides are one part
            needed[folder.resolve()] = who
    if digest := tags.get("mlops.code_digest"):
        needed[frozen_folder(digest, storage()).resolve()] = who


def _served() -> Iterator[tuple[str, set[str]]]:
    """Yield each model that is served on this machine with its versions, those of a rollout under way too."""
    from airflow_provider_mlops.serving.local import read_wanted

    for file in (storage() / "serving").glob("*/wanted.json"):
        name, versions = read_wanted(file)
        yield name, {served.version for served, _ in versions}
