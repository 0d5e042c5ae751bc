"""Freezing the data of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_mlops.operators.base import MlopsOperator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_mlops.data import DataRef

__all__ = ["SnapshotDataOperator"]


class SnapshotDataOperator(MlopsOperator):
    """
    Freeze the rows to train on and the newest rows to judge by, below ``[mlops] storage``.

    The same rows give the same folder and digest, so a retry and a later run on unchanged data write nothing new. How
    rows are split, and what changes a digest, is told in `adapters.snapshots.SnapshotStore.freeze`.

    Returns ``{"train_uri", "train_digest", "train_rows", "evaluation_uri", "evaluation_digest", "evaluation_rows",
    "data_uri", "data_digest", "start", "end", "unlabeled"}``, and ``"dvc_md5", "dvc_rev"`` for data in DVC.
    *data_uri* is the folder that holds both sides, *unlabeled* the number of rows left out for want of a label.

    :param data: keys of a `DataRef` (``path``, ``label``, ``timestamp``, ``entity``, ``columns``); in place of
        ``path`` it may have ``dvc: {repo, path, rev, remote}``, what DVC tracks. (templated)
    :param as_of: newest event time to read, ISO 8601; without a zone UTC. Empty reads all. (templated)
    :param train_on: how far training reaches back from the rows that judge, ``90d``; empty: to the first. (templated)
    :param hold_out: what judges: a duration (``14d``) or a share (``20%`` or ``0.2``). (templated)
    :param label_delay: age at which a label is final, ``7d``. (templated)
    """

    template_fields: Sequence[str] = ("data", "as_of", "train_on", "hold_out", "label_delay")

    def __init__(
        self,
        *,
        data: Mapping[str, Any],
        as_of: str | None = None,
        train_on: str | None = None,
        hold_out: str | float = "20%",
        label_delay: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.data = data
        self.as_of = as_of
        self.train_on = train_on
        self.hold_out = hold_out
        self.label_delay = label_delay

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002 - all that counts is in the fields
        """Freeze."""
        from pathlib import Path

        from airflow_provider_mlops.adapters.snapshots import SnapshotStore
        from airflow_provider_mlops.data import parse_time
        from airflow_provider_mlops.hooks.settings import storage

        data, origin = self._resolve()
        snapshot = SnapshotStore(storage()).freeze(
            data,
            as_of=parse_time("as_of", self.as_of),
            train_on=_duration(self.train_on),
            hold_out=_hold_out(self.hold_out),
            label_delay=_duration(self.label_delay),
        )
        for name, side in (("train", snapshot.train), ("evaluation", snapshot.evaluation)):
            span = f", {data.timestamp} from {side.start} to {side.end}" if side.start else ""
            self.log.info("%s: %s rows%s, %s, in %s", name, f"{side.rows:,}", span, side.digest, side.uri)
        if snapshot.unlabeled or snapshot.untimed:
            self.log.info("left out: %s rows without label, %s without time", snapshot.unlabeled, snapshot.untimed)
        return {
            "train_uri": snapshot.train.uri,
            "train_digest": snapshot.train.digest,
            "train_rows": snapshot.train.rows,
            "evaluation_uri": snapshot.evaluation.uri,
            "evaluation_digest": snapshot.evaluation.digest,
            "evaluation_rows": snapshot.evaluation.rows,
            "data_uri": str(Path(snapshot.train.uri).parent),
            "data_digest": snapshot.digest,
            "start": snapshot.train.start,
            "end": snapshot.evaluation.end,
            "unlabeled": snapshot.unlabeled,
            **origin,
        }

    def _resolve(self) -> tuple[DataRef, dict[str, str]]:
        """Return where the files are, and what DVC calls them."""
        from airflow_provider_mlops.data import DataRef
        from airflow_provider_mlops.errors import ConfigError
        from airflow_provider_mlops.hooks.settings import storage

        values = dict(self.data)
        tracked = values.pop("dvc", None)
        if tracked is None:
            return DataRef.from_dict(values), {}
        if "path" in values:
            raise ConfigError("data: 'path' and 'dvc' both say where the data is. Keep one of them.")
        from airflow_provider_mlops.adapters.dvc import DvcSource, fetch

        pulled = fetch(DvcSource.from_dict(tracked), storage() / "dvc")
        self.log.info("DVC: %s at %s is md5 %s, in %s", tracked["path"], pulled.rev, pulled.md5, pulled.path)
        return DataRef.from_dict({**values, "path": str(pulled.path)}), {"dvc_md5": pulled.md5, "dvc_rev": pulled.rev}


def _duration(text: str | None) -> timedelta | None:
    from airflow_provider_mlops.data import parse_duration

    return parse_duration(text) if text else None


def _hold_out(value: str | float) -> timedelta | float:
    from airflow_provider_mlops.data import parse_duration
    from airflow_provider_mlops.errors import ConfigError

    if not isinstance(value, str):
        return value
    try:
        return float(value[:-1]) / 100 if value.endswith("%") else float(value)
    except ValueError:
        pass
    try:
        return parse_duration(value)
    except ConfigError:
        raise ConfigError(
            f'hold_out: {value!r} is neither a share nor a duration. Write "20%", 0.2 or "14d".'
        ) from None
