"""Waiting until the data of a model in use drifts."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowSensorTimeout, AirflowSkipException

from airflow_provider_mlops.errors import ConfigError, MlopsError, ServiceError
from airflow_provider_mlops.links import DriftReportLink
from airflow_provider_mlops.triggers.data import NewDataTrigger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

__all__ = ["DataDriftSensor"]

_MINIMUM_WAIT = 15.0  # seconds: a trigger that fires earlier makes Airflow 3.2 and 3.3 fail healthy tasks


class DataDriftSensor(BaseSensorOperator):
    """
    Wait until there is drift; return what `CheckDataDriftOperator` returns.

    Each version of the data is checked once. In between, a deferred sensor holds no worker: the triggerer lists the
    files every *poke_interval* seconds, and a worker checks again when they have changed. Only drift ends the wait:
    bad data is quarantined in the journal and waited out, like no data, too little data or no champion. *timeout*
    counts from the first look of an attempt, over all deferrals.

    :param model: the registered model whose data is watched. (templated)
    :param data: the data to judge, as keys of a `DataRef`: ``path``, ``timestamp``, ``columns``, ...; files only, since
        nothing tells when a table has changed. (templated)
    :param reference_profile: path or URL of a stored profile to compare with instead of the champion's. (templated)
    :param window: judge the newest span of this length, ``7d``; all rows without it. (templated)
    :param trailing: compare the window also with the time of this length just before it, ``28d``. (templated)
    :param max_rows: of Parquet files with more rows only about so many are read, spread over files and time; at least
        as many as *ignore_shift_below* takes.
    :param ignore_shift_below: smallest change that matters, a share 0..1.
    :param false_alarms_per_30_days: expected number of false alarms that is accepted.
    :param checks_per_30_days: how many windows are checked in that time.
    :param min_rows: a window with fewer rows is ``no_data``.
    :param exclude: columns that are not judged. (templated)
    :param report_folder: folder or URL below which reports are written; ``reports`` below ``[mlops] storage`` without
        it. (templated)
    :param deferrable: wait in the triggerer; otherwise in the worker, in the *mode* of every sensor.
    :param retries: as of every task; 2 by default, since a check may be repeated at no risk.
    :param mlflow_conn_id: the MLflow connection.
    """

    template_fields: Sequence[str] = (
        "model",
        "data",
        "reference_profile",
        "window",
        "trailing",
        "exclude",
        "report_folder",
    )
    operator_extra_links = (DriftReportLink(),)

    def __init__(
        self,
        *,
        model: str,
        data: Mapping[str, Any],
        reference_profile: str | None = None,
        window: str | None = None,
        trailing: str | None = None,
        max_rows: int | None = None,
        ignore_shift_below: float = 0.05,
        false_alarms_per_30_days: float = 1.0,
        checks_per_30_days: float = 30.0,
        min_rows: int = 50,
        exclude: Sequence[str] = (),
        report_folder: str | None = None,
        deferrable: bool = True,
        retries: int = 2,
        mlflow_conn_id: str = "mlflow_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(retries=retries, **kwargs)
        self.model = model
        self.data = data
        self.reference_profile = reference_profile
        self.window = window
        self.trailing = trailing
        self.max_rows = max_rows
        self.ignore_shift_below = ignore_shift_below
        self.false_alarms_per_30_days = false_alarms_per_30_days
        self.checks_per_30_days = checks_per_30_days
        self.min_rows = min_rows
        self.exclude = exclude
        self.report_folder = report_folder
        self.deferrable = deferrable
        self.mlflow_conn_id = mlflow_conn_id
        self._checked = ""  # fingerprint of the data that this process has checked last

    def poke(self, context: Context) -> PokeReturnValue:
        """Check the data, unless it is what was checked last, or not there yet."""
        from airflow_provider_mlops.adapters.fingerprint import fingerprint

        # Taken before the data is read: what changes meanwhile is then new.
        found = fingerprint(self._path)
        if found in {"", self._checked}:
            return PokeReturnValue(is_done=False)
        result = self._check(context)
        self._checked = found
        return PokeReturnValue(is_done=result["verdict"] == "drift", xcom_value=result)

    def execute(self, context: Context) -> Any:
        """Look, and wait by way of the triggerer or in the worker."""
        if not self.deferrable:
            return super().execute(context)
        return self._look(context, deadline=time.time() + self.timeout)

    def execute_complete(
        self, context: Context, event: dict[str, str], deadline: float | None = None, checked: str = ""
    ) -> Any:
        """
        Look again, since the triggerer saw other files than before.

        :param deadline: when the sensor gives up, seconds since 1970.
        :param checked: fingerprint of the data that was checked last.
        """
        deadline = time.time() + self.timeout if deadline is None else deadline
        if "error" in event:
            self._fail(ServiceError(event["error"]))
        self._checked = checked
        return self._look(context, deadline=deadline)

    def _look(self, context: Context, *, deadline: float) -> Any:
        try:
            outcome = self.poke(context)
        except MlopsError as error:
            self._fail(error)
        if outcome.is_done:
            return outcome.xcom_value
        # The clock on the wall, since a deadline outlives processes and machines.
        remaining = deadline - time.time()
        if remaining <= 0:
            self._time_out()
        self.defer(
            trigger=NewDataTrigger(
                path=self._path,
                seen=self._checked,
                poll_interval=self.poke_interval,
                minimum_wait=_MINIMUM_WAIT,
            ),
            method_name="execute_complete",
            kwargs={"deadline": deadline, "checked": self._checked},
            timeout=timedelta(seconds=remaining),
        )
        return None

    @property
    def _path(self) -> str:
        from airflow_provider_mlops.data.values import DataRef

        path = DataRef.from_dict(self.data, tables=True).path
        if not path:
            raise ConfigError(
                "DataDriftSensor waits for files to change, and data: names a table or a query. "
                "Run CheckDataDriftOperator on a schedule, and a DAG on the asset that it updates."
            )
        return path

    def _check(self, context: Context) -> dict[str, Any]:
        from airflow_provider_mlops.hooks.drift_check import DriftCheck, check_drift

        return check_drift(
            DriftCheck(
                model=self.model,
                data=self.data,
                reference_profile=self.reference_profile,
                window=self.window,
                trailing=self.trailing,
                max_rows=self.max_rows,
                ignore_shift_below=self.ignore_shift_below,
                false_alarms_per_30_days=self.false_alarms_per_30_days,
                checks_per_30_days=self.checks_per_30_days,
                min_rows=self.min_rows,
                exclude=self.exclude,
                report_folder=self.report_folder,
                mlflow_conn_id=self.mlflow_conn_id,
            ),
            context,
            self.log,
        )

    def _time_out(self) -> NoReturn:
        message = f"No drift of {self.model} within {timedelta(seconds=self.timeout)}."
        if self.soft_fail or self.never_fail:
            raise AirflowSkipException(message)
        raise AirflowSensorTimeout(message)

    def _fail(self, error: MlopsError) -> NoReturn:
        if self.never_fail:  # in the worker BaseSensorOperator sees to this, after a deferral nobody does
            raise AirflowSkipException(str(error)) from error
        raise error
