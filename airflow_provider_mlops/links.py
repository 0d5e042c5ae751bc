"""Links from a task in Airflow's UI to what it made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

__all__ = ["DriftReportLink", "MlflowRunLink"]


class MlflowRunLink(BaseOperatorLink):
    """The MLflow run that a task made, in MLflow's UI."""

    name = "MLflow run"
    below = ""  # the part of the run's page that is shown

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty string when the connection is no web address or the task made no run."""
        from airflow_provider_mlops.hooks.mlflow import MlflowHook

        result = XCom.get_value(ti_key=ti_key, key="return_value")
        server = MlflowHook(getattr(operator, "mlflow_conn_id", MlflowHook.default_conn_name)).tracking_uri
        if not isinstance(result, dict) or not result.get("run_id") or not server.startswith("http"):
            return ""
        return f"{server}/#/experiments/{result.get('experiment_id', 0)}/runs/{result['run_id']}{self.below}"


class DriftReportLink(MlflowRunLink):
    """The drift report on the champion's MLflow run, until the next check replaces it."""

    name = "Drift report"
    below = "/artifacts/mlops/drift_report.html"
