"""The journal that the configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook, conf

from airflow_provider_mlops.errors import ConfigError
from airflow_provider_mlops.hooks.settings import SECTION, require_local_executor, storage

if TYPE_CHECKING:
    from airflow_provider_mlops.journal.port import Journal

__all__ = ["JournalHook"]


class JournalHook(BaseHook):
    """
    The journal on ``[mlops] journal_conn_id``, any SQL connection of Airflow.

    Without that setting it is a SQLite file below ``[mlops] storage``, with LocalExecutor only: workers on
    several machines would each write a journal of their own.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

    @property
    def journal(self) -> Journal:
        """The adapter. :raises ConfigError: no connection is configured and one is needed."""
        from airflow_provider_mlops.adapters.journal.sql import SqlJournal

        conn_id = conf.get(SECTION, "journal_conn_id", fallback="")
        if conn_id:
            return SqlJournal(self.get_connection(conn_id).get_uri())
        try:
            require_local_executor("The default journal, a SQLite file,")
        except ConfigError as error:
            raise ConfigError(
                f"{error} Set [mlops] journal_conn_id to an SQL connection and run `mlops journal migrate`."
            ) from None
        return SqlJournal(f"sqlite:///{storage() / 'journal.db'}")
