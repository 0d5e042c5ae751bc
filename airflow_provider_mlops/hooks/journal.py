"""The journal that the configuration names, and how a task writes to it."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, conf

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.hooks.settings import SECTION, named_connection, require_local_executor, storage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_mlops.adapters.journal.sql import SqlJournal
    from airflow_provider_mlops.journal import Entry, Journal, Record

__all__ = ["JournalHook", "actor", "lease_owner", "record_once"]


class JournalHook(BaseHook):
    """
    The journal on ``[mlops] journal_conn_id``, any SQL connection of Airflow.

    Without that setting it is a SQLite file below ``[mlops] storage``, with LocalExecutor only: workers on
    several machines would each write a journal of their own.
    """

    @property
    def journal(self) -> Journal:
        """The adapter. :raises ConfigError: no connection is configured and one is needed."""
        from airflow_provider_mlops.adapters.journal.sql import SqlJournal

        conn_id = conf.get(SECTION, "journal_conn_id", fallback="")
        if conn_id:
            with named_connection(conn_id, "Postgres or another SQL database"):
                connection = self.get_connection(conn_id)
            return SqlJournal(connection.get_uri())
        try:
            require_local_executor("The default journal, a SQLite file,")
        except ConfigError as error:
            raise ConfigError(
                f"{error} Set [mlops] journal_conn_id to an SQL connection and run `mlops journal migrate`."
            ) from None
        return _of_file(f"sqlite:///{storage() / 'journal.db'}")


@lru_cache(maxsize=1)
def _of_file(url: str) -> SqlJournal:
    """Return the process's one journal in a file; a server's connection is given back as soon as it can be."""
    from airflow_provider_mlops.adapters.journal.sql import SqlJournal

    return SqlJournal(url)


def actor(context: Context) -> str:
    """Return who is behind a task: the person who triggered its run, or its DAG, and the task instance."""
    ti = context["ti"]
    who = getattr(context.get("dag_run"), "triggering_user_name", None) or "airflow"
    mapped = f"[{ti.map_index}]" if (ti.map_index or -1) >= 0 else ""
    return f"{who}: {ti.dag_id} {ti.run_id} {ti.task_id}{mapped}"


def lease_owner(context: Context) -> str:
    """Return what owns a promotion lease: this task instance, whichever attempt of it runs."""
    ti = context["ti"]
    return f"{ti.dag_id} {ti.run_id} {ti.task_id} {ti.map_index}"


def record_once(
    model: str,
    kind: str,
    payload: Mapping[str, Any],
    context: Context,
    *,
    once: Sequence[str] = (),
    of: str | None = None,
) -> None:
    """
    Append a record to the stream of *model*, unless one of this kind already has the same values for the keys *once*.

    A task that was killed after it had written, and runs again, so writes nothing twice; nor do two that run at once.

    :param of: key of what is spoken of: only the newest record with the same value for it counts, so that what was said
        before, and then otherwise, is written again.
    """
    from airflow_provider_mlops.journal import Record, append_decided, append_next, model_stream

    journal = JournalHook().journal
    stream = model_stream(model)
    record = Record(kind=kind, at=datetime.now(UTC), actor=actor(context), payload=payload)

    def unless_written(entries: list[Entry]) -> tuple[Record | None, None]:
        for entry in reversed(entries):
            written = entry.record.payload
            if entry.record.kind != kind:
                continue
            if all(written.get(key) == payload[key] for key in once):
                return None, None
            if of is not None and written.get(of) == payload[of]:
                break
        return record, None

    if once:
        append_decided(journal, stream, journal.read(stream), unless_written)
    else:
        append_next(journal, stream, record)
