"""Waiting until a model's alias points at a version."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowSkipException

from airflow_provider_mlops.errors import MlopsError, ServiceError
from airflow_provider_mlops.triggers.model import ModelVersionTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

__all__ = ["ModelVersionSensor"]

_MINIMUM_WAIT = 15.0  # seconds: a trigger that fires earlier makes Airflow 3.2 and 3.3 fail healthy tasks


class ModelVersionSensor(BaseSensorOperator):
    """
    Wait until an alias of a registered model points at a version; return ``{"model", "alias", "version"}``.

    Where it does so already nothing is waited for. Else the triggerer asks MLflow every *poke_interval* seconds, and no
    worker is held. It bears a server that is away for some polls, and fails at once when access is denied.

    :param model: name of the registered model. (templated)
    :param alias: the alias. (templated)
    :param newer_than: a version that is known already: wait for one with a higher number; any version ends the wait
        without it. (templated)
    :param deferrable: wait in the triggerer; otherwise in the worker, in the *mode* of every sensor. An MLflow on a
        SQLite file can only be waited for in the worker.
    :param retries: as of every task; 2 by default, since waiting may be repeated at no risk.
    :param mlflow_conn_id: the MLflow connection.
    """

    template_fields: Sequence[str] = ("model", "alias", "newer_than")

    def __init__(
        self,
        *,
        model: str,
        alias: str = "champion",
        newer_than: str | None = None,
        deferrable: bool = True,
        retries: int = 2,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, **kwargs)
        self.model = model
        self.alias = alias
        self.newer_than = newer_than
        self.deferrable = deferrable
        self.mlflow_conn_id = mlflow_conn_id

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002 - the signature of every sensor
        """Ask where the alias points now."""
        from airflow_provider_mlops.hooks.mlflow import MlflowHook
        from airflow_provider_mlops.promotion.registry import is_newer

        version = MlflowHook(self.mlflow_conn_id).registry.version_of(self.model, alias=self.alias)
        newer = is_newer(version or "0", self.newer_than or None)  # also when there is none: newer_than is judged
        if version is None or not newer:
            return PokeReturnValue(is_done=False)
        return PokeReturnValue(is_done=True, xcom_value=self._found(version))

    def execute(self, context: Context) -> Any:
        """Ask once, and wait by way of the triggerer or in the worker."""
        if not self.deferrable:
            return super().execute(context)
        try:
            outcome = self.poke(context)
        except MlopsError as error:
            self._fail(error)
        if outcome.is_done:
            return outcome.xcom_value
        self.defer(
            trigger=ModelVersionTrigger(
                model=self.model,
                alias=self.alias,
                newer_than=self.newer_than or None,
                mlflow_conn_id=self.mlflow_conn_id,
                poll_interval=self.poke_interval,
                minimum_wait=_MINIMUM_WAIT,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )
        return None

    def execute_complete(self, context: Context, event: dict[str, str]) -> dict[str, str]:  # noqa: ARG002
        """Hand on what the trigger found."""
        if "error" in event:
            self._fail(ServiceError(event["error"]))
        return self._found(event["version"])

    def _found(self, version: str) -> dict[str, str]:
        self.log.info("%s@%s is version %s.", self.model, self.alias, version)
        return {"model": self.model, "alias": self.alias, "version": version}

    def _fail(self, error: MlopsError) -> NoReturn:
        if self.never_fail:  # in the worker BaseSensorOperator sees to this, around a deferral nobody does
            raise AirflowSkipException(str(error)) from error
        raise error
