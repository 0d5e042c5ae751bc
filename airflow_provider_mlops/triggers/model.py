"""Wait for a registered model's alias, at the price of a small request now and then."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_mlops.errors import MlopsError, ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["ModelVersionTrigger"]


class ModelVersionTrigger(BaseTrigger):
    """
    Fire once, when *alias* of *model* points at a version (newer than *newer_than*), or when that cannot be known.

    The event is ``{"model", "alias", "version"}``, or ``{"error"}`` with a sentence: at once when a retry would not
    help (access denied, a connection that says nothing), after *patience* failed requests in a row when it might.

    :param model: name of the registered model.
    :param alias: the alias.
    :param newer_than: a version that is known already; any version will do without it.
    :param mlflow_conn_id: the MLflow connection, read here and never stored.
    :param poll_interval: seconds between two requests.
    :param minimum_wait: seconds before it may fire. Airflow 3.2 and 3.3 fail healthy tasks whose trigger fires
        within a few seconds, so less than 15 is for tests only.
    :param patience: failed requests in a row after which the task is told.
    """

    def __init__(
        self,
        *,
        model: str,
        alias: str = "champion",
        newer_than: str | None = None,
        mlflow_conn_id: str = "mlflow_default",
        poll_interval: float = 60.0,
        minimum_wait: float = 15.0,
        patience: int = 5,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self.alias = alias
        self.newer_than = newer_than
        self.mlflow_conn_id = mlflow_conn_id
        self.poll_interval = poll_interval
        self.minimum_wait = minimum_wait
        self.patience = patience

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger anew."""
        return (
            "airflow_provider_mlops.triggers.model.ModelVersionTrigger",
            {
                "model": self.model,
                "alias": self.alias,
                "newer_than": self.newer_than,
                "mlflow_conn_id": self.mlflow_conn_id,
                "poll_interval": self.poll_interval,
                "minimum_wait": self.minimum_wait,
                "patience": self.patience,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll until there is something to say."""
        await asyncio.sleep(self.minimum_wait)
        try:
            event = {"model": self.model, "alias": self.alias, "version": await self._version()}
        except MlopsError as error:
            event = {"error": str(error)}
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _version(self) -> str:
        from airflow_provider_mlops.adapters.mlflow_async import alias_reader
        from airflow_provider_mlops.hooks.mlflow import MlflowHook
        from airflow_provider_mlops.promotion.registry import is_newer

        address = await MlflowHook(self.mlflow_conn_id).aget_address()
        failures = 0
        async with alias_reader(address) as reader:
            while True:
                try:
                    version = await reader.version_of(self.model, alias=self.alias)
                    failures = 0
                except ServiceError as error:
                    version = None
                    failures += 1
                    self.log.warning("Asking failed, %s in a row: %s", failures, error)
                    if failures >= self.patience:
                        raise
                if version is not None and is_newer(version, self.newer_than):
                    return version
                await asyncio.sleep(self.poll_interval)
