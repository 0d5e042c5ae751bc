"""Wait for new data at a path, at the price of a listing now and then."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_mlops.adapters.fingerprint import fingerprint
from airflow_provider_mlops.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["NewDataTrigger"]

_MEMORY = "mlops_fingerprint"


class NewDataTrigger(BaseEventTrigger):
    """
    Fire when the files at *path* are no longer those that were *seen*.

    The event is ``{"path", "fingerprint"}``. A path where nothing lies (yet, or while it is rewritten) is no new
    data. Nothing is computed here, and the listing runs in a thread, since all triggers share one event loop.

    For a deferred task it fires once, with ``{"path", "error"}`` after *patience* failed listings in a row. In an
    ``AssetWatcher`` it goes on from what it has just reported, and a failure is logged only: an event means data::

        Asset("tx", watchers=[AssetWatcher(name="new", trigger=NewDataTrigger(path="s3://lake/tx/"))])

    After a restart of the triggerer a watcher continues from the asset's state store (Airflow 3.3); below
    3.3 it reports the data that it finds once more.

    :param path: file, folder, glob or fsspec URL.
    :param seen: fingerprint of the data that the caller knows; ``""``: none, so whatever is there is new.
    :param poll_interval: seconds between two listings.
    :param minimum_wait: seconds before it may fire. Airflow 3.2 and 3.3 fail healthy tasks whose trigger fires
        within a few seconds, so less than 15 is for tests only.
    :param patience: failed listings in a row after which a task is told.
    """

    def __init__(
        self,
        *,
        path: str,
        seen: str = "",
        poll_interval: float = 60.0,
        minimum_wait: float = 15.0,
        patience: int = 5,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.path = path
        self.seen = seen
        self.poll_interval = poll_interval
        self.minimum_wait = minimum_wait
        self.patience = patience

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger anew."""
        return (
            "airflow_provider_mlops.triggers.data.NewDataTrigger",
            {
                "path": self.path,
                "seen": self.seen,
                "poll_interval": self.poll_interval,
                "minimum_wait": self.minimum_wait,
                "patience": self.patience,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll, and yield an event per new version of the data: one for a task, any number for a watcher."""
        seen = await self._remembered() or self.seen
        failures = 0
        await asyncio.sleep(self.minimum_wait)
        while True:
            try:
                found = await asyncio.to_thread(fingerprint, self.path)
                failures = 0
            except ServiceError as error:
                found = ""
                failures += 1
                self.log.warning("Listing failed, %s in a row: %s", failures, error)
                if failures >= self.patience and not self._is_watcher:
                    yield _event({"path": self.path, "error": str(error)})
                    return
            if found not in {"", seen}:
                seen = found
                yield _event({"path": self.path, "fingerprint": found})
                if not self._is_watcher:
                    return
                await self._remember(found)
            await asyncio.sleep(self.poll_interval)

    @property
    def _is_watcher(self) -> bool:
        return self.task_instance is None

    async def _remembered(self) -> str:
        store = getattr(self, "asset_state_store", None)
        if store is None:
            return ""
        try:
            return str(await store.aget(_MEMORY, ""))
        except ValueError:  # several assets share this trigger, so there is no single memory
            return ""

    async def _remember(self, found: str) -> None:
        store = getattr(self, "asset_state_store", None)
        if store is not None:
            with contextlib.suppress(ValueError):
                await store.aset(_MEMORY, found)


def _event(payload: dict[str, str]) -> TriggerEvent:
    return TriggerEvent(payload)  # type: ignore[no-untyped-call]
