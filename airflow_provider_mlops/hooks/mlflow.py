"""The connection to MLflow."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from airflow_provider_mlops.adapters.mlflow import MlflowAddress, MlflowRegistry, MlflowTracking
from airflow_provider_mlops.errors import MlopsError
from airflow_provider_mlops.hooks.settings import named_connection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Connection

    from airflow_provider_mlops.jobs.tracking import Tracking
    from airflow_provider_mlops.promotion.registry import Registry

__all__ = ["MlflowHook"]


class MlflowHook(BaseHook):
    """
    Give the model registry and the tracker of an Airflow connection of type ``mlflow``.

    The connection's host is a name, with schema (``http`` or ``https``) and port beside it, or a whole URI:
    ``https://mlflow.example.com/prefix``, or ``sqlite:////data/mlflow.db`` on one machine. Login and password are for
    basic authentication; the extra ``token`` for a bearer token instead. The extra ``verify`` is ``false`` or a file of
    certificate authorities. Nothing is asked of the server before the first use.

    :param mlflow_conn_id: the connection.
    """

    conn_name_attr = "mlflow_conn_id"
    default_conn_name = "mlflow_default"
    conn_type = "mlflow"
    hook_name = "MLflow"

    def __init__(self, mlflow_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mlflow_conn_id = mlflow_conn_id

    @cached_property
    def address(self) -> MlflowAddress:
        """Where MLflow is, with the credentials. :raises MlopsError: there is no connection, or it does not say it."""
        with named_connection(self.mlflow_conn_id, "MLflow"):
            connection = self.get_connection(self.mlflow_conn_id)
        return _address(connection, connection.extra_dejson)

    async def aget_address(self) -> MlflowAddress:
        """Return `address`, without blocking the event loop: for triggers."""
        with named_connection(self.mlflow_conn_id, "MLflow"):
            connection = await self.aget_connection(self.mlflow_conn_id)
        # `extra_dejson` talks to the supervisor of the process, which blocks.
        return _address(connection, json.loads(connection.extra or "{}"))

    @property
    def tracking_uri(self) -> str:
        """What a client of MLflow takes as tracking URI, without credentials."""
        return self.address.uri

    @cached_property
    def registry(self) -> Registry:
        """The model registry."""
        return MlflowRegistry(self.address)

    @cached_property
    def tracking(self) -> Tracking:
        """The experiment tracker."""
        return MlflowTracking(self.address)

    def job_environment(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the variables with which a job reaches this MLflow: those to be seen, and those to be kept secret."""
        return self.address.environment()

    def get_conn(self) -> Tracking:
        """Return the tracker."""
        return self.tracking

    def test_connection(self) -> tuple[bool, str]:
        """Ask for an experiment and say how that went."""
        try:
            return True, MlflowTracking(self.address).greeting()
        except MlopsError as error:
            return False, str(error)


def _address(connection: Connection, extra: Mapping[str, Any]) -> MlflowAddress:
    return MlflowAddress.of(
        host=connection.host,
        # A connection written as https://... in the environment has that as its type.
        schema=connection.schema or ("https" if connection.conn_type == "https" else None),
        port=connection.port,
        login=connection.login or None,
        password=connection.password or None,
        token=extra.get("token") or None,
        verify=extra.get("verify", True),
    )
